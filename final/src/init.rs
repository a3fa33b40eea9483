//! The life cycle, the child's side: from Go to the exec, in order.

use std::os::fd::AsFd as _;
use std::path::Path;

use anyhow::Result;
use step01_namespaces::Prepared;
use step02_cgroups::Cgroup;
use step03_rootfs::Parts;
use step04_bridge_veth::loopback_up;

use crate::bundle::Bundle;
use crate::join::Join;
use crate::monitor::Stdio;
use crate::network::{Attachment, own_address};
use crate::{etc, pid1, remap, sysctl, terminal};

/// Turns this process, alone in its new namespaces, into the container's first one.
///
/// The order is the kernel's. Privileges are given up last, as all that comes before needs them,
/// and every path after `enter` is the container's own.
// ANCHOR: init
pub fn init(
    bundle: &Bundle,
    parts: Option<Parts>,
    cgroup: &Cgroup,
    join: &Join,
    network: Option<&Attachment>,
    stdio: &Stdio,
) -> Result<Prepared> {
    let process = &bundle.process;
    process.leave_caller()?;
    cgroup.join()?;
    join.after_clone()?;
    bundle.namespaces.set_up(&bundle.hostname)?;
    if bundle.may_write_cgroup() {
        cgroup.enter_leaf()?;
    }
    match network {
        Some(network) => network.configure()?,
        None if bundle.has_own_network() => loopback_up()?,
        None => {}
    }
    // Settings of IPC belong to the root of its user namespace, but to the host's before Linux 6.9.
    let set = sysctl::write(&bundle.sysctl);
    remap::become_root(bundle.ids)?;
    set.or_else(|_| sysctl::write(&bundle.sysctl))?;
    let address = own_address(&bundle.net, network)?;
    let shared_memory = join.shared_memory()?;
    let root = remap::enter(&bundle.rootfs, parts)?;
    if let Some(shared_memory) = shared_memory {
        root.mount(shared_memory.as_fd(), Path::new("/dev/shm"))?;
    }
    etc::write(&root, &bundle.hostname, (address, network), &bundle.hosts, &bundle.resolv_conf)?;
    let user = process.user.find(&root)?;
    let terminal = stdio.take()?;
    user.own_stdio(process.terminal)?;
    if process.terminal {
        terminal::bind_console(&root)?;
    }
    bundle.rootfs.make_read_only(&root)?;
    process.restrict(&user)?;
    if bundle.init {
        pid1::stay_in_front(process.terminal)?;
    }
    Ok(process.command(&user, terminal))
}
// ANCHOR_END: init
