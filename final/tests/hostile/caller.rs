//! Callers that pass on odd things: closed files, ignored signals, no working directory.

use std::fs::{self, File};
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Command, Stdio};

use nix::sys::signal::{SigSet, Signal, kill};
use nix::sys::stat::{Mode, umask};
use nix::unistd::Pid;
use workshop::lab::Who;
use workshop::suite::{Running, command};

use crate::{BINARY, check, final_, outcome, scratch};

/// The exit status with the outputs that are given.
fn status(words: &[&str], stdout: Stdio, stderr: Stdio) -> Option<i32> {
    let mut command = command(BINARY, words);
    command.stdin(Stdio::null()).stdout(stdout).stderr(stderr).status().unwrap().code()
}

fn full() -> Stdio {
    File::options().write(true).open("/dev/full").unwrap().into()
}

/// A pipe that nobody reads any more.
fn broken() -> Stdio {
    std::io::pipe().unwrap().1.into()
}

pub fn outputs_that_take_nothing(_: Who) {
    for output in [full, broken] {
        let null = Stdio::null;
        // An error that nobody can read is an error all the same.
        assert_eq!(status(&["run", "no-such-image"], null(), output()), Some(125));
        assert_eq!(status(&["run", "--no-such-flag"], null(), output()), Some(125));
        assert_eq!(status(&["run", "--rm", "host", "no-such"], output(), output()), Some(127));
        assert_eq!(status(&["kill", "no-such"], null(), output()), Some(1));
        assert_eq!(
            status(&["run", "--rm", "host", "sh", "-c", "exit 7"], output(), output()),
            Some(7)
        );
    }
    assert_eq!(status(&["ps"], broken(), Stdio::null()), Some(0)); // as `ps | head -1`
    assert_eq!(status(&["ps"], full(), Stdio::null()), Some(1));
    // Nobody reads what the program writes: then it is as if SIGPIPE had ended us, as it ends docker.
    // The program goes on, and its log has all of it.
    let words = ["run", "--name", "box", "host", "sh", "-c", "cat /etc/passwd; echo $?"];
    assert_eq!(status(&words, broken(), Stdio::null()), Some(141));
    assert_eq!(final_(&["wait", "box"]).stdout, "0\n");
    assert!(final_(&["logs", "box"]).stdout.ends_with("\n0\n"));
    assert_eq!(final_(&["rm", "box"]).status, Some(0));
}

pub fn closed_standard_files(_: Who) {
    for closed in [&[0][..], &[1], &[2], &[0, 1], &[1, 2], &[0, 1, 2]] {
        for (words, status) in [
            (&["run", "--rm", "-i", "host", "sh", "-c", "cat; echo x; echo y >&2; exit 7"][..], 7),
            (&["ps"], 0),
            (&["run", "no-such-image"], 125),
        ] {
            let mut command = command(BINARY, words);
            // SAFETY: close(2) may be called between fork and exec.
            unsafe {
                command.pre_exec(move || {
                    for &fd in closed {
                        libc::close(fd);
                    }
                    Ok(())
                });
            }
            let ended = outcome(&mut command);
            assert_eq!(ended.status, Some(status), "{words:?} without {closed:?}: {ended:?}");
        }
    }
}

/// Has the command's process begin with these signals ignored, and all of them blocked.
fn careless(command: &mut Command, ignored: &'static [i32]) {
    // SAFETY: both calls may be made between fork and exec; the action is SIG_IGN, no code of ours.
    unsafe {
        command.pre_exec(move || {
            for &signal in ignored {
                libc::signal(signal, libc::SIG_IGN);
            }
            Ok(SigSet::all().thread_set_mask()?)
        });
    }
}

pub fn signals_that_the_caller_ignores_or_blocks(_: Who) {
    let all = &[1, 2, 3, 10, 12, 13, 14, 15, 17, 18, 20, 21, 22, 25, 28, 34, 40, 64];
    for ignored in [&[libc::SIGCHLD][..], all] {
        let script = "grep -E '^Sig(Blk|Ign)' /proc/self/status; sh -c 'exit 7'";
        let mut runtime = command(BINARY, &["run", "--rm", "host", "sh", "-c", script]);
        careless(&mut runtime, ignored);
        let ended = outcome(&mut runtime);
        assert_eq!(ended.status, Some(7), "{ignored:?}: {ended:?}");
        let none = "0000000000000000";
        assert_eq!(ended.stdout, format!("SigBlk:\t{none}\nSigIgn:\t{none}\n"), "{ignored:?}");
    }
    // nohup(1): the container is not told of the SIGHUP that we are to ignore; but of others.
    let script = "trap 'exit 9' HUP; trap 'exit 8' TERM; echo ready; while :; do sleep 0.01; done";
    let mut runtime = command(BINARY, &["run", "--rm", "host", "sh", "-c", script]);
    careless(&mut runtime, &[libc::SIGHUP]);
    let (running, line) = Running::start(&mut runtime);
    assert_eq!(line, "ready\n");
    let pid = Pid::from_raw(running.id().cast_signed());
    kill(pid, Signal::SIGHUP).unwrap();
    kill(pid, Signal::SIGTERM).unwrap();
    assert_eq!(running.wait(), Some(8));
}

pub fn a_umask_that_takes_everything(_: Who) {
    let strict = |words: &[&str]| {
        let mut command = command(BINARY, words);
        // SAFETY: umask(2) may be called between fork and exec.
        unsafe {
            command.pre_exec(|| {
                umask(Mode::from_bits_truncate(0o777));
                Ok(())
            });
        }
        outcome(&mut command)
    };
    let script = "touch /tmp/x && stat -c %a /tmp/x / /etc /etc/hosts";
    let ended = strict(&["run", "--name", "box", "host", "sh", "-c", script]);
    assert_eq!((ended.status, &*ended.stdout), (Some(0), "644\n755\n755\n644\n"), "{ended:?}");
    // Somebody without that umask, and with it, can go on from there.
    assert_eq!(final_(&["ps", "--all", "--quiet"]).stdout.len(), 13);
    assert_eq!(strict(&["rm", "box"]).status, Some(0));
}

pub fn a_working_directory_that_is_gone(_: Who) {
    let gone = Path::new(&scratch()).join("gone");
    let nowhere = |words: &[&str]| {
        fs::create_dir(&gone).unwrap();
        let mut command = command(BINARY, words);
        let path = gone.clone();
        // SAFETY: rmdir(2) may be called between fork and exec; by then the process is in there.
        unsafe { command.current_dir(&gone).pre_exec(move || fs::remove_dir(&path)) };
        outcome(&mut command)
    };
    let ended = nowhere(&["run", "--rm", "host", "pwd"]);
    assert_eq!((ended.status, &*ended.stdout), (Some(0), "/\n"), "{ended:?}");
    for words in [&["."][..], &["./x"], &["-v", ".:/x"], &["-v", "../x:/x"]] {
        check(&words, &nowhere(&[&["run", "--rm"], words].concat()), 125, &["No such file"]);
    }
}

pub fn an_odd_environment(_: Who) {
    let list = |name: &str, directory: &str| {
        let mut ps = command(BINARY, &["ps"]);
        // Nothing else is needed: no PATH, no TMPDIR.
        ps.env_clear().current_dir(scratch()).env(name, directory);
        outcome(&mut ps)
    };
    let count = || fs::read_dir(scratch()).unwrap().count();
    let before = count();
    let (file, link) = (format!("{}/file", scratch()), format!("{}/link", scratch()));
    fs::write(&file, "").unwrap();
    std::os::unix::fs::symlink(scratch(), &link).unwrap();
    let long = format!("/{}", "x".repeat(5000));
    for (directory, named) in [
        ("/etc/no/such", "Permission denied"),
        ("/no\n\x1b[2J", r"/no\n\u{1b}[2J"),
        (&*file, "not a directory"),
        (&link, "not a directory"),
        ("/etc", "belongs to user "), // 0, or 65534 where a user namespace does not have that one
        (&long, "name too long"),
    ] {
        let named = &[named, "FINAL_ROOT"];
        check(&directory, &list("FINAL_ROOT", directory), 1, named);
    }
    fs::remove_file(file).unwrap();
    fs::remove_file(link).unwrap();
    // In the data directory, or below the home directory; a relative path is as good as none.
    let home = format!("{}/home", scratch());
    for (name, place) in [("XDG_DATA_HOME", ""), ("HOME", "/.local/share")] {
        let ended = list(name, &home);
        assert_eq!(ended.status, Some(0), "{name}: {ended:?}");
        assert!(Path::new(&format!("{home}{place}/container-workshop/containers")).is_dir());
        fs::remove_dir_all(&home).unwrap();
    }
    let mut ps = command(BINARY, &["ps"]);
    ps.env_clear().current_dir(scratch());
    ps.env("FINAL_ROOT", "relative").env("XDG_DATA_HOME", "../x").env("HOME", &home);
    assert_eq!(outcome(&mut ps).status, Some(0));
    fs::remove_dir_all(&home).unwrap();
    assert_eq!(count(), before);
}
