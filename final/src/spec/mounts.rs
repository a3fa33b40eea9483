//! Its `mounts` part.

use std::path::Path;

use anyhow::Result;
use serde_json::{Value, json};
use step01_namespaces::{Namespace, Namespaces};
use step03_rootfs::{Layer, Mount, default_mounts};

use super::{Request, utf8};
use crate::cli::RunArgs;

/// All that is mounted, in order.
pub(super) fn mounts(args: &RunArgs, request: &Request, new: Namespaces) -> Result<Vec<Value>> {
    let volumes =
        args.mounts.volume.iter().map(|v| Mount::bind(&v.source, &v.destination, v.read_only));
    let joined = request.joins.iter().map(|(kind, _)| *kind);
    let apart =
        Namespace::ALL.into_iter().filter(|&kind| new.contains(kind)).chain(joined).collect();
    // With another container's IPC namespace comes its /dev/shm: see join.rs.
    let joins_ipc = request.joins.iter().any(|(kind, _)| *kind == Namespace::Ipc);
    let defaults = default_mounts(apart)?.into_iter();
    let defaults = defaults.filter(|m| !(joins_ipc && m.destination == Path::new("/dev/shm")));
    let (layers, mounts) = (request.image.layers()?, request.image.mounts()?);
    layers
        .iter()
        .map(overlay)
        .chain(defaults)
        .chain(mounts)
        .chain(volumes)
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

/// A layer as a mount: an overlay whose upper directory is left to us.
fn overlay(layer: &Layer) -> Mount {
    Mount {
        destination: layer.destination.clone(),
        kind: "overlay".into(),
        source: "overlay".into(),
        options: vec![format!("lowerdir={}", layer.lower.display())],
    }
}
