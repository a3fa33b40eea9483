//! A run for each place at which something can go wrong.

use std::env;
use std::fs::{self, File};
use std::io::Write as _;
use std::os::fd::OwnedFd;
use std::process::Command;

use nix::pty::openpty;
use workshop::faults::{self, Call, Fault, Point, Role, Watched};
use workshop::ids::Ranges;
use workshop::lab::Who;
use workshop::snapshot::Snapshot;
use workshop::suite::{Outcome, Running, command, get, probe_volume};

use crate::{BINARY, final_};

/// How the container's program ends.
const STATUS: Option<i32> = Some(7);
/// How many calls a run makes that count: more than this, or we do not see them.
const LEAST: usize = 450;
/// With this variable a walk stops at every call, which takes a minute; without, at one in [`STRIDE`].
const EVERY_CALL: &str = "WORKSHOP_EVERY_CALL";
const STRIDE: usize = 25;
/// What comes after a monitor that was killed, in turn: each has to clean up.
const NEXT: [&str; 3] = ["ps", "gc", "run --rm --net none host true"];
/// The first thing that a child does, as a call's object.
const PR_SET_PDEATHSIG: &str = "1";
/// Where another container answers.
const OTHER: &str = "127.0.0.1:9090";

/// `final run` with some options, again and again.
pub struct Walk {
    who: Who,
    options: Vec<&'static str>,
    /// A container that has to stay as it is. Without it the bridge, the firewall table, the switches
    /// and the unpacked image come and go each time.
    other: Option<Running>,
    /// How a run ends without a fault.
    normal: Outcome,
    before: Snapshot,
    _ids: Option<Ranges>,
    wrong: Vec<String>,
}

impl Walk {
    /// With every option that this user may use, beside another container.
    pub fn beside_another(who: Who) -> Self {
        let mut options =
            "--name walked --hostname box -v /usr:/host:ro -e A=1 -w /work -i".to_owned();
        let mut network = "";
        if who != Who::Plain {
            network = "-p 9090:80 --ip 10.77.0.50";
            options += " -p 8080:80 -p 127.0.0.1:8081:81/udp --ip 10.77.0.99";
        }
        options += limits(who);
        let script = "/probe @serve 0.0.0.0:80 & read end; exit 0";
        let volume = probe_volume();
        let mut words = vec!["run", "--rm", "--name", "other", "-i", "-v", &volume];
        words.extend(network.split_whitespace().chain(["host", "sh", "-c", script]));
        let (other, ready) = Running::start(&mut command(BINARY, &words));
        assert_eq!(ready, "ready\n");
        Self::new(who, options.leak(), Some(other))
    }

    /// The only container, at a terminal.
    pub fn alone(who: Who) -> Self {
        let network = if who == Who::Plain { "" } else { " -p 8080:80 --ip 10.77.0.99" };
        let options = format!("-i -t --hostname box{network}{}", limits(who));
        Self::new(who, options.leak(), None)
    }

    /// The only container, root in a user namespace of other ids.
    pub fn remapped(who: Who) -> Self {
        let ids = "container-workshop:200000:65536";
        let ids = Ranges::new(ids, ids);
        Self {
            _ids: Some(ids),
            ..Self::new(who, "-i --hostname box --userns remap -p 8080:80 --ip 10.77.0.99", None)
        }
    }

    fn new(who: Who, options: &'static str, other: Option<Running>) -> Self {
        let before = Snapshot::take(&[]).expect("a snapshot");
        let normal = Outcome { status: None, stdout: String::new(), stderr: String::new() };
        let options = options.split(' ').collect();
        let mut walk = Self { who, options, other, normal, before, _ids: None, wrong: Vec::new() };
        walk.normal = walk.run(None).outcome;
        assert_eq!(walk.normal.status, STATUS, "{:?}", walk.normal);
        walk.before.ensure_restored(&[]).expect("the host as before");
        walk
    }

    /// Puts the fault at each call, until a run has not come so far, twice.
    pub fn of(mut self, fault: Fault) {
        let stride = if env::var_os(EVERY_CALL).is_some() { 1 } else { STRIDE };
        let mut walked = 0;
        for role in [Role::Runtime, Role::Monitor, Role::Container] {
            let (mut number, mut not_reached) = (1, 0);
            while not_reached < 2 {
                let watched = self.run(Some((Point { role, number }, fault)));
                let Some(call) = &watched.hit else {
                    not_reached += 1;
                    continue;
                };
                (walked, number, not_reached) = (walked + 1, number + stride, 0);
                if watched.outlived {
                    self.wrong(call, "the container outlived its monitor");
                }
                match fault {
                    Fault::Error => self.judge_error(call, &watched.outcome),
                    Fault::Kill => self.judge_kill(call, &watched.outcome, walked),
                }
            }
        }
        self.ask_other();
        let least = LEAST / stride;
        assert!(walked >= least, "only {walked} calls: does the filter still see them?");
        assert!(self.wrong.is_empty(), "{} wrong:\n{}", self.wrong.len(), self.wrong.join("\n"));
        println!(
            "walked {walked} fault points, one call in {stride}, {fault:?}, as {}: final run {}",
            self.who.name(),
            self.options.join(" ")
        );
    }

    fn run(&self, fault: Option<(Point, Fault)>) -> Watched {
        if self.other.is_none() {
            let state = match self.who {
                Who::Plain | Who::User => env::var("XDG_RUNTIME_DIR").expect("the user's"),
                Who::Root | Who::LabRoot => "/run".to_owned(),
            };
            let _ = fs::remove_dir_all(format!("{state}/container-workshop/images"));
        }
        let volume = probe_volume();
        let words =
            [&["run", "--rm", "-v", &volume], &self.options[..], &["host", "/probe", "@report"]];
        let mut command = command(BINARY, &words.concat());
        let mut keyboard = give_input(&mut command, self.options.contains(&"-t"));
        faults::run(command, fault, || keyboard.write_all(b"\n").expect("a reader"))
    }

    /// A call failed: there is an error, or no need for one, and nothing is left.
    fn judge_error(&mut self, call: &Call, outcome: &Outcome) {
        let told = told(outcome);
        let is_cause =
            |line: &&&str| ["llocate memory", "ut of memory"].iter().any(|c| line.contains(c));
        let is_clear = |line: &&str| line.contains("cannot ");
        let causes = told.iter().filter(is_cause).count();
        match outcome.status {
            STATUS if shown(outcome) != shown(&self.normal) => {
                self.wrong(call, &format!("another container: {outcome:?}"));
            }
            STATUS if told.is_empty() && may_be_ignored(call).is_some() => {}
            STATUS | Some(125) if may_be_unclear(call).is_some() => {}
            STATUS | Some(125 | 126) if causes == 1 && told.iter().any(is_clear) => {}
            _ => self.wrong(call, &format!("{outcome:?}")),
        }
        // What could not be undone is named, and the sweep undoes it.
        if told.iter().any(|line| is_undo(line)) {
            self.clean_up("gc", call);
        } else {
            self.ensure_restored(call, &format!("{outcome:?}"));
        }
    }

    /// A process was killed: the container's death its monitor reports, and undoes what it made;
    /// after the monitor's own the next command does.
    fn judge_kill(&mut self, call: &Call, outcome: &Outcome, walked: usize) {
        match call.role {
            // The container goes on without it, and is cleaned up as always; or there is none yet.
            Role::Runtime => self.ensure_restored(call, ""),
            Role::Monitor => self.clean_up(NEXT[walked % NEXT.len()], call),
            // Between Ready and the exec, it looks like the program's end. A helper may have done its part.
            Role::Container
                if matches!(outcome.status, Some(125 | 137))
                    || shown(outcome) == shown(&self.normal) =>
            {
                self.ensure_restored(call, "");
            }
            Role::Container => self.wrong(call, &format!("{outcome:?}")),
        }
    }

    fn clean_up(&mut self, next: &str, call: &Call) {
        let cleaned = final_(&next.split(' ').collect::<Vec<_>>());
        if cleaned.status != Some(0) || !told(&cleaned).is_empty() {
            self.wrong(call, &format!("{next}: {cleaned:?}"));
        }
        self.ensure_restored(call, next);
        self.ask_other();
    }

    fn ensure_restored(&mut self, call: &Call, after: &str) {
        if let Err(error) = self.before.ensure_restored(&[]) {
            self.wrong(call, &format!("{after}: {error:#}"));
            final_(&["gc"]); // for those that come
        }
    }

    /// A plain user's cannot be asked from here; that its processes are there, the snapshot says.
    fn ask_other(&self) {
        if self.other.is_some() && self.who != Who::Plain {
            let answer = get(OTHER, "/");
            assert!(answer.contains("hello"), "the other container: {answer}");
        }
    }

    fn wrong(&mut self, call: &Call, what: &str) {
        eprintln!("{call}: {what}"); // at once: a test that takes too long is killed
        self.wrong.push(format!("{call}: {what}"));
    }
}

/// The limits that this user may set: a plain user has no cgroup on version 1.
fn limits(who: Who) -> &'static str {
    match who {
        Who::Root => " --memory 64m --cpus 1 --pids-limit 50 --cpuset-cpus 0",
        Who::LabRoot | Who::Plain | Who::User => "",
    }
}

/// Whether it says that something could not be undone.
fn is_undo(line: &str) -> bool {
    let what = line.strip_prefix("warning: cannot ").unwrap_or_default();
    ["clean up ", "remove ", "end "].iter().any(|verb| what.starts_with(verb))
}

/// What it said, but for what it says of every plain user's container.
fn told(outcome: &Outcome) -> Vec<&str> {
    let lines = outcome.stderr.lines();
    lines.filter(|line| !line.starts_with("rootless:") && !line.is_empty()).collect()
}

/// What the container saw. A terminal's echo of the line's end that we type may come anywhere in it.
fn shown(outcome: &Outcome) -> String {
    outcome.stdout.replace(['\r', '\n'], "")
}

/// Its standard input, a pipe or a terminal; returns our end of it.
fn give_input(command: &mut Command, terminal: bool) -> File {
    if terminal {
        let pair = openpty(None, None).expect("a terminal");
        command.stdin(pair.slave);
        pair.master.into()
    } else {
        let (reader, writer) = std::io::pipe().expect("a pipe");
        command.stdin(reader);
        OwnedFd::from(writer).into()
    }
}

/// Why a call may fail without a word, if it may. No step that protects the host is among them.
fn may_be_ignored(call: &Call) -> Option<&'static str> {
    let begins = |with: &[&str]| with.iter().any(|with| call.object.starts_with(with));
    let users = ["/etc/nsswitch.conf", "/etc/passwd", "/etc/subuid", "/etc/subgid"];
    Some(match call.name {
        "statx" if begins(&["open "]) => "how long is the file? A hint for who is about to read it",
        // Which, cannot be seen of a plain user's container; lab-root's makes the same calls.
        "statx" if call.role == Role::Container && call.object.is_empty() => "the same",
        "statx" if begins(&["/proc/self/ns/"]) => {
            "is it there? If that is unknown, the clone tells"
        }
        "statx" if call.object.contains("/images/host-") => {
            "is it there? If that is unknown, it is made anew"
        }
        "statx" if begins(&["/sys/fs/cgroup/cgroup.controllers"]) => {
            "is it version 2? If that is unknown, the container does not see its cgroup"
        }
        "ioctl" if call.object == "21505" => "is it a terminal? (TCGETS)",
        "ioctl" if ["21523", "21524"].contains(&call.object.as_str()) => {
            "how large is the window? (TIOCGWINSZ, TIOCSWINSZ) If that is unknown, it has no size"
        }
        "open_tree" | "mount_setattr" if call.role == Role::Runtime => {
            "without a read-only mount of our program, a sealed copy is executed"
        }
        "fcntl" if begins(&["1034 "]) => {
            "is our program sealed? If that is unknown, it is not (F_GET_SEALS)"
        }
        "access" if call.object == "/proc/self/exe" => {
            "may we write it? If that is unknown, we may"
        }
        "accept4" if call.role == Role::Monitor => {
            "has anybody come? At the end nobody is waited for"
        }
        "openat" | "dup2" | "dup3" if call.role == Role::Monitor && call.object == "/dev/null" => {
            "its caller has gone; then the file of its errors stays open"
        }
        "sendto" if call.role == Role::Monitor => {
            "what a client has not got waits, and is sent again"
        }
        "openat" | "read" if is_usage(&call.object) => "what has it used? A report, and no limit",
        "rmdir" if begins(&["/sys/fs/cgroup/"]) => "what is in it is ended, and it is tried again",
        "rmdir" if call.object == "/run/container-workshop" => "most often it is not empty",
        "openat" | "read" if begins(&users) => "who is unknown has no ranges of ids",
        "socket" | "connect" if call.object == "1" || begins(&["socket:"]) => {
            "the C library asks a name server (AF_UNIX), which need not be there"
        }
        _ => return None,
    })
}

/// What the kernel counts for a group, in both versions.
fn is_usage(path: &str) -> bool {
    let files = [
        "memory.current",
        "memory.usage_in_bytes",
        "memory.events.local",
        "memory.peak",
        "memory.max_usage_in_bytes",
        "memory.events",
        "memory.oom_control",
        "cpu.stat",
        "cpuacct.usage",
        "pids.current",
        "io.stat",
    ];
    path.starts_with("/sys/fs/cgroup/") && files.iter().any(|file| path.ends_with(file))
}

/// Why the error may be another than the call's own, if it may.
fn may_be_unclear(call: &Call) -> Option<&'static str> {
    Some(match (call.role, call.name) {
        (Role::Container, "prctl") if call.object == PR_SET_PDEATHSIG => {
            "it dies while its parent works for it, which tells what it sees"
        }
        (Role::Container, "recvmsg") => "the same",
        (Role::Runtime | Role::Monitor, "recvfrom") => {
            "a connection that cannot be read is closed, and that is what the other side tells"
        }
        (Role::Runtime, "ioctl") => "is it a terminal? If that is unknown, it is none",
        (Role::Runtime | Role::Monitor, "statx") if call.object.contains("container-workshop") => {
            "mkdir has said EEXIST; if it is not known to be a directory, that is what is told"
        }
        _ => return None,
    })
}
