//! One container's directory, held by the lock of its runtime.

use std::fs::{self, File, TryLockError};
use std::io::ErrorKind;
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::Signal;
use nix::unistd::Pid;
use step01_namespaces::{pidfd_open, pidfd_send_signal, warn};

use super::state::{Process, State, is_absent};

/// A container's directory. Dropping it removes it, unless it is to be kept.
#[derive(Debug)]
pub struct Container {
    pub(super) path: PathBuf,
    /// What is known about it.
    pub state: State,
    /// Held by the runtime of the container, and by nobody who only looks.
    pub(super) lock: Option<File>,
    pub(super) keep: bool,
}

impl Container {
    /// The bundle: the directory with config.json.
    #[must_use]
    pub fn bundle(&self) -> &Path {
        &self.path
    }

    /// Whether its runtime is there: then it runs, or is just about to start or to end. Who cannot
    /// look must not take it for dead: the sweep would end it.
    // ANCHOR: alive
    pub fn is_alive(&self) -> Result<bool> {
        Ok(self.state.exited.is_none()
            && self.state.runtime.is_there()?
            && Self::is_held(&self.path)?)
    }

    /// Whether a runtime holds the directory.
    pub(super) fn is_held(path: &Path) -> Result<bool> {
        // Shared: two who look at the same time do not take each other for the runtime.
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

    /// Whether its runtime was killed, and nobody has cleaned up yet.
    pub(super) fn is_stale(&self) -> Result<bool> {
        Ok(self.state.exited.is_none() && !self.is_alive()?)
    }

    /// Its first process, held by a pidfd, so that it cannot become another.
    pub fn first_process(&self) -> Result<(Pid, OwnedFd)> {
        let process = if self.is_alive()? { self.process()? } else { None };
        process.with_context(|| format!("the container {} is not running", self.state.name))
    }

    fn process(&self) -> Result<Option<(Pid, OwnedFd)>> {
        let Some(process) = self.state.process else { return Ok(None) };
        let pid = Pid::from_raw(process.pid);
        let pidfd = match pidfd_open(pid) {
            Err(Errno::ESRCH) => return Ok(None),
            pidfd => pidfd.with_context(|| format!("cannot get hold of process {pid}"))?,
        };
        // The number could have been given away between our reading it and the pidfd; the start
        // time tells.
        Ok(process.is_there()?.then_some((pid, pidfd)))
    }

    /// Ends the first process, and so all of them, after a runtime that was killed. The kernel has
    /// done so already (PR_SET_PDEATHSIG), unless the process has changed its user, which makes the
    /// kernel forget it (prctl(2)).
    pub(super) fn end_orphan(&self) -> Result<()> {
        let Some((_, pidfd)) = self.process()? else { return Ok(()) };
        match pidfd_send_signal(pidfd.as_fd(), Signal::SIGKILL) {
            Ok(()) | Err(Errno::ESRCH) => {}
            Err(errno) => {
                return Err(errno).with_context(|| format!("cannot end {}", self.state.name));
            }
        }
        poll(&mut [PollFd::new(pidfd.as_fd(), PollFlags::POLLIN)], PollTimeout::NONE)?;
        Ok(())
    }

    /// Waits until its runtime has ended.
    pub fn wait_until_ended(&self) -> Result<()> {
        match File::open(&self.path) {
            Ok(file) => Ok(file.lock_shared()?),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(()), // --rm was faster
            Err(error) => Err(error.into()),
        }
    }

    /// Waits until its runtime has ended, and removes the directory.
    pub fn remove_when_ended(mut self) -> Result<()> {
        self.wait_until_ended()?;
        self.keep = false;
        Ok(())
    }

    /// Notes the first process.
    pub fn started(&mut self, pid: Pid) -> Result<()> {
        self.state.process = Some(Process::of(pid)?);
        self.save()
    }

    /// Notes the exit status; the directory stays if it is not `--rm`. It goes as well if the note
    /// cannot be written, or a full disk would stay full.
    pub fn finish(&mut self, status: u8) -> Result<()> {
        self.state.exited = Some(status);
        self.state.process = None;
        self.keep = false;
        if !self.state.rm {
            self.save()?;
            self.keep = true;
        }
        Ok(())
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
        match fs::remove_dir_all(&self.path) {
            Err(error) if error.kind() != ErrorKind::NotFound => {
                warn(&format!("cannot remove {}: {error}", self.path.display()));
            }
            _ => drop(self.lock.take()), // last, so that who waits for it finds nothing
        }
    }
}
