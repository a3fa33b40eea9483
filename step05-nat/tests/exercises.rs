//! The exercises of step 5, each tried with packets: a container that the test has made by itself,
//! and the lab's internet.

use std::fs;
use std::net::Ipv4Addr;
use std::os::fd::AsRawFd as _;
use std::process::{Child, Command, ExitCode, Stdio};

use nix::sched::{CloneFlags, setns};
use step04_bridge_veth::Pool;
use step05_nat::nftables::{Hook, Kind, Nftables, add_chain, add_table, delete_table};
use step05_nat::{forwarding, ruleset};
use workshop::internet::{SERVER, UPLINK};
use workshop::lab::Who;
use workshop::suite::{Test, get, read, suite, this_program};
use workshop::test;
use workshop::verdict::{Held, apart, expect, expect_ok};
use workshop::wire::Wire;

static TESTS: &[Test] = &[
    test!(ex5_1_what_leaves_has_the_hosts_address, [Root, LabRoot]),
    test!(ex5_2_a_published_port_leads_into_the_container, [Root, LabRoot]),
    test!(ex5_3_the_host_is_a_router, [Root, LabRoot]),
];

/// The host's end of the cable, in the place of a bridge.
const LINK: &str = "v";
const HOST: Ipv4Addr = Ipv4Addr::new(10, 99, 0, 1);
const CONTAINER: Ipv4Addr = Ipv4Addr::new(10, 99, 0, 2);
const FORWARD: &str = "/proc/sys/net/ipv4/ip_forward";

fn main() -> ExitCode {
    suite(TESTS)
}

/// A network namespace with a cable to the host, and the host's firewall table as it was.
struct Container(Held);

impl Container {
    fn new() -> Self {
        let held = Held::new(CloneFlags::CLONE_NEWNET);
        let wire = Wire::open().unwrap();
        wire.add_veth(LINK, "eth0", held.namespace("net").as_raw_fd()).unwrap();
        wire.add_address(LINK, HOST, 24).unwrap();
        wire.set_up(LINK).unwrap();
        held.in_network(|| {
            let wire = Wire::open().unwrap();
            wire.set_up("lo").unwrap();
            wire.add_address("eth0", CONTAINER, 24).unwrap();
            wire.set_up("eth0").unwrap();
            wire.add_default_route(HOST).unwrap();
            String::new()
        });
        Self(held)
    }

    /// A server in it, on port 8000, that says hello.
    fn serve(&self, probe: &str) -> Server {
        let net = self.0.namespace("net");
        let mut command = Command::new(this_program());
        command.args([probe, "0.0.0.0:8000"]).stdout(Stdio::piped()).stdin(Stdio::null());
        // This process has one thread, so it may be in another network for a while.
        let home = fs::File::open("/proc/self/ns/net").unwrap();
        setns(&net, CloneFlags::CLONE_NEWNET).unwrap();
        let child = command.spawn().unwrap();
        setns(&home, CloneFlags::CLONE_NEWNET).unwrap();
        let mut server = Server(child);
        let mut line = [0; 6];
        std::io::Read::read_exact(server.0.stdout.as_mut().unwrap(), &mut line).unwrap();
        assert_eq!(&line, b"ready\n");
        server
    }
}

struct Server(Child);

impl Drop for Server {
    fn drop(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

/// Our table, and ip_forward as it was, when the test ends.
struct Restore(String);

impl Restore {
    fn forwarding() -> Self {
        let before = read(FORWARD);
        fs::write(FORWARD, "1").unwrap();
        Self(before)
    }
}

impl Drop for Restore {
    fn drop(&mut self) {
        let mut nft = Nftables::open().unwrap();
        if nft.table_comment(LINK).unwrap().is_some() {
            nft.commit(vec![delete_table(LINK)]).unwrap();
        }
        fs::write(FORWARD, &self.0).unwrap();
    }
}

fn ex5_1_what_leaves_has_the_hosts_address(_: Who) {
    let look = "three parts: from the subnet, out by another link than the bridge, masquerade; \
                `nft list ruleset` shows what the kernel understood";
    let container = Container::new();
    let _restore = Restore::forwarding();
    let rules = ruleset::base(LINK, "10.99.0.0/24".parse().unwrap());
    let written = Nftables::open().and_then(|mut nft| nft.commit(rules));
    expect_ok(written, "the kernel takes the rule", look);

    let answer = container.0.in_network(|| get(&format!("{SERVER}:80"), "/"));
    let expected = format!("the server on the internet sees {UPLINK}, the host's address");
    expect(answer.contains(&UPLINK.to_string()), &expected, &answer, look);
}

fn ex5_2_a_published_port_leads_into_the_container(_: Who) {
    let look = "for each port one rule in two chains: prerouting for what comes in, output for \
                what the host itself sends";
    let container = Container::new();
    let _restore = Restore::forwarding();
    let mut changes = vec![
        add_table(LINK, ruleset::NOTE),
        add_chain(LINK, "prerouting", Hook::Prerouting, Kind::Dnat),
        add_chain(LINK, "output", Hook::Output, Kind::Dnat),
    ];
    let ports = ["8080:8000".parse().unwrap(), "8080:8000/udp".parse().unwrap()];
    changes.extend(ruleset::published(LINK, CONTAINER, &ports));
    let written = Nftables::open().and_then(|mut nft| nft.commit(changes));
    expect_ok(written, "the kernel takes the rules", look);

    let _server = container.serve("@serve");
    let _echo = container.serve("@echo");
    let ask = |what: &str, address: String, path: &str| {
        let answer = get(&address, path);
        let expected = format!("{what}, the container's server answers");
        expect(answer.contains("hello"), &expected, &answer, look);
    };
    ask("at port 8080 of the host, from the host", format!("{UPLINK}:8080"), "/");
    let from_outside = |protocol: &str| format!("/{protocol}/{UPLINK}/8080");
    ask("at port 8080, from the internet", format!("{SERVER}:80"), &from_outside("tcp"));
    ask("at UDP port 8080, from the internet", format!("{SERVER}:80"), &from_outside("udp"));
    // A container, or the host, that asks for port 8080 of somebody else means somebody else.
    let elsewhere = get(&format!("{SERVER}:8080"), "/");
    let expected = "port 8080 of other hosts is not ours to catch";
    expect(!elsewhere.contains("hello"), expected, "our container answered", look);
}

fn ex5_3_the_host_is_a_router(_: Who) {
    let look = "/proc/sys/net/ipv4/ip_forward, and the file that notes that it was off";
    let container = Container::new();
    let before = read(FORWARD);
    fs::write(FORWARD, "0").unwrap();
    apart(|| {
        let pool = Pool::lock(LINK).unwrap();
        let enabled = forwarding::enable(&pool);
        let on = read(FORWARD);
        forwarding::restore(&pool).unwrap();
        let off = read(FORWARD);
        pool.remove_if_unused().unwrap();
        expect_ok(enabled, "forwarding is switched on", look);
        expect(
            on == "1",
            "a packet of the container may pass",
            "ip_forward is 0: ping hangs",
            look,
        );
        expect(
            off == "0",
            "after the last container the switch is back where it was",
            "ip_forward stays 1: nobody noted that it had been 0",
            look,
        );
        String::new()
    });
    fs::write(FORWARD, before).unwrap();
    drop(container);
}
