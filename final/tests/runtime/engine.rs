//! The life of a container.

use std::io::Write as _;
use std::process::Stdio;
use std::thread::sleep;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use workshop::lab::Who;
use workshop::suite::{command, eventually, finish};
use workshop::wire::Wire;

use crate::{BINARY, final_, kill_monitor, kill_with_monitor, probe_volume, script, start, stop};

pub fn the_programs_exit_status_is_passed_on(_: Who) {
    for (text, status) in [("exit 0", 0), ("exit 7", 7), ("exit 255", 255)] {
        assert_eq!(script(&[], text).status, Some(status));
    }
    // PID 1 cannot kill itself, so a child does.
    assert_eq!(script(&[], "sh -c 'kill -TERM $$'; exit $?").status, Some(143));

    let missing = final_(&["run", "--rm", "host", "no-such-program"]);
    assert_eq!(missing.status, Some(127), "{missing:?}");
    assert!(missing.stderr.contains("no-such-program"), "{missing:?}");
    for not_executable in ["/etc/passwd", "/usr"] {
        let refused = final_(&["run", "--rm", "host", not_executable]);
        assert_eq!(refused.status, Some(126), "{refused:?}");
        assert!(refused.stderr.contains(not_executable), "{refused:?}");
    }
}

pub fn bad_input_is_named_and_ends_in_125(_: Who) {
    let long = "x".repeat(5000);
    let newline = "a\nb";
    for (words, named) in [
        (&["--no-such-flag"][..], "--no-such-flag"),
        (&["--name", "a/b"], "a/b"),
        (&["--name", ".."], ".."),
        (&["--name", newline], "name"),
        (&["--name", &long], "128"),
        (&["--hostname", &long], "64"),
        (&["--memory", "5"], "6m"),
        (&["--memory", "lots"], "lots"),
        (&["--cpus", "nan"], "nan"),
        (&["--pids-limit", "0"], "0"),
        (&["--cpuset-cpus", "4096"], "4096"),
        (&["--net", "moon"], "moon"),
        (&["--publish", "0:80"], "\"0\""),
        (&["--subnet", "10.0.0.1/24"], "10.0.0.0/24"),
        (&["--volume", "/no-such-file:/x"], "/no-such-file"),
        (&["--volume", "/usr:x"], "x"),
        (&["--workdir", "x"], "x"),
        (&["--env", "=x"], "NAME"),
        (&["--restart", "unless-stopped", "host"], "unless-stopped"),
        (&["--restart", "always", "host"], "contradict"),
        (&["--stop-signal", "NONE", "host"], "NONE"),
        (&["--stop-timeout", "-2", "host"], "-2"),
        (&["--label", "=x", "host"], "label"),
        (&["--cidfile", "/etc/passwd", "host"], "/etc/passwd"),
        (&["--pull", "never", "no-such-image"], "no-such-image"),
        (&["/etc/passwd"], "/etc/passwd"),
    ] {
        let refused = final_(&[&["run", "--rm"], words].concat());
        assert_eq!(refused.status, Some(125), "{words:?}: {refused:?}");
        assert!(refused.stderr.contains(named), "{words:?}: {refused:?}");
        assert!(refused.stdout.is_empty(), "{words:?}: {refused:?}");
    }
    // An argument is the program's own affair.
    let echoed = final_(&["run", "--rm", "host", "echo", &long, newline]);
    assert_eq!(echoed.stdout, format!("{long} {newline}\n"));
    for verb in ["exec", "kill", "rm"] {
        let refused = final_(&[&[verb, "no-such-container"][..], &["true"]].concat());
        assert!(refused.status == Some(1) || refused.status == Some(125), "{refused:?}");
        assert!(refused.stderr.contains("no such container: no-such-container"), "{refused:?}");
    }
}

pub fn a_container_ends_up_in_ps_until_it_is_removed(_: Who) {
    assert_eq!(final_(&["run", "--name", "seven", "host", "sh", "-c", "exit 7"]).status, Some(7));
    assert!(!final_(&["ps"]).stdout.contains("seven"));
    let listed = final_(&["ps", "--all"]).stdout;
    assert!(listed.contains("seven") && listed.contains("Exited (7)"), "{listed}");
    // Who reads the list may go away, or have no room for it.
    for (to, status) in [("| true; exit ${PIPESTATUS[0]}", 0), ("> /dev/full", 1)] {
        let piped = format!("\"$0\" ps --all {to}");
        let program = workshop::lab::program(BINARY);
        let mut bash = std::process::Command::new("bash");
        bash.arg("-c").arg(piped).arg(program);
        let outcome = workshop::suite::run(&mut bash, Duration::from_secs(60));
        assert_eq!(outcome.status, Some(status), "{outcome:?}");
        assert!(!outcome.stderr.contains("panicked"), "{outcome:?}");
    }
    let id = final_(&["ps", "--all", "--quiet"]).stdout;
    assert_eq!(final_(&["rm", &id[..6]]).status, Some(0));
    assert_eq!(final_(&["ps", "--all", "--quiet"]).stdout, "");
}

pub fn a_name_is_taken_once(_: Who) {
    let first = start("twice", &[], &["sleep", "1000"]);
    let second = final_(&["run", "--name", "twice", "host", "true"]);
    assert_eq!(second.status, Some(125), "{second:?}");
    assert!(second.stderr.contains("\"twice\" is in use"), "{second:?}");
    assert!(final_(&["rm", "twice"]).stderr.contains("is running"));
    stop("twice", first);
}

pub fn signals_reach_the_program(_: Who) {
    let trap = "trap 'exit 5' TERM; trap 'exit 6' INT; touch /ready; while :; do sleep 0.1; done";
    for (signal, status) in [(Signal::SIGTERM, 5), (Signal::SIGINT, 6)] {
        let runtime = start("trap", &[], &["sh", "-c", trap]);
        eventually("the traps are set", || {
            final_(&["exec", "trap", "test", "-e", "/ready"]).status == Some(0)
        });
        kill(Pid::from_raw(runtime.id().cast_signed()), signal).unwrap();
        let ended = finish(runtime, Duration::from_secs(60));
        assert_eq!(ended.status, Some(status), "{ended:?}");
    }
}

pub fn kill_and_rm_end_a_container(_: Who) {
    let runtime = start("victim", &[], &["sleep", "1000"]);
    // sleep has no handler, and PID 1 gets no signal without one: the kernel's rule.
    assert_eq!(final_(&["kill", "--signal", "TERM", "victim"]).status, Some(0));
    assert!(final_(&["ps"]).stdout.contains("victim"));
    assert_eq!(stop("victim", runtime).status, Some(137));

    let runtime = start("victim", &[], &["sleep", "1000"]);
    assert_eq!(final_(&["rm", "--force", "victim"]).status, Some(0));
    assert_eq!(finish(runtime, Duration::from_secs(60)).status, Some(137));

    // Who has killed a container can use its name at once.
    let runtime = start("victim", &[], &["sleep", "1000"]);
    assert_eq!(final_(&["kill", "victim"]).status, Some(0));
    assert!(!final_(&["ps", "-a"]).stdout.contains("victim"));
    assert_eq!(finish(runtime, Duration::from_secs(60)).status, Some(137));
}

pub fn exec_joins_the_container(who: Who) {
    let runtime =
        start("box", &["--hostname", "box", "-e", "A=1", "-w", "/tmp"], &["sleep", "1000"]);
    let exec = |options: &[&str], text: &str| {
        final_(&[&["exec"], options, &["box", "sh", "-c", text]].concat())
    };
    assert_eq!(
        exec(&[], "hostname; pwd; echo $A; cat /proc/1/comm").stdout,
        "box\n/tmp\n1\nsleep\n"
    );
    assert_eq!(exec(&["-w", "/usr", "-e", "B=2"], "pwd; echo $B").stdout, "/usr\n2\n");
    assert_eq!(exec(&[], "exit 9").status, Some(9));
    assert_eq!(final_(&["exec", "box", "no-such-program"]).status, Some(127));

    // As bound as the first process: same namespaces, cgroup, capabilities and filters.
    let same = "for kind in mnt uts ipc pid net user cgroup; do readlink /proc/$1/ns/$kind; done; \
                grep -E '^(Cap|NoNewPrivs|Seccomp)' /proc/$1/status; cat /proc/$1/cgroup";
    let of = |pid: &str| final_(&["exec", "box", "sh", "-c", same, "sh", pid]).stdout;
    assert_eq!(of("1"), of("self"));
    if who == Who::Root {
        let limited = "cat /proc/self/cgroup";
        assert!(!exec(&[], limited).stdout.is_empty());
    }
    // What exec starts cannot outlive the container.
    let daemon = exec(&[], "setsid sleep 1000 </dev/null >/dev/null 2>&1 &");
    assert_eq!(daemon.status, Some(0), "{daemon:?}");
    stop("box", runtime);
    let late = final_(&["exec", "box", "true"]);
    assert!(late.stderr.contains("no such container"), "{late:?}");
}

pub fn input_is_passed_on_if_asked_for(_: Who) {
    let cat = |options: &[&str]| {
        let words = [&["run", "--rm"], options, &["host", "cat"]].concat();
        let mut command = command(BINARY, &words);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let _ = child.stdin.take().unwrap().write_all(b"typed"); // it may not be read
        finish(child, Duration::from_secs(60))
    };
    assert_eq!(cat(&["-i"]).stdout, "typed");
    assert_eq!(cat(&[]).stdout, "");
    let no_terminal = cat(&["-i", "-t"]);
    assert_eq!(no_terminal.status, Some(125));
    assert!(no_terminal.stderr.contains("not a terminal"), "{no_terminal:?}");
}

pub fn environment_and_working_directory_are_as_told(_: Who) {
    let words = ["run", "--rm", "-e", "A=1 2", "-e", "FROM_CALLER", "-e", "UNSET", "host", "env"];
    let mut caller = command(BINARY, &words);
    caller.env("FROM_CALLER", "yes").env("SECRET", "no").env_remove("UNSET");
    let shown = workshop::suite::run(&mut caller, Duration::from_secs(60)).stdout;
    for line in ["A=1 2", "FROM_CALLER=yes", "HOME=/root"] {
        assert!(shown.lines().any(|shown| shown == line), "{shown}");
    }
    assert!(!shown.contains("SECRET") && !shown.contains("UNSET"), "{shown}");
    // As docker does, a working directory that is not there is made.
    assert_eq!(script(&["-w", "/a/b"], "pwd").stdout, "/a/b\n");
}

pub fn a_killed_monitor_takes_its_container_along(who: Who) {
    // One that has changed its user is not killed by the kernel: the clean-up has to do it.
    if who == Who::Root {
        let volume = probe_volume();
        let runtime = start("other", &["-v", &volume], &["/probe", "@become", "1000"]);
        kill_monitor("other");
        let told = finish(runtime, Duration::from_secs(60));
        assert_eq!(told.status, Some(125), "{told:?}");
        assert!(told.stderr.contains("monitor was killed"), "{told:?}");
        assert_eq!(final_(&["gc"]).status, Some(0));
    }
    let port = if who == Who::Plain { &[][..] } else { &["-p", "8080:80"] };
    let runtime = start("orphan", port, &["sleep", "1000"]);
    kill_monitor("orphan"); // SIGKILL: no guard runs
    assert_eq!(finish(runtime, Duration::from_secs(60)).status, Some(125));
    // One more command brings the host back to what it was; the lab looks if that is so.
    let listed = final_(&["ps", "--all"]);
    assert!(!listed.stdout.contains("orphan"), "{listed:?}");
}

pub fn a_monitor_killed_at_any_time_leaves_nothing(who: Who) {
    let port = if who == Who::Plain { &[][..] } else { &["-p", "8080:80"] };
    let words = [&["run", "--rm"], port, &["host", "true"]].concat();
    let start = Instant::now();
    assert_eq!(final_(&words).status, Some(0));
    let whole = start.elapsed();
    // An emulated machine takes seconds for what a real one does in milliseconds.
    let parts = if whole > Duration::from_millis(500) { 8 } else { 40 };
    for part in 0..parts {
        let mut runtime = command(BINARY, &words);
        let mut runtime = runtime.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        sleep(whole * part / parts);
        kill_with_monitor(&mut runtime);
        let cleaned = final_(&["gc"]);
        assert_eq!((cleaned.status, cleaned.stderr.as_str()), (Some(0), ""), "{part}/{parts}");
        let links = Wire::open().and_then(|wire| wire.links()).unwrap();
        assert!(!links.contains(&"workshop0".to_owned()), "{part}/{parts}: {links:?}");
        assert_eq!(final_(&["ps", "--all", "--quiet"]).stdout, "", "{part}/{parts}");
    }
}

pub fn a_living_container_survives_the_clean_up(_: Who) {
    let survivor = start("survivor", &["-p", "8080:80"], &["sleep", "1000"]);
    let orphan = start("orphan", &["-p", "8081:80"], &["sleep", "1000"]);
    kill_monitor("orphan");
    finish(orphan, Duration::from_secs(60));
    assert_eq!(final_(&["gc"]).status, Some(0));
    assert!(final_(&["ps"]).stdout.contains("survivor"));
    let out = final_(&["exec", "survivor", "sh", "-c", "cat < /dev/null; echo alive"]);
    assert_eq!(out.stdout, "alive\n");
    // The dead one's port is free again.
    assert_eq!(script(&["-p", "8081:80"], "exit 4").status, Some(4));
    stop("survivor", survivor);
}
