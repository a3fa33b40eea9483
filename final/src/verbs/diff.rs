//! `final diff`

use std::ffi::{CString, OsStr};
use std::io::{Write as _, stdout};
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};
use clap::Args;
use nix::errno::Errno;
use nix::fcntl::{OFlag, OpenHow, ResolveFlag, openat2};
use nix::sys::stat::{FileStat, SFlag};
use nix::unistd::geteuid;
use step01_namespaces::{IdMaps, Namespace, in_user_namespace, printable};
use step03_rootfs::{Image, Root};

use crate::bundle::Bundle;
use crate::image::{is_whiteout, kind_of, look, names};
use crate::process::in_child;

/// What the engine itself puts into every container; docker does not show it either.
pub(super) const OURS: [&str; 6] =
    ["/dev", "/proc", "/sys", "/etc/hostname", "/etc/hosts", "/etc/resolv.conf"];

/// `diff CONTAINER`
#[derive(Args, Debug, Clone)]
pub struct DiffArgs {
    /// Name, id, or the beginning of an id
    pub container: String,
}

/// Shows what a container has made of its image: A added, C changed, D deleted.
pub fn run(args: &DiffArgs) -> Result<()> {
    let store = super::open()?;
    let container = store.find(&args.container)?;
    let bundle = Bundle::load(container.bundle())?;
    let kept = container.bundle().join("layer");
    if !kept.try_exists().with_context(|| format!("cannot look for {}", kept.display()))? {
        let name = &container.state.name;
        ensure!(container.state.started.is_none(), "what {name} has written is not kept on disk");
        return Ok(()); // it has not run yet
    }
    let show = || {
        let changes = changes(&bundle, &kept, container.state.image == "host")?;
        super::print(&changes)?;
        stdout().flush().context("cannot write to the standard output")
    };
    // What a plain user's container wrote may be closed to its owner, but not to that one's root.
    if geteuid().is_root() {
        show()
    } else {
        in_child([Namespace::User].into_iter().collect(), show)
    }
}

/// docker's lines, by path.
fn changes(bundle: &Bundle, kept: &Path, is_host: bool) -> Result<String> {
    let root = match &bundle.rootfs.image {
        Image::Layers(trees) => trees.clone(),
        Image::Directory(path) => vec![path.clone()],
        Image::Host => Vec::new(),
    };
    let mut hidden: Vec<_> = OURS.map(PathBuf::from).to_vec();
    if is_host {
        hidden.extend(Image::Host.mounts()?.into_iter().map(|mount| mount.destination));
    }
    // With --userns remap it is the host's root who mounts them.
    let own_users = bundle.namespaces.contains(Namespace::User) && bundle.ids.is_none();
    let in_user = own_users || in_user_namespace()?;
    let layers = bundle.rootfs.layers.iter();
    let layers = layers.map(|layer| (layer.destination.clone(), vec![layer.lower.clone()]));
    let mut changes = Vec::new();
    for (number, (top, lowers)) in layers.chain([("/".into(), root)]).enumerate() {
        let mut overlay = Overlay {
            upper: Root::open(&kept.join(format!("upper{number}")))?,
            lowers: lowers.iter().map(|lower| Root::open(lower)).collect::<Result<_>>()?,
            attributes: if in_user { "user" } else { "trusted" },
            ids: bundle.ids,
            hidden: &hidden,
            top: &top,
            changes: &mut changes,
        };
        let all: Vec<_> = (0..lowers.len()).collect();
        if overlay.directory(Path::new(""), &all)? && top != Path::new("/") {
            changes.push((top, 'C'));
        }
    }
    changes.sort();
    let line =
        |(path, kind): &(PathBuf, char)| format!("{kind} {}\n", printable(&path.to_string_lossy()));
    Ok(changes.iter().map(line).collect())
}

/// What the kernel lays over each other (Documentation/filesystems/overlayfs.rst), to be compared.
///
/// Everything is opened along no link: a container that runs may make one of any directory.
struct Overlay<'d> {
    upper: Root,
    /// The topmost first.
    lowers: Vec<Root>,
    /// Where overlayfs keeps its notes: in attributes of `trusted` or of `user`.
    attributes: &'static str,
    /// Who the upper layer's owners are in the lower ones, if not the same.
    ids: Option<IdMaps>,
    hidden: &'d [PathBuf],
    /// Where it is mounted in the container.
    top: &'d Path,
    changes: &'d mut Vec<(PathBuf, char)>,
}

/// What the lower layers have under a name: the topmost file, and in which of them it is a directory.
type Below = Option<(FileStat, Vec<usize>)>;

impl Overlay<'_> {
    /// Compares a directory of the upper layer with those lower ones that it is laid over; returns whether
    /// anything in it has changed.
    fn directory(&mut self, path: &Path, lowers: &[usize]) -> Result<bool> {
        let Some(upper) = open(&self.upper, path)? else { return Ok(false) };
        let mut names = names(&upper)?;
        if self.has_note(&upper, "opaque")? {
            // It took the place of another: of that one all is gone that it does not have itself.
            for &number in lowers {
                if let Some(lower) = open(&self.lowers[number], path)? {
                    names.append(&mut self::names(&lower)?);
                }
            }
        }
        // A renamed directory is laid over the one that it was; only where redirect_dir is on.
        let renamed = self.has_note(&upper, "redirect")?;
        ensure!(
            !renamed,
            "{} is a directory that was renamed with overlayfs's redirect_dir, which is not known here",
            self.top.join(path).display()
        );
        let mut found = Vec::new();
        for name in names {
            let now = look(&upper, &name)
                .with_context(|| format!("cannot look at {}", path.join(&name).display()))?;
            found.push((path.join(&name), now, self.below(path, lowers, &name)?));
        }
        drop(upper);
        let mut any = false;
        for (path, now, below) in found {
            any |= self.entry(&path, now, &below)?;
        }
        Ok(any)
    }

    fn entry(&mut self, path: &Path, now: Option<FileStat>, below: &Below) -> Result<bool> {
        let shown = self.top.join(path);
        if self.hidden.contains(&shown) {
            return Ok(false);
        }
        let kind = match (&now, below) {
            (Some(now), None) if !is_whiteout(now) => 'A',
            (Some(now), Some((before, _))) if !is_whiteout(now) => {
                let inside = is_directory(now) && self.directory(path, &directories(below))?;
                if !(inside || differ(before, now, self.ids)) {
                    return Ok(false);
                }
                self.changes.push((shown, 'C'));
                return Ok(true);
            }
            (_, Some(_)) => 'D',
            (_, None) => return Ok(false),
        };
        self.changes.push((shown, kind));
        if kind == 'A' && now.is_some_and(|now| is_directory(&now)) {
            self.directory(path, &[])?;
        }
        Ok(true)
    }

    /// What was there under this name: the lower layers up to one that hides what is below it.
    fn below(&self, path: &Path, lowers: &[usize], name: &OsStr) -> Result<Below> {
        let mut below: Below = None;
        for &number in lowers {
            let Some(lower) = open(&self.lowers[number], path)? else { continue };
            let found = look(&lower, name)
                .with_context(|| format!("cannot look at {}", path.join(name).display()))?;
            let Some(found) = found else { continue };
            if is_whiteout(&found) || (below.is_some() && !is_directory(&found)) {
                break;
            }
            let (_, directories) = below.get_or_insert((found, Vec::new()));
            if !is_directory(&found) {
                break;
            }
            directories.push(number);
            let directory = open(&self.lowers[number], &path.join(name))?;
            if directory.map_or(Ok(false), |directory| self.has_note(&directory, "opaque"))? {
                break;
            }
        }
        Ok(below)
    }

    /// Whether a directory has a note of overlayfs's with this name (fgetxattr(2)).
    fn has_note(&self, directory: &OwnedFd, name: &str) -> Result<bool> {
        let attribute = format!("{}.overlay.{name}", self.attributes);
        let attribute = CString::new(attribute)?;
        let fd = directory.as_raw_fd();
        // SAFETY: the name is NUL-terminated and outlives the call; of length 0 no value is written.
        let size = unsafe { libc::fgetxattr(fd, attribute.as_ptr(), std::ptr::null_mut(), 0) };
        match Errno::result(size) {
            Ok(_) => Ok(true),
            Err(Errno::ENODATA | Errno::EOPNOTSUPP) => Ok(false),
            Err(errno) => Err(errno).with_context(|| format!("cannot read {attribute:?}")),
        }
    }
}

fn directories(below: &Below) -> Vec<usize> {
    below.as_ref().map(|(_, directories)| directories.clone()).unwrap_or_default()
}

/// Opens a directory of a layer; none, if it is not one, or gone.
pub(super) fn open(root: &Root, path: &Path) -> Result<Option<OwnedFd>> {
    let how = OpenHow::new()
        .flags(OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC)
        .resolve(ResolveFlag::RESOLVE_BENEATH | ResolveFlag::RESOLVE_NO_SYMLINKS);
    match openat2(root, &Path::new(".").join(path), how) {
        Err(Errno::ENOENT | Errno::ENOTDIR | Errno::ELOOP) => Ok(None),
        opened => opened.map(Some).with_context(|| format!("cannot read {}", path.display())),
    }
}

pub(super) fn is_directory(found: &FileStat) -> bool {
    kind_of(found) == SFlag::S_IFDIR
}

/// As docker sees it: that something was made in a directory, and so its time and its size, says its own
/// line already.
fn differ(before: &FileStat, now: &FileStat, ids: Option<IdMaps>) -> bool {
    let (uid, gid) = ids.map_or((0, 0), |ids| (ids.uids.first, ids.gids.first));
    let was = (before.st_uid.wrapping_add(uid), before.st_gid.wrapping_add(gid));
    let who = |file: &FileStat| (file.st_mode, file.st_rdev);
    let what = |file: &FileStat| (file.st_size, file.st_mtime, file.st_mtime_nsec);
    (was, who(before)) != ((now.st_uid, now.st_gid), who(now))
        || (!is_directory(now) && what(before) != what(now))
}
