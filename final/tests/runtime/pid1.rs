//! `--init`.

use std::time::Duration;

use workshop::lab::Who;
use workshop::pty::Terminal;
use workshop::suite::{command, eventually, finish, run};

use crate::shared::{process, runs};
use crate::{BINARY, final_, script, start, stop};

pub fn an_init_is_in_front_of_the_program(_: Who) {
    let seen = script(&["--init"], "echo $$; cat /proc/1/comm; exit 7");
    assert_eq!((seen.status, seen.stdout.as_str()), (Some(7), "2\ninit\n"), "{seen:?}");
    assert_eq!(script(&["--init"], "kill -KILL $$").status, Some(137));
    let missing = final_(&["run", "--rm", "--init", "host", "no-such-program"]);
    assert_eq!(missing.status, Some(127), "{missing:?}");
    assert!(missing.stderr.contains("no-such-program: no such file"), "{missing:?}");
    // As bound as the program is.
    let same =
        "for pid in 1 self; do grep -E '^(Cap|Uid|NoNew|Seccomp)' /proc/$pid/status | md5sum; done";
    let seen = script(&["--init", "--cap-drop", "chown"], same).stdout;
    let lines: Vec<_> = seen.lines().collect();
    assert!(lines.len() == 2 && lines[0] == lines[1], "{seen}");
}

pub fn an_init_passes_on_signals(_: Who) {
    // Without it, sleep is PID 1 and has no handler.
    let runtime = start("box", &["--init"], &["sleep", "1000"]);
    assert_eq!(final_(&["kill", "--signal", "TERM", "box"]).status, Some(0));
    assert_eq!(finish(runtime, Duration::from_secs(60)).status, Some(143));
    let trap = "trap 'exit 5' USR1; touch /ready; while :; do sleep 0.1; done";
    let runtime = start("box", &["--init"], &["sh", "-c", trap]);
    let ready = || final_(&["exec", "box", "test", "-e", "/ready"]).status == Some(0);
    eventually("the trap is set", ready);
    assert_eq!(final_(&["kill", "--signal", "USR1", "box"]).status, Some(0));
    assert_eq!(finish(runtime, Duration::from_secs(60)).status, Some(5));
}

pub fn an_init_waits_for_orphans(_: Who) {
    let orphan = ["sh", "-c", "(sleep 0.1 &); exec sleep 1000"];
    for (options, left) in [(&[][..], "1\n"), (&["--init"], "0\n")] {
        let runtime = start("box", options, &orphan);
        let count = |state: &str| {
            let look = format!("cat /proc/[0-9]*/stat | grep -c '(sleep) {state}'");
            final_(&["exec", "box", "sh", "-c", &look]).stdout
        };
        // The program itself sleeps; its orphan has ended, and is a zombie if nobody waits for it.
        eventually("the orphan has ended", || count("S") == "1\n" && count("Z") == left);
        stop("box", runtime);
    }
}

pub fn an_init_leaves_the_terminal_to_the_program(_: Who) {
    let words = ["run", "--rm", "--init", "--hostname", "box"];
    let mut terminal = Terminal::start(command(BINARY, &words));
    terminal.expect("# ");
    terminal.type_in("echo pid''=$$ $(tty)\n");
    terminal.expect("pid=2 /dev/pts/0\r\n");
    terminal.type_in("sh -c \"echo it''runs; exec sleep 1000\"\n");
    terminal.expect("itruns\r\n");
    terminal.type_in("\x03");
    terminal.type_in("echo inter''rupted $?\n");
    terminal.expect("interrupted 130\r\n");
    terminal.type_in("exit 7\n");
    assert_eq!(terminal.child.wait().unwrap().code(), Some(7));
}

/// It is a copy of the runtime, and what the caller has told that is nobody's business.
pub fn an_init_knows_nothing_of_the_caller(_: Who) {
    let look =
        "cat /proc/1/cmdline /proc/1/environ | tr -d '\\0'; ls /proc/1/fd | wc -l; echo done";
    let options = ["--init", "--privileged", "-e", "PASSED=on"];
    let words = [&["run", "--rm"], &options[..], &["host", "sh", "-c", look]].concat();
    let mut caller = command(BINARY, &words);
    let seen = run(caller.env("SECRET", "of the caller"), Duration::from_secs(60));
    assert_eq!(seen.stdout, "3\ndone\n", "{seen:?}");
}

pub fn an_init_dies_with_the_monitor(_: Who) {
    let mut runtime = start("box", &["--init"], &["sleep", "1000"]);
    crate::kill_monitor("box");
    runtime.wait().unwrap();
    assert!(!final_(&["ps", "--all"]).stdout.contains("box"));
}

/// Among the host's processes it is not PID 1, and inherits its orphans nevertheless.
pub fn an_init_does_so_among_the_hosts_processes_too(_: Who) {
    let orphan = "(sleep 12399 &); exec sleep 12398";
    let runtime = start("box", &["--init", "--pid", "host"], &["sh", "-c", orphan]);
    eventually("both run", || runs("sleep 12398") && runs("sleep 12399"));
    // It had a parent for an instant, the shell.
    let parent = || {
        let status = format!("/proc/{}/status", process("sleep 12399")?);
        let status = std::fs::read_to_string(status).ok()?;
        let parent = status.lines().find_map(|line| line.strip_prefix("PPid:\t"))?;
        std::fs::read_to_string(format!("/proc/{parent}/comm")).ok()
    };
    eventually("the orphan is the init's", || parent().as_deref() == Some("init\n"));
    assert_eq!(final_(&["kill", "--signal", "TERM", "box"]).status, Some(0));
    assert_eq!(finish(runtime, Duration::from_secs(60)).status, Some(143));
    assert!(!runs("sleep 12398") && !runs("sleep 12399"));
}

pub fn an_exec_in_the_background_is_waited_for(_: Who) {
    let running = start("box", &[], &["sleep", "1000"]);
    let exec = |words: &[&str]| final_(&[&["exec"], words].concat());
    // Whoever reads all that we write is not held up, and what the program writes goes nowhere.
    let script = "echo out; echo err >&2; files=$(stat -Lc %t:%T:%d:%i /proc/$$/fd/[012] /dev/null | \
                  uniq); echo $files >/tmp/files; while [ ! -e /tmp/end ]; do sleep 0.01; done";
    let begun = exec(&["--detach", "box", "sh", "-c", script]);
    assert_eq!((begun.status, &*begun.stdout, &*begun.stderr), (Some(0), "", ""), "{begun:?}");
    eventually("it has looked", || exec(&["box", "test", "-s", "/tmp/files"]).status == Some(0));
    let files = exec(&["box", "cat", "/tmp/files"]).stdout;
    assert!(files.starts_with("1:3:") && !files.contains(' '), "the container's own null: {files}");
    assert!(final_(&["top", "box"]).stdout.contains("/tmp/end"));
    // Whose child it is: of a process that has left us, and waits.
    assert_eq!(exec(&["box", "touch", "/tmp/end"]).status, Some(0));
    let processes = || exec(&["box", "sh", "-c", "echo /proc/[0-9]*"]).stdout;
    eventually("it is gone, and no zombie", || processes().split(' ').count() == 2);

    let begun = exec(&["-dit", "box", "sh", "-c", "tty >/tmp/tty; exec sleep 1000"]);
    assert_eq!((begun.status, &*begun.stdout), (Some(0), ""), "{begun:?}");
    let terminal = || exec(&["box", "cat", "/tmp/tty"]).stdout;
    eventually("it has a terminal", || terminal().starts_with("/dev/pts/"));
    for (program, status) in [("no-such-program", 127), ("/", 126)] {
        let refused = exec(&["-d", "box", program]);
        assert_eq!((refused.status, &*refused.stdout), (Some(status), ""), "{refused:?}");
        assert!(refused.stderr.contains(program), "{refused:?}");
    }
    // It ends with the container, and who waits for it ends, too.
    assert_eq!(exec(&["-d", "box", "sleep", "1000"]).status, Some(0));
    stop("box", running);
    let gone = final_(&["exec", "-d", "box", "true"]);
    assert!(gone.status == Some(125) && gone.stderr.contains("box"), "{gone:?}");
}
