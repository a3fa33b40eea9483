//! The exercises of step 4, each tried on the kernel by itself; the links that they need are made
//! by other people's netlink code.

use std::net::{Ipv4Addr, UdpSocket};
use std::os::fd::AsRawFd as _;
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use nix::net::if_::if_nametoindex;
use nix::sched::CloneFlags;
use step04_bridge_veth::{Rtnetlink, configure};
use workshop::lab::Who;
use workshop::suite::{Test, read, suite};
use workshop::test;
use workshop::verdict::{Held, expect, expect_ok};
use workshop::wire::Wire;

static TESTS: &[Test] = &[
    test!(ex4_1_the_message_makes_a_bridge, [Root, LabRoot]),
    test!(ex4_2_the_far_end_is_born_in_the_container, [Root, LabRoot]),
    test!(ex4_3_the_container_has_loopback_address_and_route, [Root, LabRoot]),
];

const GROUP: u32 = 0x6377;
const MAC: [u8; 6] = [0x02, 0x42, 10, 99, 0, 1];

fn main() -> ExitCode {
    suite(TESTS)
}

/// A file about a link of the lab's host, in /sys/class/net.
fn about(link: &str, file: &str) -> String {
    let path = format!("/sys/class/net/{link}/{file}");
    if Path::new(&path).exists() { read(path) } else { "(there is no such link)".into() }
}

fn is_up(link: &str) -> bool {
    let flags = about(link, "flags");
    u32::from_str_radix(flags.trim_start_matches("0x"), 16).is_ok_and(|flags| flags & 1 == 1)
}

/// Deletes a link of the lab's host when the test ends.
struct Gone(&'static str);

impl Drop for Gone {
    fn drop(&mut self) {
        Rtnetlink::open().and_then(|mut rt| rt.delete(self.0)).unwrap();
    }
}

fn ex4_1_the_message_makes_a_bridge(_: Who) {
    let look = "RTM_NEWLINK in rtnetlink(7): flags of the message, flags of the link, attributes; \
                `strace -e trace=sendmsg ip link add b type bridge` shows ip's own";
    let _gone = Gone("b");
    let mut rt = Rtnetlink::open().unwrap();
    let made = rt.create_bridge("b", MAC, GROUP);
    expect_ok(made, "the kernel makes a bridge of your message", look);
    let bridge = Path::new("/sys/class/net/b/bridge").exists();
    expect(bridge, "the link b is a bridge", "/sys/class/net/b/bridge is not there", look);
    let mac = about("b", "address");
    let expected = "its hardware address is 02:42:0a:63:00:01, as asked for";
    expect(mac == "02:42:0a:63:00:01", expected, &format!("it is {mac}"), look);
    let group = about("b", "netdev_group");
    let expected = "its group is 25463 (0x6377), by which we know our links";
    expect(group == GROUP.to_string(), expected, &format!("it is {group}"), look);
    expect(is_up("b"), "it is up", "it is down, and forwards nothing", look);
    let again = rt.create_bridge("b", [0x02, 0x42, 0, 0, 0, 9], GROUP);
    let expected = "a second one of that name is refused (EEXIST)";
    expect(again.is_err(), expected, "the one that is there was changed", look);
}

fn ex4_2_the_far_end_is_born_in_the_container(_: Who) {
    let look = "veth(4), and the attributes of both ends: for the near one IFLA_MASTER and IFF_UP, \
                for the far one IFLA_NET_NS_PID";
    let (_bridge, _leaked) = (Gone("b"), Gone("eth0"));
    let wire = Wire::open().unwrap();
    wire.add_bridge("b").unwrap();
    let index = if_nametoindex("b").unwrap();
    let container = Held::new(CloneFlags::CLONE_NEWNET);
    let made = Rtnetlink::open().unwrap().create_veth("v", GROUP, index, container.pid(), MAC);
    expect_ok(made, "the kernel makes a veth pair of your message", look);
    let here = wire.links().unwrap();
    let expected = "eth0, the far end, is in the container's network namespace";
    let leaked = here.iter().any(|link| link == "eth0");
    expect(!leaked, expected, "it is on the host: leaked", look);
    let there = container.in_network(|| Wire::open().unwrap().links().unwrap().join(" "));
    let found = format!("the container has: {there}");
    expect(there.split(' ').any(|link| link == "eth0"), expected, &found, look);
    let plugged = Path::new("/sys/class/net/b/brif/v").exists();
    expect(plugged, "the near end is plugged into the bridge", "it is not", look);
    expect(is_up("v"), "the near end is up", "it is down: no packet passes", look);
    let group = about("v", "netdev_group");
    let expected = "its group is 25463 (0x6377), by which we know our links";
    expect(group == GROUP.to_string(), expected, &format!("it is {group}"), look);
}

fn ex4_3_the_container_has_loopback_address_and_route(_: Who) {
    let look = "what `ip link`, `ip address` and `ip route` show in the container; the order \
                matters for the route";
    let container = Held::new(CloneFlags::CLONE_NEWNET);
    let wire = Wire::open().unwrap();
    wire.add_veth("v", "eth0", container.namespace("net").as_raw_fd()).unwrap();
    wire.set_up("v").unwrap();
    container.in_network(|| {
        let address = Ipv4Addr::new(10, 99, 0, 2);
        let configured = configure(address, "10.99.0.0/24".parse().unwrap());
        expect_ok(configured, "lo, eth0 and the route are set up", look);
        expect_ok(send_to_ourselves(), "a packet to 127.0.0.1 arrives", look);
        let lines = Wire::open().unwrap().describe().unwrap();
        let has = |line: &str| lines.iter().any(|found| found.starts_with(line));
        let found = format!("there is: {}", lines.join("; "));
        expect(has("address 10.99.0.2/24 on eth0"), "eth0 has 10.99.0.2/24", &found, look);
        let subnet = has("route Inet(10.99.0.0)/24");
        expect(subnet, "eth0 is up, and with it the way to 10.99.0.0/24", &found, look);
        let default = has("route default/0 via Inet(10.99.0.1)");
        expect(default, "everything else goes to the bridge, 10.99.0.1", &found, look);
        String::new()
    });
}

fn send_to_ourselves() -> std::io::Result<()> {
    let socket = UdpSocket::bind("127.0.0.1:0")?;
    socket.set_read_timeout(Some(Duration::from_secs(1)))?;
    socket.send_to(b"hello", socket.local_addr()?)?;
    socket.recv(&mut [0; 8]).map(drop)
}
