//! `--userns remap`: a container of root's, whose root is nobody on the host.

use std::fs::{self, File, Permissions};
use std::os::fd::{AsRawFd as _, FromRawFd as _};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt, symlink};
use std::path::Path;
use std::time::Duration;

use nix::errno::Errno;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::unistd::mkdtemp;
use serde_json::{Value, json};
use workshop::ids::Ranges;
use workshop::lab::Who;
use workshop::suite::{command, eventually, get, read, run};

use crate::{BINARY, final_, scratch, script, start, stop};

const REMAP: [&str; 2] = ["--userns", "remap"];
/// Users and groups have ranges of their own, so that one taken for the other is seen.
const UIDS: &str = "ada:100000:65536\ncontainer-workshop:200000:65536\n";
const GIDS: &str = "container-workshop:300000:65536\n";

fn ranges() -> Ranges {
    Ranges::new(UIDS, GIDS)
}

/// `script` in a container with these options more.
fn remapped(options: &[&str], words: &str) -> String {
    let seen = script(&[&REMAP[..], &["--net", "none"], options].concat(), words);
    assert_eq!(seen.status, Some(0), "{options:?}: {seen:?}");
    seen.stdout
}

/// Container `name` as the host's kernel knows its first process.
fn pid(name: &str) -> String {
    let shown = final_(&["inspect", "--format", "{{.State.Pid}}", name]).stdout;
    format!("/proc/{}", shown.trim())
}

/// ioctl_ns(2), NS_GET_USERNS: the number of the user namespace that owns this one.
fn owner(namespace: &str) -> u64 {
    let file = File::open(namespace).unwrap();
    // SAFETY: takes numbers only.
    let fd = unsafe { libc::ioctl(file.as_raw_fd(), 0xb701) };
    Errno::result(fd).unwrap();
    // SAFETY: the call has just made this fd for us.
    unsafe { File::from_raw_fd(fd) }.metadata().unwrap().ino()
}

/// A line of /proc/PID/status.
fn status(process: &str, key: &str) -> String {
    let text = read(format!("{process}/status"));
    let line = text.lines().find_map(|line| line.strip_prefix(&format!("{key}:"))).unwrap();
    line.split_whitespace().collect::<Vec<_>>().join(" ")
}

pub fn root_in_a_remapped_container_is_nobody_on_the_host(_: Who) {
    let _ranges = ranges();
    let words = ["sh", "-c", "echo mine > /root/file; chown 33:44 /root/file; exec sleep 1000"];
    let runtime = start("box", &REMAP, &words);
    let process = pid("box");
    for (file, first) in [("uid_map", "200000"), ("gid_map", "300000")] {
        let map = read(format!("{process}/{file}"));
        assert_eq!(map.split_whitespace().collect::<Vec<_>>(), ["0", first, "65536"]);
    }
    assert_eq!(status(&process, "Uid"), "200000 200000 200000 200000");
    assert_eq!(status(&process, "Gid"), "300000 300000 300000 300000");
    assert_eq!(status(&process, "Groups"), "300000");
    // What it has power over is its own.
    let own = fs::metadata(format!("{process}/ns/user")).unwrap().ino();
    for kind in ["mnt", "uts", "ipc", "pid", "net", "cgroup"] {
        assert_eq!(owner(&format!("{process}/ns/{kind}")), own, "{kind}");
    }
    // Its files: in there its own, on the disk its ids'.
    eventually("the file is there", || process_file(&process) == Some((200_033, 300_044)));
    let look = "id -u; stat -c %u:%g / /usr /bin/sh /etc/hosts /etc/passwd /dev/null /dev/pts/ptmx /root/file";
    let seen = final_(&["exec", "box", "sh", "-c", look]).stdout;
    assert_eq!(seen, format!("0\n{}33:44\n", "0:0\n".repeat(7)));
    let seen = final_(&["exec", "--user", "33:44", "box", "sh", "-c", "id -u; id -g; cat /root/x"]);
    assert_eq!(seen.stdout, "33\n44\n", "{seen:?}");
    assert!(seen.stderr.contains("/root/x: Permission denied"), "{seen:?}");
    // All that there is, is not enough for anything of the host's.
    let all = "grep CapEff /proc/self/status; mknod /disk b 254 0; mount -t ext4 /dev/null /mnt; date -s 0:00";
    let seen = final_(&["exec", "--privileged", "box", "sh", "-c", all]);
    assert!(seen.stdout.starts_with("CapEff:\t000001ffff"), "{seen:?}");
    for refused in
        ["mknod: /disk: Operation not permitted", "mount: /mnt: ", "date: cannot set date"]
    {
        assert!(seen.stderr.contains(refused), "{refused}: {seen:?}");
    }
    stop("box", runtime);
}

/// Whom /root/file belongs to on the disk.
fn process_file(process: &str) -> Option<(u32, u32)> {
    let file = fs::metadata(format!("{process}/root/root/file")).ok()?;
    Some((file.uid(), file.gid()))
}

/// Image and state both, for a kernel whose tmpfs cannot be mounted with other owners.
pub fn an_image_on_disk_is_remapped(_: Who) {
    let _ranges = ranges();
    let disk = mkdtemp("/var/tmp/container-workshop-test-XXXXXX").unwrap();
    let image = disk.join("image");
    fs::create_dir_all(image.join("etc")).unwrap();
    fs::create_dir(image.join("usr")).unwrap();
    fs::write(image.join("etc/old"), "").unwrap();
    for name in ["bin", "lib", "lib64", "sbin"] {
        symlink(format!("usr/{name}"), image.join(name)).unwrap();
    }
    let final_on_disk = |words: &[&str]| {
        let mut command = command(BINARY, words);
        run(command.env("FINAL_ROOT", disk.join("state")), Duration::from_secs(100))
    };
    let look = "cat /proc/self/uid_map; stat -c %u:%g / /etc /etc/old; rm /etc/old; echo > /etc/new; \
                chown 33:44 /etc/new; cat /sys/fs/cgroup/memory.max";
    let options = ["--name", "box", "-m", "64m", "-v", "/usr:/usr:ro", "--rootfs"];
    let image = image.to_str().unwrap();
    let words = [&["run"], &REMAP[..], &options, &[image, "sh", "-c", look]].concat();
    let seen = final_on_disk(&words).stdout;
    let mut seen: Vec<_> = seen.split_whitespace().collect();
    let is_v2 = Path::new("/sys/fs/cgroup/cgroup.controllers").exists();
    assert_eq!(seen.split_off(6), if is_v2 { vec!["67108864"] } else { vec![] });
    assert_eq!(seen, ["0", "200000", "65536", "0:0", "0:0", "0:0"]);
    assert_eq!(final_on_disk(&["diff", "box"]).stdout, "C /etc\nA /etc/new\nD /etc/old\n");

    let id = final_on_disk(&["inspect", "-f", "{{.Id}}", "box"]).stdout;
    let layer = disk.join("state/containers").join(id.trim()).join("layer");
    let new = fs::metadata(layer.join("upper0/etc/new")).unwrap();
    assert_eq!((new.uid(), new.gid()), (200_033, 300_044));
    assert_eq!(final_on_disk(&["rm", "box"]).status, Some(0));
    fs::remove_dir_all(disk).unwrap();
}

pub fn a_remapped_container_is_started_again(_: Who) {
    let held = ranges();
    let words = "rm /etc/group; echo >> /usr/bin/new; chown 5 /etc/passwd; test -e /kept || { echo > /kept; exit; }; \
                 stat -c %u:%g /kept; test ! -e /etc/group";
    let options = [&["run", "--name", "box"], &REMAP[..], &["host", "sh", "-c", words]].concat();
    let ran = final_(&options);
    assert_eq!((ran.status, &*ran.stderr), (Some(0), ""), "{ran:?}");
    let changes =
        "C /etc\nD /etc/group\nC /etc/passwd\nA /kept\nC /usr\nC /usr/bin\nA /usr/bin/new\n";
    assert_eq!(final_(&["diff", "box"]).stdout, changes);
    let again = final_(&["start", "--attach", "box"]);
    assert_eq!((again.status, &*again.stdout), (Some(0), "0:0\n"), "{again:?}");

    let shown: Value = serde_json::from_str(&final_(&["inspect", "box"]).stdout).unwrap();
    assert_eq!(shown[0]["HostConfig"]["UsernsMode"], "remap");
    let id = shown[0]["Id"].as_str().unwrap();
    let config = read(format!("/run/container-workshop/containers/{id}/config.json"));
    let linux = &serde_json::from_str::<Value>(&config).unwrap()["linux"];
    let map = |first: u32| json!([{ "containerID": 0, "hostID": first, "size": 65536 }]);
    assert_eq!((&linux["uidMappings"], &linux["gidMappings"]), (&map(200_000), &map(300_000)));
    assert!(linux["namespaces"].as_array().unwrap().contains(&json!({ "type": "user" })));

    // Meanwhile these ids may be somebody else's.
    drop(held);
    let _others = Ranges::new("container-workshop:400000:65536\n", GIDS);
    let refused = final_(&["start", "box"]);
    assert_eq!(refused.status, Some(1), "{refused:?}");
    assert!(
        refused.stderr.contains("its ids are no longer those of container-workshop"),
        "{refused:?}"
    );
    assert_eq!(final_(&["rm", "box"]).status, Some(0));
}

pub fn options_are_the_same_in_a_remapped_container(_: Who) {
    let _ranges = ranges();
    let look = "id -u; echo out > /dev/stdout";
    assert_eq!(remapped(&["--user", "33:33"], look), "33\nout\n");
    assert_eq!(remapped(&["--group-add", "44", "--init"], "id -G"), "0 44\n");
    // On version 2 its own cgroup is there.
    assert_eq!(remapped(&[], "ls /sys/fs/cgroup > /dev/null"), "");
    let look =
        "touch /x; touch /dev/shm/x && stat -c %u:%g /t /dev/mine && head -c1 /dev/mine | wc -c";
    let options = ["--read-only", "--tmpfs", "/t:uid=5", "--device", "/dev/zero:/dev/mine"];
    assert_eq!(remapped(&options, look), "5:0\n0:0\n1\n");
    assert_eq!(remapped(&["--tty"], "stat -c %u:%g $(tty) /dev/console"), "0:5\r\n0:5\r\n");
    let options = [
        "--ulimit",
        "nofile=99:999",
        "--sysctl",
        "kernel.msgmax=4711",
        "--sysctl",
        "net.ipv4.ip_unprivileged_port_start=7",
    ];
    let look = "ulimit -n; ulimit -Hn; cat /proc/sys/kernel/msgmax /proc/sys/net/ipv4/ip_unprivileged_port_start";
    assert_eq!(remapped(&options, look), "99\n999\n4711\n7\n");
    // What stays the host's, it sees, and may not change.
    let look = "hostname; hostname mine || ls /dev/mqueue || readlink /proc/self/ns/ipc";
    let ipc = fs::read_link("/proc/self/ns/ipc").unwrap();
    let seen = remapped(&["--uts", "host", "--ipc", "host", "--cap-add", "SYS_ADMIN"], look);
    assert_eq!(seen, format!("lab\n{}\n", ipc.display()));
    for (options, what) in [
        (&["--privileged"][..], "--privileged"),
        (&["--net", "host"], "the host's network"),
        (&["--pid", "host"], "the host's processes"),
    ] {
        let refused = script(&[&REMAP[..], options].concat(), "true");
        assert_eq!(refused.status, Some(125), "{refused:?}");
        assert!(refused.stderr.contains("--userns remap and "), "{refused:?}");
        assert!(refused.stderr.contains(what), "{refused:?}");
    }
}

pub fn volumes_of_a_remapped_container_stay_their_owners(_: Who) {
    let _ranges = ranges();
    let volume = format!("{}/volume", scratch());
    for (name, mode) in [("", 0o700), ("/open", 0o777), ("/closed", 0o700)] {
        fs::create_dir(format!("{volume}{name}")).unwrap();
        fs::set_permissions(format!("{volume}{name}"), Permissions::from_mode(mode)).unwrap();
    }
    fs::write(format!("{volume}/closed/file"), "the host's").unwrap();
    fs::set_permissions(&volume, Permissions::from_mode(0o755)).unwrap();
    let look = "stat -c %u:%g /v /v/open; cat /v/closed/file; touch /v/new; touch /v/open/new";
    let seen =
        script(&[&REMAP[..], &["--net", "none", "-v", &format!("{volume}:/v")]].concat(), look);
    assert_eq!((seen.status, &*seen.stdout), (Some(0), "65534:65534\n65534:65534\n"), "{seen:?}");
    assert_eq!(seen.stderr.matches("Permission denied").count(), 2, "{seen:?}");
    let new = fs::metadata(format!("{volume}/open/new")).unwrap();
    assert_eq!((new.uid(), new.gid()), (200_000, 300_000));
    // Who names a directory may reach it, and with it gives only that.
    fs::set_permissions(&volume, Permissions::from_mode(0o700)).unwrap();
    assert_eq!(remapped(&["-v", &format!("{volume}/open:/v")], "ls /v"), "new\n");
    fs::remove_dir_all(volume).unwrap();
}

pub fn a_remapped_container_has_a_network(_: Who) {
    let _ranges = ranges();
    let made = final_(&["network", "create", "n1"]);
    assert_eq!(made.status, Some(0), "{made:?}");
    let volume = workshop::suite::probe_volume();
    let options = [&REMAP[..], &["--net", "n1", "-p", "8080:80", "-v", &volume]].concat();
    let runtime = start("web", &options, &["/probe", "@serve", "0.0.0.0:80"]);
    eventually("it serves", || get("127.0.0.1:8080", "/").contains("hello"));
    let other = script(&[&REMAP[..], &["--net", "n1"]].concat(), "getent hosts web; id -u");
    assert!(other.stdout.contains("web\n0\n"), "{other:?}");
    // One whose root is the host's may share what the other one has, for whom that is not so.
    let shared = script(&["--net", "container:web"], "readlink /proc/self/ns/net");
    let net = fs::read_link(format!("{}/ns/net", pid("web"))).unwrap();
    assert_eq!(shared.stdout.trim(), net.display().to_string(), "{shared:?}");
    for option in ["--net", "--ipc", "--pid"] {
        let refused = script(&[&REMAP[..], &[option, "container:web"]].concat(), "true");
        assert_eq!(refused.status, Some(125), "{refused:?}");
        assert!(refused.stderr.contains("over another container's namespaces"), "{refused:?}");
    }
    stop("web", runtime);
    assert_eq!(final_(&["network", "rm", "n1"]).status, Some(0));
}

/// An overlay cannot be mounted with other owners, and so says any machine that is a container itself.
pub fn a_file_system_that_keeps_its_owners_is_named(_: Who) {
    let _ranges = ranges();
    let image = format!("{}/image", scratch());
    let (lower, upper, work) =
        (image.clone() + "/lower", image.clone() + "/upper", image.clone() + "/work");
    for directory in [&image, &lower, &upper, &work] {
        fs::create_dir(directory).unwrap();
    }
    let options = format!("lowerdir={lower},upperdir={upper},workdir={work}");
    let overlay = Some("overlay");
    mount(overlay, &*lower, overlay, MsFlags::empty(), Some(&*options)).unwrap();
    let refused = final_(&[&["run", "--rm"], &REMAP[..], &["--rootfs", &lower, "true"]].concat());
    assert_eq!(refused.status, Some(125), "{refused:?}");
    let named = format!("cannot show {lower} with other owners");
    assert!(refused.stderr.contains(&named), "{refused:?}");
    assert!(refused.stderr.contains("has no ID-mapped mounts on this kernel"), "{refused:?}");
    umount2(&*lower, MntFlags::empty()).unwrap();
    fs::remove_dir_all(image).unwrap();
}

pub fn a_range_that_is_not_fit_is_refused(_: Who) {
    let good = "container-workshop:200000:65536\n";
    for (uids, gids, named) in [
        ("", "", "add to /etc/subuid and to /etc/subgid the line container-workshop:100000:65536"),
        ("ada:100000:65536\n", good, "/etc/subuid has no ids for containers"),
        (
            good,
            "ada:300000:65536",
            "/etc/subgid has no ids for containers; add to /etc/subuid and to /etc/subgid the line container-workshop:100000:65536",
        ),
        ("container-workshop:200000\n", good, "is not NAME:FIRST:COUNT"),
        (
            good,
            "container-workshop:-5:65536\n",
            "/etc/subgid: \"container-workshop:-5:65536\" is not",
        ),
        ("container-workshop:4294967000:65536", good, "is not NAME:FIRST:COUNT"),
        ("container-workshop:200000:65535\n", good, "has 65535 ids, and a container has 65536"),
        ("container-workshop:0:65536\n", good, "begins below 65536"),
        ("container-workshop:1000:100000\n", good, "begins below 65536"),
        (
            "ada:200000:65536\ncontainer-workshop:265535:65536\n",
            good,
            "\"ada:200000:65536\" overlap",
        ),
        (good, "container-workshop:200000:65536\nada:265535:1", "\"ada:265535:1\" overlap"),
    ] {
        let _ranges = Ranges::new(uids, gids);
        let refused = script(&REMAP, "true");
        assert_eq!((refused.status, &*refused.stdout), (Some(125), ""), "{refused:?}");
        assert!(refused.stderr.contains("--userns remap cannot be had"), "{refused:?}");
        assert!(refused.stderr.contains(named), "{named}: {refused:?}");
    }
    assert_eq!(final_(&["ps", "--all", "--quiet"]).stdout, "");
}

pub fn only_the_hosts_root_has_ids_to_give(who: Who) {
    let refused = script(&REMAP, "true");
    assert_eq!(refused.status, Some(125), "{refused:?}");
    let why = if who == Who::Plain {
        "a plain user's container has a user namespace in any case"
    } else {
        "it takes root of the host, and this is one in a user namespace"
    };
    assert!(refused.stderr.contains(why), "{refused:?}");
}
