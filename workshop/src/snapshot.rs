//! The state of the lab's host: what a container must leave as it was.
//!
//! Session keyrings are not in it: they go with their last process, and processes are.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::{Pid, geteuid, gethostname};

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
        lines.extend(ipv6());
        // Only root may look at it. A plain user cannot change it, either.
        if geteuid().is_root() {
            lines.extend(firewall()?);
        }
        lines.extend(mounts()?);
        lines.extend(processes(own)?);
        lines.extend(switches()?);
        lines.extend(links()?);
        lines.extend(ipc()?);
        let hostname = gethostname().context("cannot read the host's name")?;
        lines.insert(format!("host name {}", hostname.display()));
        let files = state_directories()?.into_iter().flat_map(|path| below(&path));
        lines.extend(files.filter(|p| !is_base(p)).map(|p| format!("file {}", p.display())));
        lines.extend(cgroup_trees()?.iter().flat_map(|tree| stale_cgroups(tree)));
        Ok(Self(lines))
    }

    /// What `now` has more (+) and less (-).
    #[must_use]
    pub fn difference(&self, now: &Self) -> Vec<String> {
        let more = now.0.difference(&self.0).map(|line| format!("+ {line}"));
        // A stale cgroup that was there before can be another lab's, and be gone by now.
        let gone = self.0.difference(&now.0).filter(|line| !line.starts_with("cgroup "));
        more.chain(gone.map(|line| format!("- {line}"))).collect()
    }

    /// Fails, and names the difference, if the host is not again as it was.
    pub fn ensure_restored(&self, own: &[Pid]) -> Result<()> {
        let start = Instant::now();
        loop {
            // Orphans that have ended are ours to take in: we are the lab's first process.
            while matches!(waitpid(None, Some(WaitPidFlag::WNOHANG)), Ok(status) if status != WaitStatus::StillAlive)
            {
            }
            let difference = self.difference(&Self::take(own)?);
            if difference.is_empty() {
                return Ok(());
            }
            if start.elapsed() > PATIENCE {
                bail!(
                    "the host is not as it was before (+ is left, - is missing):\n  {}",
                    difference.join("\n  ")
                );
            }
            sleep(Duration::from_millis(20));
        }
    }
}

/// Addresses and routes of IPv6, but those that the kernel gives each link by itself, in its own time.
fn ipv6() -> Vec<String> {
    let words = |path: &str| -> Vec<Vec<String>> {
        let text = fs::read_to_string(path).unwrap_or_default(); // a kernel without it has none
        let words = |line: &str| line.split_whitespace().map(str::to_owned).collect();
        text.lines().map(words).collect()
    };
    let own = |address: &String| address.starts_with("fe80") || address.starts_with("ff");
    let addresses = words("/proc/net/if_inet6").into_iter().filter(|line| !own(&line[0]));
    let routes = words("/proc/net/ipv6_route").into_iter();
    // Those to a single address (80 is 128) are our own addresses once more, some time later.
    let routes = routes.filter(|line| !own(&line[0]) && line[1] != "80" && line[9] != "lo");
    addresses
        .map(|line| format!("address {}/{} on {}", line[0], line[2], line[5]))
        .chain(routes.map(|l| format!("route {}/{} via {} on {}", l[0], l[1], l[4], l[9])))
        .collect()
}

/// Every nf_tables object: the words in it, and a number that is another if its bytes are.
pub(crate) fn firewall() -> Result<Vec<String>> {
    let mut lines = Vec::new();
    for (name, kind) in nft::KINDS {
        let list = nft::list(kind)
            .with_context(|| format!("the kernel lists no nf_tables {name}s: is that in it?"))?;
        lines.extend(list.iter().map(|bytes| format!("{name} {}", summary(bytes))));
    }
    Ok(lines)
}

fn summary(object: &[u8]) -> String {
    let mut hash = DefaultHasher::new();
    object.hash(&mut hash);
    let words = object.split(|byte| !byte.is_ascii_graphic()).filter(|word| word.len() > 2);
    let words: Vec<_> = words.map(String::from_utf8_lossy).collect();
    format!("{} #{:x}", words.join(" "), hash.finish())
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

/// The settings that a runtime may have to change. Writing ip_forward changes two more of every
/// link (ip-sysctl.rst).
fn switches() -> Result<Vec<String>> {
    let base = Path::new("/proc/sys/net/ipv4");
    let mut paths = vec![base.join("ip_forward")];
    for entry in fs::read_dir(base.join("conf"))? {
        let link = entry?.path();
        let names = ["route_localnet", "forwarding", "accept_redirects"];
        paths.extend(names.map(|name| link.join(name)));
    }
    for entry in fs::read_dir("/proc/sys/net/ipv6/conf").into_iter().flatten() {
        let link = entry?.path();
        paths.extend(["forwarding", "accept_ra"].map(|name| link.join(name)));
    }
    Ok(values(paths))
}

/// A line for each file that is there, with what is in it; a link may vanish meanwhile.
fn values(paths: impl IntoIterator<Item = PathBuf>) -> Vec<String> {
    let read = |path: PathBuf| {
        let value = fs::read_to_string(&path).ok()?;
        Some(format!("{} = {}", path.display(), value.trim()))
    };
    paths.into_iter().filter_map(read).collect()
}

/// The links' own settings; of a bridge's port also whose it is.
fn links() -> Result<Vec<String>> {
    let mut paths = Vec::new();
    for entry in fs::read_dir("/sys/class/net")? {
        let link = entry?.path();
        let names = ["ifindex", "flags", "mtu", "address", "netdev_group", "master/ifindex"];
        paths.extend(names.map(|name| link.join(name)));
    }
    Ok(values(paths))
}

/// Memory, semaphores and queues of System V, by their numbers (sysvipc(7)).
fn ipc() -> Result<Vec<String>> {
    let mut lines = Vec::new();
    for kind in ["shm", "sem", "msg"] {
        let path = format!("/proc/sysvipc/{kind}");
        let text = fs::read_to_string(&path).with_context(|| format!("cannot read {path}"))?;
        let ids = text.lines().skip(1).filter_map(|line| line.split_whitespace().nth(1));
        lines.extend(ids.map(|id| format!("System V {kind} {id}")));
    }
    Ok(lines)
}

/// Where state of containers can be: all of /run, in which also XDG_RUNTIME_DIR is, and the
/// directories in /tmp of users who have none.
fn state_directories() -> Result<Vec<PathBuf>> {
    let mut found = vec![PathBuf::from("/run")];
    for entry in fs::read_dir("/tmp").context("cannot read /tmp")? {
        let entry = entry?;
        if entry.file_name().to_string_lossy().starts_with("container-workshop") {
            found.push(entry.path());
        }
    }
    Ok(found)
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

/// The directories that hold all containers' state stay, empty, as they are. So do unpacked images,
/// host-INODE-SECONDS.NANOSECONDS; one that is half done has one more number.
fn is_base(path: &Path) -> bool {
    let path = path.to_string_lossy();
    let Some((_, below)) = path.rsplit_once("container-workshop") else { return false };
    match below.strip_prefix("/images/") {
        Some(image) => image.split('/').next().is_some_and(|name| name.matches('.').count() < 2),
        // The last is what is in /tmp: container-workshop-UID.
        None => ["", "/containers", "/images"].contains(&below) || below.starts_with('-'),
    }
}

/// Where cgroups of containers can be: with version 1 they are below our own group, and another
/// session's may have another one; with version 2 they can be anywhere (cgroups(7)).
pub fn cgroup_trees() -> Result<Vec<PathBuf>> {
    let base = Path::new("/sys/fs/cgroup");
    let text = fs::read_to_string("/proc/self/cgroup").context("cannot read /proc/self/cgroup")?;
    let mut trees = Vec::new();
    for line in text.lines() {
        let mut fields = line.splitn(3, ':').skip(1);
        let (controllers, own) = (fields.next().unwrap_or(""), fields.next().unwrap_or(""));
        if controllers.is_empty() {
            let hybrid = base.join("unified");
            trees.push(if hybrid.exists() { hybrid } else { base.to_owned() });
        }
        for name in controllers.trim_start_matches("name=").split_terminator(',') {
            let (tree, own) = (base.join(name), own.trim_start_matches('/'));
            // In a container our own group is the tree's root, whatever it is called.
            trees.push(if tree.join(own).exists() { tree.join(own) } else { tree });
        }
    }
    Ok(trees)
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
