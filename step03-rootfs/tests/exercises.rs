//! The exercises of step 3, each tried on the kernel by itself.

use std::fs::{self, File};
use std::io::Read as _;
use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use nix::fcntl::{OFlag, open, openat};
use nix::mount::{MsFlags, mount};
use nix::sys::stat::Mode;
use nix::unistd::{chdir, chroot, fchdir, getcwd};
use step03_rootfs::{Mount, Root, mask, overlay, pivot, sys};
use workshop::lab::Who;
use workshop::suite::{Test, suite};
use workshop::test;
use workshop::verdict::{expect, expect_ok, with_mounts};

static TESTS: &[Test] = &[
    test!(ex3_1_writes_go_to_the_upper_layer, [Root, LabRoot]),
    test!(ex3_2_nothing_of_the_old_root_is_left, [Root, LabRoot]),
    test!(ex3_3_a_masked_path_looks_empty, [Root, LabRoot]),
    test!(ex3_4_a_link_in_the_image_stays_in_the_image, [Root, LabRoot, Plain]),
];

fn main() -> ExitCode {
    suite(TESTS)
}

/// Runs `inside` in a mount namespace of its own, with a fresh directory that is gone afterwards.
fn with_directory(inside: impl FnOnce(&Path)) {
    with_mounts(|| {
        let path = PathBuf::from(std::env::var_os("XDG_RUNTIME_DIR").unwrap());
        let (kind, none) = (Some("tmpfs"), None::<&str>);
        mount(kind, &path, kind, MsFlags::empty(), none).unwrap();
        inside(&path);
        String::new()
    });
}

fn path_fd(path: &Path) -> OwnedFd {
    open(path, OFlag::O_PATH, Mode::empty()).unwrap()
}

fn ex3_1_writes_go_to_the_upper_layer(who: Who) {
    with_directory(|area| {
        let look = "the options of `mount -t overlay`: lowerdir, upperdir, workdir; in a user \
                    namespace userxattr too (Documentation/filesystems/overlayfs.rst)";
        let [lower, upper, work, merged] = ["lower", "upper", "work", "merged"].map(|name| {
            let path = area.join(name);
            fs::create_dir(&path).unwrap();
            path
        });
        fs::write(lower.join("file"), "of the image").unwrap();
        fs::write(lower.join("victim"), "of the image").unwrap();
        let made = overlay(&Root::open(&lower).unwrap(), &upper, &work);
        let made = expect_ok(made, "an overlay of the three directories", look);
        sys::move_mount(made.as_fd(), path_fd(&merged).as_fd()).unwrap();
        let read = |path: PathBuf| fs::read_to_string(path).unwrap_or_else(|e| e.to_string());

        let seen = read(merged.join("file"));
        expect(seen == "of the image", "the image's file is seen through it", &seen, look);
        expect_ok(
            fs::write(merged.join("file"), "of the container"),
            "a file can be written in it",
            look,
        );
        expect_ok(fs::remove_file(merged.join("victim")), "a file can be deleted in it", look);
        for file in ["file", "victim"] {
            let below = read(lower.join(file));
            expect(below == "of the image", "the image stays as it is", &below, look);
        }
        let above = read(upper.join("file"));
        expect(above == "of the container", "what is written is in the upper layer", &above, look);
        let gone = !merged.join("victim").exists();
        expect(gone, "a deleted file is gone from the merged view", "it is still there", look);
        let mounts = read("/proc/self/mountinfo".into());
        let line = mounts.lines().find(|line| line.contains(merged.to_str().unwrap()));
        expect(
            who == Who::Root || line.is_some_and(|line| line.contains("userxattr")),
            "in a user namespace a directory, too, can be deleted and made anew (userxattr)",
            line.unwrap_or_default(),
            look,
        );
    });
}

fn ex3_2_nothing_of_the_old_root_is_left(_: Who) {
    with_directory(|area| {
        let look = "pivot_root(2), Notes: what new_root has to be, and pivot_root(\".\", \".\")";
        let expected = "the new root file system is all that this mount namespace has";
        let proc = path_fd(Path::new("/proc")); // a way to it that needs no path
        let root = Mount::new("tmpfs", "/", "mode=755").open().unwrap();
        let place = area.join("root");
        fs::create_dir(&place).unwrap();
        expect_ok(pivot(&root, &place), expected, look);

        let mounts = openat(&proc, "self/mountinfo", OFlag::O_RDONLY, Mode::empty()).unwrap();
        let mut text = String::new();
        File::from(mounts).read_to_string(&mut text).unwrap();
        let names = |path| -> Vec<String> {
            let entries = fs::read_dir(path).into_iter().flatten().flatten();
            entries.map(|entry| entry.file_name().display().to_string()).collect()
        };
        let (top, here) = (names("/"), getcwd());
        expect(top.is_empty(), expected, &format!("at / there is {}", top.join(" ")), look);
        let count = text.lines().count();
        let but = format!("/proc/self/mountinfo has {count} mounts: the old root is under the new");
        expect(count == 1, expected, &but, look);
        let here = here.map_or_else(|errno| errno.to_string(), |path| path.display().to_string());
        let but = format!("it is {here:?}, and from there ../../.. might lead out");
        expect(here == "/", "the working directory is /", &but, look);

        // How root leaves a chroot: into another one, with a directory outside of it still open.
        let top = path_fd(Path::new("/"));
        fs::create_dir("/below").unwrap();
        chroot("/below").unwrap();
        fchdir(&top).unwrap();
        (0..32).for_each(|_| chdir("..").unwrap());
        let found = names(".").join(" ");
        let but = format!("another chroot(2) and .. lead to {found}");
        expect(found == "below", "root cannot climb out of the new root", &but, look);
    });
}

fn ex3_3_a_masked_path_looks_empty(_: Who) {
    with_directory(|area| {
        let look = "a file takes a bind mount of `null`, which is /dev/null, opened when it surely was; a \
                    directory takes an empty file system that nobody can write to";
        let (file, directory) = (area.join("keys"), area.join("firmware"));
        fs::write(&file, "secret").unwrap();
        fs::create_dir(&directory).unwrap();
        fs::write(directory.join("inside"), "secret").unwrap();
        // Attached, as the container's is: before Linux 6.15 a copy is made only of what is.
        let (null, place) =
            (sys::open_tree(Path::new("/dev/null"), false).unwrap(), area.join("null"));
        fs::write(&place, "").unwrap();
        sys::move_mount(null.as_fd(), path_fd(&place).as_fd()).unwrap();
        // Somebody has put another file there since (CVE-2025-31133).
        let (none, bind) = (None::<&str>, MsFlags::MS_BIND);
        mount(Some(&file), "/dev/null", none, bind, none).unwrap();
        for path in [&file, &directory] {
            let masked = mask(&path_fd(path), path, null.as_fd());
            expect_ok(masked, &format!("{} is covered", path.display()), look);
        }
        let text = fs::read_to_string(&file).unwrap_or_else(|error| error.to_string());
        expect(text.is_empty(), "a masked file reads as empty", &format!("it has {text:?}"), look);
        let empty = fs::read_dir(&directory).unwrap().next().is_none();
        expect(empty, "a masked directory is empty", "its file is still seen", look);
        let written = fs::write(directory.join("new"), "").map_err(|error| error.to_string());
        let but = written.map_or_else(|error| error, |()| "it could be written".into());
        let refused = but.contains("Read-only");
        expect(refused, "nothing can be written into a masked directory", &but, look);
    });
}

fn ex3_4_a_link_in_the_image_stays_in_the_image(_: Who) {
    let look = "openat2(2): which RESOLVE_ flag takes the directory as /, and which refuses links \
                such as /proc/self/fd/3";
    let area = PathBuf::from(std::env::var_os("XDG_RUNTIME_DIR").unwrap());
    let (image, outside) = (area.join("image"), area.join("outside"));
    fs::create_dir_all(image.join("etc")).unwrap();
    fs::create_dir(&outside).unwrap();
    fs::write(outside.join("secret"), "").unwrap();
    fs::write(image.join("etc/hosts"), "").unwrap();
    symlink(&outside, image.join("absolute")).unwrap();
    symlink("../../outside", image.join("etc/climbing")).unwrap();
    symlink("/etc", image.join("inside")).unwrap();
    let opened = File::open(&outside).unwrap();
    symlink("/nowhere", image.join("dangling")).unwrap();
    let root = Root::open(&image).unwrap();
    let find = |path: &str| match root.find(Path::new(path)) {
        Ok(Some(_)) => "it was found".to_owned(),
        Ok(None) => "nothing is there".to_owned(),
        Err(error) => format!("{error:#}"),
    };
    let cases = [
        ("/etc/hosts", "it was found"),
        ("/inside/hosts", "it was found"),
        ("/../../etc/hosts", "it was found"),
        ("/absolute/secret", "nothing is there"),
        ("/etc/climbing/secret", "nothing is there"),
        ("/dangling", "nothing is there"),
    ];
    let found: Vec<_> = cases.iter().map(|(path, _)| find(path)).collect();
    // A magic link leads to an open file. In an image there is none, but in its /proc there will be.
    let proc = Root::open(Path::new("/proc")).unwrap();
    let magic = proc.find(Path::new(&format!("/self/fd/{}/secret", opened.as_raw_fd())));
    fs::remove_dir_all(&image).unwrap();
    fs::remove_dir_all(&outside).unwrap();
    for ((path, right), found) in cases.iter().zip(found) {
        let expected = format!("of {path}, looked up in the image: {right}");
        expect(found == *right, &expected, &found, look);
    }
    let left = matches!(magic, Ok(Some(_)));
    expect(!left, "/proc/self/fd/N is not followed", "it led to the open directory", look);
}
