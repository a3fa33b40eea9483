//! Links, addresses and routes (rtnetlink(7)).

use std::net::Ipv4Addr;

use anyhow::anyhow;
use nix::errno::Errno;
use nix::net::if_::if_indextoname;
use nix::sys::socket::SockProtocol;
use nix::unistd::{Pid, geteuid};
use step01_namespaces::see;

use crate::Cidr;
use crate::netlink::{Error, Message, NLM_F_CREATE, NLM_F_EXCL, Reply, Result, Socket, u32_at};

const AF_INET: u8 = 2;
const VETH_INFO_PEER: u16 = 1;
const RTPROT_STATIC: u8 = 4;
const IFINFOMSG_LEN: usize = 16;
const IFADDRMSG_LEN: usize = 8;
const RTMSG_LEN: usize = 12;

/// An interface.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Link {
    /// Its number in this network namespace.
    pub index: u32,
    /// A number that root can give to links, to name many of them at once (`ip link show group N`).
    pub group: u32,
}

impl Link {
    /// From the kernel's description of it (RTM_NEWLINK).
    #[must_use]
    pub fn read(reply: &Reply) -> Option<Self> {
        let group = reply.attributes(IFINFOMSG_LEN).find_kind(libc::IFLA_GROUP);
        let group = group.and_then(|value| u32_at(value, 0)).unwrap_or_default();
        Some(Self { index: u32_at(&reply.payload, 4)?, group })
    }
}

/// A socket for links, addresses and routes of the network namespace that it was opened in.
#[derive(Debug)]
pub struct Rtnetlink(Socket);

impl Rtnetlink {
    /// Opens one.
    pub fn open() -> Result<Self> {
        Socket::open(SockProtocol::NetlinkRoute).map(Self)
    }

    /// `ip link show NAME`; `None` if there is no such link.
    pub fn find(&mut self, name: &str) -> Result<Option<Link>> {
        let message = Message::new(libc::RTM_GETLINK, 0, &link(0, 0)).text(libc::IFLA_IFNAME, name);
        match self.0.get(message) {
            Ok(reply) => Ok(reply.as_ref().and_then(Link::read)),
            Err(Error { errno: Errno::ENODEV, .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// `ip link add NAME address MAC group GROUP type bridge`, and up.
    // ANCHOR: bridge
    pub fn create_bridge(&mut self, name: &str, mac: [u8; 6], group: u32) -> Result<()> {
        // ANCHOR: ex-4.1
        self.0.request(
            Message::new(libc::RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL, &link(0, libc::IFF_UP))
                .text(libc::IFLA_IFNAME, name)
                .attr(libc::IFLA_ADDRESS, &mac)
                .attr(libc::IFLA_GROUP, &group.to_ne_bytes())
                .nest(libc::IFLA_LINKINFO, |m| m.text(libc::IFLA_INFO_KIND, "bridge")),
        )
        // ANCHOR_END: ex-4.1
    }
    // ANCHOR_END: bridge

    /// `ip link add NAME group GROUP master BRIDGE type veth peer name eth0 address MAC netns PID`,
    /// and up. The far end is born in the other network namespace; this one never sees it.
    // ANCHOR: veth
    pub fn create_veth(
        &mut self,
        name: &str,
        group: u32,
        bridge: u32,
        pid: Pid,
        mac: [u8; 6],
    ) -> Result<()> {
        // ANCHOR: ex-4.2
        let peer = |m: Message| {
            m.raw(&link(0, 0))
                .text(libc::IFLA_IFNAME, "eth0")
                .attr(libc::IFLA_ADDRESS, &mac)
                .attr(libc::IFLA_NET_NS_PID, &pid.as_raw().to_ne_bytes())
        };
        self.0.request(
            Message::new(libc::RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL, &link(0, libc::IFF_UP))
                .text(libc::IFLA_IFNAME, name)
                .attr(libc::IFLA_GROUP, &group.to_ne_bytes())
                .attr(libc::IFLA_MASTER, &bridge.to_ne_bytes())
                .nest(libc::IFLA_LINKINFO, |m| {
                    m.text(libc::IFLA_INFO_KIND, "veth")
                        .nest(libc::IFLA_INFO_DATA, |m| m.nest(VETH_INFO_PEER, peer))
                }),
        )
        // ANCHOR_END: ex-4.2
    }
    // ANCHOR_END: veth

    /// `ip link set INDEX up`
    pub fn set_up(&mut self, index: u32) -> Result<()> {
        self.0.request(Message::new(libc::RTM_NEWLINK, 0, &link(index, libc::IFF_UP)))
    }

    /// `ip link set INDEX master BRIDGE`
    pub fn set_master(&mut self, index: u32, bridge: u32) -> Result<()> {
        let message = Message::new(libc::RTM_NEWLINK, 0, &link(index, 0));
        self.0.request(message.attr(libc::IFLA_MASTER, &bridge.to_ne_bytes()))
    }

    /// `ip link delete NAME`; no error if it is gone already. Of a veth pair both ends go.
    pub fn delete(&mut self, name: &str) -> Result<()> {
        let message = Message::new(libc::RTM_DELLINK, 0, &link(0, 0)).text(libc::IFLA_IFNAME, name);
        match self.0.request(message) {
            Err(Error { errno: Errno::ENODEV, .. }) => Ok(()),
            result => result,
        }
    }

    /// `ip address add ADDRESS/PREFIX dev INDEX`
    pub fn add_address(&mut self, index: u32, address: Ipv4Addr, subnet: Cidr) -> Result<()> {
        let mut fixed = vec![AF_INET, subnet.prefix(), 0, 0]; // flags, scope: global
        fixed.extend(index.to_ne_bytes());
        self.0.request(
            Message::new(libc::RTM_NEWADDR, NLM_F_CREATE | NLM_F_EXCL, &fixed)
                .attr(libc::IFA_LOCAL, &address.octets())
                .attr(libc::IFA_ADDRESS, &address.octets())
                .attr(libc::IFA_BROADCAST, &subnet.broadcast().octets()),
        )
    }

    /// `ip route add default via GATEWAY`
    pub fn add_default_route(&mut self, gateway: Ipv4Addr) -> Result<()> {
        let mut fixed = [0; RTMSG_LEN];
        fixed[0] = AF_INET; // destination length 0: everything
        fixed[4] = libc::RT_TABLE_MAIN;
        fixed[5] = RTPROT_STATIC;
        fixed[7] = libc::RTN_UNICAST;
        self.0.request(
            Message::new(libc::RTM_NEWROUTE, NLM_F_CREATE | NLM_F_EXCL, &fixed)
                .attr(libc::RTA_GATEWAY, &gateway.octets()),
        )
    }

    /// The IPv4 addresses of the link, with their prefix lengths.
    pub fn addresses(&mut self, index: u32) -> Result<Vec<(Ipv4Addr, u8)>> {
        let fixed = [AF_INET, 0, 0, 0, 0, 0, 0, 0];
        let all = self.0.dump(Message::new(libc::RTM_GETADDR, 0, &fixed))?;
        Ok(all.iter().filter_map(|reply| read_address(reply, index)).collect())
    }

    /// The first route of the main table, other than the default one, that shares an address with
    /// `subnet`, as `10.0.0.0/8 dev eth1`.
    pub fn overlapping_route(&mut self, subnet: Cidr) -> Result<Option<String>> {
        let mut fixed = [0; RTMSG_LEN];
        fixed[0] = AF_INET;
        let all = self.0.dump(Message::new(libc::RTM_GETROUTE, 0, &fixed))?;
        Ok(all.iter().find_map(|reply| read_overlapping_route(reply, subnet)))
    }
}

/// The IPv4 address and its prefix length in an RTM_NEWADDR, if it is of the link `index`.
#[must_use]
pub fn read_address(reply: &Reply, index: u32) -> Option<(Ipv4Addr, u8)> {
    let local = reply.attributes(IFADDRMSG_LEN).find_kind(libc::IFA_LOCAL)?;
    (u32_at(&reply.payload, 4)? == index).then_some(())?;
    Some((address(local)?, *reply.payload.get(1)?))
}

/// The route in an RTM_NEWROUTE, if it shares an address with `subnet`.
#[must_use]
pub fn read_overlapping_route(reply: &Reply, subnet: Cidr) -> Option<String> {
    let (prefix, table) = (*reply.payload.get(1)?, *reply.payload.get(4)?);
    let to = address(reply.attributes(RTMSG_LEN).find_kind(libc::RTA_DST)?)?;
    let overlaps = table == libc::RT_TABLE_MAIN && subnet.overlaps(to, prefix);
    overlaps.then_some(())?;
    let link = reply.attributes(RTMSG_LEN).find_kind(libc::RTA_OIF);
    let link = link.and_then(|index| if_indextoname(u32_at(index, 0)?).ok());
    let link = link.map_or_else(|| "?".into(), |name| name.to_string_lossy().into_owned());
    Some(format!("{to}/{prefix} dev {link}"))
}

fn address(value: &[u8]) -> Option<Ipv4Addr> {
    Some(<[u8; 4]>::try_from(value).ok()?.into())
}

/// `struct ifinfomsg`: family, type, index, flags, and which flags are meant.
fn link(index: u32, flags: libc::c_int) -> [u8; IFINFOMSG_LEN] {
    let mut fixed = [0; IFINFOMSG_LEN];
    fixed[4..8].copy_from_slice(&index.to_ne_bytes());
    fixed[8..12].copy_from_slice(&flags.to_ne_bytes());
    fixed[12..16].copy_from_slice(&flags.to_ne_bytes());
    fixed
}

/// A netlink error as what could not be done, with its likely cause; `check` is the doctor's.
#[must_use]
pub fn explain(check: &str, what: &str, error: &Error) -> anyhow::Error {
    let hint = match error.errno {
        Errno::EPERM if geteuid().is_root() => {
            "; root here lacks CAP_NET_ADMIN".to_owned() + &see("container")
        }
        Errno::EPERM => "; run as root, or in the lab: cargo workshop lab".to_owned(),
        Errno::EOPNOTSUPP => "; this kernel lacks the module for it".to_owned() + &see(check),
        _ => String::new(),
    };
    anyhow!("{what}: {error}{hint}")
}
