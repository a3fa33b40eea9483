//! `final tag`

use anyhow::{Context as _, Result, ensure};
use clap::Args;

use crate::image::{Images, Name};
use crate::store::Store;

/// `tag IMAGE NAME[:TAG]`
#[derive(Args, Debug, Clone)]
pub struct TagArgs {
    /// Name, id, or the beginning of an id
    pub image: String,

    /// One more name for it
    #[arg(value_name = "NAME[:TAG]", value_parser = str::parse::<Name>)]
    pub name: Name,
}

/// Gives an image one more name. If another image has it, that one loses it.
pub fn run(args: &TagArgs) -> Result<()> {
    ensure!(args.name.tag().is_some(), "a name that is given has a tag, and no digest");
    let store = Store::open()?;
    let images = Images::open(&store)?;
    let image = images.find(&args.image)?;
    let image = image.with_context(|| format!("no such image: {}", args.image))?;
    images.tag(&image, &args.name)
}
