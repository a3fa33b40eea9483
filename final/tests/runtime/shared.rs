//! Namespaces that are the host's, or another container's.

use std::fs::{self, read_link};
use std::os::unix::fs::MetadataExt as _;
use std::time::Duration;

use workshop::lab::Who;
use workshop::suite::{eventually, finish};

use crate::{final_, script, start, stop};

/// Which namespaces it is in, by their kinds.
fn namespaces(options: &[&str]) -> Vec<String> {
    let script_ =
        "for kind in mnt uts ipc pid net user cgroup; do readlink /proc/self/ns/$kind; done";
    let seen = script(options, script_);
    assert_eq!(seen.status, Some(0), "{options:?}: {seen:?}");
    seen.stdout.lines().map(str::to_owned).collect()
}

fn own(kind: &str) -> String {
    read_link(format!("/proc/self/ns/{kind}")).unwrap().display().to_string()
}

/// The process of the lab with this line as arguments.
pub fn process(wanted: &str) -> Option<String> {
    fs::read_dir("/proc").unwrap().find_map(|entry| {
        let entry = entry.unwrap();
        let line = fs::read_to_string(entry.path().join("cmdline")).ok()?;
        let is_it = line.replace('\0', " ").trim() == wanted;
        is_it.then(|| entry.file_name().into_string().unwrap())
    })
}

/// Whether there is one.
pub fn runs(wanted: &str) -> bool {
    process(wanted).is_some()
}

pub fn the_hosts_namespaces_are_shared_if_asked_for(who: Who) {
    let usual = namespaces(&[]);
    for (index, kind) in [(1, "uts"), (2, "ipc")] {
        assert_ne!(usual[index], own(kind));
        let shared = namespaces(&[&format!("--{kind}"), "host"]);
        assert_eq!(shared[index], own(kind));
        // All others are its own.
        let others = ["mnt", "uts", "ipc", "pid", "net"].into_iter().enumerate();
        for (index, other) in others.filter(|(_, other)| *other != kind) {
            assert_ne!(shared[index], own(other), "--{kind} host shares {other}");
        }
    }
    let users = script(&["--userns", "host"], "readlink /proc/self/ns/user");
    if who == Who::Plain {
        assert!(users.stderr.contains("--userns"), "{users:?}");
    } else {
        assert_eq!(users.stdout.trim(), own("user"), "{users:?}");
    }
    let named = script(&["--uts", "host"], "hostname; cat /etc/hostname; echo $HOSTNAME").stdout;
    let host = fs::read_to_string("/proc/sys/kernel/hostname").unwrap();
    assert_eq!(named, host.repeat(3));
    // What programs share is in /dev/shm, too.
    let place = fs::metadata("/dev/shm").unwrap();
    let seen = script(&["--ipc", "host"], "stat -c %d:%i /dev/shm; grep ' /dev/shm ' /proc/mounts");
    assert!(seen.stdout.starts_with(&format!("{}:{}\n", place.dev(), place.ino())), "{seen:?}");
    assert!(seen.stdout.contains("nodev"), "{seen:?}");
    assert_eq!(script(&["--ipc", "private"], "ls /dev/shm").stdout, "");
    let mqueue = script(&["--ipc", "host"], "ls -d /dev/mqueue").status;
    assert_eq!(mqueue, Some(if who == Who::Root { 0 } else { 2 }));
}

pub fn another_containers_namespaces_are_shared_if_asked_for(who: Who) {
    let first = start("first", &["--hostname", "first", "--ipc", "private"], &["sleep", "1000"]);
    let of_first: Vec<_> = {
        let words =
            "for kind in mnt uts ipc pid net user cgroup; do readlink /proc/self/ns/$kind; done";
        let seen = final_(&["exec", "first", "sh", "-c", words]).stdout;
        seen.lines().map(str::to_owned).collect()
    };
    let id = final_(&["ps", "-q"]).stdout;
    for (index, kind, name) in [(1, "uts", "first"), (2, "ipc", id.trim())] {
        let shared = namespaces(&[&format!("--{kind}"), &format!("container:{name}")]);
        for other in 0..5 {
            assert_eq!(shared[other] == of_first[other], other == index, "--{kind}: {other}");
        }
        // A plain user has power over them in their user namespace only.
        assert_eq!(shared[5], of_first[5]);
        assert_eq!(shared[5] == own("user"), who != Who::Plain);
    }
    let options = ["--uts", "container:first", "--ipc", "container:first"];
    let named = script(&options, "hostname; cat /etc/hostname; echo $HOSTNAME");
    assert_eq!(named.stdout, "first\n".repeat(3), "{named:?}");

    // System V's shared memory, and POSIX's.
    let made =
        final_(&["exec", "first", "sh", "-c", "ipcmk -M 4096 >/dev/null; echo x > /dev/shm/x"]);
    assert_eq!(made.status, Some(0), "{made:?}");
    let look = "ipcs -m | grep -c 4096; cat /dev/shm/x; echo y > /dev/shm/y; grep shm /proc/mounts";
    let seen = script(&options, look);
    assert!(seen.stdout.starts_with("1\nx\n"), "{seen:?}");
    assert!(seen.stdout.contains("nosuid,nodev,noexec"), "{seen:?}");
    assert_eq!(final_(&["exec", "first", "cat", "/dev/shm/y"]).stdout, "y\n");
    assert_eq!(script(&[], "ipcs -m | grep -c 4096; ls /dev/shm").stdout, "0\n");

    // Whoever comes in by exec is where the container is, also when the first one has ended.
    let second = start("second", &options, &["sleep", "1000"]);
    stop("first", first);
    let of_second = "readlink /proc/self/ns/ipc; readlink /proc/self/ns/user; ls /dev/shm";
    let of_second = final_(&["exec", "second", "sh", "-c", of_second]).stdout;
    assert_eq!(of_second, format!("{}\n{}\nx\ny\n", of_first[2], of_first[5]));
    stop("second", second);
    for kind in ["uts", "ipc", "pid"] {
        let refused = script(&[&format!("--{kind}"), "container:first"], "true");
        assert_eq!(refused.status, Some(125), "{refused:?}");
        assert!(refused.stderr.contains("no such container: first"), "{refused:?}");
    }
    assert_eq!(final_(&["run", "--name", "ended", "host", "true"]).status, Some(0));
    let refused = script(&["--ipc", "container:ended"], "true");
    assert!(refused.stderr.contains("the container ended is not running"), "{refused:?}");
    assert_eq!(final_(&["rm", "ended"]).status, Some(0));
}

pub fn the_processes_of_others_are_shared_if_asked_for(_: Who) {
    let first = start("first", &[], &["sleep", "12321"]);
    let sees = "cat /proc/1/comm; test $$ -gt 1 && cat /proc/self/cmdline | tr '\\0' ' '";
    let seen = script(&["--pid", "container:first"], sees).stdout;
    assert_eq!(seen, "sleep\ncat /proc/self/cmdline ");
    let host = script(&["--pid", "host"], "readlink /proc/self/ns/pid; cat /proc/1/comm").stdout;
    let init = fs::read_to_string("/proc/1/comm").unwrap();
    assert_eq!(host, format!("{}\n{init}", own("pid")));
    // It is PID 1 of nothing, so what it leaves behind does not end by itself.
    for options in [["--pid", "host"], ["--pid", "container:first"]] {
        let left = script(&options, "setsid sleep 12322 & exit 7");
        assert_eq!(left.status, Some(7), "{left:?}");
        assert!(!runs("sleep 12322"), "{options:?}");
    }
    // By exec one comes to the same processes, and does not outlive the container either.
    let second = start("second", &["--pid", "container:first"], &["sleep", "12323"]);
    let see = "cat /proc/1/cmdline | tr '\\0' ' '; setsid sleep 12324 >/dev/null 2>&1 &";
    assert_eq!(final_(&["exec", "second", "sh", "-c", see]).stdout, "sleep 12321 ");
    eventually("exec's program runs", || runs("sleep 12324"));
    stop("second", second);
    assert!(!runs("sleep 12323") && !runs("sleep 12324"));
    assert!(runs("sleep 12321"));

    // A killed monitor: the next command ends what the kernel has not.
    let leave = "setsid sleep 12325 & exec sleep 12326";
    let mut second = start("second", &["--pid", "container:first"], &["sh", "-c", leave]);
    eventually("both run", || runs("sleep 12325") && runs("sleep 12326"));
    crate::kill_monitor("second");
    second.wait().unwrap();
    assert_eq!(final_(&["gc"]).status, Some(0));
    assert!(!runs("sleep 12325") && !runs("sleep 12326"));

    // With the first one ends the namespace, and everybody in it.
    let second = start("second", &["--pid", "container:first"], &["sleep", "12323"]);
    stop("first", first);
    assert_eq!(finish(second, Duration::from_secs(60)).status, Some(137));
}

pub fn without_a_cgroup_processes_are_not_shared(_: Who) {
    let first = start("first", &[], &["sleep", "1000"]);
    for whose in ["host", "container:first"] {
        let refused = script(&["--pid", whose], "true");
        assert_eq!(refused.status, Some(125), "{refused:?}");
        assert!(refused.stderr.contains("--pid cannot share processes here"), "{refused:?}");
    }
    stop("first", first);
}
