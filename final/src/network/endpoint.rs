//! Who has which address: a file for each container on a bridge, beside its lease.

use std::fs;
use std::io::ErrorKind;
use std::net::{IpAddr, Ipv4Addr};

use anyhow::{Context as _, Result};
use serde::{Deserialize, Serialize};
use step01_namespaces::warn;
use step04_bridge_veth::{Lease, Network, Pool};

use super::names::{self, Names};
use crate::store::Process;

/// How these files are called: ADDRESS.endpoint.
pub const SUFFIX: &str = ".endpoint";

/// A container on a bridge, from the moment when its cable is plugged in.
#[derive(Serialize, Deserialize, Debug, Clone)]
pub struct Endpoint {
    /// The container's id.
    pub id: String,
    /// Its name.
    pub name: String,
    /// Other names that it answers to.
    pub aliases: Vec<String>,
    /// Whom the network's name server asks for it, if not whom the host asks.
    pub dns: Vec<IpAddr>,
    /// Its first process: while that is there, the container is.
    pub process: Process,
}

impl Endpoint {
    /// Whether it has this name, which is in small letters.
    #[must_use]
    pub fn answers_to(&self, name: &str) -> bool {
        let names = self.aliases.iter().map(String::as_str).chain([&*self.name, &self.id[..12]]);
        names.into_iter().any(|own| own.eq_ignore_ascii_case(name))
    }

    /// All that are noted for the bridge, with their addresses, also those whose end nobody has noted.
    /// It takes no lock: to have it for a moment would look like owning it.
    pub fn noted(bridge: &str) -> Result<Vec<(Ipv4Addr, Self)>> {
        let path = Pool::directory(bridge)?;
        let entries = match fs::read_dir(&path) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
            entries => entries.with_context(|| format!("cannot read {}", path.display()))?,
        };
        let mut found = Vec::new();
        for entry in entries {
            let name = entry?.file_name();
            let address = name.to_str().and_then(|name| name.strip_suffix(SUFFIX)?.parse().ok());
            let Some(address) = address else { continue };
            // One that is just being made or removed is not there.
            let text = fs::read(path.join(&name)).unwrap_or_default();
            if let Ok(endpoint) = serde_json::from_slice::<Self>(&text)
                && endpoint.id.len() == 64
            {
                found.push((address, endpoint));
            }
        }
        found.sort_by_key(|&(address, _)| address);
        Ok(found)
    }

    /// All that live on the bridge, with their addresses.
    pub fn all(bridge: &str) -> Result<Vec<(Ipv4Addr, Self)>> {
        let mut found = Vec::new();
        for (address, endpoint) in Self::noted(bridge)? {
            if endpoint.process.is_there()? {
                found.push((address, endpoint));
            }
        }
        Ok(found)
    }
}

/// That a container is on a bridge, from before its start. Dropping it takes its name away, and the
/// last one's drop ends the network's name server.
#[derive(Debug)]
pub struct Member {
    bridge: String,
    lease: Option<Lease>,
}

impl Member {
    /// Becomes one, and starts the name server if there is to be one.
    pub fn join(network: &Network, names: Option<&Names>) -> Result<Self> {
        let bridge = network.bridge().to_owned();
        // Its drop locks the pool, so it has to come after the unlocking: what is made first is dropped
        // last.
        let mut member = Self { bridge, lease: None };
        let pool = Pool::lock(network.bridge())?;
        // Empty, and so nobody's, until it is written.
        member.lease = Some(pool.hold(network.address(), SUFFIX)?);
        if let Some(names) = names {
            names.ensure(&pool)?;
        }
        drop(pool);
        Ok(member)
    }

    /// Notes who it is.
    pub fn publish(&self, endpoint: &Endpoint) -> Result<()> {
        let address = self.lease.as_ref().map(Lease::address).context("it has left")?;
        let path = Pool::directory(&self.bridge)?.join(format!("{address}{SUFFIX}"));
        fs::write(&path, serde_json::to_vec(endpoint)?)
            .with_context(|| format!("cannot write {}", path.display()))
    }

    fn leave(&mut self) -> Result<()> {
        let Some(own) = self.lease.as_ref().map(Lease::address) else { return Ok(()) };
        let pool = Pool::lock(&self.bridge)?;
        let mut others = pool.live_with(SUFFIX)?;
        others.retain(|address| *address != own);
        let stopped = if others.is_empty() { names::stop(&pool) } else { Ok(()) };
        drop(self.lease.take()); // while we have the lock, or two would leave it to each other
        stopped
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        if let Err(error) = self.leave() {
            warn(&format!("cannot clean up the network's names: {error:#}"));
        }
    }
}
