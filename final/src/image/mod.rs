//! Images: what a container is made from.
//!
//! | file | what it holds |
//! |---|---|
//! | `host` | the image `host`, unpacked |
//! | `images` | what is on disk about all others, and their names |
//! | `draft` | an image in the making |
//! | `unpack` | a layer's tar archive -> a directory for overlayfs |
//! | `metadata` | what a file of it is beside its bytes |
//! | `stream` | bytes that are compressed, hashed, limited |
//! | `archive` | images in one file: `load` and `save` |
//! | `import` | an image of a root file system's archive |
//! | `pull`, `registry`, `auth` | images from a registry |
//! | `config` | how an image wants to be run |
//! | `name` | names, with docker's rules |
//! | `date` | RFC 3339, in which images are dated |

pub mod archive;
mod auth;
pub mod config;
pub mod date;
mod draft;
mod host;
mod images;
pub mod import;
mod metadata;
mod name;
pub mod pull;
mod registry;
mod stream;
mod trust;
mod unpack;

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};
use oci_spec::image::Config;
use step03_rootfs::Image;

pub use draft::{Complete, Draft};
use host::{host_rootfs, write_host};
pub use images::{Images, Stored, sweep};
pub(crate) use metadata::{Metadata, names, proc_path, set_attribute};
pub use name::{Name, Version};
pub(crate) use stream::{Limited, decompress};
pub use unpack::{MOST_BYTES, MOST_ENTRIES, Unpacked, unpack};
pub(crate) use unpack::{
    MOST_DEPTH, MOST_HEADER, inside, is_whiteout, kind_of, look, set_time, write_sparse,
};

use crate::store::Store;

/// What a container is to be made from.
#[derive(Debug)]
pub struct Base {
    /// As the user wrote it.
    pub name: String,
    /// What lies below the container's own files.
    pub image: Image,
    /// The image's id; `host` and directories have none.
    pub id: Option<String>,
    /// How the image wants to be run.
    pub config: Config,
}

impl Base {
    /// `host`, a directory, or an image that is there.
    pub fn find(store: &Store, text: &str) -> Result<Self> {
        if !Self::is_name(text) {
            return Self::plain(text, text);
        }
        let images = Images::open(store)?;
        let found = images.find(text)?.with_context(|| {
            let directory = if Path::new(text).is_dir() { format!("; for the directory: ./{text}") } else { String::new() };
            format!(
                "no such image: {text} (`host`, a directory, or what `final images` lists{directory})"
            )
        })?;
        Ok(Self {
            name: text.to_owned(),
            image: Image::Layers(images.trees(&found)?),
            id: Some(found.id),
            config: found.config.config().clone().unwrap_or_default(),
        })
    }

    /// Whether this is the name or the id of an image, and not `host` or a directory.
    #[must_use]
    pub fn is_name(text: &str) -> bool {
        text != "host" && !is_path(text)
    }

    /// A directory, whatever its name is like.
    pub fn directory(text: &str) -> Result<Self> {
        Self::plain(text, if text == "host" { "./host" } else { text })
    }

    fn plain(name: &str, text: &str) -> Result<Self> {
        let (image, config) = (Image::parse(text)?, Config::default());
        Ok(Self { name: name.to_owned(), image, id: None, config })
    }

    /// Where the bottom of `/` is, for config.json.
    pub fn root(&self, store: &Store) -> Result<PathBuf> {
        match &self.image {
            Image::Host => host_rootfs(store),
            Image::Directory(path) => Ok(path.clone()),
            Image::Layers(trees) => trees.last().cloned().context("the image has no layers"),
        }
    }

    /// Once the container is in the store, so that nobody removes its image any more: makes sure that
    /// all of it is there.
    pub fn provide(&self, store: &Store) -> Result<()> {
        match &self.image {
            Image::Host => write_host(store, &host_rootfs(store)?),
            Image::Directory(_) => Ok(()),
            Image::Layers(trees) => {
                let there = trees.iter().all(|tree| tree.exists());
                ensure!(there, "the image {} was removed meanwhile", self.name);
                Ok(())
            }
        }
    }
}

/// A directory is named with a slash in front, or as `.` or `..`: what has one further behind may be an image.
fn is_path(text: &str) -> bool {
    [".", ".."].contains(&text) || ["/", "./", "../"].iter().any(|start| text.starts_with(start))
}
