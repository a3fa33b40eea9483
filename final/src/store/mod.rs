//! What is on disk about each container: one directory, held by the lock of its monitor.
//!
//! The lock (flock(2) on the directory) is how everybody tells a living container from one whose
//! monitor was killed: the kernel drops it with the process, whatever that one died of.

mod container;
mod state;

use std::fs::{self, DirBuilder, File};
use std::io::{self, ErrorKind};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use nix::unistd::{User, geteuid};
use step01_namespaces::warn;

pub use container::Container;
pub use state::{Process, State, new_id, now, parse_name};

use crate::bundle::Bundle;
use crate::image;
use crate::monitor::message;

/// How long to wait before a container's lock is tried again.
pub const MOMENT: Duration = Duration::from_millis(10);

/// The directory of all containers.
#[derive(Debug)]
pub struct Store(PathBuf);

impl Store {
    /// Opens it, and makes it if it is not there.
    pub fn open() -> Result<Self> {
        let root = root()?;
        let path = root.join("containers");
        let make = || -> Result<()> {
            match make_or_check(&root) {
                Err(error) if is_missing(&error) => {
                    fs::create_dir_all(root.parent().context("it is no directory's name")?)?;
                    make_or_check(&root)?;
                }
                made => made?,
            }
            make_or_check(&path)
        };
        make().with_context(|| {
            format!(
                "cannot use {} for the state of containers (FINAL_ROOT can name another directory)",
                path.display()
            )
        })?;
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
        while !container.hold()? {
            sleep(MOMENT);
        }
        Ok(container)
    }

    /// Takes a container that is at rest, to run it.
    pub fn take(&self, id: &str) -> Result<Container> {
        let mut tries = 0;
        loop {
            let lock = self.lock()?; // of two who start it at once, one finds it running
            let mut container = self.find(id)?;
            ensure!(!container.is_alive()?, "the container {id} is already running");
            container.state.restarts = 0;
            if container.hold()? {
                container.keep = !container.state.rm;
                return Ok(container);
            }
            drop(lock); // a copy of its files may take long, and others have other containers
            tries += 1;
            if tries == 100 {
                let name = &container.state.name;
                warn(&format!("waiting until nobody copies files of {name} any more (final cp)"));
            }
            sleep(MOMENT);
        }
    }

    /// All containers, oldest first, without taking any.
    pub fn list(&self) -> Result<Vec<Container>> {
        let mut found = Vec::new();
        for path in self.directories()? {
            let state = State::load(&path)?;
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
            let Some(monitor) = container.state.monitor else { continue };
            if !monitor.is_there()? {
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
                message::remove(container.bundle())?;
                if container.state.started.is_some() {
                    container.keep = !container.state.rm;
                    // 137 is what a shell says of a process that SIGKILL ended.
                    container.finish(Ok(137))?;
                } else if !container.state.rm && Bundle::load(container.bundle()).is_ok() {
                    container.made()?; // it is whole, and has never run
                } else {
                    container.keep = false;
                }
            }
        }
        for path in self.abandoned()? {
            // Nobody makes it just now: we hold the lock.
            container::remove_tree(&path)?;
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

fn is_missing(error: &anyhow::Error) -> bool {
    error.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == ErrorKind::NotFound)
}

/// Where all of it is: `FINAL_ROOT`, or /var/lib/container-workshop as root, or in the user's own data
/// directory (XDG Base Directory Specification: a relative path is invalid and to be ignored).
pub fn root() -> Result<PathBuf> {
    let path = |name| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    if let Some(root) = path("FINAL_ROOT") {
        return Ok(root);
    }
    let name = "container-workshop";
    if geteuid().is_root() {
        return Ok(Path::new("/var/lib").join(name));
    }
    if let Some(data) = path("XDG_DATA_HOME") {
        return Ok(data.join(name));
    }
    let user = || User::from_uid(geteuid()).ok().flatten().map(|user| user.dir);
    let home = path("HOME").or_else(user).context(
        "cannot find a place for the state of containers: set HOME, XDG_DATA_HOME or FINAL_ROOT",
    )?;
    Ok(home.join(".local/share").join(name))
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
