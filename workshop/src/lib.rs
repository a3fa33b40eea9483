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
//! | [`cli`] | the program: `cargo workshop VERB` |
//! | [`doctor`] | what on a machine stops which step |
//! | [`lab`] | the namespaces of a lab, and who one is in it |
//! | [`internet`] | 198.51.100.0/24: a server that says who asked, and a second host |
//! | [`wire`] | links, addresses and routes by netlink; [`nft`]: the firewall |
//! | [`snapshot`] | the state of the lab's host, to be compared before and after |
//! | [`faults`] | a program of which any system call can be made to fail, or be its last |
//! | [`suite`] | the runner of our tests: each in a lab of its own |
//! | [`matrix`] | all suites, on two kernels, as root and as a plain user |
//! | `by_hand` | the scripts that do the same as the steps, for the same tests |
//! | [`exercises`] | the exercises, the learner's own workspace, and what the kernel thinks of it |
//! | [`verdict`] | for the tests of exercises: verdicts, and processes to try things in |
//! | `text` | text for people at a terminal, and the tools that they have there |
//! | [`probe`] | what tests run inside containers |
//! | [`pty`] | a terminal for tests to type at |
//! | [`book`] | runs what the book shows, and compares |
//! | [`drill`] | labs with one fault, for learners to find and repair |

#![cfg(target_os = "linux")] // elsewhere there is only the program: src/bin/workshop/elsewhere.rs

pub mod book;
mod by_hand;
pub mod cli;
pub mod doctor;
pub mod drill;
pub mod exercises;
pub mod faults;
pub mod ids;
pub mod internet;
pub mod lab;
pub mod matrix;
pub mod monitors;
pub mod nft;
pub mod probe;
pub mod pty;
pub mod snapshot;
pub mod suite;
mod text;
pub mod verdict;
pub mod wire;
