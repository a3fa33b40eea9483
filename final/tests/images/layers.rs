//! Layers: what the kernel shows of them.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::process::Stdio;

use serde_json::json;
use tar::EntryType;
use workshop::ids::{self, Ranges};
use workshop::lab::Who;
use workshop::suite::{command, eventually};

use crate::made::{Layer, docker_archive, gzip};
use crate::{BINARY, Scratch, done, final_, images, rest, script};

fn load(scratch: &Scratch, name: &str, layers: &[Vec<u8>]) {
    let archive = docker_archive(name, &json!({}), layers);
    let file = scratch.write("archive", gzip(&archive));
    assert_eq!(done(&["load", "-i", &file]), format!("Loaded image: {name}:latest\n"));
}

/// Options for whose users there are, to whom the image has to look the same; and the ids that it takes.
fn users(who: Who) -> (Vec<&'static [&'static str]>, Option<Ranges>) {
    if who != Who::Root || !ids::can_be_mapped("/usr", (6, 3)) {
        return (vec![&[]], None);
    }
    let (uids, gids) = ("container-workshop:200000:65536", "container-workshop:300000:65536");
    (vec![&[], &["--userns", "remap"]], Some(Ranges::new(uids, gids)))
}

pub fn layers_lie_over_each_other(who: Who) {
    let scratch = Scratch::new();
    let lower = Layer::base()
        .file("kept", "lower\n")
        .file("changed", "lower\n")
        .file("gone", "lower\n")
        .dir("some/", 0o755)
        .file("some/kept", "lower\n")
        .file("some/gone", "lower\n")
        .dir("emptied/", 0o755)
        .file("emptied/one", "lower\n")
        .dir("emptied/deep/", 0o755)
        .file("emptied/deep/two", "lower\n")
        .dir("away/", 0o755)
        .file("away/one", "lower\n")
        .dir("again/", 0o755)
        .file("again/old", "lower\n")
        .dir("again2/", 0o755)
        .file("again2/old", "lower\n")
        .dir("to-file/", 0o755)
        .file("to-file/one", "lower\n")
        .file("to-dir", "lower\n");
    let upper = Layer::new()
        .file("changed", "upper\n")
        .file(".wh.gone", "")
        .dir("some/", 0o755)
        .file("some/.wh.gone", "")
        .file("some/new", "upper\n")
        .dir("emptied/", 0o755)
        .file("emptied/.wh..wh..opq", "")
        .file("emptied/three", "upper\n")
        .file(".wh.away", "")
        // Removed and made again, in either order: what was in it is gone.
        .file(".wh.again", "")
        .dir("again/", 0o755)
        .file("again/new", "upper\n")
        .dir("again2/", 0o755)
        .file("again2/new", "upper\n")
        .file(".wh.again2", "")
        .file("to-file", "upper\n")
        .dir("to-dir/", 0o755)
        .file("to-dir/one", "upper\n")
        .file(".wh..wh.plnk", "aufs's own");
    // The same layer twice, and one in between that hides what it has.
    let twice = Layer::new().file("twice", "twice\n").file(".wh.kept", "").bytes();
    let between = Layer::new().file(".wh.twice", "").file("kept", "between\n").bytes();
    load(&scratch, "two", &[lower.bytes(), upper.bytes()]);
    let look = "cd /; find $(ls | grep -vxE 'proc|sys|usr') -type f -newermt 2001-01-01 ! -newermt 2002-01-01 | sort | while read f; do echo $f $(cat $f); done";
    let expected = "again/new upper\nagain2/new upper\nchanged upper\nemptied/three upper\n\
                    kept lower\nsome/kept lower\nsome/new upper\nto-dir/one upper\nto-file upper\n";
    let (all_users, _ids) = users(who);
    for &users in &all_users {
        let found = script("two", users, look);
        assert_eq!((found.status, &*found.stdout), (Some(0), expected), "{users:?}: {found:?}");
    }
    load(
        &scratch,
        "twice",
        &[Layer::base().file("kept", "").bytes(), twice.clone(), between, twice],
    );
    for users in all_users {
        assert_eq!(script("twice", users, "cat /twice; ls /kept").stdout, "twice\n");
    }
    done(&["rmi", "two", "twice"]);
    assert_eq!(rest(who), [""; 0]);
}

pub fn files_are_as_the_archive_has_them(who: Who) {
    let scratch = Scratch::new();
    let long = format!("{0}/{0}/{0}", "long".repeat(40));
    let hole = vec![0; 8 << 20];
    let layer = Layer::base()
        .entry(EntryType::Regular, b"su", b"", b"program", |header| header.set_mode(0o4755))
        .entry(EntryType::Regular, b"theirs", b"", b"", |header| {
            header.set_uid(1000);
            header.set_gid(100);
            header.set_mode(0o2640);
        })
        .entry(EntryType::Directory, b"sticky/", b"", b"", |header| {
            header.set_mode(0o1777);
            header.set_mtime(1_100_000_000);
        })
        .file("sticky/inside", "") // must not change the directory's time
        .dir("locked/", 0o555)
        .file("locked/inside", "")
        .hard_link("su2", "su")
        .symlink("link", "/no/such/target")
        .hard_link("link2", "link")
        .entry(EntryType::Fifo, b"fifo", b"", b"", |_| {})
        .pax(&[("path", long.as_bytes()), ("mtime", b"1234567890.123456789")])
        .file("short", "long\n")
        .pax(&[("SCHILY.xattr.user.note", b"kept"), ("SCHILY.xattr.user.overlay.opaque", b"y")])
        .file("noted", "")
        .pax(&[("SCHILY.xattr.trusted.overlay.redirect", b"/elsewhere")])
        .file("redirected", "")
        // cap_net_raw+ep, as the kernel stores it (linux/capability.h, version 2).
        .pax(&[(
            "SCHILY.xattr.security.capability",
            b"\x01\0\0\x02\0\x20\0\0\0\0\0\0\0\0\0\0\0\0\0\0",
        )])
        .file("ping", "")
        .entry(EntryType::Regular, b"sparse", b"", &hole, |_| {})
        .entry(EntryType::Char, b"null", b"", b"", |header| {
            header.set_device_major(1).unwrap();
            header.set_device_minor(3).unwrap();
        });
    load(&scratch, "files", &[layer.bytes()]);

    let look = "cd /; stat -c '%n %a %u:%g %Y' su theirs sticky locked; stat -c '%h' su; \
         test su -ef su2 && echo same; readlink link link2; stat -c %F fifo; \
         stat -c '%n %y' long*/*/*; cat long*/*/*; stat -c '%s %b' sparse";
    // A plain user has one id to give, and it is root's in there.
    let theirs = if who == Who::Root { "1000:100" } else { "0:0" };
    let expected = format!(
        "su 4755 0:0 1000000000\ntheirs 2640 {theirs} 1000000000\nsticky 1777 0:0 1100000000\n\
         locked 555 0:0 1000000000\n2\nsame\n/no/such/target\n/no/such/target\nfifo\n\
         {long} 2009-02-13 23:31:30.123456789 +0000\nlong\n8388608 0\n"
    );
    let (all_users, _ids) = users(who);
    for &users in &all_users {
        let shown = script("files", users, look);
        assert_eq!((shown.status, &*shown.stdout), (Some(0), &*expected), "{users:?}: {shown:?}");
    }

    // What a container does not see: attributes, and devices, which are nodev in it.
    let layers = images(who).join("layers");
    let tree = fs::read_dir(layers).unwrap().next().unwrap().unwrap().path().join("tree");
    let has = |file: &str, name: &str| {
        let mut value = [0_u8; 64];
        let (path, name) = (tree.join(file), std::ffi::CString::new(name).unwrap());
        let path = std::ffi::CString::new(path.to_str().unwrap()).unwrap();
        // SAFETY: both strings are NUL-terminated, and the value has room for 64 bytes.
        let length = unsafe {
            libc::getxattr(path.as_ptr(), name.as_ptr(), value.as_mut_ptr().cast(), value.len())
        };
        usize::try_from(length).ok().map(|length| value[..length].to_vec())
    };
    assert_eq!(has("redirected", "trusted.overlay.redirect"), None);
    assert_eq!(has("noted", "user.overlay.opaque"), None);
    assert_eq!(has("ping", "security.capability").is_some(), who != Who::Plain);
    let null = fs::symlink_metadata(tree.join("null")).ok();
    assert_eq!(null.map(|null| null.rdev()), (who == Who::Root).then_some(0x103));
    if has_user_attributes() {
        assert_eq!(has("noted", "user.note").as_deref(), Some(&b"kept"[..]));
    }
    done(&["rmi", "files"]);
    assert_eq!(rest(who), [""; 0]);
}

/// Whether tmpfs has attributes of users: since Linux 6.6.
fn has_user_attributes() -> bool {
    let release = workshop::suite::read("/proc/sys/kernel/osrelease");
    let mut numbers = release.split(['.', '-']).map(|number| number.parse::<u32>().unwrap_or(0));
    (numbers.next(), numbers.next()) >= (Some(6), Some(6))
}

pub fn containers_share_layers_and_no_writes(who: Who) {
    let scratch = Scratch::new();
    let base = Layer::base().file("base", "base\n").bytes();
    let top = |text: &str| Layer::new().file("top", text).bytes();
    load(&scratch, "one", &[base.clone(), top("one\n")]);
    let count = || fs::read_dir(images(who).join("layers")).unwrap().count();
    assert_eq!(count(), 2);
    load(&scratch, "two", &[base, top("two\n")]);
    assert_eq!(count(), 3, "a layer that is there is not unpacked again");

    let state = || {
        let mut files = BTreeMap::new();
        let mut waiting = vec![images(who).join("layers")];
        while let Some(path) = waiting.pop() {
            let now = fs::symlink_metadata(&path).unwrap();
            if now.is_dir() {
                waiting.extend(fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
            }
            files.insert(path, (now.mode(), now.ctime(), now.ctime_nsec()));
        }
        files
    };
    let before = state();
    // Two containers at the same time write, remove and look.
    let stay = |name: &str, image: &str| {
        let text = "echo $0 > /base; rm /top; sleep 1000";
        let words = ["run", "--rm", "--name", name, "--net", "none", "-v", "/usr:/usr:ro", image];
        let mut child = command(BINARY, &[&words[..], &["sh", "-c", text, name]].concat());
        child.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        child.spawn().unwrap()
    };
    let mut containers = [stay("first", "one"), stay("second", "one"), stay("third", "two")];
    for name in ["first", "second", "third"] {
        eventually("it has written", || {
            let seen = final_(&["exec", name, "sh", "-c", "cat /base; ls /top"]);
            seen.stdout == format!("{name}\n")
        });
    }
    for name in ["first", "second", "third"] {
        done(&["kill", name]);
    }
    for container in &mut containers {
        container.wait().unwrap();
    }
    assert_eq!(state(), before, "a container changed a layer");
    assert_eq!(script("one", &[], "cat /base /top").stdout, "base\none\n");

    done(&["rmi", "one"]);
    assert_eq!(count(), 2, "the layer that both have stays");
    assert_eq!(script("two", &[], "cat /base /top").stdout, "base\ntwo\n");
    done(&["rmi", "two"]);
    assert_eq!(rest(who), [""; 0]);
}

/// docker's limit is 127. mount(2) would take 4095 bytes of paths.
pub fn an_image_of_many_layers(who: Who) {
    let scratch = Scratch::new();
    let mut layers = vec![Layer::base().bytes()];
    layers.extend((1..127).map(|number| {
        Layer::new().file("last", &number.to_string()).file(&format!("file{number}"), "").bytes()
    }));
    load(&scratch, "many", &layers);
    let seen = script("many", &[], "cat /last; ls / | grep -c file; echo mine > /file1");
    assert_eq!(seen.stdout, "126126\n", "{seen:?}");
    assert_eq!(seen.status, Some(0), "{seen:?}");
    done(&["rmi", "many"]);
    assert_eq!(rest(who), [""; 0]);
}
