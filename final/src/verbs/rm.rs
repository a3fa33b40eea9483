//! `final rm`

use anyhow::{Result, ensure};
use clap::Args;
use nix::sys::signal::Signal;

use crate::monitor::Message;

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
    super::for_each(&args.containers, |_, container| {
        if container.is_alive()? {
            let name = &container.state.name;
            ensure!(
                args.force,
                "the container {name} is running: end it first (final stop {name}) or use -f"
            );
            super::stop::end(&container, &Message::Signal(Signal::SIGKILL))?;
        }
        container.remove()
    })
}
