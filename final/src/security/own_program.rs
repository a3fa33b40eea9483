//! Our own program, out of the container's reach.
//!
//! A container can have us execute ourselves in it: its program is a link to /proc/self/exe, or a
//! script with that as interpreter. Then a process of the container is our program's file, opened on
//! the host's file system, and whoever may write or chmod(2) it owns the host's next container
//! (CVE-2019-5736). So we go on from a file that nobody can change.

use std::ffi::CString;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::ffi::OsStringExt as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use anyhow::{Context as _, Result, ensure};
use nix::errno::Errno;
use nix::fcntl::{FcntlArg, SealFlag, fcntl};
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::prctl;
use nix::sys::statvfs::{FsFlags, fstatvfs};
use nix::unistd::{AccessFlags, access, fexecve, geteuid};
use step03_rootfs::sys;

const EXE: &str = "/proc/self/exe";

/// First of all: executes ourselves again from a file that cannot be changed. Then it returns.
pub fn protect_own_program() -> Result<()> {
    let exe = File::open(EXE).with_context(|| format!("cannot open {EXE}"))?;
    if cannot_be_changed(&exe)? {
        // After the second exec it would be the number of the file descriptor.
        return prctl::set_name(c"final").context("cannot set our name");
    }
    let safe = match read_only() {
        Ok(mount) => File::from(mount),
        Err(_) => sealed_copy(exe).context("cannot make a copy of our program")?,
    };
    ensure!(cannot_be_changed(&safe)?, "our program can still be changed"); // or we would not end
    let word = |word: std::ffi::OsString| CString::new(word.into_vec());
    let args = std::env::args_os().map(word).collect::<Result<Vec<_>, _>>()?;
    let variables = std::env::vars_os().map(|(mut name, value)| {
        name.push("=");
        name.push(value);
        word(name)
    });
    let variables = variables.collect::<Result<Vec<_>, _>>()?;
    fexecve(safe, &args, &variables).context("cannot execute our program again")?;
    Ok(())
}

/// It is on a read-only mount, or sealed, or someone else's: a plain user's container can do no more
/// than the user.
fn cannot_be_changed(file: &File) -> Result<bool> {
    let failed = "cannot look at our program";
    let read_only = fstatvfs(file).context(failed)?.flags().contains(FsFlags::ST_RDONLY);
    let seals = fcntl(file, FcntlArg::F_GET_SEALS).map_or(0, |seals| seals);
    let sealed = seals & SealFlag::F_SEAL_WRITE.bits() != 0;
    let someone_elses = file.metadata().context(failed)?.uid() != geteuid().as_raw()
        && !geteuid().is_root()
        && matches!(access(EXE, AccessFlags::W_OK), Err(Errno::EACCES | Errno::EROFS));
    Ok(read_only || sealed || someone_elses)
}

/// A read-only mount of the file, attached to nothing: so nobody can remount it.
fn read_only() -> io::Result<OwnedFd> {
    let mount = sys::open_tree(Path::new(EXE), false)?;
    sys::mount_setattr(mount.as_fd(), sys::RDONLY, false)?;
    // The mount is known by an O_PATH file, from which alone one can execute, but not read.
    Ok(mount)
}

/// A copy in memory, for whoever may not mount.
fn sealed_copy(mut exe: File) -> Result<File> {
    const MFD_EXEC: u32 = 0x10; // Linux 6.3; where vm.memfd_noexec is set it has to be said
    let flags = MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING;
    let copy = match memfd_create(c"final", flags | MFdFlags::from_bits_retain(MFD_EXEC)) {
        Err(Errno::EINVAL) => memfd_create(c"final", flags)?,
        result => result?,
    };
    let mut copy = File::from(copy);
    io::copy(&mut exe, &mut copy)?;
    let seals = SealFlag::F_SEAL_SEAL
        | SealFlag::F_SEAL_SHRINK
        | SealFlag::F_SEAL_GROW
        | SealFlag::F_SEAL_WRITE;
    fcntl(&copy, FcntlArg::F_ADD_SEALS(seals))?;
    Ok(copy)
}
