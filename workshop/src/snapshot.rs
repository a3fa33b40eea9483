//! The state of the lab's host: what a container must leave as it was.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

use crate::nft;
use crate::wire::Wire;

/// A line for each thing that there is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Snapshot(BTreeSet<String>);

/// How long the kernel may take to remove a network namespace: it does so behind everybody's back
/// when the last process has left, and the veth pair's end on our side goes with it.
const PATIENCE: Duration = Duration::from_secs(5);

impl Snapshot {
    /// Looks at everything, less the lab's own processes.
    pub fn take(own: &[Pid]) -> Result<Self> {
        let mut lines = BTreeSet::new();
        lines.extend(Wire::open()?.describe()?);
        lines.extend(firewall()?);
        lines.extend(mounts()?);
        lines.extend(processes(own)?);
        lines.extend(switches()?);
        let files = below(Path::new("/run"));
        lines.extend(files.iter().filter(|p| !is_base(p)).map(|p| format!("file {}", p.display())));
        lines.extend(stale_cgroups(Path::new("/sys/fs/cgroup")));
        Ok(Self(lines))
    }

    /// Fails, and names the difference, if the host is not again as it was.
    pub fn ensure_restored(&self, own: &[Pid]) -> Result<()> {
        let start = Instant::now();
        loop {
            // Orphans that have ended are ours to take in: we are the lab's first process.
            while matches!(waitpid(None, Some(WaitPidFlag::WNOHANG)), Ok(status) if status != WaitStatus::StillAlive)
            {
            }
            let now = Self::take(own)?;
            let left: Vec<_> = now.0.difference(&self.0).collect();
            // A stale cgroup that was there before can be another lab's, and be gone by now.
            let gone: Vec<_> =
                self.0.difference(&now.0).filter(|line| !line.starts_with("cgroup ")).collect();
            if left.is_empty() && gone.is_empty() {
                return Ok(());
            }
            if start.elapsed() > PATIENCE {
                let mut difference = String::new();
                for (sign, lines) in [('+', &left), ('-', &gone)] {
                    for line in lines {
                        difference += &format!("\n  {sign} {line}");
                    }
                }
                bail!("the host is not as it was before (+ is left, - is missing):{difference}");
            }
            sleep(Duration::from_millis(20));
        }
    }
}

/// Every nf_tables object, as the kernel's own bytes.
pub(crate) fn firewall() -> Result<Vec<String>> {
    let mut lines = Vec::new();
    for (name, kind) in nft::KINDS {
        let list = nft::list(kind)
            .with_context(|| format!("the kernel lists no nf_tables {name}s: is that in it?"))?;
        lines.extend(list.iter().map(|bytes| format!("{name} {bytes:02x?}")));
    }
    Ok(lines)
}

/// The mounts of every mount namespace that we see, each once.
fn mounts() -> Result<Vec<String>> {
    let mut lines = Vec::new();
    for pid in all_processes()? {
        let read = fs::read_to_string(format!("/proc/{pid}/mountinfo")).unwrap_or_default();
        lines.extend(read.lines().map(|line| format!("mount {line}")));
    }
    Ok(lines)
}

fn processes(own: &[Pid]) -> Result<Vec<String>> {
    let own: Vec<_> = own.iter().map(|pid| pid.as_raw()).collect();
    let others = all_processes()?.into_iter().filter(|pid| !own.contains(pid));
    Ok(others
        .filter_map(|pid| {
            let name = fs::read_to_string(format!("/proc/{pid}/comm")).ok()?;
            Some(format!("process {pid} {}", name.trim()))
        })
        .collect())
}

fn all_processes() -> Result<Vec<i32>> {
    let entries = fs::read_dir("/proc").context("cannot read /proc")?;
    Ok(entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok()).collect())
}

/// The settings that a runtime may have to change.
fn switches() -> Result<Vec<String>> {
    let base = Path::new("/proc/sys/net/ipv4");
    let mut paths = vec![base.join("ip_forward")];
    for entry in fs::read_dir(base.join("conf"))? {
        paths.push(entry?.path().join("route_localnet"));
    }
    let read = |path: PathBuf| {
        let value = fs::read_to_string(&path).ok()?; // a link may vanish meanwhile
        Some(format!("{} = {}", path.display(), value.trim()))
    };
    Ok(paths.into_iter().filter_map(read).collect())
}

fn below(directory: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(directory) else { return Vec::new() };
    let mut found = Vec::new();
    for entry in entries.filter_map(Result::ok) {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            found.extend(below(&entry.path()));
        }
        found.push(entry.path());
    }
    found
}

/// The directories that hold all containers' state stay, empty, as they are; so do images.
fn is_base(path: &Path) -> bool {
    path.ends_with("container-workshop")
        || path.ends_with("container-workshop/containers")
        || path.to_string_lossy().contains("/container-workshop/images")
}

/// The cgroups of containers whose runtime is gone. Those that a runtime holds may be another
/// lab's: the cgroup trees are the machine's, and tests run side by side.
fn stale_cgroups(directory: &Path) -> Vec<String> {
    let Ok(entries) = fs::read_dir(directory) else { return Vec::new() };
    let mut found = Vec::new();
    for entry in entries.filter_map(Result::ok) {
        if !entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            continue;
        }
        let path = entry.path();
        let name = entry.file_name();
        if name == "container-workshop" && below(&path).iter().all(|path| !path.is_dir()) {
            found.push(format!("cgroup {}", path.display())); // the last container has left it
        }
        let ours = name.to_string_lossy().starts_with("container-workshop-");
        if ours && File::open(&path).is_ok_and(|group| group.try_lock().is_ok()) {
            found.push(format!("cgroup {}", path.display()));
        } else {
            found.extend(stale_cgroups(&path));
        }
    }
    found
}
