//! IP forwarding: the switch that makes a host a router.

use std::fs::{self, File};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, anyhow};
use step01_namespaces::{see, warn};
use step04_bridge_veth::Pool;

use crate::nftables::{DroppingChain, Nftables};

const IP_FORWARD: &str = "/proc/sys/net/ipv4/ip_forward";
const CONF: &str = "/proc/sys/net/ipv4/conf";
/// That forwarding was off, and what else to set back.
const NOTE: &str = "ip_forward-was-0";

/// Switches forwarding on, and notes in the pool if it was off, for this bridge or for another:
/// the last one with a note switches it off.
// ANCHOR: enable
pub fn enable(pool: &Pool) -> Result<()> {
    let lock = lock_switch(pool)?;
    // ANCHOR: ex-5.3
    // The note first: if we are killed between the two, the switch is only set back to what it is.
    if let Some(before) = to_set_back(pool)? {
        let note = note(pool.path());
        fs::write(&note, before).with_context(|| format!("cannot write {}", note.display()))?;
        write(IP_FORWARD, "1")?;
    }
    // ANCHOR_END: ex-5.3
    drop(lock);
    // Packets to 127.0.0.0/8 leave the host by no interface, says RFC 1122; a published port is
    // reachable as 127.0.0.1 only if this one is an exception.
    write(&format!("{CONF}/{}/route_localnet", pool.bridge()), "1")
}
// ANCHOR_END: enable

/// Switches forwarding off again, if it was us who switched it on, and no other bridge needs it.
pub fn restore(pool: &Pool) -> Result<()> {
    let note = note(pool.path());
    let Some(before) = read_if_there(&note)? else { return Ok(()) };
    let _lock = lock_switch(pool)?;
    if note_of_others(pool, NOTE)?.is_none() {
        write(IP_FORWARD, "0")?;
        for (name, value) in before.lines().filter_map(|line| line.split_once(' ')) {
            let path = format!("{CONF}/{name}");
            if is_there(Path::new(&path))? {
                write(&path, value)?; // or else the link is gone
            }
        }
    }
    fs::remove_file(&note).with_context(|| format!("cannot remove {}", note.display()))
}

/// What to note: none if forwarding was on already, and not by us.
fn to_set_back(pool: &Pool) -> Result<Option<String>> {
    match note_of_others(pool, NOTE)? {
        None if read(IP_FORWARD)? == "0" => Ok(Some(exceptions()?)),
        of_another_bridge => Ok(of_another_bridge),
    }
}

/// The settings that switching off would not bring back, as `eth0/forwarding 1`. For the kernel
/// ip_forward is a switch of many: it sets `forwarding` of every link to its own value, and
/// `accept_redirects` to the opposite (ip-sysctl.rst), though somebody may have chosen otherwise.
fn exceptions() -> Result<String> {
    let mut found = String::new();
    let names = fs::read_dir(CONF).and_then(|entries| {
        entries.map(|entry| Ok(entry?.file_name())).collect::<Result<Vec<_>, _>>()
    });
    for name in names.with_context(|| format!("cannot read {CONF}"))? {
        let name = format!("{}/forwarding", name.display());
        if read_if_there(Path::new(&format!("{CONF}/{name}")))?.is_some_and(|v| v.trim() == "1") {
            found += &format!("{name} 1\n");
        }
    }
    if read(&format!("{CONF}/all/accept_redirects"))? == "0" {
        found += "all/accept_redirects 0\n";
    }
    Ok(found)
}

/// Warns of other people's firewalls: a packet must be accepted by every chain at the hook, so
/// ours cannot help where another one drops. Docker's does, unless told otherwise.
pub(crate) fn warn_of_dropping_chains(nft: &mut Nftables, bridge: &str) {
    let chains = nft.dropping_forward_chains().unwrap_or_else(|error| {
        warn(&format!("cannot look for other firewalls: {error}"));
        Vec::new()
    });
    for chain in chains {
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
    pool.join(NOTE)
}

/// There is one switch and a pool for each bridge, so the directory of all pools is its lock.
pub fn lock_switch(pool: &Pool) -> Result<File> {
    let path = pool.path().join("..");
    let lock = || File::open(&path).and_then(|lock| lock.lock().map(|()| lock));
    lock().with_context(|| format!("cannot lock {}", path.display()))
}

/// The note of this name of another bridge: its switch is on because of us, too.
pub fn note_of_others(pool: &Pool, name: &str) -> Result<Option<String>> {
    for bridge in Pool::bridges()?.iter().filter(|&bridge| bridge != pool.bridge()) {
        if let Some(found) = read_if_there(&Pool::directory(bridge)?.join(name))? {
            return Ok(Some(found));
        }
    }
    Ok(None)
}

/// The text of a file; none if there is no such file.
pub fn read_if_there(path: &Path) -> Result<Option<String>> {
    match fs::read_to_string(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        text => text.map(Some).with_context(|| format!("cannot read {}", path.display())),
    }
}

fn is_there(path: &Path) -> Result<bool> {
    path.try_exists().with_context(|| format!("cannot look for {}", path.display()))
}

fn read(path: &str) -> Result<String> {
    let text = fs::read_to_string(path).with_context(|| format!("cannot read {path}"))?;
    Ok(text.trim().to_owned())
}

fn write(path: &str, value: &str) -> Result<()> {
    fs::write(path, value)
        .map_err(|error| anyhow!("cannot write {value} to {path}: {error}{}", see("forwarding")))
}
