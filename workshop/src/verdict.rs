//! For the tests of exercises: what they say, and processes to try things in.
//!
//! Such a test calls one function of a step, and compares what the kernel then shows. It needs no
//! other exercise to be solved, so it makes its namespaces and links by itself.

use std::fmt::Display;
use std::fs::File;
use std::io::{Read as _, Write as _, pipe};
use std::os::fd::OwnedFd;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

use nix::errno::Errno;
use nix::sched::{CloneFlags, setns, unshare};
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::{ForkResult, Pid, fork};

use crate::lab::make_private;

/// A verdict is told in three lines, which begin with these words.
pub const WORDS: [&str; 3] = ["expected: ", "but: ", "look at: "];

/// Fails the test, in the learner's terms: what was expected, what the kernel says instead, and
/// where to look.
#[track_caller]
pub fn verdict(expected: &str, but: &str, look_at: &str) -> ! {
    let [one, two, three] = WORDS;
    panic!("{one}{expected}\n{two}{but}\n{three}{look_at}")
}

/// A [`verdict`] unless it is `right`.
#[track_caller]
pub fn expect(right: bool, expected: &str, but: &str, look_at: &str) {
    if !right {
        verdict(expected, but, look_at);
    }
}

/// What a step's function returned; a [`verdict`] if that is an error.
#[track_caller]
pub fn expect_ok<T>(result: Result<T, impl Display>, expected: &str, look_at: &str) -> T {
    result.unwrap_or_else(|error| verdict(expected, &format!("{error:#}"), look_at))
}

/// Runs `inside` in a process of its own, and returns what it returned; if it panicked, so do we.
#[track_caller]
pub fn apart(inside: impl FnOnce() -> String) -> String {
    let (mut reader, mut writer) = pipe().expect("a pipe");
    // SAFETY: a test in a lab has one thread, so its copy may go on with any code.
    match unsafe { fork() }.expect("a process") {
        ForkResult::Child => {
            let result = catch_unwind(AssertUnwindSafe(inside));
            let status = match result {
                Ok(text) => writer.write_all(text.as_bytes()).map_or(101, |()| 0),
                Err(_) => 101, // the panic's message is on stderr
            };
            // SAFETY: _exit(2) ends the process at once; no Rust code runs after it.
            unsafe { libc::_exit(status) }
        }
        ForkResult::Parent { child } => {
            drop(writer);
            let mut text = String::new();
            let read = reader.read_to_string(&mut text);
            match waitpid(child, None) {
                Ok(WaitStatus::Exited(_, 0)) => drop(read.expect("text")),
                Ok(WaitStatus::Exited(_, 101)) => resume_unwind(Box::new(())),
                other => panic!("the test's own process ended with {other:?}"),
            }
            text
        }
    }
}

/// The same with a mount namespace of its own, whose mounts are private.
#[track_caller]
pub fn with_mounts(inside: impl FnOnce() -> String) -> String {
    apart(|| {
        unshare(CloneFlags::CLONE_NEWNS).expect("a mount namespace");
        make_private().expect("private mounts");
        inside()
    })
}

/// A process in new namespaces that does nothing, until it is dropped.
pub struct Held(Pid);

impl Held {
    /// Makes it, in these namespaces.
    #[must_use]
    pub fn new(namespaces: CloneFlags) -> Self {
        Self::start(namespaces, || ())
    }

    /// Makes one that does something first, in our namespaces.
    #[must_use]
    pub fn running(work: impl FnOnce()) -> Self {
        Self::start(CloneFlags::empty(), work)
    }

    fn start(namespaces: CloneFlags, work: impl FnOnce()) -> Self {
        let flags = namespaces.bits() | libc::SIGCHLD;
        // SAFETY: with no stack it is fork(2), and a test in a lab has one thread.
        let pid = unsafe { libc::syscall(libc::SYS_clone, flags, 0, 0, 0, 0) };
        match Errno::result(pid) {
            Ok(0) => {
                let _ = catch_unwind(AssertUnwindSafe(work)); // a panic's message is on stderr
                loop {
                    nix::unistd::pause();
                }
            }
            Ok(pid) => Self(Pid::from_raw(pid.try_into().expect("a process id"))),
            Err(errno) => panic!("the test cannot make {namespaces:?}: {errno}"),
        }
    }

    /// Its process id.
    #[must_use]
    pub fn pid(&self) -> Pid {
        self.0
    }

    /// Its namespace of this kind (`net`), as an open file.
    #[must_use]
    pub fn namespace(&self, kind: &str) -> OwnedFd {
        let path = format!("/proc/{}/ns/{kind}", self.0);
        File::open(&path).unwrap_or_else(|error| panic!("cannot open {path}: {error}")).into()
    }

    /// Runs `inside` in a process of its own that has joined this one's network namespace.
    #[track_caller]
    pub fn in_network(&self, inside: impl FnOnce() -> String) -> String {
        let net = self.namespace("net");
        apart(|| {
            setns(&net, CloneFlags::CLONE_NEWNET).expect("to join the network namespace");
            inside()
        })
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        let _ = kill(self.0, Signal::SIGKILL);
        let _ = waitpid(self.0, None);
    }
}
