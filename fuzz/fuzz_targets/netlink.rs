//! What comes in at a netlink socket: from the kernel, but in it are other people's links and tables.

#![no_main]

use libfuzzer_sys::fuzz_target;
use step04_bridge_veth::netlink::{attributes, read_answers};
use step04_bridge_veth::{Cidr, Link, read_address, read_overlapping_route};
use step05_nat::nftables::{DroppingChain, Rule, read_table_comment};

fuzz_target!(|bytes: &[u8]| {
    let mut replies = Vec::new();
    let end = read_answers(bytes, 1, |reply| replies.push(reply));
    // A message has a header of 16 bytes, so there cannot be more of them, nor more in them.
    assert!(replies.len() <= bytes.len() / 16);
    let taken: usize = replies.iter().map(|reply| reply.payload.len() + 16).sum();
    assert!(taken <= bytes.len());
    if let Some(Err(error)) = end {
        assert!(error.to_string().len() <= 3 * bytes.len() + 200);
    }

    let subnet: Cidr = "10.77.0.0/24".parse().unwrap();
    for reply in &replies {
        if let Some(link) = Link::read(reply) {
            assert_eq!(link.index.to_ne_bytes(), reply.payload[4..8]);
        }
        if let Some((_, prefix)) = read_address(reply, 1) {
            assert_eq!(prefix, reply.payload[1]);
        }
        let _ = read_overlapping_route(reply, subnet);
        let most = 3 * reply.payload.len(); // a byte that is not UTF-8 is shown as three
        assert!(read_table_comment(reply).len() <= most);
        let table = reply.attributes(4).find_kind(1).map(step04_bridge_veth::netlink::text_of);
        if let Some(rule) = Rule::read(reply, table.as_deref().unwrap_or_default()) {
            assert!(rule.chain.len() + rule.comment.len() <= most);
        }
        if let Some(chain) = DroppingChain::read(reply, "ip") {
            assert!(chain.table.len() + chain.name.len() <= most);
        }
    }
    written_attributes_are_read_back(bytes);
});

/// Attributes that were read are the same when they are written and read again.
fn written_attributes_are_read_back(bytes: &[u8]) {
    let found: Vec<_> = attributes(bytes).collect();
    let mut written = Vec::new();
    for (kind, value) in &found {
        let len = u16::try_from(4 + value.len()).unwrap();
        written.extend(len.to_ne_bytes());
        written.extend(kind.to_ne_bytes());
        written.extend(*value);
        written.resize(written.len().next_multiple_of(4), 0);
    }
    assert!(written.len() <= bytes.len().next_multiple_of(4));
    assert_eq!(attributes(&written).collect::<Vec<_>>(), found);
}
