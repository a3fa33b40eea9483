//! Attacks on the kernel.

use std::ffi::CString;
use std::fs::{self, File, OpenOptions};
use std::io::Read as _;
use std::os::unix::fs::OpenOptionsExt as _;

use anyhow::{Context as _, Result, bail, ensure};
use nix::errno::Errno;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, unshare};

use super::NONE;

/// Opens a setting of the kernel for writing, and writes nothing: as it is; with the read-only mount
/// above it changed back, or taken away; in a new procfs.
// ANCHOR: setting
pub(super) fn setting(path: &str) -> Result<String> {
    let open = |path: &str| OpenOptions::new().write(true).open(path);
    let Err(first) = open(path) else { return Ok("open".into()) };
    let sys = "/proc/sys";
    let remount = mount(NONE, sys, NONE, MsFlags::MS_REMOUNT | MsFlags::MS_BIND, NONE);
    if remount.is_ok() && open(path).is_ok() {
        return Ok("open after a remount".into());
    }
    let unmount = umount2(sys, MntFlags::MNT_DETACH);
    if unmount.is_ok() && open(path).is_ok() {
        return Ok("open after an unmount".into());
    }
    let fresh = mount(Some("proc"), "/mnt", Some("proc"), MsFlags::empty(), NONE);
    if fresh.is_ok() && open(&path.replace("/proc", "/mnt")).is_ok() {
        return Ok("open in a new procfs".into());
    }
    bail!("{first}; remount {remount:?}; unmount {unmount:?}; new procfs {fresh:?}")
}
// ANCHOR_END: setting

/// Mounts a cgroup hierarchy, with the rights that we have and then with those of a new user namespace;
/// opens the file that says which program the kernel runs on the host when a group is empty (and writes
/// nothing), and leaves its limits. The options are version 2's.
pub(super) fn cgroup(options: &str) -> Result<String> {
    let before = fs::read_to_string("/proc/self/cgroup")?;
    let pids = before.lines().find(|line| line.split(':').nth(1) == Some("pids"));
    let (kind, data) = if pids.is_some() { ("cgroup", "pids") } else { ("cgroup2", options) };
    let attach = || mount(Some("x"), "/mnt", Some(kind), MsFlags::empty(), Some(data));
    if let Err(first) = attach() {
        let spaces =
            CloneFlags::CLONE_NEWUSER | CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_NEWCGROUP;
        unshare(spaces).with_context(|| format!("mount {first}; unshare"))?;
        attach().context("mount in a user namespace")?;
    }
    if kind == "cgroup" {
        OpenOptions::new().write(true).open("/mnt/release_agent").context("release_agent")?;
    }
    fs::write("/mnt/cgroup.procs", "0").context("cgroup.procs")?;
    let mine = fs::read_to_string("/proc/self/cgroup")?;
    let number = if kind == "cgroup" { ":pids:/" } else { "0::/" };
    ensure!(mine.lines().any(|line| line.ends_with(number)), "still in the group:\n{mine}");
    Ok("out of its cgroup".into())
}

/// What the kernel tells about the machine.
pub(super) fn peek() -> Result<String> {
    const READ_ALL: libc::c_int = 3; // syslog(2)
    let mut found = Vec::new();
    let mut log = [0_u8; 4096];
    // SAFETY: the buffer has the size passed.
    if unsafe { libc::syscall(libc::SYS_syslog, READ_ALL, log.as_mut_ptr(), log.len()) } > 0 {
        found.push("syslog");
    }
    let symbols = fs::read_to_string("/proc/kallsyms").unwrap_or_default();
    if symbols.lines().any(|line| !line.starts_with("0000000000000000")) {
        found.push("/proc/kallsyms");
    }
    if fs::read_to_string("/proc/keys").is_ok_and(|keys| !keys.is_empty()) {
        found.push("/proc/keys");
    }
    for path in ["/proc/kcore", "/dev/kmsg", "/dev/mem"] {
        let read = |mut file: File| file.read(&mut [0; 8192]).is_ok_and(|len| len > 0);
        let opened = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(path);
        if opened.is_ok_and(|file| path == "/dev/mem" || read(file)) {
            found.push(path);
        }
    }
    ensure!(!found.is_empty(), "nothing is told");
    Ok(found.join(" "))
}

/// The user's key of this name, from the session keyring that came with the process.
pub(super) fn key(name: &str) -> Result<String> {
    const SEARCH: libc::c_int = 10; // linux/keyctl.h
    const READ: libc::c_int = 11;
    const SESSION: libc::c_int = -3;
    let name = CString::new(name)?;
    let kind = c"user".as_ptr();
    // SAFETY: the strings are NUL-terminated and outlive the call.
    let id = unsafe { libc::syscall(libc::SYS_keyctl, SEARCH, SESSION, kind, name.as_ptr(), 0) };
    let id = Errno::result(id).context("keyctl")?;
    let mut text = [0_u8; 64];
    // SAFETY: the buffer has the size passed.
    let len = unsafe { libc::syscall(libc::SYS_keyctl, READ, id, text.as_mut_ptr(), text.len()) };
    let len = usize::try_from(Errno::result(len).context("keyctl")?)?;
    Ok(String::from_utf8_lossy(&text[..len]).into_owned())
}

/// Every capability, over new namespaces; and with them a mount.
pub(super) fn user_namespace() -> Result<String> {
    unshare(CloneFlags::CLONE_NEWUSER | CloneFlags::CLONE_NEWNS).context("unshare")?;
    mount(Some("tmpfs"), "/mnt", Some("tmpfs"), MsFlags::empty(), NONE).context("mount")?;
    Ok("mounted".into())
}

/// System calls that have let containers out, or concern the whole machine; called with arguments that
/// make no sense, so that nothing happens where they are allowed. What each answers.
pub(super) fn calls() -> String {
    let bad = -1_i64;
    let calls = [
        ("add_key", libc::SYS_add_key),
        ("bpf", libc::SYS_bpf),
        ("fanotify_init", libc::SYS_fanotify_init),
        ("fsopen", libc::SYS_fsopen),
        ("io_uring_setup", libc::SYS_io_uring_setup),
        ("keyctl", libc::SYS_keyctl),
        ("mount", libc::SYS_mount),
        ("move_mount", libc::SYS_move_mount),
        ("open_by_handle_at", libc::SYS_open_by_handle_at),
        ("open_tree", libc::SYS_open_tree),
        ("perf_event_open", libc::SYS_perf_event_open),
        ("pivot_root", libc::SYS_pivot_root),
        ("request_key", libc::SYS_request_key),
        ("setns", libc::SYS_setns),
        ("syslog", libc::SYS_syslog),
        ("umount2", libc::SYS_umount2),
        ("unshare", libc::SYS_unshare),
        ("userfaultfd", libc::SYS_userfaultfd),
    ];
    let answer = |&(name, number)| {
        // SAFETY: -1 is no valid file descriptor, address, command or set of flags, so that none of
        // these calls does anything but fail.
        let result = unsafe { libc::syscall(number, bad, bad, bad, bad, bad) };
        format!("{name} {:?}", Errno::result(result).err())
    };
    let mut answers: Vec<_> = calls.iter().map(answer).collect();
    // SAFETY: takes numbers only. (The socket is closed with us.)
    let hypervisor = unsafe { libc::socket(libc::AF_VSOCK, libc::SOCK_STREAM, 0) };
    answers.push(format!("socket(AF_VSOCK) {:?}", Errno::result(hypervisor).err()));
    answers.join("\n")
}

/// unshare(2) through the door of 32-bit programs, where it has another number.
#[cfg(target_arch = "x86_64")]
pub(super) fn old_door() -> Result<String> {
    const UNSHARE: u32 = 310; // arch/x86/entry/syscalls/syscall_32.tbl
    let answer: i32;
    // SAFETY: the call takes a number and touches no memory of ours; rbx, which is not ours to use, is
    // put back.
    unsafe {
        std::arch::asm!(
            "push rbx", "mov ebx, {flags:e}", "int 0x80", "pop rbx",
            flags = in(reg) libc::CLONE_NEWUSER,
            inlateout("eax") UNSHARE => answer,
            out("r8") _, out("r9") _, out("r10") _, out("r11") _,
        );
    }
    ensure!(answer == 0, "{}", Errno::from_raw(-answer));
    Ok("a new user namespace".into())
}

#[cfg(not(target_arch = "x86_64"))]
pub(super) fn old_door() -> Result<String> {
    bail!("only x86_64 has it")
}

/// Capabilities that a program could take over from its caller.
pub(super) fn inheritable() -> Result<String> {
    let status = fs::read_to_string("/proc/self/status")?;
    let line =
        status.lines().find_map(|line| line.strip_prefix("CapInh:\t")).context("no CapInh")?;
    ensure!(!line.trim_matches('0').is_empty(), "there are none");
    Ok("inherited".into())
}
