//! Make, join, report, kill, remove.

use std::fs::{self, Permissions};
use std::io::{self, ErrorKind};
use std::os::fd::{AsFd as _, BorrowedFd};
use std::os::unix::fs::{PermissionsExt as _, chown};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, anyhow, bail, ensure};
use colored::Colorize as _;
use nix::unistd::{AccessFlags, Pid, access};
use step01_namespaces::{say, see, warn};

use crate::group::{Group, PARENT};
use crate::hierarchy::read;
use crate::limits::show_bytes;
use crate::settings::settings;
use crate::{Hierarchy, Limits, Setting, Usage, Version, hierarchies};

/// What we want to know of every container, even if nothing limits it.
const ACCOUNTING: [&str; 4] = ["memory", "cpu", "cpuacct", "pids"];

/// Version 2: what can limit, or (io) count.
const CONTROLLERS: [&str; 5] = ["memory", "cpu", "cpuset", "pids", "io"];

/// Version 1: stops all processes of a group at once, so that they can be killed.
const FREEZER: &str = "freezer";

/// A container's cgroup: on version 2 one directory, on version 1 one in each hierarchy that
/// matters. Dropping it ends what is left in it and removes it.
///
/// It may be empty: where we may not make cgroups, and no limit was asked for.
#[derive(Debug)]
pub struct Cgroup {
    version: Version,
    groups: Vec<Group>,
    limits: Limits,
    /// Whether we made it, and so have to remove it.
    ours: bool,
}

impl Cgroup {
    /// Makes a cgroup for the container `name` and sets its limits. A limit that this host cannot
    /// enforce for us is an error.
    // ANCHOR: create
    pub fn create(name: &str, limits: &Limits) -> Result<Self> {
        let hierarchies = freezer_first()?;
        // With both mounted, a controller is where version 1 took it from version 2.
        let mut v1 = hierarchies.iter().filter(|h| is_used_v1(h)).peekable();
        if v1.peek().is_some() {
            return Self::create_v1(name, limits, v1);
        }
        match hierarchies.iter().find(|h| h.version == Version::V2) {
            Some(v2) => Self::create_v2(name, limits, v2),
            None => Self::none(limits, &anyhow!("no cgroup file system is mounted here")),
        }
    }
    // ANCHOR_END: create

    /// Version 1: a group below our own in each hierarchy. The child is moved in by `join`.
    fn create_v1<'h>(
        name: &str,
        limits: &Limits,
        hierarchies: impl Iterator<Item = &'h Hierarchy>,
    ) -> Result<Self> {
        let mut settings = settings(limits, Version::V1);
        let mut cgroup =
            Self { version: Version::V1, groups: Vec::new(), limits: limits.clone(), ours: true };
        for hierarchy in hierarchies {
            let has = |name: &str| hierarchy.controllers.iter().any(|c| c == name);
            let wanted: Vec<_> = settings.extract_if(.., |s| has(s.controller)).collect();
            if wanted.is_empty() && !has(FREEZER) && !ACCOUNTING.iter().any(|name| has(name)) {
                continue;
            }
            Group::sweep(&hierarchy.own)?;
            match Group::create(&hierarchy.own, name) {
                Ok(group) => {
                    let path = group.path.clone();
                    cgroup.groups.push(group); // to be removed, should a limit be refused
                    write_all(&wanted, &path)?;
                }
                Err(error) if wanted.is_empty() && is_denied(&error) => {}
                Err(error) => return Err(explain_v1(&error, &hierarchy.own, wanted.first())),
            }
        }
        match settings.first() {
            None => Ok(cgroup),
            Some(s) => bail!(
                "cannot limit --{}: this kernel has no {} controller, or none is mounted (see \
                 /proc/cgroups){}",
                s.option,
                s.controller,
                see("cgroup-delegation")
            ),
        }
    }

    /// Version 2: one group, in a directory for all of ours, at the top of what we may use.
    // ANCHOR: create_v2
    fn create_v2(name: &str, limits: &Limits, hierarchy: &Hierarchy) -> Result<Self> {
        let Some(top) = delegated(hierarchy) else {
            return Self::none(limits, &anyhow!("{}", undelegated(&hierarchy.own)));
        };
        let parent = top.join(PARENT);
        Group::sweep(&parent)?;
        let settings = settings(limits, Version::V2);
        enable_controllers(&top, &settings)?;
        let group = loop {
            match make_directory(&parent).and_then(|()| Group::create(&parent, name)) {
                // Whoever was the last container has just taken the directory along.
                Err(error) if error.kind() == ErrorKind::NotFound => {}
                result => {
                    break result.with_context(|| {
                        format!("cannot make a cgroup in {}", parent.display())
                    })?;
                }
            }
        };
        let cgroup =
            Self { version: Version::V2, groups: vec![group], limits: limits.clone(), ours: true };
        // From now on it stays. A group has only those controllers that the one above it gives.
        enable(&parent, &settings)?;
        write_all(&settings, &cgroup.groups[0].path)?;
        Ok(cgroup)
    }
    // ANCHOR_END: create_v2

    /// No cgroup, which is an error only if there is a limit to be kept.
    fn none(limits: &Limits, why: &anyhow::Error) -> Result<Self> {
        match settings(limits, Version::V2).first() {
            Some(setting) => bail!("cannot limit --{}: {why}", setting.option),
            None => Ok(Self {
                version: Version::V2,
                groups: Vec::new(),
                limits: limits.clone(),
                ours: true,
            }),
        }
    }

    /// Version 2: the directory for clone3(2), which then makes the child inside.
    #[must_use]
    pub fn fd(&self) -> Option<BorrowedFd<'_>> {
        let group = self.groups.first().filter(|_| self.version == Version::V2)?;
        Some(group.as_fd())
    }

    /// The child's side, version 1: moves the calling process in, before it has done anything:
    /// what it has used until now stays with its old group.
    ///
    /// `tasks` moves one thread and `cgroup.procs` a whole process, and we are one thread. But
    /// moving a process means to keep *every* process of the machine from forking and ending for
    /// that time, which alone takes longer than all the rest of starting a container.
    // ANCHOR: join
    pub fn join(&self) -> Result<()> {
        if self.version == Version::V1 {
            for group in &self.groups {
                fs::write(group.path.join("tasks"), "0")
                    .with_context(|| format!("cannot move into {}", group.path.display()))?;
            }
        }
        Ok(())
    }
    // ANCHOR_END: join

    /// The child's side, version 2, in a cgroup namespace whose root is this group: moves on into a
    /// leaf. A group with processes cannot give controllers to groups below it, and the container is
    /// to make some.
    pub fn enter_leaf(&self) -> Result<()> {
        let Some(group) = self.groups.first() else { return Ok(()) };
        let leaf = group.path.join("init");
        fs::create_dir(&leaf)
            .and_then(|()| fs::write(leaf.join("cgroup.procs"), "0"))
            .with_context(|| format!("cannot move into {}", leaf.display()))
    }

    /// Version 2: lets this group of users look into it. The container's root is in it, and is not ours.
    pub fn show_to(&self, gid: u32) -> Result<()> {
        for path in self.paths().filter(|_| self.version == Version::V2) {
            let show = chown(path, None, Some(gid))
                .and_then(|()| fs::set_permissions(path, Permissions::from_mode(0o750)));
            show.with_context(|| format!("cannot show {} to the container", path.display()))?;
        }
        Ok(())
    }

    /// Whether there is one, which then ends whatever is left in it.
    #[must_use]
    pub fn has_group(&self) -> bool {
        !self.groups.is_empty()
    }

    /// The cgroup that the process is in, for one more to join: not ours to remove.
    pub fn of(pid: Pid) -> Result<Self> {
        let mountinfo = read("/proc/self/mountinfo")?;
        let own = crate::parse(&mountinfo, &read("/proc/self/cgroup")?);
        let wanted = crate::parse(&mountinfo, &read(&format!("/proc/{pid}/cgroup"))?);
        // Where it is in the same group as we are, so will our child be.
        let wanted: Vec<_> = wanted.into_iter().filter(|h| !own.contains(h)).collect();
        let version = wanted.first().map_or(Version::V2, |hierarchy| hierarchy.version);
        let groups = wanted.into_iter().map(|hierarchy| Group::open(hierarchy.own));
        let groups = groups.collect::<io::Result<_>>().context("cannot open its cgroup")?;
        Ok(Self::foreign(version, groups))
    }

    /// Groups that are not ours to remove.
    pub(crate) fn foreign(version: Version, groups: Vec<Group>) -> Self {
        Self { version, groups, limits: Limits::default(), ours: false }
    }

    /// Its directories.
    pub(crate) fn paths(&self) -> impl Iterator<Item = &Path> {
        self.groups.iter().map(|group| group.path.as_path())
    }

    /// Its processes, also those in groups that it has made below its own.
    pub fn processes(&self) -> Result<Vec<Pid>> {
        let Some(group) = self.groups.first() else { return Ok(Vec::new()) };
        processes(&group.path)
            .with_context(|| format!("cannot read the processes of {}", group.path.display()))
    }

    /// What it has used so far.
    #[must_use]
    pub fn usage(&self) -> Usage {
        let mut usage = Usage::default();
        self.groups.iter().for_each(|group| usage.read(&group.path));
        usage
    }

    /// Says so, and returns it, if a process of the container was killed over its memory limit: from
    /// its exit status 137 alone nobody could tell. (A container within it can have died of its own limit.)
    pub fn report(&self) -> bool {
        let Some(limit) = self.limits.memory else { return false };
        let usage = self.usage();
        let was_killed = usage.oom_kills > Some(0) && usage.over_limit != Some(0);
        if was_killed {
            let peak = usage.memory_peak.map(|peak| format!(", peak {}", show_bytes(peak)));
            let peak = peak.unwrap_or_default();
            let text = format!("over its memory limit of {limit}{peak}");
            say("killed:".red().bold(), &text);
        }
        was_killed
    }

    /// Ends every process in it, and waits until they are gone.
    pub fn kill(&self) -> Result<()> {
        self.groups.iter().try_for_each(Group::kill)
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        if !self.ours {
            return;
        }
        // The group that can freeze first: from the others, processes that fork could run away.
        self.groups.sort_by_key(|group| !group.can_freeze());
        for group in &self.groups {
            if let Err(error) = group.remove() {
                warn(&format!("cannot clean up the cgroup: {error:#}"));
            }
        }
    }
}

fn processes(group: &Path) -> io::Result<Vec<Pid>> {
    let text = fs::read_to_string(group.join("cgroup.procs"))?;
    let pids = text.lines().filter_map(|pid| pid.parse().ok());
    let mut found: Vec<_> = pids.map(Pid::from_raw).collect();
    for entry in fs::read_dir(group)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            match processes(&entry.path()) {
                Err(error) if error.kind() == ErrorKind::NotFound => {} // gone meanwhile
                below => found.append(&mut below?),
            }
        }
    }
    Ok(found)
}

/// What is mounted here, in the order in which to clean up: a frozen process does not die before the
/// group that has frozen it is thawed.
fn freezer_first() -> Result<Vec<Hierarchy>> {
    let mut all = hierarchies()?;
    all.sort_by_key(|hierarchy| !hierarchy.controllers.iter().any(|name| name == FREEZER));
    Ok(all)
}

/// Removes the cgroups of runtimes that were killed.
pub fn sweep() -> Result<()> {
    for hierarchy in freezer_first()? {
        let base = match hierarchy.version {
            Version::V1 => Some(hierarchy.own),
            Version::V2 => delegated(&hierarchy).map(|top| top.join(PARENT)),
        };
        base.map_or(Ok(()), |base| Group::sweep(&base))?;
    }
    Ok(())
}

/// Whose cgroups containers have here, and in which directory they are made: of version 1 in the first
/// hierarchy. None, if we may not make any.
pub fn place() -> Result<(Version, Option<PathBuf>)> {
    let hierarchies = hierarchies()?;
    if let Some(v1) = hierarchies.iter().find(|h| is_used_v1(h)) {
        let may = access(&v1.own, AccessFlags::W_OK).is_ok();
        return Ok((Version::V1, may.then(|| v1.own.clone())));
    }
    let v2 = hierarchies.iter().find(|h| h.version == Version::V2);
    Ok((Version::V2, v2.and_then(delegated).map(|top| top.join(PARENT))))
}

/// Fails, and says why, if a container cannot be given its cgroup to write to.
///
/// Where its cgroup namespace begins, the kernel must keep it from raising its own limits: the mount
/// option `nsdelegate` makes a cgroup namespace a border of delegation (cgroup-v2.rst, "Delegation").
pub fn check_delegation() -> Result<()> {
    let hierarchies = hierarchies()?;
    let v2 = hierarchies.iter().find(|h| h.version == Version::V2);
    let v2 = v2.filter(|_| !hierarchies.iter().any(is_used_v1));
    let v2 = v2.context("this host has cgroup version 1, which cannot be delegated safely")?;
    ensure!(
        v2.nsdelegate,
        "{} is mounted without nsdelegate, so a container could raise its own limits; systemd mounts \
         it with that: mount -o remount,nsdelegate {0}",
        v2.mount.display()
    );
    ensure!(delegated(v2).is_some(), "{}", undelegated(&v2.own));
    Ok(())
}

fn is_used_v1(hierarchy: &Hierarchy) -> bool {
    let is_used = |name: &str| ACCOUNTING.contains(&name) || [FREEZER, "cpuset"].contains(&name);
    hierarchy.version == Version::V1 && hierarchy.controllers.iter().any(|name| is_used(name))
}

fn is_denied(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::PermissionDenied | ErrorKind::ReadOnlyFilesystem)
}

fn write_all(settings: &[Setting], group: &Path) -> Result<()> {
    for setting in settings {
        setting.write(group).with_context(|| {
            format!(
                "cannot limit --{}: writing {:?} to {}",
                setting.option, setting.value, setting.file
            )
        })?;
    }
    Ok(())
}

/// The highest cgroup from ours upwards that we may use: for root the top of the tree, for a
/// plain user the top of what was delegated (cgroup-v2.rst, "Delegation").
fn delegated(hierarchy: &Hierarchy) -> Option<PathBuf> {
    let ours = |path: &&Path| {
        let writable = |file: &Path| access(file, AccessFlags::W_OK).is_ok();
        path.starts_with(&hierarchy.mount)
            && writable(path)
            && writable(&path.join("cgroup.procs"))
            && (writable(&path.join("cgroup.subtree_control")) || *path == hierarchy.mount)
    };
    hierarchy.own.ancestors().take_while(ours).last().map(Path::to_owned)
}

/// Switches on, for the groups below `top`, what the settings need, and for accounting what can be
/// had.
// ANCHOR: controllers
fn enable_controllers(top: &Path, settings: &[Setting]) -> Result<()> {
    // "No internal processes": a group other than the root, which has no type, either has processes
    // or gives controllers such as memory to its children.
    let processes = fs::read_to_string(top.join("cgroup.procs")).unwrap_or_default();
    let problem = if !processes.is_empty() && top.join("cgroup.type").exists() {
        Some(internal_processes(top))
    } else {
        enable(top, settings).err().map(|error| format!("{error:#}"))
    };
    match (settings.first(), problem) {
        (Some(setting), Some(problem)) => bail!("cannot limit --{}: {problem}", setting.option),
        _ => Ok(()), // only for accounting: then there is none
    }
}

/// Switches on all controllers that there are, if only so that the next container finds them; an
/// error is about one that the settings need.
fn enable(group: &Path, settings: &[Setting]) -> Result<()> {
    let read = |file: &str| {
        let text = fs::read_to_string(group.join(file));
        text.with_context(|| format!("cannot read {file} of {}", group.display()))
    };
    let (there, on) = (read("cgroup.controllers")?, read("cgroup.subtree_control")?);
    let has = |list: &str, name: &str| list.split_whitespace().any(|found| found == name);
    if let Some(missing) = settings.iter().find(|setting| !has(&there, setting.controller)) {
        bail!(
            "the {} controller is not available in {} (its cgroup.controllers has: {}); {}",
            missing.controller,
            group.display(),
            there.trim(),
            delegate_hint(),
        );
    }
    for controller in CONTROLLERS.iter().filter(|name| has(&there, name) && !has(&on, name)) {
        let written = fs::write(group.join("cgroup.subtree_control"), format!("+{controller}"));
        match written {
            Err(error) if settings.iter().any(|setting| setting.controller == *controller) => {
                return Err(explain_v2(&error, controller, group));
            }
            _ => {} // on now, or wanted by nobody yet
        }
    }
    Ok(())
}
// ANCHOR_END: controllers

/// We do not move them: they are not ours.
fn internal_processes(top: &Path) -> String {
    let top = top.display();
    format!(
        "{top} has processes, and a cgroup other than the root has either those or children with \
         limits; move them into a group below it: mkdir {top}/leaf; for pid in $(cat \
         {top}/cgroup.procs); do echo $pid > {top}/leaf/cgroup.procs; done"
    )
}

fn explain_v2(error: &io::Error, controller: &str, group: &Path) -> anyhow::Error {
    let group = group.display();
    let hint = if is_denied(error) && controller == "cpuset" {
        format!(
            " (the kernel asks if we might choose processors for each process in it, and one has \
             more capabilities than we, say in a user namespace); have root do it: echo +cpuset > \
             {group}/cgroup.subtree_control"
        )
    } else {
        String::new()
    };
    anyhow!("cannot switch the {controller} controller on in {group}: {error}{hint}")
}

fn make_directory(path: &Path) -> io::Result<()> {
    match fs::create_dir(path) {
        Err(error) if error.kind() == ErrorKind::AlreadyExists => Ok(()),
        result => result,
    }
}

fn undelegated(own: &Path) -> String {
    format!("the cgroup {} is not ours to write; {}", own.display(), delegate_hint())
}

fn delegate_hint() -> String {
    "have systemd delegate one (systemd-run --user --scope -p Delegate=yes COMMAND), or run as root"
        .to_owned()
        + &see("cgroup-delegation")
}

fn explain_v1(error: &io::Error, parent: &Path, wanted: Option<&Setting>) -> anyhow::Error {
    let hint = if is_denied(error) {
        "; cgroup version 1 cannot be delegated safely, so limits take root here".to_owned()
            + &see("cgroup-delegation")
    } else {
        String::new()
    };
    let what = wanted.map_or_else(String::new, |s| format!("cannot limit --{}: ", s.option));
    anyhow!("{what}cannot make a cgroup in {}: {error}{hint}", parent.display())
}
