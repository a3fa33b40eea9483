//! The options of `run`, by theme.

mod life;
mod limits;
mod mounts;
mod names;
mod namespaces;
mod network;
mod process;
mod security;

use std::ffi::OsString;

use clap::{Args, ValueEnum};

pub use life::{LifeArgs, grace};
pub use limits::LimitArgs;
pub use mounts::{HostDevice, MountArgs};
pub use names::NameArgs;
pub use namespaces::{NamespaceArgs, Share, Userns};
pub use network::{Net, NetworkArgs};
pub use process::{EnvFile, ProcessArgs, parse_env, read_env};
pub use security::{Seccomp, SecurityArgs};

use super::StdioArgs;

/// When to get the image from a registry.
#[derive(ValueEnum, Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pull {
    /// If it is not there
    Missing,
    /// It has to be there
    Never,
    /// Each time, as its name may stand for another by now
    Always,
}

/// `[OPTIONS] [IMAGE [COMMAND...]]`
#[derive(Args, Debug, Clone)]
#[command(disable_help_flag = true)]
pub struct RunArgs {
    /// A name for the container; without it, its id
    #[arg(long, value_parser = crate::store::parse_name)]
    pub name: Option<String>,

    /// The container's host name; without it, its id
    #[arg(long, short = 'h', value_name = "NAME", value_parser = step01_namespaces::parse_hostname)]
    pub hostname: Option<String>,

    /// What the program finds when it starts.
    #[command(flatten)]
    pub process: ProcessArgs,

    /// What is mounted.
    #[command(flatten)]
    pub mounts: MountArgs,

    /// Which network.
    #[command(flatten)]
    pub network: NetworkArgs,

    /// Who knows which names.
    #[command(flatten)]
    pub names: NameArgs,

    /// Which namespaces are shared.
    #[command(flatten)]
    pub namespaces: NamespaceArgs,

    /// How much it may use.
    #[command(flatten)]
    pub limits: LimitArgs,

    /// What it may do.
    #[command(flatten)]
    pub security: SecurityArgs,

    /// When to get the image from a registry
    #[arg(long, value_name = "WHEN", default_value = "missing")]
    pub pull: Pull,

    /// When it ends, and what becomes of it then.
    #[command(flatten)]
    pub life: LifeArgs,

    /// `-i` and `-t`.
    #[command(flatten)]
    pub stdio: StdioArgs,

    /// Print help
    #[arg(long, action = clap::ArgAction::Help)]
    pub help: Option<bool>,

    /// The image (`host`, a name or id, or a directory: ./DIR), and the program to run in it
    #[arg(value_name = "IMAGE [COMMAND...]", trailing_var_arg = true)]
    pub image_and_command: Vec<OsString>,
}
