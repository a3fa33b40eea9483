//! The part of the command line that is about files.

use std::path::{Component, Path, PathBuf};

use anyhow::{Result, anyhow, bail, ensure};
use step01_namespaces::{Namespace, Namespaces};

use crate::{Image, MASKED_PATHS, Mount, READONLY_PATHS, Rootfs, default_mounts};

/// Which root file system, and what of the host's is put into it.
#[derive(clap::Args, Debug, Clone)]
#[group(skip)]
pub struct Args {
    /// The image: `host` (this system's /usr) or a directory with a root file system
    #[arg(long, value_name = "DIR|host", default_value = "host")]
    pub rootfs: String,

    /// Mount a file or directory of the host in the container (may be repeated)
    #[arg(long, short = 'v', value_name = "SRC:DST[:ro]", value_parser = Volume::parse)]
    pub volume: Vec<Volume>,

    /// The working directory in the container
    #[arg(long, short = 'w', value_name = "DIR", default_value = "/", value_parser = parse_inside)]
    pub workdir: PathBuf,
}

impl Args {
    /// Checks it all, and changes nothing.
    pub fn rootfs(&self, namespaces: Namespaces) -> Result<Rootfs> {
        ensure!(
            namespaces.contains(Namespace::Mnt),
            "cannot change the root of the host's own mount namespace; leave out --share mnt"
        );
        let image = Image::parse(&self.rootfs)?;
        let mut mounts = default_mounts(namespaces)?;
        mounts.extend(image.mounts()?);
        mounts.extend(
            self.volume.iter().map(|v| Mount::bind(&v.source, &v.destination, v.read_only)),
        );
        Ok(Rootfs {
            layers: image.layers()?,
            image,
            mounts,
            masked: MASKED_PATHS.map(PathBuf::from).to_vec(),
            keep: None,
            readonly: READONLY_PATHS.map(PathBuf::from).to_vec(),
            devices: Vec::new(),
            read_only: false,
            workdir: self.workdir.clone(),
        })
    }
}

/// A bind mount, as docker's `--volume` writes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Volume {
    /// On the host; absolute, without symbolic links.
    pub source: PathBuf,
    /// In the container; absolute.
    pub destination: PathBuf,
    /// Cannot be written from inside.
    pub read_only: bool,
}

impl Volume {
    /// Reads `SRC:DST[:ro|rw]`. Unlike docker we do not make a missing source: a mistyped path
    /// would otherwise be an empty directory, owned by root, on the host.
    pub fn parse(text: &str) -> Result<Self> {
        let (source, destination, mode) = match text.split(':').collect::<Vec<_>>()[..] {
            [source, destination] => (source, destination, "rw"),
            [source, destination, mode] => (source, destination, mode),
            _ => bail!("a volume is SRC:DST or SRC:DST:ro"),
        };
        let mut read_only = false;
        for option in mode.split(',') {
            match option {
                "ro" => read_only = true,
                // Ours are private in any case.
                "rw" | "private" | "rprivate" => {}
                "z" | "Z" => bail!("{option}: containers here have no SELinux labels"),
                "shared" | "rshared" | "slave" | "rslave" => {
                    bail!("{option}: a container's mounts are private to it")
                }
                other => bail!("unknown mode {other:?}: it is ro or rw"),
            }
        }
        ensure!(
            source.contains('/') || source == ".",
            "{source:?} is a name, and named volumes are not there yet: give a path"
        );
        let source = std::fs::canonicalize(source)
            // In one piece: clap shows the outermost text only.
            .map_err(|error| anyhow!("cannot take {source:?} from the host: {error}"))?;
        let destination = parse_inside(destination)?;
        ensure!(destination != Path::new("/"), "a volume cannot be mounted on /");
        Ok(Self { source, destination, read_only })
    }
}

/// Reads a path inside the container: absolute, and with no `..` that would make it mean another.
pub fn parse_inside(path: &str) -> Result<PathBuf> {
    ensure!(path.starts_with('/'), "{path:?} must be an absolute path in the container");
    ensure!(
        !Path::new(path).components().any(|part| part == Component::ParentDir),
        "{path:?} must not contain .."
    );
    Ok(path.into())
}
