//! What is mounted, and how.

use std::fs;
use std::os::unix::fs::{MetadataExt as _, symlink};

use nix::sys::stat::{SFlag, major, minor, stat};
use workshop::lab::Who;

use crate::{final_, scratch, script};

/// The options of the last mount on a place in the container, from /proc/self/mountinfo.
fn mount_on(options: &[&str], place: &str) -> String {
    let look = format!("grep ' {place} ' /proc/self/mountinfo | tail -1");
    let seen = script(options, &look);
    assert_eq!(seen.status, Some(0), "{options:?}: {seen:?}");
    seen.stdout
}

pub fn mounts_are_as_they_were_asked_for(_: Who) {
    let scratch = scratch();
    fs::write(format!("{scratch}/file"), "of the host").unwrap();
    let bind = |more: &str| format!("type=bind,src={scratch},dst=/data{more}");
    let read = "cat /data/file; echo x > /data/new";
    let seen = script(&["--mount", &bind("")], read);
    assert_eq!((seen.status, seen.stdout.as_str()), (Some(0), "of the host"), "{seen:?}");
    assert_eq!(fs::read_to_string(format!("{scratch}/new")).unwrap(), "x\n");
    for more in [",readonly", ",ro=true", ",readonly,bind-propagation=rprivate"] {
        let seen = script(&["--mount", &bind(more)], read);
        assert!(seen.stderr.contains("Read-only file system"), "{seen:?}");
    }
    let private = format!("{scratch}:/data:ro,rprivate");
    assert!(script(&["-v", &private], read).stderr.contains("Read-only file system"));

    // docker's defaults for a tmpfs; and no device nodes, whatever is asked for.
    for (options, parts) in [
        (&["--tmpfs", "/t"][..], &["nosuid", "nodev", "noexec", "rw"][..]),
        (&["--tmpfs", "/t:exec,suid,size=1m,mode=700"], &["nodev", "size=1024k", "mode=700"]),
        (&["--tmpfs", "/t:ro"], &["ro,", "noexec"]),
        (
            &["--mount", "type=tmpfs,target=/t,tmpfs-size=2m,tmpfs-mode=0711"],
            &["nosuid", "nodev", "noexec", "size=2048k", "mode=711"],
        ),
    ] {
        let shown = mount_on(options, "/t");
        for part in parts {
            assert!(shown.contains(part), "{options:?} has no {part}: {shown}");
        }
        assert!(shown.contains(" - tmpfs "), "{shown}");
        assert_eq!(shown.contains("noexec"), !options[1].contains(":exec"), "{shown}");
    }
    // What is above is mounted first, in whatever order it was said.
    let inner = format!("{scratch}:/t/deep/data");
    let nested = script(&["-v", &inner, "--tmpfs", "/t"], "cat /t/deep/data/file; ls /t");
    assert_eq!(nested.stdout, "of the hostdeep\n", "{nested:?}");

    for (options, size) in [(&[][..], "65536k"), (&["--shm-size", "3m"], "3072k")] {
        let shown = mount_on(options, "/dev/shm");
        assert!(shown.contains(&format!("size={size}")), "{shown}");
    }
    for name in ["file", "new"] {
        fs::remove_file(format!("{scratch}/{name}")).unwrap();
    }
}

pub fn a_read_only_root_cannot_be_written(_: Who) {
    let scratch = scratch();
    let volume = format!("{scratch}:/data");
    let write = "for place in / /etc /usr /root /tmp /dev/shm /dev /run /data; do \
                 touch $place/x 2>/dev/null && echo $place; done; cat /etc/hostname; pwd; \
                 mount -o remount,rw / 2>/dev/null && echo remounted";
    let options = ["--read-only", "--tmpfs", "/run", "-v", &volume, "-h", "box", "-w", "/new"];
    let seen = script(&options, write);
    assert_eq!(seen.stdout, "/dev/shm\n/dev\n/run\n/data\nbox\n/new\n", "{seen:?}");
    fs::remove_file(format!("{scratch}/x")).unwrap();
    // Of a directory, too; and with a terminal, for which /dev/console is made.
    let image = format!("{scratch}/image");
    fs::create_dir_all(format!("{image}/etc")).unwrap();
    for name in ["bin", "lib", "lib64", "sbin"] {
        symlink(format!("usr/{name}"), format!("{image}/{name}")).unwrap();
    }
    let words = ["run", "--rm", "-t", "--read-only", "-v", "/usr:/usr:ro", "--rootfs", &image];
    let touch = ["sh", "-c", "touch /x /etc/x; ls /dev/console"];
    let seen = final_(&[&words[..], &touch].concat());
    assert_eq!(seen.stdout.matches("Read-only file system").count(), 2, "{seen:?}");
    assert!(seen.stdout.ends_with("/dev/console\r\n"), "{seen:?}");
    fs::remove_dir_all(image).unwrap();
}

pub fn a_device_is_there_if_it_was_asked_for(who: Who) {
    // One that every machine has, and a container does not: it writes into the kernel's log.
    let host = stat("/dev/kmsg").unwrap();
    assert_eq!(host.st_mode & SFlag::S_IFMT.bits(), SFlag::S_IFCHR.bits());
    let numbers = format!("{:x}:{:x}\n", major(host.st_rdev), minor(host.st_rdev));
    let look = "stat -c %t:%T /dev/kmsg /dev/other 2>/dev/null";
    assert_eq!(script(&[], look).stdout, "");
    assert_eq!(script(&["--device", "/dev/kmsg"], look).stdout, numbers);
    assert_eq!(script(&["--device", "/dev/kmsg:/dev/other:rwm"], look).stdout, numbers);

    // It can be opened, and those that were not asked for cannot, also if they are made.
    let zero = "head -c 3 /dev/zero2 | od -An -tx1; mknod /dev/own c 1 5 && cat /dev/own";
    let seen = script(&["--device", "/dev/zero:/dev/zero2"], zero);
    assert_eq!(seen.stdout, " 00 00 00\n", "{seen:?}");
    assert!(seen.stderr.contains("denied") || seen.stderr.contains("not permitted"), "{seen:?}");

    // Root gets a node of its own: what it does to that does not reach the host's.
    if who == Who::Root {
        let before = fs::metadata("/dev/zero").unwrap();
        let changed =
            script(&["--device", "/dev/zero:/z"], "chmod 600 /z && chown 5 /z && echo ok");
        assert_eq!(changed.stdout, "ok\n", "{changed:?}");
        let after = fs::metadata("/dev/zero").unwrap();
        assert_eq!((before.mode(), before.uid()), (after.mode(), after.uid()));
    }
}
