//! Which addresses of a bridge are taken, and by whom.
//!
//! Each container's runtime holds a lock (flock(2)) on a file named after its address. The kernel
//! drops the lock when that process ends, also by SIGKILL: a file that can be locked is stale, and
//! whoever comes next removes it. No pid is written down that could come to mean another process.

use std::fs::{self, DirBuilder, DirEntry, File, TryLockError};
use std::io::{self, ErrorKind};
use std::net::Ipv4Addr;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};
use step01_namespaces::warn;

use crate::network::delete_ours;
use crate::{Cidr, Rtnetlink, explain};

const STATE: &str = "/run/container-workshop";
/// An environment variable: where the pools of one network namespace are, if that is not in /run, which
/// is root's.
pub const POOLS: &str = "WORKSHOP_POOLS";
/// In a pool: the address that was given out last.
const LAST: &str = "last";

/// The addresses of one bridge in one network namespace, locked: nobody else joins or leaves.
#[derive(Debug)]
pub struct Pool {
    bridge: String,
    path: PathBuf,
    _lock: File,
}

/// An address that is ours, or a right that goes with it. Dropping it gives it back.
#[derive(Debug)]
pub struct Lease {
    address: Ipv4Addr,
    path: PathBuf,
    _lock: File,
}

impl Lease {
    /// The address.
    #[must_use]
    pub fn address(&self) -> Ipv4Addr {
        self.address
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_file(&self.path) {
            warn(&format!("cannot remove {}: {error}", self.path.display()));
        }
    }
}

impl Pool {
    /// Locks the pool of `bridge` in our network namespace; waits for whoever has it.
    pub fn lock(bridge: &str) -> Result<Self> {
        let path = Self::directory(bridge)?;
        loop {
            // For us alone: who may open it could hold its lock, and us up.
            DirBuilder::new().recursive(true).mode(0o700).create(&path).with_context(|| {
                format!(
                    "cannot make {}; run as root, or in the lab: cargo workshop lab",
                    path.display()
                )
            })?;
            match lock_if_there(&path) {
                Ok(Some(lock)) => {
                    return Ok(Self { bridge: bridge.to_owned(), path, _lock: lock });
                }
                Ok(None) => {}
                Err(error) => {
                    let _ = fs::remove_dir(&path); // if it is empty, as it was just made
                    return Err(error).with_context(|| format!("cannot lock {}", path.display()));
                }
            }
        }
    }

    /// Where the pool of `bridge` in our network namespace is, if it is there.
    pub fn directory(bridge: &str) -> Result<PathBuf> {
        Ok(state().join(format!("{}{bridge}", prefix()?)))
    }

    /// The bridges that have a pool in our network namespace.
    pub fn bridges() -> Result<Vec<String>> {
        let prefix = prefix()?;
        let names = match names_in(&state()) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
            names => names.with_context(|| format!("cannot read {}", state().display()))?,
        };
        let bridge = |name: &String| name.strip_prefix(&prefix).map(str::to_owned);
        Ok(names.iter().filter_map(bridge).collect())
    }

    /// The bridge.
    #[must_use]
    pub fn bridge(&self) -> &str {
        &self.bridge
    }

    /// The directory, for what else is to be remembered as long as the bridge is there.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The addresses in use; removes the stale ones.
    pub fn live(&self) -> Result<Vec<Ipv4Addr>> {
        self.live_with("")
    }

    /// The addresses whose owner holds a file `ADDRESS` + `suffix`; removes the stale ones.
    pub fn live_with(&self, suffix: &str) -> Result<Vec<Ipv4Addr>> {
        let mut live = Vec::new();
        let names = names_in(&self.path);
        for name in names.with_context(|| format!("cannot read {}", self.path.display()))? {
            let Some(address) = name.strip_suffix(suffix).and_then(|name| name.parse().ok()) else {
                continue;
            };
            let path = self.path.join(&name);
            let is_live = || -> io::Result<bool> {
                match File::open(&path)?.try_lock() {
                    Err(TryLockError::WouldBlock) => Ok(true),
                    Err(TryLockError::Error(error)) => Err(error),
                    Ok(()) => fs::remove_file(&path).map(|()| false),
                }
            };
            if is_live().with_context(|| format!("cannot look at {}", path.display()))? {
                live.push(address);
            }
        }
        Ok(live)
    }

    /// Makes and holds a file `ADDRESS` + `suffix`, for all to see as long as we live.
    pub fn hold(&self, address: Ipv4Addr, suffix: &str) -> Result<Lease> {
        let path = self.path.join(format!("{address}{suffix}"));
        let lock =
            File::create(&path).with_context(|| format!("cannot make {}", path.display()))?;
        lock.try_lock()
            .map_err(io::Error::from) // it names the cause
            .inspect_err(|_| drop(fs::remove_file(&path)))
            .with_context(|| format!("cannot lock {}", path.display()))?;
        Ok(Lease { address, path, _lock: lock })
    }

    /// Takes `wanted`, or the next address that is free.
    pub fn take(&self, subnet: Cidr, wanted: Option<Ipv4Addr>) -> Result<Lease> {
        let live = self.live()?;
        let address = match wanted {
            Some(address) => {
                ensure!(
                    subnet.has_host(address),
                    "the address {address} is not for a container in {subnet}, whose first address \
                     is the bridge's"
                );
                ensure!(!live.contains(&address), "the address {address} is taken");
                address
            }
            None => self.next_free(subnet, &live)?,
        };
        self.hold(address, "")
    }

    /// The first free address behind the one that was given out last, so that an address rests for
    /// a while: others remember who had it, and the kernel may not have unplugged him yet.
    fn next_free(&self, subnet: Cidr, live: &[Ipv4Addr]) -> Result<Ipv4Addr> {
        let note = self.path.join(LAST);
        let last = fs::read_to_string(&note).ok().and_then(|text| text.parse().ok());
        let last = last.unwrap_or(subnet.gateway());
        let mut free = subnet.hosts().filter(|address| !live.contains(address));
        let next = free.clone().find(|&address| address > last).or_else(|| free.next());
        let next = next.with_context(|| format!("all addresses of {subnet} are taken"))?;
        fs::write(&note, next.to_string())
            .with_context(|| format!("cannot write {}", note.display()))?;
        Ok(next)
    }

    /// Removes the bridge, if it is ours, and the pool, if no address is in use any more. What else
    /// is remembered there keeps the pool: somebody could not undo it, and the sweep will.
    pub fn remove_if_unused(self) -> Result<()> {
        if !self.live()?.is_empty() {
            return Ok(());
        }
        let removed = Rtnetlink::open().and_then(|mut rt| delete_ours(&mut rt, &self.bridge));
        removed.map_err(|e| {
            explain("bridge", &format!("cannot delete the bridge {}", self.bridge), &e)
        })?;
        let remove = || match fs::remove_file(self.path.join(LAST)) {
            Err(error) if error.kind() != ErrorKind::NotFound => Err(error),
            _ => fs::remove_dir(&self.path),
        };
        match remove() {
            Err(error) if error.kind() == ErrorKind::DirectoryNotEmpty => return Ok(()),
            result => result.with_context(|| format!("cannot remove {}", self.path.display()))?,
        }
        let _ = fs::remove_dir(state()); // if it is empty
        Ok(())
    }
}

/// Where all pools are.
fn state() -> PathBuf {
    std::env::var_os(POOLS).map_or_else(|| STATE.into(), PathBuf::from)
}

/// How the names of the pools of our network namespace begin: bridges of different namespaces
/// have nothing to do with each other, even if /run is the same.
fn prefix() -> Result<String> {
    if std::env::var_os(POOLS).is_some() {
        return Ok(String::new());
    }
    let namespace =
        fs::metadata("/proc/self/ns/net").context("cannot look at /proc/self/ns/net")?;
    Ok(format!("net-{}-", namespace.ino()))
}

fn names_in(directory: &Path) -> io::Result<Vec<String>> {
    let name = |entry: io::Result<DirEntry>| Ok(entry?.file_name().to_string_lossy().into_owned());
    fs::read_dir(directory)?.map(name).collect()
}

/// Opens and locks the directory; `None` if the last to leave has removed it, perhaps while we waited:
/// then what we locked is not what others find there.
fn lock_if_there(path: &Path) -> io::Result<Option<File>> {
    let lock = || -> io::Result<Option<File>> {
        let file = File::open(path)?;
        file.lock()?;
        Ok((fs::metadata(path)?.ino() == file.metadata()?.ino()).then_some(file))
    };
    match lock() {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        result => result,
    }
}
