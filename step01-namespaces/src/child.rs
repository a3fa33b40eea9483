//! The skeleton of every step: one clone, then parent and child in step with each other.

use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd};
use std::os::unix::process::CommandExt as _;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::Command;
use std::{fs, io};

use anyhow::{Context as _, Result, anyhow, bail};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::prctl;
use nix::sys::signal::{SigSet, Signal};
use nix::sys::wait::{Id, WaitPidFlag, WaitStatus, waitid};
use nix::unistd::{Pid, getpgid, getpgrp};

use crate::{
    Channel, Failure, Message, Namespace, Namespaces, Signals, caller, see, warn, write_id_maps,
};

/// What the child's set-up hands over: the program to become, and the container's terminal.
#[derive(Debug)]
pub struct Prepared {
    /// Executed by the child, in place of itself.
    pub command: Command,
    /// Sent to the parent with [`Message::Ready`].
    pub terminal: Option<OwnedFd>,
    /// Whether all files but input, output and errors are closed before the program is looked up.
    /// Close-on-exec comes after that, so a link to /proc/self/fd/N could still lead through them
    /// (CVE-2024-21626).
    pub only_stdio: bool,
}

impl From<Command> for Prepared {
    fn from(command: Command) -> Self {
        Self { command, terminal: None, only_stdio: false }
    }
}

/// The container's first process, seen from its parent. Dropping it kills it.
#[derive(Debug)]
pub struct Child {
    pid: Pid,
    /// Unlike a pid, it cannot come to mean another process (pidfd_open(2)).
    pidfd: OwnedFd,
    channel: Channel,
    namespaces: Namespaces,
    status: Option<u8>,
}

impl Child {
    /// Clones a child into new `namespaces`, and on cgroup v2 straight into `cgroup` (an open
    /// directory). The child waits for [`Child::go`], runs `setup`, and executes what it returns.
    ///
    /// Call it from a process with one thread only: the child is a copy of the calling thread,
    /// and a lock that another thread held would stay locked in it for ever (fork(2)).
    // ANCHOR: spawn
    pub fn spawn<P: Into<Prepared>>(
        namespaces: Namespaces,
        cgroup: Option<BorrowedFd<'_>>,
        setup: impl FnOnce() -> Result<P>,
    ) -> Result<Self> {
        let (parents, childs) = Channel::pair()?;
        match clone3(namespaces.clone_flags(), cgroup).map_err(|e| explain_clone(namespaces, e))? {
            None => {
                drop(parents); // or end of file would never come while the child lives
                child_main(&childs, setup)
            }
            Some((pid, pidfd)) => {
                Ok(Self { pid, pidfd, channel: parents, namespaces, status: None })
            }
        }
    }
    // ANCHOR_END: spawn

    /// The child's process id, as the host sees it.
    #[must_use]
    pub fn pid(&self) -> Pid {
        self.pid
    }

    /// The parent's side of a new user namespace: writes its id maps. Without one, nothing.
    pub fn map_ids(&self) -> Result<()> {
        if self.namespaces.contains(Namespace::User) { write_id_maps(self.pid) } else { Ok(()) }
    }

    /// Tells the child that the host side is ready, and waits until it has executed its program.
    /// Returns the master side of the container's terminal, if the set-up made one.
    // ANCHOR: go
    pub fn go(&mut self) -> Result<Option<OwnedFd>> {
        // If the child is dead already, receive() below says more than a broken pipe would.
        let _ = self.channel.send(&Message::Go);
        let terminal = match self.channel.receive()? {
            Some(Message::Ready(terminal)) => terminal,
            Some(Message::Failed(failure)) => return Err(failure.into()),
            Some(Message::Go) => bail!("the child said Go: that is the parent's line"),
            None => {
                let status = self.reap()?;
                bail!("the container's first process died before it was ready (status {status})")
            }
        };
        match self.channel.receive()? {
            None => Ok(terminal), // closed by the exec
            Some(Message::Failed(failure)) => Err(failure.into()),
            Some(other) => bail!("the child said {other:?} after Ready"),
        }
    }
    // ANCHOR_END: go

    /// Passes on signals until the program ends; returns its exit status, 128+n for signal n.
    ///
    /// Mind that PID 1 of a PID namespace gets only those signals that it has a handler for
    /// (pid_namespaces(7)): a plain `sleep` ignores SIGTERM there. SIGKILL always works.
    pub fn wait(&mut self, signals: &Signals) -> Result<u8> {
        loop {
            let mut fds = [
                PollFd::new(self.pidfd.as_fd(), PollFlags::POLLIN),
                PollFd::new(signals.as_fd(), PollFlags::POLLIN),
            ];
            match poll(&mut fds, PollTimeout::NONE) {
                Err(Errno::EINTR) => continue,
                result => result.context("cannot wait for the container")?,
            };
            if fds[0].any() == Some(true) {
                return self.reap();
            }
            while let Some(arrived) = signals.next()? {
                // A Ctrl-C reached the container too if it is in our process group.
                let has_it = arrived.from_terminal && getpgid(Some(self.pid)) == Ok(getpgrp());
                if !has_it {
                    self.kill(arrived.signal)?;
                }
            }
        }
    }

    /// Sends `signal` to the container's first process; no error if it has just ended.
    pub fn kill(&self, signal: Signal) -> Result<()> {
        match pidfd_send_signal(self.pidfd.as_fd(), signal) {
            Ok(()) | Err(Errno::ESRCH) => Ok(()),
            Err(error) => Err(anyhow!(error).context(format!("cannot send {signal}"))),
        }
    }

    /// Waits for the end and takes the exit status; the zombie is gone then.
    pub fn reap(&mut self) -> Result<u8> {
        if let Some(status) = self.status {
            return Ok(status);
        }
        let ended = loop {
            match waitid(Id::PIDFd(self.pidfd.as_fd()), WaitPidFlag::WEXITED) {
                Err(Errno::EINTR) => {}
                result => break result.context("cannot wait for the container")?,
            }
        };
        let status = exit_status(ended)?;
        self.status = Some(status);
        Ok(status)
    }
}

/// A process that ends by itself has a status of 8 bits; one that a signal ends has none, and
/// 128+n is what shells made of signal n (sh(1p), "Exit Status").
pub fn exit_status(ended: WaitStatus) -> Result<u8> {
    // ANCHOR: ex-1.5
    Ok(match ended {
        WaitStatus::Exited(_, code) => code.to_le_bytes()[0],
        WaitStatus::Signaled(_, signal, _) => 128 + (signal as i32).to_le_bytes()[0],
        other => bail!("unexpected wait status {other:?}"),
    })
    // ANCHOR_END: ex-1.5
}

impl AsFd for Child {
    /// The pidfd: readable when the process has ended.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.pidfd.as_fd()
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        if self.status.is_none() {
            let ended = self.kill(Signal::SIGKILL).and_then(|()| self.reap());
            if let Err(error) = ended {
                warn(&format!("cannot end the container's first process: {error:#}"));
            }
        }
    }
}

/// The child's whole life up to the exec. It never returns into the frames that it shares with
/// the parent: a guard there must be dropped once, by the parent.
// ANCHOR: child
fn child_main<P: Into<Prepared>>(channel: &Channel, setup: impl FnOnce() -> Result<P>) -> ! {
    let failure = catch_unwind(AssertUnwindSafe(|| prepare_and_exec(channel, setup)))
        .unwrap_or_else(|_| Failure { status: Failure::ENGINE, text: "a bug: panicked".into() });
    let status = i32::from(failure.status);
    let _ = channel.send(&Message::Failed(failure)); // the parent may be gone; then nobody asks
    // SAFETY: _exit(2) ends the process at once; no Rust code runs after it.
    unsafe { libc::_exit(status) }
}

fn prepare_and_exec<P: Into<Prepared>>(
    channel: &Channel,
    setup: impl FnOnce() -> Result<P>,
) -> Failure {
    let prepare = || -> Result<Command> {
        // ANCHOR: ex-1.2
        // If the parent is killed, so are we. Should it be dead already, end of file says so.
        prctl::set_pdeathsig(Signal::SIGKILL).context("cannot tie the child to its parent")?;
        let Some(Message::Go) = channel.receive()? else { bail!("the parent went away") };
        // ANCHOR_END: ex-1.2
        let Prepared { command, terminal, only_stdio } = setup()?.into();
        channel.send(&Message::Ready(terminal))?;
        if only_stdio {
            channel.close_all_others().context("cannot close the files of the host")?;
        }
        Ok(command)
    };
    match prepare() {
        Ok(mut command) => {
            caller::restore_for_exec();
            // The parent's signals are blocked in its copy too, and an exec keeps that.
            if let Err(errno) = SigSet::empty().thread_set_mask() {
                return Failure::from(anyhow!(errno).context("cannot unblock signals"));
            }
            let error = command.exec();
            Failure::of_exec(&command.get_program().to_string_lossy(), &error)
        }
        Err(error) => error.into(),
    }
}
// ANCHOR_END: child

/// `linux/sched.h`'s value; libc's constant is an `i32`, in which it does not fit.
const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;

/// clone3(2) without a new stack, so like fork(2): `None` in the child, its pid and pidfd in
/// the parent.
// ANCHOR: clone3
#[allow(
    clippy::cast_sign_loss,
    clippy::cast_possible_truncation,
    reason = "clone3 takes file descriptors and flags as u64, and a pid is an i32"
)]
fn clone3(namespaces: u64, cgroup: Option<BorrowedFd<'_>>) -> nix::Result<Option<(Pid, OwnedFd)>> {
    let mut pidfd = -1;
    // SAFETY: clone_args is plain numbers, for which all zeros is a valid value.
    let mut args: libc::clone_args = unsafe { std::mem::zeroed() };
    args.flags = namespaces | libc::CLONE_PIDFD as u64;
    args.pidfd = &raw mut pidfd as u64;
    args.exit_signal = libc::SIGCHLD as u64;
    if let Some(directory) = cgroup {
        // ANCHOR: ex-2.3
        // The child is born in its cgroup: not an instant outside its limits.
        args.flags |= CLONE_INTO_CGROUP;
        args.cgroup = directory.as_raw_fd() as u64;
        // ANCHOR_END: ex-2.3
    }
    // SAFETY: args outlives the call and has the size passed. Without CLONE_VM and with no stack
    // the child runs on in a copy of this memory; spawn() demands that there is one thread only.
    let pid = unsafe { libc::syscall(libc::SYS_clone3, &raw const args, size_of_val(&args)) };
    match Errno::result(pid)? {
        0 => Ok(None),
        // SAFETY: CLONE_PIDFD made this fd for us; the kernel sets close-on-exec.
        pid => Ok(Some((Pid::from_raw(pid as i32), unsafe { OwnedFd::from_raw_fd(pidfd) }))),
    }
}
// ANCHOR_END: clone3

/// Why clone3 (or unshare) said no, in words.
pub(crate) fn explain_clone(namespaces: Namespaces, errno: Errno) -> anyhow::Error {
    let setting = |name: &str| {
        fs::read_to_string(format!("/proc/sys/{name}")).map(|text| text.trim().to_owned())
    };
    let is = |name: &str, value: &str| setting(name).is_ok_and(|found| found == value);
    let user = namespaces.contains(Namespace::User);
    let why = match errno {
        Errno::EPERM if user && is("kernel/apparmor_restrict_unprivileged_userns", "1") => {
            "this system allows user namespaces only to programs with an AppArmor profile \
             (kernel.apparmor_restrict_unprivileged_userns=1, as on Ubuntu 24.04); set it to 0 \
             or run as root"
        }
        Errno::EPERM if user && is("kernel/unprivileged_userns_clone", "0") => {
            "this system allows user namespaces only to root \
             (kernel.unprivileged_userns_clone=0); set it to 1 or run as root"
        }
        Errno::EPERM => "not permitted; inside another container, that one must be privileged",
        Errno::ENOSPC => "the limit in /proc/sys/user/max_*_namespaces is reached",
        Errno::EINVAL => "this kernel was built without one of them: compare /proc/self/ns",
        Errno::ENOSYS => "Linux 5.7 or later is needed, and a sandbox that lets clone3 through",
        Errno::EAGAIN => "the limit of processes is reached (ulimit -u, or pids.max)",
        Errno::EBUSY => "the cgroup has controllers enabled for children, so it takes no process",
        _ => "unexpected",
    };
    let check = match errno {
        Errno::ENOSYS => "kernel",
        Errno::EAGAIN => "limits",
        Errno::EBUSY => "cgroup-delegation",
        _ if user => "userns",
        _ => "namespaces",
    };
    let error = io::Error::from(errno);
    anyhow!("cannot make the new namespaces: {error} ({why}){}", see(check))
}

/// pidfd_open(2): a process by its number; readable when it has ended.
pub fn pidfd_open(pid: Pid) -> nix::Result<OwnedFd> {
    // SAFETY: takes numbers only.
    let fd = unsafe { libc::syscall(libc::SYS_pidfd_open, pid.as_raw(), 0) };
    let fd = Errno::result(fd)?;
    // SAFETY: the kernel has just made this fd for us, close-on-exec.
    Ok(unsafe { OwnedFd::from_raw_fd(i32::try_from(fd).map_err(|_| Errno::EBADF)?) })
}

/// pidfd_send_signal(2).
pub fn pidfd_send_signal(pidfd: BorrowedFd<'_>, signal: Signal) -> nix::Result<()> {
    let no_info = std::ptr::null::<libc::siginfo_t>();
    // SAFETY: the fd is borrowed and thus open; a null siginfo is allowed and means kill(2)'s.
    let result = unsafe {
        libc::syscall(libc::SYS_pidfd_send_signal, pidfd.as_raw_fd(), signal as i32, no_info, 0)
    };
    Errno::result(result).map(drop)
}
