//! /dev: exactly the nodes that docker gives a container.

use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::fs::lchown;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use nix::sys::stat::{Mode, SFlag, makedev, mknod, umask};
use nix::unistd::symlinkat;
use step01_namespaces::in_user_namespace;

use crate::{Owners, Root, sys};

/// Name, major and minor number: linux/Documentation/admin-guide/devices.txt.
const NODES: [(&str, u64, u64); 6] = [
    ("null", 1, 3),
    ("zero", 1, 5),
    ("full", 1, 7),
    ("random", 1, 8),
    ("urandom", 1, 9),
    ("tty", 5, 0),
];

/// The place of null in them.
pub(crate) const NULL: usize = 0;

/// A device that the container is to have beside them (OCI runtime-spec, config-linux.md, "Devices").
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Device {
    /// Where, inside the container.
    pub destination: PathBuf,
    /// Whether it is a block device, or a character device.
    pub block: bool,
    /// The number of its driver.
    pub major: u64,
    /// The number that it has there.
    pub minor: u64,
    /// The permissions.
    pub mode: u32,
    /// Its owner.
    pub uid: u32,
    /// Its group.
    pub gid: u32,
}

/// Where programs look for what belongs to themselves.
const LINKS: [(&str, &str); 6] = [
    ("/proc/self/fd", "fd"),
    ("/proc/self/fd/0", "stdin"),
    ("/proc/self/fd/1", "stdout"),
    ("/proc/self/fd/2", "stderr"),
    ("/proc/kcore", "core"),
    ("pts/ptmx", "ptmx"), // the container's own devpts, not the host's
];

/// From the host's view: the nodes, each as a mount of its own, attached to nothing yet.
///
/// Root in the container has CAP_MKNOD, as in docker: it could make a node for the host's disk.
/// So every mount of the container is `nodev`, also the tmpfs on /dev, and only these six single
/// files are not: other nodes can be made, but not opened.
///
/// mknod(2) is not for user namespaces; there the host's own nodes are bound. As root we make
/// new ones, in `area`: root in the container could chmod(2) the host's.
pub(crate) fn open_nodes(area: &Path, owners: Option<&Owners>) -> Result<Vec<OwnedFd>> {
    let bind_hosts = in_user_namespace()?;
    let usual = umask(Mode::empty()); // they are to be writable by everybody
    let open = |(name, major, minor)| -> Result<OwnedFd> {
        if bind_hosts {
            return Ok(sys::open_tree(&Path::new("/dev").join(name), false)?);
        }
        let node = area.join(name);
        mknod(&node, SFlag::S_IFCHR, Mode::from_bits_truncate(0o666), makedev(major, minor))?;
        owners.map_or(Ok(()), |owners| owners.give(&node, (0, 0)))?;
        Ok(sys::open_tree(&node, false)?)
    };
    let nodes =
        NODES.map(|node| open(node).with_context(|| format!("cannot make /dev/{}", node.0)));
    umask(usual);
    nodes.into_iter().collect()
}

/// From the host's view: a node of our own for each device, as a mount of its own. Not for user
/// namespaces: a device of theirs is a bind mount that is not `nodev`.
pub(crate) fn open_devices(
    devices: &[Device],
    area: &Path,
    owners: Option<&Owners>,
) -> Result<Vec<OwnedFd>> {
    let usual = umask(Mode::empty());
    let open = |(index, device): (usize, &Device)| -> Result<OwnedFd> {
        let node = area.join(format!("device{index}"));
        let kind = if device.block { SFlag::S_IFBLK } else { SFlag::S_IFCHR };
        let mode = Mode::from_bits_truncate(device.mode);
        mknod(&node, kind, mode, makedev(device.major, device.minor))?;
        match owners {
            Some(owners) => owners.give(&node, (device.uid, device.gid))?,
            None => lchown(&node, Some(device.uid), Some(device.gid))?,
        }
        Ok(sys::open_tree(&node, false)?)
    };
    let opened = devices.iter().enumerate().map(|(index, device)| {
        open((index, device))
            .with_context(|| format!("cannot make the device {}", device.destination.display()))
    });
    let opened = opened.collect();
    umask(usual);
    opened
}

/// From the container's view: puts each device into its place.
pub(crate) fn attach_devices(devices: &[Device], opened: &[OwnedFd], root: &Root) -> Result<()> {
    for (device, node) in devices.iter().zip(opened) {
        let place = root.file(&device.destination)?;
        sys::move_mount(node.as_fd(), place.as_fd()).with_context(|| {
            format!("cannot put the device {} into its place", device.destination.display())
        })?;
    }
    Ok(())
}

/// From the container's view: fills the fresh tmpfs on /dev.
pub(crate) fn attach_nodes(nodes: &[OwnedFd], root: &Root) -> Result<()> {
    let path = Path::new("/dev");
    for ((name, ..), node) in NODES.iter().zip(nodes) {
        let place = root.file(&path.join(name))?;
        sys::move_mount(node.as_fd(), place.as_fd())
            .with_context(|| format!("cannot put /dev/{name} into its place"))?;
    }
    let dev = root.directory(path)?;
    for (target, name) in LINKS {
        symlinkat(target, &dev, name).with_context(|| format!("cannot link /dev/{name}"))?;
    }
    Ok(())
}
