//! /dev: exactly the nodes that docker gives a container.

use std::os::unix::fs::symlink;
use std::path::Path;

use anyhow::{Context as _, Result};
use nix::sys::stat::{Mode, SFlag, makedev, mknod, umask};
use step01_namespaces::in_user_namespace;

/// Name, major and minor number: linux/Documentation/admin-guide/devices.txt.
pub(crate) const NODES: [(&str, u64, u64); 6] = [
    ("null", 1, 3),
    ("zero", 1, 5),
    ("full", 1, 7),
    ("random", 1, 8),
    ("urandom", 1, 9),
    ("tty", 5, 0),
];

/// Where programs look for what belongs to themselves.
const LINKS: [(&str, &str); 6] = [
    ("/proc/self/fd", "fd"),
    ("/proc/self/fd/0", "stdin"),
    ("/proc/self/fd/1", "stdout"),
    ("/proc/self/fd/2", "stderr"),
    ("/proc/kcore", "core"),
    ("pts/ptmx", "ptmx"), // the container's own devpts, not the host's
];

/// Fills the fresh tmpfs on /dev. Call it in the container's root.
pub fn create_devices() -> Result<()> {
    let dev = Path::new("/dev");
    if !in_user_namespace() {
        let usual = umask(Mode::empty()); // these are to be writable by everybody
        for (name, major, minor) in NODES {
            let mode = Mode::from_bits_truncate(0o666);
            mknod(&dev.join(name), SFlag::S_IFCHR, mode, makedev(major, minor))
                .with_context(|| format!("cannot make the device /dev/{name}"))?;
        }
        umask(usual);
    }
    for (target, name) in LINKS {
        symlink(target, dev.join(name)).with_context(|| format!("cannot link /dev/{name}"))?;
    }
    Ok(())
}
