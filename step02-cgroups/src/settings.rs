//! Which limit is which number in which file.
//!
//! The whole of what differs between the versions, at a glance. Documentation: version 2,
//! Documentation/admin-guide/cgroup-v2.rst; version 1, admin-guide/cgroup-v1/ and, for
//! processor time, scheduler/sched-bwc.rst.

use std::fs;
use std::path::Path;

use crate::{Limits, Memory, Swap, Version};

/// A number to be written into a file of the group's directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Setting {
    /// The option that it comes from, for messages.
    pub option: &'static str,
    /// The controller that it takes.
    pub controller: &'static str,
    /// The file.
    pub file: &'static str,
    /// What is written.
    pub value: String,
    /// Whether the kernel may lack the file: swap accounting can be off, and then there is no
    /// swap to be limited by it.
    pub optional: bool,
}

/// The settings for these limits, in the order in which they must be written.
#[must_use]
// ANCHOR: settings
pub fn settings(limits: &Limits, version: Version) -> Vec<Setting> {
    let mut settings = Vec::new();
    let mut set = |option, controller, file, value: String| {
        settings.push(Setting { option, controller, file, value, optional: false });
    };
    match version {
        Version::V2 => {
            // ANCHOR: ex-2.1
            if let Some(memory) = limits.memory {
                set("memory", "memory", "memory.max", memory.bytes().to_string());
                set("memory", "memory", "memory.swap.max", "0".into());
            }
            if let Some(cpus) = limits.cpus {
                set("cpus", "cpu", "cpu.max", format!("{} {}", cpus.quota(), cpus.period()));
            }
            if let Some(pids) = limits.pids {
                set("pids", "pids", "pids.max", pids.to_string());
            }
            if let Some(cpuset) = &limits.cpuset {
                set("cpuset", "cpuset", "cpuset.cpus", cpuset.to_string());
            }
            // ANCHOR_END: ex-2.1
        }
        Version::V1 => {
            if let Some(memory) = limits.memory {
                let bytes = memory.bytes().to_string();
                set("memory", "memory", "memory.limit_in_bytes", bytes.clone());
                // Memory and swap together, so never less than memory alone: hence the order.
                set("memory", "memory", "memory.memsw.limit_in_bytes", bytes);
            }
            if let Some(cpus) = limits.cpus {
                set("cpus", "cpu", "cpu.cfs_period_us", cpus.period().to_string());
                set("cpus", "cpu", "cpu.cfs_quota_us", cpus.quota().to_string());
            }
            if let Some(pids) = limits.pids {
                set("pids", "pids", "pids.max", pids.to_string());
            }
            if let Some(cpuset) = &limits.cpuset {
                // A new group has no memory nodes, and takes no process before it has.
                set("cpuset", "cpuset", "cpuset.mems", String::new());
                set("cpuset", "cpuset", "cpuset.cpus", cpuset.to_string());
            }
        }
    }
    let (reservation, file) = match version {
        Version::V2 => ("memory.low", "cpu.weight"),
        Version::V1 => ("memory.soft_limit_in_bytes", "cpu.shares"),
    };
    if let Some(bytes) = limits.reservation {
        set("memory-reservation", "memory", reservation, bytes.to_string());
    }
    if let Some(shares) = limits.shares {
        let part = if version == Version::V2 { weight(shares) } else { shares };
        set("cpu-shares", "cpu", file, part.to_string());
    }
    for setting in settings.iter_mut().filter(|setting| is_swap(setting.file)) {
        match limits.swap {
            None => setting.optional = true,
            Some(swap) => {
                setting.option = "memory-swap";
                setting.value = swap_limit(swap, limits, version);
            }
        }
    }
    settings
}
// ANCHOR_END: settings

fn is_swap(file: &str) -> bool {
    file.contains("swap") || file.contains("memsw")
}

/// Version 1 limits memory and swap together, version 2 swap alone.
fn swap_limit(swap: Swap, limits: &Limits, version: Version) -> String {
    let memory = limits.memory.map_or(0, Memory::bytes);
    match (swap, version) {
        (Swap::Total(bytes), Version::V1) => bytes.to_string(),
        (Swap::Total(bytes), Version::V2) => bytes.saturating_sub(memory).to_string(),
        (Swap::Unlimited, Version::V1) => "-1".to_owned(),
        (Swap::Unlimited, Version::V2) => "max".to_owned(),
    }
}

/// Shares of 2 to 262144 as a weight of 1 to 10000, in the way that runtimes agree upon (crun(1), "cgroup
/// v2").
fn weight(shares: u64) -> u64 {
    1 + (shares.saturating_sub(2) * 9_999) / 262_142
}

impl Setting {
    /// Writes it into the group's directory.
    pub(crate) fn write(&self, group: &Path) -> std::io::Result<()> {
        let path = group.join(self.file);
        if self.optional && !path.exists() {
            return Ok(());
        }
        if self.value.is_empty() {
            let inherited = fs::read_to_string(group.with_file_name("").join(self.file))?;
            return fs::write(path, inherited.trim());
        }
        fs::write(path, &self.value)
    }
}

#[cfg(test)]
mod tests {
    use super::settings;
    use crate::{Limits, Memory, Swap, Version};

    #[test]
    fn the_same_limits_in_both_versions() {
        let limits = |swap| Limits {
            memory: Some(Memory::new(64 << 20).unwrap()),
            swap,
            reservation: Some(32 << 20),
            shares: Some(1024),
            ..Limits::default()
        };
        let find = |swap, version, file: &str| {
            let all = settings(&limits(swap), version);
            let found = all.into_iter().find(|setting| setting.file == file);
            found.map(|setting| (setting.value, setting.optional)).unwrap()
        };
        let (v1, v2) = ("memory.memsw.limit_in_bytes", "memory.swap.max");
        let total = Some(Swap::Total(96 << 20));
        for (swap, in_v1, in_v2, optional) in [
            (None, "67108864", "0", true),
            (total, "100663296", "33554432", false),
            (Some(Swap::Unlimited), "-1", "max", false),
        ] {
            assert_eq!(find(swap, Version::V1, v1), (in_v1.to_owned(), optional));
            assert_eq!(find(swap, Version::V2, v2), (in_v2.to_owned(), optional));
        }
        assert_eq!(find(None, Version::V1, "memory.soft_limit_in_bytes").0, "33554432");
        assert_eq!(find(None, Version::V2, "memory.low").0, "33554432");
        assert_eq!(find(None, Version::V1, "cpu.shares").0, "1024");
        assert_eq!(find(None, Version::V2, "cpu.weight").0, "39");
        for (shares, weight) in [(2, 1), (262_144, 10_000)] {
            assert_eq!(super::weight(shares), weight);
        }
    }
}
