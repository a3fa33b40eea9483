//! The part of config.json that is about the network. OCI leaves it to the engine.

use std::net::Ipv4Addr;

use anyhow::{Context as _, Result, ensure};
use nix::unistd::geteuid;
use serde_json::{Value, json};
use step04_bridge_veth::Cidr;

use super::{Request, words};
use crate::bundle::{Annotation, Bundle};
use crate::cli::{Net, NetworkArgs, RunArgs};
use crate::network::{Config, Exposed, Networks, Wanted};
use crate::store::Store;

/// What is known about the network, if it has a bridge. Refuses what cannot be had there.
pub fn find(args: &NetworkArgs, net: &Net, store: &Store) -> Result<Option<Config>> {
    ensure!(
        geteuid().is_root() || !net.is_bridge() || (args.publish.is_empty() && !args.publish_all),
        "--publish needs root: the ports of a plain user's networks cannot be published yet"
    );
    let network = match net {
        Net::Bridge => {
            let mut config = Config::default_bridge();
            config.bridge = args.bridge.clone().unwrap_or(config.bridge);
            config.subnet = args.subnet.map_or(config.subnet, |subnet| subnet.to_string());
            config
        }
        Net::Named(name) => {
            let fix = || format!("final network create {name} makes one");
            Networks::of(store).find(name).with_context(fix)?
        }
        Net::None | Net::Host | Net::Container(_) => {
            let shared = matches!(net, Net::Container(_));
            for (flag, given) in [
                ("--expose", shared && !args.expose.is_empty()),
                ("--publish", !args.publish.is_empty()),
                ("--publish-all", args.publish_all),
                ("--ip", args.ip.is_some()),
            ] {
                ensure!(
                    !given || !shared,
                    "conflicting options: {flag} and --net {}: the network is the other container's",
                    net.name()
                );
                ensure!(
                    !given,
                    "{flag} needs --net bridge, or a network: without a bridge there is no address \
                     to give, and nothing to translate"
                );
            }
            ensure!(args.network_alias.is_empty(), "{ALIAS}");
            return Ok(None);
        }
    };
    if *net == Net::Bridge {
        ensure!(args.network_alias.is_empty(), "{ALIAS}");
    } else {
        let given = args.bridge.is_some() || args.subnet.is_some();
        ensure!(!given, "--bridge and --subnet are for --net bridge: {} has its own", network.name);
    }
    Ok(Some(network))
}

const ALIAS: &str = "--network-alias needs a network of its own (final network create): elsewhere \
                     nobody answers for names";

/// What OCI leaves to the engine, as text, since annotations are text.
pub fn annotations(args: &RunArgs, request: &Request) -> Value {
    let args = &args.network;
    let mut exposed: Vec<Exposed> = args.expose.iter().flatten().copied().collect();
    // What an image exposes in a protocol that is not known here is not for us.
    let image = request.base.config.exposed_ports().iter().flatten();
    for port in image.filter_map(|ports| Exposed::parse(ports).ok()).flatten() {
        if !exposed.contains(&port) {
            exposed.push(port);
        }
    }
    exposed.sort_by_key(|exposed| exposed.port);
    let mut annotations = json!({
        Annotation::NETWORK: request.net.name(),
        Annotation::EXPOSED: words(&exposed),
    });
    if let Some(network) = &request.network {
        annotations[Annotation::NETWORK] = network.name.clone().into();
        annotations[Annotation::BRIDGE] = network.bridge.clone().into();
        annotations[Annotation::SUBNET] = network.subnet.clone().into();
        if let Some(subnet) = &network.subnet6 {
            annotations[Annotation::SUBNET6] = subnet.clone().into();
        }
        annotations[Annotation::INTERNAL] = network.internal.to_string().into();
        annotations[Annotation::ALIASES] = args.network_alias.join(" ").into();
        annotations[Annotation::PUBLISH] = words(&publish(args, &exposed)).into();
    }
    if let Some(server) = request.nameserver {
        annotations[Annotation::NAMESERVER] = server.to_string().into();
    }
    if let Some(ip) = args.ip {
        annotations[Annotation::IP] = ip.to_string().into();
    }
    annotations
}

/// On a network with a name its own server answers, at the bridge's address; also for who has joined
/// it with another container.
pub fn nameserver(net: &Net, network: Option<&Config>, store: &Store) -> Result<Option<Ipv4Addr>> {
    if let Net::Container(name) = net {
        let other = Bundle::load(store.find(name)?.bundle())?;
        return Ok(other.network.and_then(|plan| Some(plan.names()?.subnet.gateway())));
    }
    let network = network.filter(|_| *net != Net::Bridge);
    Ok(network.map(Config::subnet).transpose()?.map(Cidr::gateway))
}

/// The ports that are asked for by number, and with `-P` the other exposed ones.
fn publish(args: &NetworkArgs, exposed: &[Exposed]) -> Vec<Wanted> {
    let mut publish: Vec<Wanted> = args.publish.iter().flatten().copied().collect();
    for &Exposed { port, protocol } in exposed.iter().filter(|_| args.publish_all) {
        if !publish.iter().any(|p| (p.container, p.protocol) == (port, protocol)) {
            publish.push(Exposed { port, protocol }.publish());
        }
    }
    publish
}
