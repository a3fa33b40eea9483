//! IPv6 on a network: a subnet, a table, a switch.
//!
//! What step 5 does for IPv4 is done once more, by the same messages in the family `ip6`. The address
//! of a container needs no lease of its own: it has the number in the subnet that its IPv4 address has.
//! Only 127.0.0.1 has no counterpart: there is no route_localnet for ::1, so that published ports are
//! reached at every other address of the host.

use std::fmt;
use std::fs;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::path::{Path, PathBuf};
use std::str::FromStr;

use anyhow::{Context as _, Error, Result, ensure};
use nix::errno::Errno;
use nix::sys::socket::SockProtocol;
use step01_namespaces::warn;
use step04_bridge_veth::netlink::{self, Message, NLM_F_CREATE, NLM_F_EXCL, Socket};
use step04_bridge_veth::{Lease, Network, Pool, Rtnetlink, explain};
use step05_nat::forwarding::{lock_switch, note_of_others, read_if_there};
use step05_nat::nftables::{
    Expression, Hook, Kind, Nftables, accept, add_chain, add_rule, add_table, ct_dnat,
    ct_established, delete_table, dnat6, dport, drop, iifname, ip6_daddr, ip6_saddr, masquerade,
    oifname, to_this_host,
};
use step05_nat::{Protocol, ruleset::NOTE, stale_rules};

use super::rules;

const AF_INET6: u8 = 10;
/// How the files are called that say who needs the table.
const USER: &str = ".nat6";
const CONF: &str = "/proc/sys/net/ipv6/conf";
/// That forwarding was off, and what else to set back.
const NOTE_FILE: &str = "ipv6_forwarding-was-0";

/// An IPv6 subnet, such as fd12:3456:789a::/64 (RFC 4291), with room for all numbers that an IPv4 subnet
/// has: /16 to /104.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cidr6 {
    network: Ipv6Addr,
    prefix: u8,
}

impl Cidr6 {
    /// A subnet of one's own (RFC 4193), made of the network's id, which is random.
    pub fn of_id(id: &str) -> Result<Self> {
        let word = |at: usize| u16::from_str_radix(&id[at..at + 4], 16);
        let first = 0xfd00 | word(0)? >> 8;
        Ok(Self { network: Ipv6Addr::new(first, word(4)?, word(8)?, 0, 0, 0, 0, 0), prefix: 64 })
    }

    /// The address with this number.
    #[must_use]
    pub fn host(self, number: u32) -> Ipv6Addr {
        Ipv6Addr::from_bits(self.network.to_bits() | u128::from(number))
    }

    /// The first address, which is the bridge's own.
    #[must_use]
    pub fn gateway(self) -> Ipv6Addr {
        self.host(1)
    }

    /// How many bits of an address name the subnet.
    #[must_use]
    pub fn prefix(self) -> u8 {
        self.prefix
    }

    /// Whether the two share an address.
    #[must_use]
    pub fn overlaps(self, other: Self) -> bool {
        let mask = u128::MAX << (128 - self.prefix.min(other.prefix));
        (self.network.to_bits() ^ other.network.to_bits()) & mask == 0
    }
}

impl FromStr for Cidr6 {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let parts = text.split_once('/');
        let (address, prefix) = parts.context("a subnet is ADDRESS/PREFIX, such as fd00:1::/64")?;
        let network: Ipv6Addr =
            address.parse().with_context(|| format!("{address:?} is not an IPv6 address"))?;
        let prefix = prefix.parse().ok().filter(|prefix| (16..=104).contains(prefix));
        let prefix =
            prefix.with_context(|| format!("{text}: a prefix from /16 to /104 is needed"))?;
        // Unique local and global addresses; not loopback, link-local, multicast (RFC 4291).
        let first = network.segments()[0];
        ensure!(
            first & 0xfe00 == 0xfc00 || first & 0xe000 == 0x2000,
            "{text} is not for hosts: choose a subnet of fd00::/8"
        );
        let mask = u128::MAX << (128 - u32::from(prefix));
        let masked = Ipv6Addr::from_bits(network.to_bits() & mask);
        ensure!(
            network == masked,
            "{network} is inside of the subnet {masked}/{prefix}: write that"
        );
        Ok(Self { network, prefix })
    }
}

impl fmt::Display for Cidr6 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.network, self.prefix)
    }
}

/// A published port at IPv6 addresses of the host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Publish6 {
    /// The port there.
    pub host: u16,
    /// The port in the container.
    pub container: u16,
    /// TCP or UDP.
    pub protocol: Protocol,
}

/// The container's address: the number that it has in the IPv4 subnet.
#[must_use]
pub fn address(network: &Network, subnet: Cidr6) -> Ipv6Addr {
    subnet.host(network.address().to_bits() & !network.subnet().mask())
}

/// The child's side: address and way out. Who sends router advertisements is not listened to.
pub fn configure(network: &Network, subnet: Cidr6, internal: bool) -> Result<()> {
    for (name, value) in [("disable_ipv6", "0"), ("accept_ra", "0")] {
        write(&format!("{CONF}/eth0/{name}"), value)?;
    }
    let configure = || -> netlink::Result<()> {
        let eth0 = Rtnetlink::open()?.find("eth0")?.ok_or(Errno::ENODEV)?;
        let mut socket = Socket::open(SockProtocol::NetlinkRoute)?;
        add_address(&mut socket, eth0.index, address(network, subnet), subnet.prefix)?;
        if internal { Ok(()) } else { add_default_route(&mut socket, subnet.gateway()) }
    };
    configure().map_err(|e| explain("veth", "cannot give eth0 its IPv6 address", &e))
}

/// `ip address add ADDRESS/PREFIX dev INDEX nodad`: nobody else has an address of a subnet that we have
/// chosen, and to ask takes a second, in which it could not be used (RFC 4862).
fn add_address(
    socket: &mut Socket,
    index: u32,
    address: Ipv6Addr,
    prefix: u8,
) -> netlink::Result<()> {
    const IFA_F_NODAD: u8 = 2;
    let mut fixed = vec![AF_INET6, prefix, IFA_F_NODAD, 0];
    fixed.extend(index.to_ne_bytes());
    socket.request(
        Message::new(libc::RTM_NEWADDR, NLM_F_CREATE | NLM_F_EXCL, &fixed)
            .attr(libc::IFA_LOCAL, &address.octets())
            .attr(libc::IFA_ADDRESS, &address.octets()),
    )
}

/// `ip -6 route add default via GATEWAY`
fn add_default_route(socket: &mut Socket, gateway: Ipv6Addr) -> netlink::Result<()> {
    const RTPROT_STATIC: u8 = 4;
    let mut fixed = [0; 12];
    fixed[0] = AF_INET6;
    fixed[4] = libc::RT_TABLE_MAIN;
    fixed[5] = RTPROT_STATIC;
    fixed[7] = libc::RTN_UNICAST;
    socket.request(
        Message::new(libc::RTM_NEWROUTE, NLM_F_CREATE | NLM_F_EXCL, &fixed)
            .attr(libc::RTA_GATEWAY, &gateway.octets()),
    )
}

/// The IPv6 rules of one container. Dropping it removes them, and with the last one the table and
/// what else was changed.
#[derive(Debug)]
pub struct Nat6 {
    bridge: String,
    user: Option<Lease>,
}

impl Nat6 {
    /// The parent's side: gives the bridge its address, lets the container out and the world in.
    pub fn install(
        network: &Network,
        subnet: Cidr6,
        internal: bool,
        publish: &[Publish6],
    ) -> Result<Self> {
        let bridge = network.bridge();
        // Its drop locks the pool, so it has to come after the unlocking.
        let mut nat = Self { bridge: bridge.to_owned(), user: None };
        let pool = Pool::lock(bridge)?;
        let others = pool.live_with(USER)?;
        nat.user = Some(pool.hold(network.address(), USER)?);
        prepare_bridge(bridge, subnet)?;
        let failed =
            |e| explain("nf-tables", &format!("cannot write the firewall table ip6 {bridge}"), &e);
        let mut nft = Nftables::open_ipv6().map_err(failed)?;
        let mut changes = Vec::new();
        match nft.table_comment(bridge).map_err(failed)? {
            None => changes.extend(base(bridge, subnet, internal)),
            Some(note) => {
                ensure!(note == NOTE, "there is a firewall table ip6 {bridge} that is not ours");
                changes.extend(stale_rules(&mut nft, bridge, &others).map_err(failed)?);
            }
        }
        changes.extend(published(bridge, network, subnet, publish));
        nft.commit_many(&changes).map_err(failed)?;
        if !internal {
            enable_forwarding(&pool)?;
        }
        std::mem::drop(pool);
        Ok(nat)
    }
}

impl Drop for Nat6 {
    fn drop(&mut self) {
        let Some(own) = self.user.as_ref().map(Lease::address) else { return };
        let mut clean = || -> Result<()> {
            let pool = Pool::lock(&self.bridge)?;
            let mut others = pool.live_with(USER)?;
            others.retain(|&address| address != own);
            clean(&pool, &others)?;
            std::mem::drop(self.user.take()); // while we have the lock
            Ok(())
        };
        if let Err(error) = clean() {
            warn(&format!("cannot clean up the firewall: {error:#}"));
            // Its file stays and tells the sweep that there is something left to do.
            std::mem::forget(self.user.take());
        }
    }
}

/// Removes what was left of this bridge's by who was killed.
pub fn sweep(pool: &Pool) -> Result<()> {
    clean(pool, &pool.live_with(USER)?)
}

fn clean(pool: &Pool, live: &[Ipv4Addr]) -> Result<()> {
    let bridge = pool.bridge();
    let failed =
        |e| explain("nf-tables", &format!("cannot clean up the firewall table ip6 {bridge}"), &e);
    let mut nft = Nftables::open_ipv6().map_err(failed)?;
    let ours = nft.table_comment(bridge).map_err(failed)?.as_deref() == Some(NOTE);
    let changes = match (ours, live.is_empty()) {
        (false, _) => Vec::new(),
        (true, true) => vec![delete_table(bridge)],
        (true, false) => stale_rules(&mut nft, bridge, live).map_err(failed)?,
    };
    nft.commit_many(&changes).map_err(failed)?;
    if live.is_empty() { restore_forwarding(pool) } else { Ok(()) }
}

/// As step 5's, without what is about 127.0.0.1.
fn base(bridge: &str, subnet: Cidr6, internal: bool) -> Vec<Message> {
    let rule = |chain, parts: &[Vec<Expression>]| add_rule(bridge, chain, &parts.concat(), "");
    let ours = || ip6_saddr(subnet.network, subnet.prefix);
    let to_bridge = || oifname(bridge, false);
    let mut all = vec![
        add_table(bridge, NOTE),
        add_chain(bridge, "prerouting", Hook::Prerouting, Kind::Dnat),
        add_chain(bridge, "output", Hook::Output, Kind::Dnat),
        add_chain(bridge, "forward", Hook::Forward, Kind::Filter),
        add_chain(bridge, "postrouting", Hook::Postrouting, Kind::Snat),
        rule("forward", &[to_bridge(), ct_established(), accept()]),
        rule("forward", &[to_bridge(), ct_dnat(), accept()]),
        rule("forward", &[iifname(bridge, false), accept()]),
        rule("forward", &[to_bridge(), drop()]),
        rule("postrouting", &[ours(), oifname(bridge, true), masquerade()]),
        rule("postrouting", &[ours(), to_bridge(), ct_dnat(), masquerade()]),
    ];
    all.extend(rules::apart(bridge));
    if internal {
        all.extend(rules::internal(bridge, ip6_daddr(subnet.gateway(), 128)));
    }
    all
}

fn published(bridge: &str, network: &Network, subnet: Cidr6, ports: &[Publish6]) -> Vec<Message> {
    let mut rules = Vec::new();
    for port in ports {
        let to = dnat6(address(network, subnet), port.container);
        let rule = [to_this_host(), dport(port.protocol as u8, port.host), to].concat();
        for chain in ["prerouting", "output"] {
            rules.push(add_rule(bridge, chain, &rule, &network.address().to_string()));
        }
    }
    rules
}

/// Its address, which is not there if its last owner had no IPv6, or was killed before he gave it one.
fn prepare_bridge(bridge: &str, subnet: Cidr6) -> Result<()> {
    write(&format!("{CONF}/{bridge}/disable_ipv6"), "0")?;
    let add = || -> netlink::Result<()> {
        let link = Rtnetlink::open()?.find(bridge)?.ok_or(Errno::ENODEV)?;
        let mut socket = Socket::open(SockProtocol::NetlinkRoute)?;
        match add_address(&mut socket, link.index, subnet.gateway(), subnet.prefix) {
            Err(error) if error.errno == Errno::EEXIST => Ok(()),
            result => result,
        }
    };
    add().map_err(|e| explain("bridge", &format!("cannot give {bridge} its IPv6 address"), &e))
}

/// Switches forwarding on, and notes in the pool what was before, for this bridge or for another.
///
/// A router does not listen to other routers: a host that has its own default route from one would lose
/// it. `accept_ra` 2 means that it listens all the same (ip-sysctl.rst).
fn enable_forwarding(pool: &Pool) -> Result<()> {
    let _lock = lock_switch(pool)?;
    let before = match note_of_others(pool, NOTE_FILE)? {
        None if read(&format!("{CONF}/all/forwarding"))? == "0" => Some(settings()?),
        of_another_bridge => of_another_bridge,
    };
    let Some(before) = before else { return Ok(()) };
    let note = pool.path().join(NOTE_FILE);
    fs::write(&note, &before).with_context(|| format!("cannot write {}", note.display()))?;
    for line in before.lines().filter(|line| line.ends_with("/accept_ra 1")) {
        let name = line.trim_end_matches(" 1");
        write_if_there(&format!("{CONF}/{name}"), "2")?;
    }
    write(&format!("{CONF}/all/forwarding"), "1")
}

/// What to set back, as `eth0/accept_ra 1`.
fn settings() -> Result<String> {
    let mut found = String::new();
    for entry in fs::read_dir(CONF).with_context(|| format!("cannot read {CONF}"))? {
        let link = entry?.file_name();
        let link = link.to_string_lossy();
        if link != "all" && link != "default" {
            for (name, value) in [("accept_ra", "1"), ("forwarding", "1")] {
                let path = PathBuf::from(format!("{CONF}/{link}/{name}"));
                if fs::read_to_string(path).is_ok_and(|found| found.trim() == value) {
                    found += &format!("{link}/{name} {value}\n");
                }
            }
        }
    }
    Ok(found)
}

fn restore_forwarding(pool: &Pool) -> Result<()> {
    let note = pool.path().join(NOTE_FILE);
    let Some(before) = read_if_there(&note)? else { return Ok(()) };
    let _lock = lock_switch(pool)?;
    if note_of_others(pool, NOTE_FILE)?.is_none() {
        write(&format!("{CONF}/all/forwarding"), "0")?;
        for (name, value) in before.lines().filter_map(|line| line.split_once(' ')) {
            write_if_there(&format!("{CONF}/{name}"), value)?;
        }
    }
    fs::remove_file(&note).with_context(|| format!("cannot remove {}", note.display()))
}

fn read(path: &str) -> Result<String> {
    let text = fs::read_to_string(path);
    Ok(text
        .with_context(|| format!("cannot read {path}: has this kernel IPv6?"))?
        .trim()
        .to_owned())
}

fn write_if_there(path: &str, value: &str) -> Result<()> {
    if Path::new(path).exists() { write(path, value) } else { Ok(()) }
}

fn write(path: &str, value: &str) -> Result<()> {
    fs::write(path, value).with_context(|| format!("cannot write {value} to {path}"))
}

#[cfg(test)]
mod tests {
    use super::Cidr6;

    #[test]
    fn only_subnets_for_hosts_are_read() {
        for bad in [
            "fd00::",
            "fe80::/64",
            "::1/64",
            "ff02::/64",
            "fd00::1/64",
            "fd00::/8",
            "fd00::/112",
            "x/64",
        ] {
            assert!(bad.parse::<Cidr6>().is_err(), "{bad}");
        }
        let cidr: Cidr6 = "fd00:1::/64".parse().unwrap();
        assert_eq!(cidr.gateway().to_string(), "fd00:1::1");
        assert_eq!(Cidr6::of_id(&"ab".repeat(32)).unwrap().to_string(), "fdab:abab:abab::/64");
        assert!(cidr.overlaps("fd00:1::/48".parse().unwrap()));
        assert!(!cidr.overlaps("fd00:2::/64".parse().unwrap()));
    }
}
