//! A container's network, from inside and from outside.

use std::collections::BTreeSet;
use std::net::{TcpListener, UdpSocket};
use std::thread::scope;

use workshop::internet::{SECOND_HOST, SERVER, UPLINK};
use workshop::lab::Who;
use workshop::snapshot::Snapshot;
use workshop::suite::{eventually, get, read};
use workshop::wire::Wire;

use crate::{final_, monitor, probe_volume, script, start, stop};

pub fn the_internet_sees_the_hosts_address(_: Who) {
    let (volume, server) = (probe_volume(), format!("{SERVER}:80"));
    let asked = final_(&["run", "--rm", "-v", &volume, "host", "/probe", "@get", &server]);
    assert!(asked.stdout.trim().ends_with(&UPLINK.to_string()), "{asked:?}");
}

pub fn a_bridge_has_the_name_and_the_subnet_that_it_was_given(_: Who) {
    let options = ["--net", "bridge", "--bridge", "other0", "--subnet", "10.88.7.0/24"];
    let runtime = start("box", &options, &["sleep", "1000"]);
    // In the namespace where the bridge is: the host's, or that of a plain user's networks.
    let of_host = |file: &str| read(format!("/proc/{}/net/{file}", monitor("box")));
    let has = |file: &str, name: &str| of_host(file).lines().any(|l| l.trim().starts_with(name));
    assert!(has("dev", "other0:") && !has("dev", "workshop0:"), "{}", of_host("dev"));
    assert!(has("route", "other0\t0007580A\t00000000\t0001"), "{}", of_host("route"));
    let inside = final_(&["exec", "box", "ip", "-4", "route"]).stdout;
    assert!(inside.starts_with("default via 10.88.7.1 dev eth0"), "{inside}");
    assert!(
        inside.contains("10.88.7.0/24 dev eth0 ") && inside.contains(" src 10.88.7.2"),
        "{inside}"
    );
    // The usual one beside it.
    let usual = start("usual", &["--net", "bridge"], &["sleep", "1000"]);
    assert!(has("dev", "other0:") && has("dev", "workshop0:"), "{}", of_host("dev"));
    stop("box", runtime);
    let left = read(format!("/proc/{}/net/dev", monitor("usual")));
    assert!(!left.contains("other0:") && left.contains("workshop0:"), "{left}");
    stop("usual", usual);
}

pub fn a_published_port_is_reached_from_everywhere(_: Who) {
    let volume = probe_volume();
    let options = ["-v", &volume, "-p", "8080:80", "--ip", "10.77.0.9"];
    let runtime = start("web", &options, &["/probe", "@serve", "0.0.0.0:80"]);
    eventually("it serves", || get("10.77.0.9:80", "/").contains("hello"));

    let from_outside = get(&format!("{SERVER}:80"), &format!("/tcp/{UPLINK}/8080"));
    assert!(from_outside.contains(&format!("hello {SECOND_HOST}")), "{from_outside}");
    for address in [UPLINK.to_string(), "127.0.0.1".to_owned(), "10.77.0.1".to_owned()] {
        let answer = get(&format!("{address}:8080"), "/");
        assert!(answer.contains("hello"), "{address}: {answer}");
    }
    let ps = final_(&["ps"]).stdout;
    assert!(ps.contains("0.0.0.0:8080->80/tcp"), "{ps}");
    let second = script(&["-p", "8080:81"], "true");
    assert_eq!(second.status, Some(125), "{second:?}");
    assert!(second.stderr.contains("8080/tcp is already in use"), "{second:?}");
    stop("web", runtime);
    assert!(get(&format!("{UPLINK}:8080"), "/").starts_with("error"));
}

/// Ports of one container: servers for them, in a shell.
fn servers(name: &str, options: &[&str], servers: &[&str]) -> std::process::Child {
    let script: String = servers.iter().flat_map(|s| ["/probe ", s, " & "]).collect();
    let (volume, script) = (probe_volume(), script + "wait");
    start(name, &[&["-v", &volume], options].concat(), &["sh", "-c", &script])
}

/// The column PORTS of `ps`.
fn shown_ports() -> String {
    let ps = final_(&["ps"]).stdout;
    let column = ps.find("PORTS").unwrap();
    let end = ps.find("NAMES").unwrap();
    ps.lines().nth(1).unwrap()[column..end].trim().to_owned()
}

fn from_outside(protocol: &str, port: u16) -> String {
    get(&format!("{SERVER}:80"), &format!("/{protocol}/{UPLINK}/{port}"))
}

pub fn ports_are_published_by_ranges_and_by_chance(_: Who) {
    let options = ["-p", "8000-8001:80-81", "-p", "5353:53/udp", "-p", "81", "--expose", "7/udp"];
    let runtime = servers(
        "web",
        &[&options[..], &["-p", "127.0.0.1::80", "-p", "80-81:80-81"]].concat(),
        &["@serve 0.0.0.0:80", "@serve 0.0.0.0:81", "@echo 0.0.0.0:53"],
    );
    let hello = format!("hello {SECOND_HOST}");
    for (protocol, port) in [("tcp", 8000), ("tcp", 8001), ("tcp", 80), ("udp", 5353)] {
        eventually(&format!("{protocol} {port}"), || from_outside(protocol, port).contains(&hello));
    }
    assert!(from_outside("tcp", 8002).contains("Connection refused"));
    let shown = shown_ports();
    let mut ports: Vec<_> = shown.split(", ").collect();
    let by_chance = |address: &str, to: &str| {
        let port = ports.iter().find_map(|p| {
            let port: u16 = p.strip_prefix(address)?.strip_suffix(to)?.parse().ok()?;
            (port >= 32768).then_some(port)
        });
        port.unwrap_or_else(|| panic!("{address}?{to} in {shown}"))
    };
    let (any, local) = (by_chance("0.0.0.0:", "->81/tcp"), by_chance("127.0.0.1:", "->80/tcp"));
    assert!(from_outside("tcp", any).contains(&hello));
    assert!(get(&format!("127.0.0.1:{local}"), "/").contains("hello"));
    assert!(from_outside("tcp", local).contains("Connection refused"));
    ports.retain(|p| !p.contains(&any.to_string()) && !p.contains(&local.to_string()));
    ports.sort_unstable();
    let rest = [
        "0.0.0.0:5353->53/udp",
        "0.0.0.0:80-81->80-81/tcp",
        "0.0.0.0:8000->80/tcp",
        "0.0.0.0:8001->81/tcp",
        "7/udp",
    ];
    assert_eq!(ports, rest, "{shown}");
    stop("web", runtime);
}

pub fn all_exposed_ports_are_published_with_one_flag(_: Who) {
    let options = ["-P", "--expose", "80", "--expose", "53/udp", "-p", "8080:80"];
    let runtime = servers("web", &options, &["@serve 0.0.0.0:80", "@echo 0.0.0.0:53"]);
    eventually("it serves", || from_outside("tcp", 8080).contains("hello"));
    let shown = shown_ports();
    let ports: Vec<_> = shown.split(", ").collect();
    assert_eq!((ports.len(), ports[1]), (2, "0.0.0.0:8080->80/tcp"), "{shown}");
    let udp = ports[0].strip_prefix("0.0.0.0:").and_then(|p| p.strip_suffix("->53/udp")).unwrap();
    assert!(from_outside("udp", udp.parse().unwrap()).contains("hello"), "{shown}");
    stop("web", runtime);
}

pub fn a_port_in_use_is_refused_before_anything_is_made(_: Who) {
    let refuse = |port: &str, why: &str| {
        let before = Snapshot::take(&[]).unwrap();
        // Without --rm: what is made would stay, and be seen.
        let refused = final_(&["run", "-p", port, "host", "true"]);
        assert_eq!(refused.status, Some(125), "{refused:?}");
        assert!(refused.stderr.contains(why), "{refused:?}");
        before.ensure_restored(&[]).unwrap();
    };
    let tcp = TcpListener::bind("127.0.0.1:8000").unwrap();
    let udp = UdpSocket::bind("0.0.0.0:8002").unwrap();
    refuse("8000:80", "the port 8000/tcp is already in use");
    refuse("7999-8000:80-81", "the port 8000/tcp is already in use");
    refuse("8000-8000:80", "the port 8000/tcp is already in use");
    refuse("8002:80/udp", "the port 8002/udp is already in use");
    let runtime = servers("web", &["-p", "8000-8002:80"], &["@serve 0.0.0.0:80"]);
    assert_eq!(shown_ports(), "0.0.0.0:8001->80/tcp");
    refuse("8001:80", "the port 8001/tcp is already in use by the container web");
    refuse("127.0.0.1:8001:80", "the port 8001/tcp is already in use by the container web");
    refuse("8000-8001:80", "none of the ports 8000-8001/tcp is free");
    assert!(TcpListener::bind("0.0.0.0:8001").is_err());
    stop("web", runtime);
    drop((tcp, udp));
    assert_eq!(script(&["-p", "8000-8002:80-82", "-p", "8002:80/udp"], "true").status, Some(0));
}

/// More rules than the kernel takes in one message.
pub fn many_ports_are_published_at_once(_: Who) {
    let runtime = servers("web", &["-p", "9000-9799:9000-9799"], &["@serve 0.0.0.0:9750"]);
    eventually("it serves", || from_outside("tcp", 9750).contains("hello"));
    assert_eq!(shown_ports(), "0.0.0.0:9000-9799->9000-9799/tcp");
    stop("web", runtime);
}

pub fn host_and_none_are_what_they_say(_: Who) {
    let interfaces = |net: &str| {
        let shown = script(&["--net", net], "tail -n +3 /proc/net/dev | cut -d: -f1").stdout;
        shown.split_whitespace().map(str::to_owned).collect::<BTreeSet<_>>()
    };
    assert_eq!(interfaces("host"), BTreeSet::from(["lo".to_owned(), "uplink".to_owned()]));
    assert_eq!(interfaces("none"), BTreeSet::from(["lo".to_owned()]));
}

pub fn eight_at_once_share_a_bridge(_: Who) {
    let run = || script(&[], "tail -n 1 /etc/hosts");
    // A few times: they also leave at once, and none may leave the clean-up to the others.
    for _ in 0..4 {
        let outcomes: Vec<_> = scope(|scope| {
            let threads: Vec<_> = (0..8).map(|_| scope.spawn(run)).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        for outcome in &outcomes {
            assert_eq!(outcome.status, Some(0), "{outcome:?}");
            assert!(outcome.stdout.starts_with("10.77.0."), "{outcome:?}");
        }
        let links = Wire::open().and_then(|wire| wire.links()).unwrap();
        assert!(!links.contains(&"workshop0".to_owned()), "{links:?}");
        assert_eq!(read("/proc/sys/net/ipv4/ip_forward"), "0");
    }
}

pub fn a_plain_users_default_is_loopback(_: Who) {
    // Without being told, it runs and says in one line what differs.
    let ran = script(&[], "true");
    assert_eq!((ran.status, ran.stderr.lines().count()), (Some(0), 1), "{ran:?}");
    assert!(ran.stderr.contains("rootless"), "{ran:?}");
}
