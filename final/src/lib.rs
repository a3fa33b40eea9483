//! A container runtime, composed of the five steps.
//!
//! `final run` turns flags and an image into an OCI bundle: a directory with a `config.json`
//! (OCI runtime-spec). Everything below that line reads only the bundle. The map:
//!
//! | file | what it holds |
//! |---|---|
//! | [`cli`] | the command line |
//! | [`verbs`] | what each verb does, one file each |
//! | [`spec`] | flags + image -> config.json |
//! | [`bundle`] | config.json -> what the steps need to know |
//! | [`monitor`] | the small process that each running container has; [`client`]: who talks to it |
//! | [`create`] | the life cycle, the monitor's side, in order |
//! | [`init`] | the life cycle, the child's side, in order |
//! | [`pid1`] | `--init`: a first process that waits for orphans and passes on signals |
//! | [`process`] | how a process becomes one of the container's: for `init` and for `exec` |
//! | [`join`] | namespaces of others: for `exec`, and to share some |
//! | [`security`] | capabilities, seccomp, rlimits, keyring |
//! | [`remap`] | `--userns remap`: whose root it is on the host |
//! | [`user`] | who it is: users and groups of the container |
//! | [`sysctl`] | settings that a namespace has for itself |
//! | [`terminal`] | the container's terminal and the user's |
//! | [`format`] | `--format`, tables |
//! | [`status`], [`mounts`] | what is shown of a container |
//! | [`etc`] | /etc/hosts, /etc/hostname, /etc/resolv.conf |
//! | [`network`] | the container's place on a bridge, its published ports |
//! | [`image`] | the image `host`, unpacked |
//! | [`store`] | what is on disk about each container |

pub mod bundle;
pub mod cli;
pub mod client;
pub mod copy;
pub mod create;
pub mod etc;
pub mod format;
pub mod image;
pub mod init;
pub mod join;
pub mod monitor;
pub mod mounts;
pub mod network;
pub mod pid1;
pub mod process;
pub mod remap;
pub mod security;
pub mod spec;
pub mod status;
pub mod store;
pub mod sysctl;
pub mod terminal;
pub mod user;
pub mod verbs;
