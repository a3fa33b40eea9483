//! Who has which address: a file for each container on a bridge, beside its lease.

use std::fs;
use std::io::ErrorKind;
use std::net::Ipv4Addr;

use anyhow::{Context as _, Result};
use serde::{Deserialize, Serialize};
use step04_bridge_veth::{Lease, Network, Pool};

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
    /// Its first process: while that is there, the container is.
    pub process: Process,
}

impl Endpoint {
    /// Writes the file; it is removed with what is returned.
    pub fn publish(&self, network: &Network) -> Result<Lease> {
        let pool = Pool::lock(network.bridge())?;
        let lease = pool.hold(network.address(), SUFFIX)?;
        let path = pool.path().join(format!("{}{SUFFIX}", network.address()));
        // Until it is written it is empty, and so nobody's.
        fs::write(&path, serde_json::to_vec(self)?)
            .with_context(|| format!("cannot write {}", path.display()))?;
        Ok(lease)
    }

    /// All that live on the bridge, with their addresses. It takes no lock: to have it for a moment
    /// would look like owning it.
    pub fn all(bridge: &str) -> Result<Vec<(Ipv4Addr, Self)>> {
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
                && endpoint.process.is_there()?
            {
                found.push((address, endpoint));
            }
        }
        found.sort_by_key(|&(address, _)| address);
        Ok(found)
    }
}
