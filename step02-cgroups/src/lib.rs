//! Step 2: cgroups.
//!
//! A cgroup is a directory in a special file system. Making the directory makes the group,
//! writing a process id into `cgroup.procs` moves the process in, writing a number into
//! `memory.max` limits them all. There is no system call: this crate reads and writes files.
//!
//! The map of this crate:
//!
//! | file | what it holds |
//! |---|---|
//! | [`limits`](Limits) | `--memory 64M --cpus 0.5 --pids 32 --cpuset 0` |
//! | [`hierarchy`](Hierarchy) | where cgroups are mounted: version 1, version 2, or both |
//! | [`settings`](Setting) | which limit is which number in which file |
//! | [`cgroup`](Cgroup) | make, join, report, kill, remove |
//! | `freezer` | pause and go on |
//! | [`usage`](Usage) | what the group has used |
//! | `group` | one directory, and whose it is |

mod cgroup;
mod freezer;
mod group;
mod hierarchy;
mod limits;
mod settings;
mod usage;

pub use cgroup::{Cgroup, check_delegation, place, sweep};
pub use hierarchy::{Hierarchy, Version, hierarchies, parse};
pub use limits::{Args, Cpus, Cpuset, Limits, MOST_PIDS, Memory, SHARES, Swap, parse_size};
pub use settings::{Setting, settings};
pub use usage::Usage;
