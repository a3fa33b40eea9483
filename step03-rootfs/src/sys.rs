//! The kernel's mount calls, one function each.
//!
//! mount(8) uses the old mount(2), which takes paths. These newer calls (Linux 5.2 to 5.12)
//! take file descriptors: a mount is made first, attached to nothing, and put into its place
//! afterwards. So no path is looked up twice, and nobody can swap a directory for a symbolic
//! link between the look and the mount (CVE-2021-30465 was just that).

use std::ffi::{CStr, CString};
use std::io::{Error, Read as _, Result};
use std::os::fd::{AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd, RawFd};
use std::path::Path;
use std::ptr::null;

use nix::errno::Errno;

/// Attributes of a mount, from linux/mount.h: read-only, and so on.
pub const RDONLY: u64 = 0x1;
/// Set-user-ID bits have no effect.
pub const NOSUID: u64 = 0x2;
/// Device nodes cannot be opened.
pub const NODEV: u64 = 0x4;
/// Nothing can be executed.
pub const NOEXEC: u64 = 0x8;
/// Access times are kept to the letter, instead of roughly (relatime).
pub const STRICTATIME: u64 = 0x20;

const IDMAP: u64 = 0x10_0000; // MOUNT_ATTR_IDMAP

const FSOPEN_CLOEXEC: u32 = 1;
const FSCONFIG_SET_FLAG: u32 = 0;
const FSCONFIG_SET_STRING: u32 = 1;
const FSCONFIG_CMD_CREATE: u32 = 6;
const FSMOUNT_CLOEXEC: u32 = 1;
const MOVE_MOUNT_F_EMPTY_PATH: u32 = 0x04;
const MOVE_MOUNT_T_EMPTY_PATH: u32 = 0x40;
const EMPTY: &CStr = c"";

fn fd_from(result: libc::c_long) -> Result<OwnedFd> {
    let fd = RawFd::try_from(Errno::result(result)?).map_err(Error::other)?;
    // SAFETY: called with the result of a system call that has just made this fd for us.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// fsopen(2): begins a new file system of type `kind`.
pub fn fsopen(kind: &str) -> Result<OwnedFd> {
    let kind = CString::new(kind)?;
    // SAFETY: the string is NUL-terminated and outlives the call.
    fd_from(unsafe { libc::syscall(libc::SYS_fsopen, kind.as_ptr(), FSOPEN_CLOEXEC) })
}

/// fsconfig(2): sets an option, as in `mount -o KEY=VALUE` or `mount -o KEY`.
pub fn fsconfig(fs: BorrowedFd<'_>, key: &str, value: Option<&str>) -> Result<()> {
    let key = CString::new(key)?;
    let value = value.map(CString::new).transpose()?;
    let command = if value.is_some() { FSCONFIG_SET_STRING } else { FSCONFIG_SET_FLAG };
    let value = value.as_ref().map_or(null(), |value| value.as_ptr());
    let fd = fs.as_raw_fd();
    // SAFETY: key is NUL-terminated, value is that or null, and both outlive the call.
    let result = unsafe { libc::syscall(libc::SYS_fsconfig, fd, command, key.as_ptr(), value, 0) };
    Errno::result(result).map(drop).map_err(|errno| explain(fs, errno))
}

/// fsconfig(2): creates the file system, with the options set so far.
pub fn fsconfig_create(fs: BorrowedFd<'_>) -> Result<()> {
    let (fd, none) = (fs.as_raw_fd(), null::<libc::c_char>());
    // SAFETY: this command takes neither key nor value: both must be null.
    let result =
        unsafe { libc::syscall(libc::SYS_fsconfig, fd, FSCONFIG_CMD_CREATE, none, none, 0) };
    Errno::result(result).map(drop).map_err(|errno| explain(fs, errno))
}

/// The kernel leaves messages to be read from the fd: "e overlay: ..." says more than EINVAL.
fn explain(fs: BorrowedFd<'_>, errno: Errno) -> Error {
    let mut said = Vec::new();
    if let Ok(copy) = fs.try_clone_to_owned() {
        let mut log = std::fs::File::from(copy);
        let mut message = [0; 512];
        while let Ok(len @ 1..) = log.read(&mut message) {
            said.push(String::from_utf8_lossy(&message[..len]).trim().to_owned());
        }
    }
    let error = Error::from(errno);
    if said.is_empty() {
        error
    } else {
        Error::new(error.kind(), format!("{error}: {}", said.join("; ")))
    }
}

/// fsmount(2): a mount of that file system, attached to nothing yet.
pub fn fsmount(fs: BorrowedFd<'_>, attributes: u64) -> Result<OwnedFd> {
    let fd = fs.as_raw_fd();
    // SAFETY: takes numbers only.
    fd_from(unsafe { libc::syscall(libc::SYS_fsmount, fd, FSMOUNT_CLOEXEC, attributes) })
}

/// open_tree(2): a copy of what is mounted at `path` (with all below it if `recursive`), attached
/// to nothing yet: the first half of a bind mount.
pub fn open_tree(path: &Path, recursive: bool) -> Result<OwnedFd> {
    let path = CString::new(path.as_os_str().as_encoded_bytes())?;
    let mut flags = libc::OPEN_TREE_CLONE | libc::OPEN_TREE_CLOEXEC;
    if recursive {
        flags |= libc::AT_RECURSIVE.cast_unsigned();
    }
    // SAFETY: the path is NUL-terminated and outlives the call.
    fd_from(unsafe { libc::syscall(libc::SYS_open_tree, libc::AT_FDCWD, path.as_ptr(), flags) })
}

/// open_tree(2) of what `place` (an open path) shows.
pub fn open_tree_at(place: BorrowedFd<'_>) -> Result<OwnedFd> {
    let flags = libc::OPEN_TREE_CLONE
        | libc::OPEN_TREE_CLOEXEC
        | (libc::AT_RECURSIVE | libc::AT_EMPTY_PATH).cast_unsigned();
    let fd = place.as_raw_fd();
    // SAFETY: the path is a constant, NUL-terminated string.
    fd_from(unsafe { libc::syscall(libc::SYS_open_tree, fd, EMPTY.as_ptr(), flags) })
}

/// struct mount_attr of mount_setattr(2).
#[repr(C)]
struct MountAttr {
    set: u64,
    clear: u64,
    propagation: u64,
    userns_fd: u64,
}

/// mount_setattr(2): switches `attributes` on, for the mount, and if `recursive` for all below it.
pub fn mount_setattr(mount: BorrowedFd<'_>, attributes: u64, recursive: bool) -> Result<()> {
    let attr = MountAttr { set: attributes, clear: 0, propagation: 0, userns_fd: 0 };
    set(mount, &attr, if recursive { libc::AT_RECURSIVE } else { 0 })
}

/// mount_setattr(2): owners of files are seen through the maps of a user namespace from now on, "ID-mapped
/// mounts". The mount must not have been attached to anything yet.
pub fn idmap(mount: BorrowedFd<'_>, user_namespace: BorrowedFd<'_>) -> Result<()> {
    let userns_fd = u64::try_from(user_namespace.as_raw_fd()).map_err(Error::other)?;
    set(mount, &MountAttr { set: IDMAP, clear: 0, propagation: 0, userns_fd }, 0)
}

fn set(mount: BorrowedFd<'_>, attr: &MountAttr, flags: libc::c_int) -> Result<()> {
    let (fd, flags) = (mount.as_raw_fd(), libc::AT_EMPTY_PATH | flags);
    let (attr, size) = (&raw const *attr, size_of::<MountAttr>());
    // SAFETY: attr is struct mount_attr of mount_setattr(2), outlives the call, and has this size.
    let result =
        unsafe { libc::syscall(libc::SYS_mount_setattr, fd, EMPTY.as_ptr(), flags, attr, size) };
    Ok(Errno::result(result).map(drop)?)
}

/// move_mount(2): attaches the mount to the open path `place`.
pub fn move_mount(mount: BorrowedFd<'_>, place: BorrowedFd<'_>) -> Result<()> {
    let (mount, place) = (mount.as_raw_fd(), place.as_raw_fd());
    let flags = MOVE_MOUNT_F_EMPTY_PATH | MOVE_MOUNT_T_EMPTY_PATH;
    let empty = EMPTY.as_ptr();
    // SAFETY: both paths are a constant, NUL-terminated string.
    let result = unsafe { libc::syscall(libc::SYS_move_mount, mount, empty, place, empty, flags) };
    Ok(Errno::result(result).map(drop)?)
}
