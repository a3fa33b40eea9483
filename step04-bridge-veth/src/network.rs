//! The container's place on the bridge.

use std::net::Ipv4Addr;

use anyhow::{Context as _, Result, bail, ensure};
use nix::errno::Errno;
use nix::unistd::Pid;
use step01_namespaces::{Namespace, Namespaces, see, warn};

use crate::{Args, Cidr, Lease, Pool, Rtnetlink, explain, netlink};

/// The link group by which we know our links ("cw"): nobody else's is changed or deleted.
/// The kernel sets it together with the making of the link, so there is no moment without it.
pub const GROUP: u32 = 0x6377;

/// A bridge and an address on it. Dropping it gives the address back, and removes the bridge with
/// the last one.
#[derive(Debug)]
pub struct Network {
    bridge: String,
    index: u32,
    subnet: Cidr,
    /// `None` only while it is dropped.
    lease: Option<Lease>,
    address: Ipv4Addr,
}

impl Network {
    /// The parent's side: takes an address, and makes the bridge if it is not there.
    // ANCHOR: join
    pub fn join(args: &Args, namespaces: Namespaces) -> Result<Self> {
        ensure!(
            namespaces.contains(Namespace::Net),
            "a container that shares the host's network has no place on a bridge; leave out \
             --share net"
        );
        ensure!(
            !namespaces.contains(Namespace::User),
            "cannot plug a container of a plain user into the host's bridge: that takes root; \
             run as root, or in the lab: cargo workshop lab"
        );
        let pool = Pool::lock(&args.bridge)?;
        let join = || {
            let index = find_or_create_bridge(&args.bridge, args.subnet)?;
            let lease = pool.take(args.subnet, args.ip)?;
            let (bridge, address) = (args.bridge.clone(), lease.address());
            Ok(Self { bridge, index, subnet: args.subnet, lease: Some(lease), address })
        };
        let joined = join();
        if joined.is_err() {
            let _ = pool.remove_if_unused(); // the first error is the one that matters
        }
        joined
    }
    // ANCHOR_END: join

    /// The parent's side, while the child waits: a cable from the bridge into its network
    /// namespace.
    ///
    /// Nobody has to remove it: with a network namespace the kernel deletes the interfaces in it,
    /// and with one end of a veth pair the other. The namespace ends with its last process.
    // ANCHOR: plug
    pub fn plug(&self, pid: Pid) -> Result<()> {
        // Different for each bridge there ever was, and for each address on it.
        let host = self.address.to_bits() & !self.subnet.mask();
        let name = format!("v{:x}-{host:x}", self.index);
        let plug = || {
            let mut rt = Rtnetlink::open()?;
            let create = |rt: &mut Rtnetlink| {
                rt.create_veth(&name, GROUP, self.index, pid, mac_of(self.address))
            };
            match create(&mut rt) {
                // The kernel takes its time with a namespace that has ended. Until then the last
                // owner of our address is still plugged in, and would get what is meant for us.
                Err(error) if error.errno == Errno::EEXIST => {
                    delete_ours(&mut rt, &name)?;
                    create(&mut rt)
                }
                result => result,
            }
        };
        plug().map_err(|e| explain("veth", &format!("cannot make the veth pair {name}"), &e))
    }
    // ANCHOR_END: plug

    /// The child's side: loopback, address, default route.
    pub fn configure(&self) -> Result<()> {
        configure(self.address, self.subnet)
            .map_err(|e| explain("veth", "cannot configure eth0 in the container", &e))
    }

    /// The bridge's name.
    #[must_use]
    pub fn bridge(&self) -> &str {
        &self.bridge
    }

    /// The container's address.
    #[must_use]
    pub fn address(&self) -> Ipv4Addr {
        self.address
    }

    /// The bridge's subnet.
    #[must_use]
    pub fn subnet(&self) -> Cidr {
        self.subnet
    }

    /// The bridge's own address, and the container's way out.
    #[must_use]
    pub fn gateway(&self) -> Ipv4Addr {
        self.subnet.gateway()
    }

    fn leave(&mut self) -> Result<()> {
        let pool = Pool::lock(&self.bridge)?;
        drop(self.lease.take());
        pool.remove_if_unused()
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        if let Err(error) = self.leave() {
            warn(&format!("cannot clean up the network: {error:#}"));
        }
    }
}

/// The child's side: the loopback interface, the address on eth0, and the way out.
// ANCHOR: configure
pub fn configure(address: Ipv4Addr, subnet: Cidr) -> netlink::Result<()> {
    // ANCHOR: ex-4.3
    let mut rt = Rtnetlink::open()?;
    let lo = rt.find("lo")?.ok_or(Errno::ENODEV)?;
    let eth0 = rt.find("eth0")?.ok_or(Errno::ENODEV)?;
    rt.set_up(lo.index)?;
    rt.add_address(eth0.index, address, subnet)?;
    rt.set_up(eth0.index)?;
    // Last: the kernel takes a gateway only if it has a way to it already.
    rt.add_default_route(subnet.gateway())
    // ANCHOR_END: ex-4.3
}
// ANCHOR_END: configure

/// The child's side of a container without a bridge: only the loopback interface works.
pub fn loopback_up() -> Result<()> {
    let up = || {
        let mut rt = Rtnetlink::open()?;
        let lo = rt.find("lo")?.ok_or(Errno::ENODEV)?;
        rt.set_up(lo.index)
    };
    up().map_err(|e| explain("veth", "cannot bring up lo in the container", &e))
}

fn find_or_create_bridge(name: &str, subnet: Cidr) -> Result<u32> {
    let failed = |e| explain("bridge", &format!("cannot make the bridge {name}"), &e);
    let mut rt = Rtnetlink::open().map_err(failed)?;
    let gateway = (subnet.gateway(), subnet.prefix());
    if let Some(link) = rt.find(name).map_err(failed)? {
        let addresses = rt.addresses(link.index).map_err(failed)?;
        ensure!(
            link.group == GROUP,
            "there is a link {name} that is not ours; choose another name with --bridge"
        );
        match addresses.first() {
            Some(&found) if found == gateway => return Ok(link.index),
            Some((address, prefix)) => bail!(
                "the bridge {name} has the address {address}/{prefix}, so its subnet is not \
                 {subnet}; choose its own with --subnet, or another bridge with --bridge"
            ),
            // Whoever made it was killed before it had an address: make it anew.
            None => rt.delete(name).map_err(failed)?,
        }
    }
    if let Some(route) = rt.overlapping_route(subnet).map_err(failed)? {
        bail!(
            "the subnet {subnet} overlaps the route {route}; choose another with --subnet{}",
            see("subnet")
        );
    }
    create_bridge(&mut rt, name, subnet).inspect_err(|_| {
        let _ = delete_ours(&mut rt, name);
    })
}

/// Deletes the link `name` if it is ours; what else has that name stays.
pub(crate) fn delete_ours(rt: &mut Rtnetlink, name: &str) -> netlink::Result<()> {
    match rt.find(name)? {
        Some(link) if link.group == GROUP => rt.delete(name),
        _ => Ok(()),
    }
}

fn create_bridge(rt: &mut Rtnetlink, name: &str, subnet: Cidr) -> Result<u32> {
    let failed = |e| explain("bridge", &format!("cannot make the bridge {name}"), &e);
    // Left to itself a bridge takes the lowest address of its ports, so it would change as
    // containers come and go, and the others' neighbour tables would be wrong for a while.
    rt.create_bridge(name, mac_of(subnet.gateway()), GROUP).map_err(failed)?;
    ignore_routers(name)?;
    let link = rt.find(name).map_err(failed)?.context("the bridge vanished")?;
    rt.add_address(link.index, subnet.gateway(), subnet).map_err(failed)?;
    Ok(link.index)
}

/// A container may send what it likes to its bridge, also that it is an IPv6 router (RFC 4861), and the
/// host would send it what is for others (CVE-2020-13401).
fn ignore_routers(bridge: &str) -> Result<()> {
    let path = format!("/proc/sys/net/ipv6/conf/{bridge}/accept_ra");
    match std::fs::write(&path, "0") {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()), // no IPv6
        result => result.with_context(|| format!("cannot write 0 to {path}")),
    }
}

/// A locally administered hardware address (its second bit is set) with the IPv4 address in it:
/// when an address is given away again, what others have learned of it stays right.
#[must_use]
pub fn mac_of(address: Ipv4Addr) -> [u8; 6] {
    let [a, b, c, d] = address.octets();
    [0x02, 0x42, a, b, c, d]
}
