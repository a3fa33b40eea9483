//! Signals: ours wait until the guards can run, then they are the container's.

use std::os::fd::{AsFd, BorrowedFd};

use anyhow::{Context as _, Result};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};

use crate::caller::is_ignored;

/// What a user or another program sends to ask something of the container.
const FORWARDED: [Signal; 8] = [
    Signal::SIGHUP,
    Signal::SIGINT,
    Signal::SIGQUIT,
    Signal::SIGTERM,
    Signal::SIGUSR1,
    Signal::SIGUSR2,
    Signal::SIGCONT,
    Signal::SIGWINCH,
];

/// Blocked signals, readable as a file (signalfd(2)).
///
/// From here on a Ctrl-C no longer kills us in the middle of our work, with a cgroup or a
/// network link half made: it stays pending until somebody reads it.
#[derive(Debug)]
pub struct Signals(SignalFd);

/// A signal that arrived, and whether a terminal sent it (rather than kill(2)).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Arrived {
    /// Its number.
    pub signal: Signal,
    /// A terminal sends to its whole foreground process group, so others have it already.
    pub from_terminal: bool,
}

impl Signals {
    /// Blocks them. Call it before anything is made that must be cleaned up.
    pub fn block() -> Result<Self> {
        // What we are to ignore (nohup(1) ignores SIGHUP) is not passed on either. Blocked, it would
        // arrive here all the same.
        let set: SigSet = FORWARDED.into_iter().filter(|&signal| !is_ignored(signal)).collect();
        set.thread_block().context("cannot block signals")?;
        let flags = SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK;
        Ok(Self(SignalFd::with_flags(&set, flags).context("cannot make a signalfd")?))
    }

    /// The next signal, if one has arrived.
    pub fn next(&self) -> Result<Option<Arrived>> {
        let Some(info) = self.0.read_signal().context("cannot read the signalfd")? else {
            return Ok(None);
        };
        let signal = Signal::try_from(info.ssi_signo.cast_signed()).context("unknown signal")?;
        Ok(Some(Arrived { signal, from_terminal: info.ssi_code == libc::SI_KERNEL }))
    }
}

impl AsFd for Signals {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}
