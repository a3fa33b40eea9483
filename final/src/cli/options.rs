//! The options of `run`.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::{Args, ValueEnum};
use step02_cgroups::{Cpus, Cpuset, Memory};
use step03_rootfs::{Volume, parse_inside};
use step05_nat::Publish;

use super::StdioArgs;

/// `run [OPTIONS] [IMAGE [COMMAND...]]`
#[derive(Args, Debug, Clone)]
#[command(disable_help_flag = true, override_usage = "final run [OPTIONS] [IMAGE [COMMAND...]]")]
pub struct RunArgs {
    /// A name for the container; without it, its id
    #[arg(long, value_parser = crate::store::parse_name)]
    pub name: Option<String>,

    /// The container's host name; without it, its id
    #[arg(long, short = 'h', value_name = "NAME", value_parser = step01_namespaces::parse_hostname)]
    pub hostname: Option<String>,

    /// Most memory, in bytes or with b, k, m, g behind it; swap is off
    #[arg(long, short, value_name = "SIZE", allow_hyphen_values = true)]
    pub memory: Option<Memory>,

    /// Most processor time, in processors: 0.5 is half of one
    #[arg(long, value_name = "NUMBER", allow_hyphen_values = true)]
    pub cpus: Option<Cpus>,

    /// Most processes (and threads)
    #[arg(long, value_name = "NUMBER", allow_hyphen_values = true)]
    #[arg(value_parser = clap::value_parser!(u64).range(1..=step02_cgroups::MOST_PIDS))]
    pub pids_limit: Option<u64>,

    /// The processors that it may run on: 0-2,4
    #[arg(long, value_name = "LIST", allow_hyphen_values = true)]
    pub cpuset_cpus: Option<Cpuset>,

    /// Let it write to its own cgroup (version 2), so that containers can run in it
    #[arg(long)]
    pub cgroup_rw: bool,

    /// Take the walls away: all capabilities, all system calls, nothing masked or read-only in /proc
    /// and /sys. Run as root, such a container is root on the host
    #[arg(long)]
    pub privileged: bool,

    /// The network; `bridge` needs root, and is root's default
    #[arg(long, alias = "network", value_name = "MODE")]
    pub net: Option<Net>,

    /// The bridge to be on.
    #[command(flatten)]
    pub bridge: step04_bridge_veth::Args,

    /// Make a container's port reachable at a port of the host (may be repeated)
    #[arg(long, short, value_name = "[ADDR:]HOST:CONTAINER[/tcp|udp]")]
    pub publish: Vec<Publish>,

    /// Mount a file or directory of the host in the container (may be repeated)
    #[arg(long, short, value_name = "SRC:DST[:ro]", value_parser = Volume::parse)]
    pub volume: Vec<Volume>,

    /// Set an environment variable, or pass on the caller's (may be repeated)
    #[arg(long, short, value_name = "NAME[=VALUE]", value_parser = parse_env)]
    pub env: Vec<String>,

    /// The working directory in the container
    #[arg(long, short, value_name = "DIR", default_value = "/", value_parser = parse_inside)]
    pub workdir: PathBuf,

    /// Remove the container when its program ends
    #[arg(long)]
    pub rm: bool,

    /// `-i` and `-t`.
    #[command(flatten)]
    pub stdio: StdioArgs,

    /// Print help
    #[arg(long, action = clap::ArgAction::Help)]
    pub help: Option<bool>,

    /// The image, `host` or a directory, and the program to run in it
    #[arg(value_name = "IMAGE [COMMAND...]", trailing_var_arg = true)]
    pub image_and_command: Vec<OsString>,
}

/// Which network namespace, and what is in it.
#[derive(ValueEnum, Debug, Clone, Copy, PartialEq, Eq)]
pub enum Net {
    /// Its own, with an eth0 on our bridge, and NAT to the world
    Bridge,
    /// Its own, with only the loopback interface
    None,
    /// The host's: also its localhost, and all Unix sockets that are not in a file system
    Host,
}

impl Net {
    /// As the command line and config.json have it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Bridge => "bridge",
            Self::None => "none",
            Self::Host => "host",
        }
    }
}

/// `NAME=VALUE`, or `NAME` for the caller's value: nothing if the caller has none, as docker.
pub fn parse_env(text: &str) -> Result<String, String> {
    match text.split_once('=') {
        Some(("", _)) | None if text.is_empty() || text.starts_with('=') => {
            Err("an environment variable needs a name: NAME=VALUE or NAME".into())
        }
        Some(_) => Ok(text.to_owned()),
        None => match std::env::var_os(text).map(OsString::into_string) {
            Some(Ok(value)) => Ok(format!("{text}={value}")),
            Some(Err(_)) => {
                Err("our own value of it is not UTF-8, as config.json has to be".into())
            }
            None => Ok(String::new()),
        },
    }
}
