//! Step 5: IP forwarding and NAT.
//!
//! Nobody outside knows the way to 10.77.0.2. So the host forwards the container's packets
//! under its own address (masquerade), and what comes to a published port of the host it
//! sends on to the container (DNAT). The kernel's nf_tables do both, by rules that we write.
//!
//! The map of this crate:
//!
//! | file | what it holds |
//! |---|---|
//! | [`args`](Args) | `--publish` |
//! | [`nat`](Nat) | install, undo, clean up |
//! | [`ruleset`] | our table: which chains, which rules |
//! | [`nftables`] | the messages and expressions that rules are made of |
//! | [`forwarding`] | the switch in /proc/sys, and other people's firewalls |

mod args;
pub mod forwarding;
mod nat;
pub mod nftables;
pub mod ruleset;

pub use args::{Args, Protocol, Publish};
pub use nat::{Nat, stale_rules, sweep};
