//! The order of work: open, pivot, attach, hide.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::slice;

use anyhow::{Context as _, Result};
use nix::mount::{MntFlags, umount2};
use nix::unistd::{chdir, fchdir, pivot_root};

use crate::devices::{NULL, attach_devices, attach_nodes, open_devices, open_nodes};
use crate::root::is_directory;
use crate::staging::Staging;
use crate::{Device, Image, Layer, Mount, Owners, Root, sys};

/// Hidden from the container, as docker does: they tell or change things of the whole machine.
pub const MASKED_PATHS: [&str; 12] = [
    "/proc/acpi",
    "/proc/asound",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/sys/devices/virtual/powercap",
    "/sys/firmware",
];

/// Readable but not writable in the container: settings of the whole machine.
pub const READONLY_PATHS: [&str; 5] =
    ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];

/// The root file system of a container, as it is to be.
#[derive(Debug, Clone)]
pub struct Rootfs {
    /// What lies at the bottom of `/`.
    pub image: Image,
    /// Overlays beside that of `/`, in order.
    pub layers: Vec<Layer>,
    /// The directory that keeps what the container writes, `upperN` of overlay N; the last is that of
    /// `/`. None: it is gone with the container.
    pub keep: Option<PathBuf>,
    /// Everything else that is mounted, in order.
    pub mounts: Vec<Mount>,
    /// Paths that look empty.
    pub masked: Vec<PathBuf>,
    /// Paths that cannot be written.
    pub readonly: Vec<PathBuf>,
    /// Devices beside the usual ones.
    pub devices: Vec<Device>,
    /// Whether `/` cannot be written: see [`Rootfs::make_read_only`].
    pub read_only: bool,
    /// The working directory, made if it is missing.
    pub workdir: PathBuf,
}

/// What a root file system is made of: mounts that are attached to nothing yet.
#[derive(Debug)]
pub struct Parts {
    root: OwnedFd,
    layers: Vec<OwnedFd>,
    /// None: it is to be made by who enters.
    mounts: Vec<Option<OwnedFd>>,
    nodes: Vec<OwnedFd>,
    devices: Vec<OwnedFd>,
}

impl Rootfs {
    /// The child's side: makes this the root of our mount namespace, which must be a new one
    /// with private propagation: pivot_root(2) refuses another, and the host would see it all.
    // ANCHOR: enter
    pub fn enter(&self) -> Result<Root> {
        let (parts, staging) = self.open(None)?;
        self.assemble(&parts, &staging)
    }

    /// From the host's view: opens what comes from there, and makes what is new. All of it is
    /// still attached to nothing. The kernel lets a user namespace mount proc and sysfs only
    /// while it sees the host's, so this is the moment for them too.
    fn open<'o>(&self, owners: Option<&'o Owners>) -> Result<(Parts, Staging<'o>)> {
        let image = self.image.open()?;
        let lowers =
            self.layers.iter().map(|l| Root::open(&l.lower)).collect::<Result<Vec<_>>>()?;
        let here = |mount: &&Mount| owners.is_none() || mount.kind == "bind";
        let open = |mount| Some(mount).filter(here).map(Mount::open).transpose();
        let mounts = self.mounts.iter().map(open).collect::<Result<_>>()?;
        let staging = Staging::mount(self.keep.as_deref(), owners)?; // covers /tmp, so it comes after all that may be there
        let area = staging.directory("dev")?;
        let nodes = open_nodes(&area, owners)?;
        let devices = open_devices(&self.devices, &area, owners)?;
        let overlay = |lower| staging.overlay(slice::from_ref(lower));
        let layers = lowers.iter().map(overlay).collect::<Result<_>>()?;
        let image = if image.is_empty() { vec![staging.skeleton()?] } else { image };
        let root = staging.overlay(&image)?;
        Ok((Parts { root, layers, mounts, nodes, devices }, staging))
    }

    /// From the container's view: puts each mount into its place.
    fn assemble(&self, parts: &Parts, staging: &Staging<'_>) -> Result<Root> {
        pivot(&parts.root, &staging.directory("root")?)?;
        let root = Root::open(Path::new("/"))?;
        for (layer, overlay) in self.layers.iter().zip(&parts.layers) {
            attach(overlay, &root.directory(&layer.destination)?, &layer.destination)?;
        }
        for (mount, opened) in self.mounts.iter().zip(parts.mounts.iter().flatten()) {
            mount.attach(opened, &root)?;
        }
        attach_nodes(&parts.nodes, &root)?;
        attach_devices(&self.devices, &parts.devices, &root)?;

        // Last what hides, so that nothing is mounted over it again.
        self.hide(&root, parts.nodes[NULL].as_fd())?;
        let workdir = root.directory(&self.workdir)?;
        fchdir(&workdir).with_context(|| format!("cannot change to {}", self.workdir.display()))?;
        Ok(root)
    }
    // ANCHOR_END: enter

    /// The parent's side, for a child in a user namespace whose root is not the host's: opens what only the
    /// host's root may. It covers /tmp, so it is for a mount namespace that nobody else sees.
    pub fn open_for(&self, owners: &Owners) -> Result<Parts> {
        Ok(self.open(Some(owners))?.0)
    }

    /// The same as [`Rootfs::enter`] for that child: makes the rest, which shows its namespaces.
    pub fn enter_with(&self, mut parts: Parts) -> Result<Root> {
        for (mount, opened) in self.mounts.iter().zip(&mut parts.mounts) {
            if opened.is_none() {
                *opened = Some(mount.open()?);
            }
        }
        self.assemble(&parts, &Staging::mount(None, None)?)
    }

    /// The child's side, when all has been written that was to be: makes the root read-only, and the
    /// other layers, if it is to be. What else is mounted stays as it is.
    pub fn make_read_only(&self, root: &Root) -> Result<()> {
        let layers = self.layers.iter().map(|layer| layer.destination.as_path());
        for path in std::iter::once(Path::new("/")).chain(layers).filter(|_| self.read_only) {
            let place = root.find(path)?.with_context(|| format!("no {}", path.display()))?;
            sys::mount_setattr(place.as_fd(), sys::RDONLY, false)
                .with_context(|| format!("cannot make {} read-only", path.display()))?;
        }
        Ok(())
    }

    /// Masked and read-only paths. What an image or a kernel does not have needs no hiding.
    ///
    /// `null` is the mount that we made, and not what is found at /dev/null by now: somebody who
    /// shares a volume with us may have put a link there, and we would open what we are to hide
    /// (CVE-2025-31133).
    // ANCHOR: hide
    fn hide(&self, root: &Root, null: BorrowedFd<'_>) -> Result<()> {
        for path in &self.masked {
            if let Some(place) = root.find(path)? {
                mask(&place, path, null)?;
            }
        }
        for path in &self.readonly {
            let Some(place) = root.find(path)? else { continue };
            let attributes = sys::RDONLY | sys::NOSUID | sys::NODEV | sys::NOEXEC;
            let copy = sys::open_tree_at(place.as_fd())
                .and_then(|copy| sys::mount_setattr(copy.as_fd(), attributes, true).map(|()| copy))
                .with_context(|| format!("cannot make {} read-only", path.display()))?;
            attach(&copy, &place, path)?;
        }
        Ok(())
    }
}

/// Covers the `place` with nothing: a file with `null`, a directory with an empty one.
pub fn mask(place: &OwnedFd, path: &Path, null: BorrowedFd<'_>) -> Result<()> {
    // ANCHOR: ex-3.3
    let cover = if is_directory(place.as_fd()) {
        Mount::new("tmpfs", "", "ro,nosuid,nodev,noexec").open()?
    } else {
        sys::open_tree_at(null).context("cannot bind /dev/null")?
    };
    attach(&cover, place, path)
    // ANCHOR_END: ex-3.3
}
// ANCHOR_END: hide

/// Makes `overlay` the root of the mount namespace, by way of the empty directory `new_root`.
// ANCHOR: pivot
pub fn pivot(overlay: &OwnedFd, new_root: &Path) -> Result<()> {
    // ANCHOR: ex-3.2
    // pivot_root wants the new root to be a mount point, which the overlay is here. A plain
    // directory gives EINVAL; what is already the root, or on the same mount as it, EBUSY.
    attach(overlay, &Root::open(new_root)?, new_root)?;
    chdir(new_root).context("cannot change to the new root")?;
    // With both names the same, the old root ends up mounted on top of the new one: one umount
    // takes it away, lazily (MNT_DETACH), as long as anything of it is still in use.
    pivot_root(".", ".").context("cannot make it the root (pivot_root)")?;
    umount2(".", MntFlags::MNT_DETACH).context("cannot let go of the host's tree")?;
    chdir("/").context("cannot change to /")
    // ANCHOR_END: ex-3.2
}
// ANCHOR_END: pivot

fn attach(mount: &OwnedFd, place: &impl AsFd, name: &Path) -> Result<()> {
    sys::move_mount(mount.as_fd(), place.as_fd())
        .with_context(|| format!("cannot put a mount into its place on {}", name.display()))
}
