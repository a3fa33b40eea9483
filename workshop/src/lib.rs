//! The lab: a throw-away "host" in which learners and tests can break nothing.
//!
//! A lab is a few new namespaces with a small internet beside it. In it a plain user is root;
//! links, firewall rules, mounts and `ip_forward` belong to the lab alone, and when its first
//! process ends, all of it is gone. Only cgroups are the machine's own.
//!
//! This crate depends on no step: it reads the kernel through other people's netlink code, so
//! that it is an independent witness of what the steps did.
//!
//! | file | what it holds |
//! |---|---|
//! | [`lab`] | the namespaces of a lab, and who one is in it |
//! | [`internet`] | 198.51.100.0/24: a server that says who asked, and a second host |
//! | [`wire`] | links, addresses and routes by netlink |
//! | [`snapshot`] | the state of the lab's host, to be compared before and after |
//! | [`suite`] | the runner of our tests: each in a lab of its own |
//! | [`matrix`] | all suites, on two kernels, as root and as a plain user |
//! | [`probe`] | what tests run inside containers |
//! | [`pty`] | a terminal for tests to type at |

pub mod internet;
pub mod lab;
pub mod matrix;
pub mod probe;
pub mod pty;
pub mod snapshot;
pub mod suite;
pub mod wire;
