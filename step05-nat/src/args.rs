//! The part of the command line that is about published ports.

use std::fmt;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::str::FromStr;

use anyhow::{Context as _, Error, Result, anyhow, bail, ensure};
use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, Backlog, SockFlag, SockType, SockaddrIn, bind, listen, setsockopt, socket,
    sockopt,
};

/// What the world may reach in the container.
#[derive(clap::Args, Debug, Clone)]
#[group(skip)]
pub struct Args {
    /// Make a container's port reachable at a port of the host (may be repeated)
    #[arg(long, short, value_name = "[ADDR:]HOST:CONTAINER[/tcp|udp]")]
    pub publish: Vec<Publish>,
}

/// The protocols that have ports, by their numbers in IP (RFC 790).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    /// Connections.
    Tcp = 6,
    /// Datagrams.
    Udp = 17,
}

/// A published port.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Publish {
    /// The host's address that it is reachable at; 0.0.0.0 is all of them.
    pub address: Ipv4Addr,
    /// The port there.
    pub host: u16,
    /// The port in the container.
    pub container: u16,
    /// TCP or UDP.
    pub protocol: Protocol,
}

impl FromStr for Publish {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let (ports, protocol) = match text.split_once('/') {
            None => (text, Protocol::Tcp),
            Some((ports, "tcp")) => (ports, Protocol::Tcp),
            Some((ports, "udp")) => (ports, Protocol::Udp),
            Some((_, other)) => bail!("unknown protocol {other:?}: it is tcp or udp"),
        };
        let (address, host, container) = match ports.split(':').collect::<Vec<_>>()[..] {
            [host, container] => ("0.0.0.0", host, container),
            [address, host, container] => (address, host, container),
            _ => bail!("a published port is HOST:CONTAINER or ADDR:HOST:CONTAINER"),
        };
        let address =
            address.parse().with_context(|| format!("{address:?} is not an IPv4 address"))?;
        Ok(Self { address, host: port(host)?, container: port(container)?, protocol })
    }
}

fn port(text: &str) -> Result<u16> {
    let port = text.parse().ok().filter(|&port| port != 0);
    port.with_context(|| format!("{text:?} is not a port: these are 1 to 65535"))
}

impl Publish {
    /// As `docker ps` shows it: `0.0.0.0:8080->80/tcp`.
    #[must_use]
    pub fn arrow(&self) -> String {
        format!("{}:{}->{}/{}", self.address, self.host, self.container, self.protocol)
    }

    /// Takes the port for us: a socket that nobody will talk to, as the rules catch the packets
    /// before. Whoever else wants the port is refused by the kernel, and so are we if somebody
    /// has it. It is free again when the socket is closed, at the latest when this process ends.
    pub fn reserve(&self) -> Result<OwnedFd> {
        let kind = match self.protocol {
            Protocol::Tcp => SockType::Stream,
            Protocol::Udp => SockType::Datagram,
        };
        let reserve = || {
            let fd = socket(AddressFamily::Inet, kind, SockFlag::SOCK_CLOEXEC, None)?;
            let address = SockaddrIn::from(SocketAddrV4::new(self.address, self.host));
            if self.protocol == Protocol::Udp {
                bind(fd.as_raw_fd(), &address)?;
                return Ok(fd);
            }
            // With this, connections that have just ended (TIME_WAIT) do not keep a port from
            // us. Two listeners still exclude each other, so this one has to listen.
            setsockopt(&fd, sockopt::ReuseAddr, &true)?;
            bind(fd.as_raw_fd(), &address)?;
            listen(&fd, Backlog::new(1)?)?;
            Ok(fd)
        };
        reserve().map_err(|errno| match errno {
            Errno::EADDRINUSE => {
                anyhow!("the port {}/{} is already in use", self.host, self.protocol)
            }
            Errno::EACCES => anyhow!(
                "the port {} is root's, as all below net.ipv4.ip_unprivileged_port_start; take \
                 another, as in -p 8080:{}",
                self.host,
                self.container
            ),
            Errno::EADDRNOTAVAIL => anyhow!("{} is not an address of this host", self.address),
            other => anyhow!(other).context(format!("cannot reserve the port {self}")),
        })
    }
}

/// Two ports of one command line must differ too: our own sockets would not tell them apart.
pub(crate) fn ensure_distinct(ports: &[Publish]) -> Result<()> {
    for (n, one) in ports.iter().enumerate() {
        let same = |other: &&Publish| {
            let any = one.address.is_unspecified() || other.address.is_unspecified();
            (one.host, one.protocol) == (other.host, other.protocol)
                && (any || one.address == other.address)
        };
        let other = ports[..n].iter().find(same);
        ensure!(other.is_none(), "the port {}/{} is published twice", one.host, one.protocol);
    }
    Ok(())
}

/// As it is written on the command line.
impl fmt::Display for Publish {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}/{}", self.address, self.host, self.container, self.protocol)
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::{Publish, ensure_distinct};

    #[test]
    fn ports_are_read_and_written() {
        for (text, shown) in [
            ("8080:80", "0.0.0.0:8080:80/tcp"),
            ("53:5353/udp", "0.0.0.0:53:5353/udp"),
            ("127.0.0.1:8080:80/tcp", "127.0.0.1:8080:80/tcp"),
        ] {
            assert_eq!(text.parse::<Publish>().unwrap().to_string(), shown);
        }
        for bad in ["", "80", "0:80", "80:0", "65536:1", "a:b", "1:2:3", "::1:80:80", "80:80/sctp"]
        {
            assert!(bad.parse::<Publish>().is_err(), "{bad}");
        }
    }

    #[test]
    fn one_port_is_published_once() {
        let ports = |texts: &[&str]| {
            ensure_distinct(&texts.iter().map(|t| t.parse().unwrap()).collect::<Vec<_>>())
        };
        assert!(ports(&["80:80", "81:80", "80:80/udp"]).is_ok());
        assert!(ports(&["127.0.0.1:80:80", "127.0.0.2:80:80"]).is_ok());
        assert!(ports(&["80:80", "127.0.0.1:80:81"]).is_err());
    }
}
