//! `final gc`

use anyhow::Result;

use crate::network::{self, Networks};
use crate::store::Store;

/// Cleans up after runtimes that were killed: SIGKILL leaves no time for a guard's `Drop`.
pub fn run() -> Result<()> {
    sweep(&Store::open()?)
}

/// What the other verbs do first: the same, if there is anything to clean up.
pub(crate) fn sweep_if_needed(store: &Store) -> Result<()> {
    if store.has_stale()? || Networks::of(store).has_stale()? { sweep(store) } else { Ok(()) }
}

/// The kernel has done the most of it already: the containers died with their runtimes, and with
/// them their namespaces, mounts and links. The store comes last: it is how the next one would
/// know that there is something to do, should we be killed in our turn.
fn sweep(store: &Store) -> Result<()> {
    store.wait_for_orphans()?;
    step02_cgroups::sweep()?;
    network::sweep(store)?;
    store.sweep()
}
