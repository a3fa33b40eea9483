//! `final save`

use std::fs::{self, File};
use std::io::{IsTerminal as _, stdout};
use std::path::PathBuf;

use anyhow::{Context as _, Result, ensure};
use clap::Args;

use crate::image::{Images, archive};
use crate::store::Store;

/// `save [-o FILE] IMAGE...`
#[derive(Args, Debug, Clone)]
pub struct SaveArgs {
    /// The file to write; without it, the standard output
    #[arg(long, short, value_name = "FILE")]
    pub output: Option<PathBuf>,

    /// Names, ids, or beginnings of ids
    #[arg(required = true)]
    pub images: Vec<String>,
}

/// Writes images into one archive, which docker, podman and skopeo can read.
pub fn run(args: &SaveArgs) -> Result<()> {
    let store = Store::open()?;
    let images = Images::open(&store)?;
    let find = |text: &String| images.find(text)?.with_context(|| format!("no such image: {text}"));
    let chosen = args.images.iter().map(find).collect::<Result<Vec<_>>>()?;
    let Some(path) = &args.output else {
        ensure!(!stdout().is_terminal(), "an archive is nothing for a terminal: use -o or > FILE");
        return archive::save(&images, &chosen, stdout().lock());
    };
    let failed = || format!("cannot write {}", path.display());
    let is_new = !path.exists();
    let file = File::create(path).with_context(failed)?;
    archive::save(&images, &chosen, file).with_context(failed).inspect_err(|_| {
        if is_new {
            let _ = fs::remove_file(path); // the first error is the one that matters
        }
    })
}
