//! IP forwarding: the switch that makes a host a router.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, anyhow};
use step01_namespaces::{see, warn};
use step04_bridge_veth::Pool;

use crate::nftables::{DroppingChain, Nftables};

const IP_FORWARD: &str = "/proc/sys/net/ipv4/ip_forward";

/// Switches forwarding on, and notes in the pool if it was off, for this bridge or for another:
/// the last one with a note switches it off.
// ANCHOR: enable
pub fn enable(pool: &Pool) -> Result<()> {
    let lock = lock_switch(pool)?;
    // ANCHOR: ex-5.3
    if read(IP_FORWARD)? == "0" || others_have_a_note(pool)? {
        // The note first: if we are killed between the two lines, the switch is only set back
        // to what it is.
        let note = note(pool.path());
        fs::write(&note, "").with_context(|| format!("cannot write {}", note.display()))?;
        write(IP_FORWARD, "1")?;
    }
    // ANCHOR_END: ex-5.3
    drop(lock);
    // Packets to 127.0.0.0/8 leave the host by no interface, says RFC 1122; a published port is
    // reachable as 127.0.0.1 only if this one is an exception.
    write(&format!("/proc/sys/net/ipv4/conf/{}/route_localnet", pool.bridge()), "1")
}
// ANCHOR_END: enable

/// Switches forwarding off again, if it was us who switched it on, and no other bridge needs it.
pub fn restore(pool: &Pool) -> Result<()> {
    let note = note(pool.path());
    if note.exists() {
        let _lock = lock_switch(pool)?;
        if !others_have_a_note(pool)? {
            write(IP_FORWARD, "0")?;
        }
        fs::remove_file(&note).with_context(|| format!("cannot remove {}", note.display()))?;
    }
    Ok(())
}

/// Warns of other people's firewalls: a packet must be accepted by every chain at the hook, so
/// ours cannot help where another one drops. Docker's does, unless told otherwise.
pub(crate) fn warn_of_dropping_chains(nft: &mut Nftables, bridge: &str) {
    for chain in nft.dropping_forward_chains().unwrap_or_default() {
        let DroppingChain { family, table, name } = &chain;
        let fix = if name == "FORWARD" {
            let target = if table == "filter" { "DOCKER-USER" } else { "FORWARD" };
            format!(
                "iptables -I {target} -i {bridge} -j ACCEPT; iptables -I {target} -o {bridge} -j \
                 ACCEPT (in FORWARD itself, if there is no chain DOCKER-USER)"
            )
        } else {
            format!(
                "nft insert rule {family} {table} {name} iifname {bridge} accept; nft insert rule \
                 {family} {table} {name} oifname {bridge} accept"
            )
        };
        warn(&format!(
            "the firewall chain {name} of the table {table} drops forwarded packets, so the \
             container may reach nothing beyond this host; the fix: {fix}"
        ));
    }
}

fn note(pool: &Path) -> PathBuf {
    pool.join("ip_forward-was-0")
}

/// There is one switch and a pool for each bridge, so the directory of all pools is its lock.
fn lock_switch(pool: &Pool) -> Result<File> {
    let path = pool.path().join("..");
    let lock = || File::open(&path).and_then(|lock| lock.lock().map(|()| lock));
    lock().with_context(|| format!("cannot lock {}", path.display()))
}

fn others_have_a_note(pool: &Pool) -> Result<bool> {
    for bridge in Pool::bridges()?.iter().filter(|&bridge| bridge != pool.bridge()) {
        if note(&Pool::directory(bridge)?).exists() {
            return Ok(true);
        }
    }
    Ok(false)
}

fn read(path: &str) -> Result<String> {
    let text = fs::read_to_string(path).with_context(|| format!("cannot read {path}"))?;
    Ok(text.trim().to_owned())
}

fn write(path: &str, value: &str) -> Result<()> {
    fs::write(path, value)
        .map_err(|error| anyhow!("cannot write {value} to {path}: {error}{}", see("forwarding")))
}
