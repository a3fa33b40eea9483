//! `final import`

use std::fs::File;
use std::io::{IsTerminal as _, Read, stdin};

use anyhow::{Context as _, Result, ensure};
use clap::Args;
use oci_spec::image::Config;

use crate::image::{Images, Name, config::change, import::import};
use crate::store::Store;

/// `import [OPTIONS] FILE|- [NAME[:TAG]]`
#[derive(Args, Debug, Clone)]
pub struct ImportArgs {
    /// Set how the image is to be run, by an instruction of a Dockerfile: CMD, ENTRYPOINT, ENV, EXPOSE,
    /// LABEL, STOPSIGNAL, USER or WORKDIR (may be repeated)
    #[arg(long, short, value_name = "INSTRUCTION", value_parser = parse_change)]
    pub change: Vec<String>,

    /// The archive of a root file system: tar, also in gzip or zstd; `-` is the standard input
    pub file: String,

    /// Its name
    #[arg(value_name = "NAME[:TAG]", value_parser = str::parse::<Name>)]
    pub name: Option<Name>,
}

fn parse_change(text: &str) -> Result<String> {
    change(&mut Config::default(), text).map(|()| text.to_owned())
}

/// Makes an image of the archive of a root file system, and prints its id.
pub fn run(args: &ImportArgs) -> Result<()> {
    let mut config = Config::default();
    args.change.iter().try_for_each(|instruction| change(&mut config, instruction))?;
    if let Some(name) = &args.name {
        ensure!(name.tag().is_some(), "an image that is just made has a tag, and no digest yet");
    }
    let store = Store::open()?;
    let images = Images::open(&store)?;
    let mut file = open(&args.file)?;
    let id = import(&images, &mut file, &args.file, config, args.name.clone())?;
    super::print(&format!("sha256:{id}\n"))
}

/// Opens an archive; `-` is the standard input.
pub(super) fn open(path: &str) -> Result<Box<dyn Read>> {
    if path == "-" {
        ensure!(!stdin().is_terminal(), "an archive does not come from a terminal: < FILE");
        return Ok(Box::new(stdin()));
    }
    let file = File::open(path).with_context(|| format!("cannot read {path}"))?;
    ensure!(!file.metadata()?.is_dir(), "{path} is a directory, and no archive");
    Ok(Box::new(file))
}
