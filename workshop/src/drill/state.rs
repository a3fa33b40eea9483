//! What a repair must leave as it was: the lab's network, firewall, settings, mounts and files, and
//! of each container its first process, network and limits. A line each, for people to read.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::io::ErrorKind;
use std::os::fd::AsFd as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use nix::sched::{CloneFlags, setns};
use serde_json::Value;

use super::{Drill, path, text};
use crate::snapshot;
use crate::wire::Wire;

/// A line for each thing.
pub struct State(BTreeSet<String>);

/// The settings of IPv4 that decide about forwarding.
const SETTINGS: [&str; 4] = ["forwarding", "proxy_arp", "route_localnet", "rp_filter"];
/// The limits that a container of a drill has, in both versions of cgroups.
const LIMITS: [&str; 5] = [
    "memory.max",
    "memory.swap.max",
    "memory.limit_in_bytes",
    "memory.memsw.limit_in_bytes",
    "pids.max",
];

impl State {
    /// Looks at everything. Call it from a process with one thread: it visits other network
    /// namespaces.
    pub fn take() -> Result<Self> {
        let mut lines: BTreeSet<_> = network("host")?.into_iter().collect();
        lines.extend(firewall()?);
        lines.extend(settings());
        lines.extend(mounts()?);
        lines.extend(files(Path::new("/run/web")));
        for container in containers()? {
            lines.extend(container.describe()?);
        }
        Ok(Self(lines))
    }

    /// Keeps it in a file.
    pub fn save(&self, path: &Path) -> Result<()> {
        let text = self.0.iter().fold(String::new(), |text, line| text + line + "\n");
        fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))
    }

    /// What `save` has written.
    pub fn read(path: &Path) -> Result<Self> {
        let text = fs::read_to_string(path);
        let text = text.with_context(|| format!("cannot read {}", path.display()))?;
        Ok(Self(text.lines().map(str::to_owned).collect()))
    }

    /// What is not as in the healthy lab, and no part of a repair. A repair may add what the drill
    /// says that it touches, and may write there in its own way what the fault had taken away: if
    /// that works, the drill's shell texts find out.
    #[must_use]
    pub fn differences(&self, healthy: &Self, broken: &Self, drill: &Drill) -> Vec<String> {
        let touched = |line: &&String| drill.touches.iter().any(|start| line.starts_with(start));
        let restarted = |line: &&String| drill.restarts && is_of_this_start(line);
        let rewritten = |line: &&String| touched(line) && !broken.0.contains(*line);
        let missing = healthy.0.difference(&self.0);
        let missing = missing.filter(|line| !(restarted(line) || rewritten(line)));
        let new = self.0.difference(&healthy.0).filter(|line| !(restarted(line) || touched(line)));
        let missing = missing.map(|line| format!("- {line}{}", remark(line)));
        missing.chain(new.map(|line| format!("+ {line}"))).collect()
    }
}

/// Whether another start of the container `web` gives another line.
fn is_of_this_start(line: &str) -> bool {
    ["web: process", "web: cgroup", "host: link v"].iter().any(|start| line.starts_with(start))
}

fn remark(line: &str) -> &'static str {
    if line.contains(": process ") {
        " (it was ended or started anew: its clients were cut off, and the cause was not looked for)"
    } else {
        ""
    }
}

/// A running container, as the runtime's store has it.
pub struct Container {
    id: String,
    name: String,
    /// Its first process.
    pub pid: i64,
    start_time: u64,
}

/// The running container of this name.
pub fn container(name: &str) -> Result<Container> {
    let mut all = containers()?.into_iter();
    all.find(|c| c.name == name).with_context(|| format!("no container {name} is running"))
}

fn containers() -> Result<Vec<Container>> {
    let Ok(entries) = fs::read_dir("/run/container-workshop/containers") else {
        return Ok(Vec::new());
    };
    let mut found = Vec::new();
    for entry in entries {
        let path = entry?.path().join("state.json");
        let Ok(text) = fs::read(&path) else { continue }; // it has just been removed
        let state: Value = serde_json::from_slice(&text)
            .with_context(|| format!("{} is not JSON", path.display()))?;
        let string = |name: &str| state[name].as_str().unwrap_or_default().to_owned();
        let process = &state["process"];
        let (Some(pid), Some(start_time), true) =
            (process["pid"].as_i64(), process["start_time"].as_u64(), state["exited"].is_null())
        else {
            continue;
        };
        let (id, name) = (string("id"), string("name"));
        if Path::new(&format!("/proc/{pid}")).exists() {
            found.push(Container { id, name, pid, start_time });
        }
    }
    Ok(found)
}

impl Container {
    fn describe(&self) -> Result<Vec<String>> {
        let Self { id, name, pid, start_time } = self;
        let mut lines = vec![format!("{name}: process {pid}, started at {start_time}")];
        let own = File::open("/proc/self/ns/net").context("cannot open our network namespace")?;
        let path = format!("/proc/{pid}/ns/net");
        let theirs = File::open(&path).with_context(|| format!("cannot open {path}"))?;
        setns(theirs.as_fd(), CloneFlags::CLONE_NEWNET).context("cannot enter its network")?;
        let network = network(name);
        setns(own.as_fd(), CloneFlags::CLONE_NEWNET).context("cannot leave its network")?;
        lines.extend(network?);

        let groups = fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap_or_default();
        lines.extend(groups.lines().map(|line| format!("{name}: cgroup {line}")));
        let group = format!("container-workshop-{}", &id[..12.min(id.len())]);
        for directory in named(Path::new("/sys/fs/cgroup"), &group) {
            for file in LIMITS {
                if let Ok(value) = fs::read_to_string(directory.join(file)) {
                    lines.push(format!("{name}: limit {file} = {}", value.trim()));
                }
            }
        }
        Ok(lines)
    }
}

/// The directories of this name below `base`.
fn named(base: &Path, name: &str) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(base) else { return Vec::new() };
    let mut found = Vec::new();
    for entry in entries.filter_map(Result::ok) {
        if entry.file_name() == name {
            found.push(entry.path());
        } else if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            found.extend(named(&entry.path(), name));
        }
    }
    found
}

/// Links, addresses and routes of the network namespace that we are in.
fn network(whose: &str) -> Result<Vec<String>> {
    let wire = Wire::open()?;
    let mut lines = wire.describe()?;
    lines.extend(wire.down()?.iter().map(|link| format!("link {link} is down")));
    // Routes have their addresses as Inet(10.77.0.0)/24.
    let plain = |line: String| line.replace("Inet(", "").replace(')', "");
    Ok(lines.into_iter().map(|line| format!("{whose}: {}", plain(line))).collect())
}

/// The firewall as nft prints it, each line with its table and chain before it. Without nft, as the
/// kernel's bytes: then nobody can change it by hand either.
fn firewall() -> Result<Vec<String>> {
    let listed = Command::new("nft").args(["-s", "list", "ruleset"]).env("PATH", path()).output();
    let listed = match listed {
        Err(error) if error.kind() == ErrorKind::NotFound => return snapshot::firewall(),
        listed => listed.context("cannot run nft")?,
    };
    ensure!(listed.status.success(), "cannot list the firewall: {}", text(&listed));
    let (mut table, mut chain, mut lines) = (String::new(), String::new(), Vec::new());
    for line in String::from_utf8_lossy(&listed.stdout).lines().map(str::trim) {
        match line.strip_suffix(" {") {
            Some(opened) if opened.starts_with("table ") => {
                table = opened.replacen("table ", "", 1);
                lines.push(format!("nft {table}"));
            }
            Some(opened) => chain = format!(" {}", opened.replacen("chain ", "", 1)),
            None if line == "}" => chain.clear(),
            None if line.is_empty() => {}
            None => lines.push(format!("nft {table}{chain}: {line}")),
        }
    }
    Ok(lines)
}

fn settings() -> Vec<String> {
    let base = Path::new("/proc/sys/net/ipv4");
    let mut paths = vec![base.join("ip_forward")];
    for link in ["all", "workshop0", "uplink"] {
        paths.extend(SETTINGS.map(|name| base.join("conf").join(link).join(name)));
    }
    let show = |path: PathBuf| {
        let value = fs::read_to_string(&path).ok()?;
        Some(format!("setting {} = {}", path.display(), value.trim()))
    };
    paths.into_iter().filter_map(show).collect()
}

/// The mounts of the lab's host, without the numbers that each new mount gets anew.
fn mounts() -> Result<Vec<String>> {
    let text = fs::read_to_string("/proc/self/mountinfo").context("cannot read mountinfo")?;
    let line = |line: &str| {
        let (place, kind) = line.split_once(" - ")?;
        let mut words = place.split(' ').skip(3);
        let (root, at, options) = (words.next()?, words.next()?, words.next()?);
        let shared: Vec<_> = words.map(|tag| tag.split(':').next().unwrap_or(tag)).collect();
        Some(
            format!("mount {at}: {kind}, {root}, {options} {}", shared.join(" ")).trim().to_owned(),
        )
    };
    Ok(text.lines().filter_map(line).collect())
}

fn files(directory: &Path) -> Vec<String> {
    let Ok(entries) = fs::read_dir(directory) else { return Vec::new() };
    let show = |path: PathBuf| {
        let mut hasher = DefaultHasher::new();
        fs::read(&path).ok()?.hash(&mut hasher);
        Some(format!("file {} with contents {:016x}", path.display(), hasher.finish()))
    };
    entries.filter_map(Result::ok).filter_map(|entry| show(entry.path())).collect()
}
