//! The life cycle, the parent's side: from a bundle to an exit status, in order.

use anyhow::Result;
use step01_namespaces::Child;
use step02_cgroups::Cgroup;
use step04_bridge_veth::Network;
use step05_nat::Nat;

use crate::bundle::Bundle;
use crate::cli::Net;
use crate::init::init;
use crate::monitor::{Hub, Streams};
use crate::store::Container;

/// Runs the container of this bundle to its end, and returns its exit status.
///
/// Everything made on the host is owned by a guard. They are dropped in the reverse order of
/// their making: child, NAT, network, cgroup; so an error at any line undoes the lines before it.
// ANCHOR: run
pub fn run(container: &mut Container, bundle: &Bundle, hub: &mut Hub) -> Result<u8> {
    let cgroup = Cgroup::create(container.state.short_id(), &bundle.limits)?;
    let network = match bundle.net {
        Net::Bridge => Some(Network::join(&bundle.bridge, bundle.namespaces)?),
        Net::None | Net::Host => None,
    };
    let _nat = match &network {
        Some(network) => Some(Nat::install(network, &bundle.publish)?),
        None => None,
    };

    let (mut streams, stdio) = Streams::new(&bundle.process, hub.window)?;

    let mut child = Child::spawn(bundle.namespaces, cgroup.fd(), || {
        init(bundle, &cgroup, network.as_ref(), &stdio)
    })?;
    drop(stdio); // or we would keep the pipes open ourselves, and never see their end

    // While the child waits for Go: what can only be done from outside.
    child.map_ids()?;
    if let Some(network) = &network {
        network.plug(child.pid())?;
    }
    streams.take_terminal(child.go()?)?;
    // Only now: nobody may join a container that is half built.
    container.started(child.pid())?;
    let status = hub.serve(&mut child, &cgroup, streams)?;
    cgroup.report();
    Ok(status)
}
// ANCHOR_END: run
