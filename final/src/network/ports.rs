//! Published ports: what was asked for, what it became, and sockets that keep it ours.

use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddrV6};
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::str::FromStr;

use anyhow::{Context as _, Error, Result, bail, ensure};
use nix::sys::socket::{
    AddressFamily, Backlog, SockFlag, SockType, SockaddrIn, SockaddrIn6, bind, getsockname, listen,
    setsockopt, socket, sockopt,
};
use step05_nat::{Protocol, Publish};

use super::ipv6::Publish6;
use crate::store::Store;

/// A port of the container's, and where on the host it may be reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Wanted {
    /// The host's address; 0.0.0.0 is all of them.
    pub address: Ipv4Addr,
    /// The first and the last port there that will do; none: any that is free.
    pub host: Option<(u16, u16)>,
    /// The port in the container.
    pub container: u16,
    /// TCP or UDP.
    pub protocol: Protocol,
}

impl Wanted {
    /// Reads docker's `[[ADDR:]HOST[-HOST]:]CONTAINER[-CONTAINER][/tcp|udp]`: a range of container's
    /// ports is one for each. Host's ports are as many, or a range to find one port in.
    pub fn parse(text: &str) -> Result<Vec<Self>> {
        let (ports, protocol) = split_protocol(text)?;
        let (address, host, container) = match ports.split(':').collect::<Vec<_>>()[..] {
            [container] => ("", "", container),
            [host, container] => ("", host, container),
            [address, host, container] => (address, host, container),
            _ => bail!("a published port is CONTAINER, HOST:CONTAINER or ADDR:HOST:CONTAINER"),
        };
        let address = if address.is_empty() { "0.0.0.0" } else { address };
        let address =
            address.parse().with_context(|| format!("{address:?} is not an IPv4 address"))?;
        let (first, last) = range(container)?;
        let host = if host.is_empty() { None } else { Some(range(host)?) };
        let one = |container: u16, host| Self { address, host, container, protocol };
        match host {
            Some((from, to)) if first != last => {
                ensure!(
                    to - from == last - first,
                    "{from}-{to} and {first}-{last} are not as many ports"
                );
                Ok((first..=last).zip(from..=to).map(|(c, h)| one(c, Some((h, h)))).collect())
            }
            host => Ok((first..=last).map(|container| one(container, host)).collect()),
        }
    }

    /// Takes the first port that is free, and holds it.
    fn take(self) -> Result<(Publish, OwnedFd)> {
        let (first, last) = self.host.unwrap_or_default();
        let Self { address, container, protocol, .. } = self;
        let mut taken =
            (first..=last).map(|host| Publish { address, host, container, protocol }.reserve());
        let first_try = taken.next().context("an empty range of ports")?;
        let socket = match first_try {
            Err(error) => taken.find_map(Result::ok).ok_or(error)?,
            Ok(socket) => socket,
        };
        let host = getsockname::<SockaddrIn>(socket.as_raw_fd())?.port();
        Ok((Publish { address, host, container, protocol }, socket))
    }
}

/// As config.json has it.
impl fmt::Display for Wanted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { address, container, protocol, .. } = self;
        match self.host {
            None => write!(f, "{address}::{container}/{protocol}"),
            Some((one, same)) if one == same => write!(f, "{address}:{one}:{container}/{protocol}"),
            Some((first, last)) => write!(f, "{address}:{first}-{last}:{container}/{protocol}"),
        }
    }
}

/// A port that the container's programs are said to listen at: `80/tcp`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Exposed {
    /// The port in the container.
    pub port: u16,
    /// TCP or UDP.
    pub protocol: Protocol,
}

impl Exposed {
    /// Reads `80`, `80/udp` or `8000-8010/tcp`.
    pub fn parse(text: &str) -> Result<Vec<Self>> {
        let (ports, protocol) = split_protocol(text)?;
        let (first, last) = range(ports)?;
        Ok((first..=last).map(|port| Self { port, protocol }).collect())
    }

    /// At whatever port of the host is free.
    #[must_use]
    pub fn publish(self) -> Wanted {
        let Self { port: container, protocol } = self;
        Wanted { address: Ipv4Addr::UNSPECIFIED, host: None, container, protocol }
    }
}

impl fmt::Display for Exposed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.port, self.protocol)
    }
}

fn split_protocol(text: &str) -> Result<(&str, Protocol)> {
    Ok(match text.split_once('/') {
        None => (text, Protocol::Tcp),
        Some((ports, "tcp")) => (ports, Protocol::Tcp),
        Some((ports, "udp")) => (ports, Protocol::Udp),
        Some((_, other)) => bail!("unknown protocol {other:?}: it is tcp or udp"),
    })
}

/// `80`, or `8000-8010`.
fn range(text: &str) -> Result<(u16, u16)> {
    let port = |text: &str| text.parse().ok().filter(|&port| port != 0);
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let range = port(first).zip(port(last)).filter(|(first, last)| first <= last);
    range.with_context(|| format!("{text:?} is not a port: these are 1 to 65535, or FIRST-LAST"))
}

/// The published ports of one container, each held by a socket: from here on nobody else can have
/// them, also before the rules are there.
#[derive(Debug, Default)]
pub struct Ports {
    /// What was found for each that was wanted.
    pub published: Vec<Publish>,
    /// The same at IPv6 addresses, on a network that has such.
    pub published6: Vec<Publish6>,
    pub(super) sockets: Vec<OwnedFd>,
}

impl Ports {
    /// Takes all that are wanted. An error says who has a port, if it is a container of ours.
    pub fn take(wanted: &[Wanted], ipv6: bool, store: &Store) -> Result<Self> {
        let mut ports = Self::default();
        for want in wanted {
            let (published, socket) =
                want.take().map_err(|error| ports.explain(*want, store, error))?;
            ports.published.push(published);
            ports.sockets.push(socket);
            if ipv6 && want.address.is_unspecified() {
                let Publish { host, container, protocol, .. } = published;
                let socket = reserve6(host, protocol).map_err(|errno| {
                    anyhow::anyhow!("the port [::]:{host}/{protocol} cannot be had: {errno}")
                })?;
                ports.published6.push(Publish6 { host, container, protocol });
                ports.sockets.push(socket);
            }
        }
        Ok(ports)
    }

    /// As `ps` shows them: those that are published, and those that are only exposed.
    #[must_use]
    pub fn shown(&self, exposed: &[Exposed]) -> Vec<String> {
        let is_published = |exposed: &&Exposed| {
            let same = |p: &Publish| (p.container, p.protocol) == (exposed.port, exposed.protocol);
            self.published.iter().any(same)
        };
        let others = exposed.iter().filter(|exposed| !is_published(exposed));
        let published = self.published.iter().map(Publish::arrow);
        let published6 = self.published6.iter();
        let published6 =
            published6.map(|p| format!("[::]:{}->{}/{}", p.host, p.container, p.protocol));
        published.chain(published6).chain(others.map(ToString::to_string)).collect()
    }

    fn explain(&self, wanted: Wanted, store: &Store, error: Error) -> Error {
        let Some((port, last)) = wanted.host else { return error };
        let protocol = wanted.protocol;
        if port != last {
            return error.context(format!("none of the ports {port}-{last}/{protocol} is free"));
        }
        if self.published.iter().any(|p| (p.host, p.protocol) == (port, protocol)) {
            return anyhow::anyhow!("the port {port}/{protocol} is published twice");
        }
        match owner(store, port, protocol) {
            Some(name) => anyhow::anyhow!("{error} by the container {name}"),
            None => error,
        }
    }
}

/// As [`Publish::reserve`], at all IPv6 addresses and at none of IPv4.
fn reserve6(host: u16, protocol: Protocol) -> nix::Result<OwnedFd> {
    let kind = match protocol {
        Protocol::Tcp => SockType::Stream,
        Protocol::Udp => SockType::Datagram,
    };
    let fd = socket(AddressFamily::Inet6, kind, SockFlag::SOCK_CLOEXEC, None)?;
    setsockopt(&fd, sockopt::Ipv6V6Only, &true)?;
    let address = SockaddrIn6::from(SocketAddrV6::new(Ipv6Addr::UNSPECIFIED, host, 0, 0));
    if protocol == Protocol::Tcp {
        setsockopt(&fd, sockopt::ReuseAddr, &true)?;
    }
    bind(fd.as_raw_fd(), &address)?;
    if protocol == Protocol::Tcp {
        listen(&fd, Backlog::new(1)?)?;
    }
    Ok(fd)
}

/// The running container that has this port of the host published.
fn owner(store: &Store, host: u16, protocol: Protocol) -> Option<String> {
    let has_it = |text: &String| {
        text.parse()
            .is_ok_and(|shown: Shown| (shown.host, shown.protocol) == (Some(host), protocol))
    };
    let containers = store.list().ok()?.into_iter();
    let mut alive = containers.filter(|container| container.is_alive().unwrap_or(true));
    alive.find(|container| container.state.ports.iter().any(has_it)).map(|c| c.state.name.clone())
}

/// A port as `ps` shows it: `0.0.0.0:8080->80/tcp`, or `80/tcp` if it is not published.
#[derive(Debug, Clone)]
pub struct Shown {
    /// The host's address.
    pub address: String,
    /// The host's port, if it is published.
    pub host: Option<u16>,
    /// The port in the container.
    pub container: u16,
    /// TCP or UDP.
    pub protocol: Protocol,
}

impl FromStr for Shown {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let (from, to) = text.split_once("->").map_or((None, text), |(from, to)| (Some(from), to));
        let (port, protocol) = split_protocol(to)?;
        let (address, host) = match from {
            None => (String::new(), None),
            Some(from) => {
                let (address, port) = from.rsplit_once(':').context("no port of the host")?;
                (address.to_owned(), Some(port.parse()?))
            }
        };
        Ok(Self { address, host, container: port.parse()?, protocol })
    }
}

/// All ports of a container in one line, as docker has them: neighbours that have the same number on
/// both sides are one range.
#[must_use]
pub fn shown(ports: &[String]) -> String {
    let mut all: Vec<Shown> = ports.iter().filter_map(|port| port.parse().ok()).collect();
    all.sort_by_key(|p| (p.container, p.address.clone(), p.host, p.protocol as u8));
    let is_same = |p: &Shown| p.host.is_none_or(|host| host == p.container);
    let (same, translated): (Vec<_>, Vec<_>) = all.into_iter().partition(is_same);
    let mut groups: Vec<(Shown, u16)> = Vec::new(); // the first, and the last one's number
    for port in same {
        let follows = |(first, last): &&mut (Shown, u16)| {
            (&first.address, first.protocol) == (&port.address, port.protocol)
                && last.checked_add(1) == Some(port.container)
        };
        let last = port.container;
        if let Some((_, group_last)) = groups.iter_mut().find(follows) {
            *group_last = last;
        } else {
            groups.push((port, last));
        }
    }
    let group = |(first, last): &(Shown, u16)| {
        let (ports, protocol) = match (first.container, *last) {
            (one, same) if one == same => (one.to_string(), first.protocol),
            (first_port, last) => (format!("{first_port}-{last}"), first.protocol),
        };
        match first.host {
            Some(_) => format!("{}:{ports}->{ports}/{protocol}", first.address),
            None => format!("{ports}/{protocol}"),
        }
    };
    let groups = groups.iter().map(group);
    let arrow = |p: &Shown| {
        let host = p.host.unwrap_or_default();
        format!("{}:{host}->{}/{}", p.address, p.container, p.protocol)
    };
    groups.chain(translated.iter().map(arrow)).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::{Exposed, Wanted, shown};

    #[test]
    fn ports_are_read_and_written_as_docker_does() {
        for (text, all) in [
            ("80", &["0.0.0.0::80/tcp"][..]),
            (":80", &["0.0.0.0::80/tcp"]),
            ("8080:80/udp", &["0.0.0.0:8080:80/udp"]),
            ("127.0.0.1::80", &["127.0.0.1::80/tcp"]),
            ("127.0.0.1:8080:80", &["127.0.0.1:8080:80/tcp"]),
            ("8000-8001:80-81", &["0.0.0.0:8000:80/tcp", "0.0.0.0:8001:81/tcp"]),
            ("8000-8010:80", &["0.0.0.0:8000-8010:80/tcp"]),
            ("80-81", &["0.0.0.0::80/tcp", "0.0.0.0::81/tcp"]),
        ] {
            let read = Wanted::parse(text).unwrap();
            assert_eq!(read.iter().map(ToString::to_string).collect::<Vec<_>>(), all);
            for one in read {
                assert_eq!(Wanted::parse(&one.to_string()).unwrap(), [one]);
            }
        }
        for bad in
            ["", "0:80", "80:0", "1-3:1-2", "1-2:1-3", "2-1:1", "1-2-3:1", "a", "1:2:3:4", "1/sctp"]
        {
            assert!(Wanted::parse(bad).is_err(), "{bad}");
        }
        assert_eq!(Exposed::parse("80-81/udp").unwrap().len(), 2);
    }

    #[test]
    fn neighbours_are_shown_as_a_range() {
        let ports = ["0.0.0.0:81->81/tcp", "443/tcp", "0.0.0.0:80->80/tcp", "0.0.0.0:9000->82/tcp"];
        let ports = ports.map(str::to_owned);
        assert_eq!(shown(&ports), "0.0.0.0:80-81->80-81/tcp, 443/tcp, 0.0.0.0:9000->82/tcp");
    }
}
