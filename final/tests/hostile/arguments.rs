//! Nonsense on the command line.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use nix::sys::stat::Mode;
use nix::unistd::mkfifo;
use workshop::lab::Who;
use workshop::suite::{command, eventually, finish};

use crate::{BINARY, check, final_, outcome, scratch};

/// Erases the screen, in both of the ways that a terminal knows, and forges a line.
const ESCAPES: &str = "a\x1b[2J\u{9b}2J\nerror: forged";

fn long() -> String {
    "x".repeat(5000)
}

/// Runs containers that cannot be.
fn refuse(table: &[(&[&str], &[&str])]) {
    for (words, named) in table {
        check(words, &final_(&[&["run", "--rm"], *words].concat()), 125, named);
    }
}

pub fn nonsense_as_a_size_or_name_is_named(_: Who) {
    let (long, escapes) = (&*long(), ESCAPES);
    let many_cpus = &*format!("0{}", ",0-65535".repeat(5000));
    refuse(&[
        // sizes
        (&["--memory", "0"][..], &["0 bytes", "6m"][..]),
        (&["--memory", ""], &["--memory", "size"]),
        (&["--memory", "-1"], &["\"-1\" is not a size"]),
        (&["--memory", "12X"], &["\"12X\" is not a size"]),
        (&["--memory", "1e9"], &["\"1e9\" is not a size"]),
        (&["--memory", " 64m"], &["\" 64m\" is not a size"]),
        (&["--memory", "18446744073709551615"], &["too much"]),
        (&["--memory", "18446744073709551616"], &["18446744073709551616"]),
        (&["--memory", "99999999999g"], &["too much"]),
        (&["--memory", long], &["is not a size", "xxx\u{2026}"]),
        (&["--memory", escapes], &["is not a size", r"\u{1b}[2J"]),
        (&["--memory"], &["--memory", "value is required"]),
        (&["--memory-swap", "64m"], &["--memory"]),
        (&["--memory-swap", "32m", "--memory", "64m"], &["no less than --memory"]),
        (&["--memory-swap", "-2", "--memory", "64m"], &["\"-2\" is not a size"]),
        (&["--memory-reservation", "lots"], &["\"lots\" is not a size"]),
        (&["--memory-reservation", "65m", "--memory", "64m"], &["no more than that"]),
        (&["--cpu-shares", "1"], &["--cpu-shares", "262144"]),
        (&["-c", "262145"], &["--cpu-shares", "262144"]),
        (&["--cpu-quota", "-1"], &["too little"]),
        (&["--cpu-quota", "50000", "--cpus", "1"], &["--cpus", "--cpu-quota"]),
        (&["--cpu-quota", "50000", "--cpu-period", "10"], &["period has 1000"]),
        (&["--cpu-period", "10000"], &["--cpu-quota"]),
        (&["--cpus", "0"], &["0 processors", "0.01"]),
        (&["--cpus", "-1"], &["-1 processors"]),
        (&["--cpus", "1e999"], &["1e999 processors"]),
        (&["--cpus", "inf"], &["inf processors"]),
        (&["--cpus", ""], &["not a number"]),
        (&["--cpus", escapes], &["not a number"]),
        (&["--pids-limit", "0"], &["--pids-limit", "4194304"]),
        (&["--pids-limit", "-1"], &["--pids-limit", "-1"]),
        (&["--pids-limit", "4194305"], &["--pids-limit", "4194304"]),
        (&["--pids-limit", "18446744073709551616"], &["--pids-limit"]),
        (&["--cpuset-cpus", "0,"], &["\"0,\" is not a list"]),
        (&["--cpuset-cpus", "1-0"], &["\"1-0\" is not a list"]),
        (&["--cpuset-cpus", "65536"], &["is not a list"]),
        (&["--cpuset-cpus", many_cpus], &["this host has"]),
        // names
        (&["--name", ""], &["a container's name"]),
        (&["--name", "a/b"], &["a/b"]),
        (&["--name", "../../etc"], &["../../etc"]),
        (&["--name", "-x"], &["-x"]),
        (&["--name=-x"], &["-x"]),
        (&["--name", long], &["128"]),
        (&["--name", escapes], &["a container's name", r"\u{9b}2J", r"\n"]),
        (&["--hostname", &long[..65]], &["64"]),
        (&["--hostname", "a b"], &["host name"]),
        (&["--hostname", ""], &["host name"]),
        (&["--hostname", escapes], &["host name"]),
        // namespaces of others
        (&["--pid", ""], &["host or container:NAME"]),
        (&["--pid", "moon"], &["--pid", "host or container:NAME"]),
        (&["--ipc", "container"], &["host or container:NAME"]),
        (&["--ipc", "container:"], &["no such container"]),
        (&["--uts", "container:no-such"], &["no such container: no-such"]),
        (&["--pid", &format!("container:{escapes}")], &["no such container", r"\u{1b}[2J"]),
        (&["--userns", "moon"], &["it is host"]),
        (&["--uts", "host", "--hostname", "box"], &["--hostname", "--uts"]),
        // networks
        (&["--net", ""], &["--net", "bridge"]),
        (&["--net", escapes], &["--net", "bridge"]),
        (&["--net", "no/such"], &["--net", "a name"]),
        (&["--net", "container:no-such"], &["no such container: no-such"]),
        (&["--net", "container:"], &["no such container"]),
        (&["--net", "none", "--ip", "10.77.0.2"], &["--ip needs"]),
        (&["--network-alias", "a b"], &["host name"]),
        (&["--bridge", ""], &["bridge's name"]),
        (&["--bridge", "sixteen-letters-"], &["15 letters"]),
        (&["--bridge", "../../x"], &["bridge's name"]),
        (&["--bridge", "all"], &["all"]),
        (&["--subnet", "10.0.0.0"], &["ADDRESS/PREFIX"]),
        (&["--subnet", "10.0.0.0/33"], &["/33"]),
        (&["--subnet", "10.0.0.0/-1"], &["-1"]),
        (&["--subnet", "300.0.0.0/24"], &["300.0.0.0"]),
        (&["--subnet", "fd00::/64"], &["IPv4"]),
        (&["--subnet", escapes], &["ADDRESS/PREFIX"]),
        (&["--ip", "10.77.0"], &["10.77.0"]),
        (&["--publish", ""], &["\"\" is not a port"]),
        (&["--publish", "0:80"], &["\"0\" is not a port"]),
        (&["--publish", "80:65536"], &["\"65536\" is not a port"]),
        (&["--publish", "80:80:80"], &["\"80\" is not an IPv4"]),
        (&["--publish", "80:80/sctp"], &["sctp"]),
        (&["--publish", "8010-8000:80"], &["\"8010-8000\" is not a port"]),
        (&["--publish", "8000-8010:80-81"], &["8000-8010 and 80-81 are not as many ports"]),
        (&["--publish", "80-"], &["\"80-\" is not a port"]),
        (&["--publish", "1-70000"], &["\"1-70000\" is not a port"]),
        (&["--expose", "no"], &["\"no\" is not a port"]),
        (&["--expose", "127.0.0.1:80"], &["\"127.0.0.1:80\" is not a port"]),
        (&["-P", "--net", "none"], &["--net bridge"]),
        (&["--publish", escapes], &["is not a port", r"\u{9b}2J\nerror"]),
        (&["--publish", "80:80", "--net", "none"], &["--net bridge"]),
    ]);
}

pub fn nonsense_as_a_file_or_flag_is_named(_: Who) {
    let (long, escapes) = (&*long(), ESCAPES);
    let long_path = &*format!("/{long}");
    let dots = &*format!("{}etc/passwd", "../".repeat(100));
    let fifo = &*format!("{}/fifo", scratch());
    mkfifo(fifo, Mode::S_IRWXU).unwrap();
    refuse(&[
        // files
        (&["--volume", ""], &["SRC:DST"]),
        (&["--volume", "/usr"], &["SRC:DST"]),
        (&["--volume", "/usr:/a:/b:/c"], &["SRC:DST"]),
        (&["--volume", "/usr:/x:rx"], &["\"rx\""]),
        (&["--volume", "name:/x"], &["\"name\"", "path"]),
        (&["--volume", "/usr:x"], &["\"x\"", "absolute"]),
        (&["--volume", "/usr:/x/../.."], &[".."]),
        (&["--volume", "/usr:/."], &["on /"]),
        (&["--volume", "/no-such:/x"], &["/no-such", "No such file"]),
        (&["--volume", "/etc/passwd/x:/x"], &["Not a directory"]),
        (&["--volume", "/\x1b[2J\nx:/x"], &[r"\u{1b}[2J"]),
        (&["--volume", &format!("{long_path}:/x")], &["name too long"]),
        (&["--workdir", "x"], &["absolute"]),
        (&["--workdir", ""], &["absolute"]),
        (&["--workdir", "/x/.."], &[".."]),
        (&["--workdir", "/etc/passwd"], &["/etc/passwd is not a directory"]),
        (&["--workdir", long_path], &["too long"]),
        (&["--env", ""], &["needs a name"]),
        (&["--env", "=x"], &["needs a name"]),
        // images
        (&["no-such-image"], &["no-such-image"]),
        (&[""], &["no such image"]),
        (&["/etc/passwd"], &["/etc/passwd is not a directory"]),
        (&[fifo], &["/fifo is not a directory"]),
        (&["/dev/null"], &["/dev/null is not a directory"]),
        (&[dots], &["is not a directory"]),
        (&[long_path], &["name too long"]),
        (&[escapes], &["no such image", r"\u{1b}[2J\u{9b}2J\nerror: forged"]),
        // flags
        (&["--no-such-flag"], &["--no-such-flag"]),
        (&["--no-such\n"], &[r"--no-such\n"]),
        (&[&format!("--{long}")], &["xxx\u{2026}"]),
        (&["--detach=yes"], &["--detach"]),
        (&["--rm", "host"], &["--rm", "cannot be used multiple times"]),
        (&["--gpus", "all"], &["--gpus"]),
        (&["-t", "-i"], &["not a terminal"]),
    ]);
    fs::remove_file(fifo).unwrap();
}

pub fn nonsense_as_a_mount_or_right_is_named(_: Who) {
    let (long, escapes) = (&*long(), ESCAPES);
    refuse(&[
        // users
        (&["--user", ""][..], &["UID[:GID]"][..]),
        (&["--user", "1000:"], &["UID[:GID]"]),
        (&["--user", "-1"], &["2147483647"]),
        (&["--user", "4294967295"], &["2147483647"]),
        (&["--user", "0:99999999999999999999999"], &["2147483647"]),
        (&["--user", "a:b:c"], &["\"b:c\" is no name"]),
        (&["--user", "no-such"], &["no user no-such in /etc/passwd of the container"]),
        (&["--user", long], &["no user xxx"]),
        (&["--user", escapes], &["is no name", r"\u{1b}[2J\u{9b}2J\nerror"]),
        (&["--group-add", "a b"], &["\"a b\" is no name"]),
        (&["--group-add", "no-such"], &["no group no-such"]),
        // mounts
        (&["--volume", "/usr:/x:z"], &["z: containers here have no SELinux labels"]),
        (&["--volume", "/usr:/x:ro,shared"], &["shared: a container's mounts are private"]),
        (&["--mount", ""], &["\"\" is not known here"]),
        (&["--mount", "target=/x"], &["named volumes"]),
        (&["--mount", "type=bind,target=/x"], &["source=PATH"]),
        (&["--mount", "type=bind,source=/usr"], &["target=PATH"]),
        (&["--mount", "type=bind,source=usr,target=/x"], &["absolute"]),
        (&["--mount", "type=bind,source=/no-such,target=/x"], &["/no-such", "No such file"]),
        (&["--mount", "type=bind,source=/usr,target=x"], &["absolute"]),
        (&["--mount", "type=bind,source=/usr,target=/x,bind-propagation=shared"], &["private"]),
        (&["--mount", "type=tmpfs,target=/x,tmpfs-size=big"], &["\"big\" is not a size"]),
        (&["--mount", "type=tmpfs,target=/x,tmpfs-mode=9"], &["octal"]),
        (&["--mount", "type=tmpfs,target=/x,source=/usr"], &["no source"]),
        (&["--mount", "type=npipe,target=/x"], &["\"npipe\""]),
        (&["--mount", &format!("type=bind,{escapes}")], &["is not known", r"\u{1b}[2J"]),
        (&["--tmpfs", ""], &["absolute"]),
        (&["--tmpfs", "/"], &["on /"]),
        (&["--tmpfs", "/x:dev"], &["--device"]),
        (&["--tmpfs", "/x:moon=1"], &["\"moon=1\""]),
        (&["--tmpfs", "/x:size=moon"], &["cannot mount tmpfs on /x"]),
        (&["--tmpfs", "/x", "--tmpfs", "/x/"], &["two mounts", "/x"]),
        (&["--shm-size", "0"], &["no limit"]),
        (&["--shm-size", "-1"], &["\"-1\" is not a size"]),
        (&["--shm-size", "1m", "--ipc", "host"], &["--shm-size"]),
        (&["--device", ""], &["no device"]),
        (&["--device", "/no/such"], &["/no/such"]),
        (&["--device", "/etc/passwd"], &["is not a device"]),
        (&["--device", "/dev/null:/x:r"], &["devices cgroup"]),
        (&["--device", "/dev/null:/x:rwx"], &["HOST[:CONTAINER[:rwm]]"]),
        (&["--device", "/dev/null:x"], &["absolute"]),
        (&["--rootfs", "no-such"], &["no-such"]),
        // words
        (&["--env-file", "/no/such"], &["--env-file", "cannot read it"]),
        (&["--env-file", "/"], &["cannot read it"]),
        (&["--entrypoint", "", "host"], &["COMMAND is needed"]),
        (&["--add-host", "db"], &["NAME:IP"]),
        (&["--add-host", "db:no-ip"], &["\"no-ip\""]),
        (&["--add-host", "d b:192.0.2.1"], &["host name"]),
        (&["--add-host", "db:host-gateway", "--net", "none"], &["host-gateway"]),
        (&["--dns", "server"], &["--dns", "server"]),
        (&["--dns-search", "a b"], &["\"a b\" is not a domain"]),
        (&["--dns-option", escapes], &["no option of resolv.conf"]),
        (&["--sysctl", "net.x"], &["NAME=VALUE"]),
        (&["--sysctl", "net/../../x=1"], &["is not the name of a setting"]),
        (&["--sysctl", "kernel.panic=1"], &["it is no namespace's"]),
        // rights
        (&["--cap-add", ""], &["--cap-add", "no capability"]),
        (&["--cap-add", "CAP_MOON"], &["\"CAP_MOON\""]),
        (&["--cap-drop", escapes], &["no capability", r"\u{1b}[2J"]),
        (&["--security-opt", ""], &["--security-opt", "seccomp=FILE"]),
        (&["--security-opt", "no-new-privileges=maybe"], &["no-new-privileges[=false]"]),
        (&["--security-opt", "seccomp="], &["seccomp=FILE"]),
        (&["--security-opt", "seccomp=/no/such"], &["/no/such", "No such file"]),
        (&["--security-opt", "apparmor=docker-default"], &["apparmor is not there"]),
        (&["--security-opt", "label=disable"], &["label is not there"]),
        (&["--ulimit", ""], &["NAME=SOFT"]),
        (&["--ulimit", "moons=5"], &["\"moons\"", "nofile"]),
        (&["--ulimit", "nofile=6:5"], &["soft limit 6"]),
        (&["--ulimit", "nofile=99999999999999999999999"], &["99999999999999999999999"]),
        (&["--ulimit", escapes], &["NAME=SOFT"]),
        (&["--oom-score-adj", "1001"], &["--oom-score-adj", "1000"]),
        (&["--oom-score-adj", "-x"], &["-x"]),
    ]);
}

pub fn nonsense_for_a_bridge_is_named(_: Who) {
    refuse(&[
        (&["--bridge", "lo"][..], &["lo", "not ours", "--bridge"][..]),
        (&["--net", "bridge", "--network-alias", "web"], &["--network-alias", "network create"]),
        (&["--net", "no-such"], &["no such network: no-such", "network create"]),
        (&["--subnet", "127.0.0.0/8"], &["--subnet", "127.0.0.0/8"]),
        (&["--subnet", "0.0.0.0/8"], &["--subnet", "0.0.0.0/8"]),
        (&["--subnet", "224.0.0.0/24"], &["--subnet", "224.0.0.0/24"]),
        (&["--subnet", "255.255.255.0/24"], &["--subnet", "255.255.255.0/24"]),
        (&["--ip", "10.77.0.1"], &["10.77.0.1", "bridge's"]),
        (&["--ip", "10.77.0.255"], &["10.77.0.255"]),
        (&["--ip", "0.0.0.0"], &["0.0.0.0"]),
        (&["--ip", "192.0.2.1"], &["192.0.2.1", "10.77.0.0/24"]),
        (&["--publish", "80:80", "--publish", "80:81"], &["80/tcp is published twice"]),
        (&["--publish", "192.0.2.9:80:80"], &["192.0.2.9 is not an address"]),
    ]);
}

pub fn nonsense_for_the_steps_is_named(_: Who) {
    let (long, escapes) = (&*long(), ESCAPES);
    let table = [
        (1, &["--hostname", long][..], &["64"][..]),
        (1, &["--hostname", escapes], &["host name"]),
        (1, &["--share", escapes], &["--share", r"\u{9b}2J\nerror"]),
        (1, &[&format!("--{long}")], &["xxx\u{2026}"]),
        (2, &["--memory", "-1"], &["\"-1\" is not a size"]),
        (2, &["--memory", "99999999999g"], &["too much"]),
        (2, &["--cpus", "1e999"], &["1e999"]),
        (2, &["--pids", "4194305"], &["--pids"]),
        (2, &["--cpuset", escapes], &["is not a list"]),
        (3, &["--rootfs", "/etc/passwd"], &["/etc/passwd is not a directory"]),
        (3, &["--rootfs", escapes], &["no such image", r"\u{1b}[2J"]),
        (3, &["--volume", "/usr:x"], &["absolute"]),
        (3, &["--workdir", "/x/.."], &[".."]),
        (4, &["--subnet", "10.0.0.0/33"], &["/33"]),
        (4, &["--bridge", "all"], &["all"]),
        (4, &["--ip", long], &["--ip"]),
        (5, &["--publish", "80:80/sctp"], &["sctp"]),
    ];
    let crates = ["namespaces", "cgroups", "rootfs", "bridge-veth", "nat"];
    let build = Path::new(BINARY).parent().unwrap();
    for (first, words, named) in table {
        for (number, name) in (1..).zip(crates).skip(first - 1) {
            let step = build.join(format!("step0{number}-{name}"));
            let refused = outcome(&mut command(step.to_str().unwrap(), words));
            check(&(number, words), &refused, 125, named);
        }
    }
}

pub fn nonsense_for_the_other_verbs_is_named(_: Who) {
    let (long, escapes) = (&*long(), ESCAPES);
    let mut runtime = command(BINARY, &["run", "--rm", "--name", "box", "host", "sleep", "1000"])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    eventually("box runs", || final_(&["exec", "box", "true"]).status == Some(0));
    for (words, status, named) in [
        (&[][..], 125, &["Usage", "run"][..]),
        (&["rnu"], 125, &["rnu"]),
        (&["a\x1b[2J"], 125, &["'a'"]), // clap leaves out colours, for which it takes that
        (&[long], 125, &["xxx\u{2026}"]),
        (&["exec"], 125, &["CONTAINER"]),
        (&["exec", "box"], 125, &["COMMAND"]),
        (&["exec", "no-such", "true"], 125, &["no such container: no-such"]),
        (&["exec", "", "true"], 125, &["no such container"]),
        (&["exec", escapes, "true"], 125, &["no such container", r"\u{1b}[2J\u{9b}2J\nerror"]),
        (&["exec", long, "true"], 125, &["no such container", "xxx\u{2026}"]),
        (&["exec", "../containers", "true"], 125, &["no such container"]),
        (&["exec", "-w", "/no-such", "box", "true"], 125, &["/no-such"]),
        (&["exec", "-w", "x", "box", "true"], 125, &["absolute"]),
        (&["exec", "-e", "=x", "box", "true"], 125, &["needs a name"]),
        (&["exec", "-u", "no-such", "box", "true"], 125, &["no user no-such"]),
        (&["exec", "-u", "4294967295", "box", "true"], 125, &["2147483647"]),
        (&["exec", "-t", "-i", "box", "true"], 125, &["not a terminal"]),
        (&["exec", "box", ""], 127, &["an empty name"]),
        (&["exec", "box", long], 126, &["xxx\u{2026}", "name too long"]),
        (&["exec", "box", "\x1b[2J"], 127, &[r"\u{1b}[2J"]),
        (&["exec", "box", "/etc/passwd"], 126, &["/etc/passwd"]),
        (&["ps", "box"], 125, &["box"]),
        (&["kill"], 125, &["CONTAINER"]),
        (&["kill", "no-such"], 1, &["no such container: no-such"]),
        (&["kill", escapes], 1, &["no such container", r"\u{1b}[2J"]),
        (&["kill", "-s", "NONSENSE", "box"], 125, &["NONSENSE"]),
        (&["kill", "-s", "", "box"], 125, &["signal"]),
        (&["kill", "-s", "0", "box"], 125, &["0"]),
        (&["kill", "-s", "-9", "box"], 125, &["-9"]),
        (&["kill", "-s", "99", "box"], 125, &["99"]),
        (&["kill", "-s", "4294967305", "box"], 125, &["4294967305"]),
        (&["kill", "-s", escapes, "box"], 125, &[r"\u{9b}2J\nerror"]),
        (&["start"], 125, &["CONTAINER"]),
        (&["start", "no-such"], 1, &["no such container: no-such"]),
        (&["start", "-a", "no-such"], 125, &["no such container: no-such"]),
        (&["start", "-a", "box", "box"], 125, &["one container at a time"]),
        (&["attach", escapes], 1, &["no such container", r"\u{1b}[2J"]),
        (&["logs", "--since", escapes, "box"], 125, &[r"\u{9b}2J\nerror"]),
        (&["logs", "--until", "1e999", "box"], 125, &["1e999"]),
        (&["logs", "--until", "-1", "box"], 125, &["-1"]),
        (&["stop", "-t", "-2", "box"], 125, &["-2"]),
        (&["stop", "-t", "99999999999", "box"], 125, &["99999999999"]),
        (&["stop", "-s", "NONSENSE", "box"], 125, &["NONSENSE"]),
        (&["restart", "box"], 1, &["--rm"]),
        (&["wait", ""], 1, &["no such container"]),
        (&["pause", long], 1, &["no such container", "xxx\u{2026}"]),
        (&["unpause", "no-such"], 1, &["no such container: no-such"]),
        (&["rm"], 125, &["CONTAINER"]),
        (&["rm", "box"], 1, &["box is running", "-f"]),
        (&["rm", ""], 1, &["no such container"]),
        (&["rm", "-f", "no-such"], 1, &["no such container: no-such"]),
        (&["rm", "-f", "/"], 1, &["no such container"]),
        (&["gc", "now"], 125, &["now"]),
        (&["inspect", ""], 1, &["no such object"]),
        (&["inspect", escapes], 1, &["no such object", r"\u{1b}[2J"]),
        (&["inspect", "../x"], 1, &["no such object: ../x"]),
        (&["inspect", "--format", escapes, "x"], 125, &["{{.FIELD.FIELD}}"]),
        (&["ps", "--format", "{{"], 125, &["without its }}"]),
        (&["ps", "--format", "{{range .ID}}"], 125, &["without its {{end}}"]),
        (&["ps", "--format", "{{range .ID}}{{end}}"], 1, &["no list"]),
        (&["ps", "--filter", "name"], 125, &["KEY=VALUE"]),
        (&["ps", "--filter", "exited=-1"], 125, &["0 to 255"]),
        (&["port", ""], 1, &["no such container"]),
        (&["port", "x", "0"], 125, &["is not a port"]),
        (&["info", "now"], 125, &["now"]),
        (&["version", "-f", "table {{.Client}}"], 125, &["a table is for lists"]),
        (&["network"], 125, &["create", "prune"]),
        (&["network", "create"], 125, &["NAME"]),
        (&["network", "create", ""], 125, &["a network's name"]),
        (&["network", "create", "host"], 125, &["is not bridge, host"]),
        (&["network", "create", "../x"], 125, &["a network's name"]),
        (&["network", "create", escapes], 125, &["a network's name", r"\u{9b}2J\nerror"]),
        (&["network", "create", long], 125, &["128"]),
        (&["network", "create", "--subnet", "10.0.0.1/24", "x"], 125, &["10.0.0.0/24"]),
        (&["network", "create", "--subnet", "127.0.0.0/8", "x"], 125, &["not for hosts"]),
        (&["network", "create", "--ipv6", "--subnet", "fe80::/64", "x"], 125, &["not for hosts"]),
        (&["network", "create", "--ipv6", "--subnet", "fd00::/8", "x"], 125, &["/16 to /104"]),
        (&["network", "create", "--ipv6", "--subnet", "fd00::1/64", "x"], 125, &["fd00::/64"]),
        (&["network", "create", "--ipv6", "--subnet", ":", "x"], 125, &["ADDRESS/PREFIX"]),
        (&["network", "create", "--driver", "macvlan", "x"], 125, &["--driver"]),
        (&["network", "ls", "--format", "yaml"], 125, &["yaml", "json"]),
        (&["network", "inspect", ""], 1, &["no such network"]),
        (&["network", "inspect", "../containers/x"], 1, &["no such network"]),
        (&["network", "rm", "none"], 1, &["always there"]),
        (&["network", "rm", escapes], 1, &["no such network", r"\u{1b}[2J"]),
    ] {
        check(&words, &final_(words), status, named);
    }
    assert_eq!(runtime.try_wait().unwrap(), None, "nonsense ended a container");
    assert_eq!(final_(&["kill", "box"]).status, Some(0));
    assert_eq!(finish(runtime, Duration::from_secs(60)).status, Some(137));
}

pub fn programs_that_cannot_run_are_126_or_127(_: Who) {
    let long = &*long();
    let programs = format!("{}/programs", scratch());
    let volume = &*format!("{programs}:/p:ro");
    fs::create_dir(&programs).unwrap();
    let make = |name: &str, bytes: &[u8], mode| {
        let path = Path::new(&programs).join(name);
        fs::write(&path, bytes).unwrap();
        fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(mode)).unwrap();
    };
    make("plain", b"", 0o644);
    make("orphan", b"#!/no/such/interpreter\n", 0o755);
    make("loop", b"#!/p/loop\n", 0o755);
    make("elf", b"\x7fELF garbage", 0o755);
    symlink("ring", format!("{programs}/ring")).unwrap();
    for (program, status, named) in [
        ("", 127, "an empty name"),
        ("no-such-program", 127, "no-such-program: no such file"),
        ("/no/such/program", 127, "/no/such/program: no such file"),
        ("\x1b[2J\n", 127, r"\u{1b}[2J\n: no such file"),
        (long, 126, "name too long"),
        ("/p", 126, "/p: "),
        ("/p/plain", 126, "/p/plain: Permission denied"),
        ("/p/orphan", 127, "/p/orphan: "),
        ("/p/loop", 126, "/p/loop: "),
        ("/p/ring", 126, "/p/ring: "),
        ("/p/plain/x", 126, "/p/plain/x: "),
    ] {
        let words = ["run", "--rm", "-v", volume, "host", program];
        check(&program, &final_(&words), status, &["cannot execute", named]);
    }
    // execvp(3) takes what is no program for a script, as shells do, so that is what judges here.
    let garbage = final_(&["run", "--rm", "-v", volume, "host", "/p/elf", long]);
    assert!(matches!(garbage.status, Some(126 | 127)), "{garbage:?}");
    fs::remove_dir_all(programs).unwrap();

    // 128 KiB is the longest argument that the kernel takes; an environment counts as well.
    let longest = "x".repeat(131_000);
    let words = ["run", "--rm", "host", "sh", "-c", "echo ${#1}", "sh", &longest];
    assert_eq!(final_(&words).stdout, "131000\n");
    // The container's environment takes one half of the room that there is, and ours the other.
    let big: Vec<String> = (0..9).map(|n| format!("A{n}={longest}")).collect();
    let mut words = vec!["run", "--rm", "--name", "full"];
    words.extend(big.iter().flat_map(|variable| ["-e", variable]));
    words.extend(["host", "sleep", "1000"]);
    let mut runtime = command(BINARY, &words);
    let runtime = runtime.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let runtime = runtime.spawn().unwrap();
    eventually("full runs", || final_(&["exec", "full", "true"]).status == Some(0));
    let mut words = vec!["exec", "full", "true"];
    words.extend([&*longest; 9]);
    check(&"exec", &final_(&words), 126, &["cannot execute true", "list too long"]);
    assert_eq!(final_(&["kill", "full"]).status, Some(0));
    assert_eq!(finish(runtime, Duration::from_secs(60)).status, Some(137));
}

pub fn what_is_not_utf_8_is_refused(_: Who) {
    let odd = OsStr::from_bytes(b"odd\xff");
    let named = |before: &str| {
        let mut word = OsString::from(before);
        word.push(odd);
        word
    };
    let scratch = scratch();
    let (directory, link) = (Path::new(&scratch).join(odd), &*format!("{scratch}/link"));
    fs::create_dir(&directory).unwrap();
    symlink(&directory, link).unwrap();
    for words in [
        &["--name", "--volume", "--env", "--memory", "--hostname", "--bridge", "--publish"]
            .map(|flag| named(&format!("{flag}=")))[..],
        &[directory.clone().into()],
        &[format!("--volume={link}:/x").into()],
        &[link.into()],
        &["host".into(), named("")],
        &["-e".into(), "ODD".into()],
    ] {
        let one_by_one = if words.len() > 2 { words.chunks(1) } else { words.chunks(2) };
        for words in one_by_one {
            let mut command = command(BINARY, &["run", "--rm"]);
            command.args(words).env("ODD", odd);
            check(&words, &outcome(&mut command), 125, &["UTF-8"]);
        }
    }
    // A relative path leads there as well.
    let mut here = command(BINARY, &["run", "--rm", "-v", ".:/x", "host", "true"]);
    check(&"-v .", &outcome(here.current_dir(&directory)), 125, &["UTF-8"]);
    fs::remove_file(link).unwrap();
    fs::remove_dir(directory).unwrap();
}

pub fn a_program_may_call_itself_anything(_: Who) {
    // Its name is field 2 of /proc/PID/stat, where the runtime looks for its start time.
    // Arguments are UTF-8, so the shell makes the name.
    let script = r#"name=$(printf '/tmp/) R 1 \377\n('); cp /bin/sleep "$name"; exec "$name" 1000"#;
    let words = ["run", "--rm", "--name", "odd", "host", "sh", "-c", script];
    let mut runtime = command(BINARY, &words);
    let runtime = runtime.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let runtime = runtime.spawn().unwrap();
    eventually("it has the name", || {
        final_(&["exec", "odd", "cat", "/proc/1/comm"]).stdout.starts_with(") R 1")
    });
    assert!(final_(&["ps"]).stdout.contains("odd"));
    assert_eq!(final_(&["kill", "odd"]).status, Some(0));
    assert_eq!(finish(runtime, Duration::from_secs(60)).status, Some(137));
}
