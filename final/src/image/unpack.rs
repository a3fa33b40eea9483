//! A layer's tar archive -> a directory that overlayfs can use.
//!
//! A layer is not to be trusted: a name in it may have `..`, or lead through a link that the layer has
//! brought along, to anywhere. So no path is looked up but from the layer's own directory
//! (openat2(2) with RESOLVE_IN_ROOT), and what is made is made in an open directory, by a name
//! without a slash, where nothing was before.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{Read, Seek as _, SeekFrom, Write as _, copy, sink};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Component, Path, PathBuf};

use anyhow::{Context as _, Result, bail, ensure};
use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, openat};
use nix::sys::stat::{
    FchmodatFlags, FileStat, Mode, SFlag, UtimensatFlags, fchmodat, fstatat, makedev, mkdirat,
    mknodat, utimensat,
};
use nix::sys::time::TimeSpec;
use nix::unistd::{
    Gid, Uid, UnlinkatFlags, fchownat, geteuid, linkat, mkfifoat, symlinkat, unlinkat,
};
use step03_rootfs::Root;
use tar::{Archive, Entry, EntryType};

use super::metadata::{Metadata, proc_path, set_attribute};
use super::stream::{Hashing, Limited, Padded};
use crate::user::is_rootless;

/// The most bytes that one layer may have, unpacked.
pub const MOST_BYTES: u64 = 64 << 30;
/// The most files.
pub const MOST_ENTRIES: u64 = 1 << 20;
/// The most directories that one name leads through: each of them is looked up, for each file.
pub(crate) const MOST_DEPTH: usize = 256;
/// The most bytes before a file's own: its name, its attributes, where a sparse one has holes.
pub(crate) const MOST_HEADER: u64 = 8 << 20;

/// A file begins so if it only says that the one with the rest of its name is gone, or for a directory
/// that all is gone that lower layers have in it (image-spec, layer.md, "Whiteouts").
const WHITEOUT: &[u8] = b".wh.";
const OPAQUE: &[u8] = b".wh..opq";

/// What there is to say about a layer when it is unpacked.
#[derive(Debug, Default, Clone)]
pub struct Unpacked {
    /// The digest of the archive, not compressed: 64 hexadecimal digits.
    pub diff_id: String,
    /// The sum of its files' bytes.
    pub bytes: u64,
    /// How many files belong to somebody whom we cannot give them to.
    pub foreign: u64,
    /// How many device nodes and file capabilities we may not make.
    pub left_out: u64,
}

/// Unpacks an archive, already decompressed, into the empty directory `tree`.
pub fn unpack(archive: impl Read, tree: &Path) -> Result<Unpacked> {
    let budget = Cell::new(0);
    let mut stream = Hashing::new(Limited { stream: archive, budget: &budget });
    let is_root = geteuid().is_root();
    let mut unpacker = Unpacker {
        root: Root::open(tree)?,
        // overlayfs reads the one or the other: see its mount option userxattr.
        opaque: if is_rootless()? { "user" } else { "trusted" },
        is_root,
        directories: BTreeMap::new(),
        unpacked: Unpacked::default(),
    };
    let may_pad = Cell::new(true);
    let mut archive = Archive::new(Padded { stream: &mut stream, length: 0, may_pad: &may_pad });
    let mut entries = archive.entries().context("this is no tar archive")?;
    for number in 0_u64.. {
        budget.set(MOST_HEADER);
        let Some(entry) = entries.next() else { break };
        let mut entry = entry.context("it is damaged, or no tar archive")?;
        ensure!(number < MOST_ENTRIES, "it has more than {MOST_ENTRIES} files");
        let name = PathBuf::from(OsStr::from_bytes(&entry.path_bytes()));
        budget.set(entry.size());
        may_pad.set(false);
        unpacker
            .entry(&name, &mut entry)
            .with_context(|| format!("cannot unpack {}", name.display()))?;
        copy(&mut entry, &mut sink())?;
        may_pad.set(true);
    }
    // The digest is of the whole, also of what fills the last block behind the archive's end.
    budget.set(MOST_HEADER);
    copy(&mut stream, &mut sink()).context("cannot read to its end")?;
    let mut unpacked = unpacker.finish()?;
    unpacked.diff_id = stream.finish().1;
    Ok(unpacked)
}

struct Unpacker {
    root: Root,
    opaque: &'static str,
    is_root: bool,
    /// Modes and times of directories are set at the end: what is made in one changes its time, and a
    /// read-only one would take nothing.
    directories: BTreeMap<PathBuf, Metadata>,
    unpacked: Unpacked,
}

impl Unpacker {
    fn entry(&mut self, path: &Path, entry: &mut Entry<'_, impl Read>) -> Result<()> {
        let kind = entry.header().entry_type();
        if kind == EntryType::XGlobalHeader {
            return Ok(()); // a comment, such as the commit's name in an archive by git
        }
        self.unpacked.bytes = self.unpacked.bytes.saturating_add(entry.size());
        ensure!(self.unpacked.bytes <= MOST_BYTES, "there would be more than {MOST_BYTES} bytes");
        let path = &inside(path)?;
        let metadata = Metadata::of(entry)?;
        let Some(name) = path.file_name() else {
            ensure!(kind.is_dir(), "the root is not a directory");
            let root = self.root.find(Path::new("/"))?.context("no root")?;
            self.attributes(&root, &metadata)?;
            self.own(&root, OsStr::new("."), &metadata)?;
            self.directories.insert(PathBuf::new(), metadata);
            return Ok(());
        };
        let parent = self.root.directory(&parent(path))?;
        if let Some(hidden) = name.as_bytes().strip_prefix(WHITEOUT) {
            return self.whiteout(&parent, OsStr::from_bytes(hidden));
        }
        // In the oldest archives a directory is a file whose name ends in a slash.
        let slash = kind.is_file() && entry.path_bytes().ends_with(b"/");
        if kind.is_dir() || slash {
            return self.directory(&parent, path, name, metadata);
        }
        self.make_room(&parent, path, name)?;
        match kind {
            EntryType::Regular | EntryType::Continuous | EntryType::GNUSparse => {
                let flags = OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_CLOEXEC;
                let mode = Mode::S_IRUSR | Mode::S_IWUSR;
                let mut file = File::from(openat(&parent, name, flags, mode)?);
                let written = write_sparse(entry, &mut file)?;
                ensure!(written == entry.size(), "the archive ends in the middle of it");
                self.own(&parent, name, &metadata)?;
                self.attributes(&file.into(), &metadata)?;
            }
            EntryType::Link => return self.hard_link(&parent, name, entry),
            EntryType::Symlink => {
                let target = entry.link_name_bytes().context("a link to nothing")?;
                symlinkat(OsStr::from_bytes(&target), &parent, name)?;
                self.own(&parent, name, &metadata)?;
                return set_time(&parent, name, metadata.time);
            }
            EntryType::Fifo => {
                mkfifoat(&parent, name, Mode::empty())?;
                self.own(&parent, name, &metadata)?;
            }
            EntryType::Char | EntryType::Block => {
                if !self.device(&parent, name, entry)? {
                    return Ok(());
                }
                self.own(&parent, name, &metadata)?;
            }
            other => bail!("files of type {other:?} are not known here"),
        }
        // chown(2) takes set-user-ID bits away, so the mode comes after it.
        fchmodat(&parent, name, metadata.mode, FchmodatFlags::FollowSymlink)?;
        set_time(&parent, name, metadata.time)
    }

    fn directory(
        &mut self,
        parent: &OwnedFd,
        path: &Path,
        name: &OsStr,
        metadata: Metadata,
    ) -> Result<()> {
        let found = look(parent, name)?;
        if found.as_ref().is_none_or(|found| kind_of(found) != SFlag::S_IFDIR) {
            self.make_room(parent, path, name)?;
            mkdirat(parent, name, Mode::S_IRWXU)?;
        }
        let flags = OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_PATH | OFlag::O_CLOEXEC;
        let directory = openat(parent, name, flags, Mode::empty())?;
        if found.as_ref().is_some_and(is_whiteout) {
            self.make_opaque(&directory)?; // the lower layers' one is gone, this is another
        }
        self.own(parent, name, &metadata)?;
        self.attributes(&directory, &metadata)?;
        self.directories.insert(path.to_owned(), metadata);
        Ok(())
    }

    /// The kernel's own way to say that a file is gone: a device of number 0, 0, or an attribute of the
    /// directory (Documentation/filesystems/overlayfs.rst). That device is one that anybody may make.
    // ANCHOR: whiteout
    fn whiteout(&self, parent: &OwnedFd, hidden: &OsStr) -> Result<()> {
        match hidden.as_bytes() {
            OPAQUE => return self.make_opaque(parent),
            b"" | b"." | b".." => bail!("it hides nothing that can be named"),
            other if other.starts_with(WHITEOUT) => return Ok(()), // aufs's own notes
            _ => {}
        }
        match look(parent, hidden)? {
            None => mknodat(parent, hidden, SFlag::S_IFCHR, Mode::empty(), makedev(0, 0))?,
            // A whiteout is about lower layers; this is our own, in the place of theirs.
            Some(own) if kind_of(&own) == SFlag::S_IFDIR => {
                let flags = OFlag::O_PATH | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
                self.make_opaque(&openat(parent, hidden, flags, Mode::empty())?)?;
            }
            Some(_) => {}
        }
        Ok(())
    }
    // ANCHOR_END: whiteout

    fn make_opaque(&self, directory: &OwnedFd) -> Result<()> {
        let name = format!("{}.overlay.opaque", self.opaque);
        set_attribute(directory, &name, b"y").with_context(|| {
            format!(
                "cannot set {name}: does this file system have such attributes? (tmpfs: Linux 6.6)"
            )
        })
    }

    /// Both names are the layer's: the target is looked up as everything else, and the link not followed.
    fn hard_link(&self, at: &OwnedFd, name: &OsStr, entry: &Entry<'_, impl Read>) -> Result<()> {
        let target = entry.link_name_bytes().context("a link to nothing")?;
        let target = inside(Path::new(OsStr::from_bytes(&target)))?;
        let (directory, file) = (self.root.find(&parent(&target))?, target.file_name());
        let missing = || format!("its target {} is not in this layer", target.display());
        let (directory, file) = directory.zip(file).with_context(missing)?;
        match linkat(&directory, file, at, name, AtFlags::empty()) {
            Err(Errno::ENOENT) => bail!(missing()),
            result => Ok(result?),
        }
    }

    /// Makes a device node, and says whether it has.
    fn device(
        &mut self,
        parent: &OwnedFd,
        name: &OsStr,
        entry: &Entry<'_, impl Read>,
    ) -> Result<bool> {
        let header = entry.header();
        let number = |number: Option<u32>| u64::from(number.unwrap_or_default());
        let device = makedev(number(header.device_major()?), number(header.device_minor()?));
        let kind =
            if header.entry_type() == EntryType::Char { SFlag::S_IFCHR } else { SFlag::S_IFBLK };
        if device == 0 {
            return Ok(false); // overlayfs would take it for a whiteout, and it is not one
        }
        match mknodat(parent, name, kind, Mode::empty(), device) {
            Err(Errno::EPERM) => {
                self.unpacked.left_out += 1;
                Ok(false)
            }
            result => Ok(result.map(|()| true)?),
        }
    }

    /// Removes what an earlier entry of this layer has put there.
    fn make_room(&mut self, parent: &OwnedFd, path: &Path, name: &OsStr) -> Result<()> {
        match look(parent, name)? {
            None => return Ok(()),
            Some(found) if kind_of(&found) == SFlag::S_IFDIR => {
                fs::remove_dir_all(proc_path(parent).join(name))?;
            }
            Some(_) => unlinkat(parent, name, UnlinkatFlags::NoRemoveDir)?,
        }
        self.directories.retain(|directory, _| !directory.starts_with(path));
        Ok(())
    }

    fn own(&mut self, parent: &OwnedFd, name: &OsStr, metadata: &Metadata) -> Result<()> {
        let (uid, gid) = metadata.owner;
        if !self.is_root {
            self.unpacked.foreign += u64::from((uid, gid) != (0, 0));
            return Ok(());
        }
        let (user, group) = (Uid::from_raw(uid), Gid::from_raw(gid));
        match fchownat(parent, name, Some(user), Some(group), AtFlags::AT_SYMLINK_NOFOLLOW) {
            // Our user namespace has no such id.
            Err(Errno::EINVAL | Errno::EPERM) => self.unpacked.foreign += 1,
            result => result.with_context(|| format!("cannot give it to {uid}:{gid}"))?,
        }
        Ok(())
    }

    fn attributes(&mut self, file: &OwnedFd, metadata: &Metadata) -> Result<()> {
        for (name, value) in &metadata.attributes {
            match set_attribute(file, name, value) {
                Err(Errno::EPERM | Errno::EOPNOTSUPP) => self.unpacked.left_out += 1,
                result => result.with_context(|| format!("cannot set its attribute {name}"))?,
            }
        }
        Ok(())
    }

    /// Directories, from the inside out.
    fn finish(mut self) -> Result<Unpacked> {
        for (path, metadata) in std::mem::take(&mut self.directories).iter().rev() {
            let Some(directory) = self.root.find(&Path::new("/").join(path))? else { continue };
            let path = proc_path(&directory);
            utimensat(
                nix::fcntl::AT_FDCWD,
                &path,
                &metadata.time,
                &metadata.time,
                UtimensatFlags::FollowSymlink,
            )
            .and_then(|()| {
                fchmodat(nix::fcntl::AT_FDCWD, &path, metadata.mode, FchmodatFlags::FollowSymlink)
            })
            .with_context(|| format!("cannot finish {}", path.display()))?;
        }
        Ok(self.unpacked)
    }
}

/// The path as a chain of names. `..` has no business in an archive.
pub(crate) fn inside(path: &Path) -> Result<PathBuf> {
    let mut names = PathBuf::new();
    ensure!(path.components().count() <= MOST_DEPTH, "its name leads through too many directories");
    for part in path.components() {
        match part {
            Component::Normal(name) => names.push(name),
            Component::CurDir | Component::RootDir => {}
            _ => bail!("{} leads out of the directory", path.display()),
        }
    }
    Ok(names)
}

fn parent(path: &Path) -> PathBuf {
    Path::new("/").join(path.parent().unwrap_or(path))
}

/// What a directory has under a name.
pub(crate) fn look(parent: &OwnedFd, name: &OsStr) -> Result<Option<FileStat>> {
    match fstatat(parent, name, AtFlags::AT_SYMLINK_NOFOLLOW) {
        Err(Errno::ENOENT) => Ok(None),
        found => Ok(Some(found?)),
    }
}

/// Which type of file it is.
pub(crate) fn kind_of(found: &FileStat) -> SFlag {
    SFlag::from_bits_truncate(found.st_mode & SFlag::S_IFMT.bits())
}

/// Whether it stands for what was removed (Documentation/filesystems/overlayfs.rst).
pub(crate) fn is_whiteout(found: &FileStat) -> bool {
    kind_of(found) == SFlag::S_IFCHR && found.st_rdev == 0
}

pub(crate) fn set_time(parent: &OwnedFd, name: &OsStr, time: TimeSpec) -> Result<()> {
    Ok(utimensat(parent, name, &time, &time, UtimensatFlags::NoFollowSymlink)?)
}

/// Copies, and leaves holes where only zeros would be: they take no room.
pub(crate) fn write_sparse(from: &mut impl Read, to: &mut File) -> Result<u64> {
    let mut buffer = vec![0; 1 << 16];
    let (mut length, mut filled) = (0, 0);
    loop {
        match from.read(&mut buffer[filled..])? {
            0 if filled == 0 => break,
            0 => {}
            more => {
                filled += more;
                if filled < buffer.len() {
                    continue;
                }
            }
        }
        if buffer[..filled].iter().all(|&byte| byte == 0) {
            to.seek(SeekFrom::Start(length + filled as u64))?;
        } else {
            to.write_all(&buffer[..filled])?;
        }
        length += filled as u64;
        filled = 0;
    }
    to.set_len(length)?;
    Ok(length)
}
