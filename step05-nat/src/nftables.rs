//! nf_tables: tables hold chains, chains hang at hooks on a packet's way, and hold rules; a rule
//! is a list of expressions, small instructions that load, compare and decide
//! (linux/netfilter/nf_tables.h; nft(8) is the language for people).
//!
//! Numbers in attributes are big-endian here, unlike in rtnetlink.

use std::net::Ipv4Addr;

use nix::sys::socket::SockProtocol;
use step04_bridge_veth::netlink::{
    Message, NLM_F_APPEND, NLM_F_CREATE, NLM_F_EXCL, Reply, Result, Socket, attributes, text_of,
};

const SUBSYSTEM: u16 = 10; // NFNL_SUBSYS_NFTABLES
const BATCH_BEGIN: u16 = 0x10;
const BATCH_END: u16 = 0x11;
const FIXED_LEN: usize = 4; // struct nfgenmsg
/// The family of IPv4 alone (`NFPROTO_IPV4`).
const IPV4: u8 = 2;
/// The family of IPv4 and IPv6 together (`NFPROTO_INET`).
const INET: u8 = 1;

// Attributes. Their numbers begin at 1 in each enum of the header.
const TABLE_NAME: u16 = 1;
const TABLE_USERDATA: u16 = 6;
const CHAIN_TABLE: u16 = 1;
const CHAIN_NAME: u16 = 3;
const CHAIN_HOOK: u16 = 4;
const CHAIN_POLICY: u16 = 5;
const CHAIN_TYPE: u16 = 7;
const HOOK_NUMBER: u16 = 1;
const HOOK_PRIORITY: u16 = 2;
const RULE_TABLE: u16 = 1;
const RULE_CHAIN: u16 = 2;
const RULE_HANDLE: u16 = 3;
const RULE_EXPRESSIONS: u16 = 4;
const RULE_USERDATA: u16 = 7;
const LIST_ELEMENT: u16 = 1;
const EXPRESSION_NAME: u16 = 1;
const EXPRESSION_DATA: u16 = 2;
const DATA_VALUE: u16 = 1;
const DATA_VERDICT: u16 = 2;
const VERDICT_CODE: u16 = 1;

/// Places on a packet's way where chains can hang (linux/netfilter.h, `NF_INET_*`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hook {
    /// Just received, not yet routed.
    Prerouting = 0,
    /// Routed, and not for this host.
    Forward = 2,
    /// Just made by a process of this host.
    Output = 3,
    /// About to be sent.
    Postrouting = 4,
}

/// What a chain is for, with its usual place among other chains at the hook.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Drops or accepts, before connections are tracked.
    Raw,
    /// Rewrites destinations: sees only the first packet of a connection.
    Dnat,
    /// Drops or accepts.
    Filter,
    /// Rewrites sources: sees only the first packet of a connection.
    Snat,
}

impl Kind {
    fn name_and_priority(self) -> (&'static str, i32) {
        match self {
            Self::Raw => ("filter", -300),
            Self::Dnat => ("nat", -100),
            Self::Filter => ("filter", 0),
            Self::Snat => ("nat", 100),
        }
    }
}

/// A register of the rule's little machine; they hold 16 bytes each.
const R1: u32 = 1;
const R2: u32 = 2;

/// One instruction of a rule.
#[derive(Debug, Clone)]
pub struct Expression {
    name: &'static str,
    data: Vec<(u16, Vec<u8>)>,
}

fn expression(name: &'static str) -> Expression {
    Expression { name, data: Vec::new() }
}

impl Expression {
    fn number(mut self, kind: u16, number: u32) -> Self {
        self.data.push((kind, number.to_be_bytes().to_vec()));
        self
    }

    /// A value, which is an attribute in the attribute.
    fn value(self, kind: u16, value: &[u8]) -> Self {
        self.nested(kind, DATA_VALUE, value)
    }

    fn nested(mut self, kind: u16, inner: u16, value: &[u8]) -> Self {
        // A message used only for its attributes: everything behind its header.
        let mut bytes = Vec::new();
        let len = u16::try_from(4 + value.len()).unwrap_or(u16::MAX);
        bytes.extend(len.to_ne_bytes());
        bytes.extend(inner.to_ne_bytes());
        bytes.extend(value);
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        self.data.push((kind | 0x8000, bytes));
        self
    }
}

fn compare(negated: bool, value: &[u8]) -> Expression {
    expression("cmp").number(1, R1).number(2, negated.into()).value(3, value)
}

fn meta(key: u32) -> Expression {
    expression("meta").number(1, R1).number(2, key)
}

fn payload(base: u32, offset: u32, len: u32) -> Expression {
    expression("payload").number(1, R1).number(2, base).number(3, offset).number(4, len)
}

/// The register's value `& mask`.
fn masked(mask: &[u8]) -> Expression {
    let len = u32::try_from(mask.len()).unwrap_or(0);
    let zeros = vec![0; mask.len()];
    expression("bitwise").number(1, R1).number(2, R1).number(3, len).value(4, mask).value(5, &zeros)
}

fn interface(key: u32, negated: bool, name: &str) -> Vec<Expression> {
    let mut padded = [0; 16];
    padded[..name.len()].copy_from_slice(name.as_bytes());
    vec![meta(key), compare(negated, &padded)]
}

/// `iifname NAME`, or `iifname != NAME`
#[must_use]
pub fn iifname(name: &str, negated: bool) -> Vec<Expression> {
    interface(6, negated, name)
}

/// `oifname NAME`, or `oifname != NAME`
#[must_use]
pub fn oifname(name: &str, negated: bool) -> Vec<Expression> {
    interface(7, negated, name)
}

/// `iifgroup GROUP`
#[must_use]
pub fn iifgroup(group: u32) -> Vec<Expression> {
    vec![meta(21), compare(false, &group.to_ne_bytes())]
}

fn ip_address(offset: u32, address: Ipv4Addr, mask: u32) -> Vec<Expression> {
    const NETWORK_HEADER: u32 = 1;
    let masked = masked(&mask.to_be_bytes());
    vec![payload(NETWORK_HEADER, offset, 4), masked, compare(false, &address.octets())]
}

/// `ip saddr ADDRESS/MASK`
#[must_use]
pub fn ip_saddr(address: Ipv4Addr, mask: u32) -> Vec<Expression> {
    ip_address(12, address, mask)
}

/// `ip daddr ADDRESS/MASK`
#[must_use]
pub fn ip_daddr(address: Ipv4Addr, mask: u32) -> Vec<Expression> {
    ip_address(16, address, mask)
}

/// `tcp dport PORT`, or `udp dport PORT`: both have it at the same place.
#[must_use]
pub fn dport(protocol: u8, port: u16) -> Vec<Expression> {
    const TRANSPORT_HEADER: u32 = 2;
    let destination = payload(TRANSPORT_HEADER, 2, 2);
    vec![meta(16), compare(false, &[protocol]), destination, compare(false, &port.to_be_bytes())]
}

/// `fib daddr type local`: the destination is an address of this host.
#[must_use]
pub fn to_this_host() -> Vec<Expression> {
    const RTN_LOCAL: u32 = 2;
    let (daddr, addrtype) = (2, 3);
    let fib = expression("fib").number(1, R1).number(2, addrtype).number(3, daddr);
    vec![fib, compare(false, &RTN_LOCAL.to_ne_bytes())]
}

fn ct_bits(key: u32, bits: u32) -> Vec<Expression> {
    let load = expression("ct").number(1, R1).number(2, key);
    vec![load, masked(&bits.to_ne_bytes()), compare(true, &[0; 4])]
}

/// `ct state established,related`: belongs to a connection that was let through.
#[must_use]
pub fn ct_established() -> Vec<Expression> {
    ct_bits(0, 0b110)
}

/// `ct status dnat`: its destination was rewritten.
#[must_use]
pub fn ct_dnat() -> Vec<Expression> {
    ct_bits(2, 1 << 5)
}

/// `accept`
#[must_use]
pub fn accept() -> Vec<Expression> {
    verdict(1)
}

/// `drop`
#[must_use]
pub fn drop() -> Vec<Expression> {
    verdict(0)
}

fn verdict(code: u32) -> Vec<Expression> {
    let code: Vec<u8> = attribute(VERDICT_CODE, &code.to_be_bytes());
    vec![expression("immediate").number(1, 0).nested(2, DATA_VERDICT | 0x8000, &code)]
}

/// `masquerade`: the source becomes the address of the interface that the packet leaves by.
#[must_use]
pub fn masquerade() -> Vec<Expression> {
    vec![expression("masq")]
}

/// `dnat to ADDRESS:PORT`
#[must_use]
pub fn dnat(address: Ipv4Addr, port: u16) -> Vec<Expression> {
    let load = |register, value: &[u8]| expression("immediate").number(1, register).value(2, value);
    let nat = expression("nat").number(1, 1).number(2, IPV4.into()).number(3, R1).number(5, R2);
    vec![load(R1, &address.octets()), load(R2, &port.to_be_bytes()), nat]
}

fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
    let len = u16::try_from(4 + value.len()).unwrap_or(u16::MAX);
    [&len.to_ne_bytes(), &kind.to_ne_bytes(), value].concat()
}

fn message(kind: u16, flags: u16, family: u8) -> Message {
    Message::new(SUBSYSTEM << 8 | kind, flags, &[family, 0, 0, 0])
}

/// A comment, which nft(8) shows: type 0, length, text with its NUL.
fn comment(text: &str) -> Vec<u8> {
    let len = u8::try_from(text.len() + 1).unwrap_or(0);
    [&[0, len], text.as_bytes(), &[0]].concat()
}

fn comment_of(userdata: &[u8]) -> Option<String> {
    match userdata {
        [0, len, text @ ..] => text.get(..usize::from(*len)).map(text_of),
        _ => None,
    }
}

/// `add table ip NAME { comment TEXT }`
#[must_use]
pub fn add_table(name: &str, note: &str) -> Message {
    let message = message(0, NLM_F_CREATE | NLM_F_EXCL, IPV4);
    message.text(TABLE_NAME, name).attr(TABLE_USERDATA, &comment(note))
}

/// `delete table ip NAME`, with all that is in it.
#[must_use]
pub fn delete_table(name: &str) -> Message {
    message(2, 0, IPV4).text(TABLE_NAME, name)
}

/// `add chain ip TABLE NAME { type KIND hook HOOK priority ...; }`
#[must_use]
pub fn add_chain(table: &str, name: &str, hook: Hook, kind: Kind) -> Message {
    let (kind, priority) = kind.name_and_priority();
    message(3, NLM_F_CREATE | NLM_F_EXCL, IPV4)
        .text(CHAIN_TABLE, table)
        .text(CHAIN_NAME, name)
        .nest(CHAIN_HOOK, |m| {
            m.attr(HOOK_NUMBER, &(hook as u32).to_be_bytes())
                .attr(HOOK_PRIORITY, &priority.to_be_bytes())
        })
        .text(CHAIN_TYPE, kind)
}

/// `add rule ip TABLE CHAIN EXPRESSIONS`, with `comment TEXT` if there is a text
#[must_use]
pub fn add_rule(table: &str, chain: &str, expressions: &[Expression], note: &str) -> Message {
    let list = |mut list: Message| {
        for expression in expressions {
            list = list.nest(LIST_ELEMENT, |element| {
                element.text(EXPRESSION_NAME, expression.name).nest(EXPRESSION_DATA, |data| {
                    expression.data.iter().fold(data, |data, (kind, value)| data.attr(*kind, value))
                })
            });
        }
        list
    };
    let rule = message(6, NLM_F_CREATE | NLM_F_APPEND, IPV4)
        .text(RULE_TABLE, table)
        .text(RULE_CHAIN, chain)
        .nest(RULE_EXPRESSIONS, list);
    if note.is_empty() { rule } else { rule.attr(RULE_USERDATA, &comment(note)) }
}

/// `delete rule ip TABLE CHAIN handle HANDLE`
#[must_use]
pub fn delete_rule(table: &str, rule: &Rule) -> Message {
    message(8, 0, IPV4)
        .text(RULE_TABLE, table)
        .text(RULE_CHAIN, &rule.chain)
        .attr(RULE_HANDLE, &rule.handle)
}

/// A rule, as far as we care.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    /// The chain that it is in.
    pub chain: String,
    /// Its number, big-endian, as the kernel gave it.
    handle: Vec<u8>,
    /// Its comment.
    pub comment: String,
}

impl Rule {
    /// From the kernel's description, if it is a rule of `table`.
    #[must_use]
    pub fn read(reply: &Reply, table: &str) -> Option<Self> {
        let attribute = |kind| reply.attributes(FIXED_LEN).find_kind(kind);
        (text_of(attribute(RULE_TABLE)?) == table).then_some(())?;
        Some(Self {
            chain: text_of(attribute(RULE_CHAIN)?),
            handle: attribute(RULE_HANDLE)?.to_vec(),
            comment: attribute(RULE_USERDATA).and_then(comment_of).unwrap_or_default(),
        })
    }
}

/// A chain that hangs at the forward hook and drops what no rule accepts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DroppingChain {
    /// The table's family, as nft(8) names it.
    pub family: &'static str,
    /// The table that it is in.
    pub table: String,
    /// Its name.
    pub name: String,
}

impl DroppingChain {
    /// From the kernel's description of a chain, if it is such a one.
    #[must_use]
    pub fn read(reply: &Reply, family: &'static str) -> Option<Self> {
        let attribute = |kind| reply.attributes(FIXED_LEN).find_kind(kind);
        let hook = attributes(attribute(CHAIN_HOOK)?).find_kind(HOOK_NUMBER)?;
        let drops = attribute(CHAIN_POLICY)? == 0_u32.to_be_bytes();
        (drops && hook == (Hook::Forward as u32).to_be_bytes()).then_some(())?;
        let text = |kind| attribute(kind).map(text_of).unwrap_or_default();
        Some(Self { family, table: text(CHAIN_TABLE), name: text(CHAIN_NAME) })
    }
}

/// The comment in the kernel's description of a table; empty if it has none.
#[must_use]
pub fn read_table_comment(reply: &Reply) -> String {
    let userdata = reply.attributes(FIXED_LEN).find_kind(TABLE_USERDATA);
    userdata.and_then(comment_of).unwrap_or_default()
}

/// A socket for nf_tables of the network namespace that it was opened in.
#[derive(Debug)]
pub struct Nftables(Socket);

impl Nftables {
    /// Opens one.
    pub fn open() -> Result<Self> {
        Socket::open(SockProtocol::NetlinkNetFilter).map(Self)
    }

    /// Does all of it, or nothing: one transaction.
    // ANCHOR: commit
    pub fn commit(&mut self, mut changes: Vec<Message>) -> Result<()> {
        let Some(last) = changes.pop() else { return Ok(()) };
        let [high, low] = SUBSYSTEM.to_be_bytes();
        let mark = |kind| Message::new(kind, 0, &[0, 0, high, low]);
        changes.insert(0, mark(BATCH_BEGIN));
        changes.extend([last.acknowledged(), mark(BATCH_END)]);
        self.0.batch(changes)
    }
    // ANCHOR_END: commit

    /// Does as much at once as the kernel takes: a message has to fit into the socket's buffer.
    pub fn commit_many(&mut self, changes: &[Message]) -> Result<()> {
        changes.chunks(256).try_for_each(|part| self.commit(part.to_vec()))
    }

    /// The comment of the table `ip NAME`; `None` if there is no such table.
    pub fn table_comment(&mut self, name: &str) -> Result<Option<String>> {
        match self.0.get(message(1, 0, IPV4).text(TABLE_NAME, name)) {
            Ok(reply) => Ok(reply.as_ref().map(read_table_comment)),
            Err(error) if error.errno == nix::errno::Errno::ENOENT => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// The rules of the table `ip NAME`.
    pub fn rules(&mut self, table: &str) -> Result<Vec<Rule>> {
        let replies = self.0.dump(message(7, 0, IPV4).text(RULE_TABLE, table))?;
        Ok(replies.iter().filter_map(|reply| Rule::read(reply, table)).collect())
    }

    /// The chains, of any table, that drop forwarded packets unless a rule accepts them.
    pub fn dropping_forward_chains(&mut self) -> Result<Vec<DroppingChain>> {
        let mut found = Vec::new();
        for (family, number) in [("ip", IPV4), ("inet", INET)] {
            let chains = self.0.dump(message(4, 0, number))?;
            found.extend(chains.iter().filter_map(|chain| DroppingChain::read(chain, family)));
        }
        Ok(found)
    }
}

#[cfg(test)]
mod tests {
    use super::{comment, comment_of};

    #[test]
    fn comments_are_read_back_and_other_notes_passed_over() {
        assert_eq!(comment_of(&comment("10.77.0.2")).as_deref(), Some("10.77.0.2"));
        // Tables of others: not a comment, cut off, empty, and longer than it is.
        for other in [&[1, 2, b'x', 0][..], &[0], &[], &[0, 9, b'x', 0]] {
            assert_eq!(comment_of(other), None, "{other:?}");
        }
    }
}
