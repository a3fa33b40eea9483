//! Layers that were made to reach out of their directory, or to fill the disk.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use serde_json::json;
use tar::{Builder, EntryType, Header};
use workshop::lab::Who;

use crate::made::{Layer, docker_archive, gzip};
use crate::{Scratch, done, final_, rest};

/// Every file below: what it is, its bytes, and when it was changed.
fn state(directory: &Path) -> Vec<String> {
    let mut lines = Vec::new();
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        let now = fs::symlink_metadata(&path).unwrap();
        let text = if now.is_file() { fs::read_to_string(&path).unwrap() } else { String::new() };
        let changed = (now.ctime(), now.ctime_nsec(), now.nlink());
        lines.push(format!("{} {:o} {changed:?} {text}", path.display(), now.mode()));
        if now.is_dir() {
            lines.extend(state(&path));
        }
    }
    lines
}

/// What it is, the layer, and the words of the refusal, if it is to be refused.
type Attempt = (&'static str, Layer, Option<&'static str>);

const OUT: Option<&str> = Some("leads out of the directory");
const NOWHERE: Option<&str> = Some("symbolic link to nowhere");
const MISSING: Option<&str> = Some("is not in this layer");
const ROOT: Option<&str> = Some("the root is not a directory");
const HIDES_NOTHING: Option<&str> = Some("hides nothing");
const REFUSED: Option<&str> = Some("cannot unpack");

fn device(layer: Layer, kind: EntryType, name: &str, (major, minor): (u32, u32)) -> Layer {
    layer.entry(kind, name.as_bytes(), b"", b"", |header| {
        header.set_device_major(major).unwrap();
        header.set_device_minor(minor).unwrap();
    })
}

/// Names and links that lead to the directory `outside`, in which there are a file and a directory.
fn ways_out(outside: &str) -> Vec<Attempt> {
    let new = Layer::new;
    let link = || new().symlink("l", outside);
    let up = &*format!("{}{}", "../".repeat(12), outside.trim_start_matches('/'));
    let (file, up_file) = (&*format!("{outside}/file"), &*format!("{up}/file"));
    let long_name = |key: &str, value: &str| new().pax(&[(key, value.as_bytes())]);
    vec![
        ("up", new().file(up_file, "x"), OUT),
        ("up, late", new().dir("a/", 0o755).file(&format!("a/{up_file}"), "x"), OUT),
        ("up, as a directory", new().dir(up, 0o777), OUT),
        ("up, in a second name", long_name("path", up_file).file("harmless", "x"), OUT),
        ("absolute", new().file(file, "x"), None),
        ("absolute, as a directory", new().dir(outside, 0o777), None),
        ("a link and a file through it", link().file("l/file", "x"), NOWHERE),
        ("a link up", new().symlink("l", up).file("l/file", "x"), NOWHERE),
        ("two links", link().symlink("m", "l").file("m/new", "x"), NOWHERE),
        ("a link to /", new().symlink("l", "/").file(&format!("l{file}"), "x"), None),
        (
            "a link through /proc",
            new().symlink("l", "/proc/self/root").file(&format!("l{file}"), "x"),
            NOWHERE,
        ),
        ("a link to ..", new().symlink("l", "..").file(&format!("l/l/l/l{file}"), "x"), None),
        ("a link to itself", new().symlink("l", "l").file("l/x", "x"), Some("ELOOP")),
        ("a file over a link", new().symlink("l", file).file("l", "x"), None),
        ("a directory over a link", link().dir("l/", 0o777).file("l/file", "x"), None),
        ("a directory through a link", link().dir("l/directory/", 0o777), NOWHERE),
        ("the root as a link", new().symlink("./", outside).file("file", "x"), ROOT),
        ("a hard link up", new().hard_link("h", up_file), OUT),
        (
            "a hard link up, in a second name",
            long_name("linkpath", up_file).hard_link("h", "harmless"),
            OUT,
        ),
        ("an absolute hard link", new().hard_link("h", file), MISSING),
        ("a hard link through a link", link().hard_link("h", "l/file"), MISSING),
        (
            "a hard link to a link, and a file over it",
            new().symlink("l", file).hard_link("h", "l").file("h", "x"),
            None,
        ),
        (
            "a hard link to a link, and a directory over it",
            new().symlink("l", outside).hard_link("h", "l").dir("h/", 0o777),
            None,
        ),
        ("a whiteout through a link", link().file("l/.wh.file", ""), NOWHERE),
        ("an opaque link", link().file("l/.wh..wh..opq", ""), NOWHERE),
        ("a device through a link", device(link(), EntryType::Char, "l/null", (1, 3)), NOWHERE),
    ]
}

/// Entries that make no sense.
fn odd_entries() -> Vec<Attempt> {
    let new = Layer::new;
    let fifo = || new().entry(EntryType::Fifo, b"f", b"", b"", |_| {});
    let devices = device(new(), EntryType::Char, "c", (1, 3));
    let devices = device(devices, EntryType::Block, "b", (1, 3));
    let user = |header: &mut Header| header.set_uid(1 << 40);
    let theirs: &[(&str, &[u8])] =
        &[("SCHILY.xattr.trusted.overlay.redirect", b"/"), ("SCHILY.xattr.security.selinux", b"x")];
    vec![
        ("the root as a file", new().file(".", ""), ROOT),
        ("no name", new().file("", "x"), ROOT),
        ("a hard link to a directory", new().dir("d/", 0o755).hard_link("h", "d"), REFUSED),
        ("a hard link to itself", new().file("h", "").hard_link("h", "h"), MISSING),
        ("a whiteout of ..", new().file("a/.wh...", ""), HIDES_NOTHING),
        ("a whiteout of .", new().file("a/.wh..", ""), HIDES_NOTHING),
        ("a whiteout of nothing", new().file(".wh.", ""), HIDES_NOTHING),
        ("devices", devices, None),
        ("a forged whiteout", device(new(), EntryType::Char, "w", (0, 0)), None),
        ("through a file", new().file("f", "").file("f/g", "x"), REFUSED),
        ("through a fifo", fifo().file("f/g", "x"), REFUSED),
        ("a file over a fifo", fifo().file("f", "x"), None),
        ("a NUL in a name", new().pax(&[("path", b"a\0b")]).file("x", "x"), REFUSED),
        (
            "a name that commands the terminal",
            new().pax(&[("path", b"../\x1b[2Jerror: forged")]).file("x", ""),
            Some(r"\u{1b}[2Jerror: forged"),
        ),
        ("a long name", new().pax(&[("path", &[b'a'; 300])]).file("x", "x"), REFUSED),
        (
            "a long path",
            new().pax(&[("path", &b"a/".repeat(5000))]).file("x", "x"),
            Some("too many directories"),
        ),
        (
            "a large user",
            new().entry(EntryType::Regular, b"f", b"", b"", user),
            Some("there is no user"),
        ),
        (
            "a type of its own",
            new().entry(EntryType::new(b'Q'), b"f", b"", b"", |_| {}),
            Some("not known here"),
        ),
        ("attributes of others", new().pax(theirs).file("f", ""), None),
    ]
}

pub fn hostile_layers_change_nothing_outside(who: Who) {
    let scratch = Scratch::new();
    let victim = scratch.0.join("victim");
    fs::create_dir(&victim).unwrap();
    fs::create_dir(victim.join("directory")).unwrap();
    fs::write(victim.join("file"), "the host's").unwrap();
    let before = state(&victim);
    for (what, layer, refusal) in
        ways_out(victim.to_str().unwrap()).into_iter().chain(odd_entries())
    {
        let archive = docker_archive("hostile", &json!({}), &[layer.bytes()]);
        let ended = final_(&["load", "-i", &scratch.write("archive", archive)]);
        assert_eq!(state(&victim), before, "{what} led outside: {ended:?}");
        if let Some(named) = refusal {
            assert_eq!(ended.status, Some(1), "{what}: {ended:?}");
            assert!(ended.stderr.contains(named), "{what}: {ended:?}");
            assert_eq!(ended.stderr.lines().count(), 1, "{what}: {ended:?}");
        } else {
            assert_eq!(ended.status, Some(0), "{what}: {ended:?}");
            done(&["rmi", "hostile"]);
        }
        assert_eq!(rest(who), [""; 0], "{what}");
        assert_eq!(state(&victim), before, "removing {what} led outside");
    }
}

pub fn bombs_are_refused(who: Who) {
    let scratch = Scratch::new();
    let header = |kind: EntryType, name: &str, size: u64| {
        let mut header = Header::new_gnu();
        header.set_entry_type(kind);
        header.set_path(name).unwrap();
        header.set_mode(0o755);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(0);
        header.set_size(size);
        header.set_cksum();
        header.as_bytes().to_vec()
    };
    let zeros = |size: usize| vec![0; size];
    // Says that it is larger than all may be.
    let claims = header(EntryType::Regular, "large", 65 << 30);
    // Together they are: a hole of a gigabyte, and what would be allowed alone.
    let mut sparse = Header::new_gnu();
    sparse.set_entry_type(EntryType::GNUSparse);
    sparse.set_path("sparse").unwrap();
    sparse.set_mode(0o644);
    sparse.set_uid(0);
    sparse.set_gid(0);
    sparse.set_mtime(0);
    sparse.set_size(0);
    let gnu = sparse.as_gnu_mut().unwrap();
    gnu.set_real_size(1 << 30);
    gnu.sparse[0].set_offset(1 << 30);
    gnu.sparse[0].set_length(0);
    sparse.set_cksum();
    let allowed = header(EntryType::Regular, "large", (64 << 30) - (1 << 20));
    let together = [sparse.as_bytes().to_vec(), allowed].concat();
    // Names, attributes and what is behind the end are kept in memory, or are nobody's.
    let name = [header(EntryType::GNULongName, "x", 64 << 20), zeros(64 << 20)].concat();
    let attributes = [header(EntryType::XHeader, "x", 64 << 20), zeros(64 << 20)].concat();
    let behind = [Layer::new().file("f", "x").bytes(), zeros(64 << 20)].concat();
    // A million files: the same thousand, gzip's members one after the other.
    let mut thousand = Builder::new(Vec::new());
    for _ in 0..1024 {
        let mut header = Header::new_gnu();
        header.set_entry_type(EntryType::Symlink);
        header.set_mode(0o755);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(0);
        header.set_size(0);
        thousand.append_link(&mut header, "a", "b").unwrap();
    }
    let thousand = thousand.into_inner().unwrap();
    let thousand = gzip(&thousand[..1024 * 512]);
    for (what, layer, named) in [
        ("a claim", claims, "more than 68719476736 bytes"),
        ("together", together, "more than 68719476736 bytes"),
        ("a name", gzip(&name), "larger than it may be"),
        ("attributes", gzip(&attributes), "larger than it may be"),
        ("behind the end", gzip(&behind), "larger than it may be"),
        ("many", thousand.repeat(1025), "more than 1048576 files"),
    ] {
        if what == "many" && who != Who::Root {
            continue; // once is enough
        }
        let refused = final_(&["import", &scratch.write("archive", layer)]);
        assert_eq!(refused.status, Some(1), "{what}: {refused:?}");
        assert!(refused.stderr.contains(named), "{what}: {refused:?}");
        assert_eq!(rest(who), [""; 0], "{what}");
    }
}

/// Directories deeper than there may be open files, and such as take nothing away.
pub fn layers_that_are_hard_to_remove(who: Who) {
    let scratch = Scratch::new();
    let deep = "d/".repeat(200);
    // 40 links may be followed in one path (path_resolution(7)).
    let mut layer = Layer::new().dir("locked/", 0o555).file("locked/f", "").dir("closed/", 0);
    layer = layer.pax(&[("path", deep.as_bytes())]).dir("x", 0o755);
    let mut path = "l0".to_owned();
    layer = layer.pax(&[("linkpath", deep.as_bytes())]).symlink("l0", "x");
    for number in 1..15 {
        layer = layer.pax(&[("path", format!("{path}/{deep}").as_bytes())]).dir("x", 0o555);
        layer = layer
            .pax(&[("path", format!("{path}/l{number}").as_bytes()), ("linkpath", deep.as_bytes())])
            .symlink("x", "x");
        path = format!("{path}/l{number}");
    }
    done(&["import", &scratch.write("archive", layer.bytes()), "deep"]);
    done(&["rmi", "deep"]);
    assert_eq!(rest(who), [""; 0]);
}
