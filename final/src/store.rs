//! What is on disk about each container: one directory, held by the lock of its runtime.
//!
//! The lock (flock(2) on the directory) is how everybody tells a living container from one whose
//! runtime was killed: the kernel drops it with the process, whatever that one died of.

use std::fs::{self, DirBuilder, File, TryLockError};
use std::io::{ErrorKind, Read as _};
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, Result, bail, ensure};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::Signal;
use nix::unistd::{Pid, geteuid};
use serde::{Deserialize, Serialize};
use step01_namespaces::{pidfd_open, pidfd_send_signal, warn};

/// What is known about a container beside its config.json; kept in `state.json`.
#[derive(Serialize, Deserialize, Debug, Clone)]
pub struct State {
    /// 64 hexadecimal digits, as docker's.
    pub id: String,
    /// The user's name for it, or the short id.
    pub name: String,
    /// As the user wrote it.
    pub image: String,
    /// The program with its arguments.
    pub command: Vec<String>,
    /// Seconds since 1970.
    pub created: u64,
    /// Remove it when it ends.
    pub rm: bool,
    /// Published ports, as docker shows them.
    pub ports: Vec<String>,
    /// The process that runs it.
    pub runtime: Process,
    /// Its first process, once it runs.
    pub process: Option<Process>,
    /// Its exit status, once it has ended.
    pub exited: Option<u8>,
}

/// A process that cannot be confused with a later one of the same number.
#[derive(Serialize, Deserialize, Debug, Clone, Copy, PartialEq, Eq)]
pub struct Process {
    /// As the host sees it.
    pub pid: i32,
    /// In clock ticks since boot: field 22 of /proc/PID/stat (proc_pid_stat(5)).
    pub start_time: u64,
}

impl Process {
    /// The process with this number now.
    pub fn of(pid: Pid) -> Result<Self> {
        let stat =
            fs::read(format!("/proc/{pid}/stat")).with_context(|| format!("no process {pid}"))?;
        // The name, field 2, is any bytes that the program likes: count from its end.
        let start_time = String::from_utf8_lossy(&stat)
            .rsplit_once(')')
            .and_then(|(_, rest)| rest.split_whitespace().nth(19)?.parse().ok())
            .with_context(|| format!("cannot read /proc/{pid}/stat"))?;
        Ok(Self { pid: pid.as_raw(), start_time })
    }

    fn is_there(self) -> bool {
        Self::of(Pid::from_raw(self.pid)).is_ok_and(|now| now == self)
    }
}

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
        let lock = File::open(&path)?;
        lock.try_lock().context("a new directory is locked already")?;
        let container = Container { path, state, lock: Some(lock), keep: false };
        container.save()?;
        Ok(container)
    }

    /// All containers, oldest first, without taking any.
    pub fn list(&self) -> Result<Vec<Container>> {
        let mut found = Vec::new();
        let entries =
            fs::read_dir(&self.0).with_context(|| format!("cannot read {}", self.0.display()))?;
        for entry in entries {
            let path = entry?.path();
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
        Ok(self.list()?.iter().any(Container::is_stale))
    }

    /// Waits until nothing is left of runtimes that were killed while they made a container: up to the
    /// exec their child has a copy of all their locks, and it lives on for some milliseconds.
    pub fn wait_for_orphans(&self) -> Result<()> {
        for container in self.list()? {
            if container.state.exited.is_none() && !container.state.runtime.is_there() {
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
        for mut container in self.list()? {
            if container.is_stale() {
                container.end_orphan()?;
                // 137 is what a shell says of a process that SIGKILL ended.
                container.finish(137).unwrap_or_else(|error| warn(&format!("{error:#}")));
            }
        }
        for entry in fs::read_dir(&self.0)? {
            let path = entry?.path();
            if path.is_dir() && !path.join("state.json").exists() {
                fs::remove_dir_all(&path)?; // nobody is making it now: we hold the lock
            }
        }
        Ok(())
    }

    fn lock(&self) -> Result<File> {
        let lock = File::open(&self.0)?;
        lock.lock().with_context(|| format!("cannot lock {}", self.0.display()))?;
        Ok(lock)
    }
}

/// A container's directory. Dropping it removes it, unless it is to be kept.
#[derive(Debug)]
pub struct Container {
    path: PathBuf,
    /// What is known about it.
    pub state: State,
    /// Held by the runtime of the container, and by nobody who only looks.
    lock: Option<File>,
    keep: bool,
}

impl Container {
    /// The bundle: the directory with config.json.
    #[must_use]
    pub fn bundle(&self) -> &Path {
        &self.path
    }

    /// Whether its runtime is there: then it runs, or is just about to start or to end.
    // ANCHOR: alive
    #[must_use]
    pub fn is_alive(&self) -> bool {
        self.state.exited.is_none()
            && self.state.runtime.is_there()
            && File::open(&self.path)
                // Shared: two who look at the same time do not take each other for the runtime.
                .is_ok_and(|file| matches!(file.try_lock_shared(), Err(TryLockError::WouldBlock)))
    }
    // ANCHOR_END: alive

    /// Whether its runtime was killed, and nobody has cleaned up yet.
    fn is_stale(&self) -> bool {
        self.state.exited.is_none() && !self.is_alive()
    }

    /// Its first process, held by a pidfd, so that it cannot become another.
    pub fn first_process(&self) -> Result<(Pid, OwnedFd)> {
        let process = if self.is_alive() { self.process() } else { None };
        process.with_context(|| format!("the container {} is not running", self.state.name))
    }

    fn process(&self) -> Option<(Pid, OwnedFd)> {
        let process = self.state.process?;
        let pid = Pid::from_raw(process.pid);
        let pidfd = pidfd_open(pid).ok()?;
        // The number could have been given away between our reading it and the pidfd; the start
        // time tells.
        (Process::of(pid).ok()? == process).then_some((pid, pidfd))
    }

    /// Ends the first process, and so all of them, after a runtime that was killed. The kernel has
    /// done so already (PR_SET_PDEATHSIG), unless the process has changed its user, which makes the
    /// kernel forget it (prctl(2)).
    fn end_orphan(&self) -> Result<()> {
        let Some((_, pidfd)) = self.process() else { return Ok(()) };
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
    fn save(&self) -> Result<()> {
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

impl State {
    /// Reads state.json in the directory, if it is there.
    fn load(directory: &Path) -> Result<Option<Self>> {
        let text = match fs::read(directory.join("state.json")) {
            Err(error)
                if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) =>
            {
                return Ok(None);
            }
            text => text?,
        };
        let name = directory.file_name().unwrap_or_default();
        Self::parse(&text, &name.to_string_lossy()).map(Some)
    }

    /// Reads and checks the text of the state.json of container `id`.
    pub fn parse(text: &[u8], id: &str) -> Result<Self> {
        let state: Self = serde_json::from_slice(text)?;
        let is_id = id.len() == 64 && id.bytes().all(|byte| byte.is_ascii_hexdigit());
        ensure!(is_id && state.id == id, "its id is not the directory's name");
        parse_name(&state.name)?;
        Ok(state)
    }

    /// The state of a container that is about to be made.
    pub fn new(
        id: String,
        name: Option<String>,
        image: String,
        command: Vec<String>,
    ) -> Result<Self> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Ok(Self {
            name: name.unwrap_or_else(|| id[..12].to_owned()),
            id,
            image,
            command,
            created: now.as_secs(),
            rm: false,
            ports: Vec::new(),
            runtime: Process::of(Pid::this())?,
            process: None,
            exited: None,
        })
    }

    /// The first 12 digits, which docker shows.
    #[must_use]
    pub fn short_id(&self) -> &str {
        &self.id[..12]
    }
}

/// A new id: 64 random hexadecimal digits.
pub fn new_id() -> Result<String> {
    let mut bytes = [0; 32];
    File::open("/dev/urandom")
        .and_then(|mut file| file.read_exact(&mut bytes))
        .context("cannot read /dev/urandom")?;
    Ok(bytes.iter().fold(String::new(), |id, byte| format!("{id}{byte:02x}")))
}

/// Checks a name with docker's rule; it also keeps paths and control characters out.
pub fn parse_name(name: &str) -> Result<String> {
    let mut bytes = name.bytes();
    ensure!(
        name.len() <= 128
            && bytes.next().is_some_and(|first| first.is_ascii_alphanumeric())
            && bytes.all(|b| b.is_ascii_alphanumeric() || b"_.-".contains(&b)),
        "a container's name has up to 128 letters, digits, _ . and -, and begins with a letter or digit"
    );
    Ok(name.to_owned())
}
