//! Six faults of the network.

use super::{Drill, PLAIN};

pub(super) static DRILLS: &[Drill] = &[
    Drill {
        name: "no-masquerade",
        title: "The internet does not answer",
        ticket: r#"
            From a developer: "web can be reached, but it cannot fetch anything: `final exec web
            /probe @get 198.51.100.1:80` hangs, then times out. On the host, `probe @get
            198.51.100.1:80` works.""#,
        needs: &["nft"],
        fault: r#"
handle=$(nft -a list chain ip workshop0 postrouting |
    sed -n 's/.*oifname != .* masquerade # handle //p')
nft delete rule ip workshop0 postrouting handle "$handle""#,
        symptom: "gets_out",
        only: r#"
answer=$(probe @get 198.51.100.1:80 /tcp/198.51.100.10/8080)
case $answer in *'hello 198.51.100.2'*) ;; *)
    echo "198.51.100.2 asked the published port, and the container was told of somebody else: $answer"
    exit 1 ;;
esac"#,
        touches: &["nft ip workshop0 postrouting:"],
        hints: [
            r"How far does the packet come? `ip route` in the container (nsenter -t $(pid web) -n) and
            on the host are right, and ip_forward is 1. So it leaves by uplink.",
            r"With which source address does it leave? Nobody on the internet knows a way back to
            10.77.0.2. (`tcpdump -ni uplink` shows it, if you have that.)",
            r"`nft list table ip workshop0`: which rule there changes source addresses of what leaves
            by another link than workshop0?",
        ],
        answer: r"
            The table has no rule any more that masquerades what leaves the bridge for the world.
            The packets go out with the source 10.77.0.2, and the internet has no route to that. The
            rule says both where from (the subnet) and where to (not the bridge): masquerading
            everything would also hide from web who its clients are. It belongs into the bridge's
            own table, which the runtime removes with the last container.",
        repair: "nft add rule ip workshop0 postrouting ip saddr 10.77.0.0/24 oifname != workshop0 masquerade",
        wrong: &[
            (
                "nft add rule ip workshop0 postrouting masquerade",
                "the container was told of somebody else",
            ),
            (
                "nft add table ip nat
nft add chain ip nat postrouting '{ type nat hook postrouting priority srcnat; }'
nft add rule ip nat postrouting oifname uplink masquerade",
                "+ nft ip nat",
            ),
        ],
        ..PLAIN
    },
    Drill {
        name: "ip-forward-off",
        title: "Everything stays on the host",
        ticket: r#"
            From a developer: "Since this morning, web cannot fetch http://198.51.100.1/ (`final
            exec web /probe @get 198.51.100.1:80`). Nobody changed a thing; only the security team
            has hardened some settings.""#,
        fault: "echo 0 >/proc/sys/net/ipv4/ip_forward",
        symptom: "gets_out",
        hints: [
            r"web reaches 10.77.0.1, which is this host, and this host reaches the internet. What
            makes a host pass on packets that are not its own?",
            r"That is a setting of the kernel, for each network namespace; `grep .
            /proc/sys/net/ipv4/conf/*/forwarding` shows it for each link.",
            "/proc/sys/net/ipv4/ip_forward is the switch for all of them.",
        ],
        answer: r"
            ip_forward is 0: the host is a host, and no router. It drops packets that arrive for
            others, without a word to the sender. Switching it on for single links
            (conf/LINK/forwarding) works for those two, and fails again with the next bridge: the
            one switch was switched off, and has to be on.",
        repair: "echo 1 >/proc/sys/net/ipv4/ip_forward",
        wrong: &[
            (
                "echo 1 >/proc/sys/net/ipv4/conf/workshop0/forwarding
echo 1 >/proc/sys/net/ipv4/conf/uplink/forwarding",
                "+ setting /proc/sys/net/ipv4/ip_forward = 0",
            ),
            (
                r#"final rm -f web
final run --rm --name web -p 8080:80 -v "$PROBE:/probe:ro" host \
    sh -c '/probe @serve 0.0.0.0:80 & wait' >/dev/null &
until final exec web true 2>/dev/null; do sleep 0.1; done"#,
                "ended or started anew",
            ),
        ],
        ..PLAIN
    },
    Drill {
        name: "wrong-gateway",
        title: "No route to host",
        ticket: r#"
            From a developer: "web does not get out: `final exec web /probe @get 198.51.100.1:80`
            says `No route to host`. But I do reach web from this host: `probe @get 10.77.0.2:80`. I
            only tidied up its network settings.""#,
        needs: &["ip"],
        fault: r#"nsenter -t "$(pid web)" -n ip route replace default via 10.77.0.254"#,
        symptom: "gets_out",
        hints: [
            r"`No route to host` from a host that has a route means: the next hop does not answer ARP.
            Look at web's own network: `nsenter -t $(pid web) -n ip route`, and `... ip neigh`.",
            r"Who has the address that its default route goes to? `ip address show workshop0` on the
            host.",
            "The gateway of a container is the bridge's address, 10.77.0.1.",
        ],
        answer: r"
            The container's default route goes via 10.77.0.254, and nobody has that address; ARP
            gets no answer, and the kernel gives up after three seconds (EHOSTUNREACH). Repair the
            route, not the world around it: to give the bridge that address too would work, until
            somebody is given it by right. web is not privileged to change its routes. The host is,
            in web's network namespace.",
        repair: "nsenter -t $(pid web) -n ip route replace default via 10.77.0.1",
        wrong: &[(
            "ip address add 10.77.0.254/24 dev workshop0",
            "+ host: address 10.77.0.254/24 on workshop0",
        )],
        ..PLAIN
    },
    Drill {
        name: "forward-drop",
        title: "A firewall has been reloaded",
        ticket: r#"
            From the customers: "Nobody gets through to 198.51.100.10:8080 since last night."

            From a developer: "And web gets nothing from 198.51.100.1:80."

            From the security team: "We have reloaded the company's firewall, table inet corp. It
            has to stay: office must not get to the internet.""#,
        needs: &["nft"],
        up: r#"
serve --name web -p 8080:80 --ip 10.77.0.2
serve --name office --bridge office0 --subnet 10.88.0.0/24
joinable office
nft -f - <<'END'
table inet corp {
    chain forward {
        type filter hook forward priority filter + 10; policy drop;
        ct state established,related accept
        iifname "workshop0" accept
        oifname "workshop0" accept
    }
}
END"#,
        fault: "
nft flush chain inet corp forward
nft add rule inet corp forward ct state established,related accept",
        symptom: "gets_out && is_reached 198.51.100.1:80 /tcp/198.51.100.10/8080",
        only: "
case $(final exec office /probe @get 198.51.100.1:80) in *198.51.100.10*)
    echo 'office gets to the internet now: the firewall lets through what it is there to stop'
    exit 1 ;;
esac",
        touches: &["nft inet corp forward:"],
        hints: [
            r"Several chains may hang on the same hook. A packet has to be accepted by every one of
            them: `accept` ends one chain, `drop` ends it all.",
            r"`nft list ruleset | grep -B1 -A6 'hook forward'`: which of the chains has nothing to say
            about workshop0, and which policy?",
            r"Two rules for table inet corp, chain forward: what comes from workshop0, and what goes
            to it. (What may go to it our own table has already decided.)",
        ],
        answer: r"
            The reload has lost the exceptions for our bridge, and the chain's policy is drop. Our
            own table accepts the packets, but in nf_tables a packet must pass all chains of a hook.
            Docker's firewall does this to other people's bridges, too. So the exception goes into
            the chain that drops, and names our bridge. Policy accept, or the table's removal, would
            help as well, and let out the office.",
        repair: "nft add rule inet corp forward iifname workshop0 accept
nft add rule inet corp forward oifname workshop0 accept",
        wrong: &[
            ("nft delete table inet corp", "- nft inet corp"),
            ("nft add rule inet corp forward accept", "office gets to the internet now"),
            (
                "nft add chain inet corp forward '{ policy accept; }'",
                "- nft inet corp forward: type filter hook forward",
            ),
        ],
        ..PLAIN
    },
    Drill {
        name: "veth-down",
        title: "Silence on the line",
        ticket: r#"
            From a developer: "web is running, `final ps` says, and a `final exec` works. But there
            is no network in it at all: not even this host gets an answer from 10.77.0.2:80.""#,
        needs: &["ip"],
        up: "
ip link add old-lan type bridge
serve --name web -p 8080:80",
        fault: r#"ip link set "$(ls /sys/class/net/workshop0/brif)" down"#,
        symptom: "is_reached 10.77.0.2:80 && gets_out",
        hints: [
            r"Begin at the bottom: are the links up? In web (`nsenter -t $(pid web) -n ip link`) and
            on the host.",
            r"NO-CARRIER on web's eth0 says that its own end is switched on, and the other is not.
            `eth0@if5`: the other end is link number 5 of the host.",
            "The ports of the bridge: `ip link show master workshop0`.",
        ],
        answer: r"
            A veth pair is one cable with two ends, and it carries only if both are up. The host's
            end, the bridge's port, is down. Only that one: old-lan is down, too, and has been
            before; whoever switched it off had a reason.",
        repair: "ip link set $(ls /sys/class/net/workshop0/brif) up",
        wrong: &[(
            "for link in $(ls /sys/class/net); do ip link set $link up; done",
            "- host: link old-lan is down",
        )],
        ..PLAIN
    },
    Drill {
        name: "duplicate-address",
        title: "Connection refused, now and then",
        ticket: r#"
            From the customers: "198.51.100.10:8080 says `Connection refused` today, or nothing at
            all; sometimes it works."

            From a developer: "web is fine, look at it: `final exec web /probe @get 127.0.0.1:80`. I
            have only set up db, which has nothing to do with it.""#,
        needs: &["ip"],
        up: "
serve --name web -p 8080:80 --ip 10.77.0.2
joinable web
background final run --rm --name db --ip 10.77.0.3 host sh -c 'sleep 100000 & wait'
joinable db # the bridge asks its newest port first, so db's answer will win",
        fault: r#"
nsenter -t "$(pid db)" -n ip address add 10.77.0.2/24 dev eth0
ip neigh flush dev workshop0"#,
        symptom: "
for try in 1 2 3 4 5; do
    ip neigh flush dev workshop0 # so that the host asks by ARP again
    is_reached 10.77.0.2:80 || exit 1
done",
        hints: [
            r"Who answers for 10.77.0.2? `ip neigh show dev workshop0` has a MAC address; is it that
            of web's eth0 (`nsenter -t $(pid web) -n ip link show eth0`)?",
            r"Behind which port of the bridge is that MAC address? `bridge fdb show br workshop0`
            tells, or look at the eth0 of every container.",
            "`nsenter -t $(pid db) -n ip address`: an address more than the runtime has given it.",
        ],
        answer: r"
            db has web's address as well as its own. The host asks by ARP who has 10.77.0.2, both
            answer, and one of them wins; where it is db, nobody listens at port 80. So take the
            address away from db, and let the host forget what it has learned. An entry by hand in
            the host's neighbour table would hide it from the host, and from nobody else on the
            bridge.",
        repair: "nsenter -t $(pid db) -n ip address del 10.77.0.2/24 dev eth0
ip neigh flush dev workshop0",
        wrong: &[
            (
                r"mac=$(nsenter -t $(pid web) -n ip -o link show eth0 | sed 's/.*ether \([^ ]*\).*/\1/')
ip neigh replace 10.77.0.2 lladdr $mac dev workshop0 nud permanent",
                "+ db: address 10.77.0.2/24 on eth0",
            ),
            (
                "final rm -f db
while [ $(ls /sys/class/net/workshop0/brif | wc -l) -gt 1 ]; do sleep 0.1; done",
                "- db: process",
            ),
        ],
        ..PLAIN
    },
];
