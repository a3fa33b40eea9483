//! `final rmi`

use anyhow::Result;
use clap::Args;

use crate::image::Images;
use crate::store::Store;

/// `rmi [-f] IMAGE...`
#[derive(Args, Debug, Clone)]
pub struct RmiArgs {
    /// Also an image that has several names, by its id
    #[arg(long, short)]
    pub force: bool,

    /// Names, ids, or beginnings of ids
    #[arg(required = true)]
    pub images: Vec<String>,
}

/// Removes names, and the images that have none any more. One that cannot be removed does not keep the
/// others.
pub fn run(args: &RmiArgs) -> Result<()> {
    let store = Store::open()?;
    let images = Images::open(&store)?;
    let mut problems = Vec::new();
    for text in &args.images {
        match images.remove(text, args.force) {
            Ok(lines) => {
                super::print(&lines.iter().flat_map(|line| [line, "\n"]).collect::<String>())?;
            }
            Err(error) => problems.push(error),
        }
    }
    super::all_of(&problems)
}
