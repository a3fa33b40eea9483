//! Into the host's files.

use std::fs;
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use nix::fcntl::{AT_FDCWD, RenameFlags, renameat2};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use workshop::ids::Ranges;
use workshop::lab::{self, Who};
use workshop::suite::{Outcome, Running, command, read, run, this_program};

use crate::{
    FINAL, Host, PATIENCE, SECRET, USR, fails, final_, in_final, in_image, in_step1, in_step3,
    start, works,
};

/// chroot(2) was never meant to hold anybody who may call it again. The working directory stays where
/// it was, above the new root, and from there ".." goes on to the real one.
///
/// Ours is held because there is nothing above it: pivot_root(2) makes the image the root of the mount
/// namespace, and the host's tree is unmounted (`pivot` in step03's rootfs.rs). All steps of the attack
/// succeed, and lead to the container's own root.
// ANCHOR: chroot
pub fn up_from_a_chroot(_: Who) {
    let host = Host::new();
    let (secret, jail) = (host.secret(), host.directory("jail"));
    works(in_step1(&[], &["!climb", &secret, &jail]), SECRET);
    fails(in_final(&[], &["!climb", &secret]), "No such file or directory");
}
// ANCHOR_END: chroot

/// A directory that the caller has open, and did not mark close-on-exec, is open in the container, and a
/// directory is a way: `final run ... 9</`. Engines have leaked some of their own like that
/// (CVE-2024-21626, CVE-2016-9962).
///
/// Ours closes everything but input, output and errors: `Channel::close_all_others`.
pub fn through_an_inherited_directory(_: Who) {
    let host = Host::new();
    let walk = ["!walk", &host.secret()];
    works(leaking(in_step3(&[], &walk)), SECRET);
    fails(leaking(in_final(&[], &walk)), "no open file leads there");
    let _box = start(&[], "host");
    let exec = command(FINAL, &[&["exec", "box", "/probe"], &walk[..]].concat());
    fails(leaking(exec), "no open file leads there");
}

/// A caller that has the host's root open, as 9.
fn leaking(mut command: Command) -> Command {
    let root = fs::File::open("/").unwrap();
    // SAFETY: dup2(2) may be called between fork and exec (signal-safety(7)).
    unsafe {
        command.pre_exec(move || {
            nix::errno::Errno::result(libc::dup2(root.as_raw_fd(), 9))?;
            Ok(())
        });
    }
    command
}

/// CVE-2024-21626: the working directory is /proc/self/fd/N, or a link to it that the container has
/// made. chdir(2) follows it to a directory that the runtime has open. Close-on-exec closes that one in
/// time, but by then it is the working directory.
///
/// Ours fell to this until this test was written: `exec` had the cgroup's directory open. Now it looks
/// the path up with RESOLVE_NO_MAGICLINKS (openat2(2), step03's `Root::find`), as `run` always did.
pub fn through_the_working_directory(_: Who) {
    let host = Host::new();
    let (secret, image) = (host.secret(), host.image("image"));
    let link = "/proc/self/fd/9";
    works(in_step1(&[], &["!careless", &image, "chdir", link, &secret]), SECRET);

    let _box = start(&[], "host");
    for fd in 3..24 {
        let link = format!("/proc/self/fd/{fd}");
        let walk = ["box", "/probe", "!walk", &secret];
        let direct = final_(&[&["exec", "--workdir", &link], &walk[..]].concat());
        stays_inside(&direct);
        let made = final_(&["exec", "box", "ln", "-sfn", &link, "/work"]);
        assert_eq!(made.status, Some(0), "{made:?}");
        stays_inside(&final_(&[&["exec", "--workdir", "/work"], &walk[..]].concat()));
        stays_inside(&run(&mut in_final(&["--workdir", &link], &walk[2..]), PATIENCE));
    }
}

/// Either we refuse, or the attack is made and comes to nothing.
#[track_caller]
fn stays_inside(outcome: &Outcome) {
    let refused = matches!(outcome.status, Some(125..=127));
    let failed = outcome.stderr.contains("attack: ");
    assert!((refused || failed) && outcome.stdout.is_empty(), "{outcome:?}");
}

/// The same way, by another door: the runtime opens the container's /dev/null, to be the program's
/// input, or the container's /dev/pts/ptmx. If /dev is a link, as an image may have it, the container
/// can change it, and the program's input is a directory of the host (CVE-2025-52565 is of this kind).
///
/// Ours fell to this, too. Now such links are not followed, and what was opened has to be the device:
/// `open_device` in process.rs.
pub fn through_the_programs_input(_: Who) {
    let host = Host::new();
    let (secret, image) = (host.secret(), host.image("image"));
    let link = "/proc/self/fd/9";
    symlink(link, host.path("image/null")).unwrap();
    works(in_step1(&[], &["!careless", &image, "open", "/null", &secret]), SECRET);
    fs::remove_file(host.path("image/null")).unwrap();

    symlink("devices", host.path("image/dev")).unwrap();
    host.directory("image/devices");
    let _box = start(&[], &image);
    let evil = "mkdir -p /evil/pts; rm /dev; ln -s evil /dev";
    assert_eq!(final_(&["exec", "box", "sh", "-c", evil]).status, Some(0));
    for fd in 0..24 {
        let relink =
            format!("ln -sfn /proc/self/fd/{fd} /evil/null; ln -sfn ../null /evil/pts/ptmx");
        let made = final_(&["exec", "--interactive", "box", "sh", "-c", &relink]);
        assert_eq!(made.status, Some(0), "{made:?}");
        for option in [&[][..], &["--tty"]] {
            let walk = ["box", "/probe", "!walk", &secret];
            let outcome = final_(&[&["exec"], option, &walk].concat());
            assert_eq!(outcome.status, Some(125), "{outcome:?}");
            assert!(outcome.stderr.contains("of the container"), "{outcome:?}");
        }
    }
}

/// And by a third: the program itself is a link through /proc/self/fd/N. execve(2) looks it up before it
/// closes what is close-on-exec. Then a program of the host's file system runs in the container, as
/// /proc/self/exe, where root may change it.
///
/// Ours closes all of them before the exec, where close-on-exec would be too late:
/// `Channel::close_all_others`.
pub fn through_the_programs_path(_: Who) {
    let host = Host::new();
    let image = host.image("image");
    let program = host.copy("program", Path::new("/usr/bin/true"));
    let through = |fd| format!("/proc/self/fd/{fd}/{}{program}", "../".repeat(20));
    symlink(through(9), host.path("image/evil9")).unwrap();
    let mut weak = in_step1(&[], &["!careless", &image, "exec", "/evil9"]);
    assert_eq!(run(&mut weak, PATIENCE).status, Some(0), "the attack is broken: {weak:?}");

    for fd in 3..24 {
        let _ = symlink(through(fd), host.path(&format!("image/evil{fd}")));
    }
    let _box = start(&[], &image);
    for fd in 3..24 {
        let evil = format!("/evil{fd}");
        let words = [&["run"], &USR[..], &["--net", "none", &image, &evil]].concat();
        for outcome in [final_(&words), final_(&["exec", "box", &evil])] {
            assert!(matches!(outcome.status, Some(126 | 127)), "{evil}: {outcome:?}");
        }
    }
}

/// CVE-2019-5736: the container makes the runtime execute itself, by a program that is a link to
/// /proc/self/exe, or a script with that as its interpreter. For a moment the runtime's own file is the
/// program of a process in the container, and root in there can write to it or, while it is busy,
/// change its mode.
///
/// Ours executes itself once more from a read-only mount or, where it may not mount, from a sealed copy
/// in memory (security/own_program.rs). The attacker sees that file, and can do it no harm.
pub fn into_the_runtimes_own_program(_: Who) {
    let host = Host::new();
    let image = host.image("image");
    let mode = |path: &str| fs::metadata(path).unwrap().permissions().mode() & 0o7777;

    let weak = host.copy("weak", &this_program());
    let exe = "/proc/self/exe";
    let attack = ["--", &weak, "!careless", &image, "exec", exe, "!chmod-exe"];
    let mut attack = command(&crate::step("step01-namespaces"), &attack);
    let outcome = run(&mut attack, PATIENCE);
    assert_eq!(mode(&weak), 0o777, "the attack is broken: {outcome:?}");

    let ours = host.copy("final", &lab::program(FINAL));
    let before = (mode(&ours), fs::read(&ours).unwrap());
    let volume = workshop::suite::probe_volume();
    let words = ["run", "--rm", "--net", "none", "--name", "box", "--volume", &volume, "host"];
    let words = [&words[..], &["/probe", "!chmod-exes"]].concat();
    let (attacker, line) = Running::start(&mut command(&ours, &words));
    assert_eq!(line, "ready\n");
    let script = "printf '#!/proc/self/exe\\n' >/evil; chmod +x /evil";
    assert_eq!(
        run(&mut command(&ours, &["exec", "box", "sh", "-c", script]), PATIENCE).status,
        Some(0)
    );
    for _ in rounds(20) {
        let outcome = run(&mut command(&ours, &["exec", "box", "/evil"]), PATIENCE);
        assert!(
            outcome.stderr.contains("unrecognized subcommand"),
            "we did not execute ourselves: {outcome:?}"
        );
    }
    assert_eq!(run(&mut command(&ours, &["kill", "box"]), PATIENCE).status, Some(0));
    drop(attacker);
    assert_eq!(mode(&ours), before.0, "the mode of our program has changed");
    assert!(fs::read(&ours).unwrap() == before.1, "our program has changed");
}

/// Keeps doing `act` on another thread until it is dropped, also by a test that fails.
struct Meanwhile(Arc<AtomicBool>, Option<JoinHandle<()>>);

impl Meanwhile {
    fn new(mut act: impl FnMut() + Send + 'static) -> Self {
        let end = Arc::new(AtomicBool::new(false));
        let ended = Arc::clone(&end);
        let thread = std::thread::spawn(move || {
            while !ended.load(Ordering::Relaxed) {
                act();
            }
        });
        Self(end, Some(thread))
    }
}

/// So often a race is run; on a machine that is emulated, as often as a minute lets it.
fn rounds(most: u32) -> impl Iterator<Item = u32> {
    let start = Instant::now();
    (0..most).take_while(move |_| start.elapsed() < Duration::from_secs(60))
}

impl Drop for Meanwhile {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
        self.1.take().unwrap().join().unwrap();
    }
}

/// CVE-2021-30465: two containers share a volume, and another volume is to be mounted in it. One of them
/// changes the place for a link, between the runtime's look at it and its mount(2), which takes a path.
///
/// Ours opens the place once, inside the container's root, and mounts on what is open (step03's sys.rs).
/// And it does so after the pivot, when no path leads to the host any more.
pub fn a_volume_on_a_link_that_changes(_: Who) {
    let host = Host::new();
    let (image, outside) = (host.image("image"), host.directory("outside"));
    let inner = host.directory("inner");
    fs::write(host.path("inner/marker"), "").unwrap();
    // Deterministic for the weak one: the link is there already.
    symlink("/proc/self/fd/9".to_owned() + &outside, host.path("image/target")).unwrap();
    works(in_step1(&[], &["!careless", &image, "volume", "/target", "/usr", "usr"]), "/usr");

    let shared = host.directory("shared");
    host.directory("shared/target");
    symlink(format!("{}{outside}", "../".repeat(20)), host.path("shared/link")).unwrap();
    let (one, other) = (host.path("shared/target"), host.path("shared/link"));
    let swapping = Meanwhile::new(move || {
        let exchange = RenameFlags::RENAME_EXCHANGE;
        renameat2(AT_FDCWD, one.as_str(), AT_FDCWD, other.as_str(), exchange).unwrap();
    });
    let mut mounted = 0;
    for _ in rounds(40) {
        let volumes = [format!("{shared}:/shared"), format!("{inner}:/shared/target")];
        let options = ["--net", "none", "--volume", &volumes[0], "--volume", &volumes[1]];
        let outcome = run(&mut in_final(&options, &["!mounts", "/inner"]), PATIENCE);
        // Where the link leads inside of the container, or at its place; or we refuse.
        let places = ["/shared/target", "/shared/link", &outside];
        let refused = outcome.status == Some(125);
        assert!(refused || places.contains(&outcome.stdout.trim()), "{outcome:?}");
        mounted += usize::from(!refused);
    }
    drop(swapping);
    assert!(mounted > 0, "it was always refused");
    assert_eq!(fs::read_dir(&outside).unwrap().count(), 0, "something was made outside");
}

/// CVE-2025-31133: files are masked with a bind mount of the container's /dev/null. If that is a link by
/// then, what it leads to is mounted over the masked file, and can be written there: core_pattern, say.
/// It takes an image whose /dev leads into a volume, and another container that shares it.
///
/// Ours binds the device that it has made itself, which it has open since (`hide` in step03's rootfs.rs).
pub fn a_mask_that_is_a_link(_: Who) {
    const SETTING: &str = "/proc/sys/net/ipv4/ip_forward";
    let host = Host::new();
    let image = host.image("image");
    symlink(SETTING, host.path("image/null")).unwrap();
    fs::write(host.path("image/masked"), "").unwrap();
    works(in_step1(&[], &["!careless", &image, "mask", "/null", "/masked"]), "it can be written");
    fs::remove_file(host.path("image/null")).unwrap();

    let shared = host.directory("shared");
    host.directory("shared/dev");
    host.directory("image/shared/dev");
    symlink("shared/dev", host.path("image/dev")).unwrap();
    let volume = format!("{shared}:/shared");
    let null = host.path("shared/dev/null");
    let (file, link) = (host.path("shared/file"), host.path("shared/link"));
    let swapping = Meanwhile::new(move || {
        fs::write(&file, "").unwrap();
        fs::rename(&file, &null).unwrap();
        symlink(SETTING, &link).unwrap();
        fs::rename(&link, &null).unwrap();
    });
    let mut ran = 0;
    for _ in rounds(60) {
        for name in ["core", "fd", "stdin", "stdout", "stderr", "ptmx"] {
            let _ = fs::remove_file(host.path(&format!("shared/dev/{name}")));
        }
        let masks = [&["!masks"], &step03_rootfs::MASKED_PATHS[..]].concat();
        // Its input comes from us: /dev/null is not opened, which would be refused more often.
        let options = ["--interactive", "--volume", &volume];
        let outcome = run(&mut in_image(&options, &image, &masks), PATIENCE);
        if outcome.status != Some(125) {
            assert!(outcome.stderr.contains("attack: all of them are null"), "{outcome:?}");
            ran += 1;
        }
    }
    drop(swapping);
    assert!(ran > 0, "it was always refused");
}

/// CVE-2025-52881 and others: what the runtime writes into the container's files goes to /proc, because
/// the image has a link there. Here /etc is /proc/sys/kernel, and the runtime writes /etc/hostname. (As a
/// plain user it may not: that file is the host's root's.)
///
/// Ours replaces the file, and does not open what is there (step03's `Root::write`); and by then
/// /proc/sys is read-only.
pub fn etc_in_the_settings_of_the_kernel(_: Who) {
    let host = Host::new();
    let image = host.image("image");
    symlink("/proc/sys/kernel", host.path("image/etc")).unwrap();
    works(in_step1(&[], &["!careless", &image, "write", "/etc/hostname", "evil"]), "evil");
    let words = [&["run"], &USR[..], &["--net", "none", &image, "true"]].concat();
    let outcome = final_(&words);
    assert_eq!(outcome.status, Some(125), "{outcome:?}");
    assert!(outcome.stderr.contains("cannot write /etc/hostname"), "{outcome:?}");
    assert!(outcome.stderr.contains("Read-only file system"), "{outcome:?}");
}

/// shocker.c (2014): open_by_handle_at(2) opens a file by a number instead of a path, so no root and no
/// mount namespace holds it. The number is easily guessed; here we tell it.
///
/// Ours lacks CAP_DAC_READ_SEARCH, and the seccomp profile does not have the call.
pub fn a_file_by_its_handle(_: Who) {
    let host = Host::new();
    let volume = format!("{}:/volume", host.directory("volume"));
    let attack = ["!handle", "/volume", &handle_of(&host.secret())];
    works(in_step3(&["--volume", &volume], &attack), SECRET);
    fails(in_final(&["--volume", &volume], &attack), "EPERM");
}

/// The file's handle (name_to_handle_at(2)) in hexadecimal digits.
fn handle_of(path: &str) -> String {
    const SPACE: u32 = 128; // MAX_HANDLE_SZ
    let mut bytes = vec![0_u8; 8 + SPACE as usize];
    bytes[..4].copy_from_slice(&SPACE.to_ne_bytes());
    let (path, mut mount) = (std::ffi::CString::new(path).unwrap(), 0_i32);
    let (path, handle, mount) = (path.as_ptr(), bytes.as_mut_ptr(), &raw mut mount);
    // SAFETY: handle is a struct file_handle with that much space, and all outlive the call.
    let result = unsafe {
        libc::syscall(libc::SYS_name_to_handle_at, libc::AT_FDCWD, path, handle, mount, 0)
    };
    nix::errno::Errno::result(result).unwrap();
    bytes.iter().fold(String::new(), |digits, byte| format!("{digits}{byte:02x}"))
}

/// A mount on the lab's host on which devices and set-user-ID programs work, as on a disk.
struct Disk;

impl Disk {
    const PATH: &str = "/run/disk";

    fn new() -> Self {
        fs::create_dir(Self::PATH).unwrap();
        let (tmpfs, none) = (Some("tmpfs"), None::<&str>);
        mount(tmpfs, Self::PATH, tmpfs, MsFlags::empty(), none).unwrap();
        Self
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        umount2(Self::PATH, MntFlags::empty()).unwrap();
        fs::remove_dir(Self::PATH).unwrap();
    }
}

/// Root may make a node for any device (CAP_MKNOD, which docker gives), and the host's disk is only a
/// number. In a user namespace the kernel does not allow it.
///
/// In ours the node can be made, and not opened: all mounts are `nodev` but those of single nodes
/// (step03's devices.rs); and another mount would take CAP_SYS_ADMIN. A node in a volume stays on the
/// host, though, for users of the host who reach the volume: the container's root is the host's.
pub fn a_node_for_the_disk(_: Who) {
    let _disk = Disk::new();
    let open = "the disk is open";
    let device = a_device();
    let attack = |place| {
        let [kind, major, minor] = &device;
        ["!disk", place, kind, major, minor]
    };
    works(in_step1(&[], &attack(Disk::PATH)), open);
    works(in_step3(&[], &attack("/root")), open); // on a mount of its own
    let volume = format!("{}:/disk", Disk::PATH);
    for place in ["/disk", "/root", "/dev"] {
        fails(in_final(&["--volume", &volume], &attack(place)), "open: Permission denied");
    }
}

/// A block device that the host can open; where there is none, the kernel's log.
fn a_device() -> [String; 3] {
    let devices = fs::read_dir("/sys/class/block").into_iter().flatten().filter_map(|entry| {
        let entry = entry.ok()?;
        fs::File::open(Path::new("/dev").join(entry.file_name())).ok()?;
        let numbers = read(entry.path().join("dev"));
        let (major, minor) = numbers.split_once(':')?;
        Some(["block".to_owned(), major.to_owned(), minor.to_owned()])
    });
    devices.min().unwrap_or_else(|| ["character", "1", "11"].map(str::to_owned))
}

/// A program with the set-user-ID bit makes its caller root of the container, whoever he was.
///
/// In ours the bit has no effect, no_new_privs (prctl(2), `no_new_privileges` in security).
pub fn a_set_user_id_program_in_a_volume(_: Who) {
    let _disk = Disk::new();
    let id = format!("{}/id", Disk::PATH);
    fs::copy("/usr/bin/id", &id).unwrap();
    fs::set_permissions(&id, fs::Permissions::from_mode(0o4755)).unwrap();
    let volume = format!("{}:/disk", Disk::PATH);
    let attack = ["!become", "1000", "/disk/id", "-u"];
    works(in_step3(&["--volume", &volume], &attack), "0");
    let ours = run(&mut in_final(&["--volume", &volume], &attack), PATIENCE);
    assert_eq!((ours.status, ours.stdout.as_str()), (Some(0), "1000\n"), "{ours:?}");
}

/// Root of a container leaves a program with the set-user-ID bit in a volume, for a user of the host who
/// reaches it there: inside no exec gains by it, but outside it is root's program.
///
/// With --userns remap the program belongs to an id that is nobody on the host.
pub fn a_set_user_id_program_for_the_host(_: Who) {
    let _ranges =
        Ranges::new("container-workshop:200000:65536\n", "container-workshop:200000:65536\n");
    let _disk = Disk::new();
    fs::set_permissions(Disk::PATH, fs::Permissions::from_mode(0o777)).unwrap();
    let id = format!("{}/id", Disk::PATH);
    let volume = format!("{}:/disk", Disk::PATH);
    for (users, becomes) in [("host", "0\n"), ("remap", "200000\n")] {
        let leave = ["sh", "-c", "cp /usr/bin/id /disk && chmod 4755 /disk/id"];
        let options = ["--rm", "--userns", users, "--net", "none", "--volume", &volume, "host"];
        let left = final_(&[&["run"], &options[..], &leave].concat());
        assert_eq!(left.status, Some(0), "{left:?}");
        let accomplice = run(Command::new(&id).arg("-u").uid(1000), PATIENCE);
        assert_eq!((accomplice.status, &*accomplice.stdout), (Some(0), becomes), "{accomplice:?}");
        fs::remove_file(&id).unwrap();
    }
}
