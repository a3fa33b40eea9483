//! Id maps: who is who in a user namespace (user_namespaces(7)).

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::process::Command;

use anyhow::{Context as _, Result, anyhow, ensure};
use nix::unistd::{Pid, Uid, User, getegid, geteuid};

use crate::see;

/// Whether we are in a user namespace other than the first one, where every id is itself.
pub fn in_user_namespace() -> Result<bool> {
    let path = "/proc/self/uid_map";
    let map = fs::read_to_string(path).with_context(|| format!("cannot read {path}"))?;
    Ok(!map.split_whitespace().eq(["0", "0", "4294967295"]))
}

/// The parent's side: makes the caller root in the new user namespace of `pid`.
///
/// A user with ranges in /etc/subuid and /etc/subgid gets these as ids 1 and up; the setuid
/// programs newuidmap(1) and newgidmap(1) check them and write the map for us. Everybody else
/// gets a map of one id, their own, which the kernel lets anybody write.
// ANCHOR: maps
pub fn write_id_maps(pid: Pid) -> Result<()> {
    let (uid, gid) = (geteuid().as_raw(), getegid().as_raw());
    if !geteuid().is_root()
        && let (Some(uids), Some(gids)) = (subids("/etc/subuid"), subids("/etc/subgid"))
        // Its owner is not root, as we see it, in a user namespace that has no root: then it can do
        // no more than we can.
        && fs::metadata("/usr/bin/newuidmap").is_ok_and(|file| file.uid() == 0)
    {
        run_helper("/usr/bin/newuidmap", pid, uid, &uids)?;
        return run_helper("/usr/bin/newgidmap", pid, gid, &gids);
    }
    map_one_id(pid, uid, gid)
}

/// A map of one id: inside 0, outside `uid`, and the same for the group.
pub fn map_one_id(pid: Pid, uid: u32, gid: u32) -> Result<()> {
    // ANCHOR: ex-1.3
    // A group may be there to keep its members *out* of a file (mode 0604). So that nobody
    // sheds a group this way, the kernel wants setgroups(2) denied before it takes a gid map.
    let proc = format!("/proc/{pid}");
    write(&format!("{proc}/setgroups"), "deny")?;
    write(&format!("{proc}/uid_map"), &format!("0 {uid} 1"))?;
    write(&format!("{proc}/gid_map"), &format!("0 {gid} 1"))
    // ANCHOR_END: ex-1.3
}
// ANCHOR_END: maps

/// So many ids of the host, from `first` on: they are 0, 1, 2 and so on in a user namespace.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IdRange {
    /// Whom 0 is outside.
    pub first: u32,
    /// How many there are.
    pub count: u32,
}

/// Both maps of a user namespace.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IdMaps {
    /// Users.
    pub uids: IdRange,
    /// Groups.
    pub gids: IdRange,
}

impl IdMaps {
    /// Writes them for the new user namespace of `pid`. To map ids that are not its own takes root
    /// (CAP_SETUID and CAP_SETGID); then setgroups(2) need not be denied.
    pub fn write(&self, pid: Pid) -> Result<()> {
        for (file, IdRange { first, count }) in [("uid_map", self.uids), ("gid_map", self.gids)] {
            write(&format!("/proc/{pid}/{file}"), &format!("0 {first} {count}"))?;
        }
        Ok(())
    }
}

fn write(path: &str, text: &str) -> Result<()> {
    fs::write(path, text)
        .map_err(|error| anyhow!("cannot write {text:?} to {path}: {error}{}", see("userns")))
}

/// The first range of our user in `file`, as (first id, count) in decimal (subuid(5)).
fn subids(file: &str) -> Option<(String, String)> {
    let uid = Uid::current();
    let name = User::from_uid(uid).ok()?.map_or_else(String::new, |user| user.name);
    fs::read_to_string(file).ok()?.lines().find_map(|line| {
        let mut fields = line.split(':');
        let owner = fields.next()?;
        let range = (fields.next()?.to_owned(), fields.next()?.to_owned());
        (owner == name || owner == uid.to_string()).then_some(range)
    })
}

/// `newuidmap PID 0 OURS 1  1 FIRST COUNT`: us as root, our range behind it.
fn run_helper(helper: &str, pid: Pid, ours: u32, (first, count): &(String, String)) -> Result<()> {
    let output = Command::new(helper)
        .arg(pid.to_string())
        .args(["0", &ours.to_string(), "1", "1", first, count])
        .output()
        .with_context(|| format!("cannot run {helper}"))?;
    ensure!(
        output.status.success(),
        "{helper} refused the ids {first}+{count}: {}; it must be setuid root and the range must \
         be ours in /etc/subuid and /etc/subgid{}",
        String::from_utf8_lossy(&output.stderr).trim(),
        see("id-range")
    );
    Ok(())
}
