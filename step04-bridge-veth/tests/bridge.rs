//! Step 4 against the real kernel: what links there are, and which packets arrive.

use std::collections::BTreeSet;
use std::fs;
use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Command, ExitCode, Stdio};
use std::time::Duration;

use step04_bridge_veth::Rtnetlink;
use workshop::lab::Who;
use workshop::suite::{
    Outcome, Running, Test, command, eventually, get, probe_volume, read, run, suite, this_program,
};
use workshop::test;
use workshop::wire::Wire;

const BINARY: &str = env!("CARGO_BIN_EXE_step04-bridge-veth");
const BRIDGE: &str = "workshop0";

static TESTS: &[Test] = &[
    test!(a_container_has_an_address_a_way_out_and_loopback, [Root, LabRoot], by_hand),
    test!(containers_on_one_bridge_reach_each_other, [Root, LabRoot], by_hand),
    test!(the_bridge_is_reached_and_nothing_beyond_it, [Root, LabRoot], by_hand),
    test!(the_bridge_learns_behind_which_port_a_container_is, [Root, LabRoot], by_hand),
    test!(an_address_that_cannot_be_is_refused, [Root, LabRoot]),
    test!(a_subnet_that_overlaps_a_route_is_refused, [Root, LabRoot]),
    test!(what_is_no_subnet_or_name_is_refused, [Root]),
    test!(somebody_elses_link_is_refused_and_left_alone, [Root, LabRoot]),
    test!(a_bridge_that_was_only_half_made_is_made_anew, [Root, LabRoot]),
    test!(eight_containers_at_once_have_eight_addresses, [Root, LabRoot], by_hand),
    test!(containers_may_come_while_the_last_one_goes, [Root, LabRoot], by_hand),
    test!(the_bridge_goes_with_its_last_container, [Root, LabRoot], by_hand),
    test!(an_address_rests_before_it_is_given_out_again, [Root, LabRoot]),
    test!(a_killed_runtime_leaves_the_others_alone, [Root, LabRoot]),
    test!(the_next_command_removes_what_a_killed_runtime_left, [Root, LabRoot]),
    test!(an_address_leads_to_its_newest_owner, [Root, LabRoot]),
    test!(a_full_subnet_is_an_error, [Root, LabRoot]),
    test!(a_container_that_cannot_start_leaves_nothing, [Root, LabRoot], by_hand),
    test!(a_container_that_fails_late_leaves_nothing, [Root, LabRoot]),
    test!(a_plain_user_is_told_what_to_do, [Plain]),
    test!(a_container_with_the_hosts_network_has_no_place_on_a_bridge, [Root]),
    test!(a_machine_behind_a_tap_device_is_switched_and_not_routed, [Root]),
];

fn main() -> ExitCode {
    suite(TESTS)
}

fn step04(words: &[&str]) -> Outcome {
    run(&mut command(BINARY, words), Duration::from_secs(60))
}

/// The options that put this program into a container.
fn probe() -> [String; 2] {
    ["--volume".to_owned(), probe_volume()]
}

/// What a probe prints in a container; it must end well.
fn inside(options: &[&str], words: &[&str]) -> String {
    let [volume, probe] = &probe();
    let outcome = step04(&[options, &[volume, probe, "/probe"], words].concat());
    assert_eq!(outcome.status, Some(0), "{options:?} {words:?}: {outcome:?}");
    outcome.stdout
}

/// What the command says when it refuses.
fn refusal(words: &[&str]) -> String {
    let outcome = step04(words);
    assert_eq!(outcome.status, Some(125), "{words:?}: {outcome:?}");
    outcome.stderr
}

/// A container with an HTTP server on port 80.
fn web(options: &[&str]) -> Running {
    Running::container(BINARY, options, "@serve 0.0.0.0:80")
}

fn host() -> Vec<String> {
    Wire::open().unwrap().describe().unwrap()
}

fn has_bridge() -> bool {
    Wire::open().unwrap().links().unwrap().iter().any(|link| link == BRIDGE)
}

/// How many cables the bridge has.
fn ports() -> usize {
    fs::read_dir(format!("/sys/class/net/{BRIDGE}/brif")).map_or(0, Iterator::count)
}

fn a_container_has_an_address_a_way_out_and_loopback(_: Who) {
    let seen = inside(&[], &["@wire"]);
    let seen: BTreeSet<_> = seen.lines().filter(|line| !line.contains("127.0.0.1")).collect();
    for line in [
        "link lo",
        "link eth0",
        "address 10.77.0.2/24 on eth0",
        "route default/0 via 10.77.0.1 on eth0",
        "route 10.77.0.0/24 on eth0",
    ] {
        assert!(seen.contains(line), "{line}: {seen:?}");
    }
    assert_eq!(seen.iter().filter(|line| line.starts_with("link")).count(), 2, "{seen:?}");

    let script = "cd /sys/class/net; cat lo/flags eth0/flags eth0/address";
    // Up and a loopback; up, broadcast and multicast (linux/if.h).
    assert_eq!(step04(&["sh", "-c", script]).stdout, "0x9\n0x1003\n02:42:0a:4d:00:02\n");
    assert!(inside(&["--ip", "10.77.0.99"], &["@wire"]).contains("address 10.77.0.99/24 on eth0"));
    let other = ["--bridge", "other", "--subnet", "10.99.8.0/22", "--ip", "10.99.11.254"];
    assert!(inside(&other, &["@wire"]).contains("address 10.99.11.254/22 on eth0"));
}

fn containers_on_one_bridge_reach_each_other(_: Who) {
    let _one = web(&[]);
    assert!(inside(&[], &["@get", "10.77.0.2:80"]).contains("hello 10.77.0.3"));
    assert!(get("10.77.0.2:80", "/").contains("hello 10.77.0.1")); // and so does the host
    // And another bridge has others.
    let other = ["--bridge", "other", "--subnet", "10.78.0.0/24"];
    let _other = web(&other);
    assert!(inside(&other, &["@get", "10.78.0.2:80"]).contains("hello 10.78.0.3"));
}

fn the_bridge_is_reached_and_nothing_beyond_it(_: Who) {
    let mut server = Command::new(this_program());
    let (server, line) = Running::start(server.args(["@serve", "0.0.0.0:80"]));
    assert_eq!(line, "ready\n");
    assert!(inside(&[], &["@get", "10.77.0.1:80"]).contains("hello 10.77.0.2"));
    let other = web(&["--bridge", "other", "--subnet", "10.78.0.0/24"]);
    assert_eq!(inside(&[], &["@ping", "10.77.0.1"]), "10.77.0.1 answered\n");
    let unanswered = |address: &str| {
        let [volume, probe] = &probe();
        let outcome = step04(&[volume, probe, "/probe", "@ping", address]);
        assert!(outcome.stderr.contains("no answer"), "{address}: {outcome:?}");
    };
    std::thread::scope(|scope| {
        scope.spawn(|| unanswered("198.51.100.1"));
        scope.spawn(|| unanswered("10.78.0.2"));
    });
    // Even if the host forwards: the answers from outside would not find the way to 10.77.0.0/24.
    fs::write("/proc/sys/net/ipv4/ip_forward", "1").unwrap();
    unanswered("198.51.100.1");
    fs::write("/proc/sys/net/ipv4/ip_forward", "0").unwrap();
    drop(other);
    server.kill();
}

fn the_bridge_learns_behind_which_port_a_container_is(_: Who) {
    let _one = web(&[]);
    assert!(get("10.77.0.2:80", "/").contains("hello 10.77.0.1"));
    // Each entry of the bridge's table has 16 bytes and begins with the hardware address.
    let table = fs::read(format!("/sys/class/net/{BRIDGE}/brforward")).unwrap();
    assert!(table.chunks(16).any(|entry| entry[..6] == [0x02, 0x42, 10, 77, 0, 2]), "{table:?}");
    assert_eq!(read(format!("/sys/class/net/{BRIDGE}/address")), "02:42:0a:4d:00:01");
}

fn an_address_that_cannot_be_is_refused(_: Who) {
    for used in [false, true] {
        let one = used.then(|| web(&[]));
        let before = host();
        for address in ["10.77.0.0", "10.77.0.1", "10.77.0.255", "10.77.1.2", "0.0.0.0"] {
            let why = refusal(&["--ip", address, "true"]);
            assert!(
                why.contains(&format!("{address} is not for a container in 10.77.0.0/24")),
                "{why}"
            );
        }
        if used {
            assert!(refusal(&["--ip", "10.77.0.2", "true"]).contains("10.77.0.2 is taken"));
        }
        assert_eq!(host(), before);
        drop(one);
    }
    assert_eq!(step04(&["--ip", "10.77.0.2", "true"]).status, Some(0));
}

fn a_subnet_that_overlaps_a_route_is_refused(_: Who) {
    for subnet in ["198.51.100.0/24", "198.51.100.128/25", "198.0.0.0/8"] {
        let why = refusal(&["--subnet", subnet, "true"]);
        assert!(why.contains("198.51.100.0/24 dev uplink"), "{why}");
        assert!(why.ends_with("\nsee: cargo workshop doctor subnet\n"), "{why}");
    }
    let _one = web(&[]);
    let before = host();
    let why = refusal(&["--bridge", "other", "true"]);
    assert!(why.contains("10.77.0.0/24 dev workshop0"), "{why}");
    let why = refusal(&["--subnet", "10.78.0.0/24", "true"]);
    assert!(why.contains("has the address 10.77.0.1/24"), "{why}");
    assert_eq!(host(), before);
}

fn what_is_no_subnet_or_name_is_refused(_: Who) {
    for words in [
        ["--subnet", "10.77.0.0"],
        ["--subnet", "10.77.0.1/24"],
        ["--subnet", "10.77.0.0/31"],
        ["--subnet", "fd00::/64"],
        ["--ip", "10.77.0"],
        ["--ip", "fd00::2"],
        ["--bridge", ""],
        ["--bridge", "../x"],
        ["--bridge", "sixteen-letters-"],
    ] {
        let why = refusal(&[&words[..], &["true"]].concat());
        assert!(why.contains(words[0]), "{words:?}: {why}");
    }
}

fn somebody_elses_link_is_refused_and_left_alone(_: Who) {
    let wire = Wire::open().unwrap();
    wire.add_bridge(BRIDGE).unwrap();
    // Whether it has no address, another's, or the one that ours would have.
    for address in [None, Some([192, 0, 2, 1]), Some([10, 77, 0, 1])] {
        if let Some(address) = address {
            wire.add_address(BRIDGE, std::net::Ipv4Addr::from(address), 24).unwrap();
        }
        let before = host();
        assert!(refusal(&["true"]).contains("there is a link workshop0 that is not ours"));
        assert_eq!(host(), before);
    }
    Rtnetlink::open().unwrap().delete(BRIDGE).unwrap();
    let why = refusal(&["--bridge", "uplink", "true"]);
    assert!(why.contains("there is a link uplink that is not ours"), "{why}");
}

fn a_bridge_that_was_only_half_made_is_made_anew(_: Who) {
    // As a runtime leaves it that is killed between making the bridge and giving it an address.
    let group = 0x6377;
    Rtnetlink::open().unwrap().create_bridge(BRIDGE, [0x02, 0, 0, 0, 0, 1], group).unwrap();
    assert!(inside(&[], &["@wire"]).contains("via 10.77.0.1"));
    assert!(!has_bridge());
}

fn eight_containers_at_once_have_eight_addresses(_: Who) {
    let script = "/probe @wire; echo ready; read end";
    let [volume, probe] = &probe();
    let mut command = command(BINARY, &[volume, probe, "sh", "-c", script]);
    command.stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut children: Vec<_> = (0..8).map(|_| command.spawn().unwrap()).collect();
    let mut addresses = BTreeSet::new();
    for child in &mut children {
        let lines = BufReader::new(child.stdout.take().unwrap()).lines().map(Result::unwrap);
        let lines: Vec<_> = lines.take_while(|line| line != "ready").collect();
        addresses.extend(
            lines
                .into_iter()
                .filter(|line| line.ends_with("on eth0") && line.starts_with("address")),
        );
    }
    let expected = (2..10).map(|n| format!("address 10.77.0.{n}/24 on eth0"));
    assert_eq!(addresses, expected.collect());
    assert_eq!(ports(), 8);
    // And all end at once.
    for child in &mut children {
        drop(child.stdin.take());
    }
    for mut child in children {
        child.wait().unwrap();
    }
    assert!(!has_bridge());
}

/// So the bridge is made and removed again and again, by several processes at once.
fn containers_may_come_while_the_last_one_goes(_: Who) {
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for _ in 0..5 {
                    let outcome = step04(&["true"]);
                    assert_eq!(outcome.status, Some(0), "{outcome:?}");
                    assert_eq!(outcome.stderr, "");
                }
            });
        }
    });
    assert!(!has_bridge());
}

fn the_bridge_goes_with_its_last_container(_: Who) {
    let before = host();
    let (one, two) = (web(&[]), web(&[]));
    assert_eq!(ports(), 2);
    drop(one);
    eventually("its cable is gone", || ports() == 1);
    assert!(get("10.77.0.3:80", "/").contains("hello 10.77.0.1"));
    assert!(inside(&[], &["@get", "10.77.0.3:80"]).contains("hello 10.77.0."));
    drop(two);
    assert!(!has_bridge());
    eventually("all is as before", || host() == before);
}

fn an_address_rests_before_it_is_given_out_again(_: Who) {
    let (one, _two) = (web(&[]), web(&[]));
    drop(one);
    assert!(inside(&[], &["@get", "10.77.0.3:80"]).contains("hello 10.77.0.4"));
}

fn a_killed_runtime_leaves_the_others_alone(_: Who) {
    let (one, _two) = (web(&[]), web(&[]));
    one.kill();
    eventually("its cable is gone", || ports() == 1);
    assert!(get("10.77.0.3:80", "/").contains("hello 10.77.0.1"));
    assert!(inside(&[], &["@get", "10.77.0.3:80"]).contains("hello 10.77.0.4"));
    assert!(get("10.77.0.3:80", "/").contains("hello 10.77.0.1"));
}

fn the_next_command_removes_what_a_killed_runtime_left(_: Who) {
    web(&["--ip", "10.77.0.50"]).kill();
    eventually("its cable is gone", || ports() == 0);
    assert!(has_bridge()); // nobody is there who could have removed it
    assert_eq!(step04(&["--ip", "10.77.0.50", "true"]).status, Some(0));
    assert!(!has_bridge());
    // One that ends in an error cleans up, too.
    web(&[]).kill();
    refusal(&["--ip", "192.0.2.1", "true"]);
    assert!(!has_bridge());
}

/// The kernel takes some time to remove a network namespace, and what is plugged into it.
fn an_address_leads_to_its_newest_owner(_: Who) {
    let _one = web(&[]); // so that the bridge stays
    for kill in [false, true, false, true, false, true] {
        let next = web(&["--ip", "10.77.0.50"]);
        assert!(get("10.77.0.50:80", "/").contains("hello 10.77.0.1"));
        assert_eq!(ports(), 2);
        if kill { next.kill() } else { drop(next) }
    }
    assert_eq!(step04(&["true"]).status, Some(0)); // sweeps
}

fn a_full_subnet_is_an_error(_: Who) {
    let options = ["--subnet", "10.78.0.0/30"];
    let one = web(&options);
    let why = refusal(&[&options[..], &["true"]].concat());
    assert!(why.contains("all addresses of 10.78.0.0/30 are taken"), "{why}");
    assert!(get("10.78.0.2:80", "/").contains("hello 10.78.0.1"));
    drop(one);
    assert_eq!(step04(&[&options[..], &["true"]].concat()).status, Some(0));
}

fn a_container_that_cannot_start_leaves_nothing(_: Who) {
    assert_eq!(step04(&["/not/there"]).status, Some(127));
    assert_eq!(step04(&["/etc/hosts"]).status, Some(126));
    assert!(!has_bridge());
}

fn a_container_that_fails_late_leaves_nothing(_: Who) {
    // The child fails only after its cable has been plugged in.
    assert!(
        refusal(&["--workdir", "/etc/hosts", "true"]).contains("/etc/hosts is not a directory")
    );
    assert!(!has_bridge());
}

fn a_plain_user_is_told_what_to_do(_: Who) {
    let why = refusal(&["true"]);
    assert!(why.contains("run as root, or in the lab: cargo workshop lab"), "{why}");
}

fn a_container_with_the_hosts_network_has_no_place_on_a_bridge(_: Who) {
    assert!(refusal(&["--share", "net", "true"]).contains("leave out --share net"));
    assert!(refusal(&["--user", "true"]).contains("run as root"));
}

fn a_machine_behind_a_tap_device_is_switched_and_not_routed(_: Who) {
    let example = Path::new(BINARY).with_file_name("examples").join("tap");
    let mut example = command(example.to_str().unwrap(), &[]);
    let _one = web(&[]);
    let (machine, line) = Running::start(&mut example);
    assert!(line.starts_with("10.77.0.200 is 02:42:0a:4d:00:c8 behind tap-vm"), "{line}");
    assert_eq!(ports(), 2);
    // How many packets the host's IP code has received (RFC 2011): it counts those for the bridge
    // itself, and not those for the machine.
    let received = || -> usize {
        let counters = read("/proc/net/snmp");
        let ip: Vec<_> = counters.lines().filter(|line| line.starts_with("Ip:")).collect();
        let at = ip[0].split(' ').position(|name| name == "InReceives").unwrap();
        ip[1].split(' ').nth(at).unwrap().parse().unwrap()
    };
    let before = received();
    assert_eq!(inside(&[], &["@ping", "10.77.0.200"]), "10.77.0.200 answered\n");
    assert_eq!(received(), before);
    assert_eq!(inside(&[], &["@ping", "10.77.0.1"]), "10.77.0.1 answered\n");
    assert_ne!(received(), before);
    machine.kill();
}
