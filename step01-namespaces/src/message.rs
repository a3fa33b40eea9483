//! The whole protocol between parent and child.

use std::io::{IoSlice, IoSliceMut};
use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd, RawFd};

use anyhow::{Context as _, Result, bail};
use nix::cmsg_space;
use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, ControlMessage, ControlMessageOwned, MsgFlags, SockFlag, SockType, recvmsg,
    sendmsg, socketpair,
};

use crate::Failure;

/// What parent and child say to each other. End of file is the third answer of the child:
/// after `Ready` it means that the exec happened, before it that the child died.
// ANCHOR: message
#[derive(Debug)]
pub enum Message {
    /// Parent to child: the host side is ready (cgroup, id maps, network).
    Go,
    /// Child to parent: the child side is ready, about to exec. With the master side of the
    /// container's terminal, where it has one.
    Ready(Option<OwnedFd>),
    /// Child to parent: it went wrong, with all the context there is.
    Failed(Failure),
}
// ANCHOR_END: message

/// One end of the socket pair that carries [`Message`]s.
///
/// `SOCK_SEQPACKET` keeps the bounds of each message and reports end of file when the other
/// end closes; close-on-exec is what makes a successful exec visible as that end of file.
#[derive(Debug)]
pub struct Channel(OwnedFd);

/// Longest message; the kernel cuts off what is longer, and we do so first.
const MAX_LEN: usize = 16 * 1024;

impl Channel {
    /// Both ends: it does not matter which one the parent keeps.
    pub fn pair() -> Result<(Self, Self)> {
        let (a, b) =
            socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC)
                .context("cannot make a socket pair")?;
        Ok((Self(a), Self(b)))
    }

    /// Closes every file of this process but input, output, errors and this channel.
    ///
    /// Only for a child before its exec: nothing there is dropped any more, so no file descriptor
    /// that another value believes to own is used again.
    pub(crate) fn close_all_others(&self) -> nix::Result<()> {
        let own = self.0.as_raw_fd().cast_unsigned();
        for (first, last) in [(3, own - 1), (own + 1, u32::MAX)] {
            if first <= last {
                // SAFETY: takes numbers only. What it closes is not used after it, see above.
                Errno::result(unsafe { libc::syscall(libc::SYS_close_range, first, last, 0) })?;
            }
        }
        Ok(())
    }

    /// Sends one message.
    pub fn send(&self, message: &Message) -> Result<()> {
        let mut bytes = Vec::new();
        let mut fds: Vec<RawFd> = Vec::new();
        match message {
            Message::Go => bytes.push(b'G'),
            Message::Ready(terminal) => {
                bytes.push(b'R');
                fds.extend(terminal.iter().map(OwnedFd::as_raw_fd));
            }
            Message::Failed(Failure { status, text }) => {
                bytes.extend([b'F', *status]);
                bytes.extend(text.bytes().take(MAX_LEN - 2));
            }
        }
        // An fd travels beside the bytes; the kernel gives the receiver one of its own (unix(7)).
        let rights = [ControlMessage::ScmRights(&fds)];
        let control = if fds.is_empty() { &rights[..0] } else { &rights[..] };
        let flags = MsgFlags::MSG_NOSIGNAL;
        sendmsg::<()>(self.0.as_raw_fd(), &[IoSlice::new(&bytes)], control, flags, None)
            .with_context(|| format!("cannot send {message:?}"))?;
        Ok(())
    }

    /// Waits for the next message; `None` is end of file.
    pub fn receive(&self) -> Result<Option<Message>> {
        let mut bytes = vec![0; MAX_LEN];
        let mut space = cmsg_space!(RawFd);
        let mut parts = [IoSliceMut::new(&mut bytes)];
        let flags = MsgFlags::MSG_CMSG_CLOEXEC;
        let received = recvmsg::<()>(self.0.as_raw_fd(), &mut parts, Some(&mut space), flags)
            .context("cannot receive from the other side")?;
        let fd = received.cmsgs()?.find_map(|message| match message {
            ControlMessageOwned::ScmRights(fds) => fds.first().copied(),
            _ => None,
        });
        // SAFETY: the kernel has just put this fd into our table, and nobody else knows of it.
        let fd = fd.map(|fd| unsafe { OwnedFd::from_raw_fd(fd) });
        let len = received.bytes;
        Ok(Some(match &bytes[..len] {
            [] => return Ok(None),
            [b'G'] => Message::Go,
            [b'R'] => Message::Ready(fd),
            [b'F', status, text @ ..] => Message::Failed(Failure {
                status: *status,
                text: String::from_utf8_lossy(text).into_owned(),
            }),
            other => bail!("unknown message {:?}", String::from_utf8_lossy(other)),
        }))
    }
}
