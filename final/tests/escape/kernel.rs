//! Into the kernel, which is the host's.

use workshop::lab::Who;
use workshop::suite::{Outcome, command, read, run};

use crate::{FINAL, PATIENCE, fails, in_final, in_step1, in_step3, works};

/// /proc/sys is mounted read-only over itself. Who has CAP_SYS_ADMIN takes that away, or mounts another
/// procfs. core_pattern names a program that the kernel runs on the host, as root, when a program
/// crashes; a plain user's container has only the settings of its own network.
///
/// In ours mount(2) and umount2(2) are denied twice: no CAP_SYS_ADMIN, and not in the seccomp profile.
pub fn settings_behind_a_read_only_mount(who: Who) {
    let setting = match who {
        Who::Root => "/proc/sys/kernel/core_pattern",
        _ => "/proc/sys/net/ipv4/ip_forward",
    };
    works(in_step3(&[], &["!setting", setting]), "open after a remount");
    let denied = "remount Err(EPERM); unmount Err(EPERM); new procfs Err(EPERM)";
    fails(in_final(&[], &["!setting", setting]), denied);
}

/// CVE-2022-0492 and its elders: a cgroup of version 1 names a program that the kernel runs on the host
/// when the last process has left. Who may mount the hierarchy writes his own there. Version 2 has no
/// such thing, but who may write to it leaves its limits.
///
/// In ours cgroups are not mounted, or read-only (`default_mounts` in step03's mount.rs); the hierarchy
/// cannot be mounted, nor a user namespace made in which it could.
///
/// We open release_agent and write nothing to it: it is this machine's. So are version 2's mount options,
/// which the next mount sets anew for all: without nsdelegate nobody's containers would be confined to
/// their groups any more. We mount with those that there are.
pub fn the_release_agent_of_a_cgroup(_: Who) {
    let mounts = read("/proc/self/mountinfo");
    let options =
        mounts.lines().find_map(|line| line.split_once(" - cgroup2 ")?.1.split(' ').next_back());
    let attack = ["!cgroup", options.unwrap_or_default()];
    works(in_step3(&["--share", "cgroup", "--pids", "50"], &attack), "out of its cgroup");
    fails(
        in_final(&["--pids-limit", "50"], &attack),
        "mount EPERM: Operation not permitted; unshare",
    );
}

/// The kernel has one log, one list of its symbols and of its keys; the log has addresses in it, and
/// memory has everything (/proc/kcore, /dev/mem).
///
/// Ours lacks CAP_SYSLOG; /proc/kcore and /proc/keys are masked, and /dev has six nodes and no more.
pub fn what_the_kernel_knows(_: Who) {
    let weak = run(&mut in_step1(&[], &["!peek"]), PATIENCE);
    for told in ["syslog", "/proc/kallsyms", "/proc/keys", "/dev/kmsg"] {
        assert!(weak.stdout.contains(told), "the attack is broken: {told} is not in {weak:?}");
    }
    fails(in_final(&[], &["!peek"]), "nothing is told");
}

/// Keys are in no namespace. The session keyring of whoever starts the container goes along with the
/// process, and may open his disk or his mail (session-keyring(7)).
///
/// Ours joins a new one (`new_session_keyring` in security), and the seccomp profile has no keyctl.
pub fn the_callers_keys(_: Who) {
    const JOIN_SESSION_KEYRING: libc::c_int = 1; // linux/keyctl.h
    let none = std::ptr::null::<libc::c_char>();
    // SAFETY: a null name asks for an anonymous keyring, of this test's process alone.
    let joined = unsafe { libc::syscall(libc::SYS_keyctl, JOIN_SESSION_KEYRING, none) };
    nix::errno::Errno::result(joined).unwrap();
    let (kind, name, secret) = (c"user".as_ptr(), c"workshop".as_ptr(), "open sesame");
    let (text, len, session) = (secret.as_ptr(), secret.len(), -3);
    // SAFETY: the strings are NUL-terminated, or have the size passed, and outlive the call.
    let added = unsafe { libc::syscall(libc::SYS_add_key, kind, name, text, len, session) };
    nix::errno::Errno::result(added).unwrap();
    works(in_step3(&[], &["!key", "workshop"]), secret);
    fails(in_final(&[], &["!key", "workshop"]), "keyctl: EPERM");
}

/// Everybody may make a user namespace, and has all capabilities in it. They are over what belongs to
/// it only; but behind them is much code of the kernel that nobody but root could reach before, and many
/// a hole has been found there.
///
/// Ours has no unshare, and no clone with such flags, in the seccomp profile (NAMESPACE_FLAGS).
pub fn capabilities_in_a_new_user_namespace(_: Who) {
    works(in_step3(&[], &["!user-namespace"]), "mounted");
    fails(in_final(&[], &["!user-namespace"]), "unshare: EPERM");
}

/// bpf, io_uring, perf_event_open, userfaultfd, keys: large parts of the kernel that containers seldom
/// need, and that have let them out again and again (CVE-2016-0728, CVE-2017-16995, CVE-2022-0185).
///
/// Ours has a seccomp profile, docker's. Where the kernel itself denies a call to a plain user (EPERM,
/// as with bpf), there is nothing to be shown for it.
pub fn dangerous_system_calls(who: Who) {
    let answers = |outcome: &Outcome| -> Vec<(String, String)> {
        let split = |line: &str| line.split_once(' ').map(|(n, a)| (n.to_owned(), a.to_owned()));
        outcome.stdout.lines().filter_map(split).collect()
    };
    let weak = answers(&run(&mut in_step3(&[], &["!calls"]), PATIENCE));
    let ours = answers(&run(&mut in_final(&[], &["!calls"]), PATIENCE));
    let reached = |(_, answer): &&(String, String)| {
        !["Some(EPERM)", "Some(ENOSYS)"].contains(&answer.as_str())
    };
    let open = weak.iter().filter(reached).count();
    let enough = if who == Who::Root { weak.len() } else { weak.len() / 2 };
    assert!(open >= enough && open > 0, "the attack is broken: {weak:?}");
    assert_eq!(ours.len(), weak.len(), "{ours:?}");
    assert!(ours.iter().all(|(_, answer)| answer == "Some(EPERM)"), "{ours:?}");
}

/// A 64-bit kernel has a second door, for 32-bit programs (int 0x80), behind which system calls have
/// other numbers. A filter that looks at the number only lets unshare(2) pass there as another call.
///
/// Ours ends a process that uses it: the filter looks at the architecture first, as seccompiler makes
/// all of them. So 32-bit programs do not run; docker's profile lists their calls, too.
#[cfg(target_arch = "x86_64")]
pub fn the_door_of_32_bit_programs(_: Who) {
    works(in_step3(&[], &["!old-door"]), "a new user namespace");
    let ours = run(&mut in_final(&[], &["!old-door"]), PATIENCE);
    assert_eq!(ours.status, Some(128 + libc::SIGSYS), "{ours:?}");
}

#[cfg(not(target_arch = "x86_64"))]
pub fn the_door_of_32_bit_programs(_: Who) {}

/// CVE-2022-24769 and CVE-2022-29162: inheritable capabilities add to what a program with file
/// capabilities gets, so a process should not have more of them than its caller meant.
///
/// Ours clears them (`limit_capabilities` in security).
pub fn capabilities_from_the_caller(_: Who) {
    let all = caps::read(None, caps::CapSet::Permitted).unwrap();
    caps::set(None, caps::CapSet::Inheritable, &all).unwrap();
    works(in_step3(&[], &["!inheritable"]), "inherited");
    fails(in_final(&[], &["!inheritable"]), "there are none");
    let _box = crate::start(&[], "host");
    fails(command(FINAL, &["exec", "box", "/probe", "!inheritable"]), "there are none");
}
