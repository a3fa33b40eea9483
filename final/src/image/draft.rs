//! An image in the making: in a directory of its own, until all of it is there and verified.
//!
//! The directory is locked by who makes it. The kernel drops that lock with the process, and then
//! anybody may remove what is left.

use std::fs::{self, DirBuilder, File, Permissions};
use std::io::{ErrorKind, Read, copy, sink};
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};
use colored::Colorize as _;
use nix::unistd::syncfs;
use oci_spec::image::{
    Descriptor, ImageConfiguration, ImageManifest, ImageManifestBuilder, MediaType, Sha256Digest,
};
use serde::Serialize;
use step01_namespaces::{say, warn};

use super::host::UNFINISHED;
use super::images::{Images, diff_ids, digest_of, put, read_json};
use super::name::Name;
use super::stream::{Hashing, decompress};
use super::unpack::{Unpacked, unpack};
use crate::store::new_id;

/// What one command adds to the images. Dropping it removes what was not committed.
pub struct Draft<'i> {
    images: &'i Images<'i>,
    path: PathBuf,
    lock: File,
    /// What could not be kept of all layers' files.
    lost: Unpacked,
}

/// An image that is whole and verified, but not in the index yet.
pub struct Complete {
    /// Its manifest.
    pub manifest: Descriptor,
    /// The digest of its configuration.
    pub id: String,
    content: ImageManifest,
    layers: Vec<String>,
}

impl<'i> Draft<'i> {
    /// Begins with nothing.
    pub fn new(images: &'i Images<'i>) -> Result<Self> {
        let path = images.path().join(format!("make.{}{UNFINISHED}", &new_id()?[..12]));
        let make = || -> Result<File> {
            let _store = images.store.lock()?; // or it would be swept before we hold it
            for name in ["blobs", "layers"] {
                DirBuilder::new().recursive(true).mode(0o700).create(path.join(name))?;
            }
            let lock = File::open(&path)?;
            lock.lock()?;
            Ok(lock)
        };
        let lock = make().with_context(|| format!("cannot make {}", path.display()));
        let lock = lock.inspect_err(|_| drop(remove_tree(&path)))?;
        Ok(Self { images, path, lock, lost: Unpacked::default() })
    }

    fn new_blob(&self, digest: &str) -> PathBuf {
        self.path.join("blobs").join(digest)
    }

    /// Where the blob with this digest is: here, or with the images.
    #[must_use]
    pub fn blob(&self, digest: &str) -> PathBuf {
        let new = self.new_blob(digest);
        if new.exists() { new } else { self.images.blob(digest) }
    }

    /// Writes a blob; returns its digest and its size.
    pub fn write(&self, from: &mut (impl Read + ?Sized)) -> Result<(String, u64)> {
        let path = self.new_blob("unnamed");
        let mut write = || -> Result<_> {
            let mut to = Hashing::new(File::create(&path)?);
            copy(from, &mut to)?;
            let bytes = to.bytes;
            let digest = to.finish().1;
            fs::rename(&path, self.new_blob(&digest))?;
            Ok((digest, bytes))
        };
        write().with_context(|| format!("cannot write to {}", path.display()))
    }

    /// Writes a document; returns where it is.
    pub fn document(&self, kind: MediaType, document: &impl Serialize) -> Result<Descriptor> {
        let text = serde_json::to_vec(document)?;
        let (digest, size) = self.write(&mut text.as_slice())?;
        descriptor(kind, &digest, size)
    }

    /// Opens what may be compressed, decompressed.
    fn open(&self, digest: &str) -> Result<Box<dyn Read>> {
        let path = self.blob(digest);
        let file = File::open(&path).with_context(|| format!("cannot read {}", path.display()))?;
        Ok(decompress(file)?.1)
    }

    /// Unpacks the layer in this blob, and returns the digest of its archive.
    pub fn unpack(&mut self, blob: &str) -> Result<String> {
        let path = self.path.join("layers/unnamed");
        remove_tree(&path)?;
        let tree = path.join("tree");
        for directory in [&path, &tree] {
            fs::create_dir(directory)
                .with_context(|| format!("cannot make {}", directory.display()))?;
        }
        fs::set_permissions(&tree, Permissions::from_mode(0o755))?;
        let unpacked = unpack(self.open(blob)?, &tree)?;
        fs::write(path.join("size"), unpacked.bytes.to_string())
            .and_then(|()| fs::rename(&path, self.path.join("layers").join(&unpacked.diff_id)))
            .with_context(|| format!("cannot finish {}", path.display()))?;
        self.lost.foreign += unpacked.foreign;
        self.lost.left_out += unpacked.left_out;
        Ok(unpacked.diff_id)
    }

    /// Makes an image of blobs that are there: its configuration, and its layers, the lowest first.
    pub fn build(&mut self, config: &str, layers: &[String]) -> Result<Complete> {
        let mut descriptors = Vec::new();
        for layer in layers {
            let path = self.blob(layer);
            let file = File::open(&path).with_context(|| format!("there is no layer {layer}"))?;
            let size = file.metadata()?.len();
            descriptors.push(descriptor(decompress(file)?.0.layer_type(), layer, size)?);
        }
        let size = fs::metadata(self.blob(config)).context("there is no configuration")?.len();
        let manifest = ImageManifestBuilder::default()
            .schema_version(2_u32)
            .media_type(MediaType::ImageManifest)
            .config(descriptor(MediaType::ImageConfig, config, size)?)
            .layers(descriptors)
            .build()?;
        let manifest = self.document(MediaType::ImageManifest, &manifest)?;
        self.complete(manifest)
    }

    /// Unpacks what is not there yet of the image with this manifest, and verifies all of it.
    pub fn complete(&mut self, manifest: Descriptor) -> Result<Complete> {
        let content: ImageManifest = read_json(&self.blob(digest_of(&manifest)?))?;
        let id = digest_of(content.config())?.to_owned();
        let config: ImageConfiguration = read_json(&self.blob(&id))?;
        let layers: Vec<_> = diff_ids(&config)?.into_iter().map(str::to_owned).collect();
        ensure!(
            layers.len() == content.layers().len(),
            "its configuration is for {} layers, and it has {}",
            layers.len(),
            content.layers().len()
        );
        for (diff_id, layer) in layers.iter().zip(content.layers()) {
            self.layer(diff_id, digest_of(layer)?)
                .with_context(|| format!("cannot take the layer {}", layer.digest()))?;
        }
        Ok(Complete { manifest, id, content, layers })
    }

    fn layer(&mut self, diff_id: &str, blob: &str) -> Result<()> {
        let there =
            self.images.layer(diff_id).exists() || self.path.join("layers").join(diff_id).exists();
        if there && !self.new_blob(blob).exists() {
            return Ok(()); // they came together
        }
        let found = if there {
            let mut archive = Hashing::new(self.open(blob)?);
            copy(&mut archive, &mut sink())?;
            archive.finish().1
        } else {
            self.unpack(blob)?
        };
        ensure!(found == diff_id, "its digest is not sha256:{diff_id}, but sha256:{found}");
        Ok(())
    }

    /// Puts images where all see them, each with these names.
    pub fn commit(mut self, complete: &[(Complete, Vec<Name>)]) -> Result<()> {
        self.lost.report();
        // What the index names must be on the disk, also after a power cut.
        syncfs(&self.lock).context("cannot write it all to the disk")?;
        let _store = self.images.store.lock()?;
        self.publish(complete).inspect_err(|_| {
            // What is there by now is in no image. The first error is the one that matters.
            let _ = self.images.collect();
        })
    }

    fn publish(&self, complete: &[(Complete, Vec<Name>)]) -> Result<()> {
        let mut index = self.images.index()?;
        for (image, names) in complete {
            let descriptors = [&image.manifest, image.content.config()].into_iter();
            for descriptor in descriptors.chain(image.content.layers()) {
                let digest = digest_of(descriptor)?;
                take(&self.new_blob(digest), &self.images.blob(digest))?;
            }
            for layer in &image.layers {
                take(&self.path.join("layers").join(layer), &self.images.layer(layer))?;
            }
            // The same image may have come in another form, and have a name.
            if names.is_empty() && !self.images.list()?.iter().any(|other| other.id == image.id) {
                put(&mut index, &image.manifest, None);
            }
            for name in names {
                put(&mut index, &image.manifest, Some(name));
            }
        }
        self.images.save(&index)
    }
}

impl Drop for Draft<'_> {
    fn drop(&mut self) {
        remove_tree(&self.path).unwrap_or_else(|error| warn(&format!("{error:#}")));
    }
}

impl Unpacked {
    /// Says what the layers' files are not, because of who we are.
    fn report(&mut self) {
        if self.foreign > 0 {
            say(
                "note:".yellow(),
                &format!(
                    "{} files of the image belong to others than root there, and to you here: without \
                     root a user has one id to give",
                    self.foreign
                ),
            );
        }
        if self.left_out > 0 {
            say(
                "note:".yellow(),
                &format!(
                    "{} device nodes, file capabilities or attributes of the image were left out: they \
                     take root, or a file system that has them",
                    self.left_out
                ),
            );
        }
    }
}

/// Where a blob is, for a manifest or an index.
pub(super) fn descriptor(kind: MediaType, digest: &str, size: u64) -> Result<Descriptor> {
    Ok(Descriptor::new(kind, size, digest.parse::<Sha256Digest>()?))
}

/// Moves a blob or a layer to the images, if it is not there yet.
fn take(new: &Path, place: &Path) -> Result<()> {
    if place.exists() {
        return Ok(());
    }
    match fs::rename(new, place) {
        Err(error) if error.kind() == ErrorKind::NotFound => Err(error)
            .with_context(|| format!("{} was removed meanwhile: try again", place.display())),
        result => result.with_context(|| format!("cannot make {}", place.display())),
    }
}

/// Removes a file or a directory with all that is in it, however deep that is and whatever its modes are: a
/// layer may have been made to be hard to remove. Directories are moved up until nothing is below them.
pub(super) fn remove_tree(path: &Path) -> Result<()> {
    let remove = || -> std::io::Result<()> {
        if !fs::symlink_metadata(path)?.is_dir() {
            return fs::remove_file(path);
        }
        let mut number = 0_u64;
        let mut waiting = vec![path.to_owned()];
        while let Some(directory) = waiting.pop() {
            fs::set_permissions(&directory, Permissions::from_mode(0o700))?;
            for entry in fs::read_dir(&directory)? {
                let entry = entry?;
                if !entry.file_type()?.is_dir() {
                    fs::remove_file(entry.path())?;
                    continue;
                }
                if directory == path {
                    waiting.push(entry.path());
                    continue;
                }
                // To get a new parent a directory has to be writable.
                fs::set_permissions(entry.path(), Permissions::from_mode(0o700))?;
                let up = path.join(format!(".{number}.up"));
                number += 1;
                fs::rename(entry.path(), &up)?;
                waiting.push(up);
            }
            if directory != path {
                fs::remove_dir(&directory)?;
            }
        }
        fs::remove_dir(path)
    };
    match remove() {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        result => result.with_context(|| format!("cannot remove {}", path.display())),
    }
}
