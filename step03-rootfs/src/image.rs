//! Images: in essence, a rootfs.

use std::fs::{self, DirBuilder};
use std::io::ErrorKind;
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};

use crate::{Mount, Root};

/// Where a container's root file system comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Image {
    /// The host's own /usr with a fresh, small system around it: nothing to download.
    Host,
    /// A directory that holds a root file system.
    Directory(PathBuf),
    /// Several, each with what it has in addition to those behind it: the topmost first.
    Layers(Vec<PathBuf>),
}

/// A directory that overlayfs lays below a writable one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layer {
    /// The read-only directory on the host.
    pub lower: PathBuf,
    /// Where the two together appear in the container.
    pub destination: PathBuf,
}

/// What is in /usr today and was beside it before; a link on most systems (usrmerge).
const BESIDE_USR: [&str; 6] = ["bin", "sbin", "lib", "lib32", "lib64", "libx32"];

/// Links and an index of /usr that distributions keep in /etc: without them `awk` or the
/// libraries in /usr/local are not found. Nothing else of the host's /etc is shown.
const USR_IN_ETC: [&str; 2] = ["/etc/alternatives", "/etc/ld.so.cache"];

impl Image {
    /// Reads `host` or a directory, which must exist.
    pub fn parse(text: &str) -> Result<Self> {
        if text == "host" {
            ensure!(
                Path::new("/usr/bin").try_exists().context("cannot look for /usr/bin")?,
                "the image host needs programs in /usr/bin, and this system keeps them elsewhere; \
                 name a directory that holds a root file system"
            );
            return Ok(Self::Host);
        }
        let path = fs::canonicalize(text).with_context(|| {
            format!("no such image: {text} (images here are `host` or a directory)")
        })?;
        ensure!(path.is_dir(), "no such image: {text} is not a directory");
        Ok(Self::Directory(path))
    }

    /// The directories at the bottom of `/`, the topmost first; none for a skeleton that is still to
    /// be written.
    pub(crate) fn open(&self) -> Result<Vec<Root>> {
        match self {
            Self::Host => Ok(Vec::new()),
            Self::Directory(path) => Root::open(path).map(|root| vec![root]),
            Self::Layers(paths) => paths.iter().map(|path| Root::open(path)).collect(),
        }
    }

    /// The layers above the root: for `host` the directories of the host that hold programs.
    pub fn layers(&self) -> Result<Vec<Layer>> {
        let mut layers = Vec::new();
        if *self == Self::Host {
            for name in ["usr"].into_iter().chain(BESIDE_USR) {
                let path = Path::new("/").join(name);
                if is_directory_itself(&path)? {
                    layers.push(Layer { lower: path.clone(), destination: path });
                }
            }
        }
        Ok(layers)
    }

    /// The mounts that the image needs beside the layers.
    pub fn mounts(&self) -> Result<Vec<Mount>> {
        let mut mounts = Vec::new();
        if *self == Self::Host {
            for path in USR_IN_ETC.map(Path::new) {
                let failed = || format!("cannot look at {}", path.display());
                if path.try_exists().with_context(failed)? {
                    mounts.push(Mount::bind(path, path, true));
                }
            }
        }
        Ok(mounts)
    }
}

/// Whether the host has a directory at `path`, and not a symbolic link to one.
fn is_directory_itself(path: &Path) -> Result<bool> {
    match fs::symlink_metadata(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error).with_context(|| format!("cannot look at {}", path.display())),
        Ok(found) => Ok(found.is_dir()),
    }
}

/// Writes what the image `host` has around /usr into the empty directory `root`.
pub fn write_skeleton(root: &Path) -> Result<()> {
    let write = || -> std::io::Result<()> {
        for (name, mode) in [
            ("dev", 0o755),
            ("etc", 0o755),
            ("home", 0o755),
            ("mnt", 0o755),
            ("opt", 0o755),
            ("proc", 0o555),
            ("root", 0o700),
            ("run", 0o755),
            ("srv", 0o755),
            ("sys", 0o555),
            ("tmp", 0o777),
            ("usr", 0o755),
            ("var", 0o755),
            ("var/tmp", 0o777),
        ] {
            DirBuilder::new().mode(mode).create(root.join(name))?;
        }
        // mkdir(2) takes no sticky bit: in /tmp nobody removes what is another's.
        for name in ["tmp", "var/tmp"] {
            fs::set_permissions(root.join(name), fs::Permissions::from_mode(0o1777))?;
        }
        symlink("/run", root.join("var/run"))?;
        for name in BESIDE_USR {
            match fs::read_link(Path::new("/").join(name)) {
                Ok(target) => symlink(target, root.join(name))?,
                // It is a directory, or not there.
                Err(e) if [ErrorKind::InvalidInput, ErrorKind::NotFound].contains(&e.kind()) => {}
                Err(error) => return Err(error),
            }
        }
        let etc = root.join("etc");
        fs::write(
            etc.join("passwd"),
            "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/usr/sbin/nologin\n",
        )?;
        fs::write(etc.join("group"), "root:x:0:\ntty:x:5:\nnogroup:x:65534:\n")?;
        fs::write(etc.join("nsswitch.conf"), "passwd: files\ngroup: files\nhosts: files dns\n")?;
        fs::write(etc.join("hosts"), "127.0.0.1 localhost\n::1 localhost\n")?;
        symlink("/proc/mounts", etc.join("mtab"))
    };
    write().with_context(|| format!("cannot write the image host's files to {}", root.display()))
}
