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

    /// The users: as root the host's, which is the default, or with remap its own, whose root is not root
    /// on the host; a plain user's container has its own
    #[arg(long, value_name = "host|remap", value_parser = parse_userns)]
    pub userns: Option<Userns>,

    /// Set a setting of its network or IPC namespace (may be repeated)
    #[arg(long, value_name = "NAME=VALUE", value_parser = crate::sysctl::parse)]
    pub sysctl: Vec<(String, String)>,
}

/// Which users there are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Userns {
    /// The host's.
    Host,
    /// Its own, whom ids of the host stand for that nobody else has.
    Remap,
}

fn parse_userns(text: &str) -> Result<Userns> {
    match text {
        "host" if geteuid().is_root() => Ok(Userns::Host),
        "host" => bail!(
            "a plain user has power over other namespaces only in a user namespace of its own"
        ),
        "remap" => Ok(Userns::Remap),
        _ => bail!("it is host or remap"),
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
