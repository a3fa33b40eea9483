//! The part of the command line that is about the bridge.

use std::net::Ipv4Addr;

use anyhow::{Result, ensure};

use crate::Cidr;

/// The bridge, and the container's place on it.
#[derive(clap::Args, Debug, Clone)]
#[group(skip)]
pub struct Args {
    /// The bridge to plug the container into; made if it is not there
    #[arg(long, value_name = "NAME", default_value = "workshop0", value_parser = parse_link_name)]
    pub bridge: String,

    /// The bridge's subnet; its first address is the bridge's own
    #[arg(long, value_name = "CIDR", default_value = "10.77.0.0/24")]
    pub subnet: Cidr,

    /// The container's address; without it, the next free one
    #[arg(long, value_name = "ADDR")]
    pub ip: Option<Ipv4Addr>,
}

/// The kernel's rule for names of links (`dev_valid_name`), less what would end up in a path, and less
/// what means every link in /proc/sys/net/ipv4/conf.
pub fn parse_link_name(name: &str) -> Result<String> {
    ensure!(
        (1..=15).contains(&name.len())
            && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"_.-".contains(&b))
            && name.as_bytes()[0].is_ascii_alphanumeric(),
        "a bridge's name has 1 to 15 letters, digits, _ . and -, and begins with a letter or digit"
    );
    ensure!(!["all", "default"].contains(&name), "{name} is no name that a bridge can have");
    Ok(name.to_owned())
}
