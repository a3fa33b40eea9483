//! The eight namespaces of Linux (namespaces(7)).

use std::path::Path;

use anyhow::{Context as _, Result};
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use nix::unistd::sethostname;

use crate::child::explain_clone;

/// A kind of namespace, named as in `/proc/self/ns`.
#[derive(clap::ValueEnum, Debug, Clone, Copy, PartialEq, Eq)]
pub enum Namespace {
    /// Mount points: which file systems are seen, and where (mount_namespaces(7)).
    Mnt,
    /// Host name (uts_namespaces(7); UTS is "UNIX Time-sharing System", from uname(2)'s struct).
    Uts,
    /// System V IPC and POSIX message queues (ipc_namespaces(7)).
    Ipc,
    /// Process numbers; the first process inside is PID 1 (pid_namespaces(7)).
    Pid,
    /// Interfaces, loopback, routing table, firewall rules, ports (network_namespaces(7)).
    Net,
    /// Users, groups and capabilities (user_namespaces(7)).
    User,
    /// The directory that looks like the root of the cgroup tree (cgroup_namespaces(7)).
    Cgroup,
    /// The monotonic and boot-time clocks (time_namespaces(7)).
    Time,
}

impl Namespace {
    /// All of them.
    pub const ALL: [Self; 8] = [
        Self::Mnt,
        Self::Uts,
        Self::Ipc,
        Self::Pid,
        Self::Net,
        Self::User,
        Self::Cgroup,
        Self::Time,
    ];

    /// The name below `/proc/PID/ns`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Mnt => "mnt",
            Self::Uts => "uts",
            Self::Ipc => "ipc",
            Self::Pid => "pid",
            Self::Net => "net",
            Self::User => "user",
            Self::Cgroup => "cgroup",
            Self::Time => "time",
        }
    }

    /// The flag by which clone3(2) creates one, and setns(2) joins one.
    // ANCHOR: flags
    #[must_use]
    pub fn flag(self) -> i32 {
        // ANCHOR: ex-1.1
        match self {
            Self::Mnt => libc::CLONE_NEWNS, // the first one, from 2002: "the" new namespace
            Self::Uts => libc::CLONE_NEWUTS,
            Self::Ipc => libc::CLONE_NEWIPC,
            Self::Pid => libc::CLONE_NEWPID,
            Self::Net => libc::CLONE_NEWNET,
            Self::User => libc::CLONE_NEWUSER,
            Self::Cgroup => libc::CLONE_NEWCGROUP,
            Self::Time => 0x80, // CLONE_NEWTIME: clone(2) reads this bit as part of a signal, clone3 does not
        }
        // ANCHOR_END: ex-1.1
    }
    // ANCHOR_END: flags

    /// Whether this kernel was built with this kind.
    #[must_use]
    pub fn is_in_kernel(self) -> bool {
        Path::new("/proc/self/ns").join(self.name()).exists()
    }
}

/// A set of namespaces to be made: one bit for each kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Namespaces(u8);

impl FromIterator<Namespace> for Namespaces {
    fn from_iter<I: IntoIterator<Item = Namespace>>(namespaces: I) -> Self {
        Self(namespaces.into_iter().fold(0, |set, namespace| set | 1 << namespace as u8))
    }
}

impl Namespaces {
    /// Whether `namespace` is one of them.
    #[must_use]
    pub fn contains(self, namespace: Namespace) -> bool {
        self.0 & 1 << namespace as u8 != 0
    }

    /// The flags for clone3(2): all but the cgroup namespace's.
    ///
    /// The root of a new cgroup namespace is the cgroup of the process that *makes* it. In the
    /// clone that would be the parent's cgroup, so the child makes this one itself, when it is in
    /// the container's cgroup: see [`Namespaces::set_up`].
    pub(crate) fn clone_flags(self) -> u64 {
        Namespace::ALL
            .into_iter()
            .filter(|&namespace| self.contains(namespace) && namespace != Namespace::Cgroup)
            .fold(0, |flags, namespace| flags | u64::from(namespace.flag().cast_unsigned()))
    }

    /// The child's side: gives the new namespaces what they should start with.
    ///
    /// A new mount namespace is a copy of the host's, in which systemd has marked every mount
    /// as *shared*: what is mounted in one copy appears in the other. Private propagation ends
    /// that, before anybody inside mounts anything (mount_namespaces(7), "Shared subtrees").
    // ANCHOR: set_up
    pub fn set_up(self, hostname: &str) -> Result<()> {
        if self.contains(Namespace::Cgroup) {
            unshare(CloneFlags::CLONE_NEWCGROUP).map_err(|errno| explain_clone(self, errno))?;
        }
        if self.contains(Namespace::Mnt) {
            // ANCHOR: ex-1.4
            let private = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
            mount(None::<&str>, "/", None::<&str>, private, None::<&str>)
                .context("cannot make the mounts below / private")?;
            // ANCHOR_END: ex-1.4
        }
        if self.contains(Namespace::Uts) {
            sethostname(hostname)
                .with_context(|| format!("cannot set the host name to {hostname}"))?;
        }
        Ok(())
    }
    // ANCHOR_END: set_up
}
