//! Ids of the host for containers with a user namespace of their own (subuid(5)).

use std::fs;

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sys::statfs::{BTRFS_SUPER_MAGIC, EXT4_SUPER_MAGIC, FsType, XFS_SUPER_MAGIC, statfs};

const FILES: [&str; 2] = ["/etc/subuid", "/etc/subgid"];

/// What the lab's host has in /etc/subuid and /etc/subgid, until it is dropped.
#[derive(Debug)]
pub struct Ranges(());

impl Ranges {
    /// Puts these texts there. The machine's own files have to be there, to be covered.
    #[must_use]
    #[allow(clippy::missing_panics_doc, reason = "for tests")]
    pub fn new(uids: &str, gids: &str) -> Self {
        for (file, text) in FILES.into_iter().zip([uids, gids]) {
            let place = place(file);
            fs::write(&place, text).unwrap_or_else(|error| panic!("{place}: {error}"));
            mount(Some(&*place), file, None::<&str>, MsFlags::MS_BIND, None::<&str>)
                .unwrap_or_else(|error| panic!("cannot cover {file}: {error}"));
        }
        Self(())
    }
}

impl Drop for Ranges {
    fn drop(&mut self) {
        for file in FILES {
            umount2(file, MntFlags::MNT_DETACH).expect("it is ours");
            fs::remove_file(place(file)).expect("it is ours");
        }
    }
}

fn place(file: &str) -> String {
    format!("/run/{}", file.replace('/', "-"))
}

/// Whether files there can be seen with other owners (mount_setattr(2), "ID-mapped mounts"), and all that
/// can since the kernel of this version.
#[must_use]
pub fn can_be_mapped(directory: &str, since: (u32, u32)) -> bool {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let mut numbers = release.split('.').map_while(|number| number.parse::<u32>().ok());
    let version = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
    let takes_it = [EXT4_SUPER_MAGIC, XFS_SUPER_MAGIC, BTRFS_SUPER_MAGIC];
    let is_one = |kind: FsType| takes_it.contains(&kind);
    version >= since && statfs(directory).is_ok_and(|found| is_one(found.filesystem_type()))
}
