//! The exercises of the runtime, each tried on the kernel by itself.

use std::fs::{self, File};
use std::os::unix::process::CommandExt as _;
use std::process::{Command, ExitCode};

use nix::sched::{CloneFlags, setns};
use nix::sys::prctl;
use nix::sys::resource::Resource;
use nix::sys::signal::{SigHandler, Signal, signal};
use nix::unistd::{Gid, getgroups, getpid, getsid, setgroups};
use runtime::process::Process;
use runtime::security::{Filters, parse_capabilities, profile};
use runtime::verbs::exec::split;
use step01_namespaces::{Namespace, Namespaces, pidfd_open};
use workshop::lab::Who;
use workshop::suite::{Test, suite};
use workshop::test;
use workshop::verdict::{Held, apart, expect, expect_ok, verdict};

static TESTS: &[Test] = &[
    test!(ex6_1_exec_is_in_the_container_and_its_runtime_is_not, [Root, LabRoot, Plain]),
    test!(ex6_2_the_ties_to_the_caller_are_cut, [Root, LabRoot, Plain]),
    test!(ex6_3_privileges_are_given_up_for_good, [Root, LabRoot]),
];

fn main() -> ExitCode {
    suite(TESTS)
}

fn link(pid: &str, namespace: Namespace) -> String {
    let path = format!("/proc/{pid}/ns/{}", namespace.name());
    fs::read_link(&path).map_or_else(|error| error.to_string(), |link| link.display().to_string())
}

/// Not Namespace::flag: that is exercise 1.1.
fn flag(namespace: Namespace) -> CloneFlags {
    match namespace {
        Namespace::Mnt => CloneFlags::CLONE_NEWNS,
        Namespace::Uts => CloneFlags::CLONE_NEWUTS,
        Namespace::Ipc => CloneFlags::CLONE_NEWIPC,
        Namespace::Pid => CloneFlags::CLONE_NEWPID,
        Namespace::Net => CloneFlags::CLONE_NEWNET,
        Namespace::User => CloneFlags::CLONE_NEWUSER,
        Namespace::Cgroup | Namespace::Time => CloneFlags::empty(),
    }
}

fn ex6_1_exec_is_in_the_container_and_its_runtime_is_not(who: Who) {
    let look = "setns(2), \"PID namespace\" and \"user namespace\": which of the two sets each \
                belongs to";
    let kinds: Vec<_> = Namespace::ALL
        .into_iter()
        .filter(|&kind| kind != Namespace::User || who != Who::Root)
        .filter(|&kind| kind != Namespace::Time && kind != Namespace::Cgroup)
        .collect();
    let namespaces: Namespaces = kinds.iter().copied().collect();
    let container = Held::new(kinds.iter().map(|&kind| flag(kind)).collect());
    let pidfd = pidfd_open(container.pid()).unwrap();
    let (before, after) = split(namespaces);
    apart(|| {
        // As exec does it: join some, then clone, and join the rest in the child.
        let join = |kinds: &[Namespace], when: &str| {
            let flags: CloneFlags = kinds.iter().map(|&kind| flag(kind)).collect();
            if !kinds.is_empty()
                && let Err(errno) = setns(&pidfd, flags)
            {
                let expected = format!("setns takes what you chose for {when} the clone");
                verdict(&expected, &format!("{flags:?}: {errno}"), look);
            }
        };
        let home: Vec<_> = kinds.iter().map(|&kind| link("self", kind)).collect();
        join(&before, "before");
        let moved = kinds.iter().zip(&home).filter(|&(&kind, home)| link("self", kind) != *home);
        let moved: Vec<_> =
            moved.map(|(kind, _)| *kind).filter(|&k| k != Namespace::User).collect();
        let expected = "the runtime itself stays outside";
        expect(moved.is_empty(), expected, &format!("it has moved into: {moved:?}"), look);
        apart(|| {
            join(&after, "after");
            for &kind in &kinds {
                let expected = format!("the new process is in the container's {}", kind.name());
                let (right, found) = (link(&container.pid().to_string(), kind), link("self", kind));
                expect(right == found, &expected, &format!("{found}, not {right}"), look);
            }
            expect(getpid().as_raw() < 10, "its pid is one of the container's", "no", look);
            String::new()
        })
    });
}

/// As config.json might describe one.
fn process(filtered: bool) -> Process {
    let profile = || Filters::compile(&serde_json::from_value(profile()).unwrap()).unwrap();
    Process {
        args: Vec::new(),
        env: Vec::new(),
        terminal: false,
        interactive: false,
        capabilities: parse_capabilities(["CAP_CHOWN", "CAP_KILL", "CAP_SETPCAP"]).unwrap(),
        seccomp: filtered.then(profile),
        rlimits: vec![(Resource::RLIMIT_NOFILE, 100, 200)],
    }
}

fn ex6_2_the_ties_to_the_caller_are_cut(_: Who) {
    apart(|| {
        let look =
            "four ties: prctl(PR_SET_DUMPABLE), ignored signals, setsid(2), the session keyring";
        // SAFETY: the handler is SIG_IGN, no code of ours.
        unsafe { signal(Signal::SIGUSR1, SigHandler::SigIgn) }.unwrap();
        expect_ok(process(true).leave_caller(), "all four are cut", look);
        let dumpable = prctl::get_dumpable().unwrap();
        let but = "it is dumpable: they can open the files that it still has of the host";
        expect(!dumpable, "the container's processes cannot look into this one", but, look);
        // SAFETY: the handler is SIG_DFL, no code of ours.
        let before = unsafe { signal(Signal::SIGUSR1, SigHandler::SigDfl) }.unwrap();
        let expected = "no signal is ignored because our caller ignored it";
        let right = matches!(before, SigHandler::SigDfl);
        expect(right, expected, "SIGUSR1 still is", look);
        let own = getsid(None) == Ok(getpid());
        let but = "it is in the caller's session: it could type into the caller's terminal";
        expect(own, "it leads a session of its own", but, look);
        String::new()
    });
}

fn ex6_3_privileges_are_given_up_for_good(who: Who) {
    // Also without a filter, as who sets one also sets no_new_privs.
    for filtered in [true, false] {
        gives_up(who, filtered);
    }
}

fn gives_up(who: Who, filtered: bool) {
    let look = "the order: each step takes a privilege or a system call that a later one gives up";
    apart(|| {
        if who == Who::Root {
            setgroups(&[Gid::from_raw(27)]).unwrap(); // a group of the caller's, such as sudo
        }
        expect_ok(process(filtered).restrict(), "every step of giving up succeeds", look);
        let groups = getgroups().unwrap();
        if who == Who::Root {
            let but = format!("it is in {groups:?}, and may read what they may");
            expect(groups.is_empty(), "it is in no group of the caller's", &but, look);
        }
        let error = Command::new("/bin/cat").arg("/proc/self/status").stdout(output()).exec();
        panic!("the test cannot execute cat: {error}");
    });
    let status = fs::read_to_string(output_path()).unwrap();
    fs::remove_file(output_path()).unwrap();
    let field = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(":\t"));
        line.unwrap_or_default().to_owned()
    };
    // CAP_CHOWN is bit 0, CAP_KILL 5, CAP_SETPCAP 8 (capabilities(7)).
    for (name, right, meaning) in [
        ("CapBnd", "0000000000000121", "no exec gets more than the three that it keeps"),
        ("CapPrm", "0000000000000121", "user 0 has these three after the exec"),
        ("CapInh", "0000000000000000", "nothing is inherited"),
        ("NoNewPrivs", "1", "a set-user-ID program gains nothing"),
        (
            "Seccomp",
            if filtered { "2" } else { "0" },
            "system calls are filtered, if there is a filter",
        ),
    ] {
        let found = field(name);
        let but = format!("{name} in /proc/self/status is {found}, not {right}");
        expect(found == right, meaning, &but, look);
    }
}

fn output_path() -> String {
    format!("{}/status", std::env::var("XDG_RUNTIME_DIR").unwrap())
}

fn output() -> File {
    File::create(output_path()).unwrap()
}
