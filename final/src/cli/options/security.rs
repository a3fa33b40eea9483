//! The options of `run` about what the program may do.

use std::path::PathBuf;
use std::str::FromStr;

use anyhow::{Error, Result, bail};
use clap::Args;

use crate::security::{Ulimit, parse_capability};

/// What the program may do.
#[derive(Args, Debug, Clone)]
#[group(skip)]
pub struct SecurityArgs {
    /// Take the walls away: all capabilities, all system calls, nothing masked or read-only in /proc
    /// and /sys. Run as root, such a container is root on the host
    #[arg(long)]
    pub privileged: bool,

    /// Add a capability, or ALL (may be repeated)
    #[arg(long, value_name = "CAPABILITY", value_parser = parse_capability)]
    pub cap_add: Vec<String>,

    /// Drop a capability, or ALL (may be repeated)
    #[arg(long, value_name = "CAPABILITY", value_parser = parse_capability)]
    pub cap_drop: Vec<String>,

    /// no-new-privileges=false, seccomp=FILE, seccomp=unconfined, systempaths=unconfined (may be repeated)
    #[arg(long, value_name = "OPTION")]
    pub security_opt: Vec<SecurityOpt>,

    /// A limit of each process, for example nofile=1024:4096 (may be repeated)
    #[arg(long, value_name = "NAME=SOFT[:HARD]")]
    pub ulimit: Vec<Ulimit>,

    /// How soon its processes are killed when memory runs out: -1000 (never) to 1000 (first)
    #[arg(long, value_name = "NUMBER", allow_hyphen_values = true)]
    #[arg(value_parser = clap::value_parser!(i32).range(-1000..=1000))]
    pub oom_score_adj: Option<i32>,
}

/// One of `--security-opt`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SecurityOpt {
    /// Whether no exec gains a privilege.
    NoNewPrivileges(bool),
    /// The system calls that it may make.
    Seccomp(Seccomp),
    /// Nothing in /proc and /sys is masked or read-only.
    SystemPaths,
}

/// Which system calls it may make.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Seccomp {
    /// Those of docker's profile, or all if it is privileged.
    Usual,
    /// All.
    Unconfined,
    /// Those of the profile in this file.
    File(PathBuf),
}

impl FromStr for SecurityOpt {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        // docker took a colon once, and still does.
        let (name, value) = match text.split_once('=').or_else(|| text.split_once(':')) {
            None => (text, None),
            Some((name, value)) => (name, Some(value)),
        };
        Ok(match (name, value) {
            ("no-new-privileges", None | Some("true")) => Self::NoNewPrivileges(true),
            ("no-new-privileges", Some("false")) => Self::NoNewPrivileges(false),
            ("seccomp", Some("unconfined")) => Self::Seccomp(Seccomp::Unconfined),
            ("seccomp", Some(file)) if !file.is_empty() => {
                Self::Seccomp(Seccomp::File(file.into()))
            }
            ("systempaths", Some("unconfined")) => Self::SystemPaths,
            ("apparmor" | "label", _) => {
                bail!(
                    "{name} is not there: containers here have no AppArmor profile and no SELinux label"
                )
            }
            _ => bail!(
                "it is no-new-privileges[=false], seccomp=FILE, seccomp=unconfined or \
                 systempaths=unconfined"
            ),
        })
    }
}

impl SecurityArgs {
    /// Whether no exec gains a privilege. Unlike docker's, that is so unless it was said otherwise.
    #[must_use]
    pub fn no_new_privileges(&self) -> bool {
        let said = self.security_opt.iter().rev().find_map(|option| match option {
            SecurityOpt::NoNewPrivileges(yes) => Some(*yes),
            _ => None,
        });
        said.unwrap_or(true)
    }

    /// The last profile that was named.
    #[must_use]
    pub fn seccomp(&self) -> &Seccomp {
        let said = self.security_opt.iter().rev().find_map(|option| match option {
            SecurityOpt::Seccomp(profile) => Some(profile),
            _ => None,
        });
        said.unwrap_or(&Seccomp::Usual)
    }

    /// Whether paths in /proc and /sys are hidden or protected.
    #[must_use]
    pub fn hides_paths(&self) -> bool {
        !self.privileged && !self.security_opt.contains(&SecurityOpt::SystemPaths)
    }
}
