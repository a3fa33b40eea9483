//! Files between the host and a container.
//!
//! What is in a container is not to be trusted, and may change while we copy. So one process does what
//! is to be done in the container, and nothing else is in its reach: the container's root is its root.
//! We do what is to be done on the host. Between the two goes a tar archive, and neither ever looks up a
//! path of the other side.
//!
//! | file | what it holds |
//! |---|---|
//! | this one | who does what |
//! | `inside` | the process in the container, running or at rest |
//! | `place` | where a path leads |
//! | `pack` | files -> an archive |
//! | `unpack` | an archive -> files |

mod inside;
mod pack;
mod place;
mod unpack;

use std::ffi::OsString;
use std::io::{self, ErrorKind, pipe, stdin, stdout};
use std::os::fd::AsRawFd as _;
use std::path::{Path, PathBuf};
use std::thread;

use anyhow::{Error, Result, anyhow};
use nix::unistd::close;

pub use inside::Inside;
use pack::pack;
use place::Side;
use unpack::unpack;

/// What is copied.
#[derive(Debug, Clone)]
pub struct Source {
    /// Where it is, on its side.
    pub path: PathBuf,
    /// Whether, if it is a link, what it leads to is meant.
    pub follow: bool,
}

/// Where it goes, on its side.
#[derive(Debug, Clone)]
pub struct Destination {
    /// As the user gave it.
    pub path: PathBuf,
    /// What it is that comes.
    pub comes: Comes,
    /// Whether the files stay whose they are.
    pub archive: bool,
}

/// What comes, which says where in the destination it goes.
#[derive(Debug, Clone)]
pub enum Comes {
    /// A file or directory of this name.
    Named(OsString),
    /// What is in a directory without a name: `/`, `.`, and all that ends in `/.`.
    Contents,
    /// The user's own archive.
    Archive,
}

impl Source {
    /// How it is called in an archive for the user.
    fn name(&self) -> &Path {
        match self.comes() {
            Comes::Named(_) => Path::new(self.path.file_name().unwrap_or_default()),
            Comes::Contents | Comes::Archive => Path::new("."),
        }
    }

    /// What it is to who takes it.
    #[must_use]
    pub fn comes(&self) -> Comes {
        // `file_name` is that of `x` for `x/.`, too.
        let bytes = self.path.as_os_str().as_encoded_bytes();
        let is_dot = bytes == b"." || bytes.ends_with(b"/.");
        match self.path.file_name() {
            Some(name) if !is_dot => Comes::Named(name.to_owned()),
            _ => Comes::Contents,
        }
    }
}

/// Out of the container, to the host; returns how many bytes that were.
pub fn to_host(inside: Inside, from: Source, to: Destination) -> Result<u64> {
    let (reader, writer) = pipe()?;
    let ours = reader.as_raw_fd();
    let work = inside.begin(move || {
        close(ours)?; // or it would not learn that nobody reads any more
        let packed = pack(Side::Container, &from, Path::new("."), writer);
        unless_nobody_reads(packed).map(drop)
    })?;
    let host = thread::spawn(move || unpack(Side::Host, &to, reader));
    // Who writes knows why the archive has ended too early, who reads only that it has.
    work.finish().map_err(in_container)?;
    host.join().map_err(|_| anyhow!("a bug: panicked"))?
}

/// Into the container, from the host; returns how many bytes that were.
pub fn to_container(inside: Inside, from: Source, to: Destination) -> Result<u64> {
    let (reader, writer) = pipe()?;
    let ours = writer.as_raw_fd();
    let work = inside.begin(move || {
        close(ours)?; // or the archive would not end with us
        unpack(Side::Container, &to, reader).map(drop)
    })?;
    let host = thread::spawn(move || pack(Side::Host, &from, Path::new("."), writer));
    let inside = work.finish().map_err(in_container);
    let packed = host.join().map_err(|_| anyhow!("a bug: panicked"))?;
    let bytes = unless_nobody_reads(packed)?;
    inside.map(|()| bytes)
}

/// Out of the container, as an archive on the standard output.
pub fn to_stdout(inside: Inside, from: Source) -> Result<()> {
    let work = inside.begin(move || {
        let packed = pack(Side::Container, &from, from.name(), stdout().lock());
        unless_nobody_reads(packed).map(drop)
    })?;
    work.finish().map_err(in_container)
}

/// Into the container, from an archive on the standard input.
pub fn from_stdin(inside: Inside, to: Destination) -> Result<()> {
    let work = inside.begin(move || unpack(Side::Container, &to, stdin().lock()).map(drop))?;
    work.finish().map_err(in_container)
}

/// Who writes to somebody that has gone leaves it to them to say why.
fn unless_nobody_reads(packed: Result<u64>) -> Result<u64> {
    let is_gone = |error: &Error| {
        let kind = |cause: &(dyn std::error::Error + 'static)| {
            cause.downcast_ref::<io::Error>().map(io::Error::kind)
        };
        error.chain().any(|cause| kind(cause) == Some(ErrorKind::BrokenPipe))
    };
    match packed {
        Err(error) if is_gone(&error) => Ok(0),
        packed => packed,
    }
}

/// What of its errors needs to be told apart from ours.
fn in_container(error: Error) -> Error {
    error.context("in the container")
}
