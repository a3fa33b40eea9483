//! Two terminals: the container's own, and the one that the user sits at.
//!
//! Passing on the user's terminal itself would let a program in the container type commands into
//! it (ioctl_tty(2), TIOCSTI). So the container gets a new pair from its own devpts (pty(7)), and
//! we copy bytes between the pair's master side and the user.

use std::fs::File;
use std::io::{self, IsTerminal as _, Read as _, Write as _, stderr, stdin, stdout};
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd};
use std::path::Path;

use anyhow::{Context as _, Result};
use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::Signal;
use nix::sys::stat::makedev;
use nix::sys::termios::{SetArg, Termios, cfmakeraw, tcgetattr, tcsetattr};
use nix::unistd::{dup2_stderr, dup2_stdin, dup2_stdout, pipe2};
use step01_namespaces::{Child, Signals, warn};
use step03_rootfs::{Root, sys};

use crate::process::{Process, open_device};

/// The child's side: opens a new terminal in the container and makes it the standard input,
/// output and error and the controlling terminal of this process, a session leader. Returns the
/// master side, which is for the parent.
// ANCHOR: open
pub fn open_in_container(size: Option<libc::winsize>) -> Result<OwnedFd> {
    let master = open_device("/dev/pts/ptmx", makedev(5, 2))
        .context("cannot open a terminal in the container")?;
    let slave = unlock_and_open_slave(master.as_fd()).context("cannot open the terminal")?;
    if let Some(size) = size {
        // Before the program starts: it may ask for the size but once.
        set_window_size(master.as_fd(), &size);
    }
    dup2_stdin(&slave)
        .and_then(|()| dup2_stdout(&slave))
        .and_then(|()| dup2_stderr(&slave))
        .context("cannot make it the standard input and outputs")?;
    make_controlling(slave.as_fd()).context("cannot make it the controlling terminal")?;
    Ok(master)
}
// ANCHOR_END: open

/// The child's side of a container without a terminal: takes the user's away from it. Whoever has a
/// terminal open to write to it can also read from it what the user types. So the program writes to
/// a pipe, as with docker. Returns the end that is for the parent, if there was a terminal.
pub fn hide_users_terminal() -> Result<Option<OwnedFd>> {
    let (output, errors) = (stdout().is_terminal(), stderr().is_terminal());
    if !output && !errors {
        return Ok(None);
    }
    let (reader, writer) = pipe2(OFlag::O_CLOEXEC).context("cannot make a pipe")?;
    if output {
        dup2_stdout(&writer).context("cannot make the pipe the standard output")?;
    }
    if errors {
        dup2_stderr(&writer).context("cannot make the pipe the standard error output")?;
    }
    Ok(Some(reader))
}

/// Makes /dev/console the container's terminal, as docker does: init systems write there. It is the
/// one that we have open, not what is found at /dev/pts/0 (CVE-2025-52565).
pub fn bind_console(root: &Root) -> Result<()> {
    let place = root.file(Path::new("/dev/console"))?;
    sys::open_tree_at(stdin().as_fd())
        .and_then(|terminal| sys::move_mount(terminal.as_fd(), place.as_fd()))
        .context("cannot put /dev/console in place")
}

/// The user's terminal in raw mode: every key goes to the container, Ctrl-C among them.
/// Dropping it restores the mode.
pub struct RawMode(Termios);

impl RawMode {
    /// Switches it on, if the standard input is a terminal.
    pub fn enter() -> Result<Option<Self>> {
        if !stdin().is_terminal() {
            return Ok(None);
        }
        let before = tcgetattr(stdin()).context("cannot read the terminal's mode")?;
        let mut raw = before.clone();
        cfmakeraw(&mut raw);
        tcsetattr(stdin(), SetArg::TCSADRAIN, &raw).context("cannot set the terminal's mode")?;
        Ok(Some(Self(before)))
    }
}

impl Drop for RawMode {
    fn drop(&mut self) {
        if let Err(error) = tcsetattr(stdin(), SetArg::TCSADRAIN, &self.0) {
            warn(&format!("cannot restore the terminal: {error}; type: stty sane"));
        }
    }
}

/// The parent's side: copies between the user and the container's terminal, or from its pipe, until
/// the program ends, and returns its exit status.
// ANCHOR: relay
pub fn relay(
    child: &mut Child,
    master: OwnedFd,
    process: &Process,
    signals: &Signals,
) -> Result<u8> {
    let input = process.terminal && process.interactive;
    let to_errors = !process.terminal && !stdout().is_terminal();
    let out = if to_errors {
        stderr().as_fd().try_clone_to_owned()
    } else {
        stdout().as_fd().try_clone_to_owned()
    };
    let mut out = File::from(out.context("cannot copy our own output")?);
    let _raw = if input { RawMode::enter()? } else { None };
    // Neither side may block us: a program that does not read must not keep us from writing out.
    let mut master = File::from(master);
    fcntl(&master, FcntlArg::F_SETFL(OFlag::O_RDWR | OFlag::O_NONBLOCK))
        .context("cannot make the container's terminal non-blocking")?;
    let mut pending = Vec::new(); // typed, but not yet taken by the container
    let (mut input, mut output) = (input, true);
    loop {
        let wanted = |wanted: bool, flag| if wanted { flag } else { PollFlags::empty() };
        let read = wanted(output, PollFlags::POLLIN);
        let write = wanted(output && !pending.is_empty(), PollFlags::POLLOUT);
        let mut fds = vec![
            PollFd::new(child.as_fd(), PollFlags::POLLIN),
            PollFd::new(signals.as_fd(), PollFlags::POLLIN),
        ];
        let user = stdin();
        if input && pending.is_empty() {
            fds.push(PollFd::new(user.as_fd(), PollFlags::POLLIN));
        }
        if output {
            fds.push(PollFd::new(master.as_fd(), read | write));
        }
        match poll(&mut fds, PollTimeout::NONE) {
            Err(Errno::EINTR) => continue,
            result => result.context("cannot wait for the terminal")?,
        };
        let ended = fds[0].any() == Some(true);
        let typed =
            fds.get(2).is_some_and(|fd| input && pending.is_empty() && fd.any() == Some(true));
        drop(fds);

        if typed {
            input = read_some(user.as_fd(), &mut pending)?;
        }
        if output {
            send(&mut master, &mut pending)?;
            output = copy_out(&mut master, &mut out, ended)?;
        }
        pass_on_signals(child, signals, master.as_fd())?;
        if ended {
            return child.reap();
        }
    }
}
// ANCHOR_END: relay

/// A changed window is told to the container's terminal, which tells the program; all other
/// signals are for the program itself.
fn pass_on_signals(child: &Child, signals: &Signals, master: BorrowedFd<'_>) -> Result<()> {
    while let Some(arrived) = signals.next()? {
        if arrived.signal != Signal::SIGWINCH {
            child.kill(arrived.signal)?;
        } else if let Some(size) = window() {
            set_window_size(master, &size);
        }
    }
    Ok(())
}

/// Reads once; false at the end of file. Not through `Stdin`, whose own buffer may take more than it
/// gives us: poll(2) would not know of the rest.
fn read_some(from: BorrowedFd<'_>, into: &mut Vec<u8>) -> Result<bool> {
    let mut buffer = [0; 4096];
    match nix::unistd::read(from, &mut buffer) {
        Ok(len) => {
            into.extend(&buffer[..len]);
            Ok(len > 0)
        }
        Err(Errno::EAGAIN | Errno::EINTR) => Ok(true),
        // The terminal is gone (its window was closed): SIGHUP is on its way.
        Err(Errno::EIO) => Ok(false),
        Err(errno) => Err(errno).context("cannot read the standard input"),
    }
}

/// Writes as much as the container's terminal takes now.
fn send(master: &mut File, pending: &mut Vec<u8>) -> Result<()> {
    match if pending.is_empty() { Ok(0) } else { master.write(pending) } {
        Ok(len) => drop(pending.drain(..len)),
        Err(error) if is_momentary(&error) => {}
        Err(error) if error.raw_os_error() == Some(libc::EIO) => pending.clear(),
        Err(error) => return Err(error).context("cannot write to the container's terminal"),
    }
    Ok(())
}

/// Shows what the program has written; false when its terminal is closed (EIO), or its pipe.
///
/// A piece at a time, as who writes for ever must not keep us from a Ctrl-C. At its end all that is in
/// the pipe or terminal, which is less than a mebibyte: what it has left behind may still be writing.
fn copy_out(master: &mut File, out: &mut File, ended: bool) -> Result<bool> {
    let mut buffer = [0; 16 * 1024];
    for _ in 0..if ended { 64 } else { 1 } {
        match master.read(&mut buffer) {
            Ok(0) => return Ok(false),
            Ok(len) => {
                out.write_all(&buffer[..len]).context("cannot write to the standard output")?;
            }
            Err(error) if is_momentary(&error) => break,
            Err(error) if error.raw_os_error() == Some(libc::EIO) => return Ok(false),
            Err(error) => return Err(error).context("cannot read the container's terminal"),
        }
    }
    Ok(true)
}

fn is_momentary(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted)
}

mod ioctl {
    #![allow(missing_docs, reason = "nix's macros make public functions; see ioctl_tty(2)")]
    nix::ioctl_write_ptr_bad!(tiocsptlck, libc::TIOCSPTLCK, libc::c_int);
    nix::ioctl_write_int_bad!(tiocgptpeer, libc::TIOCGPTPEER);
    nix::ioctl_write_int_bad!(tiocsctty, libc::TIOCSCTTY);
    nix::ioctl_read_bad!(tiocgwinsz, libc::TIOCGWINSZ, libc::winsize);
    nix::ioctl_write_ptr_bad!(tiocswinsz, libc::TIOCSWINSZ, libc::winsize);
}

/// TIOCGPTPEER opens the other side by the fd: no path, so nothing to be fooled with.
fn unlock_and_open_slave(master: BorrowedFd<'_>) -> nix::Result<OwnedFd> {
    let unlocked = 0;
    // SAFETY: the fd is open, and the pointer is to an int, as ioctl_tty(2) wants.
    unsafe { ioctl::tiocsptlck(master.as_raw_fd(), &raw const unlocked) }?;
    let flags = OFlag::O_RDWR | OFlag::O_NOCTTY | OFlag::O_CLOEXEC;
    // SAFETY: the fd is open, and the argument is a number.
    let slave = unsafe { ioctl::tiocgptpeer(master.as_raw_fd(), flags.bits()) }?;
    // SAFETY: the ioctl has just made this fd for us.
    Ok(unsafe { OwnedFd::from_raw_fd(slave) })
}

fn make_controlling(slave: BorrowedFd<'_>) -> nix::Result<()> {
    // SAFETY: the fd is open; 0 means: do not steal it from another session.
    unsafe { ioctl::tiocsctty(slave.as_raw_fd(), 0) }.map(drop)
}

/// The size of the window that the user sits at.
#[must_use]
pub fn window() -> Option<libc::winsize> {
    let mut size = size(0, 0);
    let terminal = stdin();
    // SAFETY: the fd is open, and the pointer is to a winsize, which outlives the call.
    unsafe { ioctl::tiocgwinsz(terminal.as_raw_fd(), &raw mut size) }.is_ok().then_some(size)
}

/// A window of so many lines of so many characters.
#[must_use]
pub fn size(rows: u16, columns: u16) -> libc::winsize {
    libc::winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 }
}

/// Sets a terminal's size; the kernel tells the program by SIGWINCH.
pub fn set_window_size(terminal: BorrowedFd<'_>, size: &libc::winsize) {
    // A terminal that has just been closed has no size to be set: not an error.
    // SAFETY: the fd is open, and the pointer is to a winsize, which outlives the call.
    let _ = unsafe { ioctl::tiocswinsz(terminal.as_raw_fd(), &raw const *size) };
}
