//! `final load`

use anyhow::{Context as _, Result};
use clap::Args;

use crate::image::{Images, archive};
use crate::store::Store;

/// `load [-i FILE] [-q]`
#[derive(Args, Debug, Clone)]
pub struct LoadArgs {
    /// The archive, as `docker save` or skopeo write it, also in gzip or zstd; without it, the standard
    /// input
    #[arg(long, short, value_name = "FILE", default_value = "-", hide_default_value = true)]
    pub input: String,

    /// Print nothing but the images' names
    #[arg(long, short)]
    pub quiet: bool,
}

/// Adds all images of an archive, and prints their names.
pub fn run(args: &LoadArgs) -> Result<()> {
    let store = Store::open()?;
    let images = Images::open(&store)?;
    let loaded = archive::load(&images, super::import::open(&args.input)?);
    let lines = loaded.with_context(|| format!("cannot load {}", args.input))?;
    super::print(&lines.iter().flat_map(|line| [line, "\n"]).collect::<String>())
}
