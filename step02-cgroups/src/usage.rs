//! What the group has used.

use std::fs;
use std::path::Path;

/// Numbers that the kernel keeps; `None` where it does not keep them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Usage {
    /// Memory in use now, in bytes.
    pub memory: Option<u64>,
    /// The most memory that was in use at a time, in bytes (version 2: since Linux 5.19).
    pub memory_peak: Option<u64>,
    /// How many processes were killed for memory, in the group or (version 2) in one below it.
    pub oom_kills: Option<u64>,
    /// How often it was the group's own limit that left no memory (version 2: since Linux 5.2).
    pub over_limit: Option<u64>,
    /// Processor time used, in microseconds.
    pub cpu: Option<u64>,
    /// In how many periods the group had used up its quota.
    pub throttled: Option<u64>,
    /// How long it had to wait for that, in microseconds.
    pub throttled_time: Option<u64>,
    /// Processes and threads now.
    pub pids: Option<u64>,
    /// Bytes read from block devices. (Version 2 only: version 1's controller, blkio, counts since
    /// Linux 6.10 nothing until it limits something.)
    pub read: Option<u64>,
    /// Bytes written to block devices.
    pub written: Option<u64>,
}

impl Usage {
    /// Takes what is to be had in a group's directory. Version 1 has a directory for each
    /// controller, so it is called once for each.
    // ANCHOR: usage
    pub fn read(&mut self, group: &Path) {
        let read = |file: &str| fs::read_to_string(group.join(file)).ok();
        let number = |file: &str| read(file)?.trim().parse::<u64>().ok();
        let entry = |file: &str, key: &str| find(&read(file)?, key);

        // ANCHOR: ex-2.2
        self.memory = self.memory.or_else(|| number("memory.current"));
        self.memory = self.memory.or_else(|| number("memory.usage_in_bytes"));
        self.memory_peak = self.memory_peak.or_else(|| number("memory.peak"));
        self.memory_peak = self.memory_peak.or_else(|| number("memory.max_usage_in_bytes"));
        self.oom_kills = self.oom_kills.or_else(|| entry("memory.events", "oom_kill"));
        self.oom_kills = self.oom_kills.or_else(|| entry("memory.oom_control", "oom_kill"));
        // ANCHOR_END: ex-2.2
        self.over_limit = self.over_limit.or_else(|| entry("memory.events.local", "oom"));
        self.cpu = self.cpu.or_else(|| entry("cpu.stat", "usage_usec"));
        self.cpu =
            self.cpu.or_else(|| number("cpuacct.usage").map(|nanoseconds| nanoseconds / 1000));
        self.throttled = self.throttled.or_else(|| entry("cpu.stat", "nr_throttled"));
        self.throttled_time = self.throttled_time.or_else(|| entry("cpu.stat", "throttled_usec"));
        self.throttled_time = self
            .throttled_time
            .or_else(|| entry("cpu.stat", "throttled_time").map(|nanoseconds| nanoseconds / 1000));
        self.pids = self.pids.or_else(|| number("pids.current"));
        if let Some(devices) = read("io.stat") {
            (self.read, self.written) =
                (Some(sum(&devices, "rbytes")), Some(sum(&devices, "wbytes")));
        }
    }
    // ANCHOR_END: usage
}

/// The number behind `key` in a file of lines such as `oom_kill 3`.
fn find(text: &str, key: &str) -> Option<u64> {
    text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(' ')?.trim().parse().ok())
}

/// All numbers behind `key`, in a file with a line such as `8:0 rbytes=4096 wbytes=0` for each device.
fn sum(text: &str, key: &str) -> u64 {
    let number = |word: &str| word.strip_prefix(key)?.strip_prefix('=')?.parse::<u64>().ok();
    text.split_whitespace().filter_map(number).sum()
}

#[cfg(test)]
mod tests {
    use super::{find, sum};

    #[test]
    fn devices_are_added_up() {
        let text = "8:0 rbytes=4096 wbytes=8192 dbytes=1\n253:0 rbytes=1 wbytes=0 dbytes=0\n";
        assert_eq!((sum(text, "rbytes"), sum(text, "wbytes"), sum("", "wbytes")), (4097, 8192, 0));
    }

    #[test]
    fn a_key_is_a_whole_word() {
        let events = "low 0\noom 7\noom_kill 3\noom_group_kill 9\n";
        assert_eq!(find(events, "oom"), Some(7));
        assert_eq!(find(events, "oom_kill"), Some(3));
        assert_eq!(find(events, "max"), None);
    }
}
