//! `final restart`

use anyhow::{Result, ensure};
use clap::Args;

use super::start::start;
use super::stop::{How, stop};

/// `restart [-s SIGNAL] [-t SECONDS] CONTAINER...`
#[derive(Args, Debug, Clone)]
pub struct RestartArgs {
    /// How it is to end.
    #[command(flatten)]
    pub how: How,

    /// Names, ids, or beginnings of ids
    #[arg(required = true)]
    pub containers: Vec<String>,
}

/// Ends each container, if it runs, and starts it again.
pub fn run(args: &RestartArgs) -> Result<u8> {
    super::begin_start()?;
    super::for_each(&args.containers, |store, container| {
        let name = &container.state.name;
        ensure!(!container.state.rm, "{name} was made with --rm: it is removed when it ends");
        stop(&container, &args.how)?;
        start(store, &store.find(&container.state.id)?)
    })
}
