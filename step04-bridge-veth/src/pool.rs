//! Which addresses of a bridge are taken, and by whom.
//!
//! Each container's runtime holds a lock (flock(2)) on a file named after its address. The kernel
//! drops the lock when that process ends, also by SIGKILL: a file that can be locked is stale, and
//! whoever comes next removes it. No pid is written down that could come to mean another process.

use std::fs::{self, DirBuilder, File};
use std::io::ErrorKind;
use std::net::Ipv4Addr;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};
use step01_namespaces::warn;

use crate::network::delete_ours;
use crate::{Cidr, Rtnetlink, explain};

const STATE: &str = "/run/container-workshop";

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
            let Some(lock) = open_if_there(&path)? else { continue };
            lock.lock().with_context(|| format!("cannot lock {}", path.display()))?;
            // The last to leave may have removed it while we waited: then what we locked is not
            // what others find there.
            if fs::metadata(&path)
                .is_ok_and(|now| lock.metadata().is_ok_and(|l| l.ino() == now.ino()))
            {
                return Ok(Self { bridge: bridge.to_owned(), path, _lock: lock });
            }
        }
    }

    /// Where the pool of `bridge` in our network namespace is, if it is there.
    pub fn directory(bridge: &str) -> Result<PathBuf> {
        Ok(Path::new(STATE).join(format!("{}{bridge}", prefix()?)))
    }

    /// The bridges that have a pool in our network namespace.
    pub fn bridges() -> Result<Vec<String>> {
        let prefix = prefix()?;
        let entries = match fs::read_dir(STATE) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
            result => result.with_context(|| format!("cannot read {STATE}"))?,
        };
        let name = |entry: fs::DirEntry| {
            Some(entry.file_name().to_str()?.strip_prefix(&prefix)?.to_owned())
        };
        Ok(entries.filter_map(Result::ok).filter_map(name).collect())
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
        for entry in fs::read_dir(&self.path)? {
            let entry = entry?;
            let name = entry.file_name();
            let address = name.to_str().and_then(|name| name.strip_suffix(suffix)?.parse().ok());
            let Some(address) = address else { continue };
            if File::open(entry.path())?.try_lock().is_ok() {
                fs::remove_file(entry.path())?;
            } else {
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
        lock.try_lock().with_context(|| format!("cannot lock {}", path.display()))?;
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
        let note = self.path.join("last");
        let last = fs::read_to_string(&note).ok().and_then(|text| text.parse().ok());
        let last = last.unwrap_or(subnet.gateway());
        let mut free = subnet.hosts().filter(|address| !live.contains(address));
        let next = free.clone().find(|&address| address > last).or_else(|| free.next());
        let next = next.with_context(|| format!("all addresses of {subnet} are taken"))?;
        fs::write(&note, next.to_string())
            .with_context(|| format!("cannot write {}", note.display()))?;
        Ok(next)
    }

    /// Removes the bridge, if it is ours, and the pool, if no address is in use any more.
    pub fn remove_if_unused(self) -> Result<()> {
        if !self.live()?.is_empty() {
            return Ok(());
        }
        let removed = Rtnetlink::open().and_then(|mut rt| delete_ours(&mut rt, &self.bridge));
        removed.map_err(|e| {
            explain("bridge", &format!("cannot delete the bridge {}", self.bridge), &e)
        })?;
        fs::remove_dir_all(&self.path)
            .with_context(|| format!("cannot remove {}", self.path.display()))?;
        let _ = fs::remove_dir(STATE); // if it is empty
        Ok(())
    }
}

/// How the names of the pools of our network namespace begin: bridges of different namespaces
/// have nothing to do with each other, even if /run is the same.
fn prefix() -> Result<String> {
    let namespace =
        fs::metadata("/proc/self/ns/net").context("cannot look at /proc/self/ns/net")?;
    Ok(format!("net-{}-", namespace.ino()))
}

fn open_if_there(path: &Path) -> Result<Option<File>> {
    match File::open(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        result => Ok(Some(result.with_context(|| format!("cannot open {}", path.display()))?)),
    }
}
