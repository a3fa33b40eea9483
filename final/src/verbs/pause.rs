//! `final pause` and `final unpause`

use anyhow::{Context as _, Result, ensure};
use clap::Args;

/// `pause CONTAINER...`
#[derive(Args, Debug, Clone)]
pub struct PauseArgs {
    /// Names, ids, or beginnings of ids
    #[arg(required = true)]
    pub containers: Vec<String>,
}

/// Stops all processes of each container where they are.
pub fn pause(args: &PauseArgs) -> Result<u8> {
    super::for_each(&args.containers, |_, container| {
        let (cgroup, name) = (container.cgroup()?, &container.state.name);
        ensure!(!cgroup.is_frozen()?, "the container {name} is paused already");
        cgroup.freeze().with_context(|| format!("cannot pause {name}"))
    })
}

/// Lets them go on.
pub fn unpause(args: &PauseArgs) -> Result<u8> {
    super::for_each(&args.containers, |_, container| {
        let (cgroup, name) = (container.cgroup()?, &container.state.name);
        ensure!(cgroup.is_frozen()?, "the container {name} is not paused");
        cgroup.thaw().with_context(|| format!("cannot let {name} go on"))
    })
}
