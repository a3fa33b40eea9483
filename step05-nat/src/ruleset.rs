//! Our table: one for each bridge, with the bridge's name.
//!
//! ```text
//! table ip workshop0 {
//!     comment "container-workshop"
//!     chain guard {
//!         type filter hook prerouting priority raw; policy accept;
//!         iifname "workshop0" ip daddr 127.0.0.0/8 drop
//!     }
//!     chain prerouting {
//!         type nat hook prerouting priority dstnat; policy accept;
//!         fib daddr type local tcp dport 8080 dnat to 10.77.0.2:80 comment "10.77.0.2"
//!     }
//!     chain output {
//!         type nat hook output priority dstnat; policy accept;
//!         fib daddr type local tcp dport 8080 dnat to 10.77.0.2:80 comment "10.77.0.2"
//!     }
//!     chain forward {
//!         type filter hook forward priority filter; policy accept;
//!         oifname "workshop0" ct state established,related accept
//!         oifname "workshop0" ct status dnat accept
//!         iifname "workshop0" accept
//!         oifname "workshop0" drop
//!     }
//!     chain postrouting {
//!         type nat hook postrouting priority srcnat; policy accept;
//!         ip saddr 10.77.0.0/24 oifname != "workshop0" masquerade
//!         ip saddr 10.77.0.0/24 oifname "workshop0" ct status dnat masquerade
//!         ip saddr 127.0.0.0/8 oifname "workshop0" ct status dnat masquerade
//!     }
//! }
//! ```

use std::net::Ipv4Addr;

use step04_bridge_veth::Cidr;
use step04_bridge_veth::netlink::Message;

use crate::Publish;
use crate::nftables::{
    Expression, Hook, Kind, accept, add_chain, add_rule, add_table, ct_dnat, ct_established, dnat,
    dport, drop, iifname, ip_daddr, ip_saddr, masquerade, oifname, to_this_host,
};

/// The table's comment, by which we know it.
pub const NOTE: &str = "container-workshop";

/// What every container of the bridge needs: the table, its chains, the rules for all.
// ANCHOR: base
#[must_use]
pub fn base(bridge: &str, subnet: Cidr) -> Vec<Message> {
    let rule = |chain, parts: &[Vec<Expression>]| add_rule(bridge, chain, &parts.concat(), "");
    let ours = || ip_saddr(subnet.network(), subnet.mask());
    let loopback = (Ipv4Addr::new(127, 0, 0, 0), 0xff00_0000);
    let to_bridge = || oifname(bridge, false);
    vec![
        add_table(bridge, NOTE),
        add_chain(bridge, "guard", Hook::Prerouting, Kind::Raw),
        add_chain(bridge, "prerouting", Hook::Prerouting, Kind::Dnat),
        add_chain(bridge, "output", Hook::Output, Kind::Dnat),
        add_chain(bridge, "forward", Hook::Forward, Kind::Filter),
        add_chain(bridge, "postrouting", Hook::Postrouting, Kind::Snat),
        // That 127.0.0.1 of the host leads to a published port takes route_localnet on the
        // bridge; without this rule it would lead containers to 127.0.0.1 of the host as well
        // (CVE-2020-8558).
        rule("guard", &[iifname(bridge, false), ip_daddr(loopback.0, loopback.1), drop()]),
        // Into the bridge goes what was asked for or published, and nothing else: another
        // machine on the host's network could send packets for 10.77.0.2 to the host.
        rule("forward", &[to_bridge(), ct_established(), accept()]),
        rule("forward", &[to_bridge(), ct_dnat(), accept()]),
        // From one container to another is no matter for a router, but where the module
        // br_netfilter is loaded, as Docker does it, the bridge asks these chains all the same.
        rule("forward", &[iifname(bridge, false), accept()]),
        rule("forward", &[to_bridge(), drop()]),
        // Out of the bridge: under the address of whichever interface it leaves by.
        rule("postrouting", &masquerade_what_leaves(bridge, subnet)),
        // A container that asks for a published port of its own bridge, or a process of the host
        // that does so through 127.0.0.1: the answer has to come back through us, to be
        // translated back, and not straight to the sender.
        rule("postrouting", &[ours(), to_bridge(), ct_dnat(), masquerade()]),
        rule(
            "postrouting",
            &[ip_saddr(loopback.0, loopback.1), to_bridge(), ct_dnat(), masquerade()],
        ),
    ]
}

/// The parts of the rule for what leaves the subnet by another interface than the bridge.
fn masquerade_what_leaves(bridge: &str, subnet: Cidr) -> [Vec<Expression>; 3] {
    // ANCHOR: ex-5.1
    [ip_saddr(subnet.network(), subnet.mask()), oifname(bridge, true), masquerade()]
    // ANCHOR_END: ex-5.1
}
// ANCHOR_END: base

/// The rules of one container: its published ports, for what comes in (prerouting) and for what
/// the host itself sends (output). The comment names the container that they go with.
// ANCHOR: published
#[must_use]
pub fn published(bridge: &str, address: Ipv4Addr, ports: &[Publish]) -> Vec<Message> {
    let mut rules = Vec::new();
    for port in ports {
        // ANCHOR: ex-5.2
        let to = if port.address.is_unspecified() {
            to_this_host()
        } else {
            ip_daddr(port.address, u32::MAX)
        };
        let rule =
            [to, dport(port.protocol as u8, port.host), dnat(address, port.container)].concat();
        for chain in ["prerouting", "output"] {
            rules.push(add_rule(bridge, chain, &rule, &address.to_string()));
        }
        // ANCHOR_END: ex-5.2
    }
    rules
}
// ANCHOR_END: published
