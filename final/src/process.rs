//! How a process becomes one of the container's: the last part of `run` and of `exec`.

use std::fs;
use std::io::stdin;
use std::os::fd::{AsFd as _, OwnedFd};
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use caps::CapsHashSet;
use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, FcntlArg, OFlag, OpenHow, ResolveFlag, fcntl, openat2};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::prctl;
use nix::sys::resource::{Resource, setrlimit};
use nix::sys::signal::Signal;
use nix::sys::stat::{SFlag, fstat, makedev};
use nix::unistd::{Pid, dup2_stderr, dup2_stdin, dup2_stdout, setsid};
use step01_namespaces::{Child, Failure, IdMaps, Namespaces, Prepared, pidfd_send_signal};

use crate::remap;
use crate::security::{self, Filters};
use crate::terminal;
use crate::user::{User, Wanted};

/// A process as config.json describes it, checked and ready.
pub struct Process {
    /// The program and its arguments.
    pub args: Vec<String>,
    /// All of its environment, as NAME=VALUE.
    pub env: Vec<String>,
    /// Who it is to be.
    pub user: Wanted,
    /// Whether it gets a terminal of its own.
    pub terminal: bool,
    /// Whether our standard input is for it; otherwise it reads /dev/null.
    pub interactive: bool,
    /// What it may still do.
    pub capabilities: CapsHashSet,
    /// Whether no exec gains a privilege.
    pub no_new_privileges: bool,
    /// The system calls that it may make; none: all.
    pub seccomp: Option<Filters>,
    /// Soft and hard limit of each resource.
    pub rlimits: Vec<(Resource, u64, u64)>,
    /// How soon it is killed when memory runs out, if that is not to be as with our caller.
    pub oom_score_adj: Option<i32>,
}

impl Process {
    /// First of all, while nothing of the container is in reach yet: cuts the ties to our caller.
    pub fn leave_caller(&self) -> Result<()> {
        // ANCHOR: ex-6.2
        close_to_others()?;
        // An ignored signal stays ignored by an exec, and our caller may have been careless with that.
        // Those two we need ourselves up to the exec, which sees to them.
        let ours = [libc::SIGPIPE, libc::SIGXFSZ];
        (1..=64).filter(|number| !ours.contains(number)).for_each(default_action);
        // A new session has no controlling terminal, so no way to type into the user's.
        setsid().context("cannot start a session")?;
        security::new_session_keyring()
        // ANCHOR_END: ex-6.2
    }

    /// Gives it its terminal, if it is to have one, or takes the user's away; returns our side.
    pub fn open_stdio(&self, user: &User) -> Result<Option<OwnedFd>> {
        let ours = if self.terminal {
            Some(terminal::open_in_container(terminal::window())?)
        } else {
            if !self.interactive {
                let null = open_device("/dev/null", makedev(1, 3))?;
                dup2_stdin(null).context("cannot make /dev/null the standard input")?;
            }
            terminal::hide_users_terminal()?
        };
        user.own_stdio(self.terminal)?;
        Ok(ours)
    }

    /// Last of all: gives up what the program must not have. The order is the kernel's: every
    /// step takes a privilege or a system call that a later step takes away.
    // ANCHOR: restrict
    pub fn restrict(&self, user: &User) -> Result<()> {
        // ANCHOR: ex-6.3
        for &(resource, soft, hard) in &self.rlimits {
            setrlimit(resource, soft, hard).with_context(|| {
                format!("cannot set {resource:?} to {soft}:{hard} (raising it takes root)")
            })?;
        }
        user.join_groups()?;
        // Who may gain privileges by an exec may be filtered by CAP_SYS_ADMIN only, or could fool the
        // program that gains them (seccomp(2)).
        let filter = || self.seccomp.as_ref().map_or(Ok(()), Filters::apply);
        if !self.no_new_privileges {
            filter()?;
        }
        security::limit_bounding_set(&self.capabilities)?;
        user.switch()?;
        security::limit_capabilities(&self.capabilities)?;
        if self.no_new_privileges {
            security::no_new_privileges()?;
            filter()?;
        }
        Ok(())
        // ANCHOR_END: ex-6.3
    }
    // ANCHOR_END: restrict

    /// The parent's side, while the child waits: how soon it is killed when memory runs out
    /// (proc_pid_oom_score_adj(5)).
    pub fn adjust_oom_score(&self, pid: Pid) -> Result<()> {
        let Some(score) = self.oom_score_adj else { return Ok(()) };
        fs::write(format!("/proc/{pid}/oom_score_adj"), score.to_string()).with_context(|| {
            format!("cannot set --oom-score-adj {score}; to lower it takes root (CAP_SYS_RESOURCE)")
        })
    }

    /// The program, with the terminal for the parent.
    #[must_use]
    pub fn command(&self, user: &User, terminal: Option<OwnedFd>) -> Prepared {
        let mut command = Command::new(&self.args[0]);
        command.args(&self.args[1..]).env_clear().env("HOME", &user.home);
        command.envs(self.env.iter().filter_map(|variable| variable.split_once('=')));
        // A file that we or our caller have open could be a way out of the container.
        Prepared { command, terminal, only_stdio: true }
    }
}

/// Ends a process, and waits until it is gone.
pub fn end(pidfd: &OwnedFd) -> nix::Result<()> {
    match pidfd_send_signal(pidfd.as_fd(), Signal::SIGKILL) {
        Ok(()) | Err(Errno::ESRCH) => {}
        error => return error,
    }
    poll(&mut [PollFd::new(pidfd.as_fd(), PollFlags::POLLIN)], PollTimeout::NONE).map(drop)
}

/// Does `work` in a child that has new `namespaces`, and nothing to execute in the end.
pub fn in_child(namespaces: Namespaces, work: impl FnOnce() -> Result<()>) -> Result<()> {
    Work::start(namespaces, None, work)?.finish()
}

/// A child that does something, while we do something else. Dropping it kills it.
pub struct Work(Child);

impl Work {
    /// As [`Child::spawn`], call it from a process with one thread only. It begins with `finish`. In a new
    /// user namespace it has these ids, or the usual ones.
    pub fn start(
        namespaces: Namespaces,
        ids: Option<IdMaps>,
        work: impl FnOnce() -> Result<()>,
    ) -> Result<Self> {
        let child = Child::spawn(namespaces, None, || -> Result<Command> {
            work()?;
            Err(Self::done().into())
        })?;
        remap::map_ids(&child, ids)?;
        Ok(Self(child))
    }

    /// Lets it begin, and waits for its end.
    pub fn finish(mut self) -> Result<()> {
        match self.0.go() {
            Err(error) if error.downcast_ref() == Some(&Self::done()) => Ok(()),
            result => result.map(drop),
        }
    }

    /// What it says when all went well.
    fn done() -> Failure {
        Failure { status: 0, text: String::new() }
    }
}

/// Until the next exec nobody may look into us, not even with all that a container's root has: an
/// exec's child is among the container's processes while it still has files of the host open
/// (CVE-2016-9962).
pub fn close_to_others() -> Result<()> {
    prctl::set_dumpable(false).context("cannot close ourselves to other processes")
}

/// The same, undone.
pub fn open_to_others() -> Result<()> {
    prctl::set_dumpable(true).context("cannot open ourselves to other processes")
}

/// Opens a device of the container, if it is the one that it should be. Its /dev may be a link that
/// the container has changed since, and lead to a file of ours (/proc/self/fd/N), to a FIFO at which
/// we would wait, or to a terminal that would become our controlling one.
///
/// All mounts of the container are `nodev` but those of our nodes and devpts, so a node of the right
/// number that can be opened is ours.
pub fn open_device(path: &str, number: libc::dev_t) -> Result<OwnedFd> {
    let flags = OFlag::O_RDWR | OFlag::O_NOCTTY | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC;
    let how = OpenHow::new().flags(flags).resolve(ResolveFlag::RESOLVE_NO_MAGICLINKS);
    let device = openat2(AT_FDCWD, path, how)
        .with_context(|| format!("cannot open {path} of the container"))?;
    let stat = fstat(&device)?;
    let is_node = stat.st_mode & SFlag::S_IFMT.bits() == SFlag::S_IFCHR.bits();
    ensure!(is_node && stat.st_rdev == number, "{path} of the container is another file");
    // To be waited at again.
    fcntl(&device, FcntlArg::F_SETFL(OFlag::empty()))
        .with_context(|| format!("cannot make {path} blocking"))?;
    Ok(device)
}

/// The container's own null in the place of output and errors: the host's, which we have open, would have its
/// mode changed for all.
pub fn discard_output() -> Result<()> {
    let null = open_device("/dev/null", makedev(1, 3))?;
    dup2_stdout(&null)
        .and_then(|()| dup2_stderr(&null))
        .context("cannot make /dev/null the standard output and errors")
}

/// Whether the caller sits at a terminal, for input and for output.
#[must_use]
pub fn at_terminal() -> bool {
    use std::io::IsTerminal as _;
    stdin().is_terminal() && std::io::stdout().is_terminal()
}

/// rt_sigaction(2), as libc's does not touch two signals that it has for itself. SIGKILL and SIGSTOP
/// have no other action, and say so.
fn default_action(signal: libc::c_int) {
    // The kernel's struct sigaction: SIG_DFL, no flags, no restorer, an empty mask.
    let (action, none) = ([0_u64; 4], std::ptr::null::<u64>());
    // SAFETY: the action has the kernel's layout and outlives the call; a null old one is allowed.
    unsafe {
        libc::syscall(libc::SYS_rt_sigaction, signal, action.as_ptr(), none, size_of::<u64>())
    };
}
