//! The exercises of the runtime, each tried on the kernel by itself.

use std::fs::{self, File};
use std::os::unix::process::CommandExt as _;
use std::process::{Command, ExitCode};

use caps::{CapSet, Capability};
use nix::errno::Errno;
use nix::sched::{CloneFlags, setns};
use nix::sys::prctl;
use nix::sys::resource::Resource;
use nix::sys::signal::Signal;
use nix::unistd::{Gid, Uid, getgid, getgroups, getpid, getsid, getuid, setgroups};
use runtime::join::split;
use runtime::process::Process;
use runtime::security::{Filters, parse_capabilities, profile};
use runtime::user::{User, Wanted};

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
fn process(filtered: bool, no_new_privileges: bool) -> Process {
    // What each step before the filter calls, the filter takes away, if it is to come last.
    let profile = || {
        let mut profile = profile(&caps::CapsHashSet::new());
        let names = profile["syscalls"][0]["names"].as_array_mut().unwrap();
        let steps = ["capset", "prctl", "prlimit64", "setgroups", "setrlimit"];
        names.retain(|name| !no_new_privileges || !steps.contains(&name.as_str().unwrap()));
        profile["defaultErrnoRet"] = libc::ENOSYS.into();
        Filters::compile(&serde_json::from_value(profile).unwrap()).unwrap()
    };
    Process {
        args: Vec::new(),
        env: Vec::new(),
        user: Wanted::default(),
        terminal: false,
        interactive: false,
        capabilities: parse_capabilities(["CAP_CHOWN", "CAP_KILL", "CAP_SETPCAP"]).unwrap(),
        seccomp: filtered.then(profile),
        no_new_privileges,
        oom_score_adj: None,
        rlimits: vec![(Resource::RLIMIT_NOFILE, 100, 200)],
    }
}

fn ex6_2_the_ties_to_the_caller_are_cut(_: Who) {
    apart(|| {
        let look =
            "four ties: prctl(PR_SET_DUMPABLE), ignored signals, setsid(2), the session keyring";
        let (ours, others) = ([libc::SIGPIPE, libc::SIGXFSZ], [libc::SIGUSR1, 64]);
        for number in ours.into_iter().chain(others) {
            set_handler(number, libc::SIG_IGN);
        }
        let keyring = session_keyring();
        expect_ok(process(true, true).leave_caller(), "all four are cut", look);
        let dumpable = prctl::get_dumpable().unwrap();
        let but = "it is dumpable: they can open the files that it still has of the host";
        expect(!dumpable, "the container's processes cannot look into this one", but, look);
        for number in others {
            let right = set_handler(number, libc::SIG_DFL) == libc::SIG_DFL;
            let expected = "no signal is ignored because our caller ignored it";
            expect(right, expected, &format!("signal {number} still is; there are 64"), look);
        }
        for number in ours {
            let right = set_handler(number, libc::SIG_DFL) == libc::SIG_IGN;
            let expected = "SIGPIPE and SIGXFSZ stay ignored up to the exec, as we need that";
            expect(right, expected, &format!("signal {number} would end us"), look);
        }
        let own = getsid(None) == Ok(getpid());
        let but = "it is in the caller's session: it could type into the caller's terminal";
        expect(own, "it leads a session of its own", but, look);
        let right = keyring.is_err() || session_keyring() != keyring;
        expect(right, "its session keyring is a new one", "it has the caller's keys", look);
        String::new()
    });
}

/// signal(2) with a handler that is no code of ours, and for real-time signals as well.
fn set_handler(number: libc::c_int, handler: libc::sighandler_t) -> libc::sighandler_t {
    // SAFETY: SIG_IGN and SIG_DFL run no code.
    unsafe { libc::signal(number, handler) }
}

/// keyctl(2): the serial number of our session keyring; an error if this kernel has no keys.
fn session_keyring() -> nix::Result<i64> {
    const GET_KEYRING_ID: libc::c_int = 0;
    const SESSION_KEYRING: libc::c_int = -3;
    // SAFETY: takes numbers only.
    Errno::result(unsafe { libc::syscall(libc::SYS_keyctl, GET_KEYRING_ID, SESSION_KEYRING, 0) })
}

fn ex6_3_privileges_are_given_up_for_good(who: Who) {
    for filtered in [false, true] {
        gives_up(who, filtered, true, &user(0));
    }
    gives_up(who, true, false, &user(0));
    if who == Who::Root {
        gives_up(who, false, true, &user(1234)); // the lab of a plain user has one id
    }
}

fn user(id: u32) -> User {
    let (uid, gid) = (Uid::from_raw(id), Gid::from_raw(id));
    User { uid, gid, groups: vec![gid], asked: false, home: "/".to_owned() }
}

fn gives_up(who: Who, filtered: bool, no_new_privileges: bool, user: &User) {
    let look = "the order: each step takes a privilege or a system call that a later one gives up";
    apart(|| {
        if who == Who::Root {
            setgroups(&[Gid::from_raw(27)]).unwrap(); // a group of the caller's, such as sudo
            caps::raise(None, CapSet::Inheritable, Capability::CAP_KILL).unwrap();
        }
        prctl::set_pdeathsig(Signal::SIGKILL).unwrap();
        let output = output();
        let process = process(filtered, no_new_privileges);
        expect_ok(process.restrict(user), "every step of giving up succeeds", look);
        let groups = getgroups().unwrap();
        if who == Who::Root {
            let but = format!("it is in {groups:?}, and may read what they may");
            expect(groups == user.groups, "it is in no group of the caller's", &but, look);
        }
        let right = (getuid(), getgid()) == (user.uid, user.gid);
        let but = format!("it is {}:{}", getuid(), getgid());
        expect(right, "it is the user that it is to be", &but, look);
        let tied = filtered || prctl::get_pdeathsig() == Ok(Some(Signal::SIGKILL));
        expect(tied, "it dies with its parent", "it outlives it", look);
        let files = ["/proc/self/status", "/proc/self/limits"];
        let error = Command::new("/bin/cat").args(files).stdout(output).exec();
        panic!("the test cannot execute cat: {error}");
    });
    let status = fs::read_to_string(output_path()).unwrap();
    fs::remove_file(output_path()).unwrap();
    let field = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(":\t"));
        line.unwrap_or_default().to_owned()
    };
    let files = status.lines().find(|line| line.starts_with("Max open files"));
    let files: Vec<_> = files.unwrap_or_default().split_whitespace().skip(3).take(2).collect();
    let but = format!("of open files it may have {}", files.join(", at most "));
    expect(
        files == ["100", "200"],
        "the limits are those of the list: 100, at most 200",
        &but,
        look,
    );
    // CAP_CHOWN is bit 0, CAP_KILL 5, CAP_SETPCAP 8 (capabilities(7)).
    let permitted = if user.uid.is_root() { "0000000000000121" } else { "0000000000000000" };
    for (name, right, meaning) in [
        ("CapBnd", "0000000000000121", "no exec gets more than the three that it keeps"),
        ("CapPrm", permitted, "user 0 has these three after the exec, and nobody else"),
        ("CapInh", "0000000000000000", "nothing is inherited"),
        (
            "NoNewPrivs",
            if no_new_privileges { "1" } else { "0" },
            "a set-user-ID program gains nothing, unless it is to",
        ),
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
