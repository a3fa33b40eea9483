//! The options of `run` about namespaces that are not its own.

use std::str::FromStr;

use anyhow::{Error, Result, bail};
use clap::Args;
use nix::unistd::geteuid;
use step01_namespaces::Namespace;

/// Which namespaces are shared.
#[derive(Args, Debug, Clone)]
#[group(skip)]
pub struct NamespaceArgs {
    /// The processes that it sees: its own, the host's, or those of another container
    #[arg(long, value_name = "host|container:NAME")]
    pub pid: Option<Share>,

    /// The shared memory and message queues: its own, the host's, or those of another container
    #[arg(long, value_name = "private|host|container:NAME")]
    pub ipc: Option<Share>,

    /// The host name: its own, the host's, or that of another container
    #[arg(long, value_name = "host|container:NAME")]
    pub uts: Option<Share>,

    /// The users: as root the host's, which is the default; a plain user's container has its own
    #[arg(long, value_name = "host", value_parser = parse_userns)]
    pub userns: Option<String>,

    /// Set a setting of its network or IPC namespace (may be repeated)
    #[arg(long, value_name = "NAME=VALUE", value_parser = crate::sysctl::parse)]
    pub sysctl: Vec<(String, String)>,
}

fn parse_userns(text: &str) -> Result<String> {
    match text {
        "host" if geteuid().is_root() => Ok(text.to_owned()),
        "host" => bail!(
            "a plain user has power over other namespaces only in a user namespace of its own"
        ),
        "remap" => bail!(
            "the files of an image belong to the host's ids, and to give them others takes an idmapped \
             mount of each layer, which is not there yet; run as a plain user, and root inside is not root"
        ),
        _ => bail!("it is host"),
    }
}

/// Whose a namespace is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Share {
    /// The container's own.
    Own,
    /// The host's.
    Host,
    /// That of the container with this name or id.
    Container(String),
}

impl FromStr for Share {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        Ok(match text.split_once(':') {
            None if text == "private" => Self::Own,
            None if text == "host" => Self::Host,
            Some(("container", name)) => Self::Container(name.to_owned()),
            _ => bail!("it is private, host or container:NAME"),
        })
    }
}

impl NamespaceArgs {
    /// Whose it is.
    #[must_use]
    pub fn share(&self, namespace: Namespace) -> &Share {
        let wanted = match namespace {
            Namespace::Pid => &self.pid,
            Namespace::Ipc => &self.ipc,
            Namespace::Uts => &self.uts,
            _ => &None,
        };
        wanted.as_ref().unwrap_or(&Share::Own)
    }
}
