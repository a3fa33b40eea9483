//! Paths inside the image, resolved inside the image.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail, ensure};
use nix::errno::Errno;
use nix::fcntl::{OFlag, OpenHow, ResolveFlag, open, openat, openat2};
use nix::sys::stat::{Mode, SFlag, fstat, mkdirat};
use nix::unistd::{UnlinkatFlags, unlinkat};

use crate::sys;

/// An open directory that acts as `/` for every path looked up through it.
///
/// An image is not to be trusted: its /proc or /etc may be a symbolic link to anywhere. openat2(2)
/// with RESOLVE_IN_ROOT takes the link as the container would, and NO_MAGICLINKS keeps it from
/// leaving through a link like /proc/self/fd/3, which leads to an open file and not along a path.
#[derive(Debug)]
pub struct Root(OwnedFd);

impl Root {
    /// Opens `path`, a directory, as a root.
    pub fn open(path: &Path) -> Result<Self> {
        let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        open(path, flags, Mode::empty())
            .map(Self)
            .with_context(|| format!("cannot open the directory {}", path.display()))
    }

    /// What is at `path` inside, not opened for anything (O_PATH); `None` if there is nothing.
    // ANCHOR: find
    pub fn find(&self, path: &Path) -> Result<Option<OwnedFd>> {
        // ANCHOR: ex-3.4
        let how = OpenHow::new()
            .flags(OFlag::O_PATH | OFlag::O_CLOEXEC)
            .resolve(ResolveFlag::RESOLVE_IN_ROOT | ResolveFlag::RESOLVE_NO_MAGICLINKS);
        loop {
            return match openat2(&self.0, path, how) {
                Ok(fd) => Ok(Some(fd)),
                Err(Errno::ENOENT) => Ok(None),
                // Somebody on this machine renamed or mounted something while we were at a "..",
                // and the kernel is not sure any more that it stayed inside.
                Err(Errno::EAGAIN) => continue,
                Err(errno) => Err(errno)
                    .with_context(|| format!("cannot find {} in the image", path.display())),
            };
        }
        // ANCHOR_END: ex-3.4
    }
    // ANCHOR_END: find

    /// The text of the file at `path` inside; `None` if no such file is there, but nothing, a link that
    /// leads nowhere, a FIFO at which we would wait. Bytes that are not UTF-8 are replaced.
    pub fn read(&self, path: &Path) -> Result<Option<String>> {
        const MOST: u64 = 16 << 20;
        let how = OpenHow::new()
            .flags(OFlag::O_RDONLY | OFlag::O_NONBLOCK | OFlag::O_NOCTTY | OFlag::O_CLOEXEC)
            .resolve(ResolveFlag::RESOLVE_IN_ROOT | ResolveFlag::RESOLVE_NO_MAGICLINKS);
        let open = || loop {
            match openat2(&self.0, path, how) {
                Err(Errno::EAGAIN) => {} // see `find`
                opened => break opened,
            }
        };
        let failed = || format!("cannot read {} in the image", path.display());
        let file = match open() {
            Err(Errno::ENOENT | Errno::ENOTDIR | Errno::ELOOP) => return Ok(None),
            file => File::from(file.with_context(failed)?),
        };
        let found = file.metadata().with_context(failed)?;
        if !found.is_file() {
            return Ok(None);
        }
        ensure!(found.len() <= MOST, "{} in the image is too long", path.display());
        let mut bytes = Vec::new();
        file.take(MOST).read_to_end(&mut bytes).with_context(failed)?;
        Ok(Some(String::from_utf8_lossy(&bytes).into_owned()))
    }

    /// The directory `path` inside, made with its parents if it is not there.
    pub fn directory(&self, path: &Path) -> Result<OwnedFd> {
        if let Some(found) = self.find(path)? {
            ensure!(is_directory(found.as_fd()), "{} is not a directory", path.display());
            return Ok(found);
        }
        let (parent, name) = self.parent(path)?;
        // EEXIST: a symbolic link to nowhere, which the second find() then tells from a race.
        match mkdirat(&parent, name, Mode::from_bits_truncate(0o755)) {
            Ok(()) | Err(Errno::EEXIST) => {}
            Err(errno) => {
                bail!("cannot make the directory {} in the image: {errno}", path.display())
            }
        }
        match self.find(path)? {
            Some(made) => Ok(made),
            None => bail!("{} in the image is a symbolic link to nowhere", path.display()),
        }
    }

    /// Puts a mount that is attached to nothing yet on `path` inside, a directory.
    pub fn mount(&self, mount: BorrowedFd<'_>, path: &Path) -> Result<()> {
        let place = self.directory(path)?;
        sys::move_mount(mount, place.as_fd())
            .with_context(|| format!("cannot put a mount into its place on {}", path.display()))
    }

    /// The file `path` inside, to be mounted upon: made, empty, if nothing is there.
    pub fn file(&self, path: &Path) -> Result<OwnedFd> {
        if let Some(found) = self.find(path)? {
            ensure!(!is_directory(found.as_fd()), "{} is a directory", path.display());
            return Ok(found);
        }
        self.write(path, "")?;
        self.find(path)?.with_context(|| format!("{} vanished", path.display()))
    }

    /// Puts a new file with `text` at `path` inside. Whatever stood there (a symbolic link, a
    /// FIFO that would block us) is replaced, not followed and not opened.
    pub fn write(&self, path: &Path, text: &str) -> Result<()> {
        let (parent, name) = self.parent(path)?;
        let create = || {
            let flags = OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_CLOEXEC;
            let mode = Mode::from_bits_truncate(0o644);
            match unlinkat(&parent, name, UnlinkatFlags::NoRemoveDir) {
                Ok(()) | Err(Errno::ENOENT) => {}
                Err(errno) => return Err(errno.into()),
            }
            let mut file = File::from(openat(&parent, name, flags, mode)?);
            file.write_all(text.as_bytes())
        };
        create().with_context(|| format!("cannot write {} in the image", path.display()))
    }

    /// A path that leads to it, whatever has been mounted over it since.
    pub(crate) fn proc_path(&self) -> PathBuf {
        format!("/proc/self/fd/{}", self.0.as_raw_fd()).into()
    }

    fn parent<'p>(&self, path: &'p Path) -> Result<(OwnedFd, &'p std::ffi::OsStr)> {
        match (path.parent(), path.file_name()) {
            (Some(parent), Some(name)) => {
                let parent = if parent == Path::new("") { Path::new("/") } else { parent };
                Ok((self.directory(parent)?, name))
            }
            _ => bail!("{} has no name to be created under", path.display()),
        }
    }
}

impl AsFd for Root {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// Whether the open path is a directory. It need not be one that we may read.
pub(crate) fn is_directory(fd: BorrowedFd<'_>) -> bool {
    let kind = |mode| SFlag::from_bits_truncate(mode & SFlag::S_IFMT.bits());
    fstat(fd).is_ok_and(|stat| kind(stat.st_mode) == SFlag::S_IFDIR)
}
