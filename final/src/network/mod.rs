//! The container's network: its place on a bridge, its rules, its published ports; and networks with
//! a name.
//!
//! | file | what it holds |
//! |---|---|
//! | this one | what a container has of the host, as one guard |
//! | [`config`] | networks with a name: a file each |
//! | [`mod@describe`] | what docker shows of a network |
//! | [`dns`] | what is answered to a question |
//! | [`ipv6`] | the same for IPv6 |
//! | [`endpoint`] | who has which address |
//! | [`forward`] | the process that copies what comes to a plain user's published ports |
//! | [`helper`] | how such a process begins |
//! | [`names`] | the process that answers for names |
//! | [`ports`] | published ports, held by sockets before anything is made |
//! | [`rootless`] | where the networks of a plain user are |
//! | [`rules`] | what is in our tables beside step 5's rules |
//! | [`uplink`] | the way out of there |

pub mod config;
pub mod describe;
pub mod dns;
pub mod endpoint;
pub mod forward;
pub mod helper;
pub mod ipv6;
pub mod names;
pub mod ports;
pub mod rootless;
pub mod rules;
pub mod uplink;

use std::fs::File;
use std::net::{IpAddr, Ipv4Addr};

use anyhow::{Result, ensure};
use nix::errno::Errno;
use nix::unistd::Pid;
use step01_namespaces::{Namespace, Namespaces};
use step04_bridge_veth::{Args, Network, Pool, Rtnetlink, explain, netlink};
use step05_nat::Nat;
use step05_nat::nftables::ip_daddr;

pub use config::{Config, Networks};
pub use describe::{created, describe};
pub use endpoint::{Endpoint, Member};
pub use ipv6::Cidr6;
pub use names::Names;
pub use ports::{Exposed, Ports, Wanted};

use crate::cli::Net;
use crate::store::{Process, State, Store};
use forward::Forwarder;
use ipv6::Nat6;

/// What config.json says of a container's place on a bridge.
#[derive(Debug, Clone)]
pub struct Plan {
    /// The network's name; `bridge` is the one that is always there.
    pub network: String,
    /// The bridge, and the address on it if it is not to be the next free one.
    pub bridge: Args,
    /// Its IPv6 subnet, if it has one.
    pub subnet6: Option<Cidr6>,
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
        let ports = Ports::take(&plan.publish, plan.subnet6.is_some(), store)?;
        Ok(Self { ports, network })
    }

    /// The same once more: where it cannot be taken again, since a monitor that has gone into its user's
    /// namespace makes no more sockets on the host.
    pub fn try_clone(&self) -> Result<Self> {
        let network = self.network.as_ref().map(File::try_clone).transpose()?;
        Ok(Self { ports: self.ports.try_clone()?, network })
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
    /// Who copies what comes to published ports, if no rule can lead there.
    pub forwarder: Option<Forwarder>,
    _nat6: Option<Nat6>,
    _nat: Nat,
    network: Network,
    plan: Plan,
    _held: Option<File>,
}

impl Attachment {
    /// The parent's side: takes an address, and lets the container out and the world in.
    pub fn make(plan: &Plan, namespaces: Namespaces, claim: Claim) -> Result<Self> {
        // A user namespace that is the container's own is no matter here: we plug it in from outside.
        let others = |&kind: &Namespace| namespaces.contains(kind) && kind != Namespace::User;
        let namespaces = Namespace::ALL.into_iter().filter(others).collect();
        let network = Network::join(&plan.bridge, namespaces)?;
        let member = Member::join(&network, plan.names().as_ref())?;
        let mut rules = rules::apart(network.bridge());
        if plan.internal {
            rules.extend(rules::internal(network.bridge(), ip_daddr(network.gateway(), u32::MAX)));
        }
        let Ports { mut published, mut published6, mut held } = claim.ports;
        let mut forwarder = None;
        if rootless::is_inside() && !held.is_empty() {
            // No rule of ours is where the ports are.
            (published, published6) = (Vec::new(), Vec::new());
            forwarder = Some(Forwarder::start(std::mem::take(&mut held), network.address())?);
        }
        let sockets = held.into_iter().map(|held| held.socket).collect();
        let nat = Nat::install_with(&network, &published, sockets, &rules)?;
        let nat6 = match plan.subnet6 {
            Some(subnet) => Some(Nat6::install(&network, subnet, plan.internal, &published6)?),
            None => None,
        };
        let (plan, held) = (plan.clone(), claim.network);
        Ok(Self { member, forwarder, _nat6: nat6, _nat: nat, network, plan, _held: held })
    }

    /// The parent's side, while the child waits: the cable, and its name.
    pub fn plug(&self, pid: Pid, state: &State) -> Result<()> {
        self.network.plug(pid)?;
        let endpoint = Endpoint {
            id: state.id.clone(),
            name: state.name.clone(),
            aliases: self.plan.aliases.clone(),
            dns: self.plan.dns.clone(),
            address6: self.plan.subnet6.map(|subnet| ipv6::address(&self.network, subnet)),
            process: Process::of(pid)?,
        };
        self.member.publish(&endpoint)
    }

    /// The child's side: addresses and routes.
    pub fn configure(&self) -> Result<()> {
        self.configure_ipv4()?;
        match self.plan.subnet6 {
            Some(subnet) => ipv6::configure(&self.network, subnet, self.plan.internal),
            None => Ok(()),
        }
    }

    fn configure_ipv4(&self) -> Result<()> {
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

/// Removes what was left by who was killed; starts name servers again that were killed.
pub fn sweep(store: &Store) -> Result<()> {
    if rootless::applies() {
        rootless::sweep(store, || sweep_bridges(store))?;
    } else {
        sweep_bridges(store)?;
    }
    let _lock = store.lock()?;
    Networks::of(store).sweep()
}

fn sweep_bridges(store: &Store) -> Result<()> {
    for bridge in Pool::bridges()? {
        let pool = Pool::lock(&bridge)?;
        ipv6::sweep(&pool)?;
        if pool.live_with(endpoint::SUFFIX)?.is_empty() {
            names::stop(&pool)?;
        } else if let Some(names) = Networks::of(store).names_of(&bridge)? {
            names.ensure(&pool)?;
        }
    }
    step05_nat::sweep()
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
