//! `final gc`

use anyhow::Result;

use crate::store::Store;

/// Cleans up after runtimes that were killed: SIGKILL leaves no time for a guard's `Drop`.
pub fn run() -> Result<u8> {
    sweep(&Store::open()?).map(|()| 0).map_err(|error| super::failed(&error))
}

/// What `gc` and every `run` do. The kernel has done the most of it already: the containers died
/// with their runtimes, and with them their namespaces, mounts and links.
pub(crate) fn sweep(store: &Store) -> Result<()> {
    store.sweep()?;
    step02_cgroups::sweep()?;
    step05_nat::sweep()
}
