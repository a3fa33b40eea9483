//! While files are copied: what somebody else does, and what is left when it ends.

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::{MetadataExt as _, symlink};
use std::path::Path;
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use nix::fcntl::{AT_FDCWD, RenameFlags, renameat2};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tar::EntryType;
use workshop::lab::Who;
use workshop::suite::{command, eventually, finish};

use crate::cp::{archive, begin, cp, fails, inside, tree};
use crate::{BINARY, children, final_, scratch, start, stop};

/// What no copy may ever get: a file of the host.
const SECRET: &str = "a secret of the host";

/// CVE-2018-15664: what a path leads to is another thing when it is used than when it was looked at.
/// A link in the container means what it means there, however fast it changes.
pub fn no_link_leads_a_copy_out(_: Who) {
    let scratch = scratch();
    let path = |name: &str| format!("{scratch}/{name}");
    for directory in ["host", "volume/moving"] {
        fs::create_dir_all(path(directory)).unwrap();
    }
    fs::write(path("host/secret"), SECRET).unwrap();
    fs::write(path("volume/moving/secret"), "of the container").unwrap();
    fs::write(path("new"), "new").unwrap();
    // For the host these are links to the secret, and to where it is.
    symlink(path("host"), path("volume/away")).unwrap();
    symlink(path("host/secret"), path("volume/link")).unwrap();
    let volume = format!("{}:/vol", path("volume"));
    let running = start("box", &["-v", &volume], &["sleep", "1000"]);
    let out = path("out");
    for from in ["-L box:/vol/link", "box:/vol/away/secret", "box:/vol/away/."] {
        let words: Vec<_> = from.split(' ').chain([out.as_str()]).collect();
        fails(&words, "No such file");
    }
    for fd in 0..9 {
        fails(&["-L", &format!("box:/proc/1/fd/{fd}"), &out], "cannot copy /proc/1/");
    }
    fails(&[&format!("box:/proc/1/root{}", path("host/secret")), &out], "cannot copy /proc/1/");
    fails(&[&path("new"), "box:/vol/away/new"], "there is no directory");
    // Over a link to nowhere, as a link leads in the container.
    fails(&[&path("new"), "box:/vol/link"], "there is no directory");

    // Somebody exchanges a directory and a link to one of the host, all the time.
    let stopped = Arc::new(AtomicBool::new(false));
    let (moving, away, until) = (path("volume/moving"), path("volume/away"), stopped.clone());
    let swapper = std::thread::spawn(move || {
        while !until.load(Ordering::Relaxed) {
            let exchange = RenameFlags::RENAME_EXCHANGE;
            renameat2(AT_FDCWD, moving.as_str(), AT_FDCWD, away.as_str(), exchange).unwrap();
        }
    });
    let mut got = 0;
    for _ in 0..8 {
        for from in ["box:/vol/moving/secret", "box:/vol/moving/."] {
            let outcome = final_(&["cp", from, &out]);
            let found =
                if Path::new(&out).is_dir() { format!("{out}/secret") } else { out.clone() };
            match fs::read_to_string(&found) {
                Ok(text) => assert_ne!(text, SECRET),
                Err(_) => assert_eq!(outcome.status, Some(1), "{outcome:?}"),
            }
            got += usize::from(outcome.status == Some(0));
            let _ = fs::remove_dir_all(&out);
            let _ = fs::remove_file(&out);
        }
        // The whole: the one is a directory, the other a link, and never the other's content.
        let outcome = final_(&["cp", "box:/vol", &out]);
        for name in ["moving", "away"] {
            let copy = format!("{out}/{name}");
            let is_directory = fs::symlink_metadata(&copy).is_ok_and(|found| found.is_dir());
            if is_directory && let Ok(text) = fs::read_to_string(format!("{copy}/secret")) {
                assert_ne!(text, SECRET, "{outcome:?}");
            }
        }
        let _ = fs::remove_dir_all(&out);
        let _ = final_(&["cp", &path("new"), "box:/vol/moving/secret"]);
        let _ = final_(&["cp", &path("new"), "box:/vol/moving/new"]);
        assert_eq!(fs::read_to_string(path("host/secret")).unwrap(), SECRET);
        assert_eq!(fs::read_dir(path("host")).unwrap().count(), 1, "a file of the host's is new");
    }
    stopped.store(true, Ordering::Relaxed);
    swapper.join().unwrap();
    assert!(got > 0, "nothing was ever copied");
    stop("box", running);
    for name in ["host", "volume"] {
        fs::remove_dir_all(path(name)).unwrap();
    }
    fs::remove_file(path("new")).unwrap();
}

/// A copy waits for its input; who would start the container waits for the copy, and nobody else.
pub fn a_start_waits_for_a_copy(_: Who) {
    let words = ["create", "--name", "box", "host", "sleep", "1000"];
    assert_eq!(final_(&words).status, Some(0));
    let is_locked = || final_(&["ps", "-a"]).status == Some(0) && !children_of_cp().is_empty();
    let mut copy = begin(&["-", "box:/root"]);
    eventually("it copies", is_locked);
    let begun = command(BINARY, &["start", "box"])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let other = ["create", "--name", "other", "host"];
    assert_eq!(final_(&other).status, Some(0), "others are not held up");
    assert_eq!(final_(&["rm", "other"]).status, Some(0));
    let listed = final_(&["ps", "-a", "--format", "{{.Status}}"]);
    assert_eq!(listed.stdout, "Created\n", "{listed:?}");
    let bytes = archive(&[(EntryType::Regular, "late", "late")]);
    copy.stdin.take().unwrap().write_all(&bytes).unwrap();
    assert_eq!(finish(copy, Duration::from_secs(100)).status, Some(0));
    let begun = finish(begun, Duration::from_secs(100));
    assert_eq!((begun.status, &*begun.stdout), (Some(0), "box\n"), "{begun:?}");
    assert_eq!(inside("cat /root/late"), "late");
    assert_eq!(final_(&["rm", "--force", "box"]).status, Some(0));
}

/// The processes that copy, in this lab.
fn children_of_cp() -> Vec<Pid> {
    let all = fs::read_dir("/proc").unwrap();
    let pids = all.filter_map(|entry| entry.unwrap().file_name().to_str()?.parse().ok());
    let is_cp = |pid: &i32| {
        let words = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        words.split(|&byte| byte == 0).nth(1) == Some(b"cp")
    };
    let copies = pids.filter(is_cp).map(Pid::from_raw);
    copies.filter(|pid| children(*pid).is_empty()).collect()
}

pub fn a_copy_that_is_ended_leaves_nothing(_: Who) {
    let words = ["create", "--name", "box", "host", "sleep", "1000"];
    assert_eq!(final_(&words).status, Some(0));
    for state in ["at rest", "running"] {
        for signal in [Signal::SIGINT, Signal::SIGKILL] {
            let mut copy = begin(&["-", "box:/root"]);
            let pid = Pid::from_raw(copy.id().cast_signed());
            let bytes = archive(&[(EntryType::Regular, "early", "early")]);
            copy.stdin.as_mut().unwrap().write_all(&bytes[..600]).unwrap();
            eventually("it copies", || !children(pid).is_empty());
            let child = children(pid)[0];
            kill(pid, signal).unwrap();
            assert_eq!(finish(copy, Duration::from_secs(100)).status, None);
            eventually("its child is gone", || !Path::new(&format!("/proc/{child}")).exists());
            let words = ["cp", "box:/etc/passwd", "-"];
            assert_eq!(final_(&words).status, Some(0), "{state} after {signal}");
        }
        if state == "at rest" {
            assert_eq!(final_(&["start", "box"]).status, Some(0));
        }
    }
    assert_eq!(final_(&["rm", "--force", "box"]).status, Some(0));
}

pub fn a_paused_containers_files_are_copied(_: Who) {
    let tree = tree();
    let running = start("box", &["--tmpfs", "/t"], &["sleep", "1000"]);
    assert_eq!(final_(&["pause", "box"]).status, Some(0));
    cp(&[&tree, "box:/t"]);
    let out = format!("{}/out", scratch());
    cp(&["box:/t/tree/file", &out]);
    assert_eq!(fs::read_to_string(&out).unwrap(), "of the host");
    assert_eq!(final_(&["unpause", "box"]).status, Some(0));
    assert_eq!(inside("cat /t/tree/deep/other"), "deep");
    stop("box", running);
    fs::remove_file(out).unwrap();
    fs::remove_dir_all(tree).unwrap();
}

/// Who works in a container that runs is none of its processes, and can do little else.
pub fn who_copies_is_out_of_reach(who: Who) {
    let running = start("box", &[], &["sleep", "1000"]);
    let mut copy = begin(&["-", "box:/root"]);
    let pid = Pid::from_raw(copy.id().cast_signed());
    let status = |key: &str| {
        let child = children(pid).first().copied()?;
        let text = fs::read_to_string(format!("/proc/{child}/status")).ok()?;
        let line = text.lines().find_map(|line| line.strip_prefix(key))?;
        Some(line.trim().to_owned())
    };
    // chown, dac_override, fowner, fsetid (linux/capability.h).
    eventually("it is there", || status("CapEff:").as_deref() == Some("000000000000001b"));
    assert_eq!(status("CapPrm:"), status("CapEff:"));
    assert_eq!(status("NoNewPrivs:").as_deref(), Some("1"));
    if who == Who::Root {
        let child = children(pid)[0];
        let number =
            |of: Pid, kind: &str| fs::metadata(format!("/proc/{of}/ns/{kind}")).unwrap().ino();
        let first = final_(&["inspect", "--format", "{{.State.Pid}}", "box"]).stdout;
        let first = Pid::from_raw(first.trim().parse().unwrap());
        assert_eq!(number(child, "mnt"), number(first, "mnt"));
        assert_eq!(number(child, "pid"), number(pid, "pid"));
        assert_ne!(number(child, "pid"), number(first, "pid"));
    }
    let seen = inside("cat /proc/[0-9]*/comm");
    assert!(seen.contains("sleep\n") && !seen.contains("final"), "{seen}");
    drop(copy.stdin.take());
    assert_eq!(finish(copy, Duration::from_secs(100)).status, Some(0));
    stop("box", running);
}
