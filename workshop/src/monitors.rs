//! The monitors of `final`'s containers, for tests to end.

use std::fs;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

use crate::suite::eventually;

/// The monitor of a container, as the state.json of the lab's store says.
///
/// # Panics
/// If there is no such container, or it has none.
#[must_use]
pub fn monitor(name: &str) -> Pid {
    let root = std::env::var("FINAL_ROOT").expect("a lab");
    for entry in fs::read_dir(format!("{root}/containers")).expect("the store") {
        let text = fs::read(entry.expect("a container").path().join("state.json"));
        let Ok(text) = text else { continue }; // one that is just being made or removed
        let state: Value = serde_json::from_slice(&text).expect("JSON");
        if state["name"] == name {
            let pid = state["monitor"]["pid"].as_i64().expect("a monitor");
            return Pid::from_raw(i32::try_from(pid).expect("a pid"));
        }
    }
    panic!("no container {name}")
}

/// SIGKILL for the monitor of a container: it cannot clean up.
pub fn kill_monitor(name: &str) {
    kill_process(monitor(name));
}

/// SIGKILL for a process, which may have ended by itself; returns when it has had its effect.
pub fn kill_process(pid: Pid) {
    let _ = kill(pid, Signal::SIGKILL);
    wait_for_end(pid);
}

/// Waits until a process has given up all that it had, also if it is not our child.
pub fn wait_for_end(pid: Pid) {
    let stat = format!("/proc/{pid}/stat");
    eventually("it has ended", || fs::read_to_string(&stat).map_or(true, |s| s.contains(") Z ")));
}
