//! A tar archive -> files.
//!
//! An archive is not to be trusted, also one of ours: what is in it comes from a container. Everything is
//! made in an open directory, by a name without a slash, where nothing is; that directory was opened below
//! the one that everything goes into. Nothing is changed but by its open file, or without following a
//! link: others, a container among them, may change what is there meanwhile.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs::File;
use std::io::{Read, copy, sink};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Error, Result, bail, ensure};
use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, openat};
use nix::sys::stat::{Mode, SFlag, fchmod, futimens, mkdirat, umask};
use nix::unistd::{Gid, Uid, UnlinkatFlags, fchownat, linkat, mkfifoat, symlinkat, unlinkat};
use step01_namespaces::warn;
use tar::{Archive, Entry, EntryType};

use super::place::{Side, target};
use super::{Comes, Destination};
use crate::image::{
    Limited, MOST_HEADER, Metadata, decompress, inside, kind_of, look, set_time, write_sparse,
};

/// Unpacks an archive; returns how many bytes its files have.
pub fn unpack(side: Side, to: &Destination, archive: impl Read) -> Result<u64> {
    umask(Mode::empty()); // a mode is what we say
    let failed = || format!("cannot copy to {}", to.path.display());
    let budget = Cell::new(MOST_HEADER);
    let stream: Box<dyn Read + '_> = match to.comes {
        Comes::Archive => decompress(archive)?.1,
        _ => Box::new(archive),
    };
    let mut archive = Archive::new(Limited { stream, budget: &budget });
    let mut entries = archive.entries().with_context(failed)?;
    let mut unpacker = None;
    if matches!(to.comes, Comes::Archive) {
        unpacker = Some(Unpacker::new(side, to, true).with_context(failed)?);
    }
    loop {
        budget.set(MOST_HEADER);
        let Some(entry) = entries.next() else { break };
        let mut entry = entry.context("this is no tar archive, or it is damaged")?;
        let path = PathBuf::from(OsStr::from_bytes(&entry.path_bytes()));
        budget.set(entry.size());
        // Of one of ours the first entry is the source itself.
        let unpacker = match &mut unpacker {
            Some(unpacker) => unpacker,
            none => {
                let new = Unpacker::new(side, to, entry.header().entry_type().is_dir());
                none.insert(new.with_context(failed)?)
            }
        };
        let shown: PathBuf = unpacker.name.join(&path).components().collect();
        unpacker
            .entry(&path, &mut entry)
            .with_context(|| format!("cannot write {}", shown.display()))
            .map_err(|error| explain(side, error))
            .with_context(failed)?;
        copy(&mut entry, &mut sink())?;
    }
    let unpacker = unpacker.context("there was nothing to be copied")?;
    unpacker.finish().map_err(|error| explain(side, error)).with_context(failed)
}

/// What there is to say about an error, beside what the kernel says.
fn explain(side: Side, error: Error) -> Error {
    let errno = error.chain().find_map(|cause| {
        let io = cause.downcast_ref::<std::io::Error>().and_then(std::io::Error::raw_os_error);
        cause.downcast_ref::<Errno>().copied().or(io.map(Errno::from_raw))
    });
    let hint = match (errno, side) {
        (Some(Errno::EROFS), Side::Container) => {
            "the container's root (--read-only), or that volume (ro), is for reading only, or it is a \
             tmpfs, which is there only while the container runs"
        }
        (Some(Errno::EBUSY), Side::Container) => "it is a mount of its own: write to its source",
        (Some(Errno::ELOOP | Errno::EXDEV), Side::Host) => "a link of the host is in its way",
        _ => return error,
    };
    Error::msg(format!("{error:#} ({hint})"))
}

struct Unpacker {
    side: Side,
    keep_owner: bool,
    /// Everything is made below it.
    top: OwnedFd,
    /// What the archive's root is called in it; nothing, if it is that directory.
    name: PathBuf,
    /// Modes and times of directories are set at the end: what is made in one changes its time, and a
    /// read-only one would take nothing.
    directories: BTreeMap<PathBuf, Metadata>,
    bytes: u64,
}

impl Unpacker {
    fn new(side: Side, to: &Destination, is_directory: bool) -> Result<Self> {
        let (top, name) = target(side, to, is_directory)?;
        let name = name.map(PathBuf::from).unwrap_or_default();
        let (keep_owner, directories) = (to.archive, BTreeMap::new());
        Ok(Self { side, keep_owner, top, name, directories, bytes: 0 })
    }

    fn entry(&mut self, path: &Path, entry: &mut Entry<'_, impl Read>) -> Result<()> {
        let kind = entry.header().entry_type();
        if kind == EntryType::XGlobalHeader {
            return Ok(()); // a comment, such as the commit's name in an archive by git
        }
        // In the oldest archives a directory is a file whose name ends in a slash.
        let slash = kind.is_file() && entry.path_bytes().ends_with(b"/");
        let metadata = Metadata::of(entry)?;
        let path = self.below(&inside(path)?);
        let Some(name) = path.file_name() else {
            ensure!(kind.is_dir() || slash, "it has no name");
            return Ok(()); // where it all goes stays as it is
        };
        let parent = self.parent(&path)?;
        let found = look(&parent, name)?.map(|found| kind_of(&found));
        if kind.is_dir() || slash {
            match found {
                Some(SFlag::S_IFDIR) => {}
                Some(_) => bail!("a directory cannot take the place of what is there, and is none"),
                None => mkdirat(&parent, name, Mode::S_IRWXU)?,
            }
            self.directories.insert(path, metadata);
            return Ok(());
        }
        ensure!(found != Some(SFlag::S_IFDIR), "only a directory can take the place of one");
        if found.is_some() {
            unlinkat(&parent, name, UnlinkatFlags::NoRemoveDir)?;
        }
        match kind {
            EntryType::Regular | EntryType::Continuous | EntryType::GNUSparse => {
                // A half one is worse than none.
                return self.file(&parent, name, entry, &metadata).inspect_err(|_| {
                    let _ = unlinkat(&parent, name, UnlinkatFlags::NoRemoveDir);
                });
            }
            EntryType::Link => return self.hard_link(&parent, name, entry),
            EntryType::Symlink => {
                let target = entry.link_name_bytes().context("a link to nothing")?;
                symlinkat(OsStr::from_bytes(&target), &parent, name)?;
            }
            EntryType::Fifo => mkfifoat(&parent, name, self.mode(&metadata))?,
            EntryType::Char | EntryType::Block => {
                warn(&format!("left out: {}, a device", path.display()));
                return Ok(());
            }
            other => bail!("files of type {other:?} are not known here"),
        }
        self.own(&parent, name, &metadata)?;
        set_time(&parent, name, metadata.time)
    }

    fn file(
        &mut self,
        parent: &OwnedFd,
        name: &OsStr,
        entry: &mut Entry<'_, impl Read>,
        metadata: &Metadata,
    ) -> Result<()> {
        let flags = OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_CLOEXEC;
        let mut file = File::from(openat(parent, name, flags, Mode::S_IRUSR | Mode::S_IWUSR)?);
        let written = write_sparse(entry, &mut file)?;
        ensure!(written == entry.size(), "the archive ends in the middle of it");
        self.bytes += written;
        self.finish_one(&file, metadata, self.mode(metadata))
    }

    /// Both names are the archive's, so the target is looked up as everything else, and no link followed.
    fn hard_link(&self, at: &OwnedFd, name: &OsStr, entry: &Entry<'_, impl Read>) -> Result<()> {
        let target = entry.link_name_bytes().context("a link to nothing")?;
        let target = self.below(&inside(Path::new(OsStr::from_bytes(&target)))?);
        let file = target.file_name().context("a link to the root")?;
        self.open(target.parent().unwrap_or(Path::new("")))
            .and_then(|parent| linkat(parent, file, at, name, AtFlags::empty()))
            .with_context(|| format!("cannot link it to {}", target.display()))
    }

    /// Where a path of the archive is, seen from the top.
    fn below(&self, path: &Path) -> PathBuf {
        self.name.iter().chain(path).collect()
    }

    /// A directory below the top, to make something in it.
    fn open(&self, path: &Path) -> nix::Result<OwnedFd> {
        self.side.open_below(&self.top, path, OFlag::O_PATH | OFlag::O_DIRECTORY)
    }

    /// That in which a file is, which an archive need not have named before.
    fn parent(&self, path: &Path) -> Result<OwnedFd> {
        let path = path.parent().unwrap_or(Path::new(""));
        match self.open(path) {
            Err(Errno::ENOENT) => {}
            opened => return opened.with_context(|| format!("cannot go to {}", path.display())),
        }
        let (mut made, mut parent) = (PathBuf::new(), self.open(Path::new(""))?);
        for name in path {
            match mkdirat(&parent, name, Mode::from_bits_truncate(0o755)) {
                Ok(()) | Err(Errno::EEXIST) => {}
                Err(errno) => return Err(errno).context("cannot make its directory"),
            }
            made.push(name);
            parent = self.open(&made)?;
        }
        Ok(parent)
    }

    /// Whose program sets its user's id is somebody else by now, unless owners are kept.
    fn mode(&self, metadata: &Metadata) -> Mode {
        let set_id = Mode::S_ISUID | Mode::S_ISGID;
        if self.keep_owner { metadata.mode } else { metadata.mode - set_id }
    }

    fn finish_one(&self, file: impl AsFd, metadata: &Metadata, mode: Mode) -> Result<()> {
        // chown(2) takes set-user-ID bits away, so the mode comes after it.
        self.own(&file, OsStr::new(""), metadata)?;
        fchmod(&file, mode).context("cannot set its mode")?;
        futimens(&file, &metadata.time, &metadata.time).context("cannot set its time")
    }

    /// Gives it to whom it belongs: with the name in a directory, with none the file itself.
    fn own(&self, file: impl AsFd, name: &OsStr, metadata: &Metadata) -> Result<()> {
        if !self.keep_owner {
            return Ok(());
        }
        let (uid, gid) = self.side.translate(metadata.owner);
        let flags = AtFlags::AT_SYMLINK_NOFOLLOW | AtFlags::AT_EMPTY_PATH;
        fchownat(file, name, Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)), flags)
            .with_context(|| {
                format!(
                    "cannot give it to {uid}:{gid}, whom there is not for a plain user, or in that \
                     container: leave out --archive"
                )
            })
    }

    /// Directories, from the inside out.
    fn finish(mut self) -> Result<u64> {
        for (path, metadata) in std::mem::take(&mut self.directories).iter().rev() {
            let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW;
            self.side
                .open_below(&self.top, path, flags)
                .map_err(Error::from)
                .and_then(|directory| self.finish_one(directory, metadata, metadata.mode))
                .with_context(|| format!("cannot finish {}", path.display()))?;
        }
        Ok(self.bytes)
    }
}

#[cfg(test)]
mod tests {
    use std::fs::{self, read_to_string};
    use std::os::unix::fs::{PermissionsExt as _, symlink};

    use tar::{Builder, Header};

    use super::*;

    /// An archive as no process of ours writes it: names, contents or targets, and modes are taken as they
    /// are.
    fn archive(entries: &[(EntryType, &str, &str)]) -> Vec<u8> {
        let mut builder = Builder::new(Vec::new());
        for &(kind, name, content) in entries {
            let mut header = Header::new_gnu();
            header.as_old_mut().name[..name.len()].copy_from_slice(name.as_bytes());
            header.set_entry_type(kind);
            header.set_mode(if kind.is_dir() { 0o755 } else { 0o6755 });
            header.set_uid(0);
            header.set_gid(0);
            header.set_mtime(0);
            let data = if kind.is_file() { content.as_bytes() } else { &[] };
            header.set_size(data.len() as u64);
            if !kind.is_file() {
                header.set_link_name_literal(content).unwrap();
            }
            header.set_cksum();
            builder.append(&header, data).unwrap();
        }
        builder.into_inner().unwrap()
    }

    /// Unpacks on the host what claims to be the copy of a directory, into `top/out`.
    fn to_host(top: &Path, entries: &[(EntryType, &str, &str)]) -> Result<u64> {
        let root = [(EntryType::Directory, ".", "")];
        let (path, comes) = (top.join("out"), Comes::Contents);
        let to = Destination { path, comes, archive: false };
        unpack(Side::Host, &to, &*archive(&[&root, entries].concat()))
    }

    #[test]
    fn nothing_that_comes_leaves_where_it_goes() {
        use EntryType::{Char, Directory, Link, Regular, Symlink};
        let top = std::env::temp_dir().join(format!("final-unpack-{}", std::process::id()));
        fs::create_dir_all(top.join("out")).unwrap();
        fs::create_dir(top.join("other")).unwrap();
        fs::write(top.join("other/secret"), "secret").unwrap();
        let other = top.join("other");
        let other = other.to_str().unwrap();
        symlink(other, top.join("out/mine")).unwrap(); // the user's own, which was there before

        let (up, secret) = ("../other/secret", format!("{other}/secret"));
        for (entries, text) in [
            (&[(Regular, up, "x")][..], "leads out"),
            (&[(Symlink, "a", other), (Regular, "a/secret", "x")], "a link of the host"),
            (&[(Symlink, "b", "../other"), (Regular, "b/secret", "x")], "a link of the host"),
            (&[(Symlink, "c", other), (Directory, "c", "")], "take the place"),
            (&[(Symlink, "d", other), (Link, "e", "d/secret")], "a link of the host"),
            (&[(Link, "f", up)], "leads out"),
            (&[(Link, "g", &secret)], "cannot link it to"),
            (&[(Regular, "mine/secret", "x")], "a link of the host"),
            (&[(Regular, "mine/new", "x")], "a link of the host"),
            (&[(Directory, "mine", "")], "take the place"),
        ] {
            let error = to_host(&top, entries).expect_err(&format!("{entries:?} was unpacked"));
            assert!(format!("{error:#}").contains(text), "{entries:?}: {error:#}");
        }
        // From the root of the archive, and in the place of a link instead of through it.
        let fine = [
            (Regular, secret.as_str(), "absolute"),
            (Symlink, "h", secret.as_str()),
            (Regular, "h", "program"),
            (Char, "device", ""),
        ];
        assert_eq!(to_host(&top, &fine).unwrap(), 15);
        let out = top.join("out");
        assert_eq!(read_to_string(out.join(&secret[1..])).unwrap(), "absolute");
        assert_eq!(read_to_string(out.join("h")).unwrap(), "program");
        assert_eq!(fs::metadata(out.join("h")).unwrap().permissions().mode() & 0o7777, 0o755);
        assert!(!out.join("device").exists());
        assert_eq!(read_to_string(&secret).unwrap(), "secret");
        assert_eq!(fs::read_dir(other).unwrap().count(), 1);
        fs::remove_dir_all(top).unwrap();
    }
}
