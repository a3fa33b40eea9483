//! One directory of ours, and whose it is.
//!
//! Its owner holds a lock on it (flock(2)). The kernel drops the lock when that process ends, also
//! by SIGKILL: a group that can be locked is stale, and whoever comes next removes it.

use std::ffi::OsStr;
use std::fs::{self, DirBuilder, File, TryLockError};
use std::io::{self, ErrorKind};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::Signal;
use nix::unistd::Pid;
use step01_namespaces::{pidfd_open, pidfd_send_signal};

/// How the names of our groups begin.
pub(crate) const PREFIX: &str = "container-workshop-";

/// Version 2: the directory for all of ours.
pub(crate) const PARENT: &str = "container-workshop";

/// How long a group without processes may be busy.
const PATIENCE: Duration = Duration::from_secs(1);

/// A group's directory in one hierarchy, locked by us.
#[derive(Debug)]
pub(crate) struct Group {
    pub path: PathBuf,
    lock: File,
}

impl Group {
    /// Makes the group `name` below `parent`, or `name.2` and so on: PID namespaces that share a
    /// cgroup tree have each a process 5, and each names a group after it.
    pub fn create(parent: &Path, name: &str) -> io::Result<Self> {
        let mut path = parent.join(format!("{PREFIX}{name}"));
        let mut count = 1;
        loop {
            // For us alone: who may open it could hold its lock.
            match DirBuilder::new().mode(0o700).create(&path) {
                Err(error) if error.kind() == ErrorKind::AlreadyExists => {
                    count += 1;
                    path.set_file_name(format!("{PREFIX}{name}.{count}"));
                    continue;
                }
                result => result?,
            }
            // Until we hold the lock, somebody who sweeps may take the group for a stale one.
            match lock(&path) {
                Ok(Some(lock)) => return Ok(Self { path, lock }),
                Ok(None) => {}
                Err(error) => {
                    let _ = fs::remove_dir(&path); // the first error is the one that matters
                    return Err(error);
                }
            }
        }
    }

    /// One that is there, without its lock.
    pub fn open(path: PathBuf) -> io::Result<Self> {
        let lock = File::open(&path)?;
        Ok(Self { path, lock })
    }

    /// Removes the stale groups below `parent`.
    pub fn sweep(parent: &Path) -> Result<()> {
        let failed = || format!("cannot look for stale cgroups in {}", parent.display());
        let groups = match groups_below(parent) {
            Err(error) if is_not_ours(&error) => return Ok(()),
            groups => groups.with_context(failed)?,
        };
        for path in groups {
            let name = path.file_name().and_then(OsStr::to_str);
            if !name.is_some_and(|name| name.starts_with(PREFIX)) {
                continue;
            }
            let lock = match File::open(&path) {
                // Its owner has just removed it, or it is another user's.
                Err(error) if is_not_ours(&error) => continue,
                lock => lock.with_context(failed)?,
            };
            match lock.try_lock() {
                Err(TryLockError::WouldBlock) => continue,
                result => result.map_err(io::Error::from).with_context(failed)?,
            }
            if !is_at(&lock, &path).with_context(failed)? {
                continue;
            }
            match (Self { path, lock }).remove() {
                // It has processes that our PID namespace does not have: theirs can end them.
                Err(error) if error.downcast_ref().is_some_and(is_busy) => {}
                result => result?,
            }
        }
        remove_if_empty(parent);
        Ok(())
    }

    /// Ends what is left in it, and removes it with all groups below it.
    pub fn remove(&self) -> Result<()> {
        // Most often nothing is left: the first process took the others with it.
        if fs::remove_dir(&self.path).is_err() {
            self.kill()?;
            let begun = Instant::now();
            // The kernel may count the dead for a moment more, when no list names them any longer.
            while let Err(error) = remove_tree(&self.path) {
                if !is_busy(&error) || begun.elapsed() > PATIENCE {
                    return Err(error)
                        .with_context(|| format!("cannot remove {}", self.path.display()));
                }
                sleep(Duration::from_millis(1));
            }
        }
        self.path.parent().into_iter().for_each(remove_if_empty);
        Ok(())
    }

    /// Whether it is in version 1's freezer hierarchy.
    pub fn can_freeze(&self) -> bool {
        self.path.join("freezer.state").exists()
    }

    /// Ends every process in it and below it, and waits until they are gone.
    ///
    /// Processes that fork could outrun us one by one. Frozen ones cannot, and cgroup.kill
    /// (version 2, Linux 5.14) takes all at once. A group without either is killed last, when
    /// another one of the same container has been emptied.
    pub fn kill(&self) -> Result<()> {
        let (all_at_once, freezer) =
            (self.path.join("cgroup.kill"), self.path.join("freezer.state"));
        let kill = || -> Result<Vec<OwnedFd>> {
            if self.can_freeze() {
                fs::write(&freezer, "FROZEN")?;
            }
            // A pidfd before the signal: a number alone could mean another process by now.
            let pids = processes(&self.path)?;
            let fds: Vec<_> = pids.into_iter().filter_map(|pid| pidfd_open(pid).ok()).collect();
            if all_at_once.exists() {
                fs::write(&all_at_once, "1")?;
            } else {
                fds.iter().try_for_each(send_sigkill)?;
            }
            if self.can_freeze() {
                fs::write(&freezer, "THAWED")?; // a frozen process does not even die
            }
            Ok(fds)
        };
        while !processes(&self.path)?.is_empty() {
            let fds = kill()
                .with_context(|| format!("cannot end the processes in {}", self.path.display()))?;
            fds.iter().try_for_each(wait_for_end)?;
        }
        Ok(())
    }
}

fn send_sigkill(pidfd: &OwnedFd) -> nix::Result<()> {
    match pidfd_send_signal(pidfd.as_fd(), Signal::SIGKILL) {
        Ok(()) | Err(Errno::ESRCH) => Ok(()),
        Err(errno) => Err(errno),
    }
}

impl AsFd for Group {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.lock.as_fd()
    }
}

/// Locks the group at `path`; `None` if it is not there any more.
fn lock(path: &Path) -> io::Result<Option<File>> {
    let file = match File::open(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        file => file?,
    };
    file.lock()?;
    Ok(is_at(&file, path)?.then_some(file))
}

fn is_at(file: &File, path: &Path) -> io::Result<bool> {
    match fs::metadata(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
        there => Ok(there?.ino() == file.metadata()?.ino()),
    }
}

fn is_not_ours(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::NotFound | ErrorKind::PermissionDenied)
}

fn is_busy(error: &io::Error) -> bool {
    error.kind() == ErrorKind::ResourceBusy
}

/// The last container takes the directory along; if it was not the last, the kernel says EBUSY.
fn remove_if_empty(parent: &Path) {
    if parent.ends_with(PARENT) {
        let _ = fs::remove_dir(parent);
    }
}

/// The processes in a group and in all groups below it. Those that our PID namespace does not have
/// are written as 0; they are not for us to end.
fn processes(group: &Path) -> Result<Vec<Pid>> {
    let read = fs::read_to_string(group.join("cgroup.procs"));
    let text = read.with_context(|| format!("cannot read {}/cgroup.procs", group.display()))?;
    let mut pids: Vec<_> = text
        .lines()
        .filter_map(|pid| pid.parse().ok())
        .filter(|&pid| pid > 0)
        .map(Pid::from_raw)
        .collect();
    let below = groups_below(group);
    for below in below.with_context(|| format!("cannot read {}", group.display()))? {
        pids.extend(processes(&below)?);
    }
    Ok(pids)
}

/// From the leaves up; the files in a group go with it.
fn remove_tree(group: &Path) -> io::Result<()> {
    groups_below(group)?.iter().try_for_each(|below| remove_tree(below))?;
    fs::remove_dir(group)
}

fn groups_below(group: &Path) -> io::Result<Vec<PathBuf>> {
    let entries = fs::read_dir(group)?.collect::<io::Result<Vec<_>>>()?;
    let directories =
        entries.iter().filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
    Ok(directories.map(fs::DirEntry::path).collect())
}

fn wait_for_end(pidfd: &OwnedFd) -> Result<()> {
    loop {
        match poll(&mut [PollFd::new(pidfd.as_fd(), PollFlags::POLLIN)], PollTimeout::NONE) {
            Err(Errno::EINTR) => {}
            result => return result.map(drop).context("cannot wait for a process to end"),
        }
    }
}
