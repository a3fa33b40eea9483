//! The options of `run` about the network.

use clap::{Args, ValueEnum};
use step05_nat::Publish;

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

    /// Make a container's port reachable at a port of the host (may be repeated)
    #[arg(long, short, value_name = "[ADDR:]HOST:CONTAINER[/tcp|udp]")]
    pub publish: Vec<Publish>,
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
