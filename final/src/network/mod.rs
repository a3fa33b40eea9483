//! The container's network: its place on a bridge, its rules, its published ports.

pub mod ports;

use std::net::Ipv4Addr;

use anyhow::Result;
use nix::unistd::Pid;
use step01_namespaces::Namespaces;
use step04_bridge_veth::{Args, Network};
use step05_nat::Nat;

pub use ports::{Exposed, Ports, Wanted};

/// What config.json says of a container's place on a bridge.
#[derive(Debug, Clone)]
pub struct Plan {
    /// The bridge, and the address on it if it is not to be the next free one.
    pub bridge: Args,
    /// The ports to be reachable from outside.
    pub publish: Vec<Wanted>,
}

/// What a container on a bridge has of the host. Dropping it gives all of it back: the rules before
/// the address that they are about.
#[derive(Debug)]
pub struct Attachment {
    _nat: Nat,
    network: Network,
}

impl Attachment {
    /// The parent's side: takes an address, and lets the container out and the world in.
    pub fn make(plan: &Plan, namespaces: Namespaces, ports: Ports) -> Result<Self> {
        let network = Network::join(&plan.bridge, namespaces)?;
        let nat = Nat::install_reserved(&network, &ports.published, ports.sockets)?;
        Ok(Self { _nat: nat, network })
    }

    /// The parent's side, while the child waits: the cable.
    pub fn plug(&self, pid: Pid) -> Result<()> {
        self.network.plug(pid)
    }

    /// The child's side: addresses and routes.
    pub fn configure(&self) -> Result<()> {
        self.network.configure()
    }

    /// The container's address.
    #[must_use]
    pub fn address(&self) -> Ipv4Addr {
        self.network.address()
    }
}
