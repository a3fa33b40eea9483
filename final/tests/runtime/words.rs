//! What the program finds when it starts, and the names that it knows.

use std::fs;
use std::time::Duration;

use workshop::lab::Who;
use workshop::suite::{command, read, run};

use crate::{BINARY, final_, scratch, script, start, stop};

pub fn variables_come_from_files(_: Who) {
    let file = format!("{}/env", scratch());
    let lines = "# a comment\n\n  A=1\nB=\"quoted\" # not a comment\nFROM_CALLER\nUNSET\nC=\n";
    fs::write(&file, lines).unwrap();
    let words = ["run", "--rm", "--env-file", &file, "-e", "A=2", "host", "env"];
    let mut caller = command(BINARY, &words);
    caller.env("FROM_CALLER", "yes").env_remove("UNSET");
    let shown = run(&mut caller, Duration::from_secs(60)).stdout;
    for line in ["A=2", "B=\"quoted\" # not a comment", "FROM_CALLER=yes", "C="] {
        assert!(shown.lines().any(|shown| shown == line), "{line}: {shown}");
    }
    assert!(!shown.contains("A=1") && !shown.contains("UNSET"), "{shown}");
    let runtime = start("box", &[], &["sleep", "1000"]);
    let joined = final_(&["exec", "--env-file", &file, "-e", "A=3", "box", "env"]).stdout;
    stop("box", runtime);
    for line in ["A=3", "C="] {
        assert!(joined.lines().any(|shown| shown == line), "{line}: {joined}");
    }
    for (lines, named) in [("A B=1\n", "\"A B\""), ("=1\n", "needs a name")] {
        fs::write(&file, lines).unwrap();
        let refused = script(&["--env-file", &file], "true");
        assert_eq!(refused.status, Some(125), "{refused:?}");
        assert!(refused.stderr.contains(named), "{refused:?}");
    }
    fs::remove_file(file).unwrap();
}

pub fn the_program_can_be_replaced(_: Who) {
    let echo = |words: &[&str]| {
        final_(&[&["run", "--rm", "--entrypoint", "echo", "host"], words].concat())
    };
    assert_eq!(echo(&["a", "b"]).stdout, "a b\n");
    assert_eq!(echo(&[]).stdout, "\n");
    let none = final_(&["run", "--rm", "--entrypoint", "", "host", "echo", "x"]);
    assert_eq!(none.stdout, "x\n", "{none:?}");
    let refused = final_(&["run", "--rm", "--entrypoint", "", "host"]);
    assert_eq!(refused.status, Some(125), "{refused:?}");
    assert!(refused.stderr.contains("COMMAND"), "{refused:?}");
    // A directory may have the name of an image.
    let scratch = scratch();
    fs::create_dir(format!("{scratch}/host")).unwrap();
    let mut here = command(BINARY, &["run", "--rm", "--rootfs", "host", "true"]);
    let empty = run(here.current_dir(&scratch), Duration::from_secs(60));
    assert_eq!(empty.status, Some(127), "{empty:?}");
    fs::remove_dir(format!("{scratch}/host")).unwrap();
}

pub fn names_are_added_and_looked_up_as_told(who: Who) {
    let hosts = ["--add-host", "db:192.0.2.7", "--add-host", "six=[2001:db8::7]"];
    let seen = script(&hosts, "tail -2 /etc/hosts; getent hosts db").stdout;
    assert!(seen.starts_with("192.0.2.7\tdb\n2001:db8::7\tsix\n192.0.2.7 "), "{seen}");
    if who == Who::Plain {
        let refused = script(&["--add-host", "up:host-gateway"], "true");
        assert!(refused.stderr.contains("host-gateway"), "{refused:?}");
    } else {
        let seen = script(&["--add-host", "up:host-gateway"], "tail -1 /etc/hosts").stdout;
        assert_eq!(seen, "10.77.0.1\tup\n");
    }
    let up = script(&["--net", "host", "--add-host", "up:host-gateway"], "tail -1 /etc/hosts");
    assert_eq!(up.stdout, "127.0.0.1\tup\n");

    let own = read("/etc/resolv.conf");
    let kept = |word: &str| {
        let lines = own.lines().filter(|line| line.starts_with(word));
        lines.flat_map(|line| [line, "\n"]).collect::<String>()
    };
    let conf = |options: &[&str]| script(options, "cat /etc/resolv.conf").stdout;
    let servers = conf(&["--dns", "192.0.2.1", "--dns", "2001:db8::1"]);
    assert!(servers.ends_with("nameserver 192.0.2.1\nnameserver 2001:db8::1\n"), "{servers}");
    assert_eq!(servers.matches("nameserver").count(), 2, "{servers}");
    assert!(servers.contains(&kept("search")), "{servers}");
    let all = conf(&[
        "--dns",
        "192.0.2.1",
        "--dns-search",
        "a.lan",
        "--dns-search",
        "b",
        "--dns-option",
        "ndots:2",
    ]);
    assert!(all.ends_with("nameserver 192.0.2.1\nsearch a.lan b\noptions ndots:2\n"), "{all}");
    let none = conf(&["--dns-search", "."]);
    assert!(!none.contains("search") && none.contains("nameserver"), "{none}");
}

pub fn settings_of_a_namespace_are_its_own(who: Who) {
    let before = read("/proc/sys/kernel/msgmax");
    let options = [
        "--net",
        "none",
        "--sysctl",
        "net.ipv4.ip_unprivileged_port_start=7",
        "--sysctl",
        "net.ipv4.conf.lo.rp_filter=2",
    ];
    let look = "cat /proc/sys/net/ipv4/ip_unprivileged_port_start /proc/sys/net/ipv4/conf/lo/rp_filter; \
                echo 9 > /proc/sys/net/ipv4/ip_unprivileged_port_start";
    let seen = script(&options, look);
    assert_eq!(seen.stdout, "7\n2\n", "{seen:?}");
    assert!(seen.stderr.contains("Read-only file system"), "{seen:?}");
    if who == Who::Root {
        let options = ["--sysctl", "kernel.msgmax=4711", "--sysctl", "fs.mqueue.msg_max=5"];
        let seen = script(&options, "cat /proc/sys/kernel/msgmax /proc/sys/fs/mqueue/msg_max");
        assert_eq!(seen.stdout, "4711\n5\n", "{seen:?}");
    }
    assert_eq!(read("/proc/sys/kernel/msgmax"), before);
    for (options, named) in [
        (&["--sysctl", "kernel.panic=1"][..], "it is no namespace's"),
        (&["--sysctl", "kernel.hostname=x"], "it is no namespace's"),
        (
            &["--sysctl", "net.core.somaxconn=5", "--net", "host"],
            "with --net it belongs to the host",
        ),
        (&["--sysctl", "kernel.msgmax=5", "--ipc", "host"], "with --ipc it belongs to the host"),
        (&["--sysctl", "net.no.such=5", "--net", "none"], "cannot set --sysctl net.no.such=5"),
        (&["--sysctl", "net.ipv4.ip_unprivileged_port_start=x", "--net", "none"], "port_start=x"),
    ] {
        let refused = script(options, "true");
        assert_eq!(refused.status, Some(125), "{refused:?}");
        assert!(refused.stderr.contains(named), "{named}: {refused:?}");
    }
}
