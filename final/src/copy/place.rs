//! Where a path leads, on the host or in the container.

use std::ffi::OsString;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail, ensure};
use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, OFlag, OpenHow, ResolveFlag, openat2, readlinkat};
use nix::sys::stat::{SFlag, fstat};
use nix::unistd::{getegid, geteuid};

use super::{Comes, Destination};
use crate::image::{kind_of, look, proc_path};

/// As many links as the kernel follows in one path (path_resolution(7)).
const MOST_LINKS: usize = 40;

/// Whose paths they are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// The user's own: what they name is what they mean. What comes for it is not to be trusted.
    Host,
    /// Our root is the container's, so no path leads out; but a link like /proc/self/fd/3, which leads
    /// to an open file and not along a path. We have some of the host's.
    Container,
}

impl Side {
    /// Opens what the user has named, or what is in such a directory.
    pub fn open(self, at: impl AsFd, path: &Path, flags: OFlag) -> nix::Result<OwnedFd> {
        let resolve = match self {
            Self::Host => ResolveFlag::empty(),
            Self::Container => ResolveFlag::RESOLVE_NO_MAGICLINKS,
        };
        openat2(at, path, OpenHow::new().flags(flags | OFlag::O_CLOEXEC).resolve(resolve))
    }

    /// Opens a found file to be read; not to wait, should it be a FIFO by now. On the host it is the very same
    /// one: by its name, a container that shares the directory could have us open a device. In a
    /// container there are none to be opened, but maybe no /proc, either.
    pub fn read(
        self,
        found: &OwnedFd,
        at: impl AsFd,
        path: &Path,
        link: OFlag,
    ) -> nix::Result<OwnedFd> {
        let flags = OFlag::O_RDONLY | OFlag::O_NONBLOCK | OFlag::O_NOCTTY;
        match self {
            Self::Host => self.open(AT_FDCWD, &proc_path(found), flags),
            Self::Container => self.open(at, path, flags | link),
        }
    }

    /// Opens what an archive names, below a directory. On the host no link leads there; in a container
    /// one may, as /lib does to /usr/lib in many.
    pub fn open_below(self, top: impl AsFd, path: &Path, flags: OFlag) -> nix::Result<OwnedFd> {
        let resolve = match self {
            Self::Host => ResolveFlag::RESOLVE_BENEATH | ResolveFlag::RESOLVE_NO_SYMLINKS,
            Self::Container => ResolveFlag::RESOLVE_NO_MAGICLINKS,
        };
        let how = OpenHow::new().flags(flags | OFlag::O_CLOEXEC).resolve(resolve);
        openat2(top, &Path::new(".").join(path), how)
    }

    /// The owner in the archive of whom we see as this one, or the other way round. A plain user is root
    /// in their containers.
    pub fn translate(self, (uid, gid): (u32, u32)) -> (u32, u32) {
        let swap = |id: u32, own: u32| match id {
            0 => own,
            id if id == own => 0,
            id => id,
        };
        match self {
            Self::Host if !geteuid().is_root() => {
                (swap(uid, geteuid().as_raw()), swap(gid, getegid().as_raw()))
            }
            _ => (uid, gid),
        }
    }
}

/// The directory in which to unpack, and the name that what comes gets in it; without one, it becomes
/// that directory.
pub type Target = (OwnedFd, Option<OsString>);

/// docker's rules for where it goes.
pub fn target(side: Side, to: &Destination, is_directory: bool) -> Result<Target> {
    let path = &to.path;
    let found = match side.open(AT_FDCWD, path, OFlag::O_PATH) {
        Err(Errno::ENOENT) => None,
        found => Some(found?),
    };
    let kind = found.as_ref().map(|found| fstat(found).map(|found| kind_of(&found))).transpose()?;
    match (found, kind, &to.comes) {
        (Some(directory), Some(SFlag::S_IFDIR), Comes::Named(name)) => {
            return Ok((directory, Some(name.clone())));
        }
        (Some(directory), Some(SFlag::S_IFDIR), _) => return Ok((directory, None)),
        (_, _, Comes::Archive) => {
            bail!("an archive is unpacked into a directory, and that is none")
        }
        (Some(_), Some(SFlag::S_IFREG), _) => {
            ensure!(!is_directory, "a directory cannot take the place of a file");
        }
        (Some(_), ..) => bail!("it is neither a file nor a directory"),
        (None, ..) => {
            let slash = path.as_os_str().as_encoded_bytes().ends_with(b"/");
            ensure!(is_directory || !slash, "there is no such directory");
        }
    }
    let (directory, name) = behind_links(side, path)?;
    Ok((directory, Some(name)))
}

/// The directory and the name of what is, or will be, at the end of a path that may be a link.
fn behind_links(side: Side, path: &Path) -> Result<(OwnedFd, OsString)> {
    let mut path = path.to_owned();
    for _ in 0..MOST_LINKS {
        let name = path.file_name().context("it has no name")?.to_owned();
        let parent = match path.parent() {
            Some(parent) if parent != Path::new("") => parent.to_owned(),
            _ => PathBuf::from("."),
        };
        let directory = side
            .open(AT_FDCWD, &parent, OFlag::O_PATH | OFlag::O_DIRECTORY)
            .with_context(|| format!("there is no directory {}", parent.display()))?;
        let link = look(&directory, &name)?.filter(|found| kind_of(found) == SFlag::S_IFLNK);
        if link.is_none() {
            return Ok((directory, name));
        }
        path = parent.join(readlinkat(&directory, name.as_os_str())?);
    }
    bail!("too many links lead there")
}
