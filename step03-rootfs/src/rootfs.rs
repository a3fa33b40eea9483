//! The order of work: open, pivot, attach, hide.

use std::fs;
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use nix::mount::{MntFlags, umount2};
use nix::sys::stat::{Mode, umask};
use nix::unistd::{chdir, pivot_root};
use step01_namespaces::in_user_namespace;

use crate::root::is_directory;
use crate::{Image, Layer, Mount, Root, create_devices, sys, write_skeleton};

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
    /// Everything else that is mounted, in order.
    pub mounts: Vec<Mount>,
    /// Paths that look empty.
    pub masked: Vec<PathBuf>,
    /// Paths that cannot be written.
    pub readonly: Vec<PathBuf>,
    /// The working directory, made if it is missing.
    pub workdir: PathBuf,
}

impl Rootfs {
    /// The child's side: makes this the root of our mount namespace, which must be a new one
    /// with private propagation: pivot_root(2) refuses another, and the host would see it all.
    // ANCHOR: enter
    pub fn enter(&self) -> Result<Root> {
        umask(Mode::from_bits_truncate(0o022)); // the usual one, whatever our caller has

        // From the host's view: open what comes from there, and make what is new. All of it is
        // still attached to nothing. The kernel lets a user namespace mount proc and sysfs only
        // while it sees the host's, so this is the moment for them too.
        let lowers =
            self.layers.iter().map(|l| Root::open(&l.lower)).collect::<Result<Vec<_>>>()?;
        let mounts = self.mounts.iter().map(Mount::open).collect::<Result<Vec<_>>>()?;
        let root = self.pivot(&lowers)?;

        // From the container's view: put each mount into its place.
        for (mount, opened) in self.mounts.iter().zip(&mounts) {
            mount.attach(opened, &root)?;
        }
        create_devices()?;

        // Last what hides, so that nothing is mounted over it again.
        self.hide(&root)?;
        let workdir = root.directory(&self.workdir)?;
        nix::unistd::fchdir(&workdir)
            .with_context(|| format!("{} is not a directory", self.workdir.display()))?;
        Ok(root)
    }
    // ANCHOR_END: enter

    /// Builds the overlays and makes them the root; the host's tree is out of reach afterwards.
    // ANCHOR: pivot
    fn pivot(&self, lowers: &[Root]) -> Result<Root> {
        let image = match &self.image {
            Image::Directory(path) => Some(Root::open(path)?),
            Image::Host => None,
        };
        // Everything that the container writes goes to a tmpfs of its own. It has to be mounted
        // somewhere, as overlayfs takes its directories from our mount namespace only; /tmp is
        // there on every system, and the host does not see it.
        let staging = Path::new("/tmp");
        let tmpfs = Mount::new("tmpfs", "/tmp", "mode=755");
        let place = Root::open(staging)?;
        sys::move_mount(tmpfs.open()?.as_fd(), place.as_fd())
            .context("cannot mount a tmpfs for what the container writes")?;

        let image = if let Some(directory) = image {
            directory
        } else {
            let skeleton = staging.join("skeleton");
            make_directory(&skeleton)?;
            write_skeleton(&skeleton)?;
            Root::open(&skeleton)?
        };
        // pivot_root wants the new root to be a mount point, which an overlay is. Without one:
        // EINVAL; and EBUSY if it were the root that we have already.
        let new_root = staging.join("root");
        make_directory(&new_root)?;
        let overlay = open_overlay(&image, &staging.join("0"))?;
        sys::move_mount(overlay.as_fd(), Root::open(&new_root)?.as_fd())
            .context("cannot put the root file system into its place")?;

        // With both names the same, the old root ends up mounted on top of the new one: one
        // umount takes it away, lazily (MNT_DETACH), as we still run from there.
        let overlays =
            (1..).zip(lowers).map(|(n, lower)| open_overlay(lower, &staging.join(n.to_string())));
        let overlays = overlays.collect::<Result<Vec<_>>>()?;
        chdir(&new_root).context("cannot change to the new root")?;
        pivot_root(".", ".").context("cannot make it the root (pivot_root)")?;
        umount2(".", MntFlags::MNT_DETACH).context("cannot let go of the host's tree")?;
        chdir("/").context("cannot change to /")?;

        let root = Root::open(Path::new("/"))?;
        for (layer, overlay) in self.layers.iter().zip(overlays) {
            let place = root.directory(&layer.destination)?;
            sys::move_mount(overlay.as_fd(), place.as_fd())
                .with_context(|| format!("cannot mount {}", layer.destination.display()))?;
        }
        Ok(root)
    }
    // ANCHOR_END: pivot

    /// Masked and read-only paths. What an image or a kernel does not have needs no hiding.
    // ANCHOR: hide
    fn hide(&self, root: &Root) -> Result<()> {
        let null = root.find(Path::new("/dev/null"))?.context("/dev/null is missing")?;
        for path in &self.masked {
            let Some(place) = root.find(path)? else { continue };
            let cover = if is_directory(place.as_fd()) {
                Mount::new("tmpfs", "", "ro,nosuid,nodev,noexec").open()?
            } else {
                sys::open_tree_at(null.as_fd()).context("cannot bind /dev/null")?
            };
            sys::move_mount(cover.as_fd(), place.as_fd())
                .with_context(|| format!("cannot mask {}", path.display()))?;
        }
        for path in &self.readonly {
            let Some(place) = root.find(path)? else { continue };
            let copy = sys::open_tree_at(place.as_fd())?;
            sys::mount_setattr(copy.as_fd(), sys::RDONLY | sys::NOSUID | sys::NODEV | sys::NOEXEC)?;
            sys::move_mount(copy.as_fd(), place.as_fd())
                .with_context(|| format!("cannot make {} read-only", path.display()))?;
        }
        Ok(())
    }
    // ANCHOR_END: hide
}

/// An overlay of `lower` and a fresh upper directory below `area`, attached to nothing yet.
// ANCHOR: overlay
fn open_overlay(lower: &Root, area: &Path) -> Result<OwnedFd> {
    let (upper, work) = (area.join("upper"), area.join("work"));
    for directory in [area, &upper, &work] {
        make_directory(directory)?;
    }
    // The mode of an overlay's top directory is the upper one's.
    let mode = fs::metadata(lower.proc_path()).map(|metadata| metadata.permissions());
    mode.and_then(|mode| fs::set_permissions(&upper, mode))
        .context("cannot give the writable layer the mode of the image")?;
    // By its fd: a path could hold a colon or a comma, and /tmp is covered by now.
    let mut options = vec![
        format!("lowerdir={}", lower.proc_path().display()),
        format!("upperdir={}", upper.display()),
        format!("workdir={}", work.display()),
    ];
    if in_user_namespace() {
        // overlayfs notes deleted files in trusted.* attributes, which are for the host's root
        // only; with this option in user.*, which anybody may set (Linux 5.11).
        options.push("userxattr".to_owned());
    }
    let mount = Mount { options, ..Mount::new("overlay", "/", "") };
    mount.open().context(
        "the writable layer needs overlayfs, in a user namespace with userxattr (Linux 5.11)",
    )
}
// ANCHOR_END: overlay

fn make_directory(path: &Path) -> Result<()> {
    fs::create_dir(path).with_context(|| format!("cannot make the directory {}", path.display()))
}
