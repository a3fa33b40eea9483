//! `--init`: a first process that does what the kernel expects of one, in front of a program that does not.
//!
//! All orphans of a PID namespace become children of its PID 1, and whoever does not wait for them leaves
//! them zombies. And PID 1 gets no signal without a handler for it, so a plain `sleep` cannot be ended by
//! SIGTERM (pid_namespaces(7)). As PID 2 a program has neither duty nor armour.

use std::fs;
use std::io::{Read as _, stdin};

use anyhow::{Context as _, Result};
use nix::errno::Errno;
use nix::sys::prctl;
use nix::sys::signal::{SigSet, SigmaskHow, Signal, sigprocmask};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::{ForkResult, Pid, fork, getpid, setpgid, tcsetpgrp};
use step01_namespaces::exit_status;

/// Forks, and returns in the child only, which is to become the program. This process stays in front of it
/// until it ends, and ends with its status. It needs one thread, and privileges that are given up already.
pub fn stay_in_front(has_terminal: bool) -> Result<()> {
    // They wait until somebody asks for them; the program has them unblocked by its exec.
    sigprocmask(SigmaskHow::SIG_SETMASK, Some(&SigSet::all()), None)
        .context("cannot block signals")?;
    prctl::set_child_subreaper(true).context("cannot inherit orphans")?; // if we are not PID 1
    let (mut forgotten, forgets) = std::io::pipe().context("cannot make a pipe")?;
    // SAFETY: there is one thread, so the child's memory is as whole as ours.
    match unsafe { fork() }.context("cannot start a process behind --init")? {
        ForkResult::Parent { child } => be_init(child),
        ForkResult::Child => {
            prctl::set_pdeathsig(Signal::SIGKILL).context("cannot tie the program to its init")?;
            drop(forgets);
            // The program may look into its init: not before that has forgotten the caller.
            forgotten.read_to_end(&mut Vec::new()).context("cannot wait for the init")?;
            // A group of its own, in the foreground: what is typed is not to come a second time, from us.
            setpgid(Pid::from_raw(0), Pid::from_raw(0)).context("cannot make a process group")?;
            if has_terminal {
                tcsetpgrp(stdin(), getpid()).context("cannot give it the terminal")?;
            }
            Ok(())
        }
    }
}

// ANCHOR: be_init
/// Waits for signals: an end to be reaped, or a message for the program.
fn be_init(program: Pid) -> ! {
    forget();
    loop {
        match next_signal() {
            libc::SIGCHLD => {
                if let Some(status) = reap(program) {
                    // SAFETY: _exit(2) ends the process at once, and with it all of the namespace.
                    unsafe { libc::_exit(status.into()) }
                }
            }
            // Errors of our own, and what a terminal says of our own reading and writing.
            libc::SIGSEGV
            | libc::SIGBUS
            | libc::SIGFPE
            | libc::SIGILL
            | libc::SIGABRT
            | libc::SIGTRAP
            | libc::SIGSYS
            | libc::SIGTTIN
            | libc::SIGTTOU => {}
            signal => {
                // SAFETY: takes numbers only. It may have ended, and then SIGCHLD comes next.
                unsafe { libc::kill(program.as_raw(), signal) };
            }
        }
    }
}

// ANCHOR_END: be_init

/// sigwaitinfo(2), also for real-time signals.
fn next_signal() -> libc::c_int {
    let all = SigSet::all();
    // SAFETY: the set outlives the call, and a null pointer asks for no details.
    unsafe { libc::sigwaitinfo(all.as_ref(), std::ptr::null_mut()) }
}

/// Waits for all that have ended; returns the program's status, if it is among them.
fn reap(program: Pid) -> Option<u8> {
    loop {
        match waitpid(None, Some(WaitPidFlag::WNOHANG)) {
            Err(Errno::EINTR) => {}
            Err(_) | Ok(WaitStatus::StillAlive) => return None,
            Ok(ended) if ended.pid() == Some(program) => return exit_status(ended).ok(),
            Ok(_) => {}
        }
    }
}

/// Lets go of what is left of the runtime: its files, and in its memory the caller's arguments and
/// environment, which the container can read in /proc/1 (proc_pid_cmdline(5), proc_pid_environ(5)), and
/// all that we have made of them since. After that others may look into it again: `exec` has to.
///
/// The files go last: one of them is the pipe that the program waits at.
fn forget() {
    let _ = prctl::set_name(c"init");
    let emptied = places().is_some_and(empty);
    let _ = prctl::set_dumpable(emptied);
    // SAFETY: takes numbers only. Nothing that has one of these files open is used any more.
    unsafe { libc::syscall(libc::SYS_close_range, 3, u32::MAX, 0) };
}

/// Overwrites the strings and empties the heap; whether that is done.
fn empty((strings, heap): ([Place; 2], Place)) -> bool {
    for (start, end) in strings {
        let start = std::ptr::with_exposed_provenance_mut::<u8>(start);
        // SAFETY: the kernel has put the strings there for us, to be written as well. Nobody reads
        // arguments or environment any more, and there is no other thread.
        unsafe { start.write_bytes(0, end.saturating_sub(start.addr())) };
    }
    let start = std::ptr::with_exposed_provenance_mut(heap.0);
    // SAFETY: this empties the heap (madvise(2)). From here on nothing is allocated, used or freed: what
    // follows is on the stack, and ends in _exit.
    unsafe { libc::madvise(start, heap.1 - heap.0, libc::MADV_DONTNEED) == 0 }
}

type Place = (usize, usize);

/// Where the arguments, the environment and the heap begin and end in our memory.
fn places() -> Option<([Place; 2], Place)> {
    let stat = fs::read_to_string("/proc/self/stat").ok()?;
    // Fields 48 to 51 (proc_pid_stat(5)); the first one behind the name is field 3.
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace().skip(45).map(str::parse);
    let mut next = || fields.next()?.ok();
    let strings = [(next()?, next()?), (next()?, next()?)];
    let maps = fs::read_to_string("/proc/self/maps").ok()?;
    let heap = maps.lines().find(|line| line.ends_with("[heap]"))?.split(' ').next()?;
    let (start, end) = heap.split_once('-')?;
    let address = |text| usize::from_str_radix(text, 16).ok();
    Some((strings, (address(start)?, address(end)?)))
}
