//! The whole protocol between a container's monitor and its clients.

use std::io::ErrorKind;
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::{fs, io};

use anyhow::{Context as _, Result, bail};
use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl, open};
use nix::sys::signal::Signal;
use nix::sys::socket::{
    AddressFamily, Backlog, MsgFlags, SockFlag, SockType, UnixAddr, accept4, bind, connect, listen,
    recv, send, socket, socketpair,
};
use nix::sys::stat::Mode;
use step01_namespaces::Failure;

use super::Stream;

/// What a monitor and a client say to each other. Who has no more to say closes the connection: to
/// detach is no more than that.
// ANCHOR: message
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Message {
    /// Client: send me what the program writes from now on; `input`: I am one who types.
    Attach {
        /// Whether the end of this client is the end of the program's input, too.
        input: bool,
    },
    /// Client: for the program to read. The next one only after [`Message::Taken`].
    Input(Vec<u8>),
    /// Client: there is no more input.
    EndOfInput,
    /// Client: its window has this size.
    Resize {
        /// Lines.
        rows: u16,
        /// Characters in each.
        columns: u16,
    },
    /// Client: a signal for the first process. It is not to be started again after its end.
    Signal(Signal),
    /// Client: the same, and SIGKILL after so many seconds, if there is a limit.
    Stop(Signal, Option<u32>),

    /// Monitor: the program runs.
    Started,
    /// Monitor: it does not, or no longer, and nothing of it is left.
    Failed(Failure),
    /// Monitor: the program has taken the last input, or there is nobody to take it.
    Taken,
    /// Monitor: what the program wrote.
    Output(Stream, Vec<u8>),
    /// Monitor: it has ended with this status, and what was made for it is undone.
    Ended(u8),
}
// ANCHOR_END: message

/// Most bytes of input or output in a message.
pub const MOST_BYTES: usize = LONGEST - 8;
/// The longest message; what is longer, an error's text, is cut off.
const LONGEST: usize = 16 * 1024;

impl Message {
    /// As it travels: one byte that says which, and the rest.
    #[must_use]
    pub fn bytes(&self) -> Vec<u8> {
        let with = |tag: u8, rest: &[u8]| [&[tag], &rest[..rest.len().min(LONGEST - 1)]].concat();
        match self {
            Self::Attach { input } => vec![b'a', u8::from(*input)],
            Self::Input(bytes) => with(b'i', bytes),
            Self::EndOfInput => vec![b'e'],
            Self::Resize { rows, columns } => {
                with(b'r', &[rows.to_le_bytes(), columns.to_le_bytes()].concat())
            }
            Self::Signal(signal) => with(b's', &(*signal as i32).to_le_bytes()),
            Self::Stop(signal, grace) => {
                let grace = grace.map_or(i64::MAX, i64::from);
                let signal = (*signal as i32).to_le_bytes();
                with(b'q', &[&signal[..], &grace.to_le_bytes()].concat())
            }
            Self::Started => vec![b'R'],
            Self::Failed(failure) => {
                with(b'F', &[&[failure.status], failure.text.as_bytes()].concat())
            }
            Self::Taken => vec![b'T'],
            Self::Output(Stream::Output, bytes) => with(b'1', bytes),
            Self::Output(Stream::Errors, bytes) => with(b'2', bytes),
            Self::Ended(status) => vec![b'E', *status],
        }
    }

    /// Reads what [`Message::bytes`] wrote.
    pub fn parse(bytes: &[u8]) -> Result<Self> {
        let signal = |bytes: &[u8]| -> Result<Signal> {
            Ok(Signal::try_from(i32::from_le_bytes(bytes.try_into()?))?)
        };
        Ok(match bytes {
            [b'a', input] => Self::Attach { input: *input != 0 },
            [b'i', rest @ ..] => Self::Input(rest.to_vec()),
            [b'e'] => Self::EndOfInput,
            [b'r', a, b, c, d] => Self::Resize {
                rows: u16::from_le_bytes([*a, *b]),
                columns: u16::from_le_bytes([*c, *d]),
            },
            [b's', rest @ ..] => Self::Signal(signal(rest)?),
            [b'q', rest @ ..] if rest.len() == 12 => {
                let grace = i64::from_le_bytes(rest[4..].try_into()?);
                Self::Stop(signal(&rest[..4])?, u32::try_from(grace).ok())
            }
            [b'R'] => Self::Started,
            [b'F', status, text @ ..] => Self::Failed(Failure {
                status: *status,
                text: String::from_utf8_lossy(text).into_owned(),
            }),
            [b'T'] => Self::Taken,
            [b'1', rest @ ..] => Self::Output(Stream::Output, rest.to_vec()),
            [b'2', rest @ ..] => Self::Output(Stream::Errors, rest.to_vec()),
            [b'E', status] => Self::Ended(*status),
            other => bail!("unknown message {:?}", String::from_utf8_lossy(other)),
        })
    }
}

/// One end of a connection that carries [`Message`]s. `SOCK_SEQPACKET` keeps their bounds.
#[derive(Debug)]
pub struct Connection(OwnedFd);

impl Connection {
    /// Both ends, for a monitor that is about to be started and for who starts it.
    pub fn pair() -> Result<(Self, Self)> {
        let (family, kind) = (AddressFamily::Unix, SockType::SeqPacket);
        let (a, b) = socketpair(family, kind, None, SockFlag::SOCK_CLOEXEC)
            .context("cannot make a socket pair")?;
        Ok((Self(a), Self(b)))
    }

    /// A connection to the monitor that listens in this directory; `None` if none does.
    pub fn to(directory: &Path) -> Result<Option<Self>> {
        let failed = || format!("cannot reach the monitor in {}", directory.display());
        let (address, _directory) = match address(directory) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            address => address.with_context(failed)?,
        };
        let socket = new_socket(SockFlag::empty())?;
        match connect(socket.as_raw_fd(), &address) {
            Ok(()) => Ok(Some(Self(socket))),
            Err(Errno::ENOENT | Errno::ECONNREFUSED) => Ok(None),
            Err(errno) => Err(errno).with_context(failed),
        }
    }

    /// From now on a call returns EAGAIN where it would wait.
    pub fn never_wait(&self) -> Result<()> {
        fcntl(&self.0, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))
            .map(drop)
            .context("cannot make a connection non-blocking")
    }

    /// Sends one message.
    pub fn send(&self, message: &Message) -> nix::Result<()> {
        self.send_bytes(&message.bytes())
    }

    /// Sends the bytes of one message.
    pub fn send_bytes(&self, bytes: &[u8]) -> nix::Result<()> {
        loop {
            match send(self.0.as_raw_fd(), bytes, MsgFlags::MSG_NOSIGNAL) {
                Err(Errno::EINTR) => {}
                result => return result.map(drop),
            }
        }
    }

    /// Waits for the next message; `None` is end of file.
    pub fn receive(&self) -> Result<Option<Message>> {
        let mut bytes = [0; LONGEST];
        let len = loop {
            match recv(self.0.as_raw_fd(), &mut bytes, MsgFlags::empty()) {
                // ECONNRESET: it has closed without reading all that we sent (unix(7)). What it sent
                // before that is still to be read.
                Err(Errno::EINTR | Errno::ECONNRESET) => {}
                len => break len.context("cannot receive from the other side")?,
            }
        };
        if len == 0 { Ok(None) } else { Message::parse(&bytes[..len]).map(Some) }
    }
}

impl AsFd for Connection {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// The socket in a container's directory. Dropping it removes it.
#[derive(Debug)]
pub struct Listener {
    socket: OwnedFd,
    path: PathBuf,
}

impl Listener {
    /// Begins to listen there. What an earlier monitor left is replaced.
    pub fn new(directory: &Path) -> Result<Self> {
        let failed = || format!("cannot listen in {}", directory.display());
        remove(directory)?;
        let (address, _directory) = address(directory).with_context(failed)?;
        let socket = new_socket(SockFlag::SOCK_NONBLOCK)?;
        bind(socket.as_raw_fd(), &address)
            .and_then(|()| listen(&socket, Backlog::new(16)?))
            .with_context(failed)?;
        Ok(Self { socket, path: directory.to_owned() })
    }

    /// Takes it out of the directory: nobody finds it there any more.
    pub fn remove_name(&self) {
        if let Err(error) = remove(&self.path) {
            step01_namespaces::warn(&format!("{error:#}"));
        }
    }

    /// The next client, if there is one.
    pub fn accept(&self) -> Result<Option<Connection>> {
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        match accept4(self.socket.as_raw_fd(), flags) {
            // SAFETY: the kernel has just made this fd for us.
            Ok(fd) => Ok(Some(Connection(unsafe { std::os::fd::FromRawFd::from_raw_fd(fd) }))),
            // It has gone again, or there is no room for it now.
            Err(Errno::EAGAIN | Errno::EINTR | Errno::ECONNABORTED | Errno::EMFILE) => Ok(None),
            Err(errno) => Err(errno).context("cannot accept a client"),
        }
    }
}

impl AsFd for Listener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        self.remove_name();
    }
}

const NAME: &str = "attach";

/// Removes the socket of a monitor that is gone.
pub fn remove(directory: &Path) -> Result<()> {
    match fs::remove_file(directory.join(NAME)) {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            Err(error).with_context(|| format!("cannot remove {}/{NAME}", directory.display()))
        }
        _ => Ok(()),
    }
}

/// A socket's address has 108 bytes (unix(7)), and a directory's path may be longer: so it is by
/// way of an open directory, to be kept as long as the address is used.
fn address(directory: &Path) -> io::Result<(UnixAddr, OwnedFd)> {
    let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    let directory = open(directory, flags, Mode::empty())?;
    let path = format!("/proc/self/fd/{}/{NAME}", directory.as_raw_fd());
    Ok((UnixAddr::new(path.as_str())?, directory))
}

fn new_socket(flags: SockFlag) -> Result<OwnedFd> {
    let flags = flags | SockFlag::SOCK_CLOEXEC;
    socket(AddressFamily::Unix, SockType::SeqPacket, flags, None).context("cannot make a socket")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_message_is_read_as_it_was_written() {
        for message in [
            Message::Attach { input: true },
            Message::Input(vec![0; MOST_BYTES]),
            Message::Input(Vec::new()),
            Message::EndOfInput,
            Message::Resize { rows: 24, columns: 300 },
            Message::Signal(Signal::SIGUSR1),
            Message::Stop(Signal::SIGTERM, Some(10)),
            Message::Stop(Signal::SIGINT, None),
            Message::Started,
            Message::Failed(Failure { status: 127, text: "no".into() }),
            Message::Taken,
            Message::Output(Stream::Output, b"x".to_vec()),
            Message::Output(Stream::Errors, b"y\n".to_vec()),
            Message::Ended(143),
        ] {
            assert_eq!(Message::parse(&message.bytes()).unwrap(), message);
        }
        for nonsense in [&b""[..], b"z", b"s", b"s\xff\xff\xff\xff", b"q1234", b"r1", b"E"] {
            assert!(Message::parse(nonsense).is_err(), "{nonsense:?}");
        }
    }
}
