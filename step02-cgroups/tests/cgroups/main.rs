//! Step 2 against the real kernel: the binary in a lab, and what /sys/fs/cgroup says.
//!
//! The cgroup trees are the machine's, not the lab's. The tests know both versions of them.

#![allow(clippy::wildcard_imports, reason = "the table below names every test, or it is dead code")]

mod version1;
mod version2;

use std::fs::{self, File};
use std::io::Read as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::mount::MsFlags;
use nix::sys::prctl::set_child_subreaper;
use nix::sys::signal::{Signal, kill};
use nix::sys::stat::Mode;
use nix::sys::wait::{WaitPidFlag, waitpid};
use nix::unistd::{Pid, mkfifo};
use step01_namespaces::Namespaces;
use step02_cgroups::{Cgroup, Limits, Memory, Usage};
use workshop::lab::Who;
use workshop::suite::{Outcome, Test, command, eventually, finish, read, run, suite, this_program};
use workshop::test;

use version1::*;
use version2::*;

const BINARY: &str = env!("CARGO_BIN_EXE_step02-cgroups");
const PATIENCE: Duration = Duration::from_secs(60);

static TESTS: &[Test] = &[
    test!(a_program_over_its_memory_limit_is_killed, [Root, Plain], Limits, by_hand),
    test!(a_kill_for_memory_is_reported, [Root, Plain], Limits),
    test!(a_program_within_its_memory_limit_ends_well, [Root, Plain], Limits, by_hand),
    test!(a_child_over_the_memory_limit_is_killed_too, [Root, Plain], Limits, by_hand),
    test!(the_kernel_has_every_limit, [Root, Plain], Limits, by_hand),
    test!(a_tenth_of_a_processor_is_less_than_half, [Root, Plain], Limits, by_hand),
    test!(a_fork_loop_stops_at_the_limit, [Root, Plain], Limits, by_hand),
    test!(the_program_runs_on_its_processor, [Root, Plain], Limits, by_hand),
    test!(the_program_and_its_first_child_start_in_the_cgroup, [Root, Plain], Limits, by_hand),
    test!(the_program_sees_its_cgroup_as_the_root, [Root, Plain], Limits, by_hand),
    test!(without_a_cgroup_namespace_it_sees_where_its_cgroup_is, [Root, Plain], Limits),
    test!(usage_is_what_was_used, [Root, Plain], Limits),
    test!(the_cgroup_is_gone_after_the_end, [Root, Plain], Limits, by_hand),
    test!(the_cgroup_is_gone_after_an_error, [Root, Plain], Limits),
    test!(a_living_cgroup_is_left_alone, [Root, Plain], Limits),
    test!(daemons_end_with_the_container, [Root, Plain], Limits, by_hand),
    test!(daemons_end_also_without_a_pid_namespace, [Root, Plain], Limits),
    test!(a_fork_loop_ends_with_the_container, [Root, Plain], Limits),
    test!(
        the_cgroup_of_a_killed_parent_is_removed_by_the_next_command,
        [Root, LabRoot, Plain],
        Limits
    ),
    test!(
        what_survives_a_killed_parent_is_ended_by_the_next_command,
        [Root, LabRoot, Plain],
        Limits
    ),
    test!(
        a_killed_parent_leaves_nothing_after_the_next_command_at_any_time,
        [Root, LabRoot, Plain],
        Limits
    ),
    test!(an_undelegated_user_has_no_limits, [LabRoot, Plain], NoLimits),
    test!(a_bad_limit_ends_in_125_and_says_why, [Plain]),
    // version1.rs
    test!(processes_are_frozen_before_they_are_killed, [Root], Version1),
    // version2.rs
    test!(the_child_is_born_in_its_cgroup, [Root, Plain], Version2),
    test!(the_kernel_tells_what_it_refused, [Root, Plain], Version2),
    test!(controllers_are_on_all_the_way_down, [Root, Plain], Version2),
    test!(all_are_killed_by_one_write, [Root, LabRoot], Version2),
    test!(the_root_cgroup_may_have_processes, [Root], Version2),
    test!(processes_of_others_are_not_moved, [Root, LabRoot], Version2),
    test!(the_last_container_takes_the_directory_along, [Root, Plain], Version2),
];

/// A test that kills a parent leaves a stale cgroup for a moment, and every step02 removes every
/// stale cgroup. So it has the machine's cgroups for itself; all other tests share them.
fn main() -> ExitCode {
    let program = File::open("/proc/self/exe").unwrap();
    match std::env::var("WORKSHOP_TEST") {
        Ok(test) if test.contains("killed_parent") => program.lock().unwrap(),
        Ok(_) => program.lock_shared().unwrap(),
        Err(_) => {} // no test: we start them, or are a probe
    }
    suite(TESTS)
}

fn step02(words: &[&str]) -> Outcome {
    // In labs of a plain user, root's PATH may name directories that are closed to us.
    run(command(BINARY, words).env("PATH", "/usr/bin:/bin"), PATIENCE)
}

/// step02 with options that runs this program as a probe.
fn probe(options: &[&str], words: &[&str]) -> Outcome {
    run(command(BINARY, options).arg(this_program()).args(words), PATIENCE)
}

/// How scripts begin: they say their process id as the lab sees it, for its /proc is theirs, too.
const BEGIN: &str = "trap 'exit 0' TERM; read -r pid rest </proc/self/stat; echo $pid";
/// How scripts end: they wait for SIGTERM.
const WAIT: &str = "while :; do :; done";
const TREES: &str = "/sys/fs/cgroup";

/// A container that runs, and the cgroups that it is in: one on version 2, a few on version 1.
struct Running {
    child: Child,
    /// The program's process.
    pid: Pid,
    groups: Vec<PathBuf>,
}

impl Running {
    /// Starts a script whose first line has to be its process id. Its `$0` is a probe.
    fn start(options: &[&str], script: &str) -> Self {
        let mut command = command(BINARY, options);
        command.args(["sh", "-c", script]).arg(this_program());
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let child = command.spawn().unwrap();
        let mut running = Self { child, pid: Pid::this(), groups: Vec::new() };
        let pid = running.line();
        assert!(!pid.is_empty(), "it did not start: {:?}", finish(running.child, PATIENCE));
        running.pid = Pid::from_raw(pid.parse().unwrap());
        running.groups = find(Path::new(TREES), &|group| processes(group).contains(&pid));
        assert!(!running.groups.is_empty(), "no cgroup of ours has the process {pid:?}");
        running
    }

    /// The next line that it writes.
    fn line(&mut self) -> String {
        let (mut text, mut byte) = (String::new(), [0]);
        let stdout = self.child.stdout.as_mut().unwrap();
        while stdout.read(&mut byte).unwrap() == 1 && byte != *b"\n" {
            text.push(byte[0].into());
        }
        text
    }

    /// The text of a file that one of its groups has.
    fn setting(&self, file: &str) -> Option<String> {
        let path = self.groups.iter().map(|group| group.join(file)).find(|path| path.exists());
        path.map(read)
    }

    /// Ends it, if it waits for that.
    fn end(self) -> Outcome {
        kill(self.pid, Signal::SIGTERM).unwrap();
        finish(self.child, PATIENCE)
    }
}

/// The cgroups of containers that this holds for.
fn find(directory: &Path, holds: &dyn Fn(&Path) -> bool) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory).into_iter().flatten().filter_map(Result::ok) {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            let (path, name) = (entry.path(), entry.file_name());
            let prefixes = ["container-workshop-", "by-hand-"];
            let ours = prefixes.iter().any(|prefix| name.to_string_lossy().starts_with(prefix));
            found.extend(find(&path, holds));
            found.extend((ours && holds(&path)).then_some(path));
        }
    }
    found
}

fn processes(group: &Path) -> Vec<String> {
    let text = fs::read_to_string(group.join("cgroup.procs")).unwrap_or_default();
    text.lines().map(str::to_owned).collect()
}

/// A FIFO in this lab, open for reading. It takes what is written to it at any time.
fn fifo(name: &str) -> (PathBuf, File) {
    let path = Path::new("/run").join(name);
    mkfifo(&path, Mode::S_IRWXU).unwrap();
    // Open for writing, too: so nobody has to wait for anybody.
    let mut options = File::options();
    let file = options.read(true).write(true).custom_flags(OFlag::O_NONBLOCK.bits()).open(&path);
    (path, file.unwrap())
}

/// mount(2): a file system of this type, or else what is at `source`.
fn mount(source: Option<&Path>, place: &Path, kind: Option<&str>) {
    let flags = if kind.is_some() { MsFlags::empty() } else { MsFlags::MS_BIND };
    nix::mount::mount(source, place, kind, flags, None::<&str>)
        .unwrap_or_else(|error| panic!("cannot mount on {}: {error}", place.display()));
}

fn is_version_2() -> bool {
    Path::new(TREES).join("cgroup.controllers").exists()
}

fn any_exists(groups: &[PathBuf]) -> bool {
    groups.iter().any(|group| group.exists())
}

/// The cgroups that a step02 of this process id has left.
fn left_by(pid: u32) -> Vec<PathBuf> {
    let name = format!("container-workshop-{pid}");
    find(Path::new(TREES), &|group| {
        // Another lab can have a process of this number; if that lives, it holds the lock.
        let stale = || File::open(group).is_ok_and(|lock| lock.try_lock().is_ok());
        group.with_extension("").ends_with(&name) && stale()
    })
}

/// SIGKILL for a step02; its orphans are ours then.
fn kill_parent(child: &mut Child) {
    set_child_subreaper(true).unwrap();
    child.kill().unwrap();
    child.wait().unwrap();
}

fn wait_for_orphans() {
    let next_end = || waitpid(None, Some(WaitPidFlag::WNOHANG));
    eventually("the end of what was in the container", || next_end() == Err(Errno::ECHILD));
}

fn number(text: &str) -> u64 {
    let digits = text.split(|c: char| !c.is_ascii_digit()).find(|word| !word.is_empty());
    digits.unwrap_or_else(|| panic!("no number in {text:?}")).parse().unwrap()
}

const KILLED: i32 = 128 + Signal::SIGKILL as i32;

fn a_program_over_its_memory_limit_is_killed(_: Who) {
    let killed = probe(&["--memory", "32M"], &["@eat", "64"]);
    assert_eq!(killed.status, Some(KILLED), "{killed:?}");
}

const REPORT: &str = "over its memory limit of 32 MiB";

fn a_kill_for_memory_is_reported(_: Who) {
    let killed = probe(&["--memory", "32M"], &["@eat", "64"]);
    assert!(killed.stderr.contains(REPORT), "{killed:?}");
    let mut running = Running::start(&["--memory", "32M"], &eating_child());
    running.line(); // the child has been killed
    let ended = running.end();
    assert!(ended.stderr.contains(REPORT), "{ended:?}");
}

fn eating_child() -> String {
    format!("{BEGIN}; \"$0\" @eat 64; echo $?; {WAIT}")
}

fn a_program_within_its_memory_limit_ends_well(_: Who) {
    let ended = probe(&["--memory", "128M"], &["@eat", "64"]);
    assert_eq!((ended.status, ended.stderr.as_str()), (Some(0), ""));
    assert_eq!(ended.stdout, "ate 64 MiB\n");
}

fn a_child_over_the_memory_limit_is_killed_too(_: Who) {
    let mut running = Running::start(&["--memory", "32M"], &eating_child());
    assert_eq!(running.line(), KILLED.to_string());
    let ended = running.end();
    assert_eq!(ended.status, Some(0), "{ended:?}");
}

fn the_kernel_has_every_limit(_: Who) {
    let options = ["--memory", "64M", "--cpus", "0.5", "--pids", "32", "--cpuset", "0"];
    let running = Running::start(&options, &format!("{BEGIN}; {WAIT}"));
    let memory = (64 << 20).to_string();
    let of_version_1 = [
        ("memory.limit_in_bytes", memory.as_str()),
        ("memory.memsw.limit_in_bytes", &memory), // memory and swap together: so no swap
        ("cpu.cfs_quota_us", "50000"),
        ("cpu.cfs_period_us", "100000"),
    ];
    let of_version_2 =
        [("memory.max", memory.as_str()), ("memory.swap.max", "0"), ("cpu.max", "50000 100000")];
    let of_both = [("pids.max", "32"), ("cpuset.cpus", "0")];
    let expected = if is_version_2() { &of_version_2[..] } else { &of_version_1[..] };
    for &(file, value) in expected.iter().chain(&of_both) {
        let found = running.setting(file);
        let no_swap = found.is_none() && file.contains("sw"); // a kernel that does not count it
        assert!(no_swap || found.as_deref() == Some(value), "{file}: {found:?}");
    }
    running.end();
}

/// It should use 200 ms of 2 s. A busy machine gives it less, and one that is emulated is late to
/// stop it; but nothing can give it half, and a throttled one had its quota. How much that is, the
/// kernel's file says.
fn a_tenth_of_a_processor_is_less_than_half(_: Who) {
    let script = format!("{BEGIN}; \"$0\" @spin 2; {WAIT}");
    let mut running = Running::start(&["--cpus", "0.1"], &script);
    let used = number(&running.line());
    assert!(used < 1000, "{used} ms");
    let counts = running.setting("cpu.stat").unwrap();
    let throttled = counts.lines().find(|line| line.starts_with("nr_throttled ")).unwrap();
    assert_ne!(number(throttled), 0, "{counts}");
    running.end();
}

fn a_fork_loop_stops_at_the_limit(_: Who) {
    let limit = 16;
    let ended = probe(&["--pids", &limit.to_string()], &["@forks"]);
    let others = format!("started {}, ", limit - 1); // the probe is the first
    assert!(ended.stdout.starts_with(&others), "{ended:?}");
}

fn the_program_runs_on_its_processor(_: Who) {
    let allowed = |status: &str| {
        let list = status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:"));
        list.unwrap().trim().to_owned()
    };
    let all = allowed(&read("/proc/self/status"));
    let last = all.rsplit([',', '-']).next().unwrap();
    let inside = step02(&["--cpuset", last, "cat", "/proc/self/status"]);
    assert_eq!(inside.status, Some(0), "{inside:?}");
    assert_eq!(allowed(&inside.stdout), last);
}

fn the_program_and_its_first_child_start_in_the_cgroup(_: Who) {
    let running = Running::start(&[], &format!("sleep 60 & {BEGIN}; {WAIT}"));
    for group in &running.groups {
        assert_eq!(processes(group).len(), 2, "{}", group.display());
    }
    running.end();
}

fn the_program_sees_its_cgroup_as_the_root(_: Who) {
    let inside = step02(&["cat", "/proc/self/cgroup"]);
    assert_eq!(inside.status, Some(0), "{inside:?}");
    assert!(inside.stdout.lines().all(|line| line.ends_with(":/")), "{inside:?}");
}

fn without_a_cgroup_namespace_it_sees_where_its_cgroup_is(_: Who) {
    let shared = step02(&["--share", "cgroup", "cat", "/proc/self/cgroup"]).stdout;
    assert!(shared.contains("/container-workshop-"), "{shared}");
}

/// By way of the library: the binary does not show it.
fn usage_is_what_was_used(_: Who) {
    let use_up = |limits: &Limits, words: [&str; 2]| -> Usage {
        let cgroup = Cgroup::create("usage", limits).unwrap();
        let mut child = step01_namespaces::Child::spawn(Namespaces::default(), cgroup.fd(), || {
            cgroup.join()?;
            let mut command = Command::new(this_program());
            command.args(words);
            Ok(command)
        });
        child.as_mut().unwrap().go().unwrap();
        child.unwrap().reap().unwrap();
        cgroup.usage()
    };
    let memory = |mebibytes: u64| {
        let memory = Some(Memory::new(mebibytes << 20).unwrap());
        Limits { memory, ..Limits::default() }
    };
    let within = use_up(&memory(128), ["@eat", "64"]);
    assert!(within.memory_peak.is_none_or(|peak| (64 << 20..=128 << 20).contains(&peak)));
    assert!(within.memory < within.memory_peak, "{within:?}");
    assert_eq!((within.oom_kills, within.pids), (Some(0), Some(0)));
    assert_eq!(use_up(&memory(32), ["@eat", "64"]).oom_kills, Some(1));

    let cpus = Some("0.1".parse().unwrap());
    let start = Instant::now();
    let slow = use_up(&Limits { cpus, ..Limits::default() }, ["@spin", "1"]);
    let half = u64::try_from(start.elapsed().as_micros()).unwrap() / 2; // generous: a busy machine
    assert!(slow.cpu.is_some_and(|used| (1..half).contains(&used)), "{slow:?}");
    assert!(slow.throttled > Some(0) && slow.throttled_time > Some(0), "{slow:?}");
}

fn the_cgroup_is_gone_after_the_end(_: Who) {
    let running = Running::start(&["--memory", "64M"], &format!("{BEGIN}; {WAIT}"));
    let groups = running.groups.clone();
    running.end();
    assert!(!any_exists(&groups));
}

fn the_cgroup_is_gone_after_an_error(_: Who) {
    for (pids, program, status) in
        [("16", "no-such-program", 127), ("16", "/", 126), ("4194305", "true", 125)]
    {
        // The last one is more than the kernel takes: the cgroup was there already.
        let mut command = command(BINARY, &["--pids", pids, program]);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let child = command.spawn().unwrap();
        let pid = child.id();
        let ended = finish(child, PATIENCE);
        assert_eq!(ended.status, Some(status), "{ended:?}");
        assert!(ended.stderr.contains("--pids") || status != 125, "{ended:?}");
        assert_eq!(left_by(pid), Vec::<PathBuf>::new());
    }
}

fn a_living_cgroup_is_left_alone(_: Who) {
    let running = Running::start(&[], &format!("{BEGIN}; {WAIT}"));
    assert_eq!(step02(&["true"]).status, Some(0));
    assert!(running.groups.iter().all(|group| processes(group).len() == 1));
    assert_eq!(running.end().status, Some(0));
}

/// In a PID namespace the kernel ends them with PID 1.
fn daemons_end_with_the_container(_: Who) {
    daemons_end(&[]);
}

/// There the cgroup has to end them.
fn daemons_end_also_without_a_pid_namespace(_: Who) {
    daemons_end(&["--share", "pid"]);
}

fn daemons_end(options: &[&str]) {
    let script = format!("(sleep 60 &); (nohup sleep 60 &); {BEGIN}; {WAIT}");
    let running = Running::start(options, &script);
    let group = running.groups[0].clone();
    assert_eq!(processes(&group).len(), 3);
    let inside = processes(&group).into_iter().map(|pid| PathBuf::from("/proc").join(pid));
    let inside: Vec<_> = inside.collect();
    assert_eq!(running.end().status, Some(0));
    eventually("the daemons' end", || !any_exists(&inside));
    assert!(!group.exists());
}

/// Without a PID namespace, and of the worst kind: see the probe.
fn a_fork_loop_ends_with_the_container(_: Who) {
    let script = format!("\"$0\" @flee & \"$0\" @flee & {BEGIN}; {WAIT}");
    let running = Running::start(&["--share", "pid", "--pids", "64"], &script);
    let groups = running.groups.clone();
    let newest = || processes(&groups[0]).iter().map(|pid| number(pid)).max();
    eventually("a hundred forks", || newest() > Some(u64::from(running.child.id()) + 100));
    let ended = running.end();
    assert_eq!((ended.status, ended.stderr.as_str()), (Some(0), ""));
    assert!(!any_exists(&groups)); // and a cgroup with processes cannot be removed
}

fn the_cgroup_of_a_killed_parent_is_removed_by_the_next_command(_: Who) {
    let mut running = Running::start(&["--memory", "64M"], &format!("{BEGIN}; {WAIT}"));
    kill_parent(&mut running.child);
    wait_for_orphans();
    assert_eq!(step02(&["true"]).status, Some(0));
    assert!(!any_exists(&running.groups));
}

fn what_survives_a_killed_parent_is_ended_by_the_next_command(_: Who) {
    let script = format!("sleep 60 & {BEGIN}; {WAIT}");
    let mut running = Running::start(&["--share", "pid"], &script);
    kill_parent(&mut running.child);
    eventually("only the daemon is left", || processes(&running.groups[0]).len() == 1);
    assert_eq!(step02(&["true"]).status, Some(0));
    assert!(!any_exists(&running.groups));
    wait_for_orphans();
}

fn a_killed_parent_leaves_nothing_after_the_next_command_at_any_time(_: Who) {
    for step in 0..24 {
        let mut command = command(BINARY, &["--pids", "16", "sleep", "60"]);
        let mut child = command.stderr(Stdio::null()).spawn().unwrap();
        sleep(step * Duration::from_micros(500)); // not to wait for anything: to hit another line
        kill_parent(&mut child);
        wait_for_orphans();
        let next = step02(&["true"]);
        assert_eq!((next.status, next.stderr.as_str()), (Some(0), ""));
        assert_eq!(left_by(child.id()), Vec::<PathBuf>::new());
    }
}

fn an_undelegated_user_has_no_limits(_: Who) {
    let limits = [("--memory", "64M"), ("--cpus", "0.5"), ("--pids", "16"), ("--cpuset", "0")];
    for (option, value) in limits {
        let outcome = step02(&[option, value, "true"]);
        assert_eq!(outcome.status, Some(125), "{outcome:?}");
        let why = format!("cannot limit {option}: ");
        assert!(outcome.stderr.contains(&why), "{outcome:?}");
        assert!(outcome.stderr.contains(TREES), "{outcome:?}");
        assert!(outcome.stderr.contains("root"), "{outcome:?}"); // what to do
        let delegation = "systemd-run --user --scope -p Delegate=yes";
        assert!(outcome.stderr.contains(delegation) || !is_version_2(), "{outcome:?}");
        let last = "\nsee: cargo workshop doctor cgroup-delegation\n";
        assert!(outcome.stderr.ends_with(last), "{outcome:?}");
    }
    let outcome = step02(&["true"]);
    assert_eq!((outcome.status, outcome.stderr.as_str()), (Some(0), ""));
}

fn a_bad_limit_ends_in_125_and_says_why(_: Who) {
    for (option, value, why) in [
        ("--memory", "0", "too little"),
        ("--memory", "5m", "too little"),
        ("--memory", "-1", "not a size"),
        ("--memory", "64x", "not a size"),
        ("--memory", "99999999999g", "too much"),
        ("--cpus", "0", "the least is 0.01"),
        ("--cpus", "-1", "the least is 0.01"),
        ("--cpus", "nan", "cannot be had"),
        ("--cpus", "1e9", "cannot be had"),
        ("--cpus", "half", "not a number"),
        ("--pids", "0", "0 is not in 1.."),
        ("--pids", "-1", "invalid digit"),
        ("--cpuset", "4096", "this host has the processors"),
        ("--cpuset", "-1", "not a list of processors"),
        ("--cpuset", "", "not a list of processors"),
    ] {
        let outcome = step02(&[option, value, "true"]);
        assert_eq!(outcome.status, Some(125), "{outcome:?}");
        let says = |text: &str| outcome.stderr.contains(text);
        assert!(says(option) && says(value) && says(why), "{outcome:?}");
    }
}
