//! What our networks have in their tables beside step 5's rules.
//!
//! ```text
//! chain apart {
//!     type filter hook forward priority filter; policy accept;
//!     iifname != "cw-0123456789ab" iifgroup 0x6377 oifname "cw-0123456789ab" drop
//! }
//! chain internal {                                    # with --internal
//!     type filter hook forward priority filter; policy accept;
//!     iifname "cw-0123456789ab" oifname != "cw-0123456789ab" drop
//!     iifname != "cw-0123456789ab" oifname "cw-0123456789ab" drop
//! }
//! chain inside {
//!     type filter hook prerouting priority raw; policy accept;
//!     iifname "cw-0123456789ab" ip daddr 10.77.1.1 accept
//!     iifname "cw-0123456789ab" fib daddr type local drop
//! }
//! ```
//!
//! A packet has to be accepted by all chains at a hook, so a drop of ours holds whatever else there
//! is, and an accept of ours takes no other firewall's word.

use std::net::Ipv4Addr;

use step04_bridge_veth::netlink::Message;
use step04_bridge_veth::{Cidr, GROUP};
use step05_nat::nftables::{
    Expression, Hook, Kind, accept, add_chain, add_rule, drop, iifgroup, iifname, ip_daddr,
    oifname, to_this_host,
};

/// From one of our bridges to another there is no way, not even to a published port, as with docker:
/// step 5's `ct status dnat accept` is for the rest of the world.
// ANCHOR: apart
#[must_use]
pub fn apart(bridge: &str) -> Vec<Message> {
    let parts = [iifname(bridge, true), iifgroup(GROUP), oifname(bridge, false), drop()];
    vec![
        add_chain(bridge, "apart", Hook::Forward, Kind::Filter),
        add_rule(bridge, "apart", &parts.concat(), ""),
    ]
}
// ANCHOR_END: apart

/// No way out, and none in: not to other hosts, and of this host only to the bridge's own address.
#[must_use]
pub fn internal(bridge: &str, subnet: Cidr) -> Vec<Message> {
    let rule = |chain, parts: &[Vec<Expression>]| add_rule(bridge, chain, &parts.concat(), "");
    let gateway: Ipv4Addr = subnet.gateway();
    let from = || iifname(bridge, false);
    vec![
        add_chain(bridge, "internal", Hook::Forward, Kind::Filter),
        rule("internal", &[from(), oifname(bridge, true), drop()]),
        rule("internal", &[iifname(bridge, true), oifname(bridge, false), drop()]),
        add_chain(bridge, "inside", Hook::Prerouting, Kind::Raw),
        rule("inside", &[from(), ip_daddr(gateway, u32::MAX), accept()]),
        rule("inside", &[from(), to_this_host(), drop()]),
    ]
}
