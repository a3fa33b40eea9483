//! Images that were made to fool us: whatever they hold, the host stays as it is.

use std::fs;
use std::os::unix::fs::{MetadataExt as _, symlink};
use std::path::{Path, PathBuf};

use nix::sys::stat::Mode;
use nix::unistd::mkfifo;
use workshop::lab::Who;
use workshop::suite::link_to_usr;

use crate::{check, final_, scratch};

/// A directory image: the host's programs, and nothing else yet.
struct Image(PathBuf);

impl Image {
    fn new() -> Self {
        let root = Path::new(&scratch()).join("image");
        fs::create_dir(&root).unwrap();
        link_to_usr(&root);
        Self(root)
    }

    fn path(&self, inside: &str) -> PathBuf {
        let path = self.0.join(inside.trim_start_matches('/'));
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        path
    }

    /// Runs a program in it that needs nothing but its libraries.
    fn run(&self) -> workshop::suite::Outcome {
        let root = self.0.to_str().unwrap();
        final_(&["run", "--rm", "--workdir", "/work", "-v", "/usr:/usr:ro", root, "true"])
    }
}

impl Drop for Image {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Every file below: its path, what it is, its bytes, and when it was changed.
fn state(directory: &Path) -> Vec<String> {
    let mut lines = Vec::new();
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        let now = fs::symlink_metadata(&path).unwrap();
        let text = if now.is_file() { fs::read_to_string(&path).unwrap() } else { String::new() };
        let changed = (now.ctime(), now.ctime_nsec());
        lines.push(format!("{} {:o} {changed:?} {text}", path.display(), now.mode()));
        if now.is_dir() {
            lines.extend(state(&path));
        }
    }
    lines
}

pub fn images_that_lead_outside_change_nothing_there(_: Who) {
    let scratch = scratch();
    let victim = Path::new(&scratch).join("victim");
    fs::create_dir(&victim).unwrap();
    for name in ["passwd", "hosts", "hostname", "resolv.conf"] {
        fs::write(victim.join(name), "the host's").unwrap();
    }
    let before = state(&victim);
    let outside = victim.to_str().unwrap();
    let up = &*format!("{}{}", "../".repeat(40), outside.trim_start_matches('/'));

    // As a directory that we mount upon, write to, or change to. Inside, the links lead to nowhere,
    // or to what the image has at that place.
    for place in ["proc", "dev", "sys", "etc", "work", "dev/pts", "sys/fs/cgroup"] {
        for (link, is_there, status, named) in [
            (outside, false, 125, "symbolic link to nowhere"),
            (outside, true, 0, ""),
            (up, false, 125, "symbolic link to nowhere"),
            (up, true, 0, ""),
            ("/no/such", false, 125, "symbolic link to nowhere"),
            ("/loop", false, 125, "ELOOP"),
        ] {
            let image = Image::new();
            symlink(link, image.path(place)).unwrap();
            symlink("loop", image.path("loop")).unwrap();
            if is_there {
                fs::create_dir_all(image.path(outside)).unwrap();
            }
            let inside = state(&image.0);
            let ended = image.run();
            // What a fresh file system covers does not matter.
            if place.contains('/') || status == 0 {
                assert_eq!(ended.status, Some(0), "/{place} -> {link}: {ended:?}");
            } else {
                check(&(place, link), &ended, status, &[named]);
            }
            assert_eq!(state(&image.0), inside, "/{place} -> {link} changed the image");
            assert_eq!(state(&victim), before, "/{place} -> {link} led outside");
        }
    }

    // As a file that we write: the link is replaced, not followed.
    for name in ["passwd", "hosts", "hostname", "resolv.conf"] {
        for link in [&*format!("{outside}/{name}"), &*format!("../{up}/{name}"), "/no/such", name] {
            let image = Image::new();
            symlink(link, image.path(&format!("etc/{name}"))).unwrap();
            let ended = image.run();
            assert_eq!(ended.status, Some(0), "/etc/{name} -> {link}: {ended:?}");
            assert_eq!(state(&victim), before, "/etc/{name} -> {link} led outside");
        }
    }
    fs::remove_dir_all(victim).unwrap();
}

pub fn images_with_the_wrong_kind_of_file(_: Who) {
    // A file or a FIFO, which an open(2) would wait for, where a directory should be.
    for place in ["proc", "dev", "sys", "etc", "work", "usr"] {
        for fifo in [false, true] {
            let image = Image::new();
            let path = image.path(place);
            let made = if fifo {
                mkfifo(&path, Mode::S_IRWXU).is_ok()
            } else {
                fs::write(path, "").is_ok()
            };
            assert!(made);
            let named = format!("/{place} is not a directory");
            check(&(place, fifo), &image.run(), 125, &[&named]);
        }
    }
    // A directory or a FIFO where a file should be.
    for name in ["hosts", "hostname", "resolv.conf"] {
        let image = Image::new();
        let place = image.path(&format!("etc/{name}"));
        fs::create_dir(&place).unwrap();
        check(&name, &image.run(), 125, &[&format!("/etc/{name}"), "Is a directory"]);
        fs::remove_dir(&place).unwrap();
        mkfifo(&place, Mode::S_IRWXU).unwrap();
        let ended = image.run();
        assert_eq!(ended.status, Some(0), "a FIFO as {name}: {ended:?}");
    }
    // Nothing at all: all of it is made, in the container.
    let image = Image::new();
    let inside = state(&image.0);
    let ended = image.run();
    assert_eq!(ended.status, Some(0), "{ended:?}");
    assert_eq!(state(&image.0), inside);
    // An empty directory has no program.
    fs::create_dir(image.path("empty")).unwrap();
    let empty = image.path("empty");
    let words = ["run", "--rm", empty.to_str().unwrap(), "true"];
    check(&words, &final_(&words), 127, &["cannot execute true"]);
}

pub fn an_image_with_a_name_that_commands_the_terminal(_: Who) {
    let image = Image::new();
    let odd = image.0.with_file_name("a\x1b[2J\nb");
    fs::rename(&image.0, &odd).unwrap();
    let words = ["run", "--name", "box", "-v", "/usr:/usr:ro", odd.to_str().unwrap(), "true"];
    let ended = final_(&words);
    assert_eq!(ended.status, Some(0), "{ended:?}");
    let listed = final_(&["ps", "--all"]).stdout;
    assert!(listed.contains(r"/a\u{1b}[2J\nb ") && listed.lines().count() == 2, "{listed:?}");
    assert!(!listed.contains('\x1b'), "{listed:?}");
    assert_eq!(final_(&["rm", "box"]).status, Some(0));
    fs::rename(&odd, &image.0).unwrap();
}
