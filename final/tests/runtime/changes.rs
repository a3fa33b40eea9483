//! What a container has made of its image.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::Path;

use workshop::lab::Who;
use workshop::suite::eventually;

use crate::{final_, scratch, start, stop};

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
