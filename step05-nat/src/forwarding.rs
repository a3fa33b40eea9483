//! IP forwarding: the switch that makes a host a router.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context as _, Result};
use colored::Colorize as _;
use step04_bridge_veth::Pool;

use crate::nftables::Nftables;

const IP_FORWARD: &str = "/proc/sys/net/ipv4/ip_forward";

/// Switches forwarding on, and notes in the pool if it was off: the last one switches it off.
// ANCHOR: enable
pub(crate) fn enable(pool: &Pool) -> Result<()> {
    if read(IP_FORWARD)? == "0" {
        // The note first: if we are killed between the two lines, the switch is only set back
        // to what it is.
        let note = note(pool);
        fs::write(&note, "").with_context(|| format!("cannot write {}", note.display()))?;
        write(IP_FORWARD, "1")?;
    }
    // Packets to 127.0.0.0/8 leave the host by no interface, says RFC 1122; a published port is
    // reachable as 127.0.0.1 only if this one is an exception.
    write(&format!("/proc/sys/net/ipv4/conf/{}/route_localnet", pool.bridge()), "1")
}
// ANCHOR_END: enable

/// Switches forwarding off again, if it was us who switched it on.
pub(crate) fn restore(pool: &Pool) -> Result<()> {
    let note = note(pool);
    if note.exists() {
        write(IP_FORWARD, "0")?;
        fs::remove_file(&note).with_context(|| format!("cannot remove {}", note.display()))?;
    }
    Ok(())
}

/// Warns of other people's firewalls: a packet must be accepted by every chain at the hook, so
/// ours cannot help where another one drops. Docker's does, unless told otherwise.
pub(crate) fn warn_of_dropping_chains(nft: &mut Nftables, bridge: &str) {
    for chain in nft.dropping_forward_chains().unwrap_or_default() {
        let (table, name) = (&chain.table, &chain.name);
        let fix = if name == "FORWARD" {
            let target = if table == "filter" { "DOCKER-USER" } else { "FORWARD" };
            format!(
                "iptables -I {target} -i {bridge} -j ACCEPT; iptables -I {target} -o {bridge} -j \
                 ACCEPT (in FORWARD itself, if there is no chain DOCKER-USER)"
            )
        } else {
            format!("nft insert rule inet {table} {name} iifname {bridge} accept, and oifname")
        };
        eprintln!(
            "{} the firewall chain {name} of the table {table} drops forwarded packets, so the \
             container may reach nothing beyond this host; the fix: {fix}",
            "warning:".yellow().bold()
        );
    }
}

fn note(pool: &Pool) -> PathBuf {
    pool.path().join("ip_forward-was-0")
}

fn read(path: &str) -> Result<String> {
    let text = fs::read_to_string(path).with_context(|| format!("cannot read {path}"))?;
    Ok(text.trim().to_owned())
}

fn write(path: &str, value: &str) -> Result<()> {
    fs::write(path, value).with_context(|| format!("cannot write {value} to {path}"))
}
