//! What is on disk about each container: one directory, held by the lock of its runtime.
//!
//! The lock (flock(2) on the directory) is how everybody tells a living container from one whose
//! runtime was killed: the kernel drops it with the process, whatever that one died of.

mod container;
mod state;

use std::fs::{self, DirBuilder, File};
use std::io::{self, ErrorKind};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail, ensure};
use nix::unistd::geteuid;
use step01_namespaces::warn;

pub use container::Container;
pub use state::{Process, State, new_id, parse_name};

use crate::image;

/// The directory of all containers.
#[derive(Debug)]
pub struct Store(PathBuf);

impl Store {
    /// Opens it: below /run as root, in the user's own run directory otherwise.
    pub fn open() -> Result<Self> {
        let base = if geteuid().is_root() {
            PathBuf::from("/run")
        } else {
            // A relative path is invalid and to be ignored (XDG Base Directory Specification).
            let given = std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from);
            let fallback = || format!("/tmp/container-workshop-{}", geteuid()).into();
            given.filter(|path| path.is_absolute()).unwrap_or_else(fallback)
        };
        let ours = base.join("container-workshop");
        let path = ours.join("containers");
        for directory in [&base, &ours, &path] {
            make_or_check(directory).with_context(|| {
                let fix =
                    if geteuid().is_root() { "" } else { " (XDG_RUNTIME_DIR can name another)" };
                format!("cannot use {} for the state of containers{fix}", directory.display())
            })?;
        }
        Ok(Self(path))
    }

    /// Where the bundle of container `id` will be.
    #[must_use]
    pub fn bundle_of(&self, id: &str) -> PathBuf {
        self.0.join(id)
    }

    /// Where unpacked images are: beside the containers.
    #[must_use]
    pub fn images(&self) -> PathBuf {
        self.0.with_file_name("images")
    }

    /// Makes a container's directory. What it returns removes it again, unless told to keep it.
    pub fn create(&self, state: State) -> Result<Container> {
        let _lock = self.lock()?;
        if let Some(other) = self.list()?.into_iter().find(|c| c.state.name == state.name) {
            bail!(
                "the name {:?} is in use by container {}; remove it first (final rm {}) or choose \
                 another",
                state.name,
                other.state.short_id(),
                other.state.name
            );
        }
        let path = self.bundle_of(&state.id);
        DirBuilder::new()
            .mode(0o700)
            .create(&path)
            .with_context(|| format!("cannot make {}", path.display()))?;
        let mut container = Container { path, state, lock: None, keep: false };
        let failed = || format!("cannot lock {}", container.path.display());
        let lock = File::open(&container.path).with_context(failed)?;
        lock.lock().with_context(failed)?; // free, but for those who just look (is_held)
        container.lock = Some(lock);
        container.save()?;
        Ok(container)
    }

    /// All containers, oldest first, without taking any.
    pub fn list(&self) -> Result<Vec<Container>> {
        let mut found = Vec::new();
        for path in self.directories()? {
            let state = State::load(&path).with_context(|| {
                format!(
                    "cannot use {}/state.json; if no container needs it, remove that directory",
                    path.display()
                )
            })?;
            // One that is just being made or removed has no state.json: it is not there yet, or
            // no longer. What a killed runtime left of it is swept.
            if let Some(state) = state {
                found.push(Container { path, state, lock: None, keep: true });
            }
        }
        found.sort_by(|a, b| (a.state.created, &a.state.id).cmp(&(b.state.created, &b.state.id)));
        Ok(found)
    }

    /// The container with this name, or id, or with an id that begins so.
    pub fn find(&self, text: &str) -> Result<Container> {
        let mut all = self.list()?;
        if let Some(exact) = all.iter().position(|c| c.state.name == text || c.state.id == text) {
            return Ok(all.swap_remove(exact));
        }
        all.retain(|container| !text.is_empty() && container.state.id.starts_with(text));
        match all.len() {
            0 => bail!("no such container: {text}"),
            1 => Ok(all.remove(0)),
            n => bail!("{n} containers have an id that begins with {text}: give more of it"),
        }
    }

    /// Whether a runtime was killed, and nobody has cleaned up yet.
    pub fn has_stale(&self) -> Result<bool> {
        for container in self.list()? {
            if container.is_stale()? {
                return Ok(true);
            }
        }
        Ok(!self.abandoned()?.is_empty())
    }

    /// Waits until nothing is left of runtimes that were killed while they made a container: up to the
    /// exec their child has a copy of all their locks, and it lives on for some milliseconds.
    pub fn wait_for_orphans(&self) -> Result<()> {
        for container in self.list()? {
            if container.state.exited.is_none() && !container.state.runtime.is_there()? {
                match File::open(&container.path) {
                    Err(error) if error.kind() == ErrorKind::NotFound => {}
                    file => file.and_then(|file| file.lock()).with_context(|| {
                        format!("cannot wait for the end of {}", container.state.name)
                    })?,
                }
            }
        }
        Ok(())
    }

    /// Settles what killed runtimes left here: their containers died with them.
    pub fn sweep(&self) -> Result<()> {
        let _lock = self.lock()?;
        image::sweep(self)?;
        for mut container in self.list()? {
            if container.is_stale()? {
                container.end_orphan()?;
                // 137 is what a shell says of a process that SIGKILL ended.
                container.finish(137).unwrap_or_else(|error| warn(&format!("{error:#}")));
            }
        }
        for path in self.abandoned()? {
            // Nobody makes it just now: we hold the lock.
            fs::remove_dir_all(&path)
                .with_context(|| format!("cannot clean up {}", path.display()))?;
        }
        Ok(())
    }

    /// The directories of runtimes that were killed while they made or removed them.
    fn abandoned(&self) -> Result<Vec<PathBuf>> {
        let mut found = Vec::new();
        for path in self.directories()? {
            let has_state = path.join("state.json").try_exists();
            if !has_state.with_context(|| format!("cannot look at {}", path.display()))?
                && !Container::is_held(&path)?
            {
                found.push(path);
            }
        }
        Ok(found)
    }

    /// What is something else, a file or a link, is nobody's.
    fn directories(&self) -> Result<Vec<PathBuf>> {
        let read = || -> io::Result<Vec<PathBuf>> {
            let mut found = Vec::new();
            for entry in fs::read_dir(&self.0)? {
                let entry = entry?;
                if entry.file_type()?.is_dir() {
                    found.push(entry.path());
                }
            }
            Ok(found)
        };
        read().with_context(|| format!("cannot read {}", self.0.display()))
    }

    /// Locks it: nobody else makes a container or an image, or sweeps.
    pub fn lock(&self) -> Result<File> {
        let lock = || File::open(&self.0).and_then(|lock| lock.lock().map(|()| lock));
        lock().with_context(|| format!("cannot lock {}", self.0.display()))
    }
}

/// A directory for us alone: in /tmp another user could have been there first.
fn make_or_check(path: &Path) -> Result<()> {
    match DirBuilder::new().mode(0o700).create(path) {
        Err(error) if error.kind() != ErrorKind::AlreadyExists => return Err(error.into()),
        _ => {}
    }
    let found = fs::symlink_metadata(path)?;
    ensure!(found.is_dir(), "it is not a directory");
    ensure!(found.uid() == geteuid().as_raw(), "it belongs to user {}, not to us", found.uid());
    Ok(())
}
