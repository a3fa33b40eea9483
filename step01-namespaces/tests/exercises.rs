//! The exercises of step 1, each tried on the kernel by itself.

use std::fs::{self, create_dir};
use std::io::{Read as _, Write as _, pipe};
use std::path::Path;
use std::process::{Command, ExitCode};
use std::time::Duration;

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, unshare};
use nix::sys::prctl::set_child_subreaper;
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{Id, WaitPidFlag, WaitStatus, waitid, waitpid};
use nix::unistd::{Pid, getegid, geteuid};
use step01_namespaces::{Child, Namespace, Namespaces, exit_status, map_one_id};
use workshop::lab::Who;
use workshop::suite::{Test, read, suite};
use workshop::test;
use workshop::verdict::{Held, apart, expect, expect_ok, verdict, with_mounts};

static TESTS: &[Test] = &[
    test!(ex1_1_each_flag_makes_its_own_namespace, [Root, LabRoot, Plain]),
    test!(ex1_2_the_set_up_waits_for_go, [Root, LabRoot, Plain]),
    test!(ex1_2_who_loses_its_parent_dies, [Root, LabRoot, Plain]),
    test!(ex1_3_the_caller_is_root_inside, [LabRoot, Plain]),
    test!(ex1_4_what_is_mounted_inside_stays_inside, [Root, LabRoot]),
    test!(ex1_5_the_exit_status_says_how_it_ended, [Root, LabRoot, Plain]),
];

fn main() -> ExitCode {
    suite(TESTS)
}

/// The links in /proc/self/ns. These two kinds are not for the caller of unshare(2) itself, but for
/// its next child.
fn links() -> Vec<String> {
    let link = |namespace: Namespace| {
        let suffix = match namespace {
            Namespace::Pid | Namespace::Time => "_for_children",
            _ => "",
        };
        let path = format!("/proc/self/ns/{}{suffix}", namespace.name());
        fs::read_link(path).map_or_else(|_| String::new(), |link| link.display().to_string())
    };
    Namespace::ALL.into_iter().map(link).collect()
}

fn ex1_1_each_flag_makes_its_own_namespace(who: Who) {
    for namespace in Namespace::ALL.into_iter().filter(|namespace| namespace.is_in_kernel()) {
        let name = namespace.name();
        let flag = CloneFlags::from_bits_retain(namespace.flag());
        // A plain user may make the others only together with a user namespace.
        let needs_user = who == Who::Plain && namespace != Namespace::User;
        let user = if needs_user { CloneFlags::CLONE_NEWUSER } else { CloneFlags::empty() };
        apart(|| {
            let before = links();
            let expected = format!("the flag of {name} makes /proc/self/ns/{name} a new namespace");
            let look =
                format!("the arm of {namespace:?} in Namespace::flag; namespaces(7) has a table");
            if let Err(errno) = unshare(flag | user) {
                verdict(&expected, &format!("the kernel refused it: {errno}"), &look);
            }
            let after = links();
            let new = |kind: Namespace| before[kind as usize] != after[kind as usize];
            let is_right = |kind: Namespace| {
                new(kind) == (kind == namespace || needs_user && kind == Namespace::User)
            };
            if !Namespace::ALL.into_iter().all(is_right) {
                let found = Namespace::ALL.into_iter().filter(|&kind| new(kind));
                let found: Vec<_> = found.map(Namespace::name).collect();
                verdict(&expected, &format!("what is new after it: {}", found.join(", ")), &look);
            }
            String::new()
        });
    }
}

fn ex1_2_the_set_up_waits_for_go(_: Who) {
    let (mut reader, mut writer) = pipe().unwrap();
    let child = Child::spawn(Namespaces::default(), None, || {
        writer.write_all(b"set up")?;
        Ok(Command::new("true"))
    });
    let mut child = child.unwrap();
    drop(writer);
    let early = has_input(&reader, Duration::from_millis(200));
    expect(
        !early,
        "the child's set-up begins after the parent said Go",
        "it ran 200 ms without Go: the parent has not made its cgroup and network yet",
        "the child has to receive() before anything else, and go on only if it is Message::Go",
    );
    let gone = child.go();
    let mut text = String::new();
    reader.read_to_string(&mut text).unwrap();
    expect_ok(gone, "after Go the set-up runs and the program starts", "what receive() returned");
    expect(
        text == "set up",
        "after Go the set-up runs",
        "it did not",
        "what the child does with the message",
    );
    assert_eq!(waitpid(child.pid(), None), Ok(WaitStatus::Exited(child.pid(), 0)));
    std::mem::forget(child); // its end would be exercise 1.5
}

fn has_input(reader: &impl std::os::fd::AsFd, patience: Duration) -> bool {
    use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
    let mut fds = [PollFd::new(reader.as_fd(), PollFlags::POLLIN)];
    let ready = poll(&mut fds, PollTimeout::try_from(patience).unwrap()).unwrap();
    // End of file is no input: a child that has died.
    ready == 1 && fds[0].revents().unwrap().contains(PollFlags::POLLIN)
}

fn ex1_2_who_loses_its_parent_dies(_: Who) {
    set_child_subreaper(true).unwrap(); // the orphan will be ours
    let (mut reader, mut writer) = pipe().unwrap();
    let runtime = Held::running(|| {
        let child = Child::spawn(Namespaces::default(), None, || {
            let mut sleep = Command::new("sleep");
            sleep.arg("1000");
            Ok(sleep)
        });
        let mut child = child.unwrap();
        let gone = child.go();
        write!(writer, "{}", child.pid()).unwrap();
        std::mem::forget(child); // or it would be killed here
        drop(writer);
        gone.unwrap();
    });
    let mut pid = [0; 16];
    let len = reader.read(&mut pid).unwrap();
    let pid: i32 = std::str::from_utf8(&pid[..len]).unwrap().parse().unwrap();
    drop(runtime); // by SIGKILL
    let pid = Pid::from_raw(pid);
    let ended = || waitpid(pid, Some(WaitPidFlag::WNOHANG)) != Ok(WaitStatus::StillAlive);
    let died = (0..100).any(|_| {
        std::thread::sleep(Duration::from_millis(10));
        ended()
    });
    if !died {
        kill(pid, Signal::SIGKILL).unwrap();
        waitpid(pid, None).unwrap();
        verdict(
            "the container ends when its runtime is killed",
            "a second later it still runs, and nobody will ever clean up behind it",
            "prctl(2), PR_SET_PDEATHSIG: nix has it as prctl::set_pdeathsig",
        );
    }
}

fn ex1_3_the_caller_is_root_inside(_: Who) {
    let (uid, gid) = (geteuid().as_raw(), getegid().as_raw());
    let held = Held::new(CloneFlags::CLONE_NEWUSER);
    let written = map_one_id(held.pid(), uid, gid);
    expect_ok(
        written,
        "the kernel takes setgroups, uid_map and gid_map",
        "the order of the three files, and of the three numbers: inside, outside, count \
         (user_namespaces(7))",
    );
    let proc = format!("/proc/{}", held.pid());
    for (file, id) in [("uid_map", uid), ("gid_map", gid)] {
        let map = read(format!("{proc}/{file}"));
        let found: Vec<_> = map.split_whitespace().collect();
        expect(
            found == ["0", &id.to_string(), "1"],
            &format!("{file} says that 0 inside is {id} outside"),
            &format!("{file} has {map:?}, and who is in no map is nobody (65534)"),
            "what is written to uid_map and to gid_map",
        );
    }
    assert_eq!(read(format!("{proc}/setgroups")), "deny");
}

fn ex1_4_what_is_mounted_inside_stays_inside(_: Who) {
    with_mounts(|| {
        // A host whose mounts are shared, as systemd leaves them, with one mount below another.
        let host = Path::new(&std::env::var("XDG_RUNTIME_DIR").unwrap()).join("shared");
        let (below, kind, none) = (host.join("below"), Some("tmpfs"), None::<&str>);
        create_dir(&host).unwrap();
        mount(kind, &host, kind, MsFlags::empty(), none).unwrap();
        create_dir(&below).unwrap();
        mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_SHARED, none).unwrap();
        let set = apart(|| {
            unshare(CloneFlags::CLONE_NEWNS).unwrap();
            let namespaces: Namespaces = [Namespace::Mnt].into_iter().collect();
            let set_up = namespaces.set_up("unused");
            mount(kind, &below, kind, MsFlags::empty(), none).unwrap();
            set_up.map_or_else(|error| format!("{error:#}"), |()| String::new())
        });
        let leaked = read("/proc/self/mountinfo").contains(below.to_str().unwrap());
        if leaked {
            umount2(&below, MntFlags::empty()).unwrap();
        }
        umount2(&host, MntFlags::empty()).unwrap();
        fs::remove_dir(&host).unwrap();
        let expected = "a tmpfs mounted inside is not seen on the host";
        let look = "mount(2) of \"/\" with two flags: one for the kind of propagation, and one \
                    for everything below";
        expect(set.is_empty(), expected, &set, look);
        expect(!leaked, expected, "it is in the host's /proc/self/mountinfo", look);
        String::new()
    });
}

#[allow(clippy::zombie_processes, reason = "waitid(2) waits for it")]
fn ex1_5_the_exit_status_says_how_it_ended(_: Who) {
    for (script, status) in [
        ("exit 0", 0),
        ("exit 7", 7),
        ("exit 255", 255),
        ("kill -KILL $$", 137),
        ("kill -TERM $$", 143),
        ("kill -INT $$", 130),
    ] {
        let child = Command::new("sh").args(["-c", script]).spawn().unwrap();
        let id = Id::Pid(Pid::from_raw(child.id().try_into().unwrap()));
        let ended = waitid(id, WaitPidFlag::WEXITED).unwrap();
        let found = exit_status(ended).map_or_else(|error| error.to_string(), |s| s.to_string());
        expect(
            found == status.to_string(),
            &format!("`{script}` is reported as {status}"),
            &format!("waitid says {ended:?}, and you made {found} of it"),
            "what exit(2) gives is the status; for a signal it is 128 and the signal's number",
        );
    }
}
