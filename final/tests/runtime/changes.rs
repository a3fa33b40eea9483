//! What a container has made of its image, who is in it, and how to ask for it.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use nix::mount::{MsFlags, mount, umount};
use workshop::lab::Who;
use workshop::suite::{command, eventually, run};

use crate::{BINARY, final_, scratch, start, stop};

/// An image of a few files, which takes its programs from the host's /usr.
fn image() -> String {
    let image = format!("{}/image", scratch());
    let path = |name: &str| Path::new(&image).join(name);
    for directory in ["usr", "etc", "old/deep", "kept", "moved"] {
        fs::create_dir_all(path(directory)).unwrap();
    }
    for name in ["bin", "lib", "lib64", "sbin"] {
        symlink(Path::new("usr").join(name), path(name)).unwrap();
    }
    for file in ["old/deep/file", "kept/one", "kept/two", "moved/file", "gone", "same"] {
        fs::write(path(file), "of the image").unwrap();
    }
    image
}

/// What `diff` says about a container that has run this.
fn diff_after(image: &str, script: &str) -> String {
    let words = ["run", "--name", "box", "-v", "/usr:/usr:ro", image, "sh", "-c", script];
    let ran = final_(&words);
    assert_eq!(ran.status, Some(0), "{ran:?}");
    let diff = final_(&["diff", "box"]);
    assert_eq!((diff.status, &*diff.stderr), (Some(0), ""), "{diff:?}");
    assert_eq!(final_(&["rm", "box"]).status, Some(0));
    diff.stdout
}

pub fn changes_are_shown_as_docker_does(who: Who) {
    let image = image();
    assert_eq!(diff_after(&image, "true"), "");
    // A file that was written and is as before is not there, nor are modes set to what they were.
    let script = "rm gone; echo more >> kept/one; chmod 755 kept; touch -r same same; \
                  mkdir -p new/dir; echo new > new/dir/file; ln -s /nowhere link; chmod 700 old";
    let expected =
        "C /kept\nC /kept/one\nD /gone\nA /link\nA /new\nA /new/dir\nA /new/dir/file\nC /old\n";
    let mut lines: Vec<_> = expected.lines().collect();
    lines.sort_by_key(|line| &line[2..]);
    assert_eq!(diff_after(&image, script).lines().collect::<Vec<_>>(), lines);
    // A file in the place of a directory, and a directory in that of a file.
    let script = "rm -r moved; echo > moved; rm gone; mkdir gone; echo > gone/x";
    assert_eq!(diff_after(&image, script), "C /gone\nA /gone/x\nC /moved\n");
    fs::remove_dir_all(image).unwrap();

    // One that runs; and in `host`, where /usr is an overlay of its own, whose files are root's.
    let script = "rm /etc/group; echo > /usr/share/mine; sleep 1000";
    let running = start("box", &[], &["sh", "-c", script]);
    let mut expected = "C /etc\nD /etc/group\n".to_owned();
    if who == Who::Root {
        expected += "C /usr\nC /usr/share\nA /usr/share/mine\n";
    }
    eventually("it has written", || final_(&["diff", "box"]).stdout == expected);
    stop("box", running);

    assert_eq!(final_(&["create", "--name", "fresh", "host"]).status, Some(0));
    let fresh = final_(&["diff", "fresh"]);
    assert_eq!((fresh.status, &*fresh.stdout), (Some(0), ""), "{fresh:?}");
    assert_eq!(final_(&["rm", "fresh"]).status, Some(0));
    let missing = final_(&["diff", "nobody"]);
    assert_eq!(missing.status, Some(1), "{missing:?}");
    assert!(missing.stderr.contains("no such container: nobody"), "{missing:?}");
}

pub fn changes_in_closed_and_replaced_directories(_: Who) {
    let image = image();
    let closed = "echo > old/deep/other; chmod 0 old/deep";
    assert_eq!(diff_after(&image, closed), "C /old\nC /old/deep\nA /old/deep/other\n");
    // A name of several lines is one line.
    let diff = diff_after(&image, "echo > \"$(printf 'a\\nD b')\"");
    assert_eq!(diff.lines().count(), 1, "{diff:?}");
    // One that took the place of another hides all of it (an opaque one), where the file system can note
    // that: tmpfs can for a plain user since Linux 6.6.
    let script = "if rm -r kept && mkdir kept; then echo > kept/two; echo > kept/three; else rm -r moved; fi 2>/dev/null";
    let diff = diff_after(&image, script);
    let opaque = "C /kept\nD /kept/one\nA /kept/three\nC /kept/two\n";
    assert!([opaque, "D /kept\nD /moved\n"].contains(&&*diff), "{diff}");
    let mode = fs::metadata(format!("{image}/old/deep")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o755, "the image is as before");
    fs::remove_dir_all(image).unwrap();
}

/// overlayfs notes in an extended attribute that a directory is not the image's any more: in a user
/// namespace in `user.*`, which tmpfs has since Linux 6.6. See the book, Troubleshooting.
pub fn a_state_directory_that_overlayfs_cannot_use_well_is_named(who: Who) {
    let image = image();
    let place = format!("{}/place", scratch());
    let run_in = |place: &str, script: &str| {
        let words = ["run", "--name", "box", "-v", "/usr:/usr:ro", &image, "sh", "-c", script];
        let at = |words: &[&str]| {
            run(command(BINARY, words).env("FINAL_ROOT", place), Duration::from_secs(100))
        };
        let ran = at(&words);
        let removed = at(&["rm", "box"]);
        assert_eq!(removed.status, Some(0), "{removed:?}");
        ran
    };
    let on_tmpfs = run_in(&place, "rm -r kept");
    let named = on_tmpfs.stderr.contains("tmpfs before Linux 6.6");
    assert!(!named || who != Who::Root, "{on_tmpfs:?}");
    let refused = on_tmpfs.stderr.contains("'kept': Input/output error");
    assert_eq!((on_tmpfs.status, refused), (Some(i32::from(named)), named), "{on_tmpfs:?}");
    if who != Who::Plain {
        for layer in ["upper", "work"] {
            fs::create_dir(format!("{place}/{layer}")).unwrap();
        }
        let options = format!("lowerdir=/usr/share,upperdir={place}/upper,workdir={place}/work");
        let options = options + if who == Who::Root { "" } else { ",userxattr" };
        let kind = Some("overlay");
        mount(kind, &*place, kind, MsFlags::empty(), Some(&*options)).unwrap();
        let on_overlay = run_in(&format!("{place}/state"), "echo > new");
        umount(&*place).unwrap();
        assert_eq!(on_overlay.status, Some(0), "{on_overlay:?}");
        assert!(on_overlay.stderr.contains("lost when it ends"), "{on_overlay:?}");
        assert!(on_overlay.stderr.contains("is on overlayfs"), "{on_overlay:?}");
    }
    fs::remove_dir_all(place).unwrap();
    fs::remove_dir_all(image).unwrap();
}

pub fn top_shows_processes_by_the_hosts_numbers(_: Who) {
    let running = start("box", &[], &["sh", "-c", "sleep 1000; true"]);
    let other = start("other", &[], &["sleep", "999"]);
    let rows = |words: &[&str]| -> Vec<Vec<String>> {
        let shown = final_(&[&["top", "box"], words].concat());
        assert_eq!((shown.status, &*shown.stderr), (Some(0), ""), "{shown:?}");
        let words = |line: &str| line.split_whitespace().map(str::to_owned).collect();
        shown.stdout.lines().map(words).collect()
    };
    eventually("both are there", || rows(&[]).len() == 3);
    let shown = rows(&[]);
    assert_eq!(shown[0], ["UID", "PID", "PPID", "C", "STIME", "TTY", "TIME", "CMD"]);
    assert_eq!(shown[1][7..].join(" "), "sh -c sleep 1000; true");
    assert_eq!(shown[2][7..].join(" "), "sleep 1000");
    assert_eq!(shown[2][2], shown[1][1], "the one is the other's parent: {shown:?}");
    for row in &shown[1..] {
        let name = fs::read_to_string(format!("/proc/{}/comm", row[1])).unwrap();
        assert_eq!(name.trim(), row[7]);
        assert_eq!((&*row[5], &*row[6]), ("?", "00:00:00"), "{row:?}");
    }
    // What ps itself says is the same, in the columns that were asked for.
    let pids: Vec<_> = shown[1..].iter().map(|row| [row[1].clone(), row[7].clone()]).collect();
    assert_eq!(rows(&["-e", "-o", "pid,comm"])[1..], pids);
    for (words, named) in [
        (&["box", "-o", "comm"][..], "no column PID"),
        (&["box", "--nonsense"], "ps: "),
        (&["nobody"], "no such container"),
    ] {
        let refused = final_(&[&["top"], words].concat());
        assert_eq!(refused.status, Some(1), "{refused:?}");
        assert!(refused.stderr.contains(named), "{refused:?}");
    }
    stop("other", other);
    stop("box", running);
}

pub fn bash_completes_verbs_and_flags(_: Who) {
    let complete = |words: &str, current: &str, before: &str| {
        let script = format!(
            "source <(\"$0\" completion bash); COMP_WORDS=({words}); \
             COMP_CWORD=$((${{#COMP_WORDS[@]}} - 1)); _final final '{current}' {before}; \
             echo ${{COMPREPLY[*]}}; complete -p final"
        );
        let mut bash = Command::new("bash");
        bash.arg("-c").arg(script).arg(workshop::lab::program(BINARY));
        let outcome = run(&mut bash, Duration::from_secs(60));
        assert_eq!((outcome.status, &*outcome.stderr), (Some(0), ""), "{outcome:?}");
        let (words, registered) = outcome.stdout.split_once('\n').unwrap();
        assert!(registered.contains("-F _final"), "{registered}");
        words.to_owned()
    };
    assert_eq!(complete("final st", "st", "final"), "start stop stats");
    assert_eq!(complete("final run --restar", "--restar", "run"), "--restart");
    assert_eq!(complete("final network ins", "ins", "network"), "inspect");
    for (shell, part) in [("zsh", "#compdef final"), ("fish", "complete -c final")] {
        let script = final_(&["completion", shell]);
        assert!(script.status == Some(0) && script.stdout.contains(part), "{script:?}");
    }
    assert_eq!(final_(&["completion", "tcsh"]).status, Some(125));
}
