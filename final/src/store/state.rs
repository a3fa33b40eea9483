//! state.json: what is known about a container beside its config.json.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, ErrorKind, Read as _};
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, Error, Result, ensure};
use nix::unistd::Pid;
use serde::{Deserialize, Serialize};

use crate::monitor::Restart;

/// What is known about a container beside its config.json; kept in `state.json`. Times are in
/// nanoseconds since 1970.
#[derive(Serialize, Deserialize, Debug, Clone)]
pub struct State {
    /// 64 hexadecimal digits, as docker's.
    pub id: String,
    /// The user's name for it, or the short id.
    pub name: String,
    /// As the user wrote it.
    pub image: String,
    /// The image's id; `host` and directories have none.
    #[serde(default)]
    pub image_id: Option<String>,
    /// The program with its arguments.
    pub command: Vec<String>,
    /// When it was made.
    pub created: u64,
    /// Published ports, as docker shows them.
    pub ports: Vec<String>,
    /// What its user notes about it.
    pub labels: BTreeMap<String, String>,
    /// Remove it when it ends.
    pub rm: bool,
    /// Whether it is started again when it ends.
    pub restart: Restart,
    /// How `stop` ends it: a signal's name.
    pub stop_signal: String,
    /// And how many seconds later it is killed; none: never.
    pub stop_timeout: Option<u32>,
    /// Whether its input ends with that of a client: not if it was to run in the background.
    pub input_ends: bool,

    /// The process that makes or runs it. Without one it is at rest.
    pub monitor: Option<Process>,
    /// Its first process, while it runs.
    pub process: Option<Process>,
    /// When it was started last.
    pub started: Option<u64>,
    /// When it ended last.
    pub finished: Option<u64>,
    /// Its last exit status.
    pub exited: Option<u8>,
    /// Whether the kernel has ended one of its processes for its memory limit, when it ran last.
    #[serde(default)]
    pub oom_killed: bool,
    /// How often its restart policy has started it again.
    pub restarts: u32,
    /// Why it could not be started.
    pub error: Option<String>,
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
        let found = Self::find(pid)?.with_context(|| format!("no process {pid}"));
        found.map(|(process, _)| process)
    }

    /// The process, and whether it is a zombie.
    fn find(pid: Pid) -> Result<Option<(Self, bool)>> {
        let path = format!("/proc/{pid}/stat");
        let stat = match fs::read(&path) {
            Err(error) if is_absent(&error) => return Ok(None),
            stat => stat.with_context(|| format!("cannot read {path}"))?,
        };
        // The name, field 2, is any bytes that the program likes: count from its end.
        let stat = String::from_utf8_lossy(&stat);
        let fields = stat.rsplit_once(')').map(|(_, rest)| rest.split_whitespace());
        let mut fields = fields.with_context(|| format!("cannot understand {path}"))?;
        let is_zombie = fields.next() == Some("Z");
        let start_time = fields.nth(18).and_then(|field| field.parse().ok());
        let start_time = start_time.with_context(|| format!("cannot understand {path}"))?;
        Ok(Some((Self { pid: pid.as_raw(), start_time }, is_zombie)))
    }

    /// Whether it is still there. A zombie has given up all but its number: only its parent is late.
    pub fn is_there(self) -> Result<bool> {
        Ok(Self::find(Pid::from_raw(self.pid))? == Some((self, false)))
    }
}

impl State {
    /// Reads state.json in the directory, if it is there.
    pub(super) fn load(directory: &Path) -> Result<Option<Self>> {
        let text = match fs::read(directory.join("state.json")) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            text => text.map_err(Error::from),
        };
        let name = directory.file_name().unwrap_or_default();
        let state = text.and_then(|text| Self::parse(&text, &name.to_string_lossy()));
        state.map(Some).with_context(|| {
            format!(
                "cannot use {}/state.json; if no container needs it, remove that directory",
                directory.display()
            )
        })
    }

    /// Reads and checks the text of the state.json of container `id`.
    pub fn parse(text: &[u8], id: &str) -> Result<Self> {
        let state: Self = serde_json::from_slice(text)?;
        let is_id = id.len() == 64 && id.bytes().all(|byte| byte.is_ascii_hexdigit());
        ensure!(is_id && state.id == id, "its id is not the directory's name");
        parse_name(&state.name)?;
        Ok(state)
    }

    /// The state of a container that this process is about to make.
    pub fn new(id: String, name: Option<String>, image: String, command: Vec<String>) -> Self {
        Self {
            name: name.unwrap_or_else(|| id[..12].to_owned()),
            id,
            image,
            image_id: None,
            command,
            created: now(),
            ports: Vec::new(),
            labels: BTreeMap::new(),
            rm: false,
            restart: Restart::No,
            stop_signal: "SIGTERM".to_owned(),
            stop_timeout: Some(10),
            input_ends: true,
            monitor: None,
            process: None,
            started: None,
            finished: None,
            exited: None,
            oom_killed: false,
            restarts: 0,
            error: None,
        }
    }

    /// The first 12 digits, which docker shows.
    #[must_use]
    pub fn short_id(&self) -> &str {
        &self.id[..12]
    }
}

/// The time, as a state has it.
#[must_use]
pub fn now() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(now.as_nanos()).unwrap_or(u64::MAX)
}

/// Whether the error says that there is no such file, or (in /proc) no such process any more.
pub(super) fn is_absent(error: &io::Error) -> bool {
    error.kind() == ErrorKind::NotFound || error.raw_os_error() == Some(libc::ESRCH)
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
