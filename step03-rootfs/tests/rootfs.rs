//! Step 3 against the real kernel: what a container finds at its `/`, and what it cannot reach.

use std::collections::BTreeSet;
use std::fs;
use std::io::{BufRead as _, BufReader};
use std::os::unix::fs::{MetadataExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use nix::sys::stat::{Mode, umask};
use nix::unistd::mkfifo;
use step03_rootfs::{MASKED_PATHS, Mount};
use workshop::lab::Who;
use workshop::suite::{Outcome, Test, command, link_to_usr, probe_volume, read, run, suite};
use workshop::test;

const BINARY: &str = env!("CARGO_BIN_EXE_step03-rootfs");

static TESTS: &[Test] = &[
    test!(the_image_host_shows_usr_and_nothing_else_of_the_host, [Root, LabRoot, Plain], by_hand),
    test!(what_a_container_writes_stays_in_it, [Root, LabRoot, Plain], by_hand),
    test!(a_directory_is_an_image_and_stays_as_it_is, [Root, LabRoot, Plain], by_hand),
    test!(dev_has_dockers_nodes_and_links, [Root, LabRoot, Plain], by_hand),
    test!(the_nodes_do_what_they_are_for, [Root, LabRoot, Plain], by_hand),
    test!(a_node_made_inside_cannot_be_opened, [Root], by_hand),
    test!(no_mount_has_devices_but_the_nodes_and_devpts, [Root, LabRoot, Plain], by_hand),
    test!(nor_has_one_of_a_volume_also_where_another_covers_it, [Root, LabRoot, Plain]),
    test!(a_device_in_a_volume_cannot_be_opened, [Root, LabRoot, Plain], by_hand),
    test!(settings_of_the_machine_cannot_be_written, [Root, LabRoot, Plain], by_hand),
    test!(masked_paths_are_empty, [Root, LabRoot, Plain], by_hand),
    test!(what_is_shared_with_the_host_is_hidden_all_the_same, [Root, LabRoot, Plain]),
    test!(nothing_of_the_hosts_tree_is_left_mounted, [Root, LabRoot, Plain], by_hand),
    test!(the_host_sees_none_of_the_containers_mounts, [Root, LabRoot], by_hand),
    test!(a_volume_is_the_hosts_own_file_or_directory, [Root, LabRoot, Plain], by_hand),
    test!(a_directory_that_we_may_not_read_can_be_a_volume, [LabRoot, Plain], by_hand),
    test!(a_read_only_volume_has_no_writable_mount_below_it, [Root, LabRoot, Plain], by_hand),
    test!(a_missing_path_is_made_in_the_container_only, [Root, LabRoot, Plain], by_hand),
    test!(links_in_an_image_lead_nowhere_outside, [Root, LabRoot, Plain]),
    test!(links_are_followed_while_the_host_renames_files, [Root, LabRoot, Plain]),
    test!(a_volume_covers_a_fifo_or_a_dangling_link, [Root, LabRoot, Plain]),
    test!(what_is_in_the_way_is_named, [Root, LabRoot, Plain]),
    test!(what_cannot_be_is_refused_with_the_reason, [Root, LabRoot, Plain]),
    test!(a_hidden_proc_or_a_missing_file_system_is_named, [LabRoot]),
];

fn main() -> ExitCode {
    suite(TESTS)
}

fn step03(words: &[&str]) -> Outcome {
    run(&mut command(BINARY, words), Duration::from_secs(60))
}

/// What a shell script prints in a container; it must end well.
fn inside(options: &[&str], script: &str) -> String {
    let outcome = step03(&[options, &["sh", "-ec", script]].concat());
    assert_eq!(outcome.status, Some(0), "{options:?} {script}: {outcome:?}");
    outcome.stdout.trim().to_owned()
}

/// What the command says when it refuses.
fn refusal(words: &[&str]) -> String {
    let outcome = step03(words);
    assert_eq!(outcome.status, Some(125), "{words:?}: {outcome:?}");
    outcome.stderr
}

/// Whether the script fails in a container with this message, of the kernel's.
fn fails_with(options: &[&str], script: &str, message: &str) {
    let outcome = step03(&[options, &["sh", "-ec", script]].concat());
    assert_ne!(outcome.status, Some(0), "{options:?} {script}: {outcome:?}");
    assert!(outcome.stderr.contains(message), "{options:?} {script}: {outcome:?}");
}

/// A directory on the lab's host, below /run, that is gone with the test.
struct Scratch(PathBuf);

impl Scratch {
    fn new() -> Self {
        let path = PathBuf::from(std::env::var_os("XDG_RUNTIME_DIR").unwrap()).join("scratch");
        fs::create_dir(&path).unwrap();
        Self(path)
    }

    fn path(&self, name: &str) -> String {
        self.0.join(name).to_str().unwrap().to_owned()
    }

    fn directory(&self, name: &str) -> String {
        fs::create_dir_all(self.0.join(name)).unwrap();
        self.path(name)
    }

    fn file(&self, name: &str, text: &str) -> String {
        fs::write(self.0.join(name), text).unwrap();
        self.path(name)
    }

    /// A small image: with the host's /usr as a volume, as [`of`] has it, it can run a shell.
    fn image(&self, name: &str) -> String {
        self.directory(&format!("{name}/usr"));
        link_to_usr(&self.0.join(name));
        self.path(name)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        fs::remove_dir_all(&self.0).unwrap();
    }
}

/// The options for a container of this image.
fn of(image: &str) -> [&str; 4] {
    ["--rootfs", image, "--volume", "/usr:/usr:ro"]
}

/// All that ls(1) knows of a directory: names, modes, owners, sizes, times.
fn listing(path: &str) -> String {
    let list = run(Command::new("ls").args(["-lRA", "--full-time", path]), Duration::from_secs(60));
    assert_eq!(list.status, Some(0), "{list:?}");
    list.stdout
}

fn names(directory: &str) -> BTreeSet<String> {
    let name = |entry: std::io::Result<fs::DirEntry>| entry.unwrap().file_name();
    fs::read_dir(directory).unwrap().map(|e| name(e).to_str().unwrap().to_owned()).collect()
}

fn words(text: &str) -> BTreeSet<String> {
    text.split_whitespace().map(str::to_owned).collect()
}

/// A line of /proc/self/mountinfo (proc_pid_mountinfo(5)).
#[derive(Debug)]
struct Mounted {
    device: String,
    point: String,
    options: String,
    kind: String,
}

fn mounts(mountinfo: &str) -> Vec<Mounted> {
    let parse = |line: &str| {
        let (left, right) = line.split_once(" - ").unwrap();
        let [_, _, device, _, point, options, ..] = left.split(' ').collect::<Vec<_>>()[..] else {
            panic!("not a line of mountinfo: {line}")
        };
        let kind = right.split(' ').next().unwrap();
        let [device, point, options, kind] = [device, point, options, kind].map(str::to_owned);
        Mounted { device, point, options, kind }
    };
    mountinfo.lines().map(parse).collect()
}

const NODES: [&str; 6] =
    ["/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom", "/dev/tty"];

fn the_image_host_shows_usr_and_nothing_else_of_the_host(_: Who) {
    let scratch = Scratch::new();
    let marker = scratch.file("marker", "of the host");
    assert_eq!(inside(&["--volume", "/:/host"], &format!("cat /host{marker}")), "of the host");
    fails_with(&[], &format!("cat {marker}"), "No such file or directory");

    let empty = inside(&[], "ls -A /home /mnt /opt /root /run /srv /tmp /var/tmp | grep -v : || :");
    assert_eq!(empty, "");
    assert_eq!(words(&inside(&[], "ls -A /var")), words("run tmp"));
    let mut etc = words("group hosts mtab nsswitch.conf passwd");
    etc.extend(words("alternatives ld.so.cache").intersection(&names("/etc")).cloned());
    assert_eq!(words(&inside(&[], "ls -A /etc")), etc);
    assert_ne!(inside(&[], "cat /etc/passwd"), read("/etc/passwd"));

    let mut root = words("dev etc home mnt opt proc root run srv sys tmp usr var");
    root.extend(words("bin sbin lib lib32 lib64 libx32").intersection(&names("/")).cloned());
    assert_eq!(words(&inside(&[], "ls -A /")), root);
    assert_eq!(words(&inside(&[], "ls -A /usr/bin")), names("/usr/bin"));
    assert_eq!(
        inside(&[], "stat -c %a / /tmp /root /etc | tr '\\n' ' '").trim(),
        "755 1777 700 755"
    );
}

fn what_a_container_writes_stays_in_it(who: Who) {
    let name = "written-by-a-test-of-step03";
    let places = ["/", "/root/", "/usr/", "/etc/", "/tmp/", "/var/", "/usr/bin/"];
    // In a user namespace that has no id for their owner, the host's directories are nobody's.
    let end = if who == Who::Root { places.len() } else { places.len() - 1 };
    let files = places[..end].iter().map(|place| format!("{place}{name}")).collect::<Vec<_>>();
    let list = files.join(" ");
    let written = inside(&[], &format!("for f in {list}; do echo hello > $f; done; cat {list}"));
    assert_eq!(written, ["hello"].repeat(end).join("\n"));
    // Neither the host nor the next container sees any of it.
    for file in &files {
        assert!(!Path::new(file).exists(), "{file}");
    }
    assert_eq!(inside(&[], &format!("ls -d {list} 2> /dev/null || :")), "");
    if who != Who::Root {
        fails_with(&[], &format!("echo x > /usr/bin/{name}"), "Permission denied");
    }
}

fn a_directory_is_an_image_and_stays_as_it_is(_: Who) {
    let scratch = Scratch::new();
    let image = scratch.image("an image: of, sorts"); // characters that overlayfs could split at
    scratch.directory("an image: of, sorts/kept/deep");
    for file in ["one", "two", "kept/three", "kept/deep/four"] {
        scratch.file(&format!("an image: of, sorts/{file}"), file);
    }
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o711);
    fs::set_permissions(&image, mode).unwrap();
    let before = listing(&image);
    let script = "cat one kept/three; rm one; echo more >> two; chmod 700 kept; mv kept/three four
        echo x > kept/deep/four; mkdir new; echo; ls -d one two kept/three four new 2>&1 || :
        cat two; stat -c %a /";
    let seen = inside(&of(&image), script);
    assert!(seen.starts_with("onekept/three\n"), "{seen}");
    assert!(seen.ends_with("four\nnew\ntwo\ntwomore\n711"), "{seen}");
    assert_eq!(listing(&image), before);
    assert_eq!(inside(&of(&image), "cat one two kept/deep/four"), "onetwokept/deep/four");
}

fn dev_has_dockers_nodes_and_links(who: Who) {
    umask(Mode::from_bits_truncate(0o077)); // a caller's umask must not show inside
    let all =
        words("core fd full mqueue null ptmx pts random shm stderr stdin stdout tty urandom zero");
    assert_eq!(words(&inside(&[], "ls -A /dev")), all);
    let list = NODES.join(" ");
    let numbers = inside(&[], &format!("stat -c '%F %t:%T' {list}"));
    let expected = ["1:3", "1:5", "1:7", "1:8", "1:9", "5:0"];
    assert_eq!(numbers, expected.map(|n| format!("character special file {n}")).join("\n"));
    let links = "for l in fd stdin stdout stderr core ptmx; do readlink /dev/$l; done";
    let targets =
        "/proc/self/fd /proc/self/fd/0 /proc/self/fd/1 /proc/self/fd/2 /proc/kcore pts/ptmx";
    assert_eq!(inside(&[], links).replace('\n', " "), targets);
    assert_eq!(
        inside(&[], "stat -c %a /dev /dev/shm /dev/pts/ptmx | tr '\\n' ' '"),
        "755 1777 666"
    );

    if who == Who::Root {
        // Nodes of its own: root in the container may chmod them.
        assert_eq!(inside(&[], &format!("stat -c %a {list} | sort -u")), "666");
        let device = fs::metadata("/dev/null").unwrap().dev().to_string();
        assert_ne!(inside(&[], "stat -c %d /dev/null"), device);
        // In a user namespace they have to be the host's.
        assert_eq!(inside(&["--user"], "stat -c %d /dev/null"), device);
    }
}

fn the_nodes_do_what_they_are_for(_: Who) {
    inside(&[], "echo x > /dev/null; [ -z \"$(cat /dev/null)\" ]");
    assert_eq!(inside(&[], "head -c 4 /dev/zero | od -An -tx1"), "00 00 00 00");
    fails_with(&[], "head -c 1 /dev/zero > /dev/full", "No space left on device");
    assert_eq!(
        inside(&[], "head -c 64 /dev/random | wc -c; head -c 64 /dev/urandom | wc -c"),
        "64\n64"
    );
    // A terminal, or none: but never "permission denied".
    let tty = inside(&[], "(: < /dev/tty) 2>&1 || :");
    assert!(tty.is_empty() || tty.contains("No such device or address"), "{tty}");
    // Terminals of its own, counted from 0, whatever the host has.
    assert_eq!(inside(&[], "exec 3<>/dev/ptmx; echo /dev/pts/*"), "/dev/pts/0 /dev/pts/ptmx");
    assert_eq!(inside(&[], "exec 3<>/dev/ptmx; stat -c %a /dev/pts/0"), "620");
    assert_eq!(
        inside(
            &[],
            "echo a > /dev/stdout; echo b > /dev/fd/1; echo c > /dev/shm/x; cat /dev/shm/x"
        ),
        "a\nb\nc"
    );
}

fn a_node_made_inside_cannot_be_opened(_: Who) {
    for place in ["/x", "/root/x", "/usr/x", "/etc/x", "/tmp/x", "/dev/x", "/dev/shm/x", "/run/x"] {
        // The number of /dev/zero, which could be read; and of the first SCSI disk.
        for node in ["c 1 5", "b 8 0"] {
            let script = format!("mknod {place} {node} || exit 0; head -c 1 {place}");
            fails_with(&[], &script, "Permission denied");
        }
    }
}

fn no_mount_has_devices_but_the_nodes_and_devpts(_: Who) {
    assert_no_devices(&[]);
}

const WITH_DEVICES: [&str; 4] = ["--volume", "/:/host", "--volume", "/dev:/hosts/dev:ro"];

fn nor_has_one_of_a_volume_also_where_another_covers_it(_: Who) {
    assert_no_devices(&WITH_DEVICES);
}

fn assert_no_devices(options: &[&str]) {
    let list = inside(options, "cat /proc/self/mountinfo");
    let with_devices = mounts(&list).into_iter().filter(|m| !m.options.contains("nodev"));
    let with_devices: BTreeSet<_> = with_devices.map(|mount| mount.point).collect();
    // A masked file is /dev/null, which must be readable there, too.
    let mut expected: BTreeSet<_> = NODES.iter().map(|&node| node.to_owned()).collect();
    expected.insert("/dev/pts".to_owned());
    expected.extend(MASKED_PATHS.iter().filter(|p| Path::new(p).is_file()).map(|&p| p.to_owned()));
    assert_eq!(with_devices, expected, "{list}");
}

fn a_device_in_a_volume_cannot_be_opened(_: Who) {
    for device in ["/hosts/dev/zero", "/host/dev/zero"] {
        fails_with(&WITH_DEVICES, &format!("head -c 1 {device}"), "Permission denied");
    }
}

fn settings_of_the_machine_cannot_be_written(who: Who) {
    // Both files belong to the container's own network namespace, so only the mount can forbid it.
    let ours = ["/proc/sys/net/ipv4/ip_forward", "/sys/class/net/lo/mtu"];
    for file in ours {
        fails_with(&[], &format!("cat {file} > /x; cat /x > {file}"), "Read-only file system");
    }
    fails_with(&[], "echo 1 > /sys/made-up", "Read-only file system");
    if who == Who::Root && Path::new("/proc/sysrq-trigger").exists() {
        fails_with(&[], "echo h > /proc/sysrq-trigger", "Read-only file system"); // only shows help
    }
}

fn masked_paths_are_empty(_: Who) {
    assert_masked(&[]);
    assert_ne!(read("/proc/interrupts"), ""); // it could have been empty on the host, too
}

fn assert_masked(options: &[&str]) {
    for path in MASKED_PATHS {
        let Ok(metadata) = fs::metadata(path) else { continue };
        let look = if metadata.is_dir() { "ls -A" } else { "cat" };
        assert_eq!(inside(options, &format!("{look} {path}")), "", "{path}");
    }
}

/// Where the namespace is the host's, so may its file system be.
fn what_is_shared_with_the_host_is_hidden_all_the_same(_: Who) {
    let write = "cat /proc/sys/net/ipv4/ip_forward > /x; cat /x > /proc/sys/net/ipv4/ip_forward";
    fails_with(&["--share", "pid"], write, "Read-only file system");
    fails_with(&["--share", "net"], "echo 1 > /sys/made-up", "Read-only file system");
    assert_masked(&["--share", "pid"]);
}

fn nothing_of_the_hosts_tree_is_left_mounted(who: Who) {
    let scratch = Scratch::new();
    let volume = format!("{}:/volume", scratch.path(""));
    let list = inside(&["--volume", &volume], "cat /proc/self/mountinfo");
    let hosts = mounts(&read("/proc/self/mountinfo"));
    let hosts: BTreeSet<_> = hosts.iter().map(|mount| mount.device.as_str()).collect();
    let of_host = mounts(&list).into_iter().filter(|mount| hosts.contains(mount.device.as_str()));
    let of_host: BTreeSet<_> = of_host.map(|mount| mount.point).collect();

    let mut allowed: BTreeSet<_> = words("/volume /sys/fs/cgroup");
    allowed.extend(["/etc/alternatives", "/etc/ld.so.cache"].map(str::to_owned));
    if who != Who::Root {
        allowed.extend(NODES.iter().chain(&MASKED_PATHS).map(|&path| path.to_owned()));
    }
    assert!(of_host.contains("/volume"), "{list}");
    assert!(of_host.is_subset(&allowed), "{of_host:?} in {list}");
    let from_etc = mounts(&list).into_iter().filter(|mount| mount.point.starts_with("/etc/"));
    assert!(from_etc.into_iter().all(|mount| mount.options.starts_with("ro")), "{list}");

    let kind_at = |point: &str| {
        let at_point = mounts(&list).into_iter().filter(|mount| mount.point == point);
        at_point.map(|mount| mount.kind).collect::<Vec<_>>().join(" ")
    };
    assert_eq!(kind_at("/"), "overlay"); // once: the old root is not below it
    assert_eq!(kind_at("/usr"), "overlay");
    assert_eq!(kind_at("/tmp"), ""); // nor is the place where the overlays were made
}

fn the_host_sees_none_of_the_containers_mounts(_: Who) {
    let none = None::<&str>;
    let set = |propagation| mount(none, "/", none, MsFlags::MS_REC | propagation, none).unwrap();
    set(MsFlags::MS_SHARED); // as systemd leaves it
    let before = read("/proc/self/mountinfo");
    assert!(before.contains("shared:"), "{before}");
    let mut container = command(BINARY, &["sh", "-c", "echo ready; read end"]);
    let mut container = container.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut said = String::new();
    BufReader::new(container.stdout.take().unwrap()).read_line(&mut said).unwrap();
    assert_eq!(said, "ready\n");
    assert_eq!(read("/proc/self/mountinfo"), before);
    drop(container.stdin.take());
    container.wait().unwrap();
    set(MsFlags::MS_PRIVATE);
}

fn a_volume_is_the_hosts_own_file_or_directory(_: Who) {
    let scratch = Scratch::new();
    let (directory, file) = (scratch.directory("directory"), scratch.file("file", "before"));
    scratch.file("directory/there", "yes");
    let volumes = |mode: &str| [format!("{directory}:/v{mode}"), format!("{file}:/f{mode}")];

    let [directory, file] = &volumes("");
    let options = ["--volume", directory, "-v", file];
    let script = "cat /v/there /f; echo after > /f; echo new > /v/new; rm /v/there";
    assert_eq!(inside(&options, script), "yesbefore");
    assert_eq!(read(scratch.path("file")), "after");
    assert_eq!(names(&scratch.path("directory")), words("new"));

    let [directory, file] = &volumes(":ro");
    let options = ["--volume", directory, "-v", file];
    assert_eq!(inside(&options, "cat /v/new /f"), "new\nafter");
    for script in ["echo x > /v/new", "rm /v/new", "mkdir /v/x", "echo x > /f"] {
        fails_with(&options, script, "Read-only file system");
    }

    // A program of the host's runs in its place.
    let probe = probe_volume();
    let words = ["-v", &probe, "/probe", "@fds"];
    let outcome = step03(&words);
    assert_eq!(outcome.status, Some(0), "{outcome:?}");
    // And a path may be relative to where we are.
    let script = "cat /tmp/new /here/file";
    let words = ["-v", "./directory:/tmp", "-v", ".:/here", "sh", "-c", script];
    let outcome = run(command(BINARY, &words).current_dir(&scratch.0), Duration::from_secs(60));
    assert_eq!(outcome.stdout, "new\nafter\n", "{outcome:?}");
}

fn a_directory_that_we_may_not_read_can_be_a_volume(_: Who) {
    let roots = ["/root", "/var/cache/ldconfig", "/etc/ssl/private", "/lost+found"];
    let only_roots = |path: &&str| Path::new(path).is_dir() && fs::read_dir(path).is_err();
    let path = roots.into_iter().find(only_roots).expect("a directory for root alone");
    let volume = format!("{path}:/x");
    assert_eq!(inside(&["-v", &volume], "stat -c %F /x; ls /x || echo no"), "directory\nno");
}

fn a_read_only_volume_has_no_writable_mount_below_it(_: Who) {
    let scratch = Scratch::new(); // on /run, a mount of its own below /
    let path = format!("/host{}", scratch.path("x"));
    fails_with(&["-v", "/:/host:ro"], &format!("echo x > {path}"), "Read-only file system");
    inside(&["-v", "/:/host"], &format!("echo x > {path}"));
    assert_eq!(read(scratch.path("x")), "x");
}

fn a_missing_path_is_made_in_the_container_only(_: Who) {
    umask(Mode::from_bits_truncate(0o077));
    let scratch = Scratch::new();
    let (image, data) = (scratch.image("image"), scratch.directory("data"));
    scratch.file("data/file", "text");
    let before = listing(&image);
    let (directory, file) = (format!("{data}:/a/b/c"), format!("{data}/file:/d/e/f"));
    let volumes = ["-v", &directory, "-v", &file, "--workdir", "/g/h"];
    let options = [&of(&image)[..], &volumes].concat();
    let script = "cat /a/b/c/file /d/e/f; echo; pwd; stat -c %a /a /a/b /d/e /g /g/h | sort -u";
    assert_eq!(inside(&options, script), "texttext\n/g/h\n755");
    assert_eq!(listing(&image), before);
    assert_eq!(inside(&["-w", "/usr/bin"], "pwd"), "/usr/bin");
    assert_eq!(inside(&[], "pwd"), "/");
}

fn links_in_an_image_lead_nowhere_outside(_: Who) {
    let scratch = Scratch::new();
    let (victim, data) = (scratch.directory("victim"), scratch.directory("data"));
    scratch.file("victim/keep", "as it is");
    scratch.file("data/file", "text");
    let (directory, file) = (format!("{data}:/link/new"), format!("{data}/file:/link/new"));
    let cases: [(&str, &[&str]); 10] = [
        ("proc", &[]),
        ("dev", &[]),
        ("sys", &[]),
        ("etc", &[]),
        ("tmp", &[]),
        ("link", &["-v", &directory]),
        ("link", &["-v", &file]),
        ("link/new", &["-v", &directory]),
        ("link/new", &["-v", &file]),
        ("link", &["-w", "/link/new"]),
    ];
    let before = listing(&victim);
    let up = format!("{}{victim}", "../".repeat(9));
    for (target, (link, options)) in [&victim, &up].into_iter().flat_map(|t| cases.map(|c| (t, c)))
    {
        let image = scratch.image("image");
        fs::create_dir_all(Path::new(&image).join(link).parent().unwrap()).unwrap();
        symlink(target, Path::new(&image).join(link)).unwrap();
        let options = [&of(&image)[..], options].concat();
        let run = || {
            step03(&[&options[..], &["sh", "-c", "echo x > /tmp/x; echo x > /etc/x; :"]].concat())
        };
        // The link leads to nowhere in the image: a reason to refuse, or nothing uses it.
        let outcome = run();
        let refused = outcome.status == Some(125) && outcome.stderr.contains(link);
        assert!(refused || outcome.status == Some(0), "{link} {options:?}: {outcome:?}");
        assert_eq!(listing(&victim), before, "{link} {options:?}");
        // In an image that has such a directory the link leads there.
        scratch.directory(&format!("image{victim}"));
        let outcome = run();
        let is_file = outcome.stderr.contains("is a directory"); // -v FILE onto the directory
        assert!(outcome.status == Some(0) || is_file, "{link} {options:?}: {outcome:?}");
        assert_eq!(listing(&victim), before, "{link} {options:?}");
        let seen = match (options.last(), link) {
            (Some(last), "link") if *last == directory => "new/file",
            (Some(last), "link") if *last == file => "new",
            (Some(last), "link/new") if *last == directory => "file",
            _ => ".",
        };
        if seen != "." {
            assert_eq!(inside(&options, &format!("cat {victim}/{seen}")), "text");
        }
        fs::remove_dir_all(&image).unwrap();
    }
    // Nor through one of the links in /proc that lead to an open file, and not along a path.
    let image = scratch.image("image");
    symlink("/proc/self/cwd", Path::new(&image).join("link")).unwrap();
    let why = refusal(&[&of(&image)[..], &["-v", &directory, "true"]].concat());
    assert!(why.contains("cannot find /link") && why.contains("ELOOP"), "{why}");
}

/// openat2(2) gives up (EAGAIN) if a rename anywhere on the machine might have moved a `..`.
fn links_are_followed_while_the_host_renames_files(_: Who) {
    let scratch = Scratch::new();
    let image = scratch.image("image");
    scratch.directory("image/real");
    symlink("..".to_owned() + &"/..".repeat(30) + "/real", Path::new(&image).join("tmp")).unwrap();
    let (one, other) = (scratch.file("one", ""), scratch.path("other"));
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                fs::rename(&one, &other).unwrap();
                fs::rename(&other, &one).unwrap();
            }
        });
        let volume = format!("{image}:/tmp/x");
        let ends: Vec<_> = (0..10)
            .map(|_| step03(&[&of(&image)[..], &["-v", &volume, "true"]].concat()))
            .collect();
        done.store(true, Ordering::Relaxed);
        assert!(ends.iter().all(|outcome| outcome.status == Some(0)), "{ends:?}");
    });
}

fn a_volume_covers_a_fifo_or_a_dangling_link(_: Who) {
    let scratch = Scratch::new();
    let (image, file) = (scratch.image("image"), scratch.file("file", "text"));
    let etc = PathBuf::from(scratch.directory("image/etc"));
    mkfifo(&etc.join("fifo"), Mode::S_IRWXU).unwrap();
    symlink("/nowhere", etc.join("link")).unwrap();
    let before = listing(&image);
    for name in ["fifo", "link"] {
        let volume = format!("{file}:/etc/{name}");
        assert_eq!(
            inside(&[&of(&image)[..], &["-v", &volume]].concat(), &format!("cat /etc/{name}")),
            "text"
        );
    }
    assert_eq!(listing(&image), before);
}

fn what_is_in_the_way_is_named(_: Who) {
    let scratch = Scratch::new();
    scratch.file("data", "");
    let (directory, file) = (scratch.path(""), scratch.path("data"));
    let (onto_file, onto_directory) = (format!("{directory}:/file"), format!("{file}:/usr"));
    let cases: [(&str, &[&str]); 6] = [
        ("/dev", &[]),
        ("/proc", &[]),
        ("/sys", &[]),
        ("/file", &["-v", &onto_file]),
        ("/file", &["-w", "/file"]),
        ("/usr", &["-v", &onto_directory]),
    ];
    for (name, options) in cases {
        let image = scratch.image("image");
        if name != "/usr" {
            scratch.file(&format!("image{name}"), "");
        }
        let why = refusal(&[&of(&image)[..], options, &["true"]].concat());
        assert!(why.contains(name) && why.contains("director"), "{name}: {why}");
        fs::remove_dir_all(&image).unwrap();
    }
}

fn what_cannot_be_is_refused_with_the_reason(_: Who) {
    let scratch = Scratch::new();
    let (here, file) = (scratch.path(""), scratch.file("file", ""));
    let volume = |end: &str| format!("{here}{end}");
    for (words, why) in [
        (["-v", "/not/there:/x"], "cannot take \"/not/there\" from the host: No such file"),
        (["-v", &volume(":x")], "must be an absolute path"),
        (["-v", &volume(":/x/../y")], "must not contain .."),
        (["-v", &volume(":/")], "cannot be mounted on /"),
        (["-v", &volume(":/x:rx")], "ro or rw"),
        (["-v", &volume("")], "SRC:DST"),
        (["-v", &volume(":/x:ro:z")], "SRC:DST"),
        (["-v", "name:/x"], "give a path"),
        (["--rootfs", "/not/there"], "no such image: /not/there"),
        (["--rootfs", &file], "is not a directory"),
        (["-w", "x"], "must be an absolute path"),
        (["-w", "/x/../y"], "must not contain .."),
        (["--share", "mnt"], "leave out --share mnt"),
    ] {
        let said = refusal(&[&words[..], &["true"]].concat());
        assert!(said.contains(why), "{words:?}: {said}");
    }
}

fn a_hidden_proc_or_a_missing_file_system_is_named(_: Who) {
    let error = Mount::new("nosuchfs", "/mnt", "").open().unwrap_err().to_string();
    assert!(error.contains("this kernel does not have that file system"), "{error}");
    unshare(CloneFlags::CLONE_NEWNS).unwrap();
    mount(Some("/dev/null"), "/proc/version", None::<&str>, MsFlags::MS_BIND, None::<&str>)
        .unwrap();
    let why = refusal(&["--user", "true"]);
    assert!(why.contains("the whole of the old one"), "{why}");
    assert!(why.ends_with("\nsee: cargo workshop doctor proc\n"), "{why}");
}
