//! The monitor: one small process for each container that runs.
//!
//! Somebody has to wait for a container, or nobody would learn its exit status; to read what it
//! writes, or it would wait at a full pipe; and to hold the master of its terminal. That is not who
//! has typed `final run`, as the container is to go on without them. It is a process that they
//! leave behind (a fork of theirs), one for each container; and no daemon for all of them, whose
//! end would concern all of them.
//!
//! | file | what it holds |
//! |---|---|
//! | this one | how it begins, and what it does from first to last |
//! | [`hub`] | where it waits |
//! | [`message`] | all that it and its clients ever say to each other |
//! | [`streams`] | the program's input, output and errors |
//! | [`log`] | what the program wrote, kept |
//! | [`restart`] | whether and when the program is started again |

pub mod hub;
pub mod log;
pub mod message;
pub mod restart;
pub mod streams;

use std::fs::File;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Instant;

use anyhow::{Context as _, Result, anyhow};
use nix::errno::Errno;
use nix::unistd::{ForkResult, chdir, dup2_stderr, dup2_stdin, dup2_stdout, fork, setsid};
use step01_namespaces::Failure;

pub use hub::Hub;
pub use log::Log;
pub use message::{Connection, Message};
pub use restart::{BackOff, Restart};
pub use streams::{Stdio, Stream, Streams};

use crate::bundle::Bundle;
use crate::client::{self, Wanted};
use crate::create;
use crate::network::{Claim, rootless};
use crate::store::Container;

/// What is ready to run: a container that is ours, what it is to be, and what is held for it.
pub type Ready = (Container, Bundle, Claim);

/// Starts a monitor for the container that `prepare` makes or takes, and returns a connection to it.
/// With `attach` the caller is attached from the first byte on.
///
/// As [`step01_namespaces::Child::spawn`], call it from a process with one thread only.
// ANCHOR: start
pub fn start(
    attach: Option<Wanted>,
    prepare: impl FnOnce() -> Result<Ready>,
) -> Result<Connection> {
    let (callers, ours) = Connection::pair()?;
    ours.never_wait()?;
    // It waits there until the monitor listens, which is before the program runs.
    attach.map_or(Ok(()), |wanted| client::ask(&callers, wanted))?;
    // SAFETY: this process has one thread, so its copy may go on with any code.
    match unsafe { fork() }.map_err(explain_fork)? {
        ForkResult::Parent { .. } => Ok(callers),
        ForkResult::Child => {
            drop(callers);
            let done = catch_unwind(AssertUnwindSafe(|| monitor(ours, prepare)));
            // SAFETY: _exit(2) ends the process at once: nothing of the caller's is dropped twice.
            unsafe { libc::_exit(i32::from(done.is_err())) }
        }
    }
}

/// The monitor's whole life.
fn monitor(caller: Connection, prepare: impl FnOnce() -> Result<Ready>) {
    let mut hub = Hub::new(caller);
    let ended =
        leave_caller().and_then(|()| prepare()).and_then(|(mut container, bundle, claim)| {
            let ended = live(&mut container, bundle, claim, &mut hub);
            hub.close();
            // Its directory is unlocked, or removed, before anybody is told.
            container.finish(ended)
        });
    hub.end(&match ended {
        Ok(status) => Message::Ended(status),
        Err(error) => Message::Failed(error.into()),
    });
    let _ = hub.finish(); // who could be told?
}

/// Runs the container's program, and again as often as its restart policy wants; returns its last
/// exit status.
fn live(
    container: &mut Container,
    mut bundle: Bundle,
    mut claim: Claim,
    hub: &mut Hub,
) -> Result<u8> {
    bundle.rootfs.keep = container.layer()?;
    hub.open(container.bundle(), container.state.input_ends)?;
    // Here, as it is to be left before the container is nobody's.
    let inside = match &bundle.network {
        Some(_) if rootless::applies() => Some(rootless::enter(container.store())?),
        _ => None,
    };
    let mut back_off = BackOff::new();
    loop {
        let begun = Instant::now();
        container.state.ports = claim.shown(&bundle.exposed);
        let kept = inside.as_ref().map(|_| claim.try_clone()).transpose()?;
        let status = create::run(container, &bundle, claim, hub)?;
        let restart = container.state.restart.applies(status, container.state.restarts);
        if !restart || hub.is_stopping() {
            return Ok(status);
        }
        container.ended(status)?;
        hub.end(&Message::Ended(status));
        hub.rest(back_off.next(begun.elapsed()))?;
        if hub.is_stopping() {
            return Ok(status);
        }
        container.state.restarts += 1;
        claim = match kept {
            Some(claim) => claim,
            None => Claim::take(bundle.network.as_ref(), &container.store())?,
        };
    }
}
// ANCHOR_END: start

fn explain_fork(errno: Errno) -> anyhow::Error {
    let why = match errno {
        Errno::EAGAIN => ": the limit of processes is reached (ulimit -u, or pids.max)",
        _ => "",
    };
    anyhow!("cannot start the container's monitor: {errno}{why}")
}

/// Cuts the ties to who started us. Their standard error stays as long as they do: what goes wrong
/// until then is for them to read.
pub fn leave_caller() -> Result<()> {
    setsid().context("cannot start a session")?;
    chdir("/").context("cannot change to /")?; // their file system could not be unmounted
    let null = null()?;
    dup2_stdin(&null).and_then(|()| dup2_stdout(&null)).context("cannot leave the caller's files")
}

/// Whoever waits for the end of what we write there would wait for the container's.
pub fn close_stderr() {
    if let Ok(null) = null() {
        let _ = dup2_stderr(null);
    }
}

fn null() -> Result<File> {
    File::options().read(true).write(true).open("/dev/null").context("cannot open /dev/null")
}

/// Before anything is opened: closes the files that our caller left open by accident. The monitor
/// would keep them for as long as the container lives.
pub fn close_foreign_files() -> Result<()> {
    let all: [libc::c_uint; 3] = [3, u32::MAX, 0];
    // SAFETY: takes numbers only, and there is no value yet that owns one of these files.
    let result = unsafe { libc::syscall(libc::SYS_close_range, all[0], all[1], all[2]) };
    Errno::result(result).map(drop).map_err(|e| anyhow!(e).context("cannot close foreign files"))
}

/// What a caller waits for first: that the program runs.
pub fn wait_until_started(connection: &Connection) -> Result<()> {
    match connection.receive()? {
        Some(Message::Started) => Ok(()),
        Some(Message::Failed(failure)) => Err(failure.into()),
        Some(other) => Err(anyhow!("the monitor said {other:?} instead of Started")),
        None => Err(killed()),
    }
}

/// It takes its container along.
#[must_use]
pub fn killed() -> anyhow::Error {
    let text = "the container's monitor was killed, and the container with it".to_owned();
    Failure { status: Failure::ENGINE, text }.into()
}
