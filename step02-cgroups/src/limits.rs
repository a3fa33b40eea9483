//! The part of the command line that is about limits.

use std::fmt;
use std::fs;
use std::ops::RangeInclusive;
use std::str::FromStr;

use anyhow::{Context as _, Error, Result, anyhow, ensure};

/// What the container may use.
// A -1 is to be called a bad value, not an unknown option: hence the hyphen values.
#[derive(clap::Args, Debug, Clone)]
#[group(skip)]
pub struct Args {
    /// Most memory, in bytes or with b, k, m, g behind it; swap is off
    #[arg(long, short, value_name = "SIZE", allow_hyphen_values = true)]
    pub memory: Option<Memory>,

    /// Most processor time, in processors: 0.5 is half of one
    #[arg(long, value_name = "NUMBER", allow_hyphen_values = true)]
    pub cpus: Option<Cpus>,

    /// Most processes (and threads)
    #[arg(long, value_name = "NUMBER", allow_hyphen_values = true)]
    #[arg(value_parser = clap::value_parser!(u64).range(1..=MOST_PIDS))]
    pub pids: Option<u64>,

    /// The processors that it may run on: 0-2,4
    #[arg(long, value_name = "LIST", allow_hyphen_values = true)]
    pub cpuset: Option<Cpuset>,
}

impl Args {
    /// They were checked as they were read.
    #[must_use]
    pub fn limits(&self) -> Limits {
        let Self { memory, cpus, pids, cpuset } = self.clone();
        Limits { memory, cpus, pids, cpuset, ..Limits::default() }
    }
}

/// The kernel's `PID_MAX_LIMIT`, of a 64-bit machine: a cgroup takes no higher limit.
pub const MOST_PIDS: u64 = 4 << 20;

/// The limits of a cgroup; `None` is no limit.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Limits {
    /// Memory.
    pub memory: Option<Memory>,
    /// Processor time.
    pub cpus: Option<Cpus>,
    /// Processes and threads.
    pub pids: Option<u64>,
    /// Processors.
    pub cpuset: Option<Cpuset>,
    /// Memory and swap together; `None` is no swap, where memory is limited.
    pub swap: Option<Swap>,
    /// Memory that is not to be taken from it while others have more than theirs, in bytes.
    pub reservation: Option<u64>,
    /// Its part of the processors while others want them, too: 1024 is the usual one.
    pub shares: Option<u64>,
}

/// Memory and swap together, as version 1, docker and OCI count it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Swap {
    /// So many bytes.
    Total(u64),
    /// Any amount of swap.
    Unlimited,
}

/// What the kernel takes for shares (`MIN_SHARES` and `MAX_SHARES` in kernel/sched/sched.h).
pub const SHARES: RangeInclusive<u64> = 2..=262_144;

/// An amount of memory in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Memory(u64);

impl Memory {
    /// docker's least, 6 MiB: below it the container's own set-up would not fit.
    pub const LEAST: u64 = 6 << 20;

    /// An amount of at least [`Memory::LEAST`] bytes. The kernel counts in an `i64`, as config.json
    /// does.
    pub fn new(bytes: u64) -> Result<Self> {
        ensure!(bytes >= Self::LEAST, "{bytes} bytes are too little: a container needs 6m (6 MiB)");
        ensure!(i64::try_from(bytes).is_ok(), "{bytes} bytes are too much: no host has that");
        Ok(Self(bytes))
    }

    /// In bytes.
    #[must_use]
    pub fn bytes(self) -> u64 {
        self.0
    }
}

impl FromStr for Memory {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        Self::new(parse_size(text)?)
    }
}

/// Reads an amount: in bytes, or a whole number with `k`, `m` or `g` behind it; returns bytes.
pub fn parse_size(text: &str) -> Result<u64> {
    let lower = text.to_ascii_lowercase();
    let digits = lower.trim_end_matches(|c: char| !c.is_ascii_digit());
    let factor: u64 = match &lower[digits.len()..] {
        "" | "b" => 1,
        "k" | "kb" | "kib" => 1 << 10,
        "m" | "mb" | "mib" => 1 << 20,
        "g" | "gb" | "gib" => 1 << 30,
        _ => 0,
    };
    let number = digits.parse::<u64>().ok().filter(|_| factor > 0 && !digits.starts_with('+'));
    let number = number.with_context(|| {
        format!("{text:?} is not a size: write bytes, or a whole number with k, m or g")
    })?;
    number.checked_mul(factor).with_context(|| format!("{text} is too much"))
}

/// Shown in whole MiB where it is that.
impl fmt::Display for Memory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&show_bytes(self.0))
    }
}

/// `64 MiB`, `1.5 MiB`: as people read it.
pub(crate) fn show_bytes(bytes: u64) -> String {
    let tenths = bytes.saturating_mul(10) >> 20;
    match tenths % 10 {
        0 => format!("{} MiB", tenths / 10),
        tenth => format!("{}.{tenth} MiB", tenths / 10),
    }
}

/// Processor time: so many microseconds (quota) in every period.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cpus {
    quota: u64,
    period: u64,
}

impl Cpus {
    /// The kernel's default period: 100 ms.
    const PERIOD: u64 = 100_000;

    /// From both numbers, in microseconds. The kernel takes periods of 1 ms to 1 s and quotas of
    /// at least 1 ms (Documentation/scheduler/sched-bwc.rst).
    pub fn from_quota(quota: i64, period: u64) -> Result<Self> {
        ensure!((1_000..=1_000_000).contains(&period), "a CPU period has 1000 to 1000000 us");
        let quota = u64::try_from(quota).unwrap_or(0);
        ensure!(quota >= 1_000, "a CPU quota of {quota} us is too little: the least is 1000");
        Ok(Self { quota, period })
    }

    /// In microseconds.
    #[must_use]
    pub fn quota(self) -> u64 {
        self.quota
    }

    /// In microseconds.
    #[must_use]
    pub fn period(self) -> u64 {
        self.period
    }
}

impl FromStr for Cpus {
    type Err = Error;

    #[allow(
        clippy::cast_possible_truncation,
        clippy::cast_precision_loss,
        reason = "checked to be a small number"
    )]
    fn from_str(text: &str) -> Result<Self> {
        let number: f64 = text.parse().with_context(|| format!("{text:?} is not a number"))?;
        let most = cpus_in(&online_cpus()?).map_or(1, |cpus| cpus.len());
        ensure!(
            (0.01..=most as f64).contains(&number),
            "{text} processors cannot be had: this host has {most}, and the least is 0.01"
        );
        Self::from_quota((number * Self::PERIOD as f64).round() as i64, Self::PERIOD)
    }
}

fn online_cpus() -> Result<String> {
    let path = "/sys/devices/system/cpu/online";
    let online = fs::read_to_string(path);
    Ok(online.map_err(|error| anyhow!("cannot read {path}: {error}"))?.trim().to_owned())
}

/// A list of processors, as `0-2,4`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cpuset(String);

impl FromStr for Cpuset {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let wanted = cpus_in(text)
            .with_context(|| format!("{text:?} is not a list of processors: write 0 or 0-2,4"))?;
        let online = online_cpus()?;
        let there = cpus_in(&online).unwrap_or_default();
        let missing = |cpu| !there.iter().any(|range| range.contains(&cpu));
        ensure!(
            !wanted.into_iter().flatten().any(missing),
            "this host has the processors {online}, so not {text}"
        );
        Ok(Self(text.to_owned()))
    }
}

impl fmt::Display for Cpuset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The ranges in a list such as `0-2,4`; `None` if it is not one. They are not written out: each
/// could be 65536 numbers.
fn cpus_in(list: &str) -> Option<Vec<RangeInclusive<u16>>> {
    let number = |text: &str| text.parse().ok().filter(|_| !text.starts_with('+'));
    let range = |part: &str| {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let range = number(first)?..=number(last)?;
        (!range.is_empty()).then_some(range)
    };
    list.split(',').map(range).collect()
}

#[cfg(test)]
mod tests {
    use super::{Cpus, Cpuset, Memory, show_bytes};

    #[test]
    fn sizes() {
        for (text, bytes) in [("6291456", 6 << 20), ("64M", 64 << 20), ("1g", 1 << 30)] {
            assert_eq!(text.parse::<Memory>().unwrap().bytes(), bytes);
        }
        for bad in [
            "",
            "m",
            "-1m",
            "1.5g",
            "64x",
            "5m",
            "99999999999999999999",
            "20000000000g",
            "8589934592g",
        ] {
            assert!(bad.parse::<Memory>().is_err(), "{bad}");
        }
        assert_eq!(show_bytes(64 << 20), "64 MiB");
        assert_eq!(show_bytes(3 << 19), "1.5 MiB");
    }

    #[test]
    fn processors() {
        let half: Cpus = "0.5".parse().unwrap();
        assert_eq!((half.quota(), half.period()), (50_000, 100_000));
        for bad in ["", "0", "-1", "nan", "inf", "1e9", "half"] {
            assert!(bad.parse::<Cpus>().is_err(), "{bad}");
        }
        assert!("0".parse::<Cpuset>().is_ok());
        for bad in ["", "a", "1-0", "0-", "65535", "0,,1", "-1", "+0"] {
            assert!(bad.parse::<Cpuset>().is_err(), "{bad}");
        }
    }
}
