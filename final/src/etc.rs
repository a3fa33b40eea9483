//! The files in /etc that depend on the network.

use std::fs;
use std::io::ErrorKind;
use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;

use anyhow::{Context as _, Result};
use step03_rootfs::Root;

/// Writes them into the container; they are its own, so it may change them.
pub fn write(root: &Root, hostname: &str, address: Option<Ipv4Addr>, resolv: &str) -> Result<()> {
    root.write(Path::new("/etc/hostname"), &format!("{hostname}\n"))?;
    root.write(Path::new("/etc/hosts"), &hosts(hostname, address))?;
    root.write(Path::new("/etc/resolv.conf"), resolv)
}

fn hosts(hostname: &str, address: Option<Ipv4Addr>) -> String {
    let own = address.unwrap_or(Ipv4Addr::LOCALHOST);
    format!("127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost\n{own}\t{hostname}\n")
}

/// The host's resolv.conf, made usable where the host's loopback is out of reach.
///
/// systemd-resolved listens on 127.0.0.53 of the host, which in another network namespace is
/// somebody else: nobody. It keeps the real servers in a second file.
///
/// If a `server` answers for names on the container's network, it is the only one: the host's are for
/// that one to ask.
pub fn resolv_conf(host_network: bool, server: Option<Ipv4Addr>) -> Result<String> {
    let read = |path: &str| match fs::read_to_string(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(String::new()),
        text => text.with_context(|| format!("cannot read {path}")),
    };
    let own = read("/etc/resolv.conf")?;
    if host_network {
        return Ok(own);
    }
    if let Some(server) = server {
        let others = own.lines().filter(|line| !line.starts_with("nameserver"));
        return Ok(others.flat_map(|line| [line, "\n"]).collect::<String>()
            + &format!("nameserver {server}\n"));
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
