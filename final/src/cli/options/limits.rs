//! The options of `run` that limit what it may use.

use anyhow::{Result, ensure};
use clap::Args;
use step02_cgroups::{Cpus, Cpuset, Memory, SHARES, Swap, parse_size};

/// How much of the machine it may use.
#[derive(Args, Debug, Clone)]
#[group(skip)]
pub struct LimitArgs {
    /// Most memory, in bytes or with b, k, m, g behind it; swap is off
    #[arg(long, short, value_name = "SIZE", allow_hyphen_values = true)]
    pub memory: Option<Memory>,

    /// Most memory and swap together; -1 is no limit of swap. Without it there is no swap
    #[arg(long, value_name = "SIZE", value_parser = parse_swap, allow_hyphen_values = true)]
    #[arg(requires = "memory")]
    pub memory_swap: Option<Swap>,

    /// Memory that others do not get while they have more than theirs
    #[arg(long, value_name = "SIZE", value_parser = parse_size, allow_hyphen_values = true)]
    pub memory_reservation: Option<u64>,

    /// Most processor time, in processors: 0.5 is half of one
    #[arg(long, value_name = "NUMBER", allow_hyphen_values = true)]
    pub cpus: Option<Cpus>,

    /// Its part of the processors while others want them, too: 1024 is the usual one
    #[arg(long, short, value_name = "NUMBER", allow_hyphen_values = true)]
    #[arg(value_parser = clap::value_parser!(u64).range(SHARES))]
    pub cpu_shares: Option<u64>,

    /// Most processor time in each period, in microseconds
    #[arg(long, value_name = "MICROSECONDS", allow_hyphen_values = true, conflicts_with = "cpus")]
    pub cpu_quota: Option<i64>,

    /// The period for that, in microseconds; without it, 100000
    #[arg(long, value_name = "MICROSECONDS", allow_hyphen_values = true, requires = "cpu_quota")]
    pub cpu_period: Option<u64>,

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

fn parse_swap(text: &str) -> Result<Swap> {
    Ok(if text == "-1" { Swap::Unlimited } else { Swap::Total(parse_size(text)?) })
}

impl LimitArgs {
    /// Processor time, said in either way.
    pub fn cpu_time(&self) -> Result<Option<Cpus>> {
        let quota =
            self.cpu_quota.map(|quota| Cpus::from_quota(quota, self.cpu_period.unwrap_or(100_000)));
        Ok(self.cpus.or(quota.transpose()?))
    }

    /// Refuses amounts of memory that contradict each other.
    pub fn check_memory(&self) -> Result<()> {
        let Some(memory) = self.memory else { return Ok(()) };
        let enough = |total| total >= memory.bytes();
        ensure!(
            !matches!(self.memory_swap, Some(Swap::Total(total)) if !enough(total)),
            "--memory-swap is memory and swap together, so no less than --memory"
        );
        ensure!(
            self.memory_reservation.is_none_or(|bytes| bytes <= memory.bytes()),
            "--memory-reservation is a part of --memory, so no more than that"
        );
        Ok(())
    }
}
