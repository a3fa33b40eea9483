//! The options of `run` about the network.

use std::net::Ipv4Addr;

use anyhow::{Result, bail};
use clap::Args;
use step04_bridge_veth::{Cidr, parse_link_name};

use crate::network::config::parse_name;
use crate::network::{Exposed, Wanted};

/// Which network, and what of it is reached.
#[derive(Args, Debug, Clone)]
#[group(skip)]
pub struct NetworkArgs {
    /// The network: bridge (root's default), none, host, container:NAME for that
    /// of another container, or one made by `final network create`
    #[arg(long, alias = "network", value_name = "NETWORK", value_parser = Net::parse)]
    pub net: Option<Net>,

    /// The bridge of `--net bridge`; made if it is not there
    #[arg(long, value_name = "NAME", value_parser = parse_link_name)]
    pub bridge: Option<String>,

    /// The subnet of `--net bridge`; its first address is the bridge's own
    #[arg(long, value_name = "CIDR")]
    pub subnet: Option<Cidr>,

    /// The container's address; without it, the next free one
    #[arg(long, value_name = "ADDR")]
    pub ip: Option<Ipv4Addr>,

    /// Another name for the container on its network (may be repeated)
    #[arg(long, value_name = "NAME", value_parser = step01_namespaces::parse_hostname)]
    pub network_alias: Vec<String>,

    /// Make a container's port reachable at a port of the host, or at any that is free; ports can be
    /// ranges (may be repeated)
    #[arg(long, short, value_name = "[[ADDR:]HOST:]CONTAINER[/tcp|udp]", value_parser = Wanted::parse)]
    pub publish: Vec<::std::vec::Vec<Wanted>>,

    /// Make all exposed ports reachable, each at a port of the host that is free
    #[arg(long, short = 'P')]
    pub publish_all: bool,

    /// Say that programs in the container listen at this port (may be repeated)
    #[arg(long, value_name = "PORT[-PORT][/tcp|udp]", value_parser = Exposed::parse)]
    pub expose: Vec<::std::vec::Vec<Exposed>>,
}

/// Which network namespace, and what is in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Net {
    /// Its own, with an eth0 on our bridge, and NAT to the world
    Bridge,
    /// Its own, with only the loopback interface
    None,
    /// The host's: also its localhost, and all Unix sockets that are not in a file system
    Host,
    /// Its own, with an eth0 on the bridge of this network
    Named(String),
    /// That of the container with this name or id
    Container(String),
}

impl Net {
    /// As the command line and config.json have it.
    pub fn parse(text: &str) -> Result<Self> {
        Ok(match text {
            "bridge" | "default" => Self::Bridge,
            "none" => Self::None,
            "host" => Self::Host,
            text if text.starts_with("container:") => Self::Container(text[10..].to_owned()),
            name if parse_name(name).is_ok() => Self::Named(name.to_owned()),
            _ => bail!(
                "a network is bridge, none, host, container:NAME, or a name: letters, digits, _ . and -"
            ),
        })
    }

    /// The same, as text.
    #[must_use]
    pub fn name(&self) -> String {
        match self {
            Self::Bridge => "bridge".into(),
            Self::None => "none".into(),
            Self::Host => "host".into(),
            Self::Named(name) => name.clone(),
            Self::Container(name) => format!("container:{name}"),
        }
    }

    /// Whether there is an eth0, on a bridge of ours.
    #[must_use]
    pub fn is_bridge(&self) -> bool {
        matches!(self, Self::Bridge | Self::Named(_))
    }
}
