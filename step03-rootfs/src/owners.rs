//! Owners of files, in a user namespace whose root is not the host's.
//!
//! The files of an image belong to user 0 and others, whom such a user namespace does not have. An
//! ID-mapped mount shows them as those who are 0 and others in there: on disk nothing changes, and one
//! image is for all containers (mount_setattr(2), "ID-mapped mounts").

use std::fs::read_link;
use std::io::Error;
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::fs::lchown;
use std::path::Path;

use anyhow::{Context as _, Result, anyhow};
use step01_namespaces::IdMaps;

use crate::{Root, sys};

/// Who on the host stands for whom in the container.
#[derive(Debug)]
pub struct Owners {
    /// The maps of its user namespace.
    pub maps: IdMaps,
    /// A user namespace with these maps; it need not be the container's own.
    pub user_namespace: OwnedFd,
}

impl Owners {
    /// The directory `lower` as the container is to see it: mounted once more, on `place`. What is
    /// mounted below it is not seen there, as in an overlay.
    // ANCHOR: mapped
    pub(crate) fn mapped(&self, lower: &Root, place: &Path) -> Result<Root> {
        let there = Root::open(place)?;
        sys::open_tree(&lower.proc_path(), false)
            .and_then(|mount| {
                sys::idmap(mount.as_fd(), self.user_namespace.as_fd())?;
                // An overlay takes only what is mounted somewhere; since Linux 6.15 it takes more.
                sys::move_mount(mount.as_fd(), there.as_fd())
            })
            .map_err(|error| explain(lower, &error))?;
        Root::open(place)
    }
    // ANCHOR_END: mapped

    /// Gives a file of ours to a user and a group of the container.
    pub(crate) fn give(&self, path: &Path, (uid, gid): (u32, u32)) -> Result<()> {
        let IdMaps { uids, gids } = self.maps;
        lchown(path, Some(uids.first.saturating_add(uid)), Some(gids.first.saturating_add(gid)))
            .with_context(|| format!("cannot give {} to the container", path.display()))
    }
}

fn explain(lower: &Root, error: &Error) -> anyhow::Error {
    let path = read_link(lower.proc_path()).unwrap_or_default();
    let why = match error.raw_os_error() {
        Some(libc::EINVAL) => {
            "its file system has no ID-mapped mounts on this kernel: ext4, xfs and btrfs have, tmpfs \
             since Linux 6.3, overlayfs and most network file systems have not"
        }
        Some(libc::EPERM) => "it takes root of the user namespace that has mounted it",
        Some(libc::ENOSYS) => "Linux 5.19 or later is needed",
        _ => "unexpected",
    };
    anyhow!("cannot show {} with other owners: {error} ({why})", path.display())
}
