//! Pause: the kernel runs no process of the group until it is thawed, and no signal but, in version
//! 2, SIGKILL reaches it (freezer-subsystem.rst; cgroup-v2.rst, `cgroup.freeze`).

use std::fs;
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use nix::unistd::Pid;

use crate::group::{Group, PREFIX};
use crate::hierarchy::read;
use crate::{Cgroup, Version};

/// How long a process may take to come to a place where it can stop: it could be deep in a system
/// call that waits for a disk.
const PATIENCE: Duration = Duration::from_secs(10);

impl Cgroup {
    /// The cgroup that was made for the container `name`, of which `pid` is a process: not ours to
    /// remove. It has no groups if the container has none of its own.
    pub fn of_container(name: &str, pid: Pid) -> Result<Self> {
        let hierarchies =
            crate::parse(&read("/proc/self/mountinfo")?, &read(&format!("/proc/{pid}/cgroup"))?);
        let begins = format!("{PREFIX}{name}");
        let is_its = |path: &&Path| {
            path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(&begins))
        };
        let version = if hierarchies
            .iter()
            .any(|h| h.version == Version::V1 && h.own.ancestors().any(|p| is_its(&p)))
        {
            Version::V1
        } else {
            Version::V2
        };
        let mut groups = Vec::new();
        for hierarchy in hierarchies.iter().filter(|hierarchy| hierarchy.version == version) {
            if let Some(path) = hierarchy.own.ancestors().find(is_its) {
                let failed = || format!("cannot open {}", path.display());
                groups.push(Group::open(path.to_owned()).with_context(failed)?);
            }
        }
        Ok(Self::foreign(version, groups))
    }

    /// Stops all processes in it, and waits until they have stopped.
    pub fn freeze(&self) -> Result<()> {
        let freezer = self.freezer().context(
            "it has no cgroup of its own to be frozen: as a plain user that takes cgroup version 2, \
             delegated",
        )?;
        let start = Instant::now();
        // Version 1 may have missed a process that was just being made: so it is asked again.
        loop {
            freezer.set(true)?;
            if freezer.is_set()? {
                return Ok(());
            }
            if start.elapsed() > PATIENCE {
                freezer.set(false)?;
                bail!("some of its processes do not stop: they wait for a device");
            }
            sleep(Duration::from_millis(1));
        }
    }

    /// Lets them go on, if they were stopped.
    pub fn thaw(&self) -> Result<()> {
        match self.freezer() {
            Some(freezer) if freezer.is_on()? => freezer.set(false),
            _ => Ok(()),
        }
    }

    /// Whether they are stopped, or about to be.
    pub fn is_frozen(&self) -> Result<bool> {
        self.freezer().map_or(Ok(false), |freezer| freezer.is_on())
    }

    fn freezer(&self) -> Option<Freezer> {
        self.paths().find_map(|group| {
            let (v1, v2) = (group.join("freezer.state"), group.join("cgroup.freeze"));
            if v1.exists() {
                Some(Freezer { switch: v1, events: None })
            } else {
                v2.exists()
                    .then(|| Freezer { switch: v2, events: Some(group.join("cgroup.events")) })
            }
        })
    }
}

struct Freezer {
    /// Version 1: THAWED, FREEZING or FROZEN. Version 2: 0 or 1, what was last asked for.
    switch: PathBuf,
    /// Version 2: what has become of it.
    events: Option<PathBuf>,
}

impl Freezer {
    fn set(&self, frozen: bool) -> Result<()> {
        let words = if self.events.is_some() { ["0", "1"] } else { ["THAWED", "FROZEN"] };
        fs::write(&self.switch, words[usize::from(frozen)])
            .with_context(|| format!("cannot write {}", self.switch.display()))
    }

    /// Whether it was asked for.
    fn is_on(&self) -> Result<bool> {
        Ok(!matches!(look(&self.switch)?.trim(), "0" | "THAWED"))
    }

    /// Whether it has happened.
    fn is_set(&self) -> Result<bool> {
        Ok(match &self.events {
            Some(events) => look(events)?.lines().any(|line| line == "frozen 1"),
            None => look(&self.switch)?.trim() == "FROZEN",
        })
    }
}

fn look(file: &Path) -> Result<String> {
    fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))
}
