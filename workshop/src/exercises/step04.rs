//! Step 4: a bridge and veth pairs.

use super::{Exercise, Mutant, Start};

pub(super) const EXERCISES: &[Exercise] = &[
    Exercise {
        id: "4.1",
        title: "A netlink message by hand",
        minutes: 20,
        start: Start::Blank,
        task: "`ip link add` is a message to the kernel: a header, a fixed part, and attributes \
               (length, type, value) that may hold attributes. Write the one that makes a bridge \
               with this name, hardware address and group, and switches it on. If there is a link \
               of that name, the kernel has to refuse: it is somebody else's.",
        hints: [
            "Message::new takes the type, the flags and the fixed part (`link` below makes it: an \
             index, 0 for a new one, and the flags of the link). self.0.request sends it.",
            "The type is RTM_NEWLINK. Flags of the message: NLM_F_CREATE makes it, and \
             NLM_F_EXCL refuses what is there. Flags of the link: IFF_UP. Attributes: \
             IFLA_IFNAME (a text), IFLA_ADDRESS, IFLA_GROUP (a u32 in the machine's byte order).",
            "What kind of link it is, is an attribute in an attribute: in IFLA_LINKINFO, which \
             `nest` makes, the text IFLA_INFO_KIND says bridge.",
        ],
        mutants: &[
            Mutant {
                what: "the bridge is down",
                from: "link(0, libc::IFF_UP)",
                to: "link(0, 0)",
                says: "it is down, and forwards nothing",
            },
            Mutant {
                what: "somebody else's link is changed",
                from: "NLM_F_CREATE | NLM_F_EXCL",
                to: "NLM_F_CREATE",
                says: "a second one of that name is refused (EEXIST)",
            },
            Mutant {
                what: "the bridge takes whatever hardware address",
                from: ".attr(libc::IFLA_ADDRESS, &mac)",
                to: "",
                says: "its hardware address is 02:42:0a:63:00:01",
            },
        ],
    },
    Exercise {
        id: "4.2",
        title: "A cable into another namespace",
        minutes: 20,
        start: Start::Blank,
        task: "A veth pair is a cable: two links of which each receives what the other sends, and \
               they may be in two network namespaces. One message makes both: the near end, \
               switched on and plugged into the bridge, and in it the description of the far end, \
               eth0, which is to be born in the namespace of the process `pid`: on the host it \
               never exists, so it can neither leak nor meet the host's own eth0.",
        hints: [
            "Begin with the message of exercise 4.1, with the kind veth. Where the bridge has \
             nothing more, veth has IFLA_INFO_DATA beside the kind.",
            "In IFLA_INFO_DATA there is VETH_INFO_PEER, and in it a whole description of a link: \
             the fixed part (`raw(&link(0, 0))`), then its attributes: name, hardware address, \
             IFLA_NET_NS_PID.",
            "The near end needs IFLA_IFNAME, IFLA_GROUP and IFLA_MASTER, which is the bridge's index. \
             Numbers go in as to_ne_bytes().",
        ],
        mutants: &[
            Mutant {
                what: "the far end is made on the host",
                from: ".attr(libc::IFLA_NET_NS_PID, &pid.as_raw().to_ne_bytes())",
                to: "",
                says: "it is on the host: leaked",
            },
            Mutant {
                what: "the near end is not plugged in",
                from: ".attr(libc::IFLA_MASTER, &bridge.to_ne_bytes())",
                to: "",
                says: "the near end is plugged into the bridge",
            },
            Mutant {
                what: "the near end is down",
                from: "link(0, libc::IFF_UP)",
                to: "link(0, 0)",
                says: "the near end is up",
            },
        ],
    },
    Exercise {
        id: "4.3",
        title: "Loopback, address, default route",
        minutes: 10,
        start: Start::Blank,
        task: "The container has a cable now, and still nothing works: not even a packet to \
               127.0.0.1 arrives. Set up what `ip link`, `ip address` and `ip route` would: both \
               links, the address, and a way to everything else, in an order that the kernel takes.",
        hints: [
            "A new network namespace has a loopback link, switched off. find() finds a link by \
             name; set_up, add_address and add_default_route are there.",
            "The kernel takes a gateway only if it has a way to the gateway already: the route \
             comes when the address is there and the link is on.",
            "lo up; the address to eth0; eth0 up; last the route by way of subnet.gateway(). A link \
             that is not there is Errno::ENODEV.",
        ],
        mutants: &[
            Mutant {
                what: "lo left down",
                from: "rt.set_up(lo.index)?;",
                to: "",
                says: "a packet to 127.0.0.1 arrives",
            },
            Mutant {
                what: "no default route",
                from: "rt.add_default_route(subnet.gateway())",
                to: "Ok(())",
                says: "everything else goes to the bridge",
            },
            Mutant {
                what: "the route before eth0 is up",
                from: "rt.set_up(eth0.index)?;",
                to: "",
                says: "lo, eth0 and the route are set up",
            },
        ],
    },
];
