//! The files in /etc that depend on the network.

use std::io::ErrorKind;
use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;
use std::{fmt, fs};

use anyhow::{Context as _, Result};
use step03_rootfs::Root;

use crate::network::Attachment;

/// A name that the user adds to /etc/hosts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Host {
    /// The name.
    pub name: String,
    /// Its address; none is the host's own, `host-gateway`.
    pub address: Option<IpAddr>,
}

/// As the command line reads it.
impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.address {
            Some(address) => write!(f, "{}={address}", self.name),
            None => write!(f, "{}=host-gateway", self.name),
        }
    }
}

/// How names are resolved (resolv.conf(5)); what is empty is as on the host.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Dns {
    /// Name servers.
    pub servers: Vec<IpAddr>,
    /// Domains that complete a name; a `.` is none.
    pub search: Vec<String>,
    /// Options.
    pub options: Vec<String>,
}

/// Writes them into the container; they are its own, so it may change them.
pub fn write(
    root: &Root,
    hostname: &str,
    (address, network): (Option<Ipv4Addr>, Option<&Attachment>),
    added: &[Host],
    resolv: &str,
) -> Result<()> {
    let mut hosts = hosts(hostname, address);
    let gateway = network.map_or(Ipv4Addr::LOCALHOST, Attachment::gateway).into();
    for Host { name, address } in added {
        hosts += &format!("{}\t{name}\n", address.unwrap_or(gateway));
    }
    root.write(Path::new("/etc/hostname"), &format!("{hostname}\n"))?;
    root.write(Path::new("/etc/hosts"), &hosts)?;
    root.write(Path::new("/etc/resolv.conf"), resolv)
}

fn hosts(hostname: &str, address: Option<Ipv4Addr>) -> String {
    let own = address.unwrap_or(Ipv4Addr::LOCALHOST);
    format!("127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost\n{own}\t{hostname}\n")
}

/// The host's resolv.conf, with what the user wants in its place.
pub fn resolv_conf(host_network: bool, dns: &Dns) -> Result<String> {
    let mut text =
        if dns.servers.is_empty() { hosts_resolv_conf(host_network)? } else { hosts_own()? };
    let mut replace = |names: &[&str], lines: String| {
        let stays =
            |line: &&str| !line.split_whitespace().next().is_some_and(|w| names.contains(&w));
        text = text.lines().filter(stays).flat_map(|line| [line, "\n"]).collect();
        text += &lines;
    };
    if !dns.servers.is_empty() {
        let lines = dns.servers.iter().map(|server| format!("nameserver {server}\n"));
        replace(&["nameserver"], lines.collect());
    }
    if !dns.search.is_empty() {
        let domains: Vec<_> = dns.search.iter().map(String::as_str).filter(|d| *d != ".").collect();
        let line = format!("search {}\n", domains.join(" "));
        replace(&["search", "domain"], if domains.is_empty() { String::new() } else { line });
    }
    if !dns.options.is_empty() {
        replace(&["options"], format!("options {}\n", dns.options.join(" ")));
    }
    Ok(text)
}

fn read(path: &str) -> Result<String> {
    match fs::read_to_string(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(String::new()),
        text => text.with_context(|| format!("cannot read {path}")),
    }
}

fn hosts_own() -> Result<String> {
    read("/etc/resolv.conf")
}

/// The host's, made usable where the host's loopback is out of reach.
///
/// systemd-resolved listens on 127.0.0.53 of the host, which in another network namespace is
/// somebody else: nobody. It keeps the real servers in a second file.
fn hosts_resolv_conf(host_network: bool) -> Result<String> {
    let own = hosts_own()?;
    if host_network {
        return Ok(own);
    }
    let usable = [own, read("/run/systemd/resolve/resolv.conf")?]
        .iter()
        .map(|text| without_loopback(text))
        .find(|text| text.lines().any(|line| line.starts_with("nameserver")));
    // docker's own answer to a host without a server that a container could reach
    Ok(usable.unwrap_or_else(|| "nameserver 8.8.8.8\nnameserver 8.8.4.4\n".to_owned()))
}

fn without_loopback(text: &str) -> String {
    let reachable = |line: &&str| {
        let mut words = line.split_whitespace();
        words.next() != Some("nameserver")
            || words
                .next()
                .and_then(|word| word.parse().ok())
                .is_none_or(|a: IpAddr| !a.is_loopback())
    };
    text.lines().filter(reachable).flat_map(|line| [line, "\n"]).collect()
}

#[cfg(test)]
mod tests {
    use super::without_loopback;

    #[test]
    fn servers_on_loopback_are_left_out() {
        let text = "search lan\nnameserver 127.0.0.53\nnameserver ::1\nnameserver 192.0.2.1\n";
        assert_eq!(without_loopback(text), "search lan\nnameserver 192.0.2.1\n");
    }
}
