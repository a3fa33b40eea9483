//! What `inspect` shows of an image.

use anyhow::Result;
use serde_json::{Value, json};

use crate::image::{Images, Name, Stored};

pub(super) fn about(images: &Images<'_>, image: &Stored) -> Result<Value> {
    let mut names: Vec<_> =
        images.list()?.into_iter().filter(|other| other.id == image.id).collect();
    names.retain(|other| other.name.is_some());
    let names = || names.iter().filter_map(|image| image.name.as_ref());
    let tags = names().filter(|name| name.tag().is_some()).map(Name::short);
    let digest = image.manifest.digest();
    let mut digests: Vec<_> =
        names().map(|name| format!("{}@{digest}", name.short_repository())).collect();
    digests.dedup();
    let config = &image.config;
    let mut shown = json!({
        "Id": format!("sha256:{}", image.id),
        "RepoTags": tags.collect::<Vec<_>>(),
        "RepoDigests": digests,
        "Architecture": config.architecture(),
        "Os": config.os(),
        "Config": config.config().clone().unwrap_or_default(),
        "RootFS": { "Type": config.rootfs().typ(), "Layers": config.rootfs().diff_ids() },
        "Size": images.size(image)?,
    });
    for (key, value) in
        [("Created", config.created()), ("Author", config.author()), ("Variant", config.variant())]
    {
        if let Some(value) = value {
            shown[key] = value.clone().into();
        }
    }
    Ok(shown)
}
