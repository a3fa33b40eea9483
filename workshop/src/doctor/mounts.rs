//! Mounts: proc, overlayfs, /tmp.

use std::fs::{self, File, OpenOptions};
use std::os::fd::AsRawFd as _;
use std::path::Path;

use anyhow::{Context as _, Result};
use nix::errno::Errno;
use nix::mount::{MsFlags, mount};
use nix::sched::CloneFlags;

use super::attempt::{Refused, Seen, in_child, in_namespaces};
use super::machine::{PRIVILEGED, outer_container};
use super::{Finding, hint, stops, stops_plain_users};
use crate::lab::in_first_user_namespace;

fn mount_new(kind: &str, path: &str, options: &str) -> Result<()> {
    mount(Some(kind), path, Some(kind), MsFlags::empty(), Some(options))
        .with_context(|| format!("cannot mount a new {kind}"))
}

pub fn proc() -> Seen {
    let spaces = CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_NEWPID | CloneFlags::CLONE_NEWNET;
    in_namespaces(spaces, || {
        // unshare(2) gives a new PID namespace to the children only.
        let seen = in_child(|| {
            mount_new("proc", "/proc", "")?;
            mount_new("sysfs", "/sys", "")?;
            Ok("new ones can be mounted".into())
        });
        Ok(seen?)
    })
}

pub fn explain_proc(refused: &Refused) -> Finding {
    let cause = format!(
        "{}: the kernel gives a new one only to those who see the whole of the old one, and something is \
         mounted over parts of it",
        refused.text
    );
    if outer_container().is_some() {
        return stops(cause, PRIVILEGED);
    }
    stops(
        cause,
        "grep -E ' /(proc|sys)/' /proc/self/mountinfo shows what: unmount it, or leave the sandbox",
    )
}

pub fn overlay() -> Seen {
    in_namespaces(CloneFlags::CLONE_NEWNS, || {
        let overlay = mount_overlay()?;
        write_file(overlay)?;
        Ok("can be mounted and written".into())
    })
}

pub fn overlay_in_user_namespace() -> Seen {
    in_namespaces(CloneFlags::CLONE_NEWUSER | CloneFlags::CLONE_NEWNS, || {
        let overlay = mount_overlay()?;
        write_file(overlay)?;
        // With a file in it: only then the kernel has to note that what is below does not count any more.
        fs::remove_dir_all(overlay.join("directory")).context(REMOVAL)?;
        Ok("can be mounted and written, and directories of the image removed".into())
    })
}

const REMOVAL: &str = "cannot remove a directory of the image";

/// An overlay with a directory in its lower layer, on a tmpfs that covers our /tmp.
fn mount_overlay() -> Result<&'static Path> {
    mount_new("tmpfs", "/tmp", "mode=755")?;
    for name in ["lower", "lower/directory", "upper", "work", "overlay"] {
        fs::create_dir(Path::new("/tmp").join(name))?;
    }
    fs::write("/tmp/lower/directory/file", "")?;
    let option = if in_first_user_namespace() { "" } else { ",userxattr" }; // Linux 5.11
    let options = format!("lowerdir=/tmp/lower,upperdir=/tmp/upper,workdir=/tmp/work{option}");
    mount_new("overlay", "/tmp/overlay", &options)?;
    Ok(Path::new("/tmp/overlay"))
}

fn write_file(overlay: &Path) -> Result<()> {
    fs::write(overlay.join("file"), "").context("cannot write to the overlay")
}

pub fn explain_overlay(refused: &Refused) -> Finding {
    let fix = match (refused.errno, outer_container()) {
        (Errno::ENODEV, _) => {
            "sudo modprobe overlay (no such module: take a distribution's kernel)"
        }
        (Errno::EPERM | Errno::EACCES, Some(_)) => PRIVILEGED,
        _ => "run as root, with Linux 5.12 or later",
    };
    stops(refused.text.clone(), fix)
}

pub fn explain_overlay_in_user_namespace(refused: &Refused) -> Finding {
    if refused.text.starts_with(REMOVAL) {
        let cause = format!("{}: tmpfs has no attributes user.* before Linux 6.6", refused.text);
        return hint(cause, "Linux 6.6 or later, or run as root");
    }
    let (cause, fix) = match refused.errno {
        Errno::EINVAL => ("overlayfs without userxattr", "Linux 5.11 or later, or run as root"),
        Errno::ENODEV => ("overlayfs is not in the kernel", "sudo modprobe overlay"),
        Errno::EPERM | Errno::EACCES if outer_container().is_some() => {
            ("the outer container", PRIVILEGED)
        }
        _ => ("user namespaces are restricted", "what the check userns says, or run as root"),
    };
    stops_plain_users(format!("{} ({cause})", refused.text), fix)
}

pub fn tmp() -> Seen {
    if !Path::new("/tmp").is_dir() {
        return Err(Refused::because("there is no directory /tmp"));
    }
    let directory = std::env::temp_dir();
    let path = directory.join(format!("container-workshop-doctor-{}", std::process::id()));
    let file = OpenOptions::new().read(true).write(true).create_new(true).open(&path);
    let file = file.with_context(|| format!("cannot make a file in {}", directory.display()))?;
    fs::remove_file(&path).context("cannot remove it")?;
    file.set_len(1).context("cannot write to it")?;
    map_as_program(&file)
        .with_context(|| format!("a program in {} cannot run", directory.display()))?;
    Ok(format!("programs in {} can run", directory.display()))
}

/// On a file system mounted noexec mmap(2) refuses this with EPERM, as execve(2) does with EACCES.
fn map_as_program(file: &File) -> Result<()> {
    let (protection, private) = (libc::PROT_READ | libc::PROT_EXEC, libc::MAP_PRIVATE);
    // SAFETY: the kernel chooses where, so no memory of ours is touched; nobody reads it.
    let address =
        unsafe { libc::mmap(std::ptr::null_mut(), 1, protection, private, file.as_raw_fd(), 0) };
    if address == libc::MAP_FAILED {
        return Err(Errno::last().into());
    }
    // SAFETY: it is the mapping of a moment ago, which nobody uses.
    unsafe { libc::munmap(address, 1) };
    Ok(())
}

pub fn explain_tmp(refused: &Refused) -> Finding {
    match refused.errno {
        Errno::UnknownErrno => stops(refused.text.clone(), "sudo mkdir -m 1777 /tmp"),
        Errno::EPERM | Errno::EACCES if refused.text.starts_with("a program") => hint(
            format!(
                "{}: it is mounted noexec; so neither can images and volumes there",
                refused.text
            ),
            "export TMPDIR=$HOME/tmp (made before), and keep images elsewhere",
        ),
        _ => hint(refused.text.clone(), "export TMPDIR=$HOME/tmp (made before)"),
    }
}
