//! The part of the command line that every step shares.

use std::ffi::OsString;
use std::process::Command;

use anyhow::{Result, ensure};
use nix::unistd::geteuid;

use crate::{Namespace, Namespaces};

/// Which namespaces are new, and what the container is called in them.
#[derive(clap::Args, Debug, Clone)]
#[group(skip)]
pub struct Args {
    /// The container's host name
    #[arg(long, value_name = "NAME", default_value = "container", value_parser = parse_hostname)]
    pub hostname: String,

    /// Share this namespace with the host instead of making a new one (may be repeated)
    #[arg(long, value_name = "NAMESPACE")]
    pub share: Vec<Namespace>,

    /// Make a new user namespace even as root; a plain user always gets one
    #[arg(long)]
    pub user: bool,
}

impl Args {
    /// The namespaces to make: all that this kernel has, without the shared ones.
    ///
    /// A plain user may not make any namespace but a user namespace, in which it then has
    /// every capability and may make the others (user_namespaces(7)); so it gets one by itself.
    pub fn namespaces(&self) -> Result<Namespaces> {
        let plain_user = !geteuid().is_root();
        ensure!(
            !(plain_user && self.share.contains(&Namespace::User)),
            "cannot share the user namespace: only root can make the other namespaces without a \
             new one; run as root or leave out --share user"
        );
        ensure!(
            !(self.user && self.share.contains(&Namespace::User)),
            "--user and --share user contradict each other: leave out one"
        );
        Ok(Namespace::ALL
            .into_iter()
            .filter(|namespace| namespace.is_in_kernel() && !self.share.contains(namespace))
            .filter(|&namespace| namespace != Namespace::User || plain_user || self.user)
            .collect())
    }
}

/// The program to run in the container.
#[derive(clap::Args, Debug, Clone)]
#[group(skip)]
pub struct Program {
    /// The program to run in the container, with its arguments
    #[arg(value_name = "CMD", trailing_var_arg = true, default_value = "/bin/sh")]
    argv: Vec<OsString>,
}

impl Program {
    /// The program as a [`Command`], for [`Child::spawn`](crate::Child::spawn)'s set-up to return.
    #[must_use]
    pub fn command(&self) -> Command {
        let mut command = Command::new(&self.argv[0]);
        command.args(&self.argv[1..]);
        command
    }
}

/// Checks a host name: the kernel takes up to 64 bytes of anything (`__NEW_UTS_LEN`,
/// sethostname(2)), but only RFC 1123's letters, digits, dots and hyphens work as a name.
pub fn parse_hostname(name: &str) -> Result<String> {
    ensure!(
        (1..=64).contains(&name.len())
            && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'.')
            && !name.starts_with(['-', '.']),
        "a host name has 1 to 64 letters, digits, dots and hyphens, and begins with a letter or digit"
    );
    Ok(name.to_owned())
}
