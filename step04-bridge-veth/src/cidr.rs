//! A subnet in CIDR notation (RFC 4632).

use std::fmt;
use std::net::Ipv4Addr;
use std::str::FromStr;

use anyhow::{Context as _, Error, Result, ensure};

/// An IPv4 subnet such as 10.77.0.0/24, with room for containers: /8 to /30.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cidr {
    network: Ipv4Addr,
    prefix: u8,
}

impl Cidr {
    /// The address of the subnet itself.
    #[must_use]
    pub fn network(self) -> Ipv4Addr {
        self.network
    }

    /// How many bits of an address name the subnet.
    #[must_use]
    pub fn prefix(self) -> u8 {
        self.prefix
    }

    /// The mask of those bits.
    #[must_use]
    pub fn mask(self) -> u32 {
        u32::MAX << (32 - u32::from(self.prefix))
    }

    /// The first address, which is the bridge's own.
    #[must_use]
    pub fn gateway(self) -> Ipv4Addr {
        Ipv4Addr::from_bits(self.network.to_bits() + 1)
    }

    /// The last address, which means everybody.
    #[must_use]
    pub fn broadcast(self) -> Ipv4Addr {
        Ipv4Addr::from_bits(self.network.to_bits() | !self.mask())
    }

    /// The addresses for containers: without network, gateway and broadcast.
    pub fn hosts(self) -> impl Iterator<Item = Ipv4Addr> + Clone {
        (self.network.to_bits() + 2..self.broadcast().to_bits()).map(Ipv4Addr::from_bits)
    }

    /// Whether a container can have this address.
    #[must_use]
    pub fn has_host(self, address: Ipv4Addr) -> bool {
        let bits = address.to_bits();
        bits > self.gateway().to_bits() && bits < self.broadcast().to_bits()
    }

    /// Whether the two share an address.
    #[must_use]
    pub fn overlaps(self, network: Ipv4Addr, prefix: u8) -> bool {
        let shift = 32 - u32::from(self.prefix.min(prefix));
        let mask = u32::MAX.checked_shl(shift).unwrap_or(0);
        (self.network.to_bits() ^ network.to_bits()) & mask == 0
    }
}

impl FromStr for Cidr {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let (address, prefix) =
            text.split_once('/').context("a subnet is ADDRESS/PREFIX, such as 10.77.0.0/24")?;
        let network: Ipv4Addr =
            address.parse().with_context(|| format!("{address:?} is not an IPv4 address"))?;
        let prefix =
            prefix.parse().with_context(|| format!("{prefix:?} is not a prefix length"))?;
        ensure!((8..=30).contains(&prefix), "a prefix from /8 to /30 is needed: /{prefix} is not");
        // 0 is "this network", 127 loopback, from 224 on multicast and reserved (RFC 6890).
        ensure!(
            (1..224).contains(&network.octets()[0]) && !network.is_loopback(),
            "{text} is not for hosts: choose a private subnet, such as 10.77.0.0/24"
        );
        let cidr = Self { network, prefix };
        let masked = Ipv4Addr::from_bits(network.to_bits() & cidr.mask());
        ensure!(
            network == masked,
            "{network} is inside of the subnet {masked}/{prefix}: write that"
        );
        Ok(cidr)
    }
}

impl fmt::Display for Cidr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.network, self.prefix)
    }
}

#[cfg(test)]
mod tests {
    use super::Cidr;

    #[test]
    fn only_subnets_for_hosts_are_read() {
        for bad in ["0.0.0.0/8", "127.0.0.0/8", "127.1.0.0/16", "224.0.0.0/8", "255.255.255.0/24"] {
            assert!(bad.parse::<Cidr>().is_err(), "{bad}");
        }
        for bad in ["", "10.0.0.0", "10.0.0.1/24", "10.0.0.0/7", "10.0.0.0/31", "x/24", "::/64"] {
            assert!(bad.parse::<Cidr>().is_err(), "{bad}");
        }
    }

    #[test]
    fn hosts_leave_out_network_gateway_and_broadcast() {
        let cidr: Cidr = "192.0.2.0/30".parse().unwrap();
        assert_eq!(cidr.hosts().collect::<Vec<_>>(), [std::net::Ipv4Addr::new(192, 0, 2, 2)]);
        assert!(!cidr.has_host(cidr.gateway()) && !cidr.has_host(cidr.broadcast()));
    }

    #[test]
    fn overlap_is_by_the_shorter_prefix() {
        let cidr: Cidr = "10.77.0.0/24".parse().unwrap();
        assert!(cidr.overlaps([10, 0, 0, 0].into(), 8));
        assert!(cidr.overlaps([10, 77, 0, 128].into(), 25));
        assert!(cidr.overlaps([0, 0, 0, 0].into(), 0));
        assert!(!cidr.overlaps([10, 77, 1, 0].into(), 24));
    }
}
