//! Netlink: messages to and from the kernel's network code (netlink(7)).
//!
//! A message is a header, a fixed part that its type defines, and attributes: length, type,
//! value, padded to 4 bytes; an attribute's value may be attributes again. ip(8) and nft(8)
//! speak the same.

use std::fmt;
use std::io::IoSlice;
use std::os::fd::{AsRawFd as _, OwnedFd};

use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, recv, sendmsg, socket,
};

const HEADER_LEN: usize = 16;
const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
const NLM_F_REQUEST: u16 = 0x1;
const NLM_F_ACK: u16 = 0x4;
/// All objects, not one.
const NLM_F_DUMP: u16 = 0x300;
/// Make it if it is not there.
pub const NLM_F_CREATE: u16 = 0x400;
/// Fail if it is there.
pub const NLM_F_EXCL: u16 = 0x200;
/// Put it at the end of the list.
pub const NLM_F_APPEND: u16 = 0x800;
const NLM_F_CAPPED: u16 = 0x100;
const NLM_F_ACK_TLVS: u16 = 0x200;
const NLA_F_NESTED: u16 = 0x8000;
const NLA_TYPE_MASK: u16 = 0x3fff;
const NLMSGERR_ATTR_MSG: u16 = 1;

/// What the kernel answered: an error number, and often a sentence (its "extended ack").
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Error {
    /// The error number.
    pub errno: Errno,
    /// The kernel's own words.
    pub text: Option<String>,
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.errno)?;
        self.text.as_ref().map_or(Ok(()), |text| write!(f, ", the kernel says: {text}"))
    }
}

impl std::error::Error for Error {}

impl From<Errno> for Error {
    fn from(errno: Errno) -> Self {
        Self { errno, text: None }
    }
}

/// The result of a request.
pub type Result<T> = std::result::Result<T, Error>;

/// A message under construction.
// ANCHOR: message
#[derive(Debug, Clone)]
pub struct Message {
    flags: u16,
    /// Everything, with a header whose length and number are filled in when it is sent.
    bytes: Vec<u8>,
}

impl Message {
    /// A message of type `kind` that begins with the `fixed` part of that type.
    #[must_use]
    pub fn new(kind: u16, flags: u16, fixed: &[u8]) -> Self {
        let mut bytes = vec![0; HEADER_LEN];
        bytes[4..6].copy_from_slice(&kind.to_ne_bytes());
        bytes.extend(fixed);
        Self { flags: flags | NLM_F_REQUEST, bytes }
    }

    /// Asks the kernel to say when it is done; errors it reports in any case.
    #[must_use]
    pub fn acknowledged(mut self) -> Self {
        self.flags |= NLM_F_ACK;
        self
    }

    /// Adds an attribute.
    #[must_use]
    pub fn attr(mut self, kind: u16, value: &[u8]) -> Self {
        let start = self.begin(kind);
        self.bytes.extend(value);
        self.end(start);
        self
    }

    /// Adds a string, with the NUL that the kernel wants behind it.
    #[must_use]
    pub fn text(self, kind: u16, value: &str) -> Self {
        self.attr(kind, &[value.as_bytes(), &[0]].concat())
    }

    /// Adds an attribute that is made of attributes.
    #[must_use]
    pub fn nest(mut self, kind: u16, fill: impl FnOnce(Self) -> Self) -> Self {
        let start = self.begin(kind | NLA_F_NESTED);
        self = fill(self);
        self.end(start);
        self
    }

    /// Adds the fixed part of a message inside a message.
    #[must_use]
    pub fn raw(mut self, bytes: &[u8]) -> Self {
        self.bytes.extend(bytes);
        self
    }

    /// The same message about another family of addresses: in all that we send it is the fixed part's
    /// first byte.
    #[must_use]
    pub fn family(mut self, family: u8) -> Self {
        self.bytes[HEADER_LEN] = family;
        self
    }

    fn begin(&mut self, kind: u16) -> usize {
        let start = self.bytes.len();
        self.bytes.extend([0, 0]);
        self.bytes.extend(kind.to_ne_bytes());
        start
    }

    /// Fills in the length, which does not count the padding behind the attribute.
    fn end(&mut self, start: usize) {
        let len = u16::try_from(self.bytes.len() - start).expect("attributes are short");
        self.bytes[start..start + 2].copy_from_slice(&len.to_ne_bytes());
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }
}
// ANCHOR_END: message

/// An object that the kernel described.
#[derive(Debug, Clone)]
pub struct Reply {
    /// The type of the message.
    pub kind: u16,
    /// The fixed part and the attributes.
    pub payload: Vec<u8>,
}

impl Reply {
    /// The attributes behind a fixed part of `fixed` bytes.
    #[must_use]
    pub fn attributes(&self, fixed: usize) -> Attributes<'_> {
        attributes(self.payload.get(fixed.next_multiple_of(4)..).unwrap_or_default())
    }
}

/// Walks over attributes, as (type, value); ends at the first that is not whole.
#[derive(Debug, Clone)]
pub struct Attributes<'b>(&'b [u8]);

/// The attributes in `bytes`.
#[must_use]
pub fn attributes(bytes: &[u8]) -> Attributes<'_> {
    Attributes(bytes)
}

impl<'b> Iterator for Attributes<'b> {
    type Item = (u16, &'b [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        let len = usize::from(u16_at(self.0, 0)?);
        let kind = u16_at(self.0, 2)? & NLA_TYPE_MASK;
        let value = self.0.get(4..len)?;
        self.0 = self.0.get(len.next_multiple_of(4)..).unwrap_or_default();
        Some((kind, value))
    }
}

impl<'b> Attributes<'b> {
    /// The value of the attribute `kind`, if it is there.
    #[must_use]
    pub fn find_kind(mut self, kind: u16) -> Option<&'b [u8]> {
        self.find(|&(found, _)| found == kind).map(|(_, value)| value)
    }
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_ne_bytes(bytes.get(at..at + 2)?.try_into().ok()?))
}

/// The number at `at` in the machine's byte order.
#[must_use]
pub fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

/// The string in an attribute's value, without its NUL.
#[must_use]
pub fn text_of(value: &[u8]) -> String {
    let end = value.iter().position(|&byte| byte == 0).unwrap_or(value.len());
    String::from_utf8_lossy(&value[..end]).into_owned()
}

/// A netlink socket. It speaks to the network namespace that it was opened in.
#[derive(Debug)]
pub struct Socket {
    fd: OwnedFd,
    number: u32,
    /// For what the kernel sends: it wants 32 KiB for a dump, and cuts off what does not fit.
    buffer: Vec<u8>,
}

impl Socket {
    /// Opens one, for links, addresses and routes or for netfilter.
    pub fn open(protocol: SockProtocol) -> Result<Self> {
        let fd = socket(AddressFamily::Netlink, SockType::Raw, SockFlag::SOCK_CLOEXEC, protocol)?;
        for option in [libc::NETLINK_EXT_ACK, libc::NETLINK_CAP_ACK] {
            set_option(&fd, option)?;
        }
        Ok(Self { fd, number: 0, buffer: vec![0; 64 * 1024] })
    }

    /// Sends one request and waits until the kernel has done it.
    pub fn request(&mut self, message: Message) -> Result<()> {
        self.batch(vec![message.acknowledged()])
    }

    /// Sends several messages at once and waits for the first acknowledgement or error. The last
    /// that matters must be [`Message::acknowledged`].
    pub fn batch(&mut self, messages: Vec<Message>) -> Result<()> {
        let first = self.number + 1;
        self.send(messages)?;
        self.receive(first, |_| ())
    }

    /// Asks for one object.
    pub fn get(&mut self, message: Message) -> Result<Option<Reply>> {
        self.collect(message.acknowledged()).map(|replies| replies.into_iter().next())
    }

    /// Asks for all objects.
    pub fn dump(&mut self, mut message: Message) -> Result<Vec<Reply>> {
        message.flags |= NLM_F_DUMP;
        self.collect(message)
    }

    fn collect(&mut self, message: Message) -> Result<Vec<Reply>> {
        let mut replies = Vec::new();
        let first = self.number + 1;
        self.send(vec![message])?;
        self.receive(first, |reply| replies.push(reply))?;
        Ok(replies)
    }

    fn send(&mut self, messages: Vec<Message>) -> Result<()> {
        let mut bytes = Vec::new();
        for mut message in messages {
            self.number += 1;
            let len = u32::try_from(message.bytes.len()).map_err(|_| Errno::EMSGSIZE)?;
            message.bytes[0..4].copy_from_slice(&len.to_ne_bytes());
            message.bytes[6..8].copy_from_slice(&message.flags.to_ne_bytes());
            message.bytes[8..12].copy_from_slice(&self.number.to_ne_bytes());
            bytes.extend(message.bytes);
        }
        let kernel = NetlinkAddr::new(0, 0);
        let flags = MsgFlags::empty();
        sendmsg(self.fd.as_raw_fd(), &[IoSlice::new(&bytes)], &[], flags, Some(&kernel))?;
        Ok(())
    }

    /// Reads answers to the messages from number `first` on, up to an acknowledgement, an error
    /// or the end of a dump.
    fn receive(&mut self, first: u32, mut found: impl FnMut(Reply)) -> Result<()> {
        loop {
            let len = recv(self.fd.as_raw_fd(), &mut self.buffer, MsgFlags::empty())?;
            if let Some(end) = read_answers(&self.buffer[..len], first, &mut found) {
                return end;
            }
        }
    }
}

/// Reads what came at once: answers to the messages from number `first` on. `None`: more will come.
pub fn read_answers(
    mut bytes: &[u8],
    first: u32,
    mut found: impl FnMut(Reply),
) -> Option<Result<()>> {
    while let Some((header, payload)) = split_message(&mut bytes) {
        if header.number < first {
            continue; // a late answer to an earlier batch
        }
        match header.kind {
            NLMSG_ERROR => return Some(acknowledgement(header.flags, payload)),
            NLMSG_DONE => return Some(Ok(())),
            kind => found(Reply { kind, payload: payload.to_vec() }),
        }
    }
    None
}

struct Header {
    kind: u16,
    flags: u16,
    number: u32,
}

/// Takes the first message off `rest`.
fn split_message<'b>(rest: &mut &'b [u8]) -> Option<(Header, &'b [u8])> {
    let bytes = *rest;
    let len = usize::try_from(u32_at(bytes, 0)?).ok()?;
    let header =
        Header { kind: u16_at(bytes, 4)?, flags: u16_at(bytes, 6)?, number: u32_at(bytes, 8)? };
    let payload = bytes.get(HEADER_LEN..len)?;
    *rest = bytes.get(len.next_multiple_of(4)..).unwrap_or_default();
    Some((header, payload))
}

/// Reads an NLMSG_ERROR: an error number of 0 is success; then the header of our message, and
/// perhaps all of it, and then attributes with the kernel's words.
fn acknowledgement(flags: u16, payload: &[u8]) -> Result<()> {
    let errno = payload.get(..4).and_then(|b| Some(i32::from_ne_bytes(b.try_into().ok()?)));
    let errno = errno.ok_or(Errno::EBADMSG)?;
    if errno == 0 {
        return Ok(());
    }
    let echoed = if flags & NLM_F_CAPPED == 0 {
        u32_at(payload, 4).and_then(|len| usize::try_from(len).ok()).unwrap_or(HEADER_LEN)
    } else {
        HEADER_LEN
    };
    let text = (flags & NLM_F_ACK_TLVS != 0)
        .then(|| attributes(payload.get(4 + echoed.next_multiple_of(4)..).unwrap_or_default()))
        .and_then(|attributes| attributes.find_kind(NLMSGERR_ATTR_MSG))
        .map(text_of);
    Err(Error { errno: Errno::from_raw(errno.wrapping_neg()), text })
}

/// setsockopt(2): switches a netlink option on.
fn set_option(fd: &OwnedFd, option: libc::c_int) -> nix::Result<()> {
    let on: libc::c_int = 1;
    let size = libc::socklen_t::try_from(size_of_val(&on)).map_err(|_| Errno::EINVAL)?;
    // SAFETY: the value is an int of the size passed, and outlives the call.
    let result = unsafe {
        libc::setsockopt(fd.as_raw_fd(), libc::SOL_NETLINK, option, (&raw const on).cast(), size)
    };
    Errno::result(result).map(drop)
}

#[cfg(test)]
mod tests {
    use super::{Message, attributes, text_of};

    #[test]
    fn attributes_are_read_back() {
        let message = Message::new(1, 0, &[]).text(3, "eth0").nest(7, |m| m.attr(1, &[9]));
        let found: Vec<_> = attributes(&message.bytes[16..]).collect();
        assert_eq!(found[0].0, 3);
        assert_eq!(text_of(found[0].1), "eth0");
        assert_eq!(attributes(found[1].1).find_kind(1), Some(&[9][..]));
    }

    #[test]
    fn cut_off_attributes_end_the_walk() {
        let message = Message::new(1, 0, &[]).text(3, "eth0").text(4, "eth1");
        for len in 16..message.bytes.len() {
            assert!(attributes(&message.bytes[16..len]).count() <= 2);
        }
        assert_eq!(attributes(&[3, 0, 1, 0]).count(), 0); // a length shorter than its own header
    }
}
