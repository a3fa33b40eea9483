//! `final pull`

use std::io::{Write as _, stderr};

use anyhow::Result;
use clap::Args;

use crate::cli::{Pull, RunArgs};
use crate::image::{Base, Images, Name, pull::pull};
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
pub fn run(args: &PullArgs) -> Result<()> {
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
}

/// Gets the image from its registry, if `--pull` wants that.
pub(super) fn if_needed(args: &RunArgs) -> Result<()> {
    let text = args.image_and_command.first().and_then(|text| text.to_str()).unwrap_or("host");
    if args.mounts.rootfs || args.pull == Pull::Never || !Base::is_name(text) {
        return Ok(());
    }
    let Ok(name) = text.parse::<Name>() else { return Ok(()) }; // what is wrong with it is told later
    let store = Store::open()?;
    let images = Images::open(&store)?;
    if args.pull == Pull::Missing {
        if images.find(text)?.is_some() {
            return Ok(());
        }
        tell(&format!("Unable to find image '{}' locally", name.short()));
    }
    pull(&images, &name, &mut tell)
}

/// docker's lines about an image go to the standard error: the output is the program's.
fn tell(line: &str) {
    let _ = writeln!(stderr(), "{line}");
}
