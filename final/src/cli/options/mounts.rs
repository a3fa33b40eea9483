//! The options of `run` about files.

use std::fs;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use std::str::FromStr;

use anyhow::{Context as _, Error, Result, anyhow, bail, ensure};
use clap::Args;
use nix::sys::stat::{major, minor};
use step02_cgroups::parse_size;
use step03_rootfs::{Device, Mount, Volume, parse_inside};

/// What is mounted.
#[derive(Args, Debug, Clone)]
#[group(skip)]
pub struct MountArgs {
    /// Mount a file or directory of the host in the container (may be repeated)
    #[arg(long, short, value_name = "SRC:DST[:ro]", value_parser = Volume::parse)]
    pub volume: Vec<Volume>,

    /// The same, or a tmpfs: type=bind|tmpfs,source=PATH,target=PATH[,readonly] (may be repeated)
    #[arg(long, value_name = "KEY=VALUE,...", value_parser = parse_mount)]
    pub mount: Vec<Mount>,

    /// Mount an empty directory that is kept in memory (may be repeated)
    #[arg(long, value_name = "DIR[:OPTIONS]", value_parser = parse_tmpfs)]
    pub tmpfs: Vec<Mount>,

    /// Mount the root file system read-only
    #[arg(long)]
    pub read_only: bool,

    /// Most in /dev/shm, in bytes or with b, k, m, g behind it; without it, 64m
    #[arg(long, value_name = "SIZE", value_parser = parse_shm_size, allow_hyphen_values = true)]
    pub shm_size: Option<u64>,

    /// Let it use a device of the host (may be repeated)
    #[arg(long, value_name = "HOST[:CONTAINER]")]
    pub device: Vec<HostDevice>,

    /// IMAGE is a directory with a root file system, whatever its name
    #[arg(long)]
    pub rootfs: bool,
}

impl MountArgs {
    /// All that the user wants mounted: what is above comes first, and nothing twice.
    pub fn all(&self) -> Result<Vec<Mount>> {
        let volumes =
            self.volume.iter().map(|v| Mount::bind(&v.source, &v.destination, v.read_only));
        let mut all: Vec<_> = volumes.chain(self.mount.clone()).chain(self.tmpfs.clone()).collect();
        all.sort_by_key(|mount| mount.destination.components().count());
        for (index, mount) in all.iter().enumerate() {
            let same =
                |other: &Mount| other.destination.components().eq(mount.destination.components());
            let place = mount.destination.display();
            ensure!(!all[..index].iter().any(same), "two mounts are to be on {place}");
        }
        Ok(all)
    }
}

/// Reads `type=bind,source=PATH,target=PATH` and docker's other words for that.
fn parse_mount(text: &str) -> Result<Mount> {
    let (mut kind, mut source, mut target) = ("volume", None, None);
    let (mut read_only, mut recursive) = (false, true);
    let mut options = TMPFS.map(str::to_owned).to_vec();
    let mut of_tmpfs = false;
    for word in text.split(',') {
        let (key, value) = word.split_once('=').unwrap_or((word, "true"));
        match (key, value) {
            ("type", value) => kind = value,
            ("source" | "src", value) => source = Some(value),
            ("target" | "destination" | "dst", value) => target = Some(value),
            ("readonly" | "ro", "true" | "1") => read_only = true,
            ("readonly" | "ro", "false" | "0") | ("bind-propagation", "private" | "rprivate") => {}
            ("bind-nonrecursive", "true" | "1") | ("bind-recursive", "disabled") => {
                recursive = false;
            }
            ("bind-propagation", _) => bail!("{word}: {PRIVATE}"),
            ("tmpfs-size", size) => {
                options.push(format!("size={}", parse_size(size)?));
                of_tmpfs = true;
            }
            ("tmpfs-mode", mode) => {
                ensure!(u32::from_str_radix(mode, 8).is_ok(), "tmpfs-mode is an octal number");
                options.push(format!("mode={mode}"));
                of_tmpfs = true;
            }
            _ => bail!("{word:?} is not known here: type, source, target, readonly, tmpfs-size"),
        }
    }
    let target = target.context("it has no target=PATH")?;
    match kind {
        "bind" if !of_tmpfs => {
            let source = source.context("a bind mount has source=PATH")?;
            ensure!(source.starts_with('/'), "the source {source:?} must be an absolute path");
            let source = fs::canonicalize(source)
                .map_err(|error| anyhow!("cannot take {source:?} from the host: {error}"))?;
            let mut mount = Mount::bind(&source, &place(target)?, read_only);
            if !recursive {
                "bind".clone_into(&mut mount.options[0]);
            }
            Ok(mount)
        }
        "tmpfs" if source.is_none() => {
            options.extend(read_only.then(|| "ro".to_owned()));
            tmpfs(target, options)
        }
        "volume" => bail!("named volumes are not there: write type=bind, or type=tmpfs"),
        "bind" | "tmpfs" => bail!("a tmpfs has no source, and a bind mount no tmpfs-size or -mode"),
        other => bail!("no type {other:?}: it is bind or tmpfs"),
    }
}

/// docker's, and ours: no mount of a container has device nodes.
const TMPFS: [&str; 3] = ["nosuid", "nodev", "noexec"];
const PRIVATE: &str = "a container's mounts are private to it";

/// Reads `DIR[:OPTION,...]`, with the options of tmpfs(5).
fn parse_tmpfs(text: &str) -> Result<Mount> {
    let (directory, words) = text.split_once(':').unwrap_or((text, ""));
    let mut options = TMPFS.map(str::to_owned).to_vec();
    for word in words.split(',').filter(|word| !word.is_empty()) {
        let known = ["size", "nr_blocks", "nr_inodes", "mode", "uid", "gid"];
        match word {
            "exec" | "suid" => options.retain(|other| *other != format!("no{word}")),
            "dev" => bail!("dev: device nodes are not for a container to make; see --device"),
            "rw" | "noexec" | "nosuid" | "nodev" => {}
            "ro" => options.push(word.to_owned()),
            _ if word.split_once('=').is_some_and(|(key, _)| known.contains(&key)) => {
                options.push(word.to_owned());
            }
            _ => bail!("{word:?} is no option of a tmpfs: ro, exec, suid, {}=", known.join("=, ")),
        }
    }
    tmpfs(directory, options)
}

fn tmpfs(directory: &str, options: Vec<String>) -> Result<Mount> {
    place(directory)?;
    Ok(Mount { options, ..Mount::new("tmpfs", directory, "") })
}

fn place(path: &str) -> Result<PathBuf> {
    let path = parse_inside(path)?;
    ensure!(path.components().count() > 1, "nothing can be mounted on /");
    Ok(path)
}

fn parse_shm_size(text: &str) -> Result<u64> {
    let size = parse_size(text)?;
    ensure!(size > 0, "a size of 0 would be no limit");
    Ok(size)
}

/// A device of the host, as `--device` has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostDevice {
    /// On the host; absolute, without symbolic links.
    pub source: PathBuf,
    /// What it is to be in the container.
    pub device: Device,
}

impl FromStr for HostDevice {
    type Err = Error;

    /// Reads `HOST[:CONTAINER[:rwm]]`.
    fn from_str(text: &str) -> Result<Self> {
        let is_access = |word: &str| !word.is_empty() && word.chars().all(|c| "rwm".contains(c));
        let (host, destination, access) = match text.split(':').collect::<Vec<_>>()[..] {
            [host] => (host, host, "rwm"),
            [host, access] if is_access(access) => (host, host, access),
            [host, destination] => (host, destination, "rwm"),
            [host, destination, access] if is_access(access) => (host, destination, access),
            _ => bail!("a device is HOST[:CONTAINER[:rwm]]"),
        };
        // Without a device cgroup there is a node to be opened, or there is not.
        ensure!(
            access.contains('r') && access.contains('w'),
            "{access}: a device is for reading and writing here; to forbid one of them takes the devices \
             cgroup, which is not used: nodes that were not asked for cannot be opened in the first place"
        );
        let source = Path::new(host).canonicalize();
        let source = source.map_err(|error| anyhow!("no device {host:?}: {error}"))?;
        let found =
            fs::metadata(&source).map_err(|error| anyhow!("no device {host:?}: {error}"))?;
        let (kind, number) = (found.file_type(), found.rdev());
        ensure!(kind.is_block_device() || kind.is_char_device(), "{host:?} is not a device");
        let device = Device {
            destination: place(destination)?,
            block: kind.is_block_device(),
            major: major(number),
            minor: minor(number),
            mode: found.mode() & 0o777,
            uid: found.uid(),
            gid: found.gid(),
        };
        Ok(Self { source, device })
    }
}
