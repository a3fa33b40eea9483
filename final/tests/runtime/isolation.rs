//! What a container cannot see and cannot do.

use std::fs;
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::symlink;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::time::Duration;

use nix::sys::stat::Mode;
use nix::unistd::mkfifo;
use workshop::lab::Who;
use workshop::suite::{command, read, run};

use crate::{BINARY, final_, probe_volume, script, start, stop};

pub fn capabilities_and_seccomp_are_dockers(_: Who) {
    let status = script(&[], "grep -E '^(Cap|NoNew|Seccomp:|SigBlk)' /proc/self/status").stdout;
    // chown dac_override fowner fsetid kill setgid setuid setpcap net_bind_service net_raw
    // sys_chroot mknod audit_write setfcap (capabilities(7) has the numbers).
    let set = [0, 1, 3, 4, 5, 6, 7, 8, 10, 13, 18, 27, 29, 31].map(|bit| 1_u64 << bit);
    let docker = format!("{:016x}", set.iter().sum::<u64>());
    for line in [
        "CapInh:\t0000000000000000",
        &format!("CapPrm:\t{docker}"),
        &format!("CapEff:\t{docker}"),
        &format!("CapBnd:\t{docker}"),
        "CapAmb:\t0000000000000000",
        "SigBlk:\t0000000000000000",
        "NoNewPrivs:\t1",
        "Seccomp:\t2",
    ] {
        assert!(status.lines().any(|shown| shown == line), "{line} is not in:\n{status}");
    }
}

pub fn new_namespaces_and_mounts_are_refused(_: Who) {
    for (what, text) in [
        ("a user namespace", "unshare --user true"),
        ("a mount", "mount -t tmpfs none /mnt"),
        ("the host name", "hostname other"),
        ("a setting of the kernel", "echo 1 > /proc/sys/net/ipv4/ip_forward"),
        ("the magic key", "echo h > /proc/sysrq-trigger"),
        ("a device", "echo x > /sys/class/net/lo/mtu"),
    ] {
        let tried = script(&[], text);
        assert!(tried.status.is_some_and(|status| status != 0), "{what}: {tried:?}");
    }
}

pub fn privileged_takes_the_walls_away(who: Who) {
    let inside = script(
        &["--privileged"],
        "grep -E '^(CapEff|CapBnd|Seccomp:)' /proc/self/status; mount -t tmpfs none /mnt && \
         unshare --uts hostname other && grep -cE ' /proc/(kcore|sys|irq) ' /proc/mounts",
    );
    let last: u32 = read("/proc/sys/kernel/cap_last_cap").parse().unwrap();
    let all = match who {
        // What the machine's root lacks itself, say in a container, it cannot pass on.
        Who::Root => read("/proc/self/status").split("CapEff:\t").nth(1).unwrap()[..16].to_owned(),
        Who::LabRoot | Who::Plain | Who::User => format!("{:016x}", (2_u64 << last) - 1),
    };
    let expected = format!("CapEff:\t{all}\nCapBnd:\t{all}\nSeccomp:\t0\n0\n");
    assert_eq!(inside.stdout, expected, "{inside:?}");
}

pub fn nothing_of_the_caller_leaks_in(_: Who) {
    let root = fs::File::open("/").unwrap();
    let volume = probe_volume();
    let mut caller = command(BINARY, &["run", "--rm", "-v", &volume, "host", "/probe", "@fds"]);
    let leaked = root.as_raw_fd();
    // SAFETY: dup2(2) may be called between fork and exec (signal-safety(7)). It makes an open
    // directory without close-on-exec: what a careless caller leaves behind.
    unsafe {
        caller.pre_exec(move || {
            nix::errno::Errno::result(libc::dup2(leaked, 9))?;
            Ok(())
        });
    }
    let shown = run(&mut caller, Duration::from_secs(60));
    let files: Vec<_> = shown.stdout.lines().collect();
    // Input, output, errors, and the directory that the probe reads.
    assert_eq!(files.len(), 4, "{shown:?}");
    assert_eq!(files[0], "/dev/null", "{shown:?}");
    assert!(files[3].starts_with("/proc/"), "{shown:?}");
    // No terminal, no session of the caller.
    let session = script(&[], "cut -d' ' -f6,7 /proc/1/stat").stdout;
    assert_eq!(session, "1 0\n");
}

pub fn etc_is_written_inside_the_image(who: Who) {
    let shown =
        script(&["--hostname", "box"], "cat /etc/hostname /etc/hosts /etc/resolv.conf").stdout;
    assert!(shown.starts_with("box\n127.0.0.1\tlocalhost\n"), "{shown}");
    assert!(shown.contains("\tbox\n") && shown.contains("nameserver "), "{shown}");
    if who == Who::Plain {
        return;
    }
    // An image whose files lead outside: links to the host's files, and a FIFO nobody reads.
    let image = Path::new("/run/image");
    fs::create_dir_all(image.join("etc")).unwrap();
    for name in ["bin", "lib", "lib64", "sbin"] {
        symlink(Path::new("usr").join(name), image.join(name)).unwrap();
    }
    fs::write("/run/victim", "untouched").unwrap();
    symlink("/run/victim", image.join("etc/hosts")).unwrap();
    symlink("../../run/victim", image.join("etc/hostname")).unwrap();
    mkfifo(&image.join("etc/resolv.conf"), Mode::S_IRWXU).unwrap();
    let words = ["run", "--rm", "-v", "/usr:/usr:ro", "/run/image", "cat", "/etc/resolv.conf"];
    let shown = final_(&words);
    assert_eq!(shown.status, Some(0), "{shown:?}");
    assert!(shown.stdout.contains("nameserver "), "{shown:?}");
    assert_eq!(fs::read_to_string("/run/victim").unwrap(), "untouched");
    fs::remove_dir_all(image).unwrap();
    fs::remove_file("/run/victim").unwrap();
}

pub fn the_container_does_not_see_the_host(_: Who) {
    // Everything of the host that /proc/mounts still names must be the image's or a bind of ours.
    let mounts = script(&[], "cat /proc/self/mountinfo").stdout;
    let foreign: Vec<_> = mounts
        .lines()
        .filter(|line| !line.contains(" - tmpfs ") && !line.contains(" - overlay "))
        .map(|line| line.split(' ').nth(4).unwrap())
        .filter(|place| !["/etc/alternatives", "/etc/ld.so.cache"].contains(place))
        .filter(|place| !["/proc", "/sys", "/dev"].iter().any(|top| place.starts_with(top)))
        .collect();
    assert!(foreign.is_empty(), "{foreign:?} in:\n{mounts}");
    assert_eq!(
        script(&[], "ls /home /run /var/tmp; echo /proc/[0-9]*").stdout.lines().last(),
        Some("/proc/1")
    );
    // What is written stays inside, and goes with the container.
    let marker = "/usr/written-in-a-container";
    assert_eq!(script(&[], &format!("touch {marker} /root/x && ls {marker}")).status, Some(0));
    assert!(!Path::new(marker).exists());
}

pub fn exec_cannot_be_spied_upon(_: Who) {
    // A process in the container that tries to read the open files of whoever comes in. Without
    // protection it sees the host's directories that `final exec` has open, and walks out there.
    let volume = probe_volume();
    let spy = start("spied", &["-v", &volume], &["/probe", "@spy"]);
    for _ in 0..20 {
        assert_eq!(final_(&["exec", "spied", "true"]).status, Some(0));
    }
    let seen = stop("spied", spy);
    assert!(seen.stdout.lines().count() > 0, "the spy has seen nobody: {seen:?}");
    // Its input and outputs are the program's, which was there a moment later.
    let is_hosts = |line: &&str| line.contains('/') && !line.ends_with("/dev/null");
    let open: Vec<_> = seen.stdout.lines().filter(is_hosts).collect();
    assert!(open.is_empty(), "{open:?}");
}
