//! How a small process of ours begins that is to outlive its caller's affairs.

use std::ffi::CStr;
use std::fs::File;
use std::io::{PipeReader, PipeWriter, Write as _};
use std::os::fd::RawFd;

use anyhow::{Context as _, Result, ensure};
use nix::errno::Errno;
use nix::sys::prctl::set_name;
use nix::sys::signal::{SigSet, SigmaskHow, sigprocmask};
use nix::unistd::{chdir, dup2_stderr, dup2_stdin, dup2_stdout, setsid};

use crate::idle;

/// What it says to who has started it, when nothing can go wrong any more.
const STARTED: &str = "started";

/// Its side: it has begun, or it says why not.
pub fn tell(mut caller: PipeWriter, begun: Result<()>) -> Result<()> {
    let said = begun.as_ref().map_or_else(|error| format!("{error:#}"), |()| STARTED.to_owned());
    caller.write_all(said.as_bytes()).context("cannot tell that we have started")?;
    begun
}

/// Its caller's side, who has no copy of the other end any more: waits until it has begun.
pub fn wait_for(helper: PipeReader) -> Result<()> {
    let said = std::io::read_to_string(helper).context("cannot hear of its start")?;
    ensure!(!said.is_empty(), "it was killed");
    ensure!(said == STARTED, said);
    Ok(())
}

/// Cuts the ties to who has started us: their session, directory, signals, and all files but the `kept`
/// ones. Among these are their locks, by which they are known to live. And gives back what it has of theirs.
pub fn leave_caller(kept: &[RawFd], name: &CStr) -> Result<()> {
    setsid().context("cannot start a session")?;
    chdir("/").context("cannot change to /")?;
    let null = File::options().read(true).write(true).open("/dev/null")?;
    dup2_stdin(&null)?;
    dup2_stdout(&null)?;
    dup2_stderr(&null)?;
    drop(null);
    let mut kept: Vec<_> = kept.iter().map(|&fd| fd.cast_unsigned()).collect();
    kept.sort_unstable();
    let firsts = [3].into_iter().chain(kept.iter().map(|fd| fd + 1));
    let lasts = kept.iter().map(|fd| fd - 1).chain([u32::MAX]);
    for (first, last) in firsts.zip(lasts).filter(|(first, last)| first <= last) {
        // SAFETY: takes numbers only. What it closes is not used, as nothing of the caller's is.
        Errno::result(unsafe { libc::syscall(libc::SYS_close_range, first, last, 0) })?;
    }
    sigprocmask(SigmaskHow::SIG_SETMASK, Some(&SigSet::empty()), None)?;
    idle::give_back();
    set_name(name).context("cannot take a name")
}
