//! What a network's name server makes of a question (RFC 1035).

use std::net::{Ipv4Addr, Ipv6Addr};

pub use simple_dns::RCODE;
use simple_dns::rdata::{PTR, RData};
use simple_dns::{CLASS, Name, OPCODE, Packet, PacketFlag, QTYPE, ResourceRecord, TYPE};

/// More addresses of one name do not fit into every answer of 512 bytes.
const MOST: usize = 20;

/// What to do with a question.
#[derive(Debug, PartialEq, Eq)]
pub enum Verdict {
    /// We know: this is the answer.
    Answer(Vec<u8>),
    /// Others may know.
    Forward,
    /// It is none.
    Ignore,
}

/// Decides about a question. `addresses` are those of a name in small letters, `name_of` is the name
/// of who has an address.
pub fn decide(
    question: &[u8],
    addresses: impl Fn(&str) -> Vec<(Ipv4Addr, Option<Ipv6Addr>)>,
    name_of: impl Fn(Ipv4Addr) -> Option<String>,
) -> Verdict {
    let Ok(packet) = Packet::parse(question) else { return Verdict::Ignore };
    if packet.has_flags(PacketFlag::RESPONSE) {
        return Verdict::Ignore;
    }
    let (OPCODE::StandardQuery, [asked]) = (packet.opcode(), &packet.questions[..]) else {
        return Verdict::Forward;
    };
    let name = asked.qname.to_string().to_ascii_lowercase();
    let record = |data| ResourceRecord::new(asked.qname.clone(), CLASS::IN, 0, data);
    let mut answers = Vec::new();
    if let Some(address) = reverse(&name) {
        let Some(owner) = name_of(address) else { return Verdict::Forward };
        let Ok(owner) = Name::new(&owner).map(Name::into_owned) else { return Verdict::Forward };
        if is_asked(asked.qtype, TYPE::PTR) {
            answers.push(record(RData::PTR(PTR(owner))));
        }
    } else {
        let mut found = addresses(&name);
        if found.is_empty() {
            return Verdict::Forward;
        }
        if is_asked(asked.qtype, TYPE::A) {
            // Who asks takes the first: by turns it is another one.
            let turn = usize::from(packet.id()) % found.len();
            found.rotate_left(turn);
            let found = found.iter().take(MOST);
            answers.extend(found.map(|&(address, _)| record(RData::A(address.into()))));
        } else if is_asked(asked.qtype, TYPE::AAAA) {
            let found = found.iter().filter_map(|&(_, address)| address).take(MOST);
            answers.extend(found.map(|address| record(RData::AAAA(address.into()))));
        }
    }
    reply(&packet, RCODE::NoError, answers)
}

/// The answer of who does not know: is not to ask others (refused), or found none to ask (failure).
#[must_use]
pub fn without_answer(question: &[u8], code: RCODE) -> Verdict {
    match Packet::parse(question) {
        Ok(packet) => reply(&packet, code, Vec::new()),
        Err(_) => Verdict::Ignore,
    }
}

fn reply(question: &Packet<'_>, code: RCODE, answers: Vec<ResourceRecord<'_>>) -> Verdict {
    let mut reply = Packet::new_reply(question.id());
    *reply.opcode_mut() = question.opcode();
    *reply.rcode_mut() = code;
    reply.set_flags(PacketFlag::RECURSION_AVAILABLE);
    if question.has_flags(PacketFlag::RECURSION_DESIRED) {
        reply.set_flags(PacketFlag::RECURSION_DESIRED);
    }
    reply.questions.clone_from(&question.questions);
    reply.answers = answers;
    reply.build_bytes_vec_compressed().map_or(Verdict::Ignore, Verdict::Answer)
}

fn is_asked(asked: QTYPE, kind: TYPE) -> bool {
    matches!(asked, QTYPE::ANY) || matches!(asked, QTYPE::TYPE(asked) if asked == kind)
}

/// `2.0.77.10.in-addr.arpa` (RFC 1035, section 3.5).
fn reverse(name: &str) -> Option<Ipv4Addr> {
    let address: Ipv4Addr = name.strip_suffix(".in-addr.arpa")?.parse().ok()?;
    let [d, c, b, a] = address.octets();
    Some(Ipv4Addr::new(a, b, c, d))
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use simple_dns::{CLASS, Name, Packet, QCLASS, QTYPE, Question, TYPE};

    use super::{Verdict, decide};

    const WEB: Ipv4Addr = Ipv4Addr::new(10, 77, 1, 2);

    fn ask(name: &str, kind: TYPE) -> Verdict {
        let mut packet = Packet::new_query(7);
        let class = QCLASS::CLASS(CLASS::IN);
        packet.questions.push(Question::new(
            Name::new_unchecked(name),
            QTYPE::TYPE(kind),
            class,
            false,
        ));
        let addresses = |name: &str| if name == "web" { vec![(WEB, None)] } else { Vec::new() };
        let name_of = |address| (address == WEB).then(|| "web".to_owned());
        decide(&packet.build_bytes_vec().unwrap(), addresses, name_of)
    }

    #[test]
    fn names_of_the_network_are_answered_and_others_passed_on() {
        let answers = |verdict: &Verdict| match verdict {
            Verdict::Answer(bytes) => Packet::parse(bytes).unwrap().answers.len(),
            other => panic!("{other:?}"),
        };
        let Verdict::Answer(bytes) = ask("WEB", TYPE::A) else { panic!() };
        assert!(bytes.ends_with(&WEB.octets()));
        assert_eq!(answers(&ask("2.1.77.10.in-addr.arpa", TYPE::PTR)), 1);
        // It is there, and has no such record.
        assert_eq!(answers(&ask("web", TYPE::AAAA)), 0);
        assert_eq!(answers(&ask("web", TYPE::MX)), 0);
        assert_eq!(ask("web.example", TYPE::A), Verdict::Forward);
        assert_eq!(ask("9.1.77.10.in-addr.arpa", TYPE::PTR), Verdict::Forward);
        for nothing in [&[][..], &[0; 11], &[0xff; 40]] {
            assert_eq!(decide(nothing, |_| vec![(WEB, None)], |_| None), Verdict::Ignore);
        }
    }
}
