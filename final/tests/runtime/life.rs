//! Containers that go on without who started them, and the verbs for these.

use std::collections::BTreeSet;
use std::fs;
use std::io::{Read as _, Write as _};
use std::os::unix::fs::FileTypeExt as _;
use std::process::{Child, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use workshop::lab::Who;
use workshop::pty::Terminal;
use workshop::suite::{Outcome, command, eventually, finish, get};

use crate::{BINARY, ensure_small_and_idle, final_, monitor, probe_volume};

const PATIENCE: Duration = Duration::from_secs(60);

/// `final` with these words, which has to be content.
pub fn done(words: &[&str]) -> String {
    let outcome = final_(words);
    assert_eq!((outcome.status, &*without_note(&outcome)), (Some(0), ""), "{words:?}: {outcome:?}");
    outcome.stdout
}

/// What it said, but for what it says of every plain user's container.
fn without_note(outcome: &Outcome) -> String {
    outcome.stderr.lines().filter(|line| !line.starts_with("rootless:")).collect()
}

/// `final run -d` with a name, options, and a shell script in the image `host`.
pub fn detach(name: &str, options: &[&str], script: &str) {
    let words = [&["run", "-d", "--name", name], options, &["host", "sh", "-c", script]].concat();
    let id = done(&words);
    assert!(id.len() == 65 && id.trim().bytes().all(|b| b.is_ascii_hexdigit()), "{id:?}");
}

/// `final` with these words, beside us.
fn beside(words: &[&str]) -> Child {
    let mut command = command(BINARY, words);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command.spawn().expect("final starts")
}

/// Its line in `ps --all`.
fn listed(name: &str) -> String {
    let list = done(&["ps", "--all"]);
    list.lines().find(|line| line.ends_with(&format!(" {name}"))).unwrap_or_default().to_owned()
}

/// Waits until its log has this line.
fn until_logged(name: &str, line: &str) {
    eventually(&format!("{name} writes {line}"), || {
        final_(&["logs", name]).stdout.lines().any(|logged| logged == line)
    });
}

fn file(name: &str, path: &str) -> String {
    final_(&["exec", name, "cat", path]).stdout
}

pub fn a_detached_container_serves_until_it_is_stopped(who: Who) {
    let volume = probe_volume();
    let port = if who == Who::Plain { &[][..] } else { &["-p", "8080:80"] };
    let script = "trap 'exit 0' TERM; /probe @serve 0.0.0.0:80 & wait";
    detach("web", &[&["-v", &volume], port].concat(), script);
    until_logged("web", "ready");
    if who != Who::Plain {
        assert!(get("127.0.0.1:8080", "/").contains("hello"));
    }
    assert!(listed("web").contains("Up "), "{}", listed("web"));
    assert_eq!(file("web", "/proc/1/comm"), "sh\n");
    assert_eq!(done(&["stop", "web"]), "web\n");
    assert!(listed("web").contains("Exited (0) "), "{}", listed("web"));
    assert_eq!(done(&["stop", "web"]), "web\n"); // it has ended, as was asked for
    assert_eq!(done(&["rm", "web"]), "web\n");
    assert_eq!(listed("web"), "");
}

pub fn logs_have_both_streams_with_their_times(_: Who) {
    let script = r#"echo one; echo two >&2; printf '\377"\\\n'; printf three; exit 3"#;
    assert_eq!(final_(&["run", "--name", "box", "host", "sh", "-c", script]).status, Some(3));
    let logs = final_(&["logs", "box"]);
    assert_eq!(logs.stdout, "one\n\u{fffd}\"\\\nthree");
    assert_eq!(logs.stderr, "two\n");
    let timed = final_(&["logs", "-t", "box"]).stdout;
    let (time, text) = timed.lines().next().unwrap().split_once(' ').unwrap();
    assert_eq!(text, "one");
    assert!(time.len() == "2030-01-01T00:00:00.000000000Z".len() && time.ends_with('Z'), "{time}");
    assert_eq!(done(&["logs", "--tail", "1", "box"]), "three");
    assert_eq!(done(&["logs", "-n", "0", "box"]), "");
    assert_eq!(final_(&["logs", "--tail", "-1", "box"]).stdout, logs.stdout);
    assert_eq!(done(&["logs", "--until", time.split('.').next().unwrap(), "box"]), "");
    assert_eq!(final_(&["logs", "--since", "10m", "box"]).stdout, logs.stdout);
    assert_eq!(done(&["logs", "--since", "4102444800", "box"]), ""); // 2100
    for (words, named) in [(["--since", "soon"], "soon"), (["--tail", "x"], "x")] {
        let refused = final_(&[&["logs"], &words[..], &["box"]].concat());
        assert!(refused.status == Some(125) && refused.stderr.contains(named), "{refused:?}");
    }
    assert_eq!(final_(&["logs", "nobody"]).status, Some(1));
    done(&["rm", "box"]);
}

pub fn logs_are_followed_to_the_end(_: Who) {
    let script = "echo a; read go </go; echo b >&2; echo c; exit 5";
    detach("box", &[], &format!("mkfifo /go; {script}"));
    until_logged("box", "a");
    let mut followers: Vec<_> = (0..2).map(|_| beside(&["logs", "-f", "box"])).collect();
    let mut first = [0; 2];
    followers[0].stdout.as_mut().unwrap().read_exact(&mut first).unwrap();
    assert_eq!(&first, b"a\n");
    assert!(followers[0].try_wait().unwrap().is_none(), "it goes on");
    // Not before the exec itself has ended: the container takes along who is still in it.
    done(&["exec", "box", "sh", "-c", "(sleep 0.5; echo go >/go) >/dev/null 2>&1 &"]);
    let ended: Vec<_> = followers.into_iter().map(|child| finish(child, PATIENCE)).collect();
    assert_eq!((&*ended[0].stdout, &*ended[0].stderr), ("c\n", "b\n"));
    assert_eq!((&*ended[1].stdout, &*ended[1].stderr), ("a\nc\n", "b\n"));
    assert_eq!(final_(&["logs", "-f", "box"]).stdout, "a\nc\n", "of one that has ended");
    done(&["rm", "box"]);
}

pub fn logs_are_rotated(_: Who) {
    let line = "x".repeat(1000);
    let script = format!("i=0; while [ $i -lt 24000 ]; do echo $i {line}; i=$((i+1)); done");
    detach("box", &[], &script);
    assert_eq!(done(&["wait", "box"]), "0\n");
    let root = std::env::var("FINAL_ROOT").unwrap();
    let directory = fs::read_dir(format!("{root}/containers")).unwrap().next().unwrap().unwrap();
    let sizes = ["log.json", "log.json.1"]
        .map(|name| fs::metadata(directory.path().join(name)).unwrap().len());
    assert!(sizes.iter().all(|&size| size > 0 && size <= 10 << 20), "{sizes:?}");
    let logs = done(&["logs", "box"]);
    let numbers: Vec<usize> =
        logs.lines().map(|line| line.split(' ').next().unwrap().parse().unwrap()).collect();
    assert!(numbers.windows(2).all(|pair| pair[0] + 1 == pair[1]), "none is missing in between");
    assert_eq!(numbers.last(), Some(&23_999));
    assert!(numbers[0] > 0 && numbers.len() > 10_000, "{}", numbers.len());
    done(&["rm", "box"]);
}

pub fn stop_asks_first_and_then_kills(_: Who) {
    // PID 1 without a handler does not even hear it.
    detach("deaf", &["--stop-timeout", "1"], "sleep 1000");
    let start = Instant::now();
    done(&["stop", "deaf"]);
    assert!(start.elapsed() >= Duration::from_secs(1), "it was asked first");
    assert!(listed("deaf").contains("Exited (137)"), "{}", listed("deaf"));

    let script = "trap 'echo bye; exit 4' INT; echo ready; while :; do sleep 0.05; done";
    detach("polite", &["--stop-signal", "INT"], script);
    until_logged("polite", "ready");
    done(&["stop", "--timeout", "-1", "polite"]);
    assert!(listed("polite").contains("Exited (4)"), "{}", listed("polite"));
    assert!(done(&["logs", "polite"]).ends_with("bye\n"));
    done(&["start", "polite"]);
    // As asked for now, whatever it was made with.
    done(&["stop", "-s", "KILL", "polite"]);
    assert!(listed("polite").contains("Exited (137)"), "{}", listed("polite"));
    done(&["start", "polite"]);
    done(&["restart", "-t", "0", "-s", "USR1", "deaf"]);
    assert!(listed("deaf").contains("Up "), "{}", listed("deaf"));
    let both = final_(&["stop", "-t", "0", "polite", "nobody", "deaf"]);
    assert_eq!((both.status, &*both.stdout), (Some(1), "polite\ndeaf\n"), "{both:?}");
    assert!(both.stderr.contains("no such container: nobody"), "{both:?}");
    done(&["rm", "deaf", "polite"]);
}

pub fn a_created_container_is_started_later(_: Who) {
    let id =
        done(&["create", "--name", "later", "-i", "-l", "a=b", "host", "sh", "-c", "cat; exit 6"]);
    assert!(listed("later").contains("Created"), "{}", listed("later"));
    assert!(!done(&["ps"]).contains("later"));
    assert_eq!(final_(&["exec", "later", "true"]).status, Some(125));
    let mut start = command(BINARY, &["start", "-a", "-i", id.trim()]);
    let mut start =
        start.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    start.stdin.take().unwrap().write_all(b"typed").unwrap();
    let ended = finish(start, PATIENCE);
    assert_eq!((ended.status, &*ended.stdout), (Some(6), "typed"), "{ended:?}");
    done(&["rm", "later"]);

    // One that cannot start stays, and says why each time.
    done(&["create", "--name", "no", "host", "no-such-program"]);
    for _ in 0..2 {
        let refused = final_(&["start", "no"]);
        assert_eq!(refused.status, Some(1), "{refused:?}");
        assert!(refused.stderr.contains("no-such-program"), "{refused:?}");
        assert!(listed("no").contains(" Created "), "{}", listed("no"));
    }
    done(&["rm", "no"]);
    let root = std::env::var("FINAL_ROOT").unwrap();
    let file = format!("{root}/id");
    let id = done(&["run", "-d", "--rm", "--cidfile", &file, "host", "true"]);
    assert_eq!(fs::read_to_string(&file).unwrap(), id.trim());
    fs::remove_file(&file).unwrap();
    assert_eq!(final_(&["run", "--rm", "--cidfile", &file, "host", "no-such"]).status, Some(127));
    assert!(!fs::exists(&file).unwrap(), "there is no container");
}

pub fn what_was_written_is_there_after_the_next_start(_: Who) {
    // In the overlay of / and in that of /usr; also what its owner may not read.
    let script = "echo run >>/runs; cat /runs; mkdir -p /usr/new /closed; rm -f /etc/passwd; \
                  echo x >/usr/new/file; chmod 0 /closed; test ! -e /etc/passwd";
    assert_eq!(final_(&["run", "--name", "box", "host", "sh", "-c", script]).stdout, "run\n");
    let second = final_(&["start", "-a", "box"]);
    assert_eq!((second.status, &*second.stdout), (Some(0), "run\nrun\n"), "{second:?}");
    // Another one does not see it.
    assert_eq!(final_(&["run", "--rm", "host", "test", "-e", "/runs"]).status, Some(1));
    done(&["rm", "box"]);
}

pub fn two_wait_for_one_end(_: Who) {
    detach("box", &["--rm"], "trap 'exit 9' TERM; echo ready; while :; do sleep 0.05; done");
    until_logged("box", "ready");
    let waiting: Vec<_> = (0..2).map(|_| beside(&["wait", "box"])).collect();
    waiting.iter().for_each(until_connected);
    done(&["kill", "-s", "TERM", "box"]);
    for child in waiting {
        assert_eq!(finish(child, PATIENCE).stdout, "9\n");
    }
    assert_eq!(final_(&["wait", "box"]).status, Some(1), "it is gone");
    assert_eq!(final_(&["run", "--name", "box", "host", "sh", "-c", "exit 2"]).status, Some(2));
    assert_eq!(done(&["wait", "box"]), "2\n");
    done(&["rm", "box"]);
}

/// Waits until this `final` is connected to a monitor, and has said what it wants.
fn until_connected(client: &Child) {
    let is_socket = |entry: std::io::Result<fs::DirEntry>| {
        fs::metadata(entry.unwrap().path()).is_ok_and(|file| file.file_type().is_socket())
    };
    let open = || fs::read_dir(format!("/proc/{}/fd", client.id())).unwrap();
    let sleeps = || workshop::suite::read(format!("/proc/{}/stat", client.id())).contains(") S ");
    eventually("it is connected", || open().any(is_socket) && sleeps());
    sleep(Duration::from_millis(100));
}

pub fn a_restart_policy_counts(_: Who) {
    let start = Instant::now();
    detach("box", &["--restart", "on-failure:2"], "echo run >>/runs; cat /runs; exit 3");
    eventually("it has given up", || listed("box").contains("Exited (3)"));
    assert!(start.elapsed() >= Duration::from_millis(300), "100 ms, then 200");
    // In the same container, so it finds what it wrote.
    assert_eq!(done(&["logs", "box"]), "run\nrun\nrun\nrun\nrun\nrun\n");
    done(&["rm", "box"]);
    // No failure is no reason.
    detach("box", &["--restart", "on-failure"], "echo run");
    assert_eq!(done(&["wait", "box"]), "0\n");
    assert_eq!(done(&["logs", "box"]), "run\n");
    done(&["rm", "box"]);
}

pub fn stop_ends_what_would_be_restarted(_: Who) {
    detach("box", &["--restart", "always"], "echo run");
    eventually("it was started again", || done(&["logs", "box"]).lines().count() >= 3);
    eventually("it waits", || listed("box").contains("Restarting (0)"));
    done(&["stop", "box"]);
    let runs = done(&["logs", "box"]).lines().count();
    assert!(listed("box").contains("Exited (0)"), "{}", listed("box"));
    sleep(Duration::from_millis(500));
    assert_eq!(done(&["logs", "box"]).lines().count(), runs);
    done(&["rm", "box"]);
}

pub fn a_paused_container_stands_still(_: Who) {
    let script = "i=0; while :; do echo $i; i=$((i+1)); sleep 0.01; done";
    detach("box", &["--stop-timeout", "1"], script);
    until_logged("box", "3");
    assert_eq!(done(&["pause", "box"]), "box\n");
    let lines = || done(&["logs", "box"]).lines().count();
    eventually("all is read", || {
        let before = lines();
        sleep(Duration::from_millis(100));
        before == lines()
    });
    assert!(listed("box").contains("(Paused)"), "{}", listed("box"));
    for (words, named) in [
        (&["pause", "box"][..], "paused already"),
        (&["exec", "box", "true"], "unpause"),
        (&["attach", "box"], "unpause"),
    ] {
        let refused = final_(words);
        assert!(refused.status != Some(0) && refused.stderr.contains(named), "{refused:?}");
    }
    let before = lines();
    done(&["unpause", "box"]);
    eventually("it goes on", || lines() > before);
    assert!(final_(&["unpause", "box"]).stderr.contains("not paused"));
    // Who is paused can be ended, in both ways.
    done(&["pause", "box"]);
    done(&["stop", "box"]);
    done(&["start", "box"]);
    done(&["pause", "box"]);
    done(&["kill", "box"]);
    done(&["start", "box"]);
    done(&["pause", "box"]);
    crate::kill_monitor("box");
    assert!(listed("box").contains("Exited (137)"), "{}", listed("box"));
    done(&["rm", "box"]);
}

pub fn without_a_cgroup_nothing_is_paused(_: Who) {
    detach("box", &[], "sleep 1000");
    let refused = final_(&["pause", "box"]);
    assert_eq!(refused.status, Some(1), "{refused:?}");
    assert!(refused.stderr.contains("no cgroup of its own"), "{refused:?}");
    done(&["rm", "-f", "box"]);
}

pub fn two_are_attached_at_once(_: Who) {
    detach("box", &["-i"], "while read line; do echo got $line; done; exit 8");
    let mut first = command(BINARY, &["attach", "box"]);
    let mut first =
        first.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let second = beside(&["attach", "--no-stdin", "box"]);
    [&first, &second].into_iter().for_each(until_connected);
    let mut input = first.stdin.take().unwrap();
    for word in ["one\n", "two\n"] {
        input.write_all(word.as_bytes()).unwrap();
    }
    until_logged("box", "got two");
    // The end of the first one's input is not the program's: it is in the background.
    drop(input);
    sleep(Duration::from_millis(100));
    assert!(listed("box").contains("Up "));
    done(&["kill", "box"]);
    for child in [first, second] {
        let ended = finish(child, PATIENCE);
        assert_eq!((ended.status, &*ended.stdout), (Some(137), "got one\ngot two\n"), "{ended:?}");
    }
    assert_eq!(final_(&["attach", "box"]).status, Some(1));
    done(&["rm", "box"]);
}

pub fn signals_are_the_programs_or_end_the_attached(_: Who) {
    detach("box", &[], "trap 'echo got' INT; echo ready; while :; do sleep 0.05; done");
    until_logged("box", "ready");
    let pid = |client: &Child| Pid::from_raw(client.id().cast_signed());
    let aloof = beside(&["attach", "--sig-proxy=false", "box"]);
    let close = beside(&["attach", "box"]);
    [&aloof, &close].into_iter().for_each(until_connected);
    kill(pid(&aloof), Signal::SIGCONT).unwrap();
    kill(pid(&aloof), Signal::SIGINT).unwrap();
    assert_eq!(finish(aloof, PATIENCE).status, Some(130));
    assert_eq!(done(&["logs", "box"]), "ready\n", "the program has not heard of it");
    kill(pid(&close), Signal::SIGINT).unwrap();
    until_logged("box", "got");
    done(&["rm", "-f", "box"]);
    assert_eq!(finish(close, PATIENCE).status, Some(137));
}

pub fn keys_detach_from_a_terminal(_: Who) {
    let words = ["run", "-it", "--name", "box", "--hostname", "box", "host", "sh"];
    let mut terminal = Terminal::start(command(BINARY, &words));
    terminal.expect("# ");
    terminal.type_in("A=kept\n");
    terminal.expect("# ");
    terminal.type_in("\x10\x11");
    assert_eq!(terminal.child.wait().unwrap().code(), Some(0));
    assert_eq!(terminal.mode(), terminal.before, "the terminal is as it was");
    assert!(listed("box").contains("Up "), "{}", listed("box"));

    let mut terminal = Terminal::start(command(BINARY, &["attach", "box"]));
    terminal.type_in("\necho $A $(stty size)\n");
    terminal.expect("kept 24 80\r\n");
    terminal.resize(33, 99);
    terminal.type_in("while [ \"$(stty size)\" != '33 99' ]; do :; done; echo resi''zed\n");
    terminal.expect("resized\r\n");
    terminal.type_in("exit 5\n");
    assert_eq!(terminal.child.wait().unwrap().code(), Some(5));
    done(&["rm", "box"]);
    // Also one that was detached from the beginning has a terminal, of no size yet.
    done(&["run", "-d", "-it", "--name", "box", "host", "sh"]);
    let mut terminal = Terminal::start(command(BINARY, &["attach", "box"]));
    terminal.type_in("tty; exit 3\n");
    terminal.expect("/dev/pts/0\r\n");
    assert_eq!(terminal.child.wait().unwrap().code(), Some(3));
    done(&["rm", "box"]);
}

pub fn a_container_outlives_who_started_it(_: Who) {
    let script = "trap 'exit 3' TERM; i=0; while :; do echo $i; i=$((i+1)); sleep 0.01; done";
    let mut runtime = beside(&["run", "--name", "box", "host", "sh", "-c", script]);
    until_logged("box", "3");
    runtime.kill().unwrap();
    let seen = finish(runtime, PATIENCE);
    assert_eq!(seen.status, None, "{seen:?}");
    let lines = || done(&["logs", "box"]).lines().count();
    let before = lines();
    eventually("it writes on", || lines() > before + 3);
    let error = fs::read_link(format!("/proc/{}/fd/2", monitor("box"))).unwrap();
    assert_eq!(error.to_str(), Some("/dev/null"), "nothing of its caller is left open");
    done(&["stop", "box"]);
    assert!(listed("box").contains("Exited (3)"), "{}", listed("box"));
    done(&["rm", "box"]);
}

pub fn who_is_killed_at_any_time_leaves_a_whole_container_or_none(_: Who) {
    let words = ["run", "--rm", "host", "true"];
    let start = Instant::now();
    assert_eq!(final_(&words).status, Some(0));
    let whole = start.elapsed();
    let parts = if whole > Duration::from_millis(500) { 5 } else { 20 };
    for part in 0..parts {
        let mut runtime = command(BINARY, &words);
        let mut runtime = runtime.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        sleep(whole * part / parts);
        runtime.kill().unwrap();
        runtime.wait().unwrap();
        // It runs to its end, and its monitor removes it.
        eventually("it has ended", || done(&["ps", "--all", "--quiet"]).is_empty());
    }
}

pub fn a_reader_that_never_reads_holds_up_nobody(_: Who) {
    // More than all pipes and sockets take.
    let script = "trap 'exit 3' TERM; read go; i=0; while [ $i -lt 100000 ]; do \
                  echo a line of some length that is the number $i; i=$((i+1)); done; \
                  echo all; while :; do sleep 0.05; done";
    detach("box", &["-i"], script);
    let attached = beside(&["attach", "--no-stdin", "box"]);
    until_connected(&attached);
    kill(Pid::from_raw(attached.id().cast_signed()), Signal::SIGSTOP).unwrap();
    let mut starter = command(BINARY, &["attach", "box"]);
    let mut starter =
        starter.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    starter.stdin.take().unwrap().write_all(b"go\n").unwrap();
    until_logged("box", "all");
    done(&["stop", "box"]);
    assert!(listed("box").contains("Exited (3)"), "{}", listed("box"));
    kill(Pid::from_raw(attached.id().cast_signed()), Signal::SIGCONT).unwrap();
    let seen = finish(attached, PATIENCE);
    assert_eq!(seen.status, Some(1), "{}", seen.stderr);
    assert!(seen.stderr.contains("did not wait"), "{}", seen.stderr);
    starter.wait().unwrap();
    done(&["rm", "box"]);
}

pub fn a_slow_reader_loses_nothing(_: Who) {
    // Who started it is waited for, as at a pipe; and yet it can be ended.
    let script = "i=0; while :; do echo a line of some length that is the number $i; \
                  i=$((i+1)); done";
    let words = ["run", "--rm", "--name", "box", "host", "sh", "-c", script];
    let mut runtime = beside(&words);
    let lines = || final_(&["logs", "box"]).stdout.lines().count();
    eventually("it is held up", || {
        let before = lines();
        sleep(Duration::from_millis(200));
        before > 1000 && before == lines()
    });
    kill(Pid::from_raw(runtime.id().cast_signed()), Signal::SIGTERM).unwrap(); // it has no handler
    done(&["kill", "box"]);
    let mut text = String::new();
    runtime.stdout.take().unwrap().read_to_string(&mut text).unwrap();
    assert_eq!(runtime.wait().unwrap().code(), Some(137));
    // (In the last line it may have been killed.)
    for (number, line) in text.lines().enumerate().take(text.lines().count() - 1) {
        assert_eq!(line, format!("a line of some length that is the number {number}"));
    }
}

pub fn stats_show_what_is_used(who: Who) {
    let volume = probe_volume();
    let limit = if who == Who::Root { &["--memory", "64m"][..] } else { &[] };
    detach("busy", &[&["-v", &volume], limit].concat(), "/probe @spin 1000");
    detach("idle", &[], "sleep 1000");
    let table = done(&["stats", "--no-stream"]);
    assert!(table.starts_with("CONTAINER ID   NAME "), "{table}");
    let line = |name: &str| table.lines().find(|line| line.contains(name)).unwrap_or_default();
    assert!(!line("busy").is_empty() && !line("idle").is_empty(), "{table}");
    if who == Who::Root {
        let cpu = |name: &str| -> f64 {
            line(name).split_whitespace().nth(2).unwrap().trim_end_matches('%').parse().unwrap()
        };
        // Others may have the processors, too; but who sleeps uses none.
        assert!(cpu("busy") > 5.0 && cpu("idle") < 1.0, "{table}");
        assert!(line("busy").contains(" / 64MiB "), "{table}");
        assert!(line("busy").ends_with(" 2"), "a shell and the probe: {table}");
    }
    let one = done(&["stats", "--no-stream", "idle"]);
    assert_eq!(one.lines().count(), 2, "{one}");
    assert!(final_(&["stats", "--no-stream", "nobody"]).stderr.contains("no such container"));
    done(&["kill", "idle"]);
    done(&["wait", "idle"]);
    assert!(final_(&["stats", "--no-stream", "idle"]).stderr.contains("not running"));
    let all = done(&["stats", "--no-stream", "-a", "--no-trunc", "idle"]);
    let ended: Vec<_> = all.lines().nth(1).unwrap().split_whitespace().collect();
    assert_eq!((ended[0].len(), ended[1], ended[2]), (64, "idle", "0.00%"), "{all}");
    done(&["rm", "-f", "busy", "idle"]);
    assert!(final_(&["stats", "--no-stream"]).stdout.lines().count() == 1);
}

pub fn stats_show_what_was_read_and_written(who: Who) {
    detach("box", &["-v", "/var/tmp:/disk"], "sleep 1000");
    // Past the cache, or nobody knows when it is written. As docker: in and out, 1 MB is 1000000 bytes.
    let copy = "file=$(mktemp -p /disk) && dd if=/dev/zero of=$file bs=1M count=8 oflag=direct && \
                dd if=$file of=/dev/null bs=1M count=4 iflag=direct; status=$?; rm $file; exit $status";
    let copied = final_(&["exec", "box", "sh", "-c", copy]);
    assert_eq!(copied.status, Some(0), "/var/tmp has to be on a disk: {copied:?}");
    let shown = done(&["stats", "--no-stream", "--format", "{{.BlockIO}}", "box"]);
    let controllers = done(&["exec", "box", "cat", "/sys/fs/cgroup/cgroup.controllers"]);
    if controllers.split_whitespace().any(|name| name == "io") {
        let megabytes = |text: &str| text.strip_suffix("MB").map(|number| number.parse().unwrap());
        let (read, written) = shown.trim().split_once(" / ").unwrap();
        // And what the file system needs itself.
        let near =
            |text, least: f64| (least..least + 3.0).contains(&megabytes(text).unwrap_or(0.0));
        assert!(near(read, 4.19) && near(written, 8.38), "/var/tmp has to be on a disk: {shown}");
    } else {
        assert_eq!(shown, "--\n", "nobody counts");
        assert_ne!(who, Who::Root, "is there no io controller? {controllers}");
    }
    done(&["rm", "-f", "box"]);
}

pub fn a_monitor_is_small_and_idle(_: Who) {
    detach("box", &["-e", "A=1"], "echo ready; exec sleep 1000");
    until_logged("box", "ready");
    done(&["exec", "box", "true"]);
    ensure_small_and_idle("the monitor", monitor("box"));
    done(&["rm", "-f", "box"]);
}

pub fn two_starts_at_once_start_it_once(_: Who) {
    done(&["create", "--name", "box", "host", "sh", "-c", "echo run; sleep 1000"]);
    for round in 1..=5 {
        let both: Vec<_> = (0..2).map(|_| beside(&["start", "box"])).collect();
        for child in both {
            let ended = finish(child, PATIENCE);
            assert_eq!((ended.status, &*ended.stdout), (Some(0), "box\n"), "{ended:?}");
        }
        eventually("it runs", || done(&["logs", "box"]).lines().count() >= round);
        assert_eq!(done(&["logs", "box"]).lines().count(), round);
        done(&["kill", "box"]);
    }
    done(&["rm", "box"]);
}

pub fn a_detached_container_keeps_nothing_of_its_caller(_: Who) {
    use std::os::unix::process::CommandExt as _;
    let directory = std::env::var("XDG_RUNTIME_DIR").unwrap();
    let words = ["run", "-d", "--name", "box", "host", "sleep", "1000"];
    let mut runtime = command(BINARY, &words);
    runtime.current_dir(&directory);
    // SAFETY: dup2(2) may be called between fork and exec.
    unsafe {
        runtime.pre_exec(|| {
            (5..9).for_each(|fd| assert_eq!(libc::dup2(0, fd), fd)); // files that stay open over an exec
            Ok(())
        });
    }
    // Its outputs are pipes, whose end is read: nobody holds them open any more.
    let outcome = workshop::suite::run(&mut runtime, PATIENCE);
    assert_eq!(outcome.status, Some(0), "{outcome:?}");
    let pid = monitor("box");
    let link = |path: &str| fs::read_link(format!("/proc/{pid}/{path}"));
    assert_eq!(link("cwd").unwrap().to_str(), Some("/"));
    for fd in 0..3 {
        assert_eq!(link(&format!("fd/{fd}")).unwrap().to_str(), Some("/dev/null"));
    }
    let open = fs::read_dir(format!("/proc/{pid}/fd")).unwrap();
    let open: BTreeSet<_> = open
        .filter_map(|entry| fs::read_link(entry.unwrap().path()).ok())
        .filter(|path| path.is_absolute())
        .map(|path| path.display().to_string())
        .collect();
    let ours = ["/dev/null", "/sys/fs/cgroup", "/run"];
    let foreign: Vec<_> = open.iter().filter(|p| !ours.iter().any(|o| p.starts_with(o))).collect();
    assert!(foreign.is_empty(), "{foreign:?}");
    // It leads a session of its own, and uses no processor time while nothing happens.
    let stat = |field: usize| {
        let text = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
        let rest = text.rsplit_once(')').unwrap().1.to_owned();
        rest.split_whitespace().nth(field - 3).unwrap().to_owned()
    };
    assert_eq!(stat(6), pid.to_string());
    let switches = || {
        let text = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
        text.lines().filter(|line| line.contains("ctxt_switches")).map(str::to_owned).collect()
    };
    let before: Vec<String> = switches();
    sleep(Duration::from_secs(1));
    assert_eq!(before, switches(), "it was not run once");
    done(&["rm", "-f", "box"]);
}

pub fn the_state_is_where_it_belongs(_: Who) {
    let directory = std::env::var("XDG_RUNTIME_DIR").unwrap();
    let long = format!("{directory}/{}", "a-directory-with-a-long-name".repeat(5));
    let at_home = |words: &[&str]| {
        let mut command = command(BINARY, words);
        command.env_remove("FINAL_ROOT").env("XDG_DATA_HOME", &long);
        workshop::suite::run(&mut command, PATIENCE)
    };
    // Also where a socket's address would be too long.
    let words = ["run", "-d", "--name", "box", "host", "sleep", "1000"];
    assert_eq!(at_home(&words).status, Some(0));
    let containers = format!("{long}/container-workshop/containers");
    assert_eq!(fs::read_dir(&containers).unwrap().count(), 1);
    assert!(!done(&["ps", "-a"]).contains("box"), "another place has other containers");
    assert_eq!(at_home(&["stop", "-t", "0", "box"]).stdout, "box\n");
    assert_eq!(at_home(&["rm", "box"]).stdout, "box\n");
    fs::remove_dir_all(&long).unwrap();
}
