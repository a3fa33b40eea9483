//! Joining namespaces that are there already (setns(2)): for `exec`, and for a container that shares
//! some with another one.

use std::fs;
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use anyhow::{Context as _, Result, ensure};
use nix::sched::{CloneFlags, setns};
use step01_namespaces::{Namespace, Namespaces};
use step03_rootfs::{Root, sys};

use crate::remap::among_other_mounts;
use crate::store::Store;

/// Namespaces of others, each by a pidfd of a process that is in it: when that process has ended,
/// joining fails, and nobody else is taken for it.
#[derive(Debug, Default)]
pub struct Join(Vec<(OwnedFd, Namespaces)>);

impl Join {
    /// Those `namespaces` that one process is in.
    #[must_use]
    pub fn of(pidfd: OwnedFd, namespaces: Namespaces) -> Self {
        Self(vec![(pidfd, namespaces)])
    }

    /// Those of containers, by their ids. They have to be running.
    pub fn of_containers(wanted: &[(Namespace, String)], store: &Store) -> Result<Self> {
        let mut found = Self::default();
        let mut users = Vec::new();
        let mut rest = wanted.to_vec();
        while let Some((_, id)) = rest.first() {
            let id = id.clone();
            let kinds = rest.extract_if(.., |(_, other)| *other == id).map(|(kind, _)| kind);
            let kinds = kinds.collect();
            let container = store.find(&id)?;
            let (pid, pidfd) = container.first_process()?;
            let namespace = fs::metadata(format!("/proc/{pid}/ns/user"));
            users.push(namespace.with_context(|| format!("cannot look at {id}"))?.ino());
            found.0.push((pidfd, kinds));
        }
        ensure!(
            !wanted.iter().any(|(kind, _)| *kind == Namespace::User)
                || users.iter().all(|user| *user == users[0]),
            "a plain user's containers have a user namespace each, so one container can share \
             namespaces with one other: name the same one"
        );
        Ok(found)
    }

    /// The parent's side, before the clone: the PID namespace is for its children. Who joins a user
    /// namespace as well is in there himself from now on: user 0, and nobody outside.
    pub fn before_clone(&self) -> Result<()> {
        self.join(|all| split(all).0)
    }

    /// The child's side, after the clone.
    pub fn after_clone(&self) -> Result<()> {
        self.join(|all| split(all).1)
    }

    fn join(&self, part: impl Fn(Namespaces) -> Vec<Namespace>) -> Result<()> {
        for (pidfd, namespaces) in &self.0 {
            let kinds = part(*namespaces);
            let names: Vec<_> = kinds.iter().map(|kind| kind.name()).collect();
            let flags = kinds.iter().fold(0, |flags, kind| flags | kind.flag());
            if flags != 0 {
                setns(pidfd, CloneFlags::from_bits_retain(flags)).with_context(|| {
                    format!("cannot join the container's namespaces ({})", names.join(", "))
                })?;
            }
        }
        Ok(())
    }

    /// The child's side, before the root changes: the other's /dev/shm, attached to nothing yet. POSIX
    /// shared memory is files there (shm_overview(7)), so it goes with the IPC namespace.
    pub fn shared_memory(&self) -> Result<Option<OwnedFd>> {
        let other = self.0.iter().find(|(_, namespaces)| namespaces.contains(Namespace::Ipc));
        let Some((pidfd, _)) = other else { return Ok(None) };
        // A mount is copied from within its mount namespace only (open_tree(2)).
        among_other_mounts(|| setns(pidfd, CloneFlags::CLONE_NEWNS), copy_shared_memory)
            .map(Some)
            .context("cannot share the container's /dev/shm")
    }
}

fn copy_shared_memory() -> Result<OwnedFd> {
    let found = Root::open(Path::new("/"))?.find(Path::new("/dev/shm"))?;
    let copy = sys::open_tree_at(found.context("it has none")?.as_fd())?;
    sys::mount_setattr(copy.as_fd(), sys::NOSUID | sys::NODEV | sys::NOEXEC, true)?;
    Ok(copy)
}

/// What is joined before the clone, and what after it, as setns(2) wants it.
// ANCHOR: split
#[must_use]
pub fn split(namespaces: Namespaces) -> (Vec<Namespace>, Vec<Namespace>) {
    // ANCHOR: ex-6.1
    Namespace::ALL
        .into_iter()
        .filter(|&namespace| namespaces.contains(namespace))
        .partition(|namespace| matches!(namespace, Namespace::User | Namespace::Pid))
    // ANCHOR_END: ex-6.1
}
// ANCHOR_END: split
