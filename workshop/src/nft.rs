//! nf_tables through the crate netlink-sys: lists and transactions, as much as a witness needs.

use std::io;

use netlink_sys::protocols::NETLINK_NETFILTER;
use netlink_sys::{Socket, SocketAddr};

const SUBSYSTEM: u16 = 10; // NFNL_SUBSYS_NFTABLES
const REQUEST: u16 = 0x1;
const ACK: u16 = 0x4;
const DUMP: u16 = 0x300;
const CREATE: u16 = 0x400;
const NESTED: u16 = 0x8000;
/// The family of IPv4 alone (`NFPROTO_IPV4`).
const IPV4: u8 = 2;

/// What can be listed, with the number of its request (`enum nf_tables_msg_types`).
pub const KINDS: [(&str, u16); 3] = [("table", 1), ("chain", CHAIN), ("rule", 7)];
const CHAIN: u16 = 4;

/// A chain of IPv4.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Chain {
    /// Family, table and name, as nft(8) has them: `ip filter FORWARD`.
    pub path: String,
    /// Whether forwarded packets pass it, and it drops those that none of its rules accepts.
    pub drops_forwarded: bool,
}

/// All objects of one of the [`KINDS`] in our network namespace, in the kernel's own bytes: family,
/// attributes.
pub fn list(kind: u16) -> io::Result<Vec<Vec<u8>>> {
    let socket = open()?;
    socket.send(&message(kind, DUMP, 0, &[]), 0)?;
    let mut found = Vec::new();
    loop {
        let (bytes, _) = socket.recv_from_full()?;
        for (kind, payload) in messages(&bytes) {
            match kind {
                NLMSG_DONE => return Ok(found),
                NLMSG_ERROR => return Err(error_of(payload)),
                // nfgenmsg: family, version, and a number that counts transactions.
                _ => found.push([&payload[..1], &payload[4..]].concat()),
            }
        }
    }
}

/// All chains that packets of IPv4 may pass. Only root may look.
pub fn chains() -> io::Result<Vec<Chain>> {
    const FORWARD: [u8; 4] = 2_u32.to_be_bytes();
    const DROP: [u8; 4] = 0_u32.to_be_bytes();
    let read = |chain: Vec<u8>| {
        let family = match chain.first()? {
            1 => "inet",
            &IPV4 => "ip",
            _ => return None,
        };
        let attributes = chain.get(1..)?;
        let (table, name) = (text(find(attributes, 1)?), text(find(attributes, 3)?));
        let hook = find(attributes, 4).and_then(|hook| find(hook, 1));
        let drops_forwarded = hook == Some(&FORWARD) && find(attributes, 5) == Some(&DROP);
        Some(Chain { path: format!("{family} {table} {name}"), drops_forwarded })
    };
    Ok(list(CHAIN)?.into_iter().filter_map(read).collect())
}

/// Where a chain hangs on a packet's way: what makes it a base chain.
#[derive(Debug, Clone, Copy)]
pub struct Base {
    /// `filter` or `nat`.
    pub kind: &'static str,
    /// The hook's number (`NF_INET_*`): 0 is prerouting, 2 forward, 4 postrouting.
    pub hook: u32,
    /// Its place among the chains there.
    pub priority: i32,
    /// Whether it drops what no rule accepts.
    pub drops: bool,
}

/// Makes the chain `ip TABLE NAME`, and the table if it is missing.
pub fn add_chain(table: &str, name: &str, base: Option<Base>) -> io::Result<()> {
    let table = attribute(1, &string(table));
    let mut chain = [&table[..], &attribute(3, &string(name))].concat();
    if let Some(Base { kind, hook, priority, drops }) = base {
        let hook = [number(1, hook), attribute(2, &priority.to_be_bytes())].concat();
        chain.extend(attribute(NESTED | 4, &hook));
        chain.extend(attribute(7, &string(kind)));
        chain.extend(number(5, u32::from(!drops)));
    }
    commit(&[(0, table), (3, chain)])
}

/// Makes a table `ip NAME` with NAT chains and a rule of each kind of expression that step 5 uses. The
/// error names the kernel's part that is missing.
pub fn add_nat_table(name: &str) -> Result<(), (&'static str, io::Error)> {
    let table = attribute(1, &string(name));
    commit(&[(0, table.clone())]).map_err(|error| ("nf_tables", error))?;
    for (chain, hook, priority) in [("pre", 0, -100), ("post", 4, 100)] {
        let base = Base { kind: "nat", hook, priority, drops: false };
        add_chain(name, chain, Some(base)).map_err(|error| ("nft_chain_nat", error))?;
    }
    let address = attribute(NESTED | 2, &attribute(1, &[192, 0, 2, 1]));
    let load = expression("immediate", &[number(1, 1), address]);
    let to = [number(1, 1), number(2, IPV4.into()), number(3, 1)];
    let fib = [number(1, 8), number(2, 3), number(3, 2)];
    for (module, chain, expressions) in [
        ("nft_ct", "pre", vec![expression("ct", &[number(1, 8), number(2, 0)])]),
        ("nft_fib_ipv4", "pre", vec![expression("fib", &fib)]),
        ("nft_nat", "pre", vec![load, expression("nat", &to)]),
        ("nft_masq", "post", vec![expression("masq", &[])]),
    ] {
        let expressions = attribute(NESTED | 4, &expressions.concat());
        let rule = [&table[..], &attribute(2, &string(chain)), &expressions].concat();
        commit(&[(6, rule)]).map_err(|error| (module, error))?;
    }
    Ok(())
}

/// Does all of it, or nothing: a transaction of messages (type, attributes).
fn commit(changes: &[(u16, Vec<u8>)]) -> io::Result<()> {
    const BEGIN: u16 = 0x10;
    const END: u16 = 0x11;
    let mark = |kind| {
        let mut mark = message(kind, 0, 0, &[]);
        mark[4..6].copy_from_slice(&u16::to_ne_bytes(kind)); // of no subsystem: that is in its body
        mark[18..20].copy_from_slice(&SUBSYSTEM.to_be_bytes());
        mark
    };
    let mut bytes = mark(BEGIN);
    for (at, (kind, attributes)) in changes.iter().enumerate() {
        let ack = if at + 1 == changes.len() { ACK } else { 0 };
        bytes.extend(message(*kind, CREATE | ack, IPV4, attributes));
    }
    bytes.extend(mark(END));
    let socket = open()?;
    socket.send(&bytes, 0)?;
    loop {
        let (bytes, _) = socket.recv_from_full()?;
        if let Some((_, answer)) = messages(&bytes).find(|(kind, _)| *kind == NLMSG_ERROR) {
            let error = error_of(answer);
            return if error.raw_os_error() == Some(0) { Ok(()) } else { Err(error) };
        }
    }
}

const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;

fn open() -> io::Result<Socket> {
    let mut socket = Socket::new(NETLINK_NETFILTER)?;
    socket.bind_auto()?;
    socket.connect(&SocketAddr::new(0, 0))?;
    Ok(socket)
}

/// nlmsghdr: length, type, flags, number, port; nfgenmsg: family, version, resource.
fn message(kind: u16, flags: u16, family: u8, attributes: &[u8]) -> Vec<u8> {
    let len = u32::try_from(20 + attributes.len()).expect("a short message");
    let mut bytes = len.to_ne_bytes().to_vec();
    bytes.extend((SUBSYSTEM << 8 | kind).to_ne_bytes());
    bytes.extend((REQUEST | flags).to_ne_bytes());
    bytes.extend([0; 8]);
    bytes.extend([family, 0, 0, 0]);
    bytes.extend(attributes);
    bytes
}

/// The messages in a datagram: type and payload.
fn messages(mut rest: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let len = u32::from_ne_bytes(rest.get(..4)?.try_into().ok()?) as usize;
        let kind = u16::from_ne_bytes(rest.get(4..6)?.try_into().ok()?);
        let payload = rest.get(16..len)?;
        rest = rest.get(len.next_multiple_of(4)..).unwrap_or_default();
        Some((kind, payload))
    })
}

/// NLMSG_ERROR begins with a negative errno; 0 is an acknowledgement.
fn error_of(payload: &[u8]) -> io::Error {
    let errno = payload.first_chunk().map_or(libc::EBADMSG, |code| -i32::from_ne_bytes(*code));
    io::Error::from_raw_os_error(errno)
}

/// The value of the first attribute of this kind.
fn find(mut rest: &[u8], wanted: u16) -> Option<&[u8]> {
    loop {
        let len = usize::from(u16::from_ne_bytes(rest.get(..2)?.try_into().ok()?));
        let kind = u16::from_ne_bytes(rest.get(2..4)?.try_into().ok()?) & !NESTED;
        let value = rest.get(4..len)?;
        if kind == wanted {
            return Some(value);
        }
        rest = rest.get(len.next_multiple_of(4)..)?;
    }
}

fn text(value: &[u8]) -> String {
    String::from_utf8_lossy(value.strip_suffix(b"\0").unwrap_or(value)).into_owned()
}

fn string(text: &str) -> Vec<u8> {
    [text.as_bytes(), &[0]].concat()
}

fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
    let len = u16::try_from(4 + value.len()).expect("a short attribute");
    let mut bytes = [&len.to_ne_bytes(), &kind.to_ne_bytes(), value].concat();
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    bytes
}

fn number(kind: u16, value: u32) -> Vec<u8> {
    attribute(kind, &value.to_be_bytes())
}

fn expression(name: &str, data: &[Vec<u8>]) -> Vec<u8> {
    let data = attribute(NESTED | 2, &data.concat());
    attribute(NESTED | 1, &[attribute(1, &string(name)), data].concat())
}
