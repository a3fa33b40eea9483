//! Trying things: in a child, and in namespaces that are gone with it.

use std::fs::File;
use std::io::{self, Read as _, Write as _};

use anyhow::{Context as _, Error, Result};
use nix::errno::Errno;
use nix::sched::{CloneFlags, unshare};
use nix::sys::prctl;
use nix::sys::signal::Signal;
use nix::sys::wait::waitpid;
use nix::unistd::{ForkResult, fork, getegid, geteuid, pipe};

use crate::lab::{make_private, map_ids};

/// That something does not work: what the kernel said, and to what.
#[derive(Debug)]
pub struct Refused {
    /// The kernel's word; `UnknownErrno` if it was not the kernel.
    pub errno: Errno,
    /// What was tried, and the error, for people.
    pub text: String,
    /// Whether not even the namespaces could be made in which it was to be tried.
    pub untried: bool,
}

/// What a check does: tries something, and says what it has seen.
pub type Seen = Result<String, Refused>;

impl std::fmt::Display for Refused {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.text)
    }
}

impl std::error::Error for Refused {}

impl From<Error> for Refused {
    fn from(error: Error) -> Self {
        let error = match error.downcast() {
            Ok(refused) => return refused, // by a child of the child
            Err(error) => error,
        };
        let of = |cause: &(dyn std::error::Error + 'static)| {
            let errno = cause.downcast_ref::<Errno>().copied();
            let raw = || Some(Errno::from_raw(cause.downcast_ref::<io::Error>()?.raw_os_error()?));
            errno.or_else(raw)
        };
        let errno = error.chain().find_map(of).unwrap_or(Errno::UnknownErrno);
        Self { errno, text: format!("{error:#}"), untried: error.is::<Untried>() }
    }
}

impl Refused {
    /// That something is not as it should be, without the kernel having refused anything.
    pub fn because(text: impl Into<String>) -> Self {
        Self { errno: Errno::UnknownErrno, text: text.into(), untried: false }
    }
}

/// The context of an error that came before the try itself, with the check that is about it.
#[derive(Debug, Clone, Copy)]
struct Untried(&'static str);

impl std::fmt::Display for Untried {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "cannot be tried (see the check {})", self.0)
    }
}

/// Runs `attempt` in a child, so that whatever it does to itself is gone with it.
///
/// Call it from a process with one thread: the child is a copy of the calling thread.
pub fn in_child(attempt: impl FnOnce() -> Result<String>) -> Seen {
    let failed = |errno: Errno, what| {
        Refused::from(Error::from(errno).context(what).context(Untried("limits")))
    };
    let (reader, writer) = pipe().map_err(|errno| failed(errno, "cannot make a pipe"))?;
    // SAFETY: this process has one thread, so its copy may go on with any code.
    match unsafe { fork() }.map_err(|errno| failed(errno, "cannot start a process"))? {
        ForkResult::Child => {
            drop(reader);
            let _ = prctl::set_pdeathsig(Signal::SIGKILL);
            let seen = attempt().map_err(Refused::from);
            let _ = File::from(writer).write_all(&encode(&seen));
            // SAFETY: _exit(2) ends the process at once; no Rust code runs after it.
            unsafe { libc::_exit(0) }
        }
        ForkResult::Parent { child } => {
            drop(writer);
            let mut bytes = Vec::new();
            let read = File::from(reader).read_to_end(&mut bytes);
            while waitpid(child, None) == Err(Errno::EINTR) {}
            read.map_err(|error| Refused::because(error.to_string()))?;
            decode(&bytes).unwrap_or_else(|| Err(Refused::because("the child that tried it died")))
        }
    }
}

/// As the pipe carries it: errno (`i32::MIN` if it is well), whether it was not even tried, the text.
fn encode(seen: &Seen) -> Vec<u8> {
    let (errno, untried, text) = match seen {
        Ok(text) => (i32::MIN, false, text),
        Err(refused) => (refused.errno as i32, refused.untried, &refused.text),
    };
    [&errno.to_ne_bytes()[..], &[u8::from(untried)], text.as_bytes()].concat()
}

fn decode(bytes: &[u8]) -> Option<Seen> {
    let (errno, rest) = bytes.split_first_chunk()?;
    let (&untried, text) = rest.split_first()?;
    let text = String::from_utf8_lossy(text).into_owned();
    Some(match i32::from_ne_bytes(*errno) {
        i32::MIN => Ok(text),
        errno => Err(Refused { errno: Errno::from_raw(errno), text, untried: untried != 0 }),
    })
}

/// Runs `attempt` in a child with these new namespaces; a plain user gets a user namespace with them,
/// as in the steps.
pub fn in_namespaces(spaces: CloneFlags, attempt: impl FnOnce() -> Result<String>) -> Seen {
    let user = spaces.contains(CloneFlags::CLONE_NEWUSER) || !geteuid().is_root();
    in_child(|| {
        enter(spaces).context(Untried(if user { "userns" } else { "namespaces" }))?;
        attempt()
    })
}

/// Moves this process into new namespaces, and makes it root of a user namespace if there is one.
pub fn enter(mut spaces: CloneFlags) -> Result<()> {
    let (uid, gid) = (geteuid(), getegid());
    if !uid.is_root() {
        spaces |= CloneFlags::CLONE_NEWUSER;
    }
    unshare(spaces).context("cannot make new namespaces")?;
    if spaces.contains(CloneFlags::CLONE_NEWUSER) {
        map_ids((0, 0), (uid, gid))?;
    }
    if spaces.contains(CloneFlags::CLONE_NEWNS) { make_private() } else { Ok(()) }
}
