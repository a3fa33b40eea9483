//! Its `mounts` part.

use std::path::{Path, PathBuf};
use std::slice;

use anyhow::{Result, ensure};
use nix::unistd::geteuid;
use serde_json::{Value, json};
use step01_namespaces::{Namespace, Namespaces};
use step03_rootfs::{Image, Mount, default_mounts};

use super::{Request, utf8};
use crate::cli::{HostDevice, RunArgs};
use crate::user::is_rootless;

/// All that is mounted, in order.
pub(super) fn mounts(args: &RunArgs, request: &Request, new: Namespaces) -> Result<Vec<Value>> {
    let image = &request.base.image;
    let (layers, mounts) = (image.layers()?, image.mounts()?);
    // The image's own layers, if there are several: of one alone the path in `root` says it all.
    let root = match image {
        Image::Layers(trees) if trees.len() > 1 => Some(overlay(Path::new("/"), trees)),
        _ => None,
    };
    let overlays = layers.iter().map(|l| overlay(&l.destination, slice::from_ref(&l.lower)));
    let joined = request.joins.iter().map(|(kind, _)| *kind);
    let users = (!geteuid().is_root()).then_some(Namespace::User); // whose ever it is
    let own = Namespace::ALL.into_iter().filter(|&kind| new.contains(kind));
    let apart = own.chain(joined).chain(users).collect();
    let options = &args.mounts;
    ensure!(
        options.shm_size.is_none() || new.contains(Namespace::Ipc),
        "--shm-size is for a /dev/shm of its own: leave out --ipc"
    );
    // With another container's IPC namespace comes its /dev/shm: see join.rs.
    let joins_ipc = request.joins.iter().any(|(kind, _)| *kind == Namespace::Ipc);
    let defaults = default_mounts(apart)?.into_iter();
    let defaults = defaults.filter(|m| !(joins_ipc && m.destination == Path::new("/dev/shm")));
    let defaults = defaults.map(|mount| sized(mount, options.shm_size)).map(|mut mount| {
        // All groups are there, also that of terminals.
        if mount.kind == "devpts" && request.ids.is_some() {
            mount.options.push("gid=5".to_owned());
        }
        mount
    });
    root.into_iter()
        .chain(overlays)
        .chain(defaults)
        .chain(mounts)
        .chain(options.all()?)
        .chain(is_rootless()?.then(|| options.device.iter().map(bind)).into_iter().flatten())
        .map(|mut mount| {
            // What we mount below /sys ourselves is read-only, unless it was asked for.
            let writable = match mount.kind.as_str() {
                "cgroup2" => args.limits.cgroup_rw,
                "sysfs" => args.security.privileged,
                _ => false,
            };
            mount.options.retain(|option| !(writable && option == "ro"));
            Ok(json!({
                "destination": utf8(&mount.destination)?,
                "type": mount.kind,
                "source": utf8(&mount.source)?,
                "options": mount.options,
            }))
        })
        .collect()
}

/// docker's `--shm-size`.
fn sized(mut mount: Mount, shm_size: Option<u64>) -> Mount {
    if let Some(size) = shm_size.filter(|_| mount.destination == Path::new("/dev/shm")) {
        mount.options.retain(|option| !option.starts_with("size="));
        mount.options.push(format!("size={size}"));
    }
    mount
}

/// Of all bind mounts only these are not `nodev`.
fn bind(device: &HostDevice) -> Mount {
    let mut mount = Mount::bind(&device.source, &device.device.destination, false);
    mount.options = vec!["bind".to_owned()];
    mount
}

/// The devices for which nodes are made, as config.json has them (config-linux.md, "Devices").
pub(super) fn devices(args: &RunArgs) -> Result<Vec<Value>> {
    if is_rootless()? {
        return Ok(Vec::new()); // in a user namespace none can be made: the host's own nodes are bound
    }
    let made = args.mounts.device.iter();
    made.map(|HostDevice { device, .. }| {
        Ok(json!({
            "path": utf8(&device.destination)?,
            "type": if device.block { "b" } else { "c" },
            "major": device.major,
            "minor": device.minor,
            "fileMode": device.mode,
            "uid": device.uid,
            "gid": device.gid,
        }))
    })
    .collect()
}

/// An overlay whose upper directory is left to us. Each lower directory is an option of its own, the topmost
/// first, as the kernel has it since Linux 6.8: a colon in a path is only a colon then.
fn overlay(destination: &Path, lowers: &[PathBuf]) -> Mount {
    Mount {
        destination: destination.to_owned(),
        kind: "overlay".into(),
        source: "overlay".into(),
        options: lowers.iter().map(|lower| format!("lowerdir+={}", lower.display())).collect(),
    }
}
