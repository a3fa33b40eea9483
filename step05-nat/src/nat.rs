//! Install, undo, clean up.

use std::net::Ipv4Addr;
use std::os::fd::OwnedFd;

use anyhow::{Result, ensure};
use step01_namespaces::warn;
use step04_bridge_veth::netlink::{self, Message};
use step04_bridge_veth::{Lease, Network, Pool, explain};

use crate::args::ensure_distinct;
use crate::nftables::{Nftables, delete_rule, delete_table};
use crate::{Publish, forwarding, ruleset};

/// The rules of one container. Dropping it removes them, and with the last one our table.
#[derive(Debug)]
pub struct Nat {
    bridge: String,
    /// Keeps the published ports ours.
    reserved: Vec<OwnedFd>,
    /// That our address needs the table. The lease on the address itself says too little: two who
    /// leave at once would each see the other's, and each would leave the table to the other.
    user: Option<Lease>,
}

/// How the files are called that say so.
const USER: &str = ".nat";

impl Nat {
    /// The parent's side: lets the container out, and the world in to the published ports.
    // ANCHOR: install
    pub fn install(network: &Network, publish: &[Publish]) -> Result<Self> {
        ensure_distinct(publish)?;
        let reserved = publish.iter().map(Publish::reserve).collect::<Result<_>>()?;
        Self::install_with(network, publish, reserved, &[])
    }

    /// The same, with the sockets of [`Publish::reserve`], and with rules of the caller's for our table.
    pub fn install_with(
        network: &Network,
        publish: &[Publish],
        reserved: Vec<OwnedFd>,
        rules: &[Message],
    ) -> Result<Self> {
        let (bridge, address) = (network.bridge(), network.address());
        // From here on Drop undoes what follows, however far it came. It locks the pool by itself,
        // so it has to come after the unlocking: what is made first is dropped last.
        let mut nat = Self { bridge: bridge.to_owned(), reserved, user: None };
        let pool = Pool::lock(bridge)?;
        let others = pool.live_with(USER)?;
        nat.user = Some(pool.hold(address, USER)?);
        let failed =
            |e| explain("nf-tables", &format!("cannot write the firewall table ip {bridge}"), &e);
        let mut nft = Nftables::open().map_err(failed)?;
        let mut changes = Vec::new();
        match nft.table_comment(bridge).map_err(failed)? {
            None => {
                changes.extend(ruleset::base(bridge, network.subnet()));
                changes.extend_from_slice(rules);
            }
            Some(note) => {
                ensure!(
                    note == ruleset::NOTE,
                    "there is a firewall table ip {bridge} that is not ours; choose another name \
                     for the bridge with --bridge"
                );
                // Rules of containers whose runtime was killed; our address may be one of theirs.
                changes.extend(stale_rules(&mut nft, bridge, &others).map_err(failed)?);
            }
        }
        changes.extend(ruleset::published(bridge, address, publish));
        nft.commit_many(&changes).map_err(failed)?;
        forwarding::enable(&pool)?;
        forwarding::warn_of_dropping_chains(&mut nft, bridge);
        std::mem::drop(pool);
        Ok(nat)
    }
    // ANCHOR_END: install
}

impl Drop for Nat {
    fn drop(&mut self) {
        let own = self.user.as_ref().map(Lease::address);
        let mut clean = || -> Result<()> {
            let pool = Pool::lock(&self.bridge)?;
            let mut others = pool.live_with(USER)?;
            others.retain(|&address| Some(address) != own);
            // Without published ports we have no rules of our own; all others are everybody's.
            if !self.reserved.is_empty() || others.is_empty() {
                clean(&pool, &others)?;
            }
            drop(self.user.take()); // while we have the lock, or two would leave it to each other
            Ok(())
        };
        if let Err(error) = clean() {
            warn(&format!("cannot clean up the firewall: {error:#}"));
            // Its file stays and tells the sweep that there is something left to do.
            std::mem::forget(self.user.take());
        }
    }
}

/// Removes what runtimes left that were killed: rules, tables, bridges, leases.
pub fn sweep() -> Result<()> {
    for bridge in Pool::bridges()? {
        let pool = Pool::lock(&bridge)?;
        clean(&pool, &pool.live_with(USER)?)?;
        pool.remove_if_unused()?;
    }
    Ok(())
}

/// Leaves only the rules of the containers at `live`; without any, not even the table.
fn clean(pool: &Pool, live: &[Ipv4Addr]) -> Result<()> {
    let bridge = pool.bridge();
    let failed =
        |e| explain("nf-tables", &format!("cannot clean up the firewall table ip {bridge}"), &e);
    let mut nft = Nftables::open().map_err(failed)?;
    let ours = nft.table_comment(bridge).map_err(failed)?.as_deref() == Some(ruleset::NOTE);
    let mut changes = Vec::new();
    if ours && live.is_empty() {
        changes.push(delete_table(bridge));
    } else if ours {
        changes = stale_rules(&mut nft, bridge, live).map_err(failed)?;
    }
    nft.commit_many(&changes).map_err(failed)?;
    if live.is_empty() { forwarding::restore(pool) } else { Ok(()) }
}

/// The messages that delete the rules of all containers but those at `live`.
pub fn stale_rules(
    nft: &mut Nftables,
    bridge: &str,
    live: &[Ipv4Addr],
) -> netlink::Result<Vec<Message>> {
    let stale = |comment: &str| comment.parse().is_ok_and(|address| !live.contains(&address));
    let rules = nft.rules(bridge)?.into_iter().filter(|rule| stale(&rule.comment));
    Ok(rules.map(|rule| delete_rule(bridge, &rule)).collect())
}
