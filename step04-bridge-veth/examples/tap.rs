//! A machine on the bridge that is no container: a TAP device, as QEMU uses it.
//!
//! A virtual machine has network code of its own, and wants bare Ethernet frames. A TAP device is a
//! network card whose cable ends in a file descriptor: what the kernel sends to the card is read
//! there, and what is written there the card receives (Documentation/networking/tuntap.rst). This
//! program plays the machine. It answers ARP (RFC 826) and ping (RFC 792), and nothing else.
//!
//! As root, in three terminals:
//!
//! ```text
//! cargo run -p step04-bridge-veth -- /bin/sh       # the first container makes the bridge
//! cargo run -p step04-bridge-veth --example tap    # says which frames it answers
//! ping -c 10 10.77.0.200                           # in the container
//! ```
//!
//! The bridge switches these frames by their hardware addresses: `bridge fdb show br workshop0`
//! shows behind which port it has seen which. The host's own IP code never gets the pings, so
//! nothing is routed (ip_forward may be 0) and nothing translated (NAT). In `grep ^Ip:
//! /proc/net/snmp` on the host, InReceives and ForwDatagrams stay as they were, where ten pings
//! that are routed to the outside and back add 20 to each. The host's other traffic counts too:
//! look where there is none. (The question before the first ping, "who has 10.77.0.200?", is a
//! broadcast: the host's ARP code gets it as well, and has no answer.)
//!
//! One catch: with the module br_netfilter and the sysctl `net.bridge.bridge-nf-call-iptables` at 1,
//! its default, the bridge shows IPv4 packets to netfilter's IP hooks (prerouting, forward,
//! postrouting) on their way. Then a firewall can drop or change what is only switched, and the
//! counters still do not move. Without the module there is no /proc/sys/net/bridge.
//!
//! The bridge goes with its last container, and leaves the machine unplugged: start it anew then.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::net::Ipv4Addr;
use std::os::fd::AsRawFd as _;
use std::process::ExitCode;

use anyhow::{Context as _, Result, ensure};
use clap::Parser;
use nix::errno::Errno;
use step04_bridge_veth::{Rtnetlink, explain};

const ETHERNET: usize = 14; // to, from, what: 6 + 6 + 2 bytes
const IPV4: usize = 20;

/// Play a virtual machine on the bridge that answers ARP and ping
#[derive(Parser)]
struct Cli {
    /// The bridge to plug the machine into; a container must have made it
    #[arg(long, value_name = "NAME", default_value = "workshop0")]
    bridge: String,
    /// The TAP device to make
    #[arg(long, value_name = "NAME", default_value = "tap-vm")]
    tap: String,
    /// The machine's address, which no container must have
    #[arg(long, value_name = "ADDR", default_value = "10.77.0.200")]
    ip: Ipv4Addr,
    /// Tell of the frames that are ignored, too
    #[arg(long, short)]
    verbose: bool,
}

fn main() -> ExitCode {
    step01_namespaces::exit(run(&step01_namespaces::parse()))
}

fn run(Cli { bridge, tap: name, ip, verbose }: &Cli) -> Result<u8> {
    // The kernel would fill in a number for %d, and a name of its own for none.
    ensure!((1..=15).contains(&name.len()) && !name.contains('%'), "{name:?} is no link's name");
    let failed =
        |e| explain("bridge", &format!("cannot plug {name} into {bridge} (is it a bridge?)"), &e);
    let mut rt = Rtnetlink::open().map_err(failed)?;
    let link = rt.find(bridge).map_err(failed)?.with_context(|| {
        format!(
            "there is no bridge {bridge}: start a container on it first, cargo run -p \
             step04-bridge-veth -- --bridge {bridge}"
        )
    })?;
    let own = rt.addresses(link.index).map_err(failed)?;
    ensure!(own.iter().all(|(own, _)| own != ip), "{ip} is the bridge's own address");
    let taken = rt.find(name).map_err(failed)?.is_some();
    ensure!(!taken, "there is a link {name} already; choose another name with --tap");

    let mut tap = open_tap(name)?;
    let index = rt.find(name).map_err(failed)?.context("the TAP device vanished")?.index;
    // In this order: up but not plugged in, the frames would be for the host's own network code.
    rt.set_master(index, link.index).map_err(failed)?;
    rt.set_up(index).map_err(failed)?;

    // The machine's card. The TAP device, the switch's side of the cable, has another address.
    let [a, b, c, d] = ip.octets();
    let mac = [0x02, 0x42, a, b, c, d];
    println!("{ip} is {} behind {name} on {bridge}; end it with Ctrl-C", hex(&mac));
    // Ctrl-C needs no handler: the kernel removes the device with its last file descriptor.
    let mut buffer = vec![0; 64 * 1024];
    loop {
        // Each read is one frame, and so is each write.
        let len = tap.read(&mut buffer).with_context(|| format!("cannot read from {name}"))?;
        if let Some(reply) = answer(&buffer[..len], mac, *ip) {
            tap.write_all(&reply)
                .with_context(|| format!("cannot write to {name}; has someone set it down?"))?;
            println!("{}", describe(&reply));
        } else if *verbose {
            let [to, from, kind] = [0..6, 6..12, 12..14].map(|part| hex(&buffer[part]));
            println!("ignored: {len} bytes of type {kind} from {from} to {to}");
        }
    }
}

/// Makes the TAP device, up to the fd's close.
fn open_tap(name: &str) -> Result<File> {
    let tap = File::options().read(true).write(true).open("/dev/net/tun").context(
        "cannot open /dev/net/tun; run as root, and load the module if it is missing: modprobe tun",
    )?;
    // No packet information: four bytes before each frame that say what its header says, too.
    // Exclusive: not one that somebody has made to stay (TUNSETPERSIST).
    set_interface(&tap, name, libc::IFF_TAP | libc::IFF_NO_PI | libc::IFF_TUN_EXCL).map_err(
        |errno| explain("tun", &format!("cannot make the TAP device {name}"), &errno.into()),
    )?;
    Ok(tap)
}

/// ioctl(2) TUNSETIFF: makes an interface whose cable ends in `tun`.
fn set_interface(tun: &File, name: &str, flags: libc::c_int) -> nix::Result<()> {
    // SAFETY: ifreq is plain numbers, for which all zeros is a valid value.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, byte) in request.ifr_name.iter_mut().zip(name.bytes()) {
        *to = libc::c_char::from_ne_bytes([byte]);
    }
    let [low, high, ..] = flags.to_le_bytes(); // the field has 16 bits; the last one is its sign
    request.ifr_ifru.ifru_flags = libc::c_short::from_le_bytes([low, high]);
    // SAFETY: request outlives the call, and is what TUNSETIFF reads and writes.
    let result = unsafe { libc::ioctl(tun.as_raw_fd(), libc::TUNSETIFF, &raw mut request) };
    Errno::result(result).map(drop)
}

/// What the machine `mac`, `ip` sends back to whoever sent `frame`, if it is a question for it.
// ANCHOR: answer
fn answer(frame: &[u8], mac: [u8; 6], ip: Ipv4Addr) -> Option<Vec<u8>> {
    // A switch that does not know yet where an address is sends the frame everywhere.
    match (frame.get(..6)?, frame.get(12..ETHERNET)?) {
        (to, [0x08, 0x06]) if to == mac || to == [0xff; 6] => answer_arp(frame, mac, ip),
        (to, [0x08, 0x00]) if to == mac => answer_ping(frame, mac, ip),
        _ => None,
    }
}
// ANCHOR_END: answer

/// ARP: "who has this IP address? Tell me your hardware address."
fn answer_arp(frame: &[u8], mac: [u8; 6], ip: Ipv4Addr) -> Option<Vec<u8>> {
    let arp = frame.get(ETHERNET..ETHERNET + 28)?; // perhaps padded: Ethernet's minimum is 60
    let (kind, asker) = (&arp[..6], &arp[8..18]); // asker: hardware and IP address
    // Ethernet (1), IPv4 (0x0800), addresses of 6 and of 4 bytes; a question (1).
    let for_us = arp[..8] == [0, 1, 8, 0, 6, 4, 0, 1] && arp[24..] == ip.octets();
    let us = [&mac[..], &ip.octets()].concat();
    for_us.then(|| [&asker[..6], &mac, &[8, 6], kind, &[0, 2], &us, asker].concat())
}

/// ICMP echo: the same data back. Packets with options and parts of packets get no answer.
fn answer_ping(frame: &[u8], mac: [u8; 6], ip: Ipv4Addr) -> Option<Vec<u8>> {
    let header = frame.get(ETHERNET..ETHERNET + IPV4)?;
    // Version 4, 5 words of header; no fragment, be it allowed (0) or not (0x40); ICMP (1).
    let &[0x45, _, high, low, _, _, 0 | 0x40, 0, _, 1, ..] = header else { return None };
    let len = usize::from(u16::from_be_bytes([high, low]));
    let icmp = frame.get(ETHERNET + IPV4..ETHERNET + len)?; // without the padding
    let for_us = header[16..] == ip.octets() && icmp.len() >= 8 && icmp[..2] == [8, 0]; // echo (8)
    if !for_us || checksum(header) != 0 || checksum(icmp) != 0 {
        return None;
    }
    let (from, to) = (&header[12..16], &header[16..]);
    let mut reply =
        [&frame[6..12], &mac, &[8, 0], &header[..8], &[64, 1, 0, 0], to, from, icmp].concat();
    set_checksum(&mut reply[ETHERNET..ETHERNET + IPV4], 10); // not as it was: the TTL is 64 now
    reply[ETHERNET + IPV4] = 0; // echo reply
    set_checksum(&mut reply[ETHERNET + IPV4..], 2);
    Some(reply)
}

fn set_checksum(bytes: &mut [u8], at: usize) {
    bytes[at..at + 2].fill(0);
    let sum = checksum(bytes);
    bytes[at..at + 2].copy_from_slice(&sum.to_be_bytes());
}

/// RFC 1071: the complement of the ones' complement sum of all 16-bit words, where what overflows
/// on the left comes back on the right. Of bytes with the right checksum in them it is 0.
fn checksum(bytes: &[u8]) -> u16 {
    !bytes.chunks(2).fold(0u16, |sum, word| {
        let word = u16::from_be_bytes([word[0], *word.get(1).unwrap_or(&0)]);
        let (sum, carry) = sum.overflowing_add(word);
        sum + u16::from(carry)
    })
}

/// Whom the machine answered, and what.
fn describe(reply: &[u8]) -> String {
    let ip = |at: usize| Ipv4Addr::new(reply[at], reply[at + 1], reply[at + 2], reply[at + 3]);
    let (asker, number) = (hex(&reply[..6]), u16::from_be_bytes([reply[40], reply[41]]));
    match reply[13] {
        0x06 => format!("{asker} {} asked by ARP who has {}", ip(38), ip(28)),
        _ => format!("{asker} {} sent ping {number} of {} bytes", ip(30), reply.len()),
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect::<Vec<_>>().join(":")
}

#[cfg(test)]
mod tests {
    use super::{ETHERNET, IPV4, Ipv4Addr, answer, checksum, set_checksum};

    const MAC: [u8; 6] = [0x02, 0x42, 10, 77, 0, 200];
    const IP: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 200);
    // What Linux and tcpdump take for right. The ping comes from behind a router: its TTL is 63.
    const ARP: &str = "ffffffffffff02420a4d000208060001080006040001\
        02420a4d00020a4d00020000000000000a4d00c8";
    const ARP_REPLY: &str = "02420a4d000202420a4d00c808060001080006040002\
        02420a4d00c80a4d00c802420a4d00020a4d0002";
    const PING: &str = "02420a4d00c802420a4d000208004500001fd23940003f01\
        54410a4d00020a4d00c808006e8200130001686921";
    const PONG: &str = "02420a4d000202420a4d00c808004500001fd23940004001\
        53410a4d00c80a4d00020000768200130001686921";

    fn bytes(s: &str) -> Vec<u8> {
        (0..s.len()).step_by(2).map(|i| u8::from_str_radix(&s[i..i + 2], 16).unwrap()).collect()
    }

    #[test]
    fn questions_are_answered_without_their_padding() {
        assert_eq!(!checksum(&bytes("0001f203f4f5f6f7")), 0xddf2); // the example of RFC 1071
        for (question, reply) in [(ARP, ARP_REPLY), (PING, PONG)] {
            let padded = [bytes(question), vec![0xaa; 18]].concat();
            assert_eq!(answer(&padded, MAC, IP), Some(bytes(reply)));
            assert_eq!(answer(&padded, MAC, Ipv4Addr::new(10, 77, 0, 201)), None);
            assert_eq!(answer(&bytes(reply), MAC, IP), None);
        }
    }

    #[test]
    fn damaged_frames_fragments_and_options_are_ignored() {
        for whole in [bytes(ARP), bytes(PING)] {
            assert!((0..whole.len()).all(|len| answer(&whole[..len], MAC, IP).is_none()));
        }
        for bit in (0..45 * 8).filter(|bit| !(6..12).contains(&(bit / 8))) {
            let mut frame = bytes(PING);
            frame[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(answer(&frame, MAC, IP), None, "bit {bit}");
        }
        assert_eq!(answer(&[&[2; 6], &bytes(ARP)[6..]].concat(), MAC, IP), None); // for another
        let lengths = [(3, 19), (3, 20), (3, 27)];
        let kinds = [(0, 0x46), (6, 0x20), (6, 1), (7, 1), (9, 17), (20, 0), (20, 13), (21, 1)];
        for (at, to) in lengths.into_iter().chain(kinds) {
            let mut frame = bytes(PING);
            frame[ETHERNET + at] = to;
            set_checksum(&mut frame[ETHERNET..ETHERNET + IPV4], 10);
            set_checksum(&mut frame[ETHERNET + IPV4..], 2);
            assert_eq!(answer(&frame, MAC, IP), None, "{to:#x} at {at}");
        }
    }
}
