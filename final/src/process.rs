//! How a process becomes one of the container's: the last part of `run` and of `exec`.

use std::fs::File;
use std::io::stdin;
use std::os::fd::OwnedFd;
use std::process::Command;

use anyhow::{Context as _, Result};
use caps::CapsHashSet;
use nix::errno::Errno;
use nix::sys::prctl;
use nix::sys::resource::{Resource, setrlimit};
use nix::unistd::{dup2_stdin, setgroups, setsid};
use step01_namespaces::Prepared;

use crate::security::{self, Filters};
use crate::terminal;

/// A process as config.json describes it, checked and ready.
pub struct Process {
    /// The program and its arguments.
    pub args: Vec<String>,
    /// All of its environment, as NAME=VALUE.
    pub env: Vec<String>,
    /// Whether it gets a terminal of its own.
    pub terminal: bool,
    /// Whether our standard input is for it; otherwise it reads /dev/null.
    pub interactive: bool,
    /// What it may still do.
    pub capabilities: CapsHashSet,
    /// The system calls that it may make; none: all.
    pub seccomp: Option<Filters>,
    /// Soft and hard limit of each resource.
    pub rlimits: Vec<(Resource, u64, u64)>,
}

impl Process {
    /// First of all, while nothing of the container is in reach yet: cuts the ties to our caller.
    pub fn leave_caller(&self) -> Result<()> {
        // ANCHOR: ex-6.2
        // Until the exec nobody may look into us, not even with all that a container's root has: an
        // exec's child is among the container's processes while it still has files of the host
        // open (CVE-2016-9962). The exec takes this back.
        prctl::set_dumpable(false).context("cannot close ourselves to other processes")?;
        // A file that our caller left open could be a way out of the container (CVE-2024-21626).
        close_on_exec_from(3).context("cannot mark the open files close-on-exec")?;
        // A new session has no controlling terminal, so no way to type into the user's.
        setsid().context("cannot start a session")?;
        security::new_session_keyring()
        // ANCHOR_END: ex-6.2
    }

    /// Gives it its terminal, if it is to have one; returns the master side.
    pub fn open_stdio(&self) -> Result<Option<OwnedFd>> {
        if self.terminal {
            return terminal::open_in_container().map(Some);
        }
        if !self.interactive {
            dup2_stdin(File::open("/dev/null").context("cannot open /dev/null")?)?;
        }
        Ok(None)
    }

    /// Last of all: gives up what the program must not have. The order is the kernel's: every
    /// step takes a privilege or a system call that a later step takes away.
    // ANCHOR: restrict
    pub fn restrict(&self) -> Result<()> {
        // ANCHOR: ex-6.3
        for &(resource, soft, hard) in &self.rlimits {
            setrlimit(resource, soft, hard)
                .with_context(|| format!("cannot set {resource:?} to {soft}:{hard}"))?;
        }
        match setgroups(&[]) {
            // With a map of one id setgroups(2) is denied, see step01's idmap.rs.
            Ok(()) | Err(Errno::EPERM) => {}
            Err(errno) => return Err(errno).context("cannot leave the caller's groups"),
        }
        security::limit_capabilities(&self.capabilities)?;
        security::no_new_privileges()?; // or else seccomp would need CAP_SYS_ADMIN
        self.seccomp.as_ref().map_or(Ok(()), Filters::apply)
        // ANCHOR_END: ex-6.3
    }
    // ANCHOR_END: restrict

    /// The program, with the terminal for the parent.
    #[must_use]
    pub fn command(&self, terminal: Option<OwnedFd>) -> Prepared {
        let mut command = Command::new(&self.args[0]);
        command.args(&self.args[1..]).env_clear();
        command.envs(self.env.iter().filter_map(|variable| variable.split_once('=')));
        Prepared { command, terminal }
    }
}

/// Whether the caller sits at a terminal, for input and for output.
#[must_use]
pub fn at_terminal() -> bool {
    use std::io::IsTerminal as _;
    stdin().is_terminal() && std::io::stdout().is_terminal()
}

fn close_on_exec_from(first: libc::c_uint) -> nix::Result<()> {
    let flags = libc::CLOSE_RANGE_CLOEXEC;
    // SAFETY: takes numbers only, and closes nothing now.
    let result = unsafe { libc::syscall(libc::SYS_close_range, first, libc::c_uint::MAX, flags) };
    Errno::result(result).map(drop)
}
