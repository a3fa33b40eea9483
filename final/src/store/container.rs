//! One container's directory, held by the lock of its monitor.

use std::fs::{self, File, TryLockError};
use std::io::ErrorKind;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::thread::sleep;

use anyhow::{Context as _, Result, ensure};
use nix::errno::Errno;
use nix::sys::statfs::{FsType, statfs};
use nix::unistd::{Pid, geteuid};
use step01_namespaces::{Failure, Namespace, pidfd_open, warn};
use step02_cgroups::Cgroup;

use super::state::{Process, State, is_absent, now};
use super::{MOMENT, Store};
use crate::image::set_attribute;
use crate::monitor::Connection;
use crate::process::{end, in_child};
use crate::user::is_rootless;

/// File systems that cannot be an overlay's upper layer: they have no attributes that it could use, or
/// are overlays or somebody else's disk themselves (overlayfs.rst; the numbers: statfs(2)).
const NO_UPPER: [(libc::c_long, &str); 6] = [
    (0x794c_7630, "overlayfs"),
    (0x6969, "nfs"),
    (0x0102_1997, "9p"),
    (0x6573_5546, "fuse"),
    (0xff53_4d42, "cifs"),
    (0x4d44, "vfat"),
];

/// A container's directory. Dropping it removes it, unless it is to be kept.
#[derive(Debug)]
pub struct Container {
    pub(super) path: PathBuf,
    /// What is known about it.
    pub state: State,
    /// Held by who makes or runs the container, and by nobody who only looks.
    pub(super) lock: Option<File>,
    pub(super) keep: bool,
}

impl Container {
    /// The bundle: the directory with config.json.
    #[must_use]
    pub fn bundle(&self) -> &Path {
        &self.path
    }

    /// Where it is kept.
    #[must_use]
    pub fn store(&self) -> Store {
        Store(self.path.parent().unwrap_or(Path::new("/")).to_owned())
    }

    /// Locks its directory, if it is at rest: nobody starts or removes it then. None, if somebody else
    /// has it: its monitor, who copies files (`cp`), or for a moment who looks (is_held).
    pub fn lock_at_rest(&self) -> Result<Option<File>> {
        let failed = || format!("cannot lock {}", self.path.display());
        let lock = File::open(&self.path).with_context(failed)?;
        match lock.try_lock() {
            Ok(()) => Ok(Some(lock)),
            Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(error)) => Err(error).with_context(failed),
        }
    }

    /// Makes this process the one that makes or runs it; false if somebody else has it locked.
    pub(super) fn hold(&mut self) -> Result<bool> {
        let Some(lock) = self.lock_at_rest()? else { return Ok(false) };
        self.lock = Some(lock);
        self.state.monitor = Some(Process::of(Pid::this())?);
        self.save().map(|()| true)
    }

    /// Whether its monitor is there: then it runs, or is just about to start or to end. Who cannot
    /// look must not take it for dead: the sweep would end it.
    // ANCHOR: alive
    pub fn is_alive(&self) -> Result<bool> {
        let Some(monitor) = self.state.monitor else { return Ok(false) };
        Ok(monitor.is_there()? && Self::is_held(&self.path)?)
    }

    /// Whether a monitor holds the directory.
    pub(super) fn is_held(path: &Path) -> Result<bool> {
        // Shared: two who look at the same time do not take each other for a monitor.
        match File::open(path).map(|file| file.try_lock_shared()) {
            Ok(Err(TryLockError::WouldBlock)) => Ok(true),
            Ok(Ok(())) => Ok(false),
            Err(error) if is_absent(&error) => Ok(false),
            Err(error) | Ok(Err(TryLockError::Error(error))) => {
                Err(error).with_context(|| format!("cannot look at {}", path.display()))
            }
        }
    }
    // ANCHOR_END: alive

    /// Whether its monitor was killed, and nobody has cleaned up yet.
    pub fn is_stale(&self) -> Result<bool> {
        let Some(state) = self.reload()? else { return Ok(false) };
        let is_there = state.monitor.map_or(Ok(true), Process::is_there)?;
        Ok(state.monitor.is_some() && !(is_there && Self::is_held(&self.path)?))
    }

    /// Its first process, held by a pidfd, so that it cannot become another.
    pub fn first_process(&self) -> Result<(Pid, OwnedFd)> {
        let process = if self.is_alive()? { self.process()? } else { None };
        process.with_context(|| format!("the container {} is not running", self.state.name))
    }

    /// The cgroup of its first process.
    pub fn cgroup(&self) -> Result<Cgroup> {
        let (first, _pidfd) = self.first_process()?;
        Cgroup::of_container(self.state.short_id(), first)
    }

    /// Whether all its processes stand still; that the kernel knows, and nobody else.
    pub fn is_paused(&self) -> Result<bool> {
        match self.state.process {
            Some(_) => self.cgroup()?.is_frozen(),
            None => Ok(false),
        }
    }

    fn process(&self) -> Result<Option<(Pid, OwnedFd)>> {
        let Some(process) = self.state.process else { return Ok(None) };
        if process.pid <= 0 {
            return Ok(None); // the file was changed by hand, or by an accident
        }
        let pid = Pid::from_raw(process.pid);
        let pidfd = match pidfd_open(pid) {
            Err(Errno::ESRCH) => return Ok(None),
            pidfd => pidfd.with_context(|| format!("cannot get hold of process {pid}"))?,
        };
        // The number could have been given away between our reading it and the pidfd; the start
        // time tells.
        Ok(process.is_there()?.then_some((pid, pidfd)))
    }

    /// Ends the first process, and so all of them, after a monitor that was killed. The kernel has
    /// done so already (PR_SET_PDEATHSIG), unless the process has changed its user, which makes the
    /// kernel forget it (prctl(2)).
    pub(super) fn end_orphan(&self) -> Result<()> {
        let Some((_, pidfd)) = self.process()? else { return Ok(()) };
        end(&pidfd).with_context(|| format!("cannot end {}", self.state.name))
    }

    /// Waits until its monitor has ended.
    pub fn wait_until_ended(&self) -> Result<()> {
        match File::open(&self.path) {
            Ok(file) => Ok(file.lock_shared()?),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(()), // --rm was faster
            Err(error) => Err(error.into()),
        }
    }

    /// A connection to its monitor; an error if it does not run.
    pub fn connect(&self) -> Result<Connection> {
        let connection = if self.is_alive()? { Connection::to(&self.path)? } else { None };
        connection.with_context(|| format!("the container {} is not running", self.state.name))
    }

    /// Reads again what has become of it; `None` if it is gone.
    pub fn reload(&self) -> Result<Option<State>> {
        State::load(&self.path)
    }

    /// Removes it, when nobody copies its files any more; an error if it has been started meanwhile.
    pub fn remove(mut self) -> Result<()> {
        while let Some(state) = self.reload()? {
            self.state = state;
            ensure!(!self.is_alive()?, "the container {} is running", self.state.name);
            // Who would start it now has to wait for this lock, and then finds nothing.
            if let Some(_lock) = self.lock_at_rest()? {
                return remove_tree(&self.path);
            }
            sleep(MOMENT);
        }
        Ok(()) // --rm was faster
    }

    /// The directory that keeps what it writes, for its next start. None, if that would be on a file
    /// system on which overlayfs cannot write: then it is lost when it ends.
    pub fn layer(&self) -> Result<Option<PathBuf>> {
        let failed = || format!("cannot look at {}", self.path.display());
        let kind = statfs(&self.path).with_context(failed)?.filesystem_type();
        if let Some((_, name)) = NO_UPPER.iter().find(|(number, _)| FsType(*number) == kind) {
            if !self.state.rm {
                warn(&format!(
                    "what the container writes is lost when it ends: {} is on {name}, on which \
                     overlayfs cannot write (FINAL_ROOT can name another directory)",
                    self.path.display()
                ));
            }
            return Ok(None);
        }
        let layer = self.path.join("layer");
        match fs::create_dir(&layer) {
            Err(error) if error.kind() != ErrorKind::AlreadyExists => {
                return Err(error).with_context(|| format!("cannot make {}", layer.display()));
            }
            _ => {}
        }
        if is_rootless()? && !takes_attributes(&layer)? {
            warn(&format!(
                "the container cannot remove directories of its image: {} is on a file system without \
                 attributes of `user`, as tmpfs before Linux 6.6 (FINAL_ROOT can name another directory)",
                layer.display()
            ));
        }
        Ok(Some(layer))
    }

    /// It is made, and at rest.
    pub fn made(mut self) -> Result<()> {
        self.state.monitor = None;
        self.save()?;
        self.keep = true;
        Ok(())
    }

    /// Notes the first process.
    pub fn started(&mut self, pid: Pid) -> Result<()> {
        self.state.process = Some(Process::of(pid)?);
        self.state.started = Some(now());
        (self.state.exited, self.state.error) = (None, None);
        self.state.oom_killed = false;
        self.save()?;
        self.keep = !self.state.rm; // whatever happens from now on: it may have written something
        Ok(())
    }

    /// Notes the exit status of a container that is to be started again.
    pub fn ended(&mut self, status: u8) -> Result<()> {
        self.state.process = None;
        self.state.finished = Some(now());
        self.state.exited = Some(status);
        self.save()
    }

    /// Notes how it ended, or why it could not be started, and lets go of it. The directory goes if
    /// it is `--rm`; one that never started goes with who made it.
    pub fn finish(mut self, ended: Result<u8>) -> Result<u8> {
        let status = match &ended {
            Ok(status) => *status,
            Err(error) => error.downcast_ref::<Failure>().map_or(Failure::ENGINE, |f| f.status),
        };
        if self.keep {
            self.state.monitor = None;
            self.state.error = ended.as_ref().err().map(|error| format!("{error:#}"));
            // Its status is what our caller waits for; what it wrote stays, and the next command notes
            // the end of a monitor that is no longer there.
            if let Err(error) = self.ended(status) {
                warn(&format!("{error:#}"));
            }
        }
        ended
    }

    /// Writes state.json under another name first: who reads it sees the old one or the new one.
    pub(super) fn save(&self) -> Result<()> {
        let (path, new) = (self.path.join("state.json"), self.path.join("state.json.new"));
        fs::write(&new, serde_json::to_vec_pretty(&self.state)?)
            .and_then(|()| fs::rename(&new, &path))
            .with_context(|| format!("cannot write {}", path.display()))
    }
}

impl Drop for Container {
    fn drop(&mut self) {
        if self.keep {
            return;
        }
        match remove_tree(&self.path) {
            Err(error) => warn(&format!("{error:#}")),
            Ok(()) => drop(self.lock.take()), // last, so that who waits for it finds nothing
        }
    }
}

/// Removes a container's directory, with all that the container wrote.
pub(super) fn remove_tree(path: &Path) -> Result<()> {
    let failed = || format!("cannot remove {}", path.display());
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        Err(error) if error.kind() == ErrorKind::PermissionDenied && !geteuid().is_root() => {
            remove_as_its_root(path).with_context(failed)
        }
        result => result.with_context(failed),
    }
}

/// What a plain user's container wrote may belong to others of its users, or be closed to its owner:
/// only root of such a user namespace may remove it.
fn remove_as_its_root(path: &Path) -> Result<()> {
    in_child([Namespace::User].into_iter().collect(), || Ok(fs::remove_dir_all(path)?))
}

/// Whether overlayfs can note there that a directory hides what the image has (its option userxattr).
fn takes_attributes(layer: &Path) -> Result<bool> {
    let layer = File::open(layer).with_context(|| format!("cannot open {}", layer.display()))?;
    Ok(set_attribute(&layer, "user.final", b"") != Err(Errno::EOPNOTSUPP))
}
