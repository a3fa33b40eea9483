//! The options of `run` that limit what it may use.

use clap::Args;
use step02_cgroups::{Cpus, Cpuset, Memory};

/// How much of the machine it may use.
#[derive(Args, Debug, Clone)]
#[group(skip)]
pub struct LimitArgs {
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
}
