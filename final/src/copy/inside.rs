//! The process that works in a container.

use std::fs::File;
use std::os::fd::AsFd as _;
use std::path::Path;
use std::thread::sleep;

use anyhow::{Context as _, Result, ensure};
use caps::Capability;
use nix::sys::prctl;
use nix::sys::signal::Signal;
use nix::unistd::{Pid, geteuid, getpid, getppid};
use step01_namespaces::{IdMaps, Namespace, Namespaces};
use step03_rootfs::{Parts, Rootfs, sys};

use crate::bundle::Bundle;
use crate::join::Join;
use crate::process::{Work, close_to_others};
use crate::remap;
use crate::security::{limit_capabilities, no_new_privileges};
use crate::store::{Container, MOMENT, Store};

/// All that copying takes: files of any user can be read, made, and given to anybody.
const KEPT: [Capability; 4] = [
    Capability::CAP_CHOWN,
    Capability::CAP_DAC_OVERRIDE,
    Capability::CAP_FOWNER,
    Capability::CAP_FSETID,
];

/// The way into a container. It has a user namespace with these ids, if it has such of its own.
pub struct Inside {
    way: Way,
    ids: Option<IdMaps>,
}

enum Way {
    /// It runs: in there with its processes, but with none of what it sees of itself. It does not see us,
    /// as its PID namespace is not ours.
    Running(Join),
    /// It is at rest: we build what it sees, as its next start will, and that one waits for the lock.
    AtRest(Rootfs, Namespaces, File),
}

impl Inside {
    /// Of the container with this name; `writes` says whether it is to be changed.
    pub fn of(store: &Store, name: &str, writes: bool) -> Result<Self> {
        loop {
            let container = store.find(name)?;
            if container.is_alive()? {
                return Self::running(&container);
            }
            let Some(lock) = container.lock_at_rest()? else {
                sleep(MOMENT); // somebody else copies, or has just started it
                continue;
            };
            // Who starts it, or removes it, has done so before we got the lock, and nobody does any more.
            let state = container.reload()?;
            let state = state.with_context(|| format!("{name} was removed just now"))?;
            ensure!(
                state.monitor.is_none(),
                "the monitor of {name} was killed just now: try again"
            );
            return Self::at_rest(&container, writes, lock);
        }
    }

    fn running(container: &Container) -> Result<Self> {
        let name = &container.state.name;
        let (_, pidfd) = container
            .first_process()
            .with_context(|| format!("{name} is just being started: try again"))?;
        let wanted = [Namespace::User, Namespace::Mnt];
        let bundle = Bundle::load(container.bundle())?;
        let all = bundle.all_namespaces();
        let wanted = wanted.into_iter().filter(|&namespace| all.contains(namespace)).collect();
        Ok(Self { way: Way::Running(Join::of(pidfd, wanted)), ids: bundle.ids })
    }

    fn at_rest(container: &Container, writes: bool, lock: File) -> Result<Self> {
        let bundle = Bundle::load(container.bundle())?;
        let mut rootfs = bundle.rootfs;
        rootfs.keep = container.layer()?;
        let may = rootfs.keep.is_some() || (!writes && container.state.started.is_none());
        let name = &container.state.name;
        ensure!(may, "what {name} writes is not kept on disk, and it does not run");
        // What shows the machine and processes is nothing to be copied, nor to be mounted by who has
        // no such namespaces.
        let shown = [Path::new("/proc"), Path::new("/sys")];
        rootfs.mounts.retain(|mount| {
            let is_files = ["bind", "tmpfs"].contains(&mount.kind.as_str());
            is_files && !shown.contains(&mount.destination.as_path())
        });
        (rootfs.masked, rootfs.readonly, rootfs.devices) = (Vec::new(), Vec::new(), Vec::new());
        rootfs.workdir = "/".into();
        let user = bundle.namespaces.contains(Namespace::User) || !geteuid().is_root();
        let namespaces = [Namespace::Mnt].into_iter().chain(user.then_some(Namespace::User));
        Ok(Self { way: Way::AtRest(rootfs, namespaces.collect(), lock), ids: bundle.ids })
    }

    /// Begins a child that does `work` in there, and can do little else.
    pub fn begin(self, work: impl FnOnce() -> Result<()>) -> Result<Work> {
        let (parent, ids) = (getpid(), self.ids);
        match self.way {
            Way::Running(join) => {
                close_to_others()?; // before the child is there to be seen: it inherits this
                Work::start(Namespaces::default(), None, || {
                    join.before_clone()?; // the user namespace; it has no PID namespace
                    join.after_clone()?;
                    remap::become_root(ids)?;
                    restrict(parent)?;
                    work()
                })
            }
            // The child has a copy of the lock, so that it ends with the later one of us.
            Way::AtRest(rootfs, namespaces, _lock) => {
                let parts = remap::open_rootfs(&rootfs, ids)?;
                Work::start(namespaces, ids, || {
                    namespaces.set_up("")?;
                    remap::become_root(ids)?;
                    enter(&rootfs, parts)?;
                    restrict(parent)?;
                    work()
                })
            }
        }
    }
}

/// A container's root as its next start will see it.
fn enter(rootfs: &Rootfs, parts: Option<Parts>) -> Result<()> {
    let root = remap::enter(rootfs, parts)?;
    rootfs.make_read_only(&root)?;
    // What is written there would be gone with us, without a word.
    for mount in rootfs.mounts.iter().filter(|mount| mount.kind == "tmpfs") {
        let place = root.find(&mount.destination)?;
        let place = place.with_context(|| format!("no {}", mount.destination.display()))?;
        sys::mount_setattr(place.as_fd(), sys::RDONLY, false)
            .with_context(|| format!("cannot make {mount} read-only"))?;
    }
    Ok(())
}

/// From here on we look at what is the container's.
fn restrict(parent: Pid) -> Result<()> {
    // To join a user namespace has undone it (prctl(2)).
    prctl::set_pdeathsig(Signal::SIGKILL).context("cannot tie the child to its parent")?;
    ensure!(getppid() == parent, "the parent went away");
    no_new_privileges()?;
    limit_capabilities(&KEPT.into_iter().collect())
}
