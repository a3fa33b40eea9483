//! What only version 1 has.

use std::fs;
use std::io::Read as _;
use std::os::fd::AsRawFd as _;

use nix::fcntl::{OFlag, open};
use nix::mount::{MntFlags, umount2};
use nix::sys::signal::{Signal, kill};
use nix::sys::stat::Mode;
use nix::unistd::Pid;
use workshop::lab::Who;
use workshop::suite::finish;

use crate::{BEGIN, PATIENCE, Running, WAIT, any_exists, fifo, mount};

/// A FIFO in the place of `freezer.state` shows, in this lab, what is written to it. The processes are
/// then not frozen, which is why they still end when they are killed.
pub fn processes_are_frozen_before_they_are_killed(_: Who) {
    let script = format!("sleep 60 & {BEGIN}; {WAIT}");
    let running = Running::start(&["--share", "pid"], &script);
    let groups = running.groups.clone();
    let state = groups.iter().map(|group| group.join("freezer.state")).find(|path| path.exists());
    let state = state.expect("a group in the freezer's hierarchy");
    let (fifo, mut seen) = fifo("freezer.state");
    mount(Some(&fifo), &state, None);
    // The group will be gone, and with it the path: by this the mount can be found nevertheless.
    let mounted = open(&state, OFlag::O_PATH | OFlag::O_CLOEXEC, Mode::empty()).unwrap();
    kill(Pid::from_raw(running.child.id().cast_signed()), Signal::SIGTERM).unwrap();
    assert_eq!(finish(running.child, PATIENCE).status, Some(0));
    assert!(!any_exists(&groups));
    let mut written = [0; 64];
    let len = seen.read(&mut written).expect("something was written");
    assert_eq!(written[..len], *b"FROZENTHAWED");
    let path = format!("/proc/self/fd/{}", mounted.as_raw_fd());
    umount2(path.as_str(), MntFlags::MNT_DETACH).unwrap();
    fs::remove_file(fifo).unwrap();
}
