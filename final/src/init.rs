//! The life cycle, the child's side: from Go to the exec, in order.

use std::net::Ipv4Addr;

use anyhow::Result;
use step01_namespaces::Prepared;
use step02_cgroups::Cgroup;
use step04_bridge_veth::{Network, loopback_up};

use crate::bundle::Bundle;
use crate::monitor::Stdio;
use crate::{etc, terminal};

/// Turns this process, alone in its new namespaces, into the container's first one.
///
/// The order is the kernel's. Privileges are given up last, as all that comes before needs them,
/// and every path after `enter` is the container's own.
// ANCHOR: init
pub fn init(
    bundle: &Bundle,
    cgroup: &Cgroup,
    network: Option<&Network>,
    stdio: &Stdio,
) -> Result<Prepared> {
    let process = &bundle.process;
    process.leave_caller()?;
    cgroup.join()?;
    bundle.namespaces.set_up(&bundle.hostname)?;
    if bundle.may_write_cgroup() {
        cgroup.enter_leaf()?;
    }
    match network {
        Some(network) => network.configure()?,
        None if bundle.has_own_network() => loopback_up()?,
        None => {}
    }
    let root = bundle.rootfs.enter()?;
    etc::write(&root, &bundle.hostname, address(network), &bundle.resolv_conf)?;
    let terminal = stdio.take()?;
    if process.terminal {
        terminal::bind_console(&root)?;
    }
    process.restrict()?;
    Ok(process.command(terminal))
}
// ANCHOR_END: init

fn address(network: Option<&Network>) -> Option<Ipv4Addr> {
    network.map(Network::address)
}
