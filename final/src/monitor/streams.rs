//! What a container's program reads and writes: three pipes, or a terminal.

use std::fs::File;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};

use anyhow::{Context as _, Result};
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::sys::stat::makedev;
use nix::unistd::{dup2_stderr, dup2_stdin, dup2_stdout, pipe2};

use crate::process::{Process, open_device};
use crate::terminal;

/// Which of the two that a program writes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stream {
    /// The standard output, or a terminal.
    Output,
    /// The standard error.
    Errors,
}

impl Stream {
    /// As docker's logs have it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Output => "stdout",
            Self::Errors => "stderr",
        }
    }
}

/// The container's ends, for its first process to take.
pub struct Stdio {
    input: Option<OwnedFd>,
    /// Output and errors; none: a terminal, of this size.
    outputs: Option<(OwnedFd, OwnedFd)>,
    size: Option<libc::winsize>,
}

/// The monitor's ends. A stream that is closed is none.
#[derive(Debug, Default)]
pub struct Streams {
    /// What the program reads.
    pub input: Option<File>,
    /// What it writes; of a terminal both.
    pub output: Option<File>,
    /// Its errors.
    pub errors: Option<File>,
    /// Whether it is a terminal.
    pub terminal: bool,
}

impl Streams {
    /// Both ends of the pipes. A terminal is made later, inside, by the child.
    pub fn new(process: &Process, size: Option<libc::winsize>) -> Result<(Self, Stdio)> {
        let mut streams = Self { terminal: process.terminal, ..Self::default() };
        let mut stdio = Stdio { input: None, outputs: None, size };
        if !process.terminal {
            let pipe = || pipe2(OFlag::O_CLOEXEC).context("cannot make a pipe");
            let ((output, its_output), (errors, its_errors)) = (pipe()?, pipe()?);
            (streams.output, streams.errors) = (Some(output.into()), Some(errors.into()));
            stdio.outputs = Some((its_output, its_errors));
            if process.interactive {
                let (its_input, input) = pipe()?;
                (streams.input, stdio.input) = (Some(input.into()), Some(its_input));
            }
        }
        streams.never_wait()?;
        Ok((streams, stdio))
    }

    /// Takes the master of the terminal that the child has made, if it has.
    pub fn take_terminal(&mut self, master: Option<OwnedFd>) -> Result<()> {
        if let Some(master) = master {
            let master = File::from(master);
            self.input = Some(master.try_clone().context("cannot copy the terminal's master")?);
            self.output = Some(master);
        }
        self.never_wait()
    }

    /// Neither a program that does not read nor one that does not write must keep us from the rest.
    fn never_wait(&self) -> Result<()> {
        for file in [&self.input, &self.output, &self.errors].into_iter().flatten() {
            fcntl(file, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))
                .context("cannot make a container's stream non-blocking")?;
        }
        Ok(())
    }

    /// The open streams that the program writes to.
    pub fn outputs(&self) -> impl Iterator<Item = (Stream, &File)> {
        let named = [(Stream::Output, &self.output), (Stream::Errors, &self.errors)];
        named.into_iter().filter_map(|(stream, file)| Some((stream, file.as_ref()?)))
    }
}

impl Stdio {
    /// All that there are, but for a terminal.
    #[must_use]
    pub fn files(&self) -> Vec<BorrowedFd<'_>> {
        let outputs = self.outputs.iter().flat_map(|(output, errors)| [output, errors]);
        outputs.chain(&self.input).map(OwnedFd::as_fd).collect()
    }

    /// The child's side: makes them the standard input, output and error. Returns the master of the
    /// terminal, if that is what it gets.
    pub fn take(&self) -> Result<Option<OwnedFd>> {
        let Some((output, errors)) = &self.outputs else {
            return terminal::open_in_container(self.size).map(Some);
        };
        match &self.input {
            Some(input) => dup2_stdin(input),
            None => dup2_stdin(open_device("/dev/null", makedev(1, 3))?),
        }
        .and_then(|()| dup2_stdout(output.as_fd()))
        .and_then(|()| dup2_stderr(errors.as_fd()))
        .context("cannot make the pipes the standard input and outputs")?;
        Ok(None)
    }
}
