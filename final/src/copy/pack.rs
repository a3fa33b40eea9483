//! Files -> a tar archive.
//!
//! Each file is opened in its open directory, along no link, so what is done to a path meanwhile cannot
//! lead elsewhere. What it is, is asked of the open file.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, BufWriter, Cursor, ErrorKind, Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};
use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, OFlag, readlinkat};
use nix::sys::stat::{FileStat, SFlag, fstat};
use step01_namespaces::warn;
use tar::{Builder, EntryType, Header};

use super::Source;
use super::place::Side;
use crate::image::{MOST_DEPTH, kind_of, names};

/// A file up to this size is read before its size is written: files in /proc say 0, and those in /sys
/// 4096.
const SMALL: u64 = 1 << 16;

/// Writes the source as an archive in which it is called `name`; returns how many bytes its files have.
pub fn pack(side: Side, source: &Source, name: &Path, to: impl Write) -> Result<u64> {
    let archive = Builder::new(BufWriter::with_capacity(1 << 16, to));
    let mut packer = Packer { side, archive, seen: HashMap::new(), bytes: 0 };
    let path = &source.path;
    let failed = || format!("cannot copy {}", path.display());
    let found = packer.entry(AT_FDCWD, path, source.follow, name, 0).with_context(failed)?;
    ensure!(found, "{} is a socket or a device, and such are not copied", path.display());
    packer.archive.into_inner()?.flush()?;
    Ok(packer.bytes)
}

struct Packer<W: Write> {
    side: Side,
    archive: Builder<W>,
    /// Files with several names, by device and inode: the first of them.
    seen: HashMap<(u64, u64), PathBuf>,
    bytes: u64,
}

impl<W: Write> Packer<W> {
    /// Adds what is at `path`, with all that is below it; false if it is nothing for an archive.
    fn entry(
        &mut self,
        at: BorrowedFd<'_>,
        path: &Path,
        follow: bool,
        name: &Path,
        depth: usize,
    ) -> Result<bool> {
        let link = if follow { OFlag::empty() } else { OFlag::O_NOFOLLOW };
        let found = self.side.open(at, path, OFlag::O_PATH | link)?;
        let stat = fstat(&found)?;
        let mut header = self.header(&stat);
        match kind_of(&stat) {
            SFlag::S_IFDIR => {
                ensure!(depth < MOST_DEPTH, "it is in more than {MOST_DEPTH} directories");
                let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY;
                let directory = self.side.open(&found, Path::new("."), flags)?;
                drop(found); // of those there may be as many as directories in each other
                self.times(&stat)?;
                header.set_entry_type(EntryType::Directory);
                self.archive.append_data(&mut header, name, io::empty())?;
                self.directory(&directory, name, depth)?;
            }
            _ if stat.st_nlink > 1 && self.seen.contains_key(&(stat.st_dev, stat.st_ino)) => {
                header.set_entry_type(EntryType::Link);
                let first = &self.seen[&(stat.st_dev, stat.st_ino)];
                self.archive.append_link(&mut header, name, first)?;
            }
            SFlag::S_IFREG => {
                let file = self.side.read(&found, at, path, link)?;
                let stat = fstat(&file)?;
                ensure!(kind_of(&stat) == SFlag::S_IFREG, "it has become another file meanwhile");
                self.file(file.into(), &stat, name)?;
                self.note(&stat, name);
            }
            SFlag::S_IFLNK => {
                let target = readlinkat(&found, OsStr::new(""))?;
                self.times(&stat)?;
                header.set_entry_type(EntryType::Symlink);
                // As it is; `append_link` would tidy it up, but has room for a long one.
                if header.set_link_name_literal(target.as_bytes()).is_ok() {
                    self.archive.append_data(&mut header, name, io::empty())?;
                } else {
                    self.archive.append_link(&mut header, name, &target)?;
                }
                self.note(&stat, name);
            }
            SFlag::S_IFIFO => {
                self.times(&stat)?;
                header.set_entry_type(EntryType::Fifo);
                self.archive.append_data(&mut header, name, io::empty())?;
                self.note(&stat, name);
            }
            _ => return Ok(false),
        }
        Ok(true)
    }

    fn directory(&mut self, directory: &OwnedFd, name: &Path, depth: usize) -> Result<()> {
        for file in names(directory)? {
            let path = name.join(&file);
            let added = self.entry(directory.as_fd(), Path::new(&file), false, &path, depth + 1);
            match added {
                Ok(true) => {}
                Ok(false) => {
                    warn(&format!("left out: {}, a socket or a device", path.display()));
                }
                // It was removed before we came to it.
                Err(error) if error.downcast_ref() == Some(&Errno::ENOENT) => {}
                error => drop(error.with_context(|| file.display().to_string())?),
            }
        }
        Ok(())
    }

    fn file(&mut self, file: File, stat: &FileStat, name: &Path) -> Result<()> {
        let mut beginning = Vec::new();
        (&file).take(SMALL).read_to_end(&mut beginning)?;
        let read = beginning.len() as u64;
        let size = if read < SMALL { read } else { stat.st_size.cast_unsigned() };
        ensure!(read <= size, "it has more than {SMALL} bytes, and does not say how many");
        self.times(stat)?;
        let mut header = self.header(stat);
        header.set_entry_type(EntryType::Regular);
        header.set_size(size);
        let all = Exact { from: Cursor::new(beginning).chain(file), left: size };
        self.archive.append_data(&mut header, name, all)?;
        self.bytes += size;
        Ok(())
    }

    fn header(&self, stat: &FileStat) -> Header {
        let (uid, gid) = self.side.translate((stat.st_uid, stat.st_gid));
        let mut header = Header::new_gnu();
        header.set_mode(stat.st_mode & 0o7777);
        header.set_uid(uid.into());
        header.set_gid(gid.into());
        header.set_mtime(u64::try_from(stat.st_mtime).unwrap_or_default());
        header.set_size(0);
        header
    }

    /// A header of tar has whole seconds since 1970; one of pax, before it, has all (POSIX, pax).
    fn times(&mut self, stat: &FileStat) -> io::Result<()> {
        let time = match (stat.st_mtime, stat.st_mtime_nsec) {
            (0.., 0) => return Ok(()),
            (seconds @ ..0, _) => seconds.to_string(),
            (seconds, nanoseconds) => format!("{seconds}.{nanoseconds:09}"),
        };
        self.archive.append_pax_extensions([("mtime", time.as_bytes())])
    }

    fn note(&mut self, stat: &FileStat, name: &Path) {
        if stat.st_nlink > 1 {
            self.seen.insert((stat.st_dev, stat.st_ino), name.to_owned());
        }
    }
}

/// So many bytes: a file that grows meanwhile is cut off, one that has become shorter is an error.
struct Exact<R> {
    from: R,
    left: u64,
}

impl<R: Read> Read for Exact<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let most = usize::try_from(self.left).unwrap_or(usize::MAX).min(buffer.len());
        let length = self.from.read(&mut buffer[..most])?;
        if length == 0 && most > 0 {
            let text = "it became shorter while it was copied";
            return Err(io::Error::new(ErrorKind::UnexpectedEof, text));
        }
        self.left -= length as u64;
        Ok(length)
    }
}
