//! The container's network: its place on a bridge, its rules, its published ports; and networks with
//! a name.
//!
//! | file | what it holds |
//! |---|---|
//! | this one | what a container has of the host, as one guard |
//! | [`config`] | networks with a name: a file each |
//! | [`dns`] | what is answered to a question |
//! | [`endpoint`] | who has which address |
//! | [`names`] | the process that answers for names |
//! | [`ports`] | published ports, held by sockets before anything is made |
//! | [`rules`] | what is in our tables beside step 5's rules |

pub mod config;
pub mod dns;
pub mod endpoint;
pub mod names;
pub mod ports;
pub mod rules;

use std::fs::File;
use std::net::{IpAddr, Ipv4Addr};

use anyhow::{Result, ensure};
use nix::errno::Errno;
use nix::unistd::Pid;
use step01_namespaces::Namespaces;
use step04_bridge_veth::{Args, Network, Pool, Rtnetlink, explain, netlink};
use step05_nat::Nat;

pub use config::{Config, Networks};
pub use endpoint::{Endpoint, Member};
pub use names::Names;
pub use ports::{Exposed, Ports, Wanted};

use crate::cli::Net;
use crate::store::{Process, State, Store};

/// What config.json says of a container's place on a bridge.
#[derive(Debug, Clone)]
pub struct Plan {
    /// The network's name; `bridge` is the one that is always there.
    pub network: String,
    /// The bridge, and the address on it if it is not to be the next free one.
    pub bridge: Args,
    /// Whether there is no way out of it.
    pub internal: bool,
    /// Names that the container answers to, beside its own.
    pub aliases: Vec<String>,
    /// Whom the network's name server asks for it, if not whom the host asks.
    pub dns: Vec<IpAddr>,
    /// The ports to be reachable from outside.
    pub publish: Vec<Wanted>,
}

impl Plan {
    /// Who answers for names there. As docker, the bridge of those who name no network has nobody.
    #[must_use]
    pub fn names(&self) -> Option<Names> {
        (self.network != "bridge").then(|| Names {
            network: self.network.clone(),
            bridge: self.bridge.bridge.clone(),
            subnet: self.bridge.subnet,
            internal: self.internal,
        })
    }
}

/// What is held for a container before anything is made: its network, so that nobody removes it, and
/// its ports.
#[derive(Debug, Default)]
pub struct Claim {
    ports: Ports,
    network: Option<File>,
}

impl Claim {
    /// Takes what the plan wants; without a plan nothing.
    pub fn take(plan: Option<&Plan>, store: &Store) -> Result<Self> {
        let Some(plan) = plan else { return Ok(Self::default()) };
        let network = match &*plan.network {
            "bridge" => None,
            name => Some(Networks::of(store).hold(name)?),
        };
        Ok(Self { ports: Ports::take(&plan.publish, store)?, network })
    }

    /// The ports as `ps` shows them.
    #[must_use]
    pub fn shown(&self, exposed: &[Exposed]) -> Vec<String> {
        self.ports.shown(exposed)
    }
}

/// What a container on a bridge has of the host. Dropping it gives all of it back: the name and the
/// rules before the address that they are about.
#[derive(Debug)]
pub struct Attachment {
    member: Member,
    _nat: Nat,
    network: Network,
    plan: Plan,
    _held: Option<File>,
}

impl Attachment {
    /// The parent's side: takes an address, and lets the container out and the world in.
    pub fn make(plan: &Plan, namespaces: Namespaces, claim: Claim) -> Result<Self> {
        let network = Network::join(&plan.bridge, namespaces)?;
        let member = Member::join(&network, plan.names().as_ref())?;
        let mut rules = rules::apart(network.bridge());
        if plan.internal {
            rules.extend(rules::internal(network.bridge(), network.subnet()));
        }
        let Ports { published, sockets } = claim.ports;
        let nat = Nat::install_with(&network, &published, sockets, &rules)?;
        Ok(Self { member, _nat: nat, network, plan: plan.clone(), _held: claim.network })
    }

    /// The parent's side, while the child waits: the cable, and its name.
    pub fn plug(&self, pid: Pid, state: &State) -> Result<()> {
        self.network.plug(pid)?;
        let endpoint = Endpoint {
            id: state.id.clone(),
            name: state.name.clone(),
            aliases: self.plan.aliases.clone(),
            dns: self.plan.dns.clone(),
            process: Process::of(pid)?,
        };
        self.member.publish(&endpoint)
    }

    /// The child's side: addresses and routes.
    pub fn configure(&self) -> Result<()> {
        if !self.plan.internal {
            return self.network.configure();
        }
        // There is no way out, so there is no route out.
        let configure = || -> netlink::Result<()> {
            let mut rt = Rtnetlink::open()?;
            let lo = rt.find("lo")?.ok_or(Errno::ENODEV)?;
            let eth0 = rt.find("eth0")?.ok_or(Errno::ENODEV)?;
            rt.set_up(lo.index)?;
            rt.add_address(eth0.index, self.network.address(), self.network.subnet())?;
            rt.set_up(eth0.index)
        };
        configure().map_err(|e| explain("veth", "cannot configure eth0 in the container", &e))
    }

    /// The host's address on the bridge.
    #[must_use]
    pub fn gateway(&self) -> Ipv4Addr {
        self.network.gateway()
    }

    /// The container's address.
    #[must_use]
    pub fn address(&self) -> Ipv4Addr {
        self.network.address()
    }
}

/// The child's side: the address that the container has, also in another one's network.
pub fn own_address(net: &Net, network: Option<&Attachment>) -> Result<Option<Ipv4Addr>> {
    let find = || -> netlink::Result<Option<Ipv4Addr>> {
        let mut rt = Rtnetlink::open()?;
        let Some(eth0) = rt.find("eth0")? else { return Ok(None) };
        Ok(rt.addresses(eth0.index)?.first().map(|&(address, _)| address))
    };
    match net {
        Net::Container(_) => find().map_err(|e| explain("veth", "cannot look at eth0", &e)),
        _ => Ok(network.map(Attachment::address)),
    }
}

/// Removes what was left by who was killed, before the steps remove the rest; starts name servers
/// again that were killed.
pub fn sweep(store: &Store) -> Result<()> {
    for bridge in Pool::bridges()? {
        let pool = Pool::lock(&bridge)?;
        if pool.live_with(endpoint::SUFFIX)?.is_empty() {
            names::stop(&pool)?;
        } else if let Some(names) = Networks::of(store).names_of(&bridge)? {
            names.ensure(&pool)?;
        }
    }
    let _lock = store.lock()?;
    Networks::of(store).sweep()
}

/// Whether a plan can be had: what the network itself rules out.
pub fn check(plan: &Plan) -> Result<()> {
    ensure!(
        !plan.internal || plan.publish.is_empty(),
        "the network {} is internal, so nothing on it can be published",
        plan.network
    );
    Ok(())
}
