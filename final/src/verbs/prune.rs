//! `final prune`

use anyhow::Result;
use clap::Args;

use crate::image::Images;
use crate::network::Networks;

/// `prune [-a] [-f]`, docker's `system prune`
#[derive(Args, Debug, Clone)]
pub struct PruneArgs {
    /// Also images that have a name
    #[arg(long, short)]
    pub all: bool,

    /// Do not ask
    #[arg(long, short)]
    pub force: bool,
}

/// Removes what nobody uses: containers first, as they are what uses networks and images. What cannot
/// be removed does not keep the rest.
pub fn run(args: &PruneArgs) -> Result<()> {
    let images = if args.all { "all images" } else { "all images without a name" };
    let what = format!(
        "all containers that do not run, all networks that no container is on, and {images} that no \
         container uses"
    );
    if !args.force && !super::is_confirmed(&what)? {
        return Ok(());
    }
    let store = super::open()?;
    let mut problems = Vec::new();
    let mut containers = Vec::new();
    for container in store.list()? {
        let id = container.state.id.clone();
        match container.is_alive() {
            Ok(true) => {}
            Ok(false) => match container.remove() {
                Ok(()) => containers.push(id),
                Err(error) => problems.push(error),
            },
            Err(error) => problems.push(error),
        }
    }
    super::print(&super::section("Deleted Containers", &containers))?;
    match Networks::of(&store).prune() {
        Ok(networks) => super::print(&super::section("Deleted Networks", &networks))?,
        Err(error) => problems.push(error),
    }
    match Images::open(&store).and_then(|images| images.prune(args.all)) {
        Ok((lines, bytes)) => {
            super::print(&super::section("Deleted Images", &lines))?;
            super::print(&format!("Total reclaimed space of images: {}\n", super::size(bytes)))?;
        }
        Err(error) => problems.push(error),
    }
    super::all_of(&problems)
}
