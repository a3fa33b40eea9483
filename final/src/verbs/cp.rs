//! `final cp`

use std::ffi::{OsStr, OsString};
use std::io::{IsTerminal as _, Write as _, stderr, stdout};
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::path::{Path, PathBuf};

use anyhow::{Result, bail, ensure};
use clap::Args;
use clap::builder::{OsStringValueParser, TypedValueParser as _};
use step01_namespaces::printable;

use crate::copy::{self, Comes, Destination, Inside, Source};
use crate::monitor::close_foreign_files;
use crate::security::protect_own_program;

/// `cp [-aLq] CONTAINER:SRC DEST|-`, or `cp [-aLq] SRC|- CONTAINER:DEST`
#[derive(Args, Debug, Clone)]
pub struct CpArgs {
    /// Keep owners (by their numbers) and set-user-ID bits; without it, files become root's in the
    /// container, and yours on the host
    #[arg(long, short)]
    pub archive: bool,

    /// If SRC is a link, copy what it leads to
    #[arg(long, short = 'L')]
    pub follow_link: bool,

    /// Do not say how much was copied, which is said only at a terminal
    #[arg(long, short)]
    pub quiet: bool,

    /// What to copy: CONTAINER:PATH, a path of the host, or - for a tar archive to read; of a
    /// directory PATH/. only what is in it
    #[arg(value_name = "SRC", value_parser = OsStringValueParser::new().map(Place::of))]
    pub source: Place,

    /// Where to: into a directory, or under this name; - for a tar archive to write
    #[arg(value_name = "DEST", value_parser = OsStringValueParser::new().map(Place::of))]
    pub destination: Place,
}

/// One end of a copy.
#[derive(Debug, Clone)]
pub enum Place {
    /// In this container.
    Container(String, PathBuf),
    /// On the host.
    Host(PathBuf),
    /// The standard input or output.
    Stream,
}

impl Place {
    /// As docker tells them apart: a colon is a path's own if it begins with a slash or a dot.
    fn of(word: OsString) -> Self {
        let bytes = word.as_bytes();
        let colon = bytes.iter().position(|&byte| byte == b':');
        match colon.filter(|_| !bytes.starts_with(b"/") && !bytes.starts_with(b".")) {
            Some(colon) => {
                let name = String::from_utf8_lossy(&bytes[..colon]).into_owned();
                // In there a path begins at the root.
                let path = Path::new("/").join(OsStr::from_bytes(&bytes[colon + 1..]));
                Self::Container(name, path)
            }
            None if bytes == b"-" => Self::Stream,
            None => Self::Host(OsString::from_vec(word.into_vec()).into()),
        }
    }
}

/// Copies files between the host and a container.
pub fn run(args: &CpArgs) -> Result<u8> {
    protect_own_program()?;
    close_foreign_files()?;
    cp(args).map(|()| 0).map_err(|error| super::failed(&error))
}

fn cp(args: &CpArgs) -> Result<()> {
    let store = super::open()?;
    let source = |path: &PathBuf| Source { path: path.clone(), follow: args.follow_link };
    let destination =
        |path: &PathBuf, comes| Destination { path: path.clone(), comes, archive: args.archive };
    let (bytes, to) = match (&args.source, &args.destination) {
        (Place::Container(name, from), Place::Stream) => {
            ensure!(!stdout().is_terminal(), "an archive is nothing for a terminal: use > FILE");
            return copy::to_stdout(Inside::of(&store, name, false)?, source(from));
        }
        (Place::Container(name, from), Place::Host(to)) => {
            let from = source(from);
            let destination = destination(to, from.comes());
            let inside = Inside::of(&store, name, false)?;
            (copy::to_host(inside, from, destination)?, to.display().to_string())
        }
        (Place::Stream, Place::Container(name, to)) => {
            let destination = destination(to, Comes::Archive);
            return copy::from_stdin(Inside::of(&store, name, true)?, destination);
        }
        (Place::Host(from), Place::Container(name, to)) => {
            let from = source(from);
            let destination = destination(to, from.comes());
            let inside = Inside::of(&store, name, true)?;
            let shown = format!("{name}:{}", to.display());
            (copy::to_container(inside, from, destination)?, shown)
        }
        (Place::Container(one, from), Place::Container(other, to)) => bail!(
            "files are not copied from container to container: final cp {one}:{} - | final cp - \
             {other}:{}",
            from.display(),
            to.display()
        ),
        _ => bail!("one of the two has to be in a container: CONTAINER:PATH"),
    };
    if stdout().is_terminal() && !args.quiet {
        // As docker, beside the output: whoever cannot be told is not told.
        let line = format!("Successfully copied {} to {}", super::size(bytes), printable(&to));
        let _ = writeln!(stderr(), "{line}");
    }
    Ok(())
}
