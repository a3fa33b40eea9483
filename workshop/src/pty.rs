//! A terminal for tests to type at, with a program on its other side.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use nix::pty::{Winsize, openpty};
use nix::sys::termios::{Termios, tcgetattr};

/// The person's side of a terminal.
pub struct Terminal {
    master: File,
    slave: OwnedFd,
    output: Receiver<String>,
    /// All that was shown so far and not yet expected.
    seen: String,
    /// The program.
    pub child: Child,
    /// The terminal's mode before the program had it.
    pub before: Termios,
}

nix::ioctl_write_ptr_bad!(
    #[doc = "Sets a terminal's size (ioctl_tty(2))."]
    set_size,
    libc::TIOCSWINSZ,
    libc::winsize
);

impl Terminal {
    /// Starts the program with a new terminal of 24 lines and 80 columns as its controlling one.
    ///
    /// # Panics
    /// If that cannot be done.
    #[must_use]
    pub fn start(mut command: Command) -> Self {
        let size = Winsize { ws_row: 24, ws_col: 80, ws_xpixel: 0, ws_ypixel: 0 };
        let pair = openpty(&size, None).expect("a terminal");
        let (master, slave) = (File::from(pair.master), pair.slave);
        let before = tcgetattr(&slave).expect("a terminal");
        let copy = || slave.try_clone().expect("a copy of a file descriptor");
        command.stdin(copy()).stdout(copy()).stderr(copy());
        let controlling = slave.as_raw_fd();
        // SAFETY: setsid(2) and ioctl(2) may be called between fork and exec (signal-safety(7)).
        unsafe {
            command.pre_exec(move || {
                nix::unistd::setsid()?;
                nix::errno::Errno::result(libc::ioctl(controlling, libc::TIOCSCTTY, 0))?;
                Ok(())
            });
        }
        let child = command.spawn().unwrap_or_else(|e| panic!("cannot run {command:?}: {e}"));
        let mut reader = master.try_clone().expect("a copy of a file descriptor");
        let (sender, output) = channel();
        std::thread::spawn(move || {
            let (mut bytes, mut waiting) = ([0; 4096], Vec::new());
            while let Ok(len @ 1..) = reader.read(&mut bytes) {
                waiting.extend(&bytes[..len]);
                // A character can come in two parts.
                let whole = match std::str::from_utf8(&waiting) {
                    Err(error) if error.error_len().is_none() => error.valid_up_to(),
                    _ => waiting.len(),
                };
                let text: Vec<u8> = waiting.drain(..whole).collect();
                if sender.send(String::from_utf8_lossy(&text).into_owned()).is_err() {
                    break;
                }
            }
        });
        Self { master, slave, output, seen: String::new(), child, before }
    }

    /// Types.
    ///
    /// # Panics
    /// If the terminal is gone.
    pub fn type_in(&mut self, text: &str) {
        self.master.write_all(text.as_bytes()).expect("a terminal to type at");
    }

    /// Waits until `text` is shown, and returns all that was shown up to it.
    ///
    /// # Panics
    /// If it is not shown within 20 seconds.
    pub fn expect(&mut self, text: &str) -> String {
        let found = |seen: &str| seen.find(text).map(|at| at + text.len());
        let shown = self.wait(crate::suite::patience(Duration::from_secs(20)), found);
        shown.unwrap_or_else(|| panic!("{text:?} never came; seen: {:?}", self.seen))
    }

    /// Waits until `enough` finds in all that was not yet taken how much to take, and takes that;
    /// none if `patience` is over, or the terminal closed, before.
    pub fn wait(
        &mut self,
        patience: Duration,
        mut enough: impl FnMut(&str) -> Option<usize>,
    ) -> Option<String> {
        let end = Instant::now() + patience;
        loop {
            if let Some(at) = enough(&self.seen) {
                let rest = self.seen.split_off(at);
                return Some(std::mem::replace(&mut self.seen, rest));
            }
            let left = end.saturating_duration_since(Instant::now());
            self.seen += &self.output.recv_timeout(left).ok()?;
        }
    }

    /// Changes the size, as when somebody drags the corner of the window.
    ///
    /// # Panics
    /// If the terminal is gone.
    pub fn resize(&self, rows: u16, columns: u16) {
        let size = libc::winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
        // SAFETY: the fd is open, and the pointer is to a winsize, which outlives the call.
        unsafe { set_size(self.master.as_raw_fd(), &raw const size) }.expect("a terminal");
    }

    /// Its mode: echo, line by line, and so on.
    ///
    /// # Panics
    /// If the terminal is gone.
    #[must_use]
    pub fn mode(&self) -> Termios {
        tcgetattr(&self.slave).expect("a terminal")
    }
}
