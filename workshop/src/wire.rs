//! Links, addresses and routes, by the crates netlink-packet-route and netlink-sys.

use std::net::{IpAddr, Ipv4Addr};
use std::os::fd::RawFd;

use anyhow::{Context as _, Result};
use netlink_packet_core::{
    NLM_F_ACK, NLM_F_CREATE, NLM_F_DUMP, NLM_F_EXCL, NLM_F_REQUEST, NetlinkMessage, NetlinkPayload,
};
use netlink_packet_route::address::{AddressAttribute, AddressHeaderFlags, AddressMessage};
use netlink_packet_route::link::{
    InfoData, InfoKind, InfoVeth, LinkAttribute, LinkFlags, LinkInfo, LinkMessage,
};
use netlink_packet_route::route::{RouteAddress, RouteAttribute, RouteMessage};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use netlink_sys::protocols::NETLINK_ROUTE;
use netlink_sys::{Socket, SocketAddr};

/// A socket to the network namespace that it was opened in.
pub struct Wire(Socket);

impl Wire {
    /// Opens one.
    pub fn open() -> Result<Self> {
        let mut socket = Socket::new(NETLINK_ROUTE).context("cannot open a netlink socket")?;
        socket.bind_auto()?;
        socket.connect(&SocketAddr::new(0, 0))?;
        Ok(Self(socket))
    }

    /// Makes a veth pair: `name` here, `peer` in the network namespace of the open file `ns`.
    pub fn add_veth(&self, name: &str, peer: &str, ns: RawFd) -> Result<()> {
        let mut far = LinkMessage::default();
        far.attributes = vec![LinkAttribute::IfName(peer.to_owned()), LinkAttribute::NetNsFd(ns)];
        let mut near = LinkMessage::default();
        near.attributes = vec![
            LinkAttribute::IfName(name.to_owned()),
            LinkAttribute::LinkInfo(vec![
                LinkInfo::Kind(InfoKind::Veth),
                LinkInfo::Data(InfoData::Veth(InfoVeth::Peer(far))),
            ]),
        ];
        self.create(RouteNetlinkMessage::NewLink(near))
    }

    /// Makes a bridge.
    pub fn add_bridge(&self, name: &str) -> Result<()> {
        let mut bridge = LinkMessage::default();
        bridge.attributes = vec![
            LinkAttribute::IfName(name.to_owned()),
            LinkAttribute::LinkInfo(vec![LinkInfo::Kind(InfoKind::Bridge)]),
        ];
        self.create(RouteNetlinkMessage::NewLink(bridge))
    }

    /// Switches a link on.
    pub fn set_up(&self, name: &str) -> Result<()> {
        let mut link = LinkMessage::default();
        link.header.index = self.index(name)?;
        link.header.flags = LinkFlags::Up;
        link.header.change_mask = LinkFlags::Up;
        self.request(RouteNetlinkMessage::SetLink(link), NLM_F_ACK).map(drop)
    }

    /// Gives a link an address; a second one of the same subnet is called secondary.
    pub fn add_address(&self, name: &str, address: impl Into<IpAddr>, prefix: u8) -> Result<()> {
        self.create(RouteNetlinkMessage::NewAddress(self.of_address(
            name,
            address.into(),
            prefix,
        )?))
    }

    /// Takes it away again.
    pub fn delete_address(&self, name: &str, address: Ipv4Addr, prefix: u8) -> Result<()> {
        let message = self.of_address(name, address.into(), prefix)?;
        self.request(RouteNetlinkMessage::DelAddress(message), NLM_F_ACK).map(drop)
    }

    fn of_address(&self, name: &str, address: IpAddr, prefix: u8) -> Result<AddressMessage> {
        let mut message = AddressMessage::default();
        message.header.family = AddressFamily::Inet;
        if address.is_ipv6() {
            message.header.family = AddressFamily::Inet6;
            // Usable at once, and not when nobody has answered for a second.
            message.header.flags = AddressHeaderFlags::Nodad;
        }
        message.header.prefix_len = prefix;
        message.header.index = self.index(name)?;
        message.attributes =
            vec![AddressAttribute::Local(address), AddressAttribute::Address(address)];
        Ok(message)
    }

    /// Sets the default route.
    pub fn add_default_route(&self, gateway: impl Into<IpAddr>) -> Result<()> {
        use netlink_packet_route::route::{RouteHeader, RouteProtocol, RouteType};
        let mut message = RouteMessage::default();
        let (family, gateway) = match gateway.into() {
            IpAddr::V4(gateway) => (AddressFamily::Inet, RouteAddress::Inet(gateway)),
            IpAddr::V6(gateway) => (AddressFamily::Inet6, RouteAddress::Inet6(gateway)),
        };
        message.header.address_family = family;
        message.header.table = RouteHeader::RT_TABLE_MAIN;
        message.header.protocol = RouteProtocol::Static;
        message.header.kind = RouteType::Unicast;
        message.attributes = vec![RouteAttribute::Gateway(gateway)];
        self.create(RouteNetlinkMessage::NewRoute(message))
    }

    /// The names of the links.
    pub fn links(&self) -> Result<Vec<String>> {
        Ok(self.dump_links()?.iter().map(|link| name_of(link).to_owned()).collect())
    }

    /// A link's hardware address.
    pub fn hardware_address(&self, name: &str) -> Result<Vec<u8>> {
        let links = self.dump_links()?;
        let link = links.iter().find(|link| name_of(link) == name);
        let mut attributes = link.with_context(|| format!("no link {name}"))?.attributes.iter();
        let address = attributes.find_map(|attribute| match attribute {
            LinkAttribute::Address(address) => Some(address.clone()),
            _ => None,
        });
        address.with_context(|| format!("{name} has no hardware address"))
    }

    /// The names of the links that are switched off.
    pub fn down(&self) -> Result<Vec<String>> {
        let links = self.dump_links()?;
        let down = links.iter().filter(|link| !link.header.flags.contains(LinkFlags::Up));
        Ok(down.map(|link| name_of(link).to_owned()).collect())
    }

    /// All links, addresses and routes of IPv4, a line each.
    pub fn describe(&self) -> Result<Vec<String>> {
        let links = self.dump_links()?;
        let name = |index: u32| {
            name_of_index(&links, index).map_or_else(|| index.to_string(), str::to_owned)
        };
        let mut lines: Vec<_> =
            links.iter().map(|link| format!("link {}", name_of(link))).collect();

        let mut message = AddressMessage::default();
        message.header.family = AddressFamily::Inet;
        for reply in self.request(RouteNetlinkMessage::GetAddress(message), NLM_F_DUMP)? {
            let RouteNetlinkMessage::NewAddress(address) = reply else { continue };
            let local = address.attributes.iter().find_map(|attribute| match attribute {
                AddressAttribute::Local(local) => Some(*local),
                _ => None,
            });
            let local = local.context("an address without an address")?;
            let header = address.header;
            lines.push(format!("address {local}/{} on {}", header.prefix_len, name(header.index)));
        }

        for route in self.dump_routes()? {
            let (mut to, mut via, mut link) = ("default".to_owned(), String::new(), String::new());
            for attribute in &route.attributes {
                match attribute {
                    RouteAttribute::Destination(RouteAddress::Inet(address)) => {
                        to = address.to_string();
                    }
                    RouteAttribute::Gateway(RouteAddress::Inet(address)) => {
                        via = format!(" via {address}");
                    }
                    RouteAttribute::Oif(index) => link = format!(" on {}", name(*index)),
                    _ => {}
                }
            }
            let prefix = route.header.destination_prefix_length;
            lines.push(format!("route {to}/{prefix}{via}{link}"));
        }
        Ok(lines)
    }

    /// The IPv4 routes of all tables but the default ones: destination, prefix length, link.
    pub fn routes(&self) -> Result<Vec<(Ipv4Addr, u8, String)>> {
        let links = self.dump_links()?;
        let read = |route: RouteMessage| {
            let (mut to, mut name) = (None, "?");
            for attribute in &route.attributes {
                match attribute {
                    RouteAttribute::Destination(RouteAddress::Inet(address)) => to = Some(*address),
                    RouteAttribute::Oif(index) => {
                        name = name_of_index(&links, *index).unwrap_or("?");
                    }
                    _ => {}
                }
            }
            Some((to?, route.header.destination_prefix_length, name.to_owned()))
        };
        Ok(self.dump_routes()?.into_iter().filter_map(read).collect())
    }

    fn index(&self, name: &str) -> Result<u32> {
        let links = self.dump_links()?;
        let link = links.iter().find(|link| name_of(link) == name);
        Ok(link.with_context(|| format!("no link {name}"))?.header.index)
    }

    fn dump_links(&self) -> Result<Vec<LinkMessage>> {
        let message = RouteNetlinkMessage::GetLink(LinkMessage::default());
        let replies = self.request(message, NLM_F_DUMP)?;
        Ok(replies
            .into_iter()
            .filter_map(|reply| match reply {
                RouteNetlinkMessage::NewLink(link) => Some(link),
                _ => None,
            })
            .collect())
    }

    fn dump_routes(&self) -> Result<Vec<RouteMessage>> {
        let mut message = RouteMessage::default();
        message.header.address_family = AddressFamily::Inet;
        let replies = self.request(RouteNetlinkMessage::GetRoute(message), NLM_F_DUMP)?;
        Ok(replies
            .into_iter()
            .filter_map(|reply| match reply {
                RouteNetlinkMessage::NewRoute(route) => Some(route),
                _ => None,
            })
            .collect())
    }

    fn create(&self, message: RouteNetlinkMessage) -> Result<()> {
        self.request(message, NLM_F_ACK | NLM_F_CREATE | NLM_F_EXCL).map(drop)
    }

    /// Sends one message, and reads answers until the last.
    fn request(
        &self,
        message: RouteNetlinkMessage,
        flags: u16,
    ) -> Result<Vec<RouteNetlinkMessage>> {
        let what = format!("{message:?}");
        let mut request = NetlinkMessage::from(message);
        request.header.flags = NLM_F_REQUEST | flags;
        request.finalize();
        let mut bytes = vec![0; request.buffer_len()];
        request.serialize(&mut bytes);
        self.0.send(&bytes, 0)?;
        let mut found = Vec::new();
        loop {
            let (bytes, _) = self.0.recv_from_full()?;
            let mut rest = &bytes[..];
            while !rest.is_empty() {
                let reply = NetlinkMessage::<RouteNetlinkMessage>::deserialize(rest)?;
                let len = (reply.header.length as usize).next_multiple_of(4).min(rest.len());
                rest = &rest[len..];
                match reply.payload {
                    NetlinkPayload::Done(_) => return Ok(found),
                    NetlinkPayload::Error(error) if error.code.is_none() => return Ok(found),
                    NetlinkPayload::Error(error) => return Err(error.to_io()).context(what),
                    NetlinkPayload::InnerMessage(inner) => found.push(inner),
                    _ => {}
                }
            }
        }
    }
}

fn name_of_index(links: &[LinkMessage], index: u32) -> Option<&str> {
    links.iter().find(|link| link.header.index == index).map(name_of)
}

fn name_of(link: &LinkMessage) -> &str {
    let name = link.attributes.iter().find_map(|attribute| match attribute {
        LinkAttribute::IfName(name) => Some(name.as_str()),
        _ => None,
    });
    name.unwrap_or("?")
}
