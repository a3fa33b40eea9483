//! `final rm`

use anyhow::{Result, ensure};
use clap::Args;
use nix::sys::signal::Signal;

use crate::store::Store;

/// `rm [-f] CONTAINER...`
#[derive(Args, Debug, Clone)]
pub struct RmArgs {
    /// Kill it first if it is running
    #[arg(long, short)]
    pub force: bool,

    /// Names, ids, or beginnings of ids
    #[arg(required = true)]
    pub containers: Vec<String>,
}

/// Removes what is left of each container; with `-f` ends it first.
pub fn run(args: &RmArgs) -> Result<u8> {
    let remove = || -> Result<()> {
        let store = Store::open()?;
        super::gc::sweep_if_needed(&store)?;
        for name in &args.containers {
            let container = store.find(name)?;
            if container.is_alive()? {
                ensure!(
                    args.force,
                    "the container {name} is running: end it first (final kill {name}) or use -f"
                );
                super::kill::signal(&container, Signal::SIGKILL)?;
            }
            container.remove_when_ended()?;
            super::print(&format!("{name}\n"))?;
        }
        Ok(())
    };
    remove().map(|()| 0).map_err(|error| super::failed(&error))
}
