//! Step 4: a bridge and veth pairs.
//!
//! A network namespace begins with nothing but a loopback interface that is down. This crate
//! gives it a cable: a *veth pair*, two interfaces of which each receives what the other sends,
//! one end in the container, the other plugged into a *bridge*, a switch made of software.
//!
//! Only IPv4 is set up; the kernel gives each interface a link-local IPv6 address by itself.
//!
//! The map of this crate:
//!
//! | file | what it holds |
//! |---|---|
//! | [`args`](Args) | `--bridge`, `--subnet`, `--ip` |
//! | [`cidr`](Cidr) | a subnet: 10.77.0.0/24 |
//! | [`network`](Network) | join, plug, configure: the container's place on the bridge |
//! | [`pool`](Pool) | which addresses are taken, and by whom |
//! | [`rtnetlink`](Rtnetlink) | links, addresses and routes |
//! | [`netlink`] | the messages below all that |

mod args;
mod cidr;
pub mod netlink;
mod network;
mod pool;
mod rtnetlink;

pub use args::{Args, parse_link_name};
pub use cidr::Cidr;
pub use network::{GROUP, Network, configure, loopback_up, mac_of};
pub use pool::{Lease, POOLS, Pool};
pub use rtnetlink::{Link, Rtnetlink, explain, read_address, read_overlapping_route};
