//! Step 5 against the real kernel: which packets arrive, and from whom.

use std::fs::{self, File};
use std::net::{TcpListener, UdpSocket};
use std::path::Path;
use std::process::{Command, ExitCode};
use std::time::Duration;

use nix::sched::{CloneFlags, setns};
use step04_bridge_veth::netlink::{Message, NLM_F_CREATE};
use step05_nat::nftables::{
    Hook, Kind, Nftables, accept, add_chain, add_rule, add_table, delete_table, iifname, oifname,
};
use workshop::internet::UPLINK;
use workshop::lab::Who;
use workshop::snapshot::Snapshot;
use workshop::suite::{
    Outcome, Running, Test, command, eventually, get, probe_volume, read, run, suite, this_program,
};
use workshop::test;
use workshop::wire::Wire;

const BINARY: &str = env!("CARGO_BIN_EXE_step05-nat");
const IP_FORWARD: &str = "/proc/sys/net/ipv4/ip_forward";
const BRIDGES_ASK_IPTABLES: &str = "/proc/sys/net/bridge/bridge-nf-call-iptables";
const OTHER: [&str; 4] = ["--bridge", "other", "--subnet", "10.78.0.0/24"];

static TESTS: &[Test] = &[
    test!(the_internet_sees_the_hosts_address, [Root, LabRoot], by_hand),
    test!(who_is_asked_on_the_bridge_sees_the_containers_address, [Root, LabRoot], by_hand),
    test!(a_published_port_is_reached_from_everywhere, [Root, LabRoot], by_hand),
    test!(a_container_reaches_its_own_published_port, [Root, LabRoot], by_hand),
    test!(a_published_udp_port_is_reached_from_everywhere, [Root, LabRoot], by_hand),
    test!(a_port_published_at_one_address_is_not_at_the_others, [Root, LabRoot]),
    test!(a_port_that_a_process_has_is_refused, [Root, LabRoot]),
    test!(a_port_that_a_container_has_is_refused, [Root, LabRoot]),
    test!(what_is_no_port_is_refused, [Root]),
    test!(ports_come_and_go_with_their_containers, [Root, LabRoot], by_hand),
    test!(forwarding_is_set_back_to_what_it_was, [Root, LabRoot], by_hand),
    test!(what_forwarding_changes_with_it_is_set_back_too, [Root, LabRoot]),
    test!(forwarding_stays_on_while_another_bridge_needs_it, [Root, LabRoot], by_hand),
    test!(somebody_elses_table_is_left_alone, [Root, LabRoot]),
    test!(somebody_elses_dropping_chain_is_named_with_the_fix, [Root, LabRoot]),
    test!(the_next_command_removes_what_a_killed_runtime_left, [Root, LabRoot]),
    test!(a_killed_runtimes_port_is_the_next_ones, [Root, LabRoot]),
    test!(a_container_cannot_reach_the_hosts_loopback, [Root, LabRoot], by_hand),
    test!(a_machine_outside_cannot_reach_a_container_past_its_ports, [Root, LabRoot], by_hand),
    test!(containers_of_different_bridges_cannot_reach_each_other, [Root, LabRoot], by_hand),
    test!(a_plain_user_is_told_what_to_do, [Plain]),
];

fn main() -> ExitCode {
    suite(TESTS)
}

fn step05(words: &[&str]) -> Outcome {
    run(&mut command(BINARY, words), Duration::from_secs(60))
}

/// The options that put this program into a container.
fn probe() -> [String; 2] {
    ["--volume".to_owned(), probe_volume()]
}

/// How a command ends that runs a probe in a container.
fn try_inside(options: &[&str], words: &[&str]) -> Outcome {
    let [volume, probe] = &probe();
    step05(&[options, &[volume, probe, "/probe"], words].concat())
}

/// What a probe prints in a container; it must end well, and nobody may complain.
fn inside(options: &[&str], words: &[&str]) -> String {
    let outcome = try_inside(options, words);
    assert_eq!((outcome.status, &*outcome.stderr), (Some(0), ""), "{words:?}: {outcome:?}");
    outcome.stdout
}

/// What the command says when it refuses.
fn refusal(words: &[&str]) -> String {
    let outcome = step05(words);
    assert_eq!(outcome.status, Some(125), "{words:?}: {outcome:?}");
    outcome.stderr
}

/// A container with an HTTP server on port 80.
fn web(options: &[&str]) -> Running {
    Running::container(BINARY, options, "@serve 0.0.0.0:80")
}

/// What the second host on the internet is answered at this address and port of ours.
fn from_outside(path: &str) -> String {
    get("198.51.100.1:80", path)
}

/// How many cables the bridge has.
fn ports() -> usize {
    fs::read_dir("/sys/class/net/workshop0/brif").map_or(0, Iterator::count)
}

#[track_caller]
fn assert_has(answer: &str, part: &str) {
    assert!(answer.contains(part), "no {part:?} in: {answer}");
}

fn the_internet_sees_the_hosts_address(_: Who) {
    for options in [&[][..], &OTHER] {
        let answer = inside(options, &["@get", "198.51.100.1:80"]);
        assert_eq!(answer.trim().lines().last(), Some(&*UPLINK.to_string()), "{answer}");
    }
}

fn who_is_asked_on_the_bridge_sees_the_containers_address(_: Who) {
    let _one = web(&[]);
    assert_has(&inside(&[], &["@get", "10.77.0.2:80"]), "hello 10.77.0.3");
    let mut server = Command::new(this_program());
    let mut server = server.args(["@serve", "0.0.0.0:8000"]).spawn().unwrap();
    eventually("the server on the host is ready", || get("127.0.0.1:8000", "/").contains("hello"));
    for address in ["10.77.0.1:8000", "198.51.100.10:8000"] {
        assert_has(&inside(&["--ip", "10.77.0.9"], &["@get", address]), "hello 10.77.0.9");
    }
    server.kill().unwrap();
    server.wait().unwrap();
}

fn a_published_port_is_reached_from_everywhere(_: Who) {
    let _one = web(&["--publish", "8080:80"]);
    assert_has(&from_outside("/tcp/198.51.100.10/8080"), "hello 198.51.100.2");
    for address in ["198.51.100.10:8080", "10.77.0.1:8080", "127.0.0.1:8080", "127.1.2.3:8080"] {
        assert_has(&get(address, "/"), "hello ");
    }
    for address in ["198.51.100.10:8080", "10.77.0.1:8080"] {
        assert_has(&inside(&[], &["@get", address]), "hello ");
        assert_has(&inside(&OTHER, &["@get", address]), "hello ");
    }
    // And no other port.
    assert_has(&from_outside("/tcp/198.51.100.10/80"), "Connection refused");
    assert_has(&get("198.51.100.10:80", "/"), "Connection refused");
}

fn a_container_reaches_its_own_published_port(_: Who) {
    // Where the module br_netfilter is loaded, a bridge rewrites addresses by itself, and then
    // does not send a frame out of the port that it came in by.
    if Path::new(BRIDGES_ASK_IPTABLES).exists() {
        fs::write(BRIDGES_ASK_IPTABLES, "0").unwrap();
    }
    let script = "/probe @serve 0.0.0.0:80 > /dev/null &
        while :; do case $(/probe @get 127.0.0.1:80) in *hello*) break;; esac; done
        /probe @get 198.51.100.10:8080; /probe @get 10.77.0.1:8080";
    let [volume, probe] = &probe();
    let outcome = step05(&["-p", "8080:80", volume, probe, "sh", "-c", script]);
    assert_eq!(outcome.stdout.matches("hello 10.77.0.1").count(), 2, "{outcome:?}");
}

fn a_published_udp_port_is_reached_from_everywhere(_: Who) {
    let _one = Running::container(BINARY, &["-p", "5353:53/udp"], "@echo 0.0.0.0:53");
    assert_has(&from_outside("/udp/198.51.100.10/5353"), "hello 198.51.100.2");
    for address in ["198.51.100.10:5353", "10.77.0.1:5353", "127.0.0.1:5353"] {
        let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        socket.connect(address).unwrap(); // takes answers from there only
        socket.send(b"ping").unwrap();
        let mut answer = [0; 100];
        let len = socket.recv(&mut answer).unwrap_or_else(|error| panic!("{address}: {error}"));
        assert_has(&String::from_utf8_lossy(&answer[..len]), "hello ");
    }
    assert_has(&from_outside("/tcp/198.51.100.10/5353"), "Connection refused");
}

fn a_port_published_at_one_address_is_not_at_the_others(_: Who) {
    let (local, outer) = ("127.0.0.1:8080:80", "198.51.100.10:8081:80");
    let _one = web(&["-p", local, "-p", outer]);
    assert_has(&get("127.0.0.1:8080", "/"), "hello 10.77.0.1");
    assert_has(&from_outside("/tcp/198.51.100.10/8081"), "hello 198.51.100.2");
    for address in ["198.51.100.10:8080", "10.77.0.1:8080", "127.0.0.1:8081", "10.77.0.1:8081"] {
        assert_has(&get(address, "/"), "Connection refused");
    }
    assert_has(&from_outside("/tcp/198.51.100.10/8080"), "Connection refused");
    assert_has(
        &refusal(&["-p", "192.0.2.1:80:80", "true"]),
        "192.0.2.1 is not an address of this host",
    );
}

fn a_port_that_a_process_has_is_refused(_: Who) {
    let before = Snapshot::take(&[]).unwrap();
    let tcp = TcpListener::bind("127.0.0.1:8080").unwrap();
    let udp = UdpSocket::bind("0.0.0.0:5353").unwrap();
    assert_has(&refusal(&["-p", "8080:80", "true"]), "the port 8080/tcp is already in use");
    assert_has(
        &refusal(&["-p", "127.0.0.1:5353:53/udp", "true"]),
        "the port 5353/udp is already in use",
    );
    before.ensure_restored(&[]).unwrap();
    // Another address or another protocol is another port.
    assert_eq!(
        step05(&["-p", "198.51.100.10:8080:80", "-p", "8080:80/udp", "true"]).status,
        Some(0)
    );
    drop((tcp, udp));
    assert_eq!(step05(&["-p", "8080:80", "-p", "5353:53/udp", "true"]).status, Some(0));
}

fn a_port_that_a_container_has_is_refused(_: Who) {
    let _one = web(&["-p", "8080:80", "-p", "5353:53/udp"]);
    let before = Snapshot::take(&[]).unwrap();
    for port in ["8080:81", "127.0.0.1:8080:80"] {
        for options in [&[][..], &OTHER] {
            let why = refusal(&[options, &["-p", port, "true"]].concat());
            assert_has(&why, "the port 8080/tcp is already in use");
        }
    }
    assert_has(&refusal(&["-p", "5353:53/udp", "true"]), "the port 5353/udp is already in use");
    assert_has(&refusal(&["-p", "81:81", "-p", "81:82", "true"]), "81/tcp is published twice");
    before.ensure_restored(&[]).unwrap();
    // Nor can a process of the host have it.
    assert!(TcpListener::bind("0.0.0.0:8080").is_err());
    assert!(UdpSocket::bind("127.0.0.1:5353").is_err());
    assert_has(&from_outside("/tcp/198.51.100.10/8080"), "hello 198.51.100.2");
}

fn what_is_no_port_is_refused(_: Who) {
    for port in [
        "",
        "80",
        ":80",
        "80:",
        "0:80",
        "80:0",
        "65536:80",
        "80:65536",
        "80:-1",
        "a:b",
        "80:80/",
        "80:80/sctp",
        "80:80/TCP",
        "localhost:80:80",
        "1.2.3:80:80",
        "[::1]:80:80",
        "1.2.3.4:80:80:80",
        "80-81:80-81",
        "80 :80",
    ] {
        assert_has(&refusal(&["--publish", port, "true"]), "--publish");
    }
}

fn ports_come_and_go_with_their_containers(_: Who) {
    let one = web(&["-p", "8081:80"]);
    let two = web(&["-p", "8082:80", "-p", "8083:80"]);
    assert_has(&from_outside("/tcp/198.51.100.10/8081"), "hello 198.51.100.2");
    drop(one);
    // Then it is the host itself that refuses, and not what is left of the container.
    eventually("its cable is gone", || ports() == 1);
    assert_has(&from_outside("/tcp/198.51.100.10/8081"), "Connection refused");
    for port in ["8082", "8083"] {
        assert_has(&from_outside(&format!("/tcp/198.51.100.10/{port}")), "hello 198.51.100.2");
        assert_has(&get(&format!("127.0.0.1:{port}"), "/"), "hello 10.77.0.1");
    }
    // Who has the first one's address does not have its ports.
    let _three = web(&["--ip", "10.77.0.2", "-p", "8084:80"]);
    assert_has(&from_outside("/tcp/198.51.100.10/8081"), "Connection refused");
    assert_has(&from_outside("/tcp/198.51.100.10/8084"), "hello 198.51.100.2");
    drop(two);
    assert_has(&get("127.0.0.1:8084", "/"), "hello 10.77.0.1");
}

fn forwarding_is_set_back_to_what_it_was(_: Who) {
    for before in ["0", "1"] {
        fs::write(IP_FORWARD, before).unwrap();
        let (one, two) = (web(&[]), web(&[]));
        assert_eq!(read(IP_FORWARD), "1");
        drop(one);
        assert_eq!(read(IP_FORWARD), "1");
        drop(two);
        assert_eq!(read(IP_FORWARD), before);
    }
    fs::write(IP_FORWARD, "0").unwrap();
}

fn what_forwarding_changes_with_it_is_set_back_too(_: Who) {
    // A host that takes no redirects, and forwards only what comes in by one link.
    let set =
        |name: &str, value| fs::write(format!("/proc/sys/net/ipv4/conf/{name}"), value).unwrap();
    let redirects = read("/proc/sys/net/ipv4/conf/all/accept_redirects");
    set("all/accept_redirects", "0");
    set("uplink/forwarding", "1");
    let before = Snapshot::take(&[]).unwrap();
    assert_eq!(step05(&["true"]).status, Some(0));
    before.ensure_restored(&[]).unwrap();
    // Of two bridges the first to come is the first to leave, too.
    let first = web(&[]);
    let second = web(&OTHER);
    drop(first);
    drop(second);
    before.ensure_restored(&[]).unwrap();
    set("uplink/forwarding", "0");
    set("all/accept_redirects", &redirects);
}

fn forwarding_stays_on_while_another_bridge_needs_it(_: Who) {
    for first_leaves_first in [true, false] {
        let one = web(&[]);
        let other = web(&[&OTHER[..], &["-p", "8080:80"]].concat());
        let (first, last) = if first_leaves_first { (one, other) } else { (other, one) };
        drop(first);
        assert_eq!(read(IP_FORWARD), "1");
        drop(last);
        assert_eq!(read(IP_FORWARD), "0");
    }
}

const INPUT: u32 = 1;
const FORWARD: u32 = 2;
const DROP: u32 = 0;
const ACCEPT: u32 = 1;

/// A chain of somebody else's in a new table.
fn chain(family: u8, table: &str, chain: &str, hook: u32, policy: u32) {
    // From linux/netfilter/nf_tables.h: NFT_MSG_NEWTABLE and NFT_MSG_NEWCHAIN, and below
    // attributes of NFTA_TABLE_, NFTA_CHAIN_ and NFTA_HOOK_. Numbers are big-endian.
    let message = |kind: u16| Message::new(10 << 8 | kind, NLM_F_CREATE, &[family, 0, 0, 0]);
    let number = |n: u32| n.to_be_bytes();
    let hook = |m: Message| m.attr(1, &number(hook)).attr(2, &number(0)); // priority 0
    let chain = message(3).text(1, table).text(3, chain).nest(4, hook);
    let chain = chain.attr(5, &number(policy)).text(7, "filter");
    Nftables::open().unwrap().commit(vec![message(0).text(1, table), chain]).unwrap();
}

fn remove_table(family: u8, table: &str) {
    let message = Message::new(10 << 8 | 2, 0, &[family, 0, 0, 0]);
    Nftables::open().unwrap().commit(vec![message.text(1, table)]).unwrap();
}

fn somebody_elses_table_is_left_alone(_: Who) {
    // One that looks like ours, with a comment and rules of theirs; and one with our bridge's name.
    let rules = |table| {
        vec![
            add_table(table, "theirs"),
            add_chain(table, "forward", Hook::Forward, Kind::Filter),
            add_rule(
                table,
                "forward",
                &[iifname("workshop0", false), accept()].concat(),
                "10.77.0.2",
            ),
        ]
    };
    let mut nft = Nftables::open().unwrap();
    nft.commit([rules("theirs"), rules("other")].concat()).unwrap();
    let before = Snapshot::take(&[]).unwrap();
    let one = web(&["-p", "8080:80"]);
    assert_has(&from_outside("/tcp/198.51.100.10/8080"), "hello 198.51.100.2");
    let why = refusal(&[&OTHER[..], &["true"]].concat());
    assert_has(&why, "there is a firewall table ip other that is not ours");
    drop(one);
    before.ensure_restored(&[]).unwrap();
    nft.commit(vec![delete_table("theirs"), delete_table("other")]).unwrap();
}

fn somebody_elses_dropping_chain_is_named_with_the_fix(_: Who) {
    const IPV4: u8 = 2;
    const INET: u8 = 1;
    chain(IPV4, "filter", "FORWARD", FORWARD, DROP); // Docker's
    let outcome = step05(&["true"]);
    assert_eq!(outcome.status, Some(0), "{outcome:?}");
    assert_has(&outcome.stderr, "the firewall chain FORWARD of the table filter drops");
    assert_has(&outcome.stderr, "iptables -I DOCKER-USER -i workshop0 -j ACCEPT; ");
    assert_has(&outcome.stderr, "iptables -I DOCKER-USER -o workshop0 -j ACCEPT ");
    remove_table(IPV4, "filter");

    for (family, name) in [(IPV4, "ip"), (INET, "inet")] {
        chain(family, "theirs", "on-the-way", FORWARD, DROP);
        let outcome = step05(&["true"]);
        assert_has(&outcome.stderr, "the firewall chain on-the-way of the table theirs drops");
        for direction in ["iifname", "oifname"] {
            let fix =
                format!("nft insert rule {name} theirs on-the-way {direction} workshop0 accept");
            assert_has(&outcome.stderr, &fix);
        }
        remove_table(family, "theirs");
    }

    // Others do not matter.
    for (hook, policy) in [(INPUT, DROP), (FORWARD, ACCEPT)] {
        chain(IPV4, "theirs", "harmless", hook, policy);
        assert_eq!(step05(&["true"]).stderr, "");
        remove_table(IPV4, "theirs");
    }

    // The warning is right, and so is the fix.
    chain(IPV4, "theirs", "on-the-way", FORWARD, DROP);
    let ping = || try_inside(&[], &["@ping", "198.51.100.1"]);
    assert_has(&ping().stderr, "no answer");
    let fix = |rule| add_rule("theirs", "on-the-way", &[rule, accept()].concat(), "");
    let fixes = [iifname("workshop0", false), oifname("workshop0", false)].map(fix);
    Nftables::open().unwrap().commit(fixes.to_vec()).unwrap();
    assert_has(&ping().stdout, "198.51.100.1 answered");
    remove_table(IPV4, "theirs");
    assert_eq!(step05(&["true"]).stderr, "");
}

fn the_next_command_removes_what_a_killed_runtime_left(_: Who) {
    let before = Snapshot::take(&[]).unwrap();
    web(&["-p", "8080:80"]).kill();
    assert_eq!(read(IP_FORWARD), "1"); // nobody is there who could have set it back
    assert_eq!(step05(&["--ip", "10.77.0.99", "true"]).status, Some(0));
    before.ensure_restored(&[]).unwrap();

    // Also if others go on.
    let (one, _two) = (web(&["-p", "8081:80"]), web(&["-p", "8082:80"]));
    one.kill();
    assert_eq!(step05(&["--ip", "10.77.0.99", "true"]).status, Some(0));
    assert_has(&from_outside("/tcp/198.51.100.10/8081"), "Connection refused");
    assert_has(&from_outside("/tcp/198.51.100.10/8082"), "hello 198.51.100.2");
}

fn a_killed_runtimes_port_is_the_next_ones(_: Who) {
    web(&["--ip", "10.77.0.50", "-p", "8080:80"]).kill();
    let _next = web(&["-p", "8080:80"]);
    assert_has(&from_outside("/tcp/198.51.100.10/8080"), "hello 198.51.100.2");
    assert_has(&get("127.0.0.1:8080", "/"), "hello 10.77.0.1");
}

/// Through the bridge's route_localnet, without which 127.0.0.1 would not lead to published ports
/// (CVE-2020-8558).
fn a_container_cannot_reach_the_hosts_loopback(_: Who) {
    let socket = UdpSocket::bind("0.0.0.0:9000").unwrap();
    // After the answer to a ping the MAC address is known: what is sent then waits for nothing, and so
    // does not go down with the container.
    let script = "/probe @ping 10.77.0.1; \
                  for a in 127.0.0.1 127.1.2.3 10.77.0.1; do /probe @send eth0 $a:9000 $a; done";
    let [volume, probe] = &probe();
    assert_eq!(step05(&[volume, probe, "sh", "-ec", script]).status, Some(0));
    let mut text = [0; 100];
    socket.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    let (len, from) = socket.recv_from(&mut text).unwrap();
    // The last of them is the first to arrive.
    assert_eq!((&text[..len], from.ip().to_string().as_str()), (&b"10.77.0.1"[..], "10.77.0.2"));
}

fn a_machine_outside_cannot_reach_a_container_past_its_ports(_: Who) {
    let ours = fs::read_link("/proc/self/ns/net").unwrap();
    let another = |entry: fs::DirEntry| {
        let path = entry.path().join("ns/net");
        fs::read_link(&path).is_ok_and(|link| link != ours).then_some(path)
    };
    let internet = fs::read_dir("/proc").unwrap().filter_map(Result::ok).find_map(another);
    let internet = File::open(internet.expect("the internet's process")).unwrap();
    // Somebody there who knows the way: it leads through us.
    let teach = move || {
        setns(internet, CloneFlags::CLONE_NEWNET).unwrap();
        Wire::open().unwrap().add_default_route(UPLINK).unwrap();
    };
    std::thread::spawn(teach).join().unwrap();
    let _one = web(&["-p", "8080:80"]);
    assert_has(&from_outside("/tcp/10.77.0.1/8080"), "hello 198.51.100.2"); // the way is known
    assert_has(&from_outside("/tcp/10.77.0.2/80"), "198.51.100.2 says: no answer");
}

fn containers_of_different_bridges_cannot_reach_each_other(_: Who) {
    let _one = web(&[]);
    assert_has(&inside(&[], &["@ping", "10.77.0.2"]), "10.77.0.2 answered");
    assert_has(&try_inside(&OTHER, &["@ping", "10.77.0.2"]).stderr, "no answer");
}

fn a_plain_user_is_told_what_to_do(_: Who) {
    assert_has(&refusal(&["true"]), "run as root, or in the lab: cargo workshop lab");
}
