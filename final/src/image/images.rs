//! The images: an OCI image layout (image-spec, image-layout.md), and beside it each layer unpacked.
//!
//! ```text
//! index.json          which images there are, and their names
//! blobs/sha256/HEX    manifests, configurations and layers, as they came; named by their digest
//! layers/HEX/tree     a layer unpacked, for overlayfs; named by the digest of its archive (diff id)
//! layers/HEX/size     the sum of its files' bytes
//! make.ID.new         what is just being made, held by a lock; see draft.rs
//! ```
//!
//! What is in blobs and layers never changes: it is either there, whole, or not. Only the index
//! changes, under the store's lock.

use std::collections::{HashMap, HashSet};
use std::fs::{self, DirBuilder, File};
use std::io::{ErrorKind, Read as _};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail, ensure};
use oci_spec::image::{Descriptor, ImageConfiguration, ImageIndex, ImageManifest};
use serde::de::DeserializeOwned;

use super::draft::remove_tree;
use super::host::UNFINISHED;
use super::name::{Name, is_digest};
use crate::store::Store;

/// The largest manifest or configuration that is read: docker's limit.
pub const MOST_JSON: u64 = 4 << 20;
/// Where a layout keeps a name (image-spec, annotations.md).
pub const REF_NAME: &str = "org.opencontainers.image.ref.name";

/// The directory of all images.
#[derive(Debug)]
pub struct Images<'s> {
    pub(super) store: &'s Store,
    path: PathBuf,
}

/// An image that is there.
#[derive(Debug, Clone)]
pub struct Stored {
    /// Its name; none if another image has it by now.
    pub name: Option<Name>,
    /// The digest of its configuration, 64 hexadecimal digits: what docker calls the image's id.
    pub id: String,
    /// Where its manifest is.
    pub manifest: Descriptor,
    /// Where its configuration and its layers are, the lowest first.
    pub content: ImageManifest,
    /// How it wants to be run.
    pub config: ImageConfiguration,
}

impl<'s> Images<'s> {
    /// The images of this store; what killed processes left unfinished there is removed.
    pub fn open(store: &'s Store) -> Result<Self> {
        let images = Self { store, path: store.images() };
        for directory in ["blobs/sha256", "layers"] {
            let path = images.path.join(directory);
            let made = DirBuilder::new().recursive(true).mode(0o700).create(&path);
            made.with_context(|| format!("cannot make {}", path.display()))?;
        }
        if !images.unfinished()?.is_empty() {
            let _lock = store.lock()?;
            images.sweep()?;
        }
        Ok(images)
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// The file with this digest.
    #[must_use]
    pub fn blob(&self, digest: &str) -> PathBuf {
        self.path.join("blobs/sha256").join(digest)
    }

    /// The unpacked layer whose archive has this digest, and its size.
    #[must_use]
    pub fn layer(&self, diff_id: &str) -> PathBuf {
        self.path.join("layers").join(diff_id)
    }

    /// All images, those with a name first, by name.
    pub fn list(&self) -> Result<Vec<Stored>> {
        let index = self.index()?;
        let mut all = index.manifests().iter().map(|m| self.load(m)).collect::<Result<Vec<_>>>()?;
        all.sort_by(|a, b| {
            (a.name.is_none(), &a.name, &a.id).cmp(&(b.name.is_none(), &b.name, &b.id))
        });
        Ok(all)
    }

    /// The image with this name, or whose id begins so.
    pub fn find(&self, text: &str) -> Result<Option<Stored>> {
        if let Ok(name) = text.parse::<Name>() {
            let index = self.index()?;
            if let Some(found) =
                index.manifests().iter().find(|m| name_of(m).as_ref() == Some(&name))
            {
                return self.load(found).map(Some);
            }
        }
        let digits = text.strip_prefix("sha256:").unwrap_or(text);
        if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return Ok(None);
        }
        let mut found = self.list()?;
        found.retain(|image| image.id.starts_with(digits));
        let first = found.first().map(|image| image.id.clone());
        ensure!(
            found.iter().all(|image| Some(&image.id) == first.as_ref()),
            "several images have an id that begins with {text}: give more of it"
        );
        Ok(found.into_iter().next())
    }

    /// The bytes of its files, in all layers.
    pub fn size(&self, image: &Stored) -> Result<u64> {
        let mut size = 0;
        for layer in image.diff_ids()? {
            let path = self.layer(layer).join("size");
            let text = fs::read_to_string(&path);
            let text = text.with_context(|| format!("cannot read {}", path.display()))?;
            size += text
                .trim()
                .parse::<u64>()
                .with_context(|| format!("{} is damaged", path.display()))?;
        }
        Ok(size)
    }

    /// Its layers as overlayfs wants them: directories, the topmost first. One that is there twice
    /// counts where it is highest: it covers what it was further down.
    pub fn trees(&self, image: &Stored) -> Result<Vec<PathBuf>> {
        let mut trees = Vec::new();
        for layer in image.diff_ids()?.into_iter().rev() {
            let tree = self.layer(layer).join("tree");
            if !trees.contains(&tree) {
                trees.push(tree);
            }
        }
        Ok(trees)
    }

    fn load(&self, manifest: &Descriptor) -> Result<Stored> {
        let read = || -> Result<_> {
            let content: ImageManifest = read_json(&self.blob(digest_of(manifest)?))?;
            let id = digest_of(content.config())?.to_owned();
            let config = read_json(&self.blob(&id))?;
            Ok(Stored { name: name_of(manifest), id, manifest: manifest.clone(), content, config })
        };
        read().with_context(|| format!("the image {} is damaged", manifest.digest()))
    }

    pub(super) fn index(&self) -> Result<ImageIndex> {
        let path = self.path.join("index.json");
        if path.try_exists().with_context(|| format!("cannot look for {}", path.display()))? {
            return read_json(&path);
        }
        Ok(ImageIndex::default())
    }

    /// Writes the index under another name first. The store must be locked.
    pub(super) fn save(&self, index: &ImageIndex) -> Result<()> {
        let write = |name: &str, text: &[u8]| {
            let (path, new) = (self.path.join(name), self.path.join(format!("{name}{UNFINISHED}")));
            let written = fs::write(&new, text).and_then(|()| fs::rename(&new, &path));
            let written = written.inspect_err(|_| drop(fs::remove_file(&new)));
            written.with_context(|| format!("cannot write {}", path.display()))
        };
        write("oci-layout", br#"{"imageLayoutVersion":"1.0.0"}"#)?;
        write("index.json", &serde_json::to_vec_pretty(index)?)
    }

    /// `tag`: one more name for an image.
    pub fn tag(&self, image: &Stored, name: &Name) -> Result<()> {
        let _lock = self.store.lock()?;
        let mut index = self.index()?;
        let there = index.manifests().iter().any(|m| m.digest() == image.manifest.digest());
        ensure!(there, "the image {} was removed meanwhile", image.short_id());
        put(&mut index, &image.manifest, Some(name));
        self.save(&index)
    }

    /// Removes names, and what is in no other image and in no container; returns what docker says about it.
    /// By an id it removes all of the image's names, if there is one only, or with `force`.
    pub fn remove(&self, text: &str, force: bool) -> Result<Vec<String>> {
        let _lock = self.store.lock()?;
        let Some(image) = self.find(text)? else { bail!("no such image: {text}") };
        let mut index = self.index()?;
        let is_it = |m: &Descriptor| m.digest() == image.manifest.digest();
        let by_name = text.parse::<Name>().is_ok_and(|name| Some(name) == image.name);
        let mut names: Vec<_> =
            index.manifests().iter().filter(|m| is_it(m)).filter_map(name_of).collect();
        names.sort();
        ensure!(
            by_name || names.len() < 2 || force,
            "the image {text} has several names ({}): remove these, or use -f",
            names.iter().map(Name::short).collect::<Vec<_>>().join(", ")
        );
        let gone = |m: &Descriptor| is_it(m) && (!by_name || name_of(m) == image.name);
        let stays = index.manifests().iter().any(|m| is_it(m) && !gone(m));
        if !stays && let Some(user) = self.user_of(&image.id)? {
            bail!("the container {user} uses the image {text}: remove it first (final rm {user})");
        }
        let mut said: Vec<_> = names
            .iter()
            .filter(|name| !by_name || Some(*name) == image.name.as_ref())
            .map(|name| format!("Untagged: {}", name.short()))
            .collect();
        index.set_manifests(index.manifests().iter().filter(|m| !gone(m)).cloned().collect());
        self.save(&index)?;
        if !stays {
            said.push(format!("Deleted: sha256:{}", image.id));
        }
        said.extend(self.collect()?);
        Ok(said)
    }

    /// Removes images that no container uses: those without a name, or all; returns what docker says
    /// about it, and how many bytes are free again.
    pub fn prune(&self, all: bool) -> Result<(Vec<String>, u64)> {
        let _lock = self.store.lock()?;
        let before = self.room()?;
        let (mut kept, mut said) = (Vec::new(), Vec::new());
        for image in self.list()? {
            if self.user_of(&image.id)?.is_some() || (image.name.is_some() && !all) {
                kept.push(named(&image.manifest, image.name.as_ref()));
            } else {
                said.extend(image.name.map(|name| format!("Untagged: {}", name.short())));
                let line = format!("Deleted: sha256:{}", image.id);
                if !said.contains(&line) {
                    said.push(line);
                }
            }
        }
        let mut index = self.index()?;
        index.set_manifests(kept);
        self.save(&index)?;
        said.extend(self.collect()?);
        Ok((said, before.saturating_sub(self.room()?)))
    }

    /// The container that uses the image, also if it has ended.
    fn user_of(&self, id: &str) -> Result<Option<String>> {
        let containers = self.store.list()?;
        let user = containers.into_iter().find(|c| c.state.image_id.as_deref() == Some(id));
        Ok(user.map(|container| container.state.name.clone()))
    }

    /// The bytes of all layers.
    fn room(&self) -> Result<u64> {
        let sizes = self.entries("layers")?.into_iter().filter_map(|layer| {
            fs::read_to_string(layer.join("size")).ok()?.trim().parse::<u64>().ok()
        });
        Ok(sizes.sum())
    }

    /// Removes what no image needs; returns docker's lines about it. The store must be locked.
    pub(super) fn collect(&self) -> Result<Vec<String>> {
        let (mut blobs, mut layers) = (HashSet::new(), HashSet::new());
        for image in self.list()? {
            for descriptor in
                [&image.manifest, image.content.config()].into_iter().chain(image.content.layers())
            {
                blobs.insert(digest_of(descriptor)?.to_owned());
            }
            layers.extend(image.diff_ids()?.into_iter().map(str::to_owned));
        }
        let unused = |path: &PathBuf, used: &HashSet<String>| {
            path.file_name().is_none_or(|name| !used.contains(&*name.to_string_lossy()))
        };
        for path in self.entries("blobs/sha256")?.iter().filter(|path| unused(path, &blobs)) {
            fs::remove_file(path).with_context(|| format!("cannot remove {}", path.display()))?;
        }
        let mut said = Vec::new();
        for path in self.entries("layers")?.iter().filter(|path| unused(path, &layers)) {
            let digest = path.file_name().unwrap_or_default().display();
            // Half a layer must never be found under its digest.
            let aside = self.path.join(format!("gone.{digest}{UNFINISHED}"));
            fs::rename(path, &aside)
                .with_context(|| format!("cannot remove {}", path.display()))?;
            remove_tree(&aside)?;
            said.push(format!("Deleted: sha256:{digest}"));
        }
        Ok(said)
    }

    fn entries(&self, directory: &str) -> Result<Vec<PathBuf>> {
        let path = self.path.join(directory);
        let entries = fs::read_dir(&path).and_then(|entries| {
            entries.map(|entry| Ok(entry?.path())).collect::<std::io::Result<Vec<_>>>()
        });
        match entries {
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(Vec::new()),
            entries => entries.with_context(|| format!("cannot read {}", path.display())),
        }
    }

    fn unfinished(&self) -> Result<Vec<PathBuf>> {
        let mut found = self.entries("")?;
        found.retain(|path| path.to_string_lossy().ends_with(UNFINISHED));
        Ok(found)
    }

    /// Removes what somebody was making or removing who was killed: nobody holds it. The store must be
    /// locked.
    fn sweep(&self) -> Result<()> {
        let mut abandoned = self.unfinished()?;
        abandoned.retain(|path| !File::open(path).is_ok_and(|file| file.try_lock().is_err()));
        if abandoned.is_empty() {
            return Ok(());
        }
        // Who was killed between the files and the index has left files that are in no image. They go
        // first: what is unfinished is how the next one would know.
        self.collect()?;
        abandoned.iter().try_for_each(|path| remove_tree(path))
    }
}

/// Removes what somebody was making who was killed. The store must be locked.
pub fn sweep(store: &Store) -> Result<()> {
    Images { store, path: store.images() }.sweep()
}

impl Stored {
    /// The first 12 digits of the id, which docker shows.
    #[must_use]
    pub fn short_id(&self) -> &str {
        &self.id[..12]
    }

    /// The digests of its layers' archives, the lowest first.
    pub fn diff_ids(&self) -> Result<Vec<&str>> {
        diff_ids(&self.config)
    }
}

/// The digests of the layers' archives, not compressed, the lowest first: 64 hexadecimal digits each.
pub(super) fn diff_ids(config: &ImageConfiguration) -> Result<Vec<&str>> {
    let hex = |id: &'_ String| -> Result<_> {
        let hex = id.strip_prefix("sha256:").filter(|hex| is_digest(hex));
        hex.map(str::len).with_context(|| format!("{id:?} is no digest that is known here"))
    };
    config.rootfs().diff_ids().iter().map(|id| hex(id).map(|_| &id["sha256:".len()..])).collect()
}

/// The digest that a descriptor names: 64 hexadecimal digits.
pub(super) fn digest_of(descriptor: &Descriptor) -> Result<&str> {
    let digest = descriptor.as_digest_sha256();
    digest.with_context(|| format!("{} is no digest that is known here", descriptor.digest()))
}

fn name_of(manifest: &Descriptor) -> Option<Name> {
    manifest.annotations().as_ref()?.get(REF_NAME)?.parse().ok()
}

/// Puts an image into the index under a name, which another one may have had.
pub(super) fn put(index: &mut ImageIndex, manifest: &Descriptor, name: Option<&Name>) {
    let mut all = index.manifests().clone();
    for other in &mut all {
        if name.is_some() && name_of(other).as_ref() == name {
            *other = named(other, None);
        }
    }
    all.push(named(manifest, name));
    index.set_manifests(distinct(all));
}

fn named(manifest: &Descriptor, name: Option<&Name>) -> Descriptor {
    let mut manifest = manifest.clone();
    manifest
        .set_annotations(name.map(|name| HashMap::from([(REF_NAME.to_owned(), name.to_string())])));
    manifest
}

/// Each name once, and an image without a name only if it has no other entry.
fn distinct(all: Vec<Descriptor>) -> Vec<Descriptor> {
    let mut kept: Vec<Descriptor> = Vec::new();
    let (named, unnamed): (Vec<_>, Vec<_>) = all.into_iter().partition(|m| name_of(m).is_some());
    for entry in named {
        kept.retain(|other| name_of(other) != name_of(&entry));
        kept.push(entry);
    }
    for entry in unnamed {
        if kept.iter().all(|other| other.digest() != entry.digest()) {
            kept.push(entry);
        }
    }
    kept
}

/// Reads a JSON file that may come from anywhere.
pub(super) fn read_json<T: DeserializeOwned>(path: &Path) -> Result<T> {
    let read = || -> Result<T> {
        let mut text = Vec::new();
        File::open(path)?.take(MOST_JSON + 1).read_to_end(&mut text)?;
        ensure!(text.len() as u64 <= MOST_JSON, "it is larger than it may be");
        Ok(serde_json::from_slice(&text)?)
    };
    read().with_context(|| format!("cannot read {}", path.display()))
}
