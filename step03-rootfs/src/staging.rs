//! Overlays, and the tmpfs that takes what the container writes.

use std::cell::Cell;
use std::fs;
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use step01_namespaces::in_user_namespace;

use crate::{Mount, Root, sys, write_skeleton};

/// A tmpfs that only this mount namespace sees, and that is gone with it.
pub(crate) struct Staging {
    path: &'static Path,
    overlays: Cell<u32>,
}

impl Staging {
    /// It has to be mounted somewhere, as overlayfs takes its directories from our mount namespace
    /// only. /tmp is there on every system, and the host does not see what covers ours.
    pub fn mount() -> Result<Self> {
        let path = Path::new("/tmp");
        let place = Root::open(path)?;
        let tmpfs = Mount::new("tmpfs", "/tmp", "mode=755").open()?;
        sys::move_mount(tmpfs.as_fd(), place.as_fd())
            .context("cannot mount a tmpfs for what the container writes")?;
        Ok(Self { path, overlays: Cell::new(0) })
    }

    /// A new directory in it.
    pub fn directory(&self, name: &str) -> Result<PathBuf> {
        let path = self.path.join(name);
        fs::create_dir(&path).with_context(|| format!("cannot make {}", path.display()))?;
        Ok(path)
    }

    /// What the image `host` has around /usr.
    pub fn skeleton(&self) -> Result<Root> {
        let skeleton = self.directory("skeleton")?;
        write_skeleton(&skeleton)?;
        Root::open(&skeleton)
    }

    /// An overlay of `lower` and a fresh upper directory, attached to nothing yet.
    // ANCHOR: overlay
    pub fn overlay(&self, lower: &Root) -> Result<OwnedFd> {
        let number = self.overlays.replace(self.overlays.get() + 1);
        let upper = self.directory(&format!("upper{number}"))?;
        let work = self.directory(&format!("work{number}"))?;
        // The mode of an overlay's top directory is the upper one's.
        let mode = fs::metadata(lower.proc_path()).map(|metadata| metadata.permissions());
        mode.and_then(|mode| fs::set_permissions(&upper, mode))
            .context("cannot give the writable layer the mode of the image")?;

        overlay(lower, &upper, &work)
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
    if in_user_namespace() {
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
