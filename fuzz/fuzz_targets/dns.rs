//! What comes to a network's name server: it is read in front of all programs of all containers

#![no_main]

use std::net::Ipv4Addr;

use libfuzzer_sys::fuzz_target;
use runtime::network::dns::{RCODE, Verdict, decide, without_answer};

fuzz_target!(|question: &[u8]| {
    let web = Ipv4Addr::new(10, 77, 1, 2);
    let addresses = |name: &str| if name == "web" { vec![(web, Some(web.to_ipv6_mapped())); 30] } else { Vec::new() };
    let name_of = |address| (address == web).then(|| "web.blue".to_owned());
    for verdict in [decide(question, addresses, name_of), without_answer(question, RCODE::Refused)] {
        let Verdict::Answer(answer) = verdict else { continue };
        // It is the answer to this question, and no question itself: two servers would talk for ever.
        assert_eq!(answer[..2], question[..2]);
        assert!(answer[2] & 0x80 != 0);
        let again = decide(&answer, addresses, name_of);
        assert_eq!(again, Verdict::Ignore);
    }
});
