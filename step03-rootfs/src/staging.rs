//! Overlays, and where what the container writes goes: a tmpfs, or a directory that stays.

use std::cell::Cell;
use std::fs;
use std::io::ErrorKind;
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail, ensure};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sys::statvfs::{FsFlags, fstatvfs};
use step01_namespaces::in_user_namespace;

use crate::{Mount, Owners, Root, sys, write_skeleton};

/// A tmpfs that only this mount namespace sees, and that is gone with it.
pub(crate) struct Staging<'o> {
    path: &'static Path,
    /// Where the writable layers are: in it, or in a directory that stays.
    layers: PathBuf,
    _kept: Option<Root>,
    overlays: Cell<u32>,
    /// Whom files are to belong to, if not to who they do.
    owners: Option<&'o Owners>,
}

impl<'o> Staging<'o> {
    /// It has to be mounted somewhere, as overlayfs takes its directories from our mount namespace
    /// only. /tmp is there on every system, and the host does not see what covers ours.
    pub fn mount(keep: Option<&Path>, owners: Option<&'o Owners>) -> Result<Self> {
        let path = Path::new("/tmp");
        // By its fd: it may be below /tmp, which is about to be covered.
        let kept = keep.map(Root::open).transpose()?;
        let layers = kept.as_ref().map_or_else(|| path.to_owned(), Root::proc_path);
        let place = Root::open(path)?;
        let tmpfs = Mount::new("tmpfs", "/tmp", "mode=755").open()?;
        sys::move_mount(tmpfs.as_fd(), place.as_fd())
            .context("cannot mount a tmpfs for what the container writes")?;
        Ok(Self { path, layers, _kept: kept, overlays: Cell::new(0), owners })
    }

    /// A new directory in it.
    pub fn directory(&self, name: &str) -> Result<PathBuf> {
        let path = self.path.join(name);
        make(&path)?;
        Ok(path)
    }

    /// What the image `host` has around /usr.
    pub fn skeleton(&self) -> Result<Root> {
        let skeleton = self.directory("skeleton")?;
        write_skeleton(&skeleton)?;
        Root::open(&skeleton)
    }

    /// An overlay of directories, the topmost first, and an upper one; attached to nothing yet.
    // ANCHOR: overlay
    pub fn overlay(&self, lowers: &[Root]) -> Result<OwnedFd> {
        let number = self.overlays.replace(self.overlays.get() + 1);
        let upper = self.layers.join(format!("upper{number}"));
        let work = self.layers.join(format!("work{number}"));
        let mapped = self.owners.map(|owners| self.mapped(owners, lowers, number)).transpose()?;
        let lowers = mapped.as_deref().unwrap_or(lowers);
        let top = lowers.first().context("an image without a layer")?;
        // What stays may be there from the last time.
        if make(&upper)? {
            // The mode of an overlay's top directory is the upper one's.
            let mode = fs::metadata(top.proc_path()).map(|metadata| metadata.permissions());
            mode.and_then(|mode| fs::set_permissions(&upper, mode))
                .context("cannot give the writable layer the mode of the image")?;
            self.owners.map_or(Ok(()), |owners| owners.give(&upper, (0, 0)))?;
        }
        make(&work)?;

        let overlay = if lowers.len() == 1 {
            overlay(top, &upper, &work)?
        } else {
            let place = self.directory(&format!("merged{number}"))?;
            overlay_of_layers(lowers, &upper, &work, &place)?
        };
        // Where overlayfs cannot make its files, as on a full disk, it is read-only without a word.
        let is_read_only = fstatvfs(&overlay).is_ok_and(|s| s.flags().contains(FsFlags::ST_RDONLY));
        if is_read_only {
            let probe = work.join("probe");
            fs::create_dir(&probe).with_context(|| format!("cannot make {}", probe.display()))?;
            bail!("overlayfs cannot write to {}", self.layers.display());
        }
        Ok(overlay)
    }

    /// The lower directories of an overlay, with other owners.
    fn mapped(&self, owners: &Owners, lowers: &[Root], overlay: u32) -> Result<Vec<Root>> {
        let place = |layer| self.directory(&format!("lower{overlay}-{layer}"));
        let lowers = lowers.iter().enumerate();
        lowers.map(|(layer, lower)| owners.mapped(lower, &place(layer)?)).collect()
    }
}

/// Makes the directory; false if it is there already.
fn make(path: &Path) -> Result<bool> {
    match fs::create_dir(path) {
        Err(error) if error.kind() == ErrorKind::AlreadyExists => Ok(false),
        result => result.map(|()| true).with_context(|| format!("cannot make {}", path.display())),
    }
}

/// An overlay, attached to nothing yet: `upper` takes what is written, `lower` stays as it is.
/// `work` is overlayfs's own, empty and on the same file system as `upper`.
pub fn overlay(lower: &Root, upper: &Path, work: &Path) -> Result<OwnedFd> {
    // ANCHOR: ex-3.1
    let mut overlay = Mount::new("overlay", "/", "nodev");
    overlay.options.extend([
        // By its fd: a path could hold a colon or a comma, and /tmp is covered by now.
        format!("lowerdir={}", lower.proc_path().display()),
        format!("upperdir={}", upper.display()),
        format!("workdir={}", work.display()),
    ]);
    if in_user_namespace()? {
        // overlayfs notes deleted files in trusted.* attributes, which are for the host's
        // root only; with this option in user.*, which anybody may set (Linux 5.11).
        overlay.options.push("userxattr".to_owned());
    }
    overlay.open().context(
        "the writable layer needs overlayfs; in a user namespace with userxattr (Linux 5.11)",
    )
    // ANCHOR_END: ex-3.1
}
// ANCHOR_END: overlay

/// The same for several directories, the topmost first; `place` is an empty one.
///
/// fsconfig(2) takes values of up to 255 bytes, which 15 paths to a file descriptor fill, and only since
/// Linux 6.8 one lower directory at a time. The old mount(2) takes 4095 bytes in all, but attaches what it
/// makes: so it is copied from there (open_tree(2)), and taken away again.
// ANCHOR: layers
fn overlay_of_layers(lowers: &[Root], upper: &Path, work: &Path, place: &Path) -> Result<OwnedFd> {
    let lowers: Vec<_> =
        lowers.iter().map(|lower| lower.proc_path().display().to_string()).collect();
    let user = if in_user_namespace()? { ",userxattr" } else { "" };
    let options = format!(
        "lowerdir={},upperdir={},workdir={}{user}",
        lowers.join(":"),
        upper.display(),
        work.display()
    );
    ensure!(options.len() < 4096, "{} layers are more than mount(2) takes", lowers.len());
    let kind = Some("overlay");
    let mounted = mount(kind, place, kind, MsFlags::MS_NODEV, Some(options.as_str()))
        .map_err(std::io::Error::from)
        .and_then(|()| sys::open_tree(place, false))
        .with_context(|| format!("cannot lay {} layers over each other", lowers.len()))?;
    umount2(place, MntFlags::MNT_DETACH).context("cannot take the mount away that was copied")?;
    Ok(mounted)
}
// ANCHOR_END: layers
