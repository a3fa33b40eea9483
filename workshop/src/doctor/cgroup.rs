//! Cgroups: whether limits can be set, and where.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use nix::errno::Errno;
use nix::unistd::{AccessFlags, access};

use super::attempt::{Refused, Seen};
use super::machine::{PRIVILEGED, outer_container};
use super::{Finding, stops};
use crate::lab::is_machines_root;

/// What `final run` can limit.
const CONTROLLERS: [&str; 4] = ["memory", "cpu", "pids", "cpuset"];

/// How a refusal ends that has nothing to do with permissions: "no internal processes", cgroups(7).
const HAS_PROCESSES: &str =
    " has processes, and a cgroup other than the root has either those or children with limits";

/// Our cgroup in version 1's tree of this controller (version 2's for an empty name): the mount, and our
/// directory in it. Both texts are of proc_pid_mountinfo(5) and cgroups(7).
fn own_group(controller: &str) -> Option<(PathBuf, PathBuf)> {
    let (mounts, groups) = (
        fs::read_to_string("/proc/self/mountinfo").ok()?,
        fs::read_to_string("/proc/self/cgroup").ok()?,
    );
    let has = |list: &str| list.split(',').any(|name| name == controller);
    let path = groups.lines().find_map(|line| {
        let (names, path) = line.split_once(':')?.1.split_once(':')?;
        has(names).then_some(path)
    })?;
    mounts.lines().find_map(|line| {
        let (place, kind) = line.split_once(" - ")?;
        let (mut place, mut kind) = (place.split(' ').skip(3), kind.split(' '));
        let (kind, options) = (kind.next()?, kind.nth(1)?);
        let wanted = if controller.is_empty() {
            kind == "cgroup2"
        } else {
            kind == "cgroup" && has(options)
        };
        let (root, mount) = (wanted.then_some(place.next()?)?, PathBuf::from(place.next()?));
        // Where a cgroup namespace hides our place, the top of what is mounted is as good.
        let below = Path::new(path).strip_prefix(root).ok().filter(|path| !path.starts_with(".."));
        Some((mount.clone(), below.map_or(mount.clone(), |below| mount.join(below))))
    })
}

pub fn delegation() -> Seen {
    let v1: Vec<_> =
        CONTROLLERS.iter().filter_map(|name| Some((*name, own_group(name)?.1))).collect();
    if v1.is_empty() {
        return delegation_of_v2();
    }
    for (controller, group) in &v1 {
        make_and_remove(group).with_context(|| format!("version 1, {controller}"))?;
    }
    let names: Vec<_> = v1.iter().map(|(name, _)| *name).collect();
    Ok(format!("version 1 ({}): limits work", names.join(", ")))
}

/// As step 2 does it: in a directory in the highest cgroup from ours upwards that is ours to use.
fn delegation_of_v2() -> Seen {
    let (mount, own) =
        own_group("").ok_or_else(|| Refused::because("no cgroup file system is mounted"))?;
    let writable = |path: &Path| access(path, AccessFlags::W_OK).is_ok();
    let ours = |path: &&Path| {
        path.starts_with(&mount)
            && writable(path)
            && writable(&path.join("cgroup.procs"))
            && (*path == mount || writable(&path.join("cgroup.subtree_control")))
    };
    let top = own.ancestors().take_while(ours).last().ok_or_else(|| {
        Refused::because(format!(
            "version 2, and the cgroup {} is not yours to write",
            own.display()
        ))
    })?;
    // The root of the tree, which has no type, may have both them and groups with limits.
    let has_processes = top.join("cgroup.type").exists()
        && fs::read_to_string(top.join("cgroup.procs")).is_ok_and(|pids| !pids.is_empty());
    let there = fs::read_to_string(top.join("cgroup.controllers"))
        .context("cannot read cgroup.controllers")?;
    let missing: Vec<_> = CONTROLLERS
        .into_iter()
        .filter(|name| !there.split_whitespace().any(|found| found == *name))
        .collect();
    let ours = top.join("container-workshop");
    let attempt = || {
        match fs::create_dir(&ours) {
            Err(error) if error.kind() != ErrorKind::AlreadyExists => {
                Err(error).with_context(|| format!("cannot make a cgroup in {}", top.display()))?;
            }
            _ => {}
        }
        make_and_remove(&ours)
    };
    let done = attempt().or_else(|_| attempt()); // the last container may have taken it along
    let _ = fs::remove_dir(&ours); // unless there are containers in it
    done.context("version 2")?;
    let top = top.display();
    if !missing.is_empty() {
        let missing = missing.join(", ");
        return Err(Refused::because(format!(
            "version 2, but {top} lacks the controllers {missing}"
        )));
    }
    if has_processes {
        return Err(Refused::because(format!("version 2, but {top}{HAS_PROCESSES}")));
    }
    Ok(format!("version 2: limits work, below {top}"))
}

/// A name that `final gc` would know, should we be killed between the two calls.
fn make_and_remove(parent: &Path) -> Result<()> {
    let group = parent.join(format!("container-workshop-doctor-{}", std::process::id()));
    fs::create_dir(&group)
        .with_context(|| format!("cannot make a cgroup in {}", parent.display()))?;
    match fs::remove_dir(&group) {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            Err(error).with_context(|| format!("cannot remove {}", group.display()))
        }
        _ => Ok(()), // somebody's sweep may have been faster
    }
}

pub fn explain_delegation(refused: &Refused) -> Finding {
    let cause = &refused.text;
    let root = is_machines_root();
    let systemd = Path::new("/run/systemd/system").exists();
    if let Some(top) = cause.strip_suffix(HAS_PROCESSES) {
        let top = top.trim_start_matches("version 2, but ");
        let fix = format!(
            "move them into a group below it: mkdir {top}/leaf; for pid in $(cat {top}/cgroup.procs); \
             do echo $pid > {top}/leaf/cgroup.procs; done"
        );
        return stops(cause, fix);
    }
    if outer_container().is_some() && (root || refused.errno == Errno::EROFS) {
        return stops(cause, PRIVILEGED);
    }
    if cause.contains("lacks the controllers") {
        let fix = "sudo systemctl edit user@.service, there: [Service] Delegate=cpu cpuset io memory pids; \
                   then log in anew";
        return stops(cause, if systemd { fix } else { "run as root" });
    }
    if cause.starts_with("version 2") && !root && systemd {
        return stops(
            cause,
            "get a shell in a cgroup of yours: systemd-run --user --scope -p Delegate=yes $SHELL",
        );
    }
    if cause.starts_with("version 1") && !root {
        return stops(
            format!("{cause}; version 1 cannot be delegated safely"),
            "limits take root of the machine here: sudo",
        );
    }
    if cause.starts_with("no cgroup") {
        return stops(cause, "sudo mount -t cgroup2 -o nsdelegate none /sys/fs/cgroup");
    }
    stops(cause, "run as root of the machine")
}

/// The least of what pids.max leaves, in our cgroup and those above it, with the file that says so.
pub fn room_for_processes() -> Option<(u64, String)> {
    let (mount, own) = own_group("pids").or_else(|| own_group(""))?;
    let room = |group: &Path| {
        let read = |file| fs::read_to_string(group.join(file)).ok()?.trim().parse::<u64>().ok();
        let (most, now) = (read("pids.max")?, read("pids.current")?);
        Some((most.saturating_sub(now), group.join("pids.max").display().to_string()))
    };
    own.ancestors().take_while(|group| group.starts_with(&mount)).filter_map(room).min()
}
