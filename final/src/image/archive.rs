//! Images in one file: what `docker save`, podman, skopeo and umoci write, and what `final save` writes.
//!
//! There are two forms. docker's has a manifest.json that says which files are whose configuration and
//! layers. The other is an OCI image layout in a tar archive. docker writes both into one since version 25,
//! and so do we.

use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::io::{Read, Write};
use std::path::{Component, Path, PathBuf};

use anyhow::{Context as _, Result, bail, ensure};
use oci_spec::image::{Arch, Descriptor, ImageIndex, MediaType, Os};
use serde::{Deserialize, Serialize};
use serde_json::json;
use tar::{Archive, Builder, EntryType, Header};

use super::draft::{Complete, Draft};
use super::images::{Images, REF_NAME, Stored, digest_of, read_json};
use super::name::Name;
use super::stream::decompress;

/// Where containerd, and with it docker, keeps an image's whole name.
const CONTAINERD_NAME: &str = "io.containerd.image.name";
/// How many files an archive of images may have.
const MOST_FILES: usize = 10_000;

/// One image in docker's manifest.json.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Saved {
    config: String,
    repo_tags: Option<Vec<String>>,
    layers: Vec<String>,
}

/// The files of an archive. What is in them is in the draft already, by digest: no path of the archive
/// ever is one of ours.
struct Files(BTreeMap<PathBuf, Member>);

enum Member {
    File(String),
    Link(PathBuf),
}

/// Reads all images of an archive; returns what docker says about it.
pub fn load(images: &Images<'_>, from: impl Read) -> Result<Vec<String>> {
    let mut draft = Draft::new(images)?;
    let files = Files::read(&draft, from)?;
    let complete = if files.digest("manifest.json").is_some() {
        files.docker(&mut draft)?
    } else {
        files.oci(&mut draft)?
    };
    let said = complete.iter().flat_map(|(image, names)| {
        let unnamed = names.is_empty().then(|| format!("Loaded image ID: sha256:{}", image.id));
        names.iter().map(|name| format!("Loaded image: {}", name.short())).chain(unnamed)
    });
    let said = said.collect();
    draft.commit(&complete)?;
    Ok(said)
}

impl Files {
    fn read(draft: &Draft<'_>, from: impl Read) -> Result<Self> {
        let mut archive = Archive::new(decompress(from)?.1);
        let mut files = BTreeMap::new();
        for entry in archive.entries().context("this is no tar archive")? {
            let mut entry = entry.context("it is damaged, or no tar archive")?;
            let path = normal(&entry.path()?);
            ensure!(files.len() < MOST_FILES, "an archive of images has no {MOST_FILES} files");
            let member = match entry.header().entry_type() {
                EntryType::Regular | EntryType::Continuous => {
                    Member::File(draft.write(&mut entry)?.0)
                }
                // docker wrote a layer that two images share only once.
                EntryType::Symlink | EntryType::Link => {
                    let target = entry.link_name()?.context("a link to nothing")?;
                    let hard = entry.header().entry_type() == EntryType::Link;
                    let from = path.parent().filter(|_| !hard).unwrap_or(Path::new(""));
                    Member::Link(normal(&from.join(target)))
                }
                _ => continue,
            };
            files.insert(path, member);
        }
        Ok(Self(files))
    }

    /// The digest of a file.
    fn digest(&self, path: impl AsRef<Path>) -> Option<&str> {
        let mut path = normal(path.as_ref());
        for _ in 0..10 {
            match self.0.get(&path)? {
                Member::File(digest) => return Some(digest),
                Member::Link(target) => path.clone_from(target),
            }
        }
        None
    }

    fn docker(&self, draft: &mut Draft<'_>) -> Result<Vec<(Complete, Vec<Name>)>> {
        let digest = |path: &String| {
            let digest = self.digest(path).map(str::to_owned);
            digest.with_context(|| format!("manifest.json names {path}, which is not there"))
        };
        let manifest = digest(&"manifest.json".to_owned())?;
        let saved: Vec<Saved> = read_json(&draft.blob(&manifest)).context("manifest.json")?;
        ensure!(!saved.is_empty(), "there is no image in it");
        saved
            .iter()
            .map(|image| {
                let names = image.repo_tags.iter().flatten().map(|name| name.parse());
                let names = names.collect::<Result<_>>()?;
                let layers = image.layers.iter().map(digest).collect::<Result<Vec<_>>>()?;
                Ok((draft.build(&digest(&image.config)?, &layers)?, names))
            })
            .collect()
    }

    fn oci(&self, draft: &mut Draft<'_>) -> Result<Vec<(Complete, Vec<Name>)>> {
        let index = self.digest("index.json");
        let index = index.context("it has neither a manifest.json nor an index.json: final import reads the archive of a root file system")?;
        let index: ImageIndex = read_json(&draft.blob(index)).context("index.json")?;
        let mut found = Vec::new();
        for descriptor in index.manifests() {
            let manifest = self.resolve(draft, descriptor)?;
            let mut name = None;
            for (key, whole) in [(CONTAINERD_NAME, true), (REF_NAME, false)] {
                let value = descriptor.annotations().as_ref().and_then(|all| all.get(key));
                // In a layout a name may be only a tag: of what, it does not say.
                let value = value.filter(|value| whole || value.contains([':', '/']));
                name = name.or(value.map(|value| value.parse::<Name>()).transpose()?);
            }
            found.push((draft.complete(manifest)?, name.into_iter().collect()));
        }
        ensure!(!found.is_empty(), "there is no image in it");
        Ok(found)
    }

    /// The manifest for this machine, which an index of several may be before.
    fn resolve(&self, draft: &Draft<'_>, descriptor: &Descriptor) -> Result<Descriptor> {
        let mut descriptor = descriptor.clone();
        for _ in 0..3 {
            let digest = digest_of(&descriptor)?.to_owned();
            let found = self.digest(Path::new("blobs/sha256").join(&digest));
            ensure!(
                found == Some(&digest),
                "blobs/sha256/{digest} is not there, or is another file"
            );
            if *descriptor.media_type() != MediaType::ImageIndex {
                return Ok(descriptor);
            }
            descriptor = for_this_machine(&read_json(&draft.blob(&digest))?)?;
        }
        bail!("an index of an index of an index is too much")
    }
}

/// The one of several manifests that is for this machine.
pub(super) fn for_this_machine(index: &ImageIndex) -> Result<Descriptor> {
    let ours = |m: &&Descriptor| {
        m.platform()
            .as_ref()
            .is_some_and(|p| *p.os() == Os::Linux && *p.architecture() == Arch::default())
    };
    let found = index.manifests().iter().find(ours);
    let only = (index.manifests().len() == 1).then(|| &index.manifests()[0]);
    let names = || {
        let platforms = index.manifests().iter().filter_map(|m| m.platform().as_ref());
        platforms.map(|p| format!("{}/{}", p.os(), p.architecture())).collect::<Vec<_>>().join(", ")
    };
    let found = found.or(only.filter(|m| m.platform().is_none())).cloned();
    found.with_context(|| {
        format!("there is none for linux/{}, only for {}", Arch::default(), names())
    })
}

/// The path without `.` and `..`, as if the archive's root were the root of all.
fn normal(path: &Path) -> PathBuf {
    let mut names = PathBuf::new();
    for part in path.components() {
        match part {
            Component::Normal(name) => names.push(name),
            Component::ParentDir => drop(names.pop()),
            _ => {}
        }
    }
    names
}

/// Writes images, each with the names that it was asked for by.
pub fn save(images: &Images<'_>, chosen: &[Stored], to: impl Write) -> Result<()> {
    let mut archive = Builder::new(to);
    // skopeo gives directories that are not in it to root, which a plain user cannot.
    for path in ["blobs/", "blobs/sha256/"] {
        let mut directory = header(0);
        directory.set_entry_type(EntryType::Directory);
        directory.set_mode(0o755);
        archive.append_data(&mut directory, path, &[][..])?;
    }
    let mut written = Vec::new();
    let (mut manifests, mut saved) = (Vec::new(), Vec::<Saved>::new());
    for image in chosen {
        let mut layers = Vec::new();
        for layer in image.content.layers() {
            layers.push(blob_path(digest_of(layer)?));
        }
        let config = blob_path(&image.id);
        for path in [&blob_path(digest_of(&image.manifest)?), &config].into_iter().chain(&layers) {
            if !written.contains(path) {
                append_file(
                    &mut archive,
                    path,
                    &images.blob(path.rsplit('/').next().unwrap_or("")),
                )?;
                written.push(path.clone());
            }
        }
        let tag = image.name.as_ref().filter(|name| name.tag().is_some());
        let mut manifest = image.manifest.clone();
        manifest.set_annotations(tag.map(|name| {
            let names = [
                (CONTAINERD_NAME, name.to_string()),
                (REF_NAME, name.tag().unwrap_or("").to_owned()),
            ];
            HashMap::from(names.map(|(key, value)| (key.to_owned(), value)))
        }));
        manifests.push(manifest);
        let names = tag.map(|name| vec![name.short()]);
        match saved.iter_mut().find(|other| other.config == config) {
            Some(other) => {
                other.repo_tags.get_or_insert_default().extend(names.into_iter().flatten());
            }
            None => saved.push(Saved { config, repo_tags: names, layers }),
        }
    }
    let index = json!({
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.index.v1+json",
        "manifests": manifests,
    });
    append(&mut archive, "index.json", &serde_json::to_vec(&index)?)?;
    append(&mut archive, "manifest.json", &serde_json::to_vec(&saved)?)?;
    append(&mut archive, "oci-layout", br#"{"imageLayoutVersion":"1.0.0"}"#)?;
    archive.into_inner()?.flush()?;
    Ok(())
}

fn blob_path(digest: &str) -> String {
    format!("blobs/sha256/{digest}")
}

fn header(size: u64) -> Header {
    let mut header = Header::new_ustar();
    header.set_entry_type(EntryType::Regular);
    header.set_mode(0o644);
    header.set_size(size);
    header
}

fn append(archive: &mut Builder<impl Write>, path: &str, text: &[u8]) -> Result<()> {
    archive.append_data(&mut header(text.len() as u64), path, text)?;
    Ok(())
}

fn append_file(archive: &mut Builder<impl Write>, path: &str, from: &Path) -> Result<()> {
    let file = File::open(from).with_context(|| format!("cannot read {}", from.display()))?;
    let size = file.metadata()?.len();
    archive.append_data(&mut header(size), path, file.take(size))?;
    Ok(())
}
