//! The state of the lab's host: what a container must leave as it was.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use netlink_sys::protocols::NETLINK_NETFILTER;
use netlink_sys::{Socket, SocketAddr};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

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
fn firewall() -> Result<Vec<String>> {
    const SUBSYSTEM: u16 = 10 << 8; // NFNL_SUBSYS_NFTABLES
    const REQUEST_DUMP: u16 = 0x301;
    let kinds = [("table", 1), ("chain", 4), ("rule", 7)];
    let mut lines = Vec::new();
    for (name, get) in kinds {
        let mut socket = Socket::new(NETLINK_NETFILTER).context("cannot open a netlink socket")?;
        socket.bind_auto()?;
        socket.connect(&SocketAddr::new(0, 0))?;
        // nlmsghdr: length, type, flags, number, port; nfgenmsg: family 0 is every family.
        let mut request = 20_u32.to_ne_bytes().to_vec();
        request.extend((SUBSYSTEM | get).to_ne_bytes());
        request.extend(REQUEST_DUMP.to_ne_bytes());
        request.extend([0; 12]);
        socket.send(&request, 0)?;
        'dump: loop {
            let (bytes, _) = socket.recv_from_full()?;
            let mut rest = &bytes[..];
            while let Some((len, kind)) = header(rest) {
                const ERROR: u16 = 2;
                const DONE: u16 = 3;
                match kind {
                    DONE => break 'dump,
                    ERROR => bail!("the kernel lists no nf_tables {name}s: is that in it?"),
                    _ => lines.push(format!("{name} {:02x?}", &rest[20..len])),
                }
                rest = rest.get(len.next_multiple_of(4)..).unwrap_or_default();
            }
        }
    }
    Ok(lines)
}

fn header(bytes: &[u8]) -> Option<(usize, u16)> {
    let len = u32::from_ne_bytes(bytes.get(..4)?.try_into().ok()?) as usize;
    let kind = u16::from_ne_bytes(bytes.get(4..6)?.try_into().ok()?);
    (len >= 16 && len <= bytes.len()).then_some((len, kind))
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
