//! `final wait`

use anyhow::Result;
use clap::Args;

use crate::client;
use crate::store::Container;

/// `wait CONTAINER...`
#[derive(Args, Debug, Clone)]
pub struct WaitArgs {
    /// Names, ids, or beginnings of ids
    #[arg(required = true)]
    pub containers: Vec<String>,
}

/// Waits until each container has ended, and prints its exit status.
pub fn run(args: &WaitArgs) -> Result<()> {
    let store = super::open()?;
    for name in &args.containers {
        let container = store.find(name)?;
        super::print(&format!("{}\n", end_of(&container)?))?;
    }
    Ok(())
}

/// Waits for its end; returns its exit status.
fn end_of(container: &Container) -> Result<u8> {
    match container.connect().and_then(|connection| client::wait(&connection)) {
        Ok(status) => Ok(status),
        Err(error) if container.is_stale()? => Err(error),
        // It has ended, maybe just before we could ask.
        Err(_) => {
            container.wait_until_ended()?;
            Ok(container.reload()?.and_then(|state| state.exited).unwrap_or(0))
        }
    }
}
