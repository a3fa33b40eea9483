//! The life cycle, the parent's side: from a bundle to an exit status, in order.

use anyhow::Result;
use step01_namespaces::Child;
use step02_cgroups::Cgroup;

use crate::bundle::Bundle;
use crate::init::init;
use crate::join::Join;
use crate::monitor::{Hub, Streams};
use crate::network::{Attachment, Claim};
use crate::process::{close_to_others, open_to_others};
use crate::remap;
use crate::store::Container;

/// Runs the container of this bundle to its end, and returns its exit status.
///
/// Everything made on the host is owned by a guard. They are dropped in the reverse order of
/// their making: child, network, cgroup; so an error at any line undoes the lines before it.
// ANCHOR: run
pub fn run(container: &mut Container, bundle: &Bundle, claim: Claim, hub: &mut Hub) -> Result<u8> {
    let join = Join::of_containers(&bundle.joins, &container.store())?;
    let parts = remap::open_rootfs(&bundle.rootfs, bundle.ids)?;
    let cgroup = Cgroup::create(container.state.short_id(), &bundle.limits)?;
    bundle.check_end(&cgroup)?;
    let mut network = match &bundle.network {
        Some(plan) => Some(Attachment::make(plan, bundle.namespaces, claim)?),
        None => None,
    };

    let (mut streams, stdio) = Streams::new(&bundle.process, hub.window)?;

    if let Some(ids) = bundle.ids {
        remap::provide(&bundle.process, ids, &stdio.files())?;
        cgroup.show_to(ids.gids.first)?;
    }
    if bundle.is_seen_by_others() {
        close_to_others()?; // before the child is there to be seen: it inherits this
    }
    join.before_clone()?;
    let mut child = Child::spawn(bundle.namespaces, cgroup.fd(), || {
        init(bundle, parts, &cgroup, &join, network.as_ref(), &stdio)
    })?;
    if bundle.is_seen_by_others() {
        open_to_others()?; // other monitors have to see where we are
    }
    drop(stdio); // or we would keep the pipes open ourselves, and never see their end

    // While the child waits for Go: what can only be done from outside.
    remap::map_ids(&child, bundle.ids)?;
    bundle.process.adjust_oom_score(child.pid())?;
    if let Some(network) = &network {
        network.plug(child.pid(), &container.state)?;
    }
    streams.take_terminal(child.go()?)?;
    // Only now: nobody may join a container that is half built.
    container.started(child.pid())?;
    let forwarder = network.as_mut().and_then(|network| network.forwarder.as_mut());
    let status = hub.serve(&mut child, &cgroup, streams, forwarder)?;
    container.state.oom_killed = cgroup.report();
    Ok(status)
}
// ANCHOR_END: run
