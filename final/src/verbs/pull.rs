//! `final pull`

use anyhow::Result;
use clap::Args;

use crate::image::{Images, Name, pull::pull};
use crate::store::Store;

/// `pull [-q] NAME[:TAG|@DIGEST]`
#[derive(Args, Debug, Clone)]
pub struct PullArgs {
    /// Print nothing but the image's whole name
    #[arg(long, short)]
    pub quiet: bool,

    /// The image: [REGISTRY/]REPOSITORY; without a registry it is Docker Hub, without a tag `latest`
    #[arg(value_name = "NAME[:TAG|@DIGEST]", value_parser = str::parse::<Name>)]
    pub name: Name,
}

/// Gets an image from a registry, or what is new of it.
pub fn run(args: &PullArgs) -> Result<u8> {
    let get = || -> Result<()> {
        let store = Store::open()?;
        let images = Images::open(&store)?;
        let mut printed = Ok(());
        pull(&images, &args.name, &mut |line| {
            if !args.quiet && printed.is_ok() {
                printed = super::print(&format!("{line}\n"));
            }
        })?;
        printed?;
        super::print(&format!("{}\n", args.name))
    };
    get().map(|()| 0).map_err(|error| super::failed(&error))
}
