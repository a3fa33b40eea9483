//! The image `host`, unpacked where all containers share it.

use std::ffi::OsString;
use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use step03_rootfs::write_skeleton;

use crate::store::Store;

/// How the name of an image ends that is just being written.
pub(super) const UNFINISHED: &str = ".new";

/// Where the directories around /usr are. They only ever are the lower layer of an overlay, so no
/// container changes them. Another build of this program may write others: it has its own place.
pub fn host_rootfs(store: &Store) -> Result<PathBuf> {
    let program = fs::metadata("/proc/self/exe").context("cannot look at our own program")?;
    let version = format!("host-{}-{}.{}", program.ino(), program.mtime(), program.mtime_nsec());
    Ok(store.images().join(version))
}

/// Writes them, if nobody has done so yet.
pub fn write_host(store: &Store, rootfs: &Path) -> Result<()> {
    if rootfs.exists() {
        return Ok(());
    }
    let _lock = store.lock()?; // one writes, and the others find it there
    if rootfs.exists() {
        return Ok(());
    }
    // Under another name first: who sees the directory sees all of it.
    let mut new = OsString::from(rootfs);
    new.push(UNFINISHED);
    let new = PathBuf::from(new);
    remove(&new)?; // somebody was killed while writing it
    let written = fs::create_dir_all(&new)
        .with_context(|| format!("cannot make {}", new.display()))
        .and_then(|()| write_skeleton(&new))
        .and_then(|()| {
            fs::rename(&new, rootfs).with_context(|| format!("cannot make {}", rootfs.display()))
        });
    written.inspect_err(|_| drop(remove(&new))) // the first error is the one that matters
}

fn remove(directory: &Path) -> Result<()> {
    match fs::remove_dir_all(directory) {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        result => result.with_context(|| format!("cannot remove {}", directory.display())),
    }
}
