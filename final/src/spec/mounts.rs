//! Its `mounts` part.

use anyhow::Result;
use serde_json::{Value, json};
use step01_namespaces::Namespaces;
use step03_rootfs::{Layer, Mount, default_mounts};

use super::{Request, utf8};
use crate::cli::RunArgs;

/// All that is mounted, in order.
pub(super) fn mounts(
    args: &RunArgs,
    request: &Request,
    namespaces: Namespaces,
) -> Result<Vec<Value>> {
    let volumes =
        args.mounts.volume.iter().map(|v| Mount::bind(&v.source, &v.destination, v.read_only));
    let (layers, mounts) = (request.image.layers()?, request.image.mounts()?);
    layers
        .iter()
        .map(overlay)
        .chain(default_mounts(namespaces)?)
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
