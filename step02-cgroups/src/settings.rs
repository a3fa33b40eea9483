//! Which limit is which number in which file.
//!
//! The whole of what differs between the versions, at a glance. Documentation: version 2,
//! Documentation/admin-guide/cgroup-v2.rst; version 1, admin-guide/cgroup-v1/ and, for
//! processor time, scheduler/sched-bwc.rst.

use std::fs;
use std::path::Path;

use crate::{Limits, Version};

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
    for setting in &mut settings {
        setting.optional = setting.file.contains("swap") || setting.file.contains("memsw");
    }
    settings
}
// ANCHOR_END: settings

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
