//! Its root file system.

use std::path::PathBuf;

use anyhow::{Context as _, Result};
use oci_spec::runtime::Spec;
use step03_rootfs::{Image, Layer, Mount, Rootfs};

/// The root file system, and what is mounted in it.
pub(super) fn rootfs(spec: &Spec) -> Result<Rootfs> {
    let root = spec.root().as_ref().context("it has no `root` part")?;
    let linux = spec.linux().as_ref();
    let (mut layers, mut mounts) = (Vec::new(), Vec::new());
    for mount in spec.mounts().iter().flatten() {
        let mount = Mount {
            destination: mount.destination().clone(),
            kind: mount.typ().clone().unwrap_or_else(|| "bind".into()),
            source: mount.source().clone().unwrap_or_default(),
            options: mount.options().clone().unwrap_or_default(),
        };
        match mount.options.iter().find_map(|option| option.strip_prefix("lowerdir=")) {
            Some(lower) if mount.kind == "overlay" => {
                layers.push(Layer { lower: lower.into(), destination: mount.destination });
            }
            _ => mounts.push(mount),
        }
    }
    let paths =
        |list: Option<&Vec<String>>| list.into_iter().flatten().map(PathBuf::from).collect();
    Ok(Rootfs {
        image: Image::Directory(root.path().clone()),
        layers,
        keep: None, // that is the store's business
        mounts,
        masked: paths(linux.and_then(|linux| linux.masked_paths().as_ref())),
        readonly: paths(linux.and_then(|linux| linux.readonly_paths().as_ref())),
        workdir: spec.process().as_ref().map_or_else(|| "/".into(), |p| p.cwd().clone()),
    })
}
