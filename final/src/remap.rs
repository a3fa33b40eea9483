//! `--userns remap`: a container of root's in a user namespace of its own, whose root is nobody on the host.
//!
//! The ids are those that /etc/subuid and /etc/subgid (subuid(5)) give to a name of ours; all such
//! containers have the same ones, as docker's have. The image's files get their owners by ID-mapped mounts
//! (step 3's owners.rs), and what a container writes belongs to its ids on disk.

use std::fs;
use std::io::ErrorKind;
use std::os::fd::BorrowedFd;
use std::process::Command;

use anyhow::{Context as _, Result, bail, ensure};
use nix::fcntl::{OFlag, open};
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, setns, unshare};
use nix::sys::prctl;
use nix::sys::resource::{getrlimit, setrlimit};
use nix::sys::signal::Signal;
use nix::sys::stat::Mode;
use nix::unistd::{Gid, Uid, chroot, fchdir, fchown, geteuid, setgroups, setresgid, setresuid};
use step01_namespaces::{Child, IdMaps, IdRange, Namespace, in_user_namespace};
use step03_rootfs::{Owners, Parts, Root, Rootfs};

use crate::process::{Process, close_to_others};
use crate::user::is_pipe;

/// Whose ranges they are. It need not be a user's name, and nobody else's containers have these ids then.
const NAME: &str = "container-workshop";
/// How many a container has: all that a system of its own gives away, up to nobody (65534).
const COUNT: u32 = 65_536;
/// Below are the host's own users.
const LOWEST: u32 = 65_536;

/// The ids of containers on this host.
pub fn find() -> Result<IdMaps> {
    ensure!(
        geteuid().is_root(),
        "a plain user's container has a user namespace in any case, in which root is that user; to show \
         it the image's files with other owners takes root of the host (an ID-mapped mount)"
    );
    ensure!(
        !in_user_namespace()?,
        "it takes root of the host, and this is one in a user namespace: such a one can neither give a \
         container ids that it has not itself, nor show it the image's files with other owners"
    );
    let (uids, gids) = (Table::read("/etc/subuid")?, Table::read("/etc/subgid")?);
    let users = Table::read("/etc/passwd")?;
    let groups = Table::read("/etc/group")?;
    let free = Table::free(&[&uids, &gids]);
    Ok(IdMaps { uids: uids.range(free, &users)?, gids: gids.range(free, &groups)? })
}

/// The lines of a file of the host, split at the colons.
struct Table {
    file: &'static str,
    lines: Vec<Vec<String>>,
}

impl Table {
    fn read(file: &'static str) -> Result<Self> {
        let text = match fs::read(file) {
            Err(error) if error.kind() == ErrorKind::NotFound => Vec::new(),
            text => text.with_context(|| format!("cannot read {file}"))?,
        };
        Ok(Self::parse(file, &String::from_utf8_lossy(&text)))
    }

    fn parse(file: &'static str, text: &str) -> Self {
        let lines = text.lines().map(|line| line.trim().split(':').map(str::to_owned).collect());
        Self { file, lines: lines.collect() }
    }

    /// Of a line `NAME:FIRST:COUNT` the first id, and the one behind the last.
    fn ids(line: &[String]) -> Option<(u32, u32)> {
        let [_, first, count] = line else { return None };
        let (first, count): (u32, u32) = (first.parse().ok()?, count.parse().ok()?);
        Some((first, first.checked_add(count)?))
    }

    /// Where a range could begin that nobody has yet.
    fn free(tables: &[&Self]) -> u32 {
        let lines = tables.iter().flat_map(|table| &table.lines);
        let taken: Vec<_> = lines.filter_map(|line| Self::ids(line)).collect();
        let mut free = 100_000_u32; // useradd(8) begins there, too
        let is_taken = |free: u32| {
            taken.iter().find(|(first, end)| *first < free.saturating_add(COUNT) && free < *end)
        };
        while let Some((_, end)) = is_taken(free) {
            free = *end;
        }
        free
    }

    /// Our own range, if nobody else can be meant by it.
    fn range(&self, free: u32, known: &Self) -> Result<IdRange> {
        let file = self.file;
        let ours = self.lines.iter().find(|line| line[0] == NAME);
        let ours = ours.with_context(|| {
            format!(
                "{file} has no ids for containers; add to /etc/subuid and to /etc/subgid the line \
                 {NAME}:{free}:{COUNT}"
            )
        })?;
        let shown = ours.join(":");
        let Some((first, end)) = Self::ids(ours) else {
            bail!("{file}: {shown:?} is not NAME:FIRST:COUNT");
        };
        ensure!(
            end - first >= COUNT,
            "{file}: {shown:?} has {} ids, and a container has {COUNT}",
            end - first
        );
        ensure!(
            first >= LOWEST,
            "{file}: {shown:?} begins below {LOWEST}, with the host's own users"
        );
        let range = IdRange { first, count: COUNT };
        let end = first + COUNT;
        let shared = |(other, others_end): (u32, u32)| other < end && first < others_end;
        let other =
            self.lines.iter().find(|line| line[0] != NAME && Self::ids(line).is_some_and(shared));
        if let Some(other) = other {
            bail!(
                "{file}: {shown:?} and {:?} overlap: that user could be a container's root",
                other.join(":")
            );
        }
        let is_in = |id: u32| (first..end).contains(&id);
        let id =
            |line: &&Vec<String>| line.get(2).and_then(|id| id.parse().ok()).is_some_and(is_in);
        if let Some(owner) = known.lines.iter().find(id) {
            bail!("{file}: {shown:?} has the id of {} in {}", owner[0], known.file);
        }
        Ok(range)
    }
}

/// The parent's side: writes the id maps of a child in a new user namespace; without ids of its own the
/// usual ones.
pub fn map_ids(child: &Child, ids: Option<IdMaps>) -> Result<()> {
    ids.map_or_else(|| child.map_ids(), |ids| ids.write(child.pid()))
}

/// The parent's side: opens all that the container gets of the host, while we may. One without ids of its
/// own does so by itself.
// ANCHOR: open
pub fn open_rootfs(rootfs: &Rootfs, ids: Option<IdMaps>) -> Result<Option<Parts>> {
    let Some(maps) = ids else { return Ok(None) };
    ensure!(
        find()? == maps,
        "its ids are no longer those of {NAME} in /etc/subuid and /etc/subgid; make the container anew"
    );
    // The child's user namespace is not there yet, but any with the same maps says who is who.
    let holder =
        Child::spawn([Namespace::User].into_iter().collect(), None, || -> Result<Command> {
            bail!("no program")
        })?;
    maps.write(holder.pid())?;
    let path = format!("/proc/{}/ns/user", holder.pid());
    let user_namespace = open(&*path, OFlag::O_RDONLY | OFlag::O_CLOEXEC, Mode::empty())
        .with_context(|| format!("cannot open {path}"))?;
    let owners = Owners { maps, user_namespace };
    // What is mounted there to be copied, the host does not see.
    let own_mounts = || {
        unshare(CloneFlags::CLONE_NEWNS)?;
        mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_PRIVATE, None::<&str>)
    };
    among_other_mounts(own_mounts, || rootfs.open_for(&owners)).map(Some)
}
// ANCHOR_END: open

/// The child's side: makes this its root, of what its parent has opened for it, if it had to.
pub fn enter(rootfs: &Rootfs, parts: Option<Parts>) -> Result<Root> {
    parts.map_or_else(|| rootfs.enter(), |parts| rootfs.enter_with(parts))
}

/// Does `work` in the mount namespace that `leave` goes to, and comes back; with our root and working
/// directory, which setns(2) makes those of the other.
pub fn among_other_mounts<T>(
    leave: impl FnOnce() -> nix::Result<()>,
    work: impl FnOnce() -> Result<T>,
) -> Result<T> {
    let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    let home = open("/proc/self/ns/mnt", OFlag::O_RDONLY | OFlag::O_CLOEXEC, Mode::empty());
    let home = home.context("cannot open /proc/self/ns/mnt")?;
    let root = open("/", flags, Mode::empty()).context("cannot open /")?;
    leave().context("cannot go to other mounts")?;
    let done = work();
    setns(&home, CloneFlags::CLONE_NEWNS)
        .and_then(|()| fchdir(&root))
        .and_then(|()| chroot("."))
        .context("cannot come back from other mounts")?;
    done
}

/// The parent's side, before it or its child is in there: what only the host's root can give. That is limits
/// above our own, and pipes, which the program may open again by their names (/dev/stdout).
pub fn provide(process: &Process, maps: IdMaps, stdio: &[BorrowedFd<'_>]) -> Result<()> {
    let (uid, gid) = (Uid::from_raw(maps.uids.first), Gid::from_raw(maps.gids.first));
    for pipe in stdio.iter().filter(|fd| is_pipe(**fd)) {
        fchown(pipe, Some(uid), Some(gid)).context("cannot give a pipe to the container")?;
    }
    for &(resource, _, hard) in &process.rlimits {
        getrlimit(resource)
            .and_then(|(soft, before)| setrlimit(resource, soft, hard.max(before)))
            .with_context(|| format!("cannot raise the limit {resource:?} to {hard}"))?;
    }
    Ok(())
}

/// The child's side, with its maps written: becomes root of its user namespace. Until then it is the host's
/// root to all files that it can reach, but has no capability over anything of the host. Without ids of its own
/// it is root already.
pub fn become_root(ids: Option<IdMaps>) -> Result<()> {
    if ids.is_none() {
        return Ok(());
    }
    let (uid, gid) = (Uid::from_raw(0), Gid::from_raw(0));
    setgroups(&[])
        .and_then(|()| setresgid(gid, gid, gid))
        .and_then(|()| setresuid(uid, uid, uid))
        .context("cannot become root of the new user namespace")?;
    // The kernel has forgotten both by now (prctl(2)).
    prctl::set_pdeathsig(Signal::SIGKILL).context("cannot tie the child to its parent")?;
    close_to_others()
}

#[cfg(test)]
mod tests {
    use super::Table;

    #[test]
    fn a_range_is_nobody_elses() {
        let none = Table::parse("/etc/passwd", "root:x:0:0::/:\n");
        let ada = Table::parse("/etc/passwd", "root:x:0:0::/:\nada:x:265535:5::/:\n");
        let ids = Table::parse("/etc/subuid", "# ids\n\nodd\ncontainer-workshop:200000:70000\n");
        let range = ids.range(0, &none).unwrap();
        assert_eq!((range.first, range.count), (200_000, 65_536));
        let error = ids.range(0, &ada).unwrap_err().to_string();
        assert!(error.ends_with("has the id of ada in /etc/passwd"), "{error}");
        let others = "ada:100000:65536\ncontainers:2147483647:2147483648\n";
        let others = Table::parse("/etc/subgid", others);
        assert_eq!(Table::free(&[&ids]), 100_000);
        assert_eq!(Table::free(&[&ids, &others]), 270_000);
    }
}
