//! `final wait`

use anyhow::Result;
use clap::Args;

use crate::client;
use crate::store::Store;

/// `wait CONTAINER...`
#[derive(Args, Debug, Clone)]
pub struct WaitArgs {
    /// Names, ids, or beginnings of ids
    #[arg(required = true)]
    pub containers: Vec<String>,
}

/// Waits until each container has ended, and prints its exit status.
pub fn run(args: &WaitArgs) -> Result<u8> {
    let wait = || -> Result<()> {
        let store = Store::open()?;
        super::gc::sweep_if_needed(&store)?;
        for name in &args.containers {
            let container = store.find(name)?;
            let status = if let Ok(connection) = container.connect() {
                client::wait(&connection)?
            } else {
                container.wait_until_ended()?; // it has ended, maybe just now
                container.reload()?.and_then(|state| state.exited).unwrap_or(0)
            };
            super::print(&format!("{status}\n"))?;
        }
        Ok(())
    };
    wait().map(|()| 0).map_err(|error| super::failed(&error))
}
