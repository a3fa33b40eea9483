//! The networks of a plain user: one network namespace for all of them, in which the user is root.
//!
//! On the host a plain user may make neither a bridge nor a rule. But who makes a user namespace is
//! root in it, and of the network namespaces that belong to it (user_namespaces(7)). So the monitor
//! of a container goes into such a pair before it does anything about the network, and from there on
//! all is done as root does it on the host, by the same code. Its container has no user namespace of its
//! own: it is in this one, with its user's other containers on networks.
//!
//! Nobody holds the namespaces but the monitors that are in them, and each shows the others the way. With
//! the last process in it the kernel removes a network namespace, with its bridges, cables and rules.

use std::fs::{self, DirBuilder, File};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};
use nix::sched::{CloneFlags, setns};
use nix::unistd::{Pid, geteuid};
use step01_namespaces::{Child, Namespace, Namespaces, warn};
use step04_bridge_veth::{POOLS, loopback_up};

use super::{names, uplink};
use crate::process::in_child;
use crate::store::{self, Store};

/// Beside the containers: what is known about the namespace as long as it is there.
const DIRECTORY: &str = "rootless";

fn directory(store: &Store) -> PathBuf {
    store.images().with_file_name(DIRECTORY)
}

/// Whether our networks are in a namespace of our own.
#[must_use]
pub fn applies() -> bool {
    !geteuid().is_root()
}

/// Whether we are in it: there a plain user is root, with pools that are not root's.
#[must_use]
pub fn is_inside() -> bool {
    geteuid().is_root() && std::env::var_os(POOLS).is_some()
}

/// First of all, as it is about our environment: a plain user's pools are with the containers.
pub fn place_pools() {
    if let (true, Ok(root)) = (applies(), store::root()) {
        // SAFETY: one thread, so nobody reads the environment at this time.
        unsafe { std::env::set_var(POOLS, root.join(DIRECTORY).join("pools")) };
    }
}

/// The pair of namespaces. It is there at least as long as these files are open.
#[derive(Debug)]
pub struct Spaces {
    /// In which we are root.
    user: File,
    /// In which the bridges are.
    net: File,
    /// By which one knows the latter.
    number: u64,
    /// A process that is in them.
    pub pid: i32,
    /// The same, if it is there for nothing else.
    _child: Option<Child>,
}

impl Spaces {
    /// Those that a process is in.
    fn of(pid: i32) -> io::Result<Self> {
        let open = |kind: &str| File::open(format!("/proc/{pid}/ns/{kind}"));
        let (user, net) = (open("user")?, open("net")?);
        let number = net.metadata()?.ino();
        Ok(Self { user, net, number, pid, _child: None })
    }

    /// New ones. Somebody has to be in them to begin with.
    fn make() -> Result<Self> {
        let namespaces = [Namespace::User, Namespace::Net].into_iter().collect();
        let child = Child::spawn(namespaces, None, || -> Result<Command> { bail!("no program") })?;
        child.map_ids()?;
        let spaces = Self::of(child.pid().as_raw()).context("cannot open the new namespaces")?;
        Ok(Self { _child: Some(child), ..spaces })
    }

    /// Those of the user's other containers, if there are any.
    fn find(store: &Store) -> Result<Option<Self>> {
        let own = Self::of(Pid::this().as_raw()).context("cannot look at our namespaces")?;
        Ok(others(store)?.into_iter().find(|spaces| spaces.number != own.number))
    }

    /// Goes in there; there is no way back.
    fn join(&self) -> Result<()> {
        setns(&self.user, CloneFlags::CLONE_NEWUSER)
            .and_then(|()| setns(&self.net, CloneFlags::CLONE_NEWNET))
            .context("cannot join the user's network namespace")
    }
}

/// Where the monitors of the other containers are. Of those that we may not look at we know that they
/// are not with us.
fn others(store: &Store) -> Result<Vec<Spaces>> {
    let monitors = store.list()?.into_iter().filter_map(|container| container.state.monitor);
    let mut found = Vec::new();
    for monitor in monitors.filter(|monitor| monitor.pid != Pid::this().as_raw()) {
        let spaces = Spaces::of(monitor.pid);
        if let (Ok(spaces), true) = (spaces, monitor.is_there()?) {
            found.push(spaces);
        }
    }
    Ok(found)
}

/// That a monitor is in there. Dropping it, the last one ends what else is.
#[derive(Debug)]
pub struct Inside {
    store: Store,
    number: u64,
}

/// The monitor's side, before anything is made for the container: goes into the user's namespaces.
/// Its own state.json has to say already that it is there.
pub fn enter(store: Store) -> Result<Inside> {
    let lock = store.lock()?;
    let spaces = match Spaces::find(&store)? {
        Some(spaces) => spaces,
        None => Spaces::make()?,
    };
    let enter = || -> Result<()> {
        let directory = directory(&store);
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&directory)
            .with_context(|| format!("cannot make {}", directory.display()))?;
        uplink::ensure(&directory, &spaces);
        spaces.join()?;
        loopback_up()
    };
    let entered = enter();
    drop(lock); // who leaves needs it
    let inside = Inside { store, number: spaces.number };
    entered.map(|()| inside)
}

impl Drop for Inside {
    fn drop(&mut self) {
        let leave = || -> Result<()> {
            let _lock = self.store.lock()?;
            if others(&self.store)?.iter().any(|other| other.number == self.number) {
                return Ok(());
            }
            end(&directory(&self.store))
        };
        if let Err(error) = leave() {
            warn(&format!("cannot clean up the user's networks: {error:#}"));
        }
    }
}

/// Ends what belongs to the namespace and is no container's: then there is nobody left in it.
fn end(directory: &Path) -> Result<()> {
    for pool in pools(directory)? {
        names::stop_in(&pool)?;
    }
    uplink::stop(directory)?;
    match fs::remove_dir_all(directory) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("cannot remove {}", directory.display()))
        }
        _ => Ok(()),
    }
}

fn pools(directory: &Path) -> Result<Vec<PathBuf>> {
    let path = directory.join("pools");
    match fs::read_dir(&path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        entries => entries
            .and_then(|entries| entries.map(|entry| Ok(entry?.path())).collect())
            .with_context(|| format!("cannot read {}", path.display())),
    }
}

/// Whether something is to be started again.
pub fn has_stale(store: &Store) -> bool {
    applies() && uplink::is_missing(&directory(store))
}

/// Cleans up in there; or, if nobody is, after those who were.
pub fn sweep(store: &Store, work: impl FnOnce() -> Result<()>) -> Result<()> {
    let lock = store.lock()?;
    let directory = directory(store);
    let Some(spaces) = Spaces::find(store)? else { return end(&directory) };
    uplink::ensure(&directory, &spaces);
    drop(lock);
    // A child does it, as there is no way back.
    in_child(Namespaces::default(), || {
        spaces.join()?;
        work()
    })
}
