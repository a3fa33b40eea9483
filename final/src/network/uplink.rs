//! The way from a plain user's network namespace to the world: pasta (passt.top), where it is installed.
//!
//! It has a TAP device in the namespace, as a virtual machine would have one, and sockets outside of it,
//! as any program of the user. What a connection in there sends, it writes to a socket of its own.

use std::fs;
use std::io::ErrorKind;
use std::net::Ipv4Addr;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, anyhow, ensure};
use nix::errno::Errno;
use nix::unistd::{AccessFlags, Pid, access};
use step01_namespaces::{pidfd_open, warn};

use super::rootless::Spaces;
use crate::process::end;

/// The address in the namespace at which the host's own name server answers, also one on loopback: pasta
/// passes on what is sent there.
pub const NAMESERVER: Ipv4Addr = Ipv4Addr::new(169, 254, 1, 1);
/// Its process id, which it writes itself.
const FILE: &str = "pasta.pid";

/// Where the program is, if it is installed.
#[must_use]
pub fn program() -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    let all = std::env::split_paths(&path).map(|directory| directory.join("pasta"));
    all.into_iter().find(|file| access(file, AccessFlags::X_OK).is_ok())
}

/// Starts it, if it is installed and not there. Networks are of use without it, too, so that it cannot be
/// had is told, and no error.
pub fn ensure(directory: &Path, spaces: &Spaces) {
    let note = directory.join(FILE);
    let ensure = || match program() {
        Some(program) if running(&note)?.is_none() => start(&program, &note, spaces),
        _ => Ok(()),
    };
    if let Err(error) = ensure() {
        warn(&format!("the networks have no way out: {error:#}"));
    }
}

/// It ends when it is ready, and leaves a process behind.
fn start(program: &Path, note: &Path, spaces: &Spaces) -> Result<()> {
    let path = |kind: &str| format!("/proc/{}/ns/{kind}", spaces.pid);
    let output = Command::new(program)
        // Addresses and routes as the host has them; of its processes nobody is in reach in there, not even
        // behind the gateway's address.
        .args(["--config-net", "--quiet", "--no-map-gw"])
        .args(["-t", "none", "-u", "none", "-T", "none", "-U", "none"])
        .args(["--dns-forward", &NAMESERVER.to_string()])
        // Whose path that is may end before the others do, so it is not to watch him: it is ended by us.
        .args(["--no-netns-quit", "--userns", &path("user"), "--netns", &path("net")])
        .arg("--pid")
        .arg(note)
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("cannot run {}", program.display()))?;
    let said = String::from_utf8_lossy(&output.stderr);
    // The last of its words are the reason; before these it may tell that it has nobody to tell them to.
    let reason = said.lines().last().unwrap_or_default();
    ensure!(output.status.success(), "cannot start pasta ({}): {reason}", output.status);
    Ok(())
}

/// Its process, if it is there: who has the note's path among its words. A number alone could have come to
/// mean another one. If that cannot be read it is not gone: who took it for gone would never end it.
fn running(note: &Path) -> Result<Option<Pid>> {
    let read = |path: &Path| match fs::read(path) {
        Ok(bytes) => Ok(bytes),
        Err(e) if e.kind() == ErrorKind::NotFound || e.raw_os_error() == Some(libc::ESRCH) => {
            Ok(Vec::new())
        }
        Err(error) => Err(error).with_context(|| format!("cannot read {}", path.display())),
    };
    let number = String::from_utf8(read(note)?).unwrap_or_default();
    let Ok(pid) = number.trim().parse() else { return Ok(None) };
    let words = read(Path::new(&format!("/proc/{pid}/cmdline")))?;
    let ours = words.split(|&byte| byte == 0).any(|word| word == note.as_os_str().as_bytes());
    Ok(ours.then_some(Pid::from_raw(pid)))
}

/// Whether it was there and has ended.
pub fn is_missing(directory: &Path) -> bool {
    let note = directory.join(FILE);
    note.exists() && matches!(running(&note), Ok(None))
}

/// Ends it, if it is there.
pub fn stop(directory: &Path) -> Result<()> {
    let note = directory.join(FILE);
    if let Some(pid) = running(&note)? {
        match pidfd_open(pid) {
            Ok(pidfd) if running(&note)? == Some(pid) => {
                end(&pidfd).context("cannot end pasta")?;
            }
            Ok(_) | Err(Errno::ESRCH) => {}
            Err(errno) => return Err(anyhow!(errno).context("cannot get hold of pasta")),
        }
    }
    match fs::remove_file(&note) {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            Err(error).context("cannot remove pasta's note")
        }
        _ => Ok(()),
    }
}
