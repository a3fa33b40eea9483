//! How much room a container takes: `ps --size`, `inspect --size`

use std::collections::HashSet;
use std::io::{Read as _, Write as _, pipe};
use std::path::Path;

use anyhow::{Context as _, Result};
use nix::unistd::geteuid;
use step01_namespaces::Namespace;
use step03_rootfs::Root;

use super::diff::{OURS, is_directory, open};
use crate::image::{Images, look, names};
use crate::process::in_child;
use crate::store::Container;

/// What a container takes, in bytes, as docker counts: the lengths of its files, and not the blocks
/// that they take on disk.
#[derive(Debug, Clone, Copy)]
pub(super) struct Size {
    /// What it has written; none, if that is not kept on disk.
    pub written: Option<u64>,
    /// That, and its image; none, if that is not one of the store's (`host`, or a directory).
    pub whole: Option<u64>,
}

impl Size {
    pub(super) fn of(container: &Container) -> Result<Self> {
        let (written, store) = (written(container)?, container.store());
        let Some(id) = &container.state.image_id else { return Ok(Self { written, whole: None }) };
        let images = Images::open(&store)?;
        let image = images.list()?.into_iter().find(|image| image.id == *id);
        let image = image.map(|image| images.size(&image)).transpose()?;
        Ok(Self { written, whole: image.zip(written).map(|(image, written)| image + written) })
    }
}

fn written(container: &Container) -> Result<Option<u64>> {
    let kept = container.bundle().join("layer");
    if !kept.try_exists().with_context(|| format!("cannot look for {}", kept.display()))? {
        return Ok(container.state.started.is_none().then_some(0)); // it has not run yet
    }
    if geteuid().is_root() {
        return bytes(&kept).map(Some);
    }
    // As for `diff`: what a plain user's container wrote may be closed to its owner.
    let (mut from, mut to) = pipe().context("cannot make a pipe")?;
    in_child([Namespace::User].into_iter().collect(), || {
        to.write_all(&bytes(&kept)?.to_ne_bytes()).context("cannot write to a pipe")
    })?;
    let mut count = [0; size_of::<u64>()];
    from.read_exact(&mut count).context("cannot read from a pipe")?;
    Ok(Some(u64::from_ne_bytes(count)))
}

/// Of all upper directories; what is beside them is overlayfs's own.
fn bytes(kept: &Path) -> Result<u64> {
    let uppers = (0..).map(|number| kept.join(format!("upper{number}")));
    let uppers: Vec<_> = uppers.take_while(|upper| upper.exists()).collect();
    let (mut sum, mut links) = (0, HashSet::new());
    for (number, upper) in uppers.iter().enumerate() {
        // The root's is the last one. In it are also the files that the engine puts there.
        let skip = if number + 1 == uppers.len() { &OURS[..] } else { &[] };
        sum += below(&Root::open(upper)?, Path::new("/"), skip, &mut links)?;
    }
    Ok(sum)
}

/// A file with several names counts once. What has gone meanwhile takes nothing.
fn below(upper: &Root, path: &Path, skip: &[&str], links: &mut HashSet<(u64, u64)>) -> Result<u64> {
    let Some(directory) = open(upper, path.strip_prefix("/")?)? else { return Ok(0) };
    let (mut sum, mut directories) = (0, Vec::new());
    for name in names(&directory)? {
        let path = path.join(&name);
        if skip.iter().any(|skip| path == Path::new(skip)) {
            continue;
        }
        let found = look(&directory, &name);
        match found.with_context(|| format!("cannot look at {}", path.display()))? {
            Some(found) if is_directory(&found) => directories.push(path),
            Some(found) if found.st_nlink == 1 || links.insert((found.st_dev, found.st_ino)) => {
                sum += u64::try_from(found.st_size).unwrap_or_default();
            }
            _ => {}
        }
    }
    drop(directory);
    for path in directories {
        sum += below(upper, &path, skip, links)?;
    }
    Ok(sum)
}
