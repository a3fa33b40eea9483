//! `final pause` and `final unpause`

use anyhow::{Context as _, Result, ensure};
use clap::Args;
use step02_cgroups::Cgroup;

use crate::store::Container;

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
        let (cgroup, name) = (cgroup(&container)?, &container.state.name);
        ensure!(!cgroup.is_frozen()?, "the container {name} is paused already");
        cgroup.freeze().with_context(|| format!("cannot pause {name}"))
    })
}

/// Lets them go on.
pub fn unpause(args: &PauseArgs) -> Result<u8> {
    super::for_each(&args.containers, |_, container| {
        let (cgroup, name) = (cgroup(&container)?, &container.state.name);
        ensure!(cgroup.is_frozen()?, "the container {name} is not paused");
        cgroup.thaw().with_context(|| format!("cannot let {name} go on"))
    })
}

/// Whether it is paused; that the kernel knows, and nobody else.
pub(crate) fn is_paused(container: &Container) -> Result<bool> {
    match container.state.process {
        Some(_) => cgroup(container)?.is_frozen(),
        None => Ok(false),
    }
}

fn cgroup(container: &Container) -> Result<Cgroup> {
    let (first, _pidfd) = container.first_process()?;
    Cgroup::of_container(container.state.short_id(), first)
}
