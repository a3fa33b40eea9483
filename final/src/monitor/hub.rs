//! Where a monitor waits: for the program, for what it writes, for clients and for the time.

use std::collections::VecDeque;
use std::io::{ErrorKind, Read as _, Write as _};
use std::os::fd::{AsFd as _, BorrowedFd};
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::Signal;
use step01_namespaces::{Child, warn};
use step02_cgroups::Cgroup;

use super::message::{Connection, Listener, MOST_BYTES, Message};
use super::{Log, Stream, Streams};
use crate::network::forward::Forwarder;
use crate::{idle, terminal};

/// All that a monitor talks with.
pub struct Hub {
    /// Before there is a container, there is only the first client.
    listener: Option<Listener>,
    log: Option<Log>,
    clients: Vec<Client>,
    /// Whether the end of a client's input is the end of the program's.
    input_ends: bool,
    /// The window of the client that told last.
    pub window: Option<libc::winsize>,
    /// Whether somebody wants the container to end, so that it is not started again.
    stopping: bool,
    /// When it is killed.
    deadline: Option<Instant>,
}

struct Client {
    connection: Connection,
    /// It started us. The program waits until it has read what was written, as with a pipe; any other
    /// that does not read is left behind.
    first: bool,
    /// Whether it wants what the program writes.
    attached: bool,
    /// Whether it is one who types.
    types: bool,
    /// What it has typed, and the program has not taken yet.
    input: Vec<u8>,
    /// What it has not taken yet.
    queue: VecDeque<Vec<u8>>,
    ends: Ends,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ends {
    NotYet,
    /// There is nothing more to say to it once it has taken what it has not taken yet.
    WithQueue,
    Now,
}

/// A user's pipe holds no more (/proc/sys/fs/pipe-max-size).
const MOST_IN_A_PIPE: usize = 1 << 20;

/// A program that runs.
struct Program<'p> {
    child: &'p mut Child,
    cgroup: &'p Cgroup,
    streams: Streams,
    /// Who copies what comes to its published ports, if somebody does.
    forwarder: Option<&'p mut Forwarder>,
}

#[derive(Debug, Clone, Copy)]
enum Source {
    End,
    Forwarder,
    Listener,
    Client(usize),
    Input,
    Output(Stream),
}

impl Hub {
    /// With who started us as the first client.
    #[must_use]
    pub fn new(first: Connection) -> Self {
        Self {
            listener: None,
            log: None,
            clients: vec![Client::new(first, true)],
            input_ends: false,
            window: terminal::window(),
            stopping: false,
            deadline: None,
        }
    }

    /// From now on others can connect, and what the program writes is kept.
    pub fn open(&mut self, directory: &Path, input_ends: bool) -> Result<()> {
        self.input_ends = input_ends;
        self.log = Some(Log::open(directory)?);
        self.listener = Some(Listener::new(directory)?);
        Ok(())
    }

    /// Nobody else can connect any more. Who has just done so is told of the end, too.
    pub fn close(&mut self) {
        self.log = None;
        if let Some(listener) = self.listener.take() {
            listener.remove_name();
            while let Ok(Some(connection)) = listener.accept() {
                self.clients.push(Client::new(connection, false));
            }
        }
    }

    /// Whether somebody wants the container to end.
    #[must_use]
    pub fn is_stopping(&self) -> bool {
        self.stopping
    }

    /// Passes everything on until the program ends; returns its exit status, 128+n for signal n.
    // ANCHOR: serve
    pub fn serve(
        &mut self,
        child: &mut Child,
        cgroup: &Cgroup,
        streams: Streams,
        forwarder: Option<&mut Forwarder>,
    ) -> Result<u8> {
        let mut program = Program { child, cgroup, streams, forwarder };
        self.say(&Message::Started);
        idle::give_back();
        while !self.turn(Some(&mut program), self.deadline)? {
            if self.deadline.is_some_and(|deadline| deadline <= Instant::now()) {
                self.deadline = None;
                program.signal(Signal::SIGKILL)?;
            }
        }
        // All that it wrote, and no more than that: others may go on, if they share its PID namespace.
        for stream in [Stream::Output, Stream::Errors] {
            let mut left = MOST_IN_A_PIPE;
            while left > 0 {
                match self.take_output(&mut program.streams, stream)? {
                    0 => break,
                    len => left = left.saturating_sub(len),
                }
            }
        }
        if let Some(log) = &mut self.log {
            log.end().unwrap_or_else(|error| warn(&format!("the log has a gap: {error}")));
        }
        self.deadline = None;
        program.child.reap()
    }
    // ANCHOR_END: serve

    /// Waits so long, or until somebody wants the container to end.
    pub fn rest(&mut self, time: Duration) -> Result<()> {
        let end = Instant::now() + time;
        while !self.stopping && Instant::now() < end {
            self.turn(None, Some(end))?;
        }
        Ok(())
    }

    /// The last word of this run to everybody.
    pub fn end(&mut self, last: &Message) {
        self.say(last);
        self.clients.iter_mut().for_each(|client| client.ends = Ends::WithQueue);
    }

    /// Waits until everybody has read it, or gone.
    pub fn finish(&mut self) -> Result<()> {
        self.forget();
        while !self.clients.is_empty() {
            self.turn(None, None)?;
        }
        Ok(())
    }

    /// Waits for the next thing to happen, and sees to it. True if the program has ended.
    fn turn(
        &mut self,
        mut program: Option<&mut Program<'_>>,
        end: Option<Instant>,
    ) -> Result<bool> {
        let ready = self.wait(program.as_deref(), end)?;
        let mut ended = false;
        for source in ready {
            match source {
                Source::End => ended = true,
                Source::Forwarder => program.as_mut().map_or((), |p| p.restart_forwarder()),
                Source::Listener => self.welcome()?,
                Source::Client(index) => self.hear(index, program.as_deref_mut())?,
                Source::Input => {
                    program.as_mut().map_or(Ok(()), |p| self.give_input(&mut p.streams))?;
                }
                Source::Output(stream) => {
                    program.as_mut().map_or(Ok(0), |p| self.take_output(&mut p.streams, stream))?;
                }
            }
        }
        self.forget();
        Ok(ended)
    }

    /// What is ready: clients come before the program's output, and its end last.
    fn wait(&self, program: Option<&Program<'_>>, end: Option<Instant>) -> Result<Vec<Source>> {
        let mut wanted: Vec<(Source, BorrowedFd<'_>, PollFlags)> = Vec::new();
        if let Some(listener) = &self.listener {
            wanted.push((Source::Listener, listener.as_fd(), PollFlags::POLLIN));
        }
        for (index, client) in self.clients.iter().enumerate() {
            let write =
                if client.queue.is_empty() { PollFlags::empty() } else { PollFlags::POLLOUT };
            let events = PollFlags::POLLIN | write;
            wanted.push((Source::Client(index), client.connection.as_fd(), events));
        }
        if let Some(program) = program {
            let typed = self.clients.iter().any(|client| !client.input.is_empty());
            if let Some(input) = program.streams.input.as_ref().filter(|_| typed) {
                wanted.push((Source::Input, input.as_fd(), PollFlags::POLLOUT));
            }
            // While the first client does not read, the program's pipes fill up, and it waits.
            let held = self.clients.iter().any(|client| client.first && !client.queue.is_empty());
            for (stream, file) in program.streams.outputs().filter(|_| !held) {
                wanted.push((Source::Output(stream), file.as_fd(), PollFlags::POLLIN));
            }
            if let Some(forwarder) = &program.forwarder {
                wanted.push((Source::Forwarder, forwarder.as_fd(), PollFlags::POLLIN));
            }
            wanted.push((Source::End, program.child.as_fd(), PollFlags::POLLIN));
        }
        let mut fds: Vec<_> =
            wanted.iter().map(|(_, fd, events)| PollFd::new(*fd, *events)).collect();
        match poll(&mut fds, timeout(end)) {
            Err(Errno::EINTR) => return Ok(Vec::new()),
            result => result.context("the monitor cannot wait")?,
        };
        let ready = wanted.iter().zip(&fds).filter(|(_, fd)| fd.any() == Some(true));
        Ok(ready.map(|((source, ..), _)| *source).collect())
    }

    fn welcome(&mut self) -> Result<()> {
        let connection = self.listener.as_ref().map_or(Ok(None), Listener::accept)?;
        self.clients.extend(connection.map(|connection| Client::new(connection, false)));
        Ok(())
    }

    /// Sees to one client: what it has to read, and what it says.
    fn hear(&mut self, index: usize, mut program: Option<&mut Program<'_>>) -> Result<()> {
        self.clients[index].send_queue();
        loop {
            let client = &mut self.clients[index];
            let message = match client.connection.receive() {
                Ok(Some(message)) => message,
                Err(error) if error.downcast_ref() == Some(&Errno::EAGAIN) => return Ok(()),
                // It has gone, or it is none of ours.
                Ok(None) | Err(_) => {
                    client.ends = Ends::Now;
                    let input_ends = client.types;
                    if let Some(program) = program.filter(|_| input_ends) {
                        self.end_input(&mut program.streams);
                    }
                    return Ok(());
                }
            };
            match message {
                Message::Attach { input } => (client.attached, client.types) = (true, input),
                Message::Input(bytes) => {
                    client.input = bytes;
                    match &mut program {
                        Some(program) => self.give_input(&mut program.streams)?,
                        None => client.input_taken(),
                    }
                }
                Message::EndOfInput => {
                    client.types = false;
                    if let Some(program) = &mut program {
                        self.end_input(&mut program.streams);
                    }
                }
                Message::Resize { rows, columns } => {
                    let size = terminal::size(rows, columns);
                    self.window = Some(size);
                    if let Some(terminal) = program.as_ref().and_then(|p| p.streams.output.as_ref())
                    {
                        terminal::set_window_size(terminal.as_fd(), &size);
                    }
                }
                Message::Signal(signal) => {
                    self.stopping = true;
                    program.as_ref().map_or(Ok(()), |program| program.signal(signal))?;
                }
                Message::Stop(signal, grace) => {
                    self.stopping = true;
                    let grace = grace.map(|seconds| Duration::from_secs(seconds.into()));
                    self.deadline = grace.map(|grace| Instant::now() + grace);
                    program.as_ref().map_or(Ok(()), |program| program.signal(signal))?;
                }
                // Our own lines.
                _ => client.ends = Ends::Now,
            }
        }
    }

    /// One who types has no more to say.
    fn end_input(&mut self, streams: &mut Streams) {
        // A terminal has no end: somebody may attach to it later.
        if self.input_ends && !streams.terminal {
            streams.input = None;
        }
    }

    /// Writes as much of what was typed as the program takes now.
    fn give_input(&mut self, streams: &mut Streams) -> Result<()> {
        for client in self.clients.iter_mut().filter(|client| !client.input.is_empty()) {
            let Some(input) = &mut streams.input else {
                client.input_taken();
                continue;
            };
            match input.write(&client.input) {
                Ok(len) if len == client.input.len() => client.input_taken(),
                Ok(len) => drop(client.input.drain(..len)),
                Err(error) if is_momentary(&error) => {}
                // The program has closed its side: nobody will ever read it.
                Err(error) if matches!(error.raw_os_error(), Some(libc::EPIPE | libc::EIO)) => {
                    client.input_taken();
                    streams.input = None;
                }
                Err(error) => return Err(error).context("cannot write to the program's input"),
            }
        }
        Ok(())
    }

    /// Reads once what the program wrote, for the log and for clients; returns how many bytes, 0 if there
    /// is nothing.
    fn take_output(&mut self, streams: &mut Streams, stream: Stream) -> Result<usize> {
        let source = match stream {
            Stream::Output => &mut streams.output,
            Stream::Errors => &mut streams.errors,
        };
        let Some(file) = source else { return Ok(0) };
        let mut buffer = [0; MOST_BYTES];
        let len = match file.read(&mut buffer) {
            Err(error) if is_momentary(&error) => return Ok(0),
            // Nobody has the other side of a terminal open any more.
            Err(error) if error.raw_os_error() == Some(libc::EIO) => 0,
            len => len.with_context(|| format!("cannot read the program's {}", stream.name()))?,
        };
        if len == 0 {
            *source = None;
            return Ok(0);
        }
        if let Some(log) = &mut self.log
            && let Err(error) = log.write(stream, &buffer[..len])
        {
            // A full disk is no reason to end a program.
            warn(&format!("cannot write the log: {error}"));
            self.log = None;
        }
        let bytes = Message::Output(stream, buffer[..len].to_vec()).bytes();
        for client in self.clients.iter_mut().filter(|client| client.attached) {
            client.send(bytes.clone());
        }
        Ok(len)
    }

    fn say(&mut self, message: &Message) {
        for client in self.clients.iter_mut().filter(|client| client.ends == Ends::NotYet) {
            client.send(message.bytes());
        }
    }

    /// Who has gone, or has heard the last word.
    fn forget(&mut self) {
        let done = |client: &Client| match client.ends {
            Ends::NotYet => false,
            Ends::WithQueue => client.queue.is_empty(),
            Ends::Now => true,
        };
        if self.clients.iter().any(|client| client.first && done(client)) {
            // What we have to say from now on was for who started us.
            super::close_stderr();
        }
        self.clients.retain(|client| !done(client));
    }
}

impl Program<'_> {
    /// It was killed: nobody else would serve the ports that `ps` shows.
    fn restart_forwarder(&mut self) {
        if let Some(forwarder) = &mut self.forwarder
            && let Err(error) = forwarder.restart()
        {
            warn(&format!("the published ports are not served any more: {error:#}"));
            self.forwarder = None;
        }
    }

    /// One that is paused gets it only when it is thawed.
    fn signal(&self, signal: Signal) -> Result<()> {
        self.child.kill(signal)?;
        self.cgroup.thaw()
    }
}

impl Client {
    fn new(connection: Connection, first: bool) -> Self {
        Self {
            connection,
            first,
            attached: false,
            types: false,
            input: Vec::new(),
            queue: VecDeque::new(),
            ends: Ends::NotYet,
        }
    }

    fn input_taken(&mut self) {
        self.input.clear();
        self.send(Message::Taken.bytes());
    }

    fn send(&mut self, bytes: Vec<u8>) {
        if !self.first && !self.queue.is_empty() {
            self.ends = Ends::Now; // it does not keep up
        }
        self.queue.push_back(bytes);
        self.send_queue();
    }

    fn send_queue(&mut self) {
        while let Some(bytes) = self.queue.front() {
            match self.connection.send_bytes(bytes) {
                Ok(()) => drop(self.queue.pop_front()),
                Err(Errno::EAGAIN | Errno::ENOMEM | Errno::ENOBUFS) => return, // again, later
                Err(_) => {
                    // Nobody reads it; but what it has said to us is still to be heard.
                    self.queue.clear();
                    self.attached = false;
                }
            }
        }
    }
}

fn is_momentary(error: &std::io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted)
}

/// The time up to `end`, rounded up: with it rounded down we would wait for the last millisecond
/// without pause.
fn timeout(end: Option<Instant>) -> PollTimeout {
    let Some(end) = end else { return PollTimeout::NONE };
    let left = end.saturating_duration_since(Instant::now()) + Duration::from_micros(999);
    PollTimeout::try_from(left.min(Duration::from_secs(3600))).unwrap_or(PollTimeout::MAX)
}
