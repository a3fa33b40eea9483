//! Files between the host and a container.

use std::fs::{self, File};
use std::io::Write as _;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt, symlink};
use std::path::Path;
use std::process::{Child, Stdio};
use std::time::Duration;

use nix::fcntl::AT_FDCWD;
use nix::sys::stat::{Mode, UtimensatFlags, utimensat};
use nix::sys::time::TimeSpec;
use nix::unistd::{chown, mkfifo};
use tar::{Builder, EntryType, Header};
use workshop::ids::Ranges;
use workshop::lab::Who;
use workshop::pty::Terminal;
use workshop::suite::{Outcome, command, finish};

use crate::{BINARY, final_, scratch, start, stop};

/// `final cp`, which succeeds and says nothing.
#[track_caller]
pub fn cp(words: &[&str]) {
    let copied = final_(&[&["cp"], words].concat());
    assert_eq!((copied.status, &*copied.stderr), (Some(0), ""), "{words:?}: {copied:?}");
}

/// `final cp`, which fails and says this.
#[track_caller]
pub fn fails(words: &[&str], text: &str) {
    let refused = final_(&[&["cp"], words].concat());
    assert_eq!(refused.status, Some(1), "{words:?}: {refused:?}");
    assert!(refused.stderr.contains(text), "{words:?} has no {text:?}: {refused:?}");
}

/// What a script prints in a running container.
#[track_caller]
pub fn inside(script: &str) -> String {
    let seen = final_(&["exec", "box", "sh", "-c", script]);
    assert_eq!(seen.status, Some(0), "{script}: {seen:?}");
    seen.stdout
}

/// Starts `final cp`, with an archive to come on its standard input.
pub fn begin(words: &[&str]) -> Child {
    let mut cp = command(BINARY, &[&["cp"], words].concat());
    cp.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
}

/// `final cp` with this on its standard input.
fn feed(words: &[&str], bytes: &[u8]) -> Outcome {
    let mut cp = begin(words);
    let _ = cp.stdin.take().unwrap().write_all(bytes); // it may not read to the end
    finish(cp, Duration::from_secs(100))
}

/// A directory of the host with a file, a directory in it, and a link.
pub fn tree() -> String {
    let tree = format!("{}/tree", scratch());
    fs::create_dir_all(format!("{tree}/deep")).unwrap();
    fs::write(format!("{tree}/file"), "of the host").unwrap();
    fs::write(format!("{tree}/deep/other"), "deep").unwrap();
    symlink("file", format!("{tree}/link")).unwrap();
    tree
}

/// docker's rules, in both directions, for a container that runs and for one at rest.
pub fn files_are_copied_by_dockers_rules(_: Who) {
    let (tree, scratch) = (tree(), scratch());
    let path = |name: &str| format!("{tree}/{name}");
    let words = ["create", "--name", "box", "host", "sleep", "1000"];
    assert_eq!(final_(&words).status, Some(0));
    for round in ["created", "running", "stopped"] {
        let to = |name: &str| format!("box:/tmp/{round}/{name}");
        cp(&[&path("deep/."), &format!("box:/tmp/{round}")]); // is made
        cp(&[&path("file"), &to("")]); // into it
        cp(&[&path("file"), &to("name")]); // under that name
        cp(&[&path("deep/other"), &to("name")]); // in its place
        cp(&[&path("deep"), &to("new")]); // is made, with what is in it
        cp(&[&path("deep"), &to("new")]); // is there by now, so into it
        cp(&[&path("deep/"), &to("slash/")]);
        cp(&[&path("link"), &to("")]); // the link itself
        cp(&["-L", &path("link"), &to("followed")]);
        cp(&[&path("deep/other"), &to("link")]); // through it, to `file`
        for (source, name, text) in [
            ("file", "none/", "no such directory"),
            ("file", "none/x", "there is no directory /tmp"),
            ("file", "name/", "Not a directory"),
            ("deep", "name", "a directory cannot take the place of a file"),
            ("file/", "x", "Not a directory"),
            ("nothing", "x", "cannot copy"),
        ] {
            fails(&[&path(source), &to(name)], text);
        }
        // A file cannot take the place of a directory, nor the other way round, within a tree.
        fails(&[&path("deep/."), &format!("box:/tmp/{round}/name/.")], "Not a directory");

        let out = format!("{scratch}/out-{round}");
        fs::create_dir(&out).unwrap();
        let from = |name: &str| format!("box:/tmp/{round}/{name}");
        let host = |name: &str| format!("{out}/{name}");
        cp(&[&from("file"), &out]);
        cp(&[&from("name"), &host("other-name")]);
        cp(&[&from("name"), &host("other-name")]);
        cp(&[&from("new"), &host("new")]);
        cp(&[&from("new"), &host("new")]);
        cp(&[&from("new/."), &host("")]);
        cp(&[&from("link"), &host("link")]);
        cp(&["--follow-link", &from("link"), &host("followed")]);
        for (name, expected) in [
            ("file", "deep"),
            ("other-name", "deep"),
            ("new/other", "deep"),
            ("new/deep/other", "deep"),
            ("new/new/deep/other", "deep"),
            ("other", "deep"),
            ("followed", "deep"),
        ] {
            assert_eq!(fs::read_to_string(host(name)).unwrap(), expected, "{round} {name}");
        }
        assert_eq!(fs::read_link(host("link")).unwrap(), Path::new("file"));
        for (name, to, text) in [
            ("file", "none/", "no such directory"),
            ("file", "none/x", "there is no directory"),
            ("new", "other-name", "a directory cannot take the place of a file"),
            ("nothing", "x", "No such file"),
        ] {
            fails(&[&from(name), &host(to)], text);
        }
        // In the container's own view, when it runs the next time.
        if round != "running" {
            assert_eq!(final_(&["start", "box"]).status, Some(0));
        }
        let seen = inside(&format!(
            "cd /tmp/{round}; readlink link; cat file name followed new/other new/deep/other slash/other; ls"
        ));
        let expected = "file\ndeepdeepof the hostdeepdeepdeep";
        let list = "file\nfollowed\nlink\nname\nnew\nother\nslash\n";
        assert_eq!(seen, format!("{expected}{list}"), "{round}");
        if round == "running" {
            assert_eq!(final_(&["stop", "--time", "0", "box"]).status, Some(0));
        }
        fs::remove_dir_all(out).unwrap();
    }
    for (words, text) in [
        (&["box:/tmp", "box:/etc"][..], "final cp box:/tmp - | final cp - box:/etc"),
        (&["a", "b"], "has to be in a container"),
        (&["./box:/tmp", "b"], "has to be in a container"),
        (&["nobody:/etc", "."], "no such container: nobody"),
        (&["-", "box:/etc/passwd"], "an archive is unpacked into a directory"),
        (&["box:/dev/null", "."], "a socket or a device"),
        (&[&path("file"), "box:/dev/null"], "neither a file nor a directory"),
    ] {
        fails(words, text);
    }
    assert_eq!(final_(&["rm", "--force", "box"]).status, Some(0));
    fs::remove_dir_all(tree).unwrap();
}

pub fn what_is_copied_stays_what_it_is(who: Who) {
    let (tree, scratch) = (tree(), scratch());
    let path = |name: &str| format!("{tree}/{name}");
    let mode = |name: &str, mode| fs::set_permissions(path(name), PermissionsExt::from_mode(mode));
    let time = TimeSpec::new(981_173_106, 789_000_000);
    let set_time = |name: &str| {
        utimensat(AT_FDCWD, path(name).as_str(), &time, &time, UtimensatFlags::NoFollowSymlink)
    };
    fs::hard_link(path("file"), path("second")).unwrap();
    symlink("/no where//./", path("far")).unwrap();
    symlink("x/".repeat(150), path("long")).unwrap();
    mkfifo(path("fifo").as_str(), Mode::from_bits_truncate(0o600)).unwrap();
    let sparse = File::create(path("sparse")).unwrap();
    sparse.set_len(8 << 20).unwrap();
    fs::write(path("big"), "0123456789".repeat(50_000)).unwrap();
    let deep = format!("{}{}", "d".repeat(200), "/e".repeat(60));
    fs::create_dir_all(path(&deep)).unwrap();
    fs::write(path(&format!("{deep}/\u{e9} \n")), "name").unwrap();
    mode("file", 0o6751).unwrap();
    mode("deep", 0o1500).unwrap();
    for name in ["file", "far", "deep", "fifo"] {
        set_time(name).unwrap();
    }
    if who == Who::Root {
        chown(path("file").as_str(), Some(1234.into()), Some(56.into())).unwrap();
        mode("file", 0o6751).unwrap(); // chown(2) has taken bits of it
    }
    let own = fs::metadata(&tree).unwrap();

    let running = start("box", &[], &["sleep", "1000"]);
    for (option, kept) in [(&[][..], false), (&["--archive"][..], true)] {
        cp(&[option, &[&tree, "box:/root/tree"]].concat());
        let (out, set_ids) = (format!("{scratch}/out"), if kept { 0o6000 } else { 0 });
        let seen = inside(
            "cd /root/tree; stat -c '%n %a %u:%g %h %y' file second deep; stat -c %b sparse; readlink far",
        );
        let owner = if kept && who == Who::Root { "1234:56" } else { "0:0" };
        let is = "2001-02-03 04:05:06.789000000 +0000";
        let bits = set_ids | 0o751;
        let expected = format!(
            "file {bits:o} {owner} 2 {is}\nsecond {bits:o} {owner} 2 {is}\ndeep 1500 0:0 2 {is}\n0\n\
             /no where//./\n"
        );
        assert_eq!(seen, expected);

        cp(&[option, &["box:/root/tree", &out]].concat());
        let found = |name: &str| fs::symlink_metadata(format!("{out}/{name}")).unwrap();
        for name in ["file", "second", "deep", "fifo", "far", "sparse", "big"] {
            let before = fs::symlink_metadata(path(name)).unwrap();
            let shown = |file: &fs::Metadata| {
                (file.file_type(), file.mtime(), file.mtime_nsec(), file.nlink())
            };
            assert_eq!(shown(&found(name)), shown(&before), "{name}");
        }
        assert_eq!(found("file").mode() & 0o7777, bits);
        assert_eq!(found("deep").mode() & 0o7777, 0o1500);
        assert!(found("fifo").file_type().is_fifo() && found("sparse").blocks() == 0);
        let owner = if owner == "0:0" { (own.uid(), own.gid()) } else { (1234, 56) };
        assert_eq!((found("file").uid(), found("file").gid()), owner);
        for link in ["far", "long"] {
            let read = |tree: &str| fs::read_link(format!("{tree}/{link}")).unwrap();
            assert_eq!(read(&out), read(&tree));
        }
        for file in ["big", "file", &format!("{deep}/\u{e9} \n")] {
            let read = |tree: &str| fs::read(format!("{tree}/{file}")).unwrap();
            assert!(read(&out) == read(&tree), "{file}");
        }
        // The FIFO alone: nobody writes to it, and we do not wait.
        cp(&["box:/root/tree/fifo", &format!("{out}/alone")]);
        inside("chmod 700 /root/tree/deep; rm -r /root/tree");
        fs::set_permissions(format!("{out}/deep"), PermissionsExt::from_mode(0o700)).unwrap();
        fs::remove_dir_all(out).unwrap();
    }
    // What the kernel shows has no size before it is read.
    let version = final_(&["cp", "box:/proc/version", "-"]);
    assert!(version.stdout.contains("Linux version"), "{version:?}");
    fails(&["box:/proc/self/exe", "-"], "No such file"); // who is none of its processes is not there
    mode("deep", 0o700).unwrap();
    stop("box", running);
    fs::remove_dir_all(tree).unwrap();
}

/// An archive with one entry, of any name.
pub fn archive(entries: &[(EntryType, &str, &str)]) -> Vec<u8> {
    let mut builder = Builder::new(Vec::new());
    for (kind, name, content) in entries {
        let mut header = Header::new_gnu();
        header.as_old_mut().name[..name.len()].copy_from_slice(name.as_bytes());
        header.set_entry_type(*kind);
        header.set_mode(0o644);
        header.set_uid(1234);
        header.set_gid(56);
        header.set_mtime(0);
        let is_file = *kind == EntryType::Regular;
        header.set_size(if is_file { content.len() as u64 } else { 0 });
        if !is_file {
            header.set_link_name_literal(content).unwrap();
        }
        header.set_cksum();
        builder.append(&header, if is_file { content.as_bytes() } else { &[] }).unwrap();
    }
    builder.into_inner().unwrap()
}

pub fn archives_are_read_and_written(who: Who) {
    let tree = tree();
    let running = start("box", &[], &["sleep", "1000"]);
    cp(&[&tree, "box:/root"]);
    let mut from = command(BINARY, &["cp", "box:/root/tree", "-"]);
    let written = from.output().unwrap();
    assert!(written.status.success() && written.stderr.is_empty(), "{written:?}");
    let fed = feed(&["-", "box:/tmp"], &written.stdout);
    assert_eq!((fed.status, &*fed.stderr), (Some(0), ""), "{fed:?}");
    assert_eq!(inside("cd /tmp/tree; cat file deep/other; readlink link"), "of the hostdeepfile\n");

    // Through links, as a container's own tar would; and in directories that it does not name.
    inside("ln -s /tmp/real /tmp/alias; mkdir /tmp/real");
    let odd = archive(&[
        (EntryType::Regular, "/absolute", "1"),
        (EntryType::Regular, "alias/through", "2"),
        (EntryType::Regular, "made/for/it", "3"),
        (EntryType::Symlink, "root", "/"),
        (EntryType::Regular, "root/tmp/last", "4"),
    ]);
    assert_eq!(feed(&["-", "box:/tmp"], &odd).status, Some(0));
    let seen = inside("cd /tmp; cat absolute real/through made/for/it last; stat -c %u absolute");
    assert_eq!(seen, "12340\n");
    let kept = feed(&["-a", "-", "box:/tmp"], &archive(&[(EntryType::Regular, "mine", "5")]));
    if who == Who::Root {
        assert_eq!((kept.status, &*inside("stat -c %u:%g /tmp/mine")), (Some(0), "1234:56\n"));
    } else {
        assert_eq!(kept.status, Some(1));
        assert!(kept.stderr.contains("cannot give it to 1234:56"), "{kept:?}");
    }

    for (entry, text) in [
        ((EntryType::Regular, "../up", "x"), "leads out"),
        ((EntryType::Regular, "real/../../up", "x"), "leads out"),
        ((EntryType::Link, "hard", "../etc/passwd"), "leads out"),
        ((EntryType::Link, "hard", "nothing"), "cannot link it"),
        ((EntryType::Regular, "real", "x"), "only a directory can take the place of one"),
        ((EntryType::Directory, "absolute", ""), "a directory cannot take the place"),
    ] {
        let refused = feed(&["-", "box:/tmp"], &archive(&[entry]));
        assert_eq!(refused.status, Some(1), "{entry:?}: {refused:?}");
        assert!(refused.stderr.contains(text), "{entry:?}: {refused:?}");
    }
    let device = feed(&["-", "box:/tmp"], &archive(&[(EntryType::Char, "device", "")]));
    assert_eq!(device.status, Some(0));
    assert!(device.stderr.contains("left out: device"), "{device:?}");
    let refused = feed(&["-", "box:/tmp"], &[b'x'; 2000]);
    assert_eq!(refused.status, Some(1), "{refused:?}");
    assert!(refused.stderr.contains("no tar archive"), "{refused:?}");
    let whole = archive(&[(EntryType::Regular, "cut", &"x".repeat(1000))]);
    let cut = feed(&["-", "box:/tmp"], &whole[..1000]);
    assert_eq!(cut.status, Some(1), "{cut:?}");
    assert!(cut.stderr.contains("ends in the middle"), "{cut:?}");
    assert_eq!(inside("ls /up /tmp/hard /tmp/device /tmp/cut 2>&1 | grep -c 'No such'"), "4\n");
    stop("box", running);
    fs::remove_dir_all(tree).unwrap();
}

pub fn what_cannot_be_written_is_refused(_: Who) {
    let (tree, scratch) = (tree(), scratch());
    let file = format!("{tree}/file");
    let (data, fixed) = (format!("{scratch}:/data"), format!("{tree}:/fixed:ro"));
    let one = format!("{file}:/t/one");
    let options = ["--read-only", "-v", &one, "-v", &data, "-v", &fixed, "--tmpfs", "/t:size=1m"];
    let words = [&["create", "--name", "box"], &options[..], &["host", "sleep", "1000"]].concat();
    assert_eq!(final_(&words).status, Some(0));
    for state in ["at rest", "running"] {
        for place in ["box:/root", "box:/usr", "box:/fixed/new", "box:/fixed/file"] {
            fails(&[&file, place], "Read-only file system (the container's root (--read-only)");
        }
        cp(&[&file, "box:/data/new"]);
        assert_eq!(fs::read_to_string(format!("{scratch}/new")).unwrap(), "of the host");
        cp(&["box:/fixed/file", &format!("{scratch}/new")]);
        if state == "at rest" {
            fails(&[&file, "box:/t"], "only while the container runs");
            assert_eq!(final_(&["start", "box"]).status, Some(0));
        }
    }
    cp(&[&file, "box:/t"]);
    fails(&[&file, "box:/t/one"], "a mount of its own");
    let mut full = command(BINARY, &["cp", "box:/fixed", "-"]);
    let full = full.stdout(File::create("/dev/full").unwrap()).output().unwrap();
    assert_eq!(full.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&full.stderr).contains("No space left"), "{full:?}");
    // A full disk: the error says so, and half a file is none.
    let (big, full) = (format!("{tree}/big"), "No space left on device");
    fs::write(&big, vec![1; 2 << 20]).unwrap();
    fails(&[&big, "box:/t"], full);
    assert_eq!(inside("ls /t"), "file\none\n");
    assert_eq!(final_(&["rm", "--force", "box"]).status, Some(0));
    fs::remove_file(format!("{scratch}/new")).unwrap();
    fs::remove_dir_all(tree).unwrap();
}

/// What was copied is said at a terminal only.
pub fn a_copy_says_how_much_it_was(_: Who) {
    let (tree, running) = (tree(), start("box", &[], &["sleep", "1000"]));
    let file = format!("{tree}/file");
    let mut terminal = Terminal::start(command(BINARY, &["cp", &file, "box:/tmp/"]));
    terminal.expect("Successfully copied 11B to box:/tmp/\r\n");
    assert!(terminal.child.wait().unwrap().success());
    let mut terminal = Terminal::start(command(BINARY, &["cp", "--quiet", "box:/tmp/file", &file]));
    assert!(terminal.child.wait().unwrap().success());
    let said = terminal.wait(Duration::from_millis(50), |seen| seen.find(char::is_alphanumeric));
    assert_eq!(said, None); // what it wrote before its end would be there
    // An archive is for no terminal.
    let mut terminal = Terminal::start(command(BINARY, &["cp", "box:/etc", "-"]));
    terminal.expect("nothing for a terminal");
    assert_eq!(terminal.child.wait().unwrap().code(), Some(1));
    stop("box", running);
    fs::remove_dir_all(tree).unwrap();
}

pub fn a_remapped_containers_files_are_copied(_: Who) {
    let line = "container-workshop:200000:65536\n";
    let _held = Ranges::new(line, line);
    let (tree, scratch) = (tree(), scratch());
    chown(format!("{tree}/file").as_str(), Some(33.into()), Some(44.into())).unwrap();
    let words = ["create", "--name", "box", "--userns", "remap", "host", "sleep", "1000"];
    assert_eq!(final_(&words).status, Some(0));
    for state in ["at-rest", "running"] {
        let (inside, out) = (format!("box:/root/{state}"), format!("{scratch}/out"));
        // The second time it goes into what the first has made.
        for (option, file, owner) in [(&[][..], "file", (0, 0)), (&["-a"], "tree/file", (33, 44))] {
            cp(&[option, &[&tree, &inside]].concat());
            cp(&["-a", &format!("{inside}/{file}"), &out]);
            let found = fs::metadata(&out).unwrap();
            assert_eq!((found.uid(), found.gid()), owner, "{state} {option:?}");
            cp(&[&inside, &format!("{scratch}/all")]);
            assert_eq!(fs::metadata(format!("{scratch}/all/file")).unwrap().uid(), 0);
            fs::remove_file(&out).unwrap();
            fs::remove_dir_all(format!("{scratch}/all")).unwrap();
        }
        if state == "at-rest" {
            assert_eq!(final_(&["start", "box"]).status, Some(0));
        }
    }
    let look = "cd /root; stat -c %u:%g at-rest/tree/file at-rest/file running/tree running";
    assert_eq!(inside(look), "33:44\n0:0\n0:0\n0:0\n");
    assert_eq!(final_(&["rm", "--force", "box"]).status, Some(0));
    fs::remove_dir_all(tree).unwrap();
}
