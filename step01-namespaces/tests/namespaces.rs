//! Step 1 against the real kernel: the binary in a lab, and what /proc says.

use std::ffi::OsStr;
use std::fs::{self, Permissions};
use std::io::Read as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, Stdio};
use std::thread::sleep;
use std::time::Duration;

use nix::errno::Errno;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sys::prctl::set_child_subreaper;
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, waitpid};
use nix::unistd::{Pid, Uid, User, getegid, geteuid};
use workshop::lab::Who;
use workshop::pty::Terminal;
use workshop::suite::{Outcome, Test, command, eventually, finish, read, run, suite, this_program};
use workshop::test;

const BINARY: &str = env!("CARGO_BIN_EXE_step01-namespaces");
const KINDS: [&str; 8] = ["mnt", "uts", "ipc", "pid", "net", "user", "cgroup", "time"];
const PATIENCE: Duration = Duration::from_secs(60);

static TESTS: &[Test] = &[
    test!(each_namespace_is_new, [Root, LabRoot, Plain], by_hand),
    test!(a_shared_namespace_is_the_hosts, [Root, LabRoot, Plain]),
    test!(
        the_caller_is_root_in_a_user_namespace_and_itself_outside,
        [Root, LabRoot, Plain],
        by_hand
    ),
    test!(a_user_with_subordinate_ids_gets_them_by_newuidmap, [Root]),
    test!(the_program_is_pid_1_and_knows_no_process_outside, [Root, LabRoot, Plain], by_hand),
    test!(only_the_container_gets_the_host_name, [Root, LabRoot, Plain], by_hand),
    test!(a_mount_made_inside_stays_inside, [Root, LabRoot], by_hand),
    test!(without_a_pid_namespace_it_is_one_of_many, [Root, LabRoot, Plain]),
    test!(the_exit_status_is_the_programs, [Root, LabRoot, Plain], by_hand),
    test!(a_program_that_cannot_be_executed_is_named, [Root, LabRoot, Plain]),
    test!(a_bad_command_line_ends_in_125_and_names_the_fault, [Plain]),
    test!(arguments_are_passed_on_byte_by_byte, [Plain], by_hand),
    test!(the_program_starts_with_no_open_file_or_signal_mask_of_ours, [Root, Plain]),
    test!(a_signal_sent_to_the_parent_reaches_the_program, [Root, LabRoot, Plain]),
    test!(pid_1_ignores_a_signal_that_it_has_no_handler_for, [Root, LabRoot, Plain]),
    test!(a_ctrl_c_reaches_the_program_once, [Root, LabRoot, Plain]),
    test!(when_the_parent_is_killed_the_container_ends, [Root, LabRoot, Plain], by_hand),
    test!(killing_the_parent_at_any_time_leaves_nothing, [Root, Plain]),
    test!(a_full_process_table_is_named_as_the_cause, [LabRoot, Plain]),
    test!(a_namespace_limit_is_named_as_the_cause, [LabRoot]),
];

fn main() -> ExitCode {
    suite(TESTS)
}

/// In labs of a plain user, root's PATH may name directories that are closed to us.
fn step01(words: &[&str]) -> Outcome {
    run(command(BINARY, words).env("PATH", "/usr/bin:/bin"), PATIENCE)
}

/// What the program wrote, after it ended well.
fn output(words: &[&str]) -> String {
    let outcome = step01(words);
    assert_eq!(outcome.status, Some(0), "{words:?}: {outcome:?}");
    outcome.stdout.trim().to_owned()
}

/// Starts a container whose script goes on for a while.
fn start(words: &[&str]) -> Child {
    let mut command = command(BINARY, words);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command.spawn().unwrap()
}

/// The next line that the container writes.
fn line(child: &mut Child) -> String {
    let (mut text, mut byte) = (String::new(), [0]);
    let stdout = child.stdout.as_mut().unwrap();
    while stdout.read(&mut byte).unwrap() == 1 && byte != *b"\n" {
        text.push(byte[0].into());
    }
    text
}

fn pid(child: &Child) -> Pid {
    Pid::from_raw(child.id().try_into().unwrap())
}

/// For scripts: the shell's process id as the lab sees it. The container still has the lab's /proc.
const SAY_PID: &str = "read -r pid rest </proc/self/stat; echo $pid";

/// For scripts: waits for signals. Every shell looks for them between two commands.
const WAIT: &str = "while :; do :; done";

/// Kills the parent, and waits until the container has ended, too.
fn kill_parent(child: &mut Child) {
    set_child_subreaper(true).unwrap(); // its orphans are ours then, to be waited for
    child.kill().unwrap();
    child.wait().unwrap();
    let next_end = || waitpid(None, Some(WaitPidFlag::WNOHANG));
    eventually("the end of the container", || next_end() == Err(Errno::ECHILD));
}

/// A directory of our own in the lab.
struct Scratch(PathBuf);

impl Scratch {
    fn new() -> Self {
        let path = Path::new(&std::env::var_os("XDG_RUNTIME_DIR").unwrap()).join("scratch");
        fs::create_dir(&path).unwrap();
        Self(path)
    }

    fn file(&self, name: &str, text: &str, mode: u32) -> String {
        let path = self.0.join(name);
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
        path.to_str().unwrap().to_owned()
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        fs::remove_dir_all(&self.0).unwrap();
    }
}

fn namespace(kind: &str) -> String {
    fs::read_link(format!("/proc/self/ns/{kind}")).unwrap().to_str().unwrap().to_owned()
}

fn each_namespace_is_new(who: Who) {
    let links = KINDS.map(|kind| format!("/proc/self/ns/{kind}"));
    let mut words = vec!["readlink"];
    words.extend(links.iter().map(String::as_str));
    let inside = output(&words);
    assert_eq!(inside.lines().count(), KINDS.len());
    for (kind, inside) in KINDS.iter().zip(inside.lines()) {
        // Only a plain user needs a user namespace.
        let should_be_new = *kind != "user" || who == Who::Plain;
        assert_eq!(inside != namespace(kind), should_be_new, "{kind}: {inside}");
    }
}

fn a_shared_namespace_is_the_hosts(who: Who) {
    for kind in KINDS {
        let words = ["--share", kind, "readlink", &format!("/proc/self/ns/{kind}")];
        if kind == "user" && who == Who::Plain {
            let refused = step01(&words);
            assert_eq!(refused.status, Some(125), "{refused:?}");
            assert!(refused.stderr.contains("--share user"), "{refused:?}");
        } else {
            assert_eq!(output(&words), namespace(kind));
        }
    }
    let name = read("/proc/sys/kernel/hostname");
    assert_eq!(output(&["--share", "uts", "--hostname", "x", "uname", "-n"]), name);
}

fn fields(text: &str) -> Vec<&str> {
    text.split_whitespace().collect()
}

fn the_caller_is_root_in_a_user_namespace_and_itself_outside(who: Who) {
    let (uid, gid) = (geteuid().to_string(), getegid().to_string());
    let option: &[_] = if who == Who::Plain { &[] } else { &["--user"] };
    let show = "id -u; id -g; cd /proc/self; head -n1 uid_map; head -n1 gid_map; cat setgroups";
    let script = format!("{show}; wc -l <uid_map; {SAY_PID}; {WAIT}");
    let mut child = start(&[option, &["sh", "-c", &script]].concat());
    let mut next = || line(&mut child);
    assert_eq!([next(), next()], ["0", "0"]);
    assert_eq!(fields(&next()), ["0", &uid, "1"]);
    assert_eq!(fields(&next()), ["0", &gid, "1"]);
    // A machine's user 1000 may have subordinate ids, and then newuidmap: the next test.
    assert_eq!(next() == "deny", next() == "1");
    let outside = read(format!("/proc/{}/status", next()));
    let owner = outside.lines().find_map(|line| line.strip_prefix("Uid:")).unwrap();
    assert!(fields(owner).iter().all(|&id| id == uid), "{owner}");
    kill_parent(&mut child);
}

/// As the user 65534 with a range; newuidmap(1) is what may write it into the map.
fn a_user_with_subordinate_ids_gets_them_by_newuidmap(_: Who) {
    let show = "id -u; id -g; cd /proc/self; cat uid_map gid_map setgroups";
    let scratch = Scratch::new();
    let user = User::from_uid(Uid::from_raw(65534)).unwrap().expect("a user 65534, as everywhere");
    let (uid, gid, first, count) = (user.uid.as_raw(), user.gid.as_raw(), 200_000, 65_536);
    let range = scratch.file("subid", &format!("{}:{first}:{count}\n", user.name), 0o644);
    let (files, none) = (["/etc/subuid", "/etc/subgid"], None::<&str>);
    for file in files {
        mount(Some(range.as_str()), file, none, MsFlags::MS_BIND, none).unwrap();
    }
    // Where that user can reach it, too.
    let program = Path::new("/run/step01");
    fs::copy(BINARY, program).unwrap();
    let mut command = Command::new(program);
    let outcome = run(command.args(["sh", "-c", show]).uid(uid).gid(gid), PATIENCE);
    fs::remove_file(program).unwrap();
    for file in files {
        umount2(file, MntFlags::empty()).unwrap();
    }

    let maps = if Path::new("/usr/bin/newuidmap").exists() {
        format!("0 0  0 {uid} 1  1 {first} {count}  0 {gid} 1  1 {first} {count}  allow")
    } else {
        format!("0 0  0 {uid} 1  0 {gid} 1  deny")
    };
    assert_eq!(fields(&outcome.stdout), fields(&maps), "{outcome:?}");
}

fn the_program_is_pid_1_and_knows_no_process_outside(_: Who) {
    let script = format!("echo $$; kill -0 {} && echo known", std::process::id());
    let inside = step01(&["sh", "-c", &script]);
    assert_eq!(inside.stdout.trim(), "1", "{inside:?}");
}

fn without_a_pid_namespace_it_is_one_of_many(_: Who) {
    let script = format!("echo $$; kill -0 {} && echo known", std::process::id());
    let shared = output(&["--share", "pid", "sh", "-c", &script]);
    assert!(!shared.starts_with("1\n") && shared.ends_with("\nknown"), "{shared}");
    // PID 1 is safe from its own signals; everybody else is not.
    let outcome = step01(&["--share", "pid", "sh", "-c", SUICIDE]);
    assert_eq!(outcome.status, Some(128 + Signal::SIGTERM as i32));
}

const SUICIDE: &str = "kill -TERM $$; exit 7";

fn only_the_container_gets_the_host_name(_: Who) {
    let before = read("/proc/sys/kernel/hostname");
    let mut child = start(&["--hostname", "Box-1.example", "sh", "-c", "uname -n; exec sleep 60"]);
    assert_eq!(line(&mut child), "Box-1.example");
    assert_eq!(read("/proc/sys/kernel/hostname"), before);
    kill_parent(&mut child);
    assert_eq!(output(&["uname", "-n"]), "container");
}

fn a_mount_made_inside_stays_inside(_: Who) {
    let (scratch, none) = (Scratch::new(), None::<&str>);
    let (probe, place) = (this_program(), scratch.0.to_str().unwrap());
    let mounts = || read("/proc/self/mountinfo").lines().filter(|l| l.contains(place)).count();
    let words = [probe.to_str().unwrap(), "@mount", place];
    // As systemd leaves every mount: what is mounted on it in one namespace appears in all others.
    mount(none, "/run", none, MsFlags::MS_SHARED, none).unwrap();
    output(&words);
    assert_eq!(mounts(), 0);
    // And the same probe outside is seen.
    assert_eq!(run(Command::new(&probe).args(&words[1..]), PATIENCE).status, Some(0));
    assert_eq!(mounts(), 1);
    umount2(place, MntFlags::empty()).unwrap();
    mount(none, "/run", none, MsFlags::MS_PRIVATE, none).unwrap();
}

fn the_exit_status_is_the_programs(_: Who) {
    for status in [0, 7, 125, 255] {
        let outcome = step01(&["sh", "-c", &format!("exit {status}")]);
        assert_eq!((outcome.status, outcome.stderr.as_str()), (Some(status), ""));
    }
    // PID 1 is safe from its own signals, but not from those that come from outside.
    assert_eq!(step01(&["sh", "-c", SUICIDE]).status, Some(7));
    let mut child = start(&["sh", "-c", &format!("{SAY_PID}; exec sleep 60")]);
    kill(Pid::from_raw(line(&mut child).parse().unwrap()), Signal::SIGKILL).unwrap();
    assert_eq!(finish(child, PATIENCE).status, Some(128 + Signal::SIGKILL as i32));
}

fn a_program_that_cannot_be_executed_is_named(_: Who) {
    let scratch = Scratch::new();
    let script = scratch.file("script", "#!/bin/sh\nexit 7\n", 0o755);
    let not_executable = scratch.file("not-executable", "#!/bin/sh\n", 0o644);
    let directory = scratch.0.to_str().unwrap();
    let below_a_file = format!("{script}/x");
    let long = "x".repeat(5000);
    for (program, status) in [
        (script.as_str(), 7),
        ("no-such-program", 127),
        ("/no/such/program", 127),
        ("./no-such-program", 127),
        ("", 127),
        (&not_executable, 126),
        (directory, 126),
        (&below_a_file, 126),
        (&long, 126),
    ] {
        let outcome = step01(&[program]);
        assert_eq!(outcome.status, Some(status), "{outcome:?}");
        let shown = match program.len() {
            0 => "an empty name: ".to_owned(),
            1..=300 => format!("{program}: "),
            _ => format!("{}\u{2026} ", &program[..300]), // nobody reads more
        };
        let named = outcome.stderr.contains(&format!("cannot execute {shown}"));
        assert!(named || status == 7, "{outcome:?}");
    }
    // A name with a slash is a path, and never looked for on PATH.
    let here = run(command(BINARY, &["./script"]).current_dir(&scratch.0), PATIENCE);
    assert_eq!(here.status, Some(7), "{here:?}");
}

fn a_bad_command_line_ends_in_125_and_names_the_fault(_: Who) {
    let long = "x".repeat(5000);
    for words in [
        ["--bogus", "x"],
        ["--share", "disk"],
        ["--hostname", ""],
        ["--hostname", &long],
        ["--hostname", "a\nb"],
        ["--hostname", "under_score"],
        ["--hostname", ".dot"],
    ] {
        let outcome = step01(&[&words[..], &["true"]].concat());
        assert_eq!(outcome.status, Some(125), "{outcome:?}");
        assert!(outcome.stderr.contains(words[0]), "{outcome:?}");
    }
    let not_utf8 = OsStr::from_bytes(b"box\xff");
    let outcome = run(command(BINARY, &["--hostname"]).arg(not_utf8).arg("true"), PATIENCE);
    assert_eq!(outcome.status, Some(125), "{outcome:?}");
    assert!(outcome.stderr.contains("UTF-8"), "{outcome:?}");
    assert_eq!(step01(&["--hostname", &long[..64], "uname", "-n"]).stdout.trim(), &long[..64]);
}

fn arguments_are_passed_on_byte_by_byte(_: Who) {
    let hostile: [&[u8]; 5] = [b"--hostname", b"", b"a\nb", b"\xff\xfe", b"--"];
    let mut command = command(BINARY, &["sh", "-c", "printf '%s,' \"$@\" | od -An -v -tx1", "sh"]);
    let outcome = run(command.args(hostile.map(OsStr::from_bytes)), PATIENCE);
    let bytes = hostile.iter().flat_map(|argument| [argument, &b","[..]].concat());
    let bytes: Vec<_> = bytes.map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(fields(&outcome.stdout), bytes, "{outcome:?}");
}

fn the_program_starts_with_no_open_file_or_signal_mask_of_ours(_: Who) {
    let probe = this_program();
    let probe = probe.to_str().unwrap();
    let directly = run(Command::new(probe).arg("@fds"), PATIENCE);
    assert_eq!(output(&[probe, "@fds"]).lines().count(), directly.stdout.lines().count());
    let signals = |status: &str| {
        let lines = status.lines().filter(|line| line.starts_with("Sig") && !line.contains("Q:"));
        lines.map(str::to_owned).collect::<Vec<_>>()
    };
    let directly = run(Command::new("cat").arg("/proc/self/status"), PATIENCE);
    assert_eq!(signals(&output(&["cat", "/proc/self/status"])), signals(&directly.stdout));
    assert_eq!(signals(&directly.stdout).len(), 4); // SigPnd, SigBlk, SigIgn, SigCgt
}

fn a_signal_sent_to_the_parent_reaches_the_program(_: Who) {
    for name in ["HUP", "INT", "QUIT", "TERM", "USR1", "USR2", "CONT", "WINCH"] {
        let script = format!("trap 'exit 3' {name}; echo ready; {WAIT}");
        let mut child = start(&["sh", "-c", &script]);
        assert_eq!(line(&mut child), "ready");
        kill(pid(&child), format!("SIG{name}").parse::<Signal>().unwrap()).unwrap();
        let outcome = finish(child, PATIENCE);
        assert_eq!(outcome.status, Some(3), "{name}: {outcome:?}");
    }
}

fn pid_1_ignores_a_signal_that_it_has_no_handler_for(_: Who) {
    for (share, status) in [("time", 3), ("pid", 128 + Signal::SIGTERM as i32)] {
        let script = format!("trap 'exit 3' WINCH; echo ready; {WAIT}");
        let mut child = start(&["--share", share, "sh", "-c", &script]);
        assert_eq!(line(&mut child), "ready");
        // Of two waiting signals the one with the lower number is read, and passed on, first.
        kill(pid(&child), Signal::SIGTERM).unwrap();
        kill(pid(&child), Signal::SIGWINCH).unwrap();
        let outcome = finish(child, PATIENCE);
        assert_eq!(outcome.status, Some(status), "{outcome:?}");
    }
}

fn a_ctrl_c_reaches_the_program_once(_: Who) {
    let traps = "n=0; trap 'n=$((n+1)); echo INT $n' INT; trap 'echo all $n; exit 3' TERM";
    let script = format!("{traps}; echo ready; {WAIT}");
    let mut terminal = Terminal::start(command(BINARY, &["sh", "-c", &script]));
    terminal.expect("ready");
    for count in 1..=5 {
        terminal.type_in("\x03");
        terminal.expect(&format!("INT {count}\r\n"));
    }
    kill(pid(&terminal.child), Signal::SIGTERM).unwrap();
    terminal.expect("all 5\r\n");
    assert_eq!(terminal.child.wait().unwrap().code(), Some(3));
}

fn when_the_parent_is_killed_the_container_ends(_: Who) {
    let mut child = start(&["sh", "-c", &format!("sleep 60 & {SAY_PID}; {WAIT}")]);
    let inside = PathBuf::from(format!("/proc/{}", line(&mut child)));
    assert!(inside.exists());
    kill_parent(&mut child);
    assert!(!inside.exists());
}

fn killing_the_parent_at_any_time_leaves_nothing(_: Who) {
    for step in 0..24 {
        let mut child = start(&["sleep", "60"]);
        sleep(step * Duration::from_micros(250)); // not to wait for anything: to hit another line
        kill_parent(&mut child);
    }
}

fn a_full_process_table_is_named_as_the_cause(_: Who) {
    let mut command = Command::new("bash");
    let program = workshop::lab::program(BINARY);
    let outcome = run(command.args(["-c", "ulimit -u 1; exec \"$0\" true"]).arg(program), PATIENCE);
    assert_eq!(outcome.status, Some(125), "{outcome:?}");
    assert!(outcome.stderr.contains("the limit of processes is reached"), "{outcome:?}");
    assert!(outcome.stderr.ends_with("\nsee: cargo workshop doctor limits\n"), "{outcome:?}");
}

fn a_namespace_limit_is_named_as_the_cause(_: Who) {
    for kind in KINDS {
        let limit = format!("/proc/sys/user/max_{kind}_namespaces");
        let before = read(&limit);
        fs::write(&limit, "0").unwrap(); // the lab's own limit: it has a user namespace
        let outcome = step01(&["--user", "true"]);
        assert_eq!(outcome.status, Some(125), "{outcome:?}");
        assert!(outcome.stderr.contains("/proc/sys/user/max_"), "{kind}: {outcome:?}");
        assert!(outcome.stderr.ends_with("\nsee: cargo workshop doctor userns\n"), "{outcome:?}");
        fs::write(&limit, before).unwrap();
        output(&["--user", "true"]);
    }
}
