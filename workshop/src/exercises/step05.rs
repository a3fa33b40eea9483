//! Step 5: IP forwarding and NAT.

use super::{Exercise, Mutant, Start};

pub(super) const EXERCISES: &[Exercise] = &[
    Exercise {
        id: "5.1",
        title: "Masquerade",
        minutes: 15,
        start: Start::Blank,
        task: "The container's packets reach the server, but nobody outside knows the way back to \
               10.77.0.2. So the host sends them on under its own address, and translates the \
               answers back. Give the parts of that rule: which packets, and what becomes of them. \
               What stays on the bridge must keep its address.",
        hints: [
            "In nft's words: `ip saddr 10.77.0.0/24 oifname != \"workshop0\" masquerade`. Each part is \
             a function that this file has imported.",
            "ip_saddr takes an address and a mask; a subnet has both. The second argument of \
             oifname says whether it is negated.",
            "Three parts in an array: from the network of the subnet; to a link other than the \
             bridge; masquerade().",
        ],
        mutants: &[
            Mutant {
                what: "a missing masquerade",
                from: "masquerade()",
                to: "accept()",
                says: "sees 198.51.100.10",
            },
            Mutant {
                what: "it matches only what stays on the bridge",
                from: "oifname(bridge, true)",
                to: "oifname(bridge, false)",
                says: "sees 198.51.100.10",
            },
            Mutant {
                what: "on the bridge, too, everybody is the host",
                from: "oifname(bridge, true)",
                to: "Vec::new()",
                says: "what stays on the bridge",
            },
            Mutant {
                what: "all that the host sends or forwards",
                from: "ip_saddr(subnet.network(), subnet.mask())",
                to: "Vec::new()",
                says: "what is not from the subnet",
            },
            Mutant {
                what: "packets to the subnet instead of from it",
                from: "ip_saddr(subnet.network(), subnet.mask())",
                to: "ip_daddr(subnet.network(), subnet.mask())",
                says: "sees 198.51.100.10",
            },
        ],
    },
    Exercise {
        id: "5.2",
        title: "A published port",
        minutes: 20,
        start: Start::Blank,
        task: "With -p 8080:80 whoever asks this host at 8080 gets the container's port 80. Write \
               the rules of one `port`: for packets to this host (all of its addresses, or the one \
               that was named) and to that port, the destination becomes the container's. Two \
               chains need it: what comes in from outside, and what the host itself sends, never \
               meet in the same one. The rule's comment is the container's address: by it the rule is \
               found again and removed.",
        hints: [
            "The picture at the top of this file has both rules. Look which chains hook into \
             prerouting and into output.",
            "Among the imports is a match for all addresses of this host; if port.address is not 0.0.0.0 (see \
             is_unspecified), ip_daddr with a mask of all ones matches just that one. \
             `port.protocol as u8` is the protocol's number.",
            "A rule is the parts `to`, `dport(...)`, `dnat(...)`, concatenated; add_rule(bridge, \
             chain, &rule, comment) makes the message; push it once for each of the two chains.",
        ],
        mutants: &[
            Mutant {
                what: "the host itself cannot reach it",
                from: "[\"prerouting\", \"output\"]",
                to: "[\"prerouting\"]",
                says: "at port 8080 of the host, from the host",
            },
            Mutant {
                what: "nobody else can reach it",
                from: "[\"prerouting\", \"output\"]",
                to: "[\"output\"]",
                says: "at port 8080, from the internet",
            },
            Mutant {
                what: "every port 8080 of the world is caught",
                from: "[to, dport(",
                to: "[Vec::new(), dport(",
                says: "port 8080 of other hosts is not ours to catch",
            },
            Mutant {
                what: "the named address is any",
                from: "ip_daddr(port.address, u32::MAX)",
                to: "to_this_host()",
                says: "port 8081 was published for 198.51.100.10",
            },
            Mutant {
                what: "no comment to find the rule by",
                from: "&address.to_string()",
                to: "\"\"",
                says: "each rule has the container's address as its comment",
            },
            Mutant {
                what: "TCP only",
                from: "port.protocol as u8",
                to: "6",
                says: "at UDP port 8080",
            },
        ],
    },
    Exercise {
        id: "5.3",
        title: "Why ping hangs",
        minutes: 15,
        start: Start::Repair,
        task: "The rules are all there, the packet leaves the container, reaches the host, and is \
               gone: no error, ping just hangs. A host is no router until it is told to be one. \
               Somebody switched it on, and forgot that the machine is not theirs: after the last \
               container it has to be as it was before. restore() below looks for a note. Write \
               it, at the right moment: we may be killed between any two lines.",
        hints: [
            "note(pool.path()) is the path of the note. restore() switches off if it is there, and \
             reads in it what else to set back. When may it be written, and when must it not?",
            "If the switch was on before us, and no other bridge of ours has a note, it is the \
             machine's own and stays. to_set_back() tells: its text is what belongs into the note.",
            "If there is something to set back: first the note, then the switch. The other way \
             round, a kill between the two leaves a router for ever.",
        ],
        mutants: &[
            Mutant {
                what: "nobody notes that it was off",
                from: "if let Some(before) = to_set_back(pool)? {\n        let note = note(pool.path());\n        fs::write(&note, before).with_context(|| format!(\"cannot write {}\", note.display()))?;",
                to: "if to_set_back(pool)?.is_some() {",
                says: "after the last container the switch is back where it was",
            },
            Mutant {
                what: "it is noted, whatever it was",
                from: "if let Some(before) = to_set_back(pool)? {",
                to: "{\n        let before = to_set_back(pool)?.unwrap_or_default();",
                says: "a switch that was on before us stays on",
            },
            Mutant {
                what: "the note comes after the switch",
                from: "let note = note(pool.path());",
                to: "write(IP_FORWARD, \"1\")?;\n        let note = note(pool.path());",
                says: "the note comes before the switch",
            },
            Mutant {
                what: "the other bridges are forgotten",
                from: "if let Some(before) = to_set_back(pool)? {",
                to: "let off = read(IP_FORWARD)? == \"0\";\n    if let Some(before) = to_set_back(pool)?.filter(|_| off) {",
                says: "as long as another bridge of ours needs it",
            },
            Mutant {
                what: "it is noted, and not done",
                from: "write(IP_FORWARD, \"1\")?;",
                to: "",
                says: "a packet of the container may pass",
            },
        ],
    },
];
