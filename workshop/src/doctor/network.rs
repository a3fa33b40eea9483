//! Links and routes.

use std::fs::{File, OpenOptions};
use std::net::Ipv4Addr;
use std::os::fd::AsRawFd as _;

use anyhow::{Context as _, Result};
use nix::errno::Errno;
use nix::sched::CloneFlags;

use super::attempt::{Refused, Seen, in_namespaces};
use super::machine::{PRIVILEGED, outer_container};
use super::{Finding, hint, stops, stops_as_root};
use crate::wire::Wire;

/// The default subnet of step 4, and its bridge.
const SUBNET: (Ipv4Addr, u8) = (Ipv4Addr::new(10, 77, 0, 0), 24);
const BRIDGE: &str = "workshop0";

fn in_network(attempt: impl FnOnce() -> Result<()>) -> Seen {
    in_namespaces(CloneFlags::CLONE_NEWNET, || attempt().map(|()| "can be made".into()))
}

pub fn veth() -> Seen {
    in_network(|| {
        let here = File::open("/proc/self/ns/net")?;
        Wire::open()?.add_veth("one", "other", here.as_raw_fd()).context("cannot make a veth pair")
    })
}

pub fn bridge() -> Seen {
    in_network(|| Wire::open()?.add_bridge("bridge").context("cannot make a bridge"))
}

pub fn explain_veth(refused: &Refused) -> Finding {
    explain_link(refused, "veth")
}

pub fn explain_bridge(refused: &Refused) -> Finding {
    explain_link(refused, "bridge")
}

fn explain_link(refused: &Refused, module: &str) -> Finding {
    // Of the netlink crate's words only the kernel's are for people.
    let cause = format!("no {module} can be made: {}", refused.errno);
    match refused.errno {
        Errno::EOPNOTSUPP => stops(cause, super::firewall::load_module(module)),
        _ if outer_container().is_some() => stops(cause, PRIVILEGED),
        _ => stops(cause, "leave the sandbox that forbids it"),
    }
}

nix::ioctl_write_ptr_bad!(set_interface, libc::TUNSETIFF, libc::ifreq);

pub fn tap() -> Seen {
    in_network(|| {
        let tun = OpenOptions::new().read(true).write(true).open("/dev/net/tun");
        let tun = tun.context("cannot open /dev/net/tun")?;
        // SAFETY: ifreq is plain numbers and pointers, for which all zeros is a valid value.
        let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
        request.ifr_ifru.ifru_flags = i16::try_from(libc::IFF_TAP | libc::IFF_NO_PI)?;
        // SAFETY: TUNSETIFF reads and writes an ifreq, which this is; its empty name lets the kernel choose.
        unsafe { set_interface(tun.as_raw_fd(), &raw const request) }
            .context("cannot make a TAP device")?;
        Ok(())
    })
}

pub fn explain_tap(refused: &Refused) -> Finding {
    let fix = match refused.errno {
        Errno::EACCES => "run the example as root of the machine, not only of the lab".to_owned(),
        Errno::ENOENT | Errno::ENODEV => super::firewall::load_module("tun"),
        _ if outer_container().is_some() => {
            "start the outer container with --device /dev/net/tun".into()
        }
        _ => "run the example as root".into(),
    };
    hint(refused.text.clone(), fix)
}

pub fn subnet() -> Seen {
    let routes = Wire::open().and_then(|wire| wire.routes()).context("cannot list the routes")?;
    let (network, prefix) = SUBNET;
    let clash = routes.iter().find(|(to, length, link)| {
        let shift = 32 - u32::from(prefix.min(*length));
        let mask = u32::MAX.checked_shl(shift).unwrap_or(0);
        link != BRIDGE && *length > 0 && (network.to_bits() ^ to.to_bits()) & mask == 0
    });
    match clash {
        Some((to, length, link)) => {
            Err(Refused::because(format!("the route {to}/{length} on {link} shares addresses")))
        }
        None => Ok(format!("no route shares an address with {network}/{prefix}")),
    }
}

pub fn explain_subnet(refused: &Refused) -> Finding {
    let cause = format!("{} with the default subnet 10.77.0.0/24: a LAN, a VPN", refused.text);
    stops_as_root(
        cause,
        "give the programs --bridge workshop1 --subnet 10.78.0.0/24, or another that is free",
    )
}
