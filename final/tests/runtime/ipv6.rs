//! Networks with IPv6.

use std::fs;

use workshop::internet::{SECOND_HOST6, SERVER, SERVER6, UPLINK, UPLINK6};
use workshop::lab::Who;
use workshop::snapshot::Snapshot;
use workshop::suite::{eventually, get, probe_volume, read};

use crate::networks::{ask, inspect, network, refusal};
use crate::{final_, script, start, stop};

const FORWARDING: &str = "/proc/sys/net/ipv6/conf/all/forwarding";

fn from_outside(port: u16) -> String {
    get(&format!("{SERVER}:80"), &format!("/tcp/{UPLINK6}/{port}"))
}

/// A container with an HTTP server at port 80, of both kinds.
fn web(name: &str, options: &[&str]) -> std::process::Child {
    let volume = probe_volume();
    let options = [&["-v", &volume], options].concat();
    let child = start(name, &options, &["/probe", "@serve", "[::]:80"]);
    eventually("it serves", || {
        final_(&["exec", name, "/probe", "@get", "[::1]:80"]).stdout.contains("hello")
    });
    child
}

fn address6(net: &str) -> String {
    let containers = inspect(net)["Containers"].clone();
    let (_, container) = containers.as_object().unwrap().iter().next().unwrap();
    container["IPv6Address"].as_str().unwrap().split_once('/').unwrap().0.to_owned()
}

pub fn a_network_with_ipv6_reaches_the_world_and_is_reached(_: Who) {
    let before = Snapshot::take(&[]).unwrap();
    network(&["create", "--ipv6", "--subnet", "fd00:77::/64", "blue"]);
    let config = &inspect("blue")["IPAM"]["Config"];
    assert_eq!(
        (&config[1]["Subnet"], &config[1]["Gateway"]),
        (&"fd00:77::/64".into(), &"fd00:77::1".into())
    );
    assert_eq!(read(FORWARDING), "0");
    let server = web("web", &["--net", "blue", "-p", "8080:80", "--ip", "10.77.1.9"]);
    assert_eq!(address6("blue"), "fd00:77::9");
    assert_eq!(read(FORWARDING), "1");
    // Out: under the host's address.
    let out = ask("blue", &format!("[{SERVER6}]:80"));
    assert!(out.contains(&UPLINK6.to_string()), "{out}");
    // In: from the internet, from the host, from the network itself.
    let hello = format!("hello {SECOND_HOST6}");
    assert!(from_outside(8080).contains(&hello), "{}", from_outside(8080));
    for address in [UPLINK6.to_string(), "fd00:77::1".to_owned()] {
        assert!(get(&format!("[{address}]:8080"), "/").contains("hello"), "{address}");
    }
    assert!(get(&format!("{UPLINK}:8080"), "/").contains("hello"));
    for address in ["[fd00:77::9]:80".to_owned(), format!("[{UPLINK6}]:8080")] {
        assert!(ask("blue", &address).contains("hello"), "{address}");
    }
    assert!(from_outside(80).contains("refused"), "{}", from_outside(80));
    let ps = final_(&["ps"]).stdout;
    assert!(ps.contains("0.0.0.0:8080->80/tcp, [::]:8080->80/tcp"), "{ps}");
    // By name.
    let found = script(&["--net", "blue"], "getent ahostsv6 web").stdout;
    assert!(found.starts_with("fd00:77::9 "), "{found}");
    // No router is listened to, and the port is nobody else's.
    let heard = final_(&["exec", "web", "cat", "/proc/sys/net/ipv6/conf/eth0/accept_ra"]);
    assert_eq!(heard.stdout, "0\n", "{heard:?}");
    assert!(std::net::TcpListener::bind("[::]:8080").is_err());
    stop("web", server);
    assert_eq!(read(FORWARDING), "0");
    network(&["rm", "blue"]);
    before.ensure_restored(&[]).unwrap();
}

/// In a namespace of theirs; who comes to a port comes by IPv4 to the container.
pub fn a_plain_users_network_has_ipv6(_: Who) {
    network(&["create", "--ipv6", "--subnet", "fd00:77::/64", "blue"]);
    let before = Snapshot::take(&[]).unwrap();
    let server = web("web", &["--net", "blue", "-p", "8080:80", "--ip", "10.77.1.9"]);
    assert_eq!(address6("blue"), "fd00:77::9");
    assert!(ask("blue", "[fd00:77::9]:80").contains("hello fd00:77::"));
    let found = script(&["--net", "blue"], "getent ahostsv6 web").stdout;
    assert!(found.starts_with("fd00:77::9 "), "{found}");
    let hello = from_outside(8080);
    assert!(hello.contains("hello ::ffff:10.77.1.1"), "{hello}");
    assert!(get("[::1]:8080", "/").contains("hello"));
    let ps = final_(&["ps"]).stdout;
    assert!(ps.contains("0.0.0.0:8080->80/tcp, [::]:8080->80/tcp"), "{ps}");
    assert_eq!(read(FORWARDING), "0", "the host's");
    stop("web", server);
    before.ensure_restored(&[]).unwrap();
    network(&["rm", "blue"]);
}

pub fn pasta_is_the_way_out_with_ipv6(_: Who) {
    network(&["create", "--ipv6", "blue"]);
    let out = ask("blue", &format!("[{SERVER6}]:80"));
    assert!(out.contains(&UPLINK6.to_string()), "{out}");
    network(&["rm", "blue"]);
}

pub fn networks_with_ipv6_are_closed_to_each_other(_: Who) {
    network(&["create", "--ipv6", "blue"]);
    network(&["create", "--ipv6", "green"]);
    network(&["create", "--ipv6", "--internal", "inside"]);
    assert!(inspect("blue")["IPAM"]["Config"][1]["Subnet"].as_str().unwrap().starts_with("fd"));
    let server = web("web", &["--net", "blue", "-p", "8080:80"]);
    let here = address6("blue");
    assert!(ask("blue", &format!("[{here}]:80")).contains("hello"));
    assert!(ask("green", &format!("[{SERVER6}]:80")).contains(&UPLINK6.to_string()));
    let tries = [("green", format!("[{here}]:80")), ("green", format!("[{UPLINK6}]:8080"))];
    std::thread::scope(|scope| {
        for (net, address) in &tries {
            scope.spawn(move || {
                let answer = ask(net, address);
                assert!(answer.starts_with("error: "), "{net} {address}: {answer}");
            });
        }
    });
    assert!(ask("inside", &format!("[{SERVER6}]:80")).contains("unreachable"));
    stop("web", server);
    let taken = inspect("blue")["IPAM"]["Config"][1]["Subnet"].as_str().unwrap().to_owned();
    let create = ["create", "--ipv6", "--subnet", &taken, "x"];
    assert!(refusal(&create).contains("overlaps the network blue"));
    assert!(refusal(&["create", "--subnet", "fd01::/64", "x"]).contains("takes --ipv6"));
    let twice = ["create", "--ipv6", "--subnet", "fd01::/64", "--subnet", "fd02::/64", "x"];
    assert!(refusal(&twice).contains("one subnet of each kind"));
    network(&["rm", "blue", "green", "inside"]);
}

pub fn ipv6_is_set_back_to_what_it_was(_: Who) {
    let set = |name: &str, value: &str| {
        fs::write(format!("/proc/sys/net/ipv6/conf/{name}"), value).unwrap();
    };
    network(&["create", "--ipv6", "blue"]);
    network(&["create", "--ipv6", "green"]);
    // A host that listens to its router keeps doing so.
    let listens = read("/proc/sys/net/ipv6/conf/uplink/accept_ra");
    set("uplink/accept_ra", "1");
    let before = Snapshot::take(&[]).unwrap();
    let (one, two) = (
        start("one", &["--net", "blue"], &["sleep", "1000"]),
        start("two", &["--net", "green"], &["sleep", "1000"]),
    );
    assert_eq!(read("/proc/sys/net/ipv6/conf/uplink/accept_ra"), "2");
    stop("one", one);
    assert_eq!(read(FORWARDING), "1");
    stop("two", two);
    before.ensure_restored(&[]).unwrap();
    // A router stays one.
    set("all/forwarding", "1");
    stop("one", start("one", &["--net", "blue"], &["sleep", "1000"]));
    assert_eq!(read(FORWARDING), "1");
    set("all/forwarding", "0");
    set("uplink/accept_ra", "1");
    before.ensure_restored(&[]).unwrap();
    // Killed, the next command does it.
    let mut killed = web("web", &["--net", "blue", "-p", "8080:80"]);
    crate::kill_monitor("web");
    killed.wait().unwrap();
    assert_eq!(read(FORWARDING), "1");
    assert_eq!(final_(&["ps"]).status, Some(0));
    before.ensure_restored(&[]).unwrap();
    set("uplink/accept_ra", &listens);
    network(&["rm", "blue", "green"]);
}
