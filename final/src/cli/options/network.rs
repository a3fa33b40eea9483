//! The options of `run` about the network.

use clap::{Args, ValueEnum};

use crate::network::{Exposed, Wanted};

/// Which network, and what of it is reached.
#[derive(Args, Debug, Clone)]
#[group(skip)]
pub struct NetworkArgs {
    /// The network; `bridge` needs root, and is root's default
    #[arg(long, alias = "network", value_name = "MODE")]
    pub net: Option<Net>,

    /// The bridge to be on.
    #[command(flatten)]
    pub bridge: step04_bridge_veth::Args,

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
#[derive(ValueEnum, Debug, Clone, Copy, PartialEq, Eq)]
pub enum Net {
    /// Its own, with an eth0 on our bridge, and NAT to the world
    Bridge,
    /// Its own, with only the loopback interface
    None,
    /// The host's: also its localhost, and all Unix sockets that are not in a file system
    Host,
}

impl Net {
    /// As the command line and config.json have it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Bridge => "bridge",
            Self::None => "none",
            Self::Host => "host",
        }
    }
}
