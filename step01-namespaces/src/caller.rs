//! What a process inherits from its caller without being told, and better forgets.

use nix::sys::signal::{SigHandler, Signal, signal};
use nix::sys::stat::{Mode, umask};

/// At the beginning of `main`, where [`crate::parse`] is not that: the same start for everybody.
pub fn forget() {
    // Under umask 0777 we could not enter the directories that we make, nor could anybody later.
    umask(Mode::from_bits_truncate(0o022));
    // While it is ignored the kernel reaps our child by itself: nobody learns its status (wait(2)).
    set(Signal::SIGCHLD, SigHandler::SigDfl);
    // It comes when a file would grow beyond RLIMIT_FSIZE, and kills. Ignored, the write fails
    // instead (EFBIG), and we can undo what we have done (setrlimit(2)).
    set(Signal::SIGXFSZ, SigHandler::SigIgn);
}

/// Before the exec: takes back what is for ourselves only. (SIGPIPE, which Rust ignores,
/// `Command::exec` gives its default action again.)
pub(crate) fn restore_for_exec() {
    set(Signal::SIGXFSZ, SigHandler::SigDfl);
}

fn set(which: Signal, handler: SigHandler) {
    // SAFETY: the handler is a constant of the kernel's, no code of ours.
    unsafe { signal(which, handler) }.expect("an action that the kernel has for every signal");
}

/// Whether a signal is ignored because our caller has it so, as nohup(1) does.
pub(crate) fn is_ignored(signal: Signal) -> bool {
    // SAFETY: sigaction is plain numbers and pointers, for which all zeros is a valid value.
    let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
    // SAFETY: a null action only asks; the pointer is to a sigaction, which outlives the call.
    let result = unsafe { libc::sigaction(signal as i32, std::ptr::null(), &raw mut action) };
    result == 0 && action.sa_sigaction == libc::SIG_IGN
}
