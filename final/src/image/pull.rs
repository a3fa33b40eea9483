//! An image from a registry.

use std::io::{IsTerminal as _, Read, stderr};

use anyhow::{Context as _, Result, bail, ensure};
use indicatif::{ProgressBar, ProgressStyle};
use oci_spec::image::{Descriptor, ImageIndex, ImageManifest, MediaType};

use super::archive::for_this_machine;
use super::draft::{Draft, descriptor};
use super::images::{Images, digest_of};
use super::name::{Name, Version};
use super::registry::Registry;

/// docker's names for what OCI calls a manifest and an index; what is in them is the same.
const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
const DOCKER_INDEX: &str = "application/vnd.docker.distribution.manifest.list.v2+json";

/// Gets an image, or makes sure that it is still what the name stands for. What docker says about it
/// goes to `say`, line by line.
pub fn pull(images: &Images<'_>, name: &Name, say: &mut dyn FnMut(&str)) -> Result<()> {
    let failed = || format!("cannot pull {}", name.short());
    let before = images.find(&name.to_string())?.map(|image| image.id);
    let version = match &name.version {
        Version::Tag(tag) | Version::Digest(tag) => tag,
    };
    say(&format!("{version}: Pulling from {}", name.repository));
    let registry = Registry::open(name).with_context(failed)?;
    let mut draft = Draft::new(images)?;
    let (manifest, digest) = manifest(&registry, &draft, &name.version).with_context(failed)?;
    let content: ImageManifest = super::images::read_json(&draft.blob(digest_of(&manifest)?))?;
    for blob in [content.config()].into_iter().chain(content.layers()) {
        let is_layer = blob != content.config();
        let line = fetch(images, &registry, &draft, blob).with_context(failed)?;
        if is_layer {
            say(&format!("{}: {line}", &digest_of(blob)?[..12]));
        }
    }
    let complete = draft.complete(manifest).with_context(failed)?;
    let status = match before {
        Some(id) if id == complete.id => "Image is up to date for",
        _ => "Downloaded newer image for",
    };
    draft.commit(&[(complete, vec![name.clone()])])?;
    say(&format!("Digest: sha256:{digest}"));
    say(&format!("Status: {status} {}", name.short()));
    Ok(())
}

/// The manifest for this machine, and the digest of what the name stands for.
fn manifest(
    registry: &Registry,
    draft: &Draft<'_>,
    version: &Version,
) -> Result<(Descriptor, String)> {
    let mut version = version.clone();
    let mut first = None;
    for _ in 0..3 {
        let (bytes, kind) = registry.manifest(&version)?;
        let (digest, size) = draft.write(&mut bytes.as_slice())?;
        if let Version::Digest(asked) = &version {
            ensure!(
                *asked == format!("sha256:{digest}"),
                "it is asked for {asked}, and sends a manifest with the digest sha256:{digest}"
            );
        }
        first.get_or_insert_with(|| digest.clone());
        let is = |ours: MediaType, dockers| kind == ours || kind.as_ref() == dockers;
        if is(MediaType::ImageManifest, DOCKER_MANIFEST) {
            return Ok((descriptor(kind, &digest, size)?, first.unwrap_or(digest)));
        }
        ensure!(is(MediaType::ImageIndex, DOCKER_INDEX), "it sends a manifest of the type {kind}");
        let index: ImageIndex = serde_json::from_slice(&bytes).context("it sends no index")?;
        version = Version::Digest(format!("sha256:{}", digest_of(&for_this_machine(&index)?)?));
    }
    bail!("an index of an index of an index is too much")
}

/// Gets a blob, if it is not there; returns what docker says about it.
fn fetch(
    images: &Images<'_>,
    registry: &Registry,
    draft: &Draft<'_>,
    blob: &Descriptor,
) -> Result<&'static str> {
    let wanted = digest_of(blob)?;
    if images.blob(wanted).exists() {
        return Ok("Already exists");
    }
    let bar = bar(blob.size(), &wanted[..12]);
    let download = registry.blob(blob).and_then(|download| {
        let mut download = bar.wrap_read(download);
        draft.write(&mut download as &mut dyn Read)
    });
    bar.finish_and_clear();
    let (digest, _) = download.with_context(|| format!("cannot get sha256:{wanted}"))?;
    ensure!(digest == wanted, "sha256:{wanted} is not what came: that is sha256:{digest}");
    Ok("Pull complete")
}

/// For those who sit at a terminal and wait.
fn bar(size: u64, name: &str) -> ProgressBar {
    if !stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let style = ProgressStyle::with_template("{prefix}: {wide_bar} {bytes}/{total_bytes} {eta}");
    let bar = ProgressBar::new(size).with_prefix(name.to_owned());
    style.map_or_else(|_| ProgressBar::hidden(), |style| bar.with_style(style))
}
