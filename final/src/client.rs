//! Somebody at a container: their keyboard and screen at one end, its monitor at the other.

use std::io::{stderr, stdin, stdout};
use std::os::fd::AsFd as _;

use anyhow::{Context as _, Result};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::Signal;
use step01_namespaces::{Failure, Signals};

use crate::monitor::message::MOST_BYTES;
use crate::monitor::{Connection, Message, Stream, killed};
use crate::terminal::{self, RawMode};

/// What is to be passed on.
#[derive(Debug, Clone, Copy)]
pub struct Wanted {
    /// Our standard input.
    pub input: bool,
    /// Our terminal, key by key.
    pub terminal: bool,
    /// Signals that we get.
    pub signals: bool,
}

/// Ctrl-P Ctrl-Q: the keys that leave a container's terminal, and the container alone.
const DETACH: [u8; 2] = [0x10, 0x11];
/// The exit status of a program that writes to where nobody reads: 128 + SIGPIPE.
const BROKEN_PIPE: u8 = 141;
/// Bytes that a pipe takes at once when poll(2) says that it takes some (pipe(7), PIPE_BUF).
const PIPE_BUF: usize = 4096;

/// Says to the monitor that we want to be attached. Before the container starts, nothing is missed.
pub fn ask(connection: &Connection, wanted: Wanted) -> Result<()> {
    connection.send(&Message::Attach { input: wanted.input }).context("cannot reach the monitor")
}

/// Passes everything on until the container ends; returns its exit status. Or until we are detached
/// by keys, which is 0, or by a signal that is not passed on.
// ANCHOR: attach
pub fn attach(connection: &Connection, wanted: Wanted, signals: &Signals) -> Result<u8> {
    let _raw = if wanted.input && wanted.terminal { RawMode::enter()? } else { None };
    let mut user = User { connection, wanted, typing: wanted.input, keys: 0, shown: None };
    loop {
        let ready = user.wait(signals)?;
        if ready.signal
            && let Some(signal) = user.pass_on_signals(signals)?
        {
            return Ok(128 + signal as u8);
        }
        if ready.input && !user.pass_on_input()? {
            return Ok(0);
        }
        if !ready.rest {
            continue;
        }
        if user.shown.is_some() {
            if !user.show()? {
                return Ok(BROKEN_PIPE);
            }
        } else {
            match connection.receive()? {
                Some(Message::Ended(status)) => return Ok(status),
                Some(Message::Failed(failure)) => return Err(failure.into()),
                Some(Message::Output(stream, bytes)) => user.shown = Some((stream, bytes)),
                Some(Message::Taken) => user.typing = true,
                Some(_) => {}
                None => return Err(killed()),
            }
        }
    }
}
// ANCHOR_END: attach

struct User<'c> {
    connection: &'c Connection,
    wanted: Wanted,
    /// Whether the program would take input now.
    typing: bool,
    /// How many of the keys that detach have been typed.
    keys: usize,
    /// What is still to be shown. Until it is, nothing more is received.
    shown: Option<(Stream, Vec<u8>)>,
}

#[derive(Default)]
struct Ready {
    signal: bool,
    input: bool,
    /// There is a message, or room for what is to be shown.
    rest: bool,
}

impl User<'_> {
    /// A signal is passed on also while nobody takes the output: it is never waited for in write(2).
    fn wait(&self, signals: &Signals) -> Result<Ready> {
        let (user, output, errors) = (stdin(), stdout(), stderr());
        let mut fds = vec![PollFd::new(signals.as_fd(), PollFlags::POLLIN)];
        fds.push(match &self.shown {
            Some((Stream::Output, _)) => PollFd::new(output.as_fd(), PollFlags::POLLOUT),
            Some((Stream::Errors, _)) => PollFd::new(errors.as_fd(), PollFlags::POLLOUT),
            None => PollFd::new(self.connection.as_fd(), PollFlags::POLLIN),
        });
        if self.typing {
            fds.push(PollFd::new(user.as_fd(), PollFlags::POLLIN));
        }
        match poll(&mut fds, PollTimeout::NONE) {
            Err(Errno::EINTR) => return Ok(Ready::default()),
            result => result.context("cannot wait for the container")?,
        };
        let is_ready = |index: usize| fds.get(index).and_then(PollFd::any) == Some(true);
        Ok(Ready { signal: is_ready(0), rest: is_ready(1), input: is_ready(2) })
    }

    /// A changed window is told to the container's terminal; all other signals are for the program,
    /// or else for us: then what we are to end of is returned.
    fn pass_on_signals(&self, signals: &Signals) -> Result<Option<Signal>> {
        while let Some(arrived) = signals.next()? {
            match arrived.signal {
                Signal::SIGWINCH => self.tell_window()?,
                signal if self.wanted.signals => self.say(&Message::Signal(signal))?,
                Signal::SIGCONT => {} // it has had its effect
                signal => return Ok(Some(signal)),
            }
        }
        Ok(None)
    }

    fn tell_window(&self) -> Result<()> {
        match terminal::window().filter(|_| self.wanted.terminal) {
            Some(size) => self.say(&Message::Resize { rows: size.ws_row, columns: size.ws_col }),
            None => Ok(()),
        }
    }

    /// False if the keys that detach were typed.
    fn pass_on_input(&mut self) -> Result<bool> {
        let mut bytes = [0; MOST_BYTES];
        let len = match nix::unistd::read(stdin(), &mut bytes) {
            Err(Errno::EAGAIN | Errno::EINTR) => return Ok(true),
            // The terminal is gone (its window was closed): SIGHUP is on its way.
            Err(Errno::EIO) => 0,
            len => len.context("cannot read the standard input")?,
        };
        self.typing = false;
        if len == 0 {
            return self.say(&Message::EndOfInput).map(|()| true);
        }
        let (input, detached) = self.without_keys(&bytes[..len]);
        if input.is_empty() {
            self.typing = true;
        } else {
            self.say(&Message::Input(input))?;
        }
        Ok(!detached)
    }

    /// The bytes for the program, and whether we leave. Ctrl-P waits for what comes after it.
    fn without_keys(&mut self, bytes: &[u8]) -> (Vec<u8>, bool) {
        if !self.wanted.terminal {
            return (bytes.to_vec(), false);
        }
        let mut input = Vec::new();
        for &byte in bytes {
            if byte == DETACH[self.keys] {
                self.keys += 1;
                if self.keys == DETACH.len() {
                    return (input, true);
                }
            } else {
                input.extend(&DETACH[..self.keys]);
                self.keys = usize::from(byte == DETACH[0]);
                input.extend(Some(byte).filter(|_| self.keys == 0));
            }
        }
        (input, false)
    }

    /// Writes a piece of what is to be shown; false if nobody reads it.
    fn show(&mut self) -> Result<bool> {
        let Some((stream, bytes)) = &mut self.shown else { return Ok(true) };
        let piece = &bytes[..bytes.len().min(PIPE_BUF)];
        let written = match stream {
            Stream::Output => nix::unistd::write(stdout(), piece),
            Stream::Errors => nix::unistd::write(stderr(), piece),
        };
        match written {
            Ok(len) => drop(bytes.drain(..len)),
            Err(Errno::EAGAIN | Errno::EINTR) => {}
            Err(Errno::EPIPE) => return Ok(false),
            Err(errno) => {
                return Err(errno)
                    .with_context(|| format!("cannot write to our own {}", stream.name()));
            }
        }
        if bytes.is_empty() {
            self.shown = None;
        }
        Ok(true)
    }

    /// Who has gone has said why, and that we are about to read.
    fn say(&self, message: &Message) -> Result<()> {
        match self.connection.send(message) {
            Ok(()) | Err(Errno::EPIPE | Errno::ECONNRESET) => Ok(()),
            Err(errno) => Err(errno).context("cannot reach the container's monitor"),
        }
    }
}

/// Whether the monitor has closed the connection without a last word.
#[must_use]
pub fn is_closed(error: &anyhow::Error) -> bool {
    error.downcast_ref::<Failure>() == killed().downcast_ref::<Failure>()
}

/// Waits for the end of the container; returns its exit status, or why it could not be started.
pub fn wait(connection: &Connection) -> Result<u8> {
    loop {
        match connection.receive()? {
            Some(Message::Ended(status)) => return Ok(status),
            Some(Message::Failed(failure)) => return Ok(failure.status),
            Some(_) => {}
            None => return Err(killed()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_keys_detach_and_each_alone_is_for_the_program() {
        let (connection, _monitors) = Connection::pair().unwrap();
        let wanted = Wanted { input: true, terminal: true, signals: true };
        let mut user = User { connection: &connection, wanted, typing: true, keys: 0, shown: None };
        assert_eq!(
            user.without_keys(b"a\x10b\x11\x10\x10c"),
            (b"a\x10b\x11\x10\x10c".to_vec(), false)
        );
        assert_eq!(user.without_keys(b"x\x10"), (b"x".to_vec(), false));
        assert_eq!(user.without_keys(b"\x11y"), (Vec::new(), true));
    }
}
