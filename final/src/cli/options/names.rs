//! The options of `run` about the names of other machines.

use std::net::IpAddr;

use anyhow::{Context as _, Result, ensure};
use clap::Args;

use crate::etc::Host;

/// Which names there are, and who knows all others.
#[derive(Args, Debug, Clone)]
#[group(skip)]
pub struct NameArgs {
    /// Add a line to /etc/hosts; `host-gateway` is the host's address (may be repeated)
    #[arg(long, value_name = "NAME:IP|NAME:host-gateway")]
    pub add_host: Vec<Host>,

    /// Ask this name server, and not the host's (may be repeated)
    #[arg(long, value_name = "IP")]
    pub dns: Vec<IpAddr>,

    /// Complete short names with this domain; `.` is none (may be repeated)
    #[arg(long, value_name = "DOMAIN", value_parser = parse_domain)]
    pub dns_search: Vec<String>,

    /// An option of resolv.conf (may be repeated)
    #[arg(long, alias = "dns-opt", value_name = "OPTION", value_parser = parse_option)]
    pub dns_option: Vec<String>,
}

/// Reads a domain, or the dot that stands for none.
fn parse_domain(text: &str) -> Result<String> {
    let is_domain =
        |text: &str| step01_namespaces::parse_hostname(text.trim_end_matches('.')).is_ok();
    ensure!(text == "." || is_domain(text), "{text:?} is not a domain");
    Ok(text.to_owned())
}

/// Reads one word, such as `ndots:2` (resolv.conf(5)).
fn parse_option(text: &str) -> Result<String> {
    let word = text.chars().all(|c| c.is_ascii_alphanumeric() || "-_:.".contains(c));
    ensure!(word && !text.is_empty(), "{text:?} is no option of resolv.conf");
    Ok(text.to_owned())
}

impl std::str::FromStr for Host {
    type Err = anyhow::Error;

    /// Reads `NAME:IP`, docker's way, or `NAME=IP`, which is clearer with IPv6.
    fn from_str(text: &str) -> Result<Self> {
        let parts = text.split_once('=').or_else(|| text.split_once(':'));
        let (name, address) = parts.context("it is NAME:IP or NAME:host-gateway")?;
        let name = step01_namespaces::parse_hostname(name)?;
        let address = match address.trim_start_matches('[').trim_end_matches(']') {
            "host-gateway" => None,
            ip => Some(ip.parse().with_context(|| format!("{ip:?} is not an IP address"))?),
        };
        Ok(Self { name, address })
    }
}
