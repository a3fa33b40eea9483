//! Which system calls a container may make (seccomp(2)).

use std::collections::BTreeMap;

use anyhow::{Context as _, Result, bail, ensure};
use caps::{Capability, CapsHashSet};
use nix::errno::Errno;
use oci_spec::runtime::{
    LinuxSeccomp, LinuxSeccompAction, LinuxSeccompArg, LinuxSeccompOperator, LinuxSyscall,
};
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter,
    SeccompRule, sock_filter,
};
use serde_json::{Value, json};
use syscalls::Sysno;

/// docker's default profile, for a container with docker's default capabilities: all that a
/// program needs, without what is obsolete, concerns the whole machine, or has let containers out
/// again and again (userns and mounts, bpf, io_uring, keys). Names from moby's
/// profiles/seccomp/default.json and the io_uring change of Docker 25.
const ALLOWED: &str = "
    accept accept4 access adjtimex alarm arch_prctl bind brk cachestat capget capset chdir chmod
    chown clock_adjtime clock_getres clock_gettime clock_nanosleep close close_range connect
    copy_file_range creat dup dup2 dup3 epoll_create epoll_create1 epoll_ctl epoll_pwait
    epoll_pwait2 epoll_wait eventfd eventfd2 execve execveat exit exit_group faccessat faccessat2
    fadvise64 fallocate fanotify_mark fchdir fchmod fchmodat fchmodat2 fchown fchownat fcntl
    fdatasync fgetxattr flistxattr flock fork fremovexattr fsetxattr fstat fstatfs fsync ftruncate
    futex futex_requeue futex_wait futex_waitv futex_wake futimesat get_robust_list
    get_thread_area getcpu getcwd getdents getdents64 getegid geteuid getgid getgroups getitimer
    getpeername getpgid getpgrp getpid getppid getpriority getrandom getresgid getresuid getrlimit
    getrusage getsid getsockname getsockopt gettid gettimeofday getuid getxattr inotify_add_watch
    inotify_init inotify_init1 inotify_rm_watch io_cancel io_destroy io_getevents io_pgetevents
    io_setup io_submit ioctl ioprio_get ioprio_set kill landlock_add_rule landlock_create_ruleset
    landlock_restrict_self lchown lgetxattr link linkat listen listxattr llistxattr lremovexattr
    lseek lsetxattr lstat madvise map_shadow_stack membarrier memfd_create memfd_secret mincore
    mkdir mkdirat mknod mknodat mlock mlock2 mlockall mmap modify_ldt mprotect mq_getsetattr
    mq_notify mq_open mq_timedreceive mq_timedsend mq_unlink mremap mseal msgctl msgget msgrcv
    msgsnd msync munlock munlockall munmap name_to_handle_at nanosleep newfstatat open openat
    openat2 pause pidfd_open pidfd_send_signal pipe pipe2 pkey_alloc pkey_free pkey_mprotect poll
    ppoll prctl pread64 preadv preadv2 prlimit64 process_mrelease process_vm_readv
    process_vm_writev pselect6 ptrace pwrite64 pwritev pwritev2 read readahead readlink readlinkat
    readv recvfrom recvmmsg recvmsg remap_file_pages removexattr rename renameat renameat2
    restart_syscall riscv_flush_icache rmdir rseq rt_sigaction rt_sigpending rt_sigprocmask
    rt_sigqueueinfo rt_sigreturn rt_sigsuspend rt_sigtimedwait rt_tgsigqueueinfo
    sched_get_priority_max sched_get_priority_min sched_getaffinity sched_getattr sched_getparam
    sched_getscheduler sched_rr_get_interval sched_setaffinity sched_setattr sched_setparam
    sched_setscheduler sched_yield seccomp select semctl semget semop semtimedop sendfile sendmmsg
    sendmsg sendto set_robust_list set_thread_area set_tid_address setfsgid setfsuid setgid
    setgroups setitimer setpgid setpriority setregid setresgid setresuid setreuid setrlimit setsid
    setsockopt setuid setxattr shmat shmctl shmdt shmget shutdown sigaltstack signalfd signalfd4
    socketpair splice stat statfs statx symlink symlinkat sync sync_file_range syncfs sysinfo tee
    tgkill time timer_create timer_delete timer_getoverrun timer_gettime timer_settime
    timerfd_create timerfd_gettime timerfd_settime times tkill truncate umask uname unlink unlinkat
    utime utimensat utimes vfork vmsplice wait4 waitid write writev chroot";

/// What docker allows beside that to who has the capability that the kernel asks for.
const WITH_CAPABILITY: [(Capability, &str); 13] = [
    (Capability::CAP_BPF, "bpf"),
    (Capability::CAP_DAC_READ_SEARCH, "open_by_handle_at"),
    (Capability::CAP_PERFMON, "perf_event_open"),
    (
        Capability::CAP_SYS_ADMIN,
        "bpf clone clone3 fanotify_init fsconfig fsmount fsopen fspick lookup_dcookie mount
         mount_setattr move_mount open_tree perf_event_open quotactl quotactl_fd setdomainname
         sethostname setns syslog umount2 unshare",
    ),
    (Capability::CAP_SYS_BOOT, "reboot"),
    (Capability::CAP_SYS_MODULE, "delete_module finit_module init_module"),
    (Capability::CAP_SYS_NICE, "get_mempolicy mbind set_mempolicy set_mempolicy_home_node"),
    (Capability::CAP_SYS_PACCT, "acct"),
    (Capability::CAP_SYS_PTRACE, "kcmp pidfd_getfd process_madvise"),
    (Capability::CAP_SYS_RAWIO, "ioperm iopl"),
    (Capability::CAP_SYS_TIME, "clock_settime settimeofday"),
    (Capability::CAP_SYS_TTY_CONFIG, "vhangup"),
    (Capability::CAP_SYSLOG, "syslog"),
];

/// The personalities that only choose an ABI for old programs: PER_LINUX, PER_LINUX32, with and
/// without UNAME26, and the value that only asks (personality(2)).
const PERSONALITIES: [u64; 5] = [0x0, 0x8, 0x2_0000, 0x2_0008, 0xffff_ffff];

/// CLONE_NEW* of clone(2). No new namespaces: a user namespace has every capability inside, and
/// with it much of the kernel that is otherwise out of reach.
const NAMESPACE_FLAGS: u64 = 0x7e02_0000;

/// AF_VSOCK reaches the hypervisor past every network namespace.
const AF_VSOCK: u64 = 40;

/// The profile for these capabilities, as it stands in config.json (OCI runtime-spec, config-linux.md,
/// "Seccomp").
#[must_use]
pub fn profile(capabilities: &CapsHashSet) -> Value {
    let allow = |name: &str, op: &str, value: u64, two: u64| {
        let arg = json!({ "index": 0, "op": op, "value": value, "valueTwo": two });
        json!({ "names": [name], "action": "SCMP_ACT_ALLOW", "args": [arg] })
    };
    let more = WITH_CAPABILITY.iter().filter(|(needed, _)| capabilities.contains(needed));
    let more = more.flat_map(|(_, names)| names.split_whitespace());
    let names: Vec<_> = ALLOWED.split_whitespace().chain(more).collect();
    let mut syscalls = vec![
        json!({ "names": names, "action": "SCMP_ACT_ALLOW" }),
        allow("clone", "SCMP_CMP_MASKED_EQ", NAMESPACE_FLAGS, 0),
        allow("socket", "SCMP_CMP_NE", AF_VSOCK, 0),
    ];
    if !names.contains(&"clone3") {
        // A filter sees numbers, not what a pointer points to, and clone3's flags are behind
        // one. ENOSYS makes every libc fall back to clone, whose flags it sees.
        syscalls.push(
            json!({ "names": ["clone3"], "action": "SCMP_ACT_ERRNO", "errnoRet": libc::ENOSYS }),
        );
    }
    syscalls.extend(PERSONALITIES.map(|p| allow("personality", "SCMP_CMP_EQ", p, 0)));
    json!({ "defaultAction": "SCMP_ACT_ERRNO", "defaultErrnoRet": libc::EPERM, "syscalls": syscalls })
}

/// The profile as programs for the kernel's BPF machine.
///
/// seccompiler's filters know two outcomes, match or not, and a profile may have more. So there
/// is one filter for what is allowed, and one more for every other action; of several filters
/// the kernel takes the strictest answer.
pub struct Filters(Vec<BpfProgram>);

type Rules = BTreeMap<i64, Vec<SeccompRule>>;

impl Filters {
    /// Compiles it. A call of another architecture's ends the program, whatever the profile says of it.
    pub fn compile(profile: &LinuxSeccomp) -> Result<Self> {
        let flags = profile.flags().iter().flatten().count() > 0;
        ensure!(!flags, "the flags of a seccomp profile are not supported");
        let listener = profile.listener_path().is_some() || profile.listener_metadata().is_some();
        ensure!(!listener, "the listener of a seccomp profile is not supported");
        let default = action(profile.default_action(), profile.default_errno_ret())?;
        let mut allowed = Rules::new();
        let mut others: Vec<(SeccompAction, Rules)> = Vec::new();
        for entry in profile.syscalls().iter().flatten() {
            let outcome = action(entry.action(), entry.errno_ret())?;
            if outcome == default {
                continue;
            }
            add(&mut allowed, entry)?;
            if outcome != SeccompAction::Allow {
                let mut rules = Rules::new();
                add(&mut rules, entry)?;
                others.push((outcome, rules));
            }
        }
        let arch = std::env::consts::ARCH.try_into()?;
        // Where all is allowed that is not named, there is nothing to be said about the rest.
        let allowed = (default != SeccompAction::Allow)
            .then(|| SeccompFilter::new(allowed, default, SeccompAction::Allow, arch));
        let others = others
            .into_iter()
            .map(|(outcome, rules)| SeccompFilter::new(rules, SeccompAction::Allow, outcome, arch));
        let compiled = allowed
            .into_iter()
            .chain(others)
            .map(|filter| filter.and_then(BpfProgram::try_from).map(|program| shortened(&program)))
            .collect::<Result<_, _>>();
        Ok(Self(compiled.context("cannot compile the seccomp profile")?))
    }

    /// Applies them, to this thread and all that come of it. It takes no_new_privs or CAP_SYS_ADMIN. The
    /// first to come must still allow seccomp(2): the strictest comes last.
    pub fn apply(&self) -> Result<()> {
        self.0.iter().rev().try_for_each(apply).context("cannot apply the seccomp profile")
    }
}

/// seccomp(2). seccompiler's own function would set no_new_privs as well.
fn apply(program: &BpfProgram) -> Result<()> {
    let filter = program.as_ptr().cast::<libc::sock_filter>().cast_mut();
    let program = libc::sock_fprog { len: u16::try_from(program.len())?, filter };
    let (mode, flags) = (libc::SECCOMP_SET_MODE_FILTER, 0);
    // SAFETY: both structs have the kernel's layout, and the kernel only reads them, during the call.
    let result = unsafe { libc::syscall(libc::SYS_seccomp, mode, flags, &raw const program) };
    Errno::result(result).map(drop).context("seccomp")
}

/// seccompiler spends five instructions on a call that is always allowed, where two will do:
/// `if not this call, go on; allow`. To know what it need not ask a filter again, the kernel runs a
/// new one for every call number that there is, so the length is felt at every start.
fn shortened(program: &[sock_filter]) -> BpfProgram {
    const JUMP_IF_EQUAL: u16 = 0x15;
    const JUMP: u16 = 0x05;
    const RETURN: u16 = 0x06;
    let mut short = BpfProgram::new();
    let mut rest = program;
    while let Some((first, tail)) = rest.split_first() {
        short.push(first.clone());
        rest = match tail {
            [on, past, allow, deny, next @ ..]
                if (first.code, first.jt, first.jf) == (JUMP_IF_EQUAL, 0, 1)
                    && ((on.code, on.k), (past.code, past.k)) == ((JUMP, 1), (JUMP, 2))
                    && (allow.code, deny.code) == (RETURN, RETURN) =>
            {
                short.push(allow.clone());
                next
            }
            _ => tail,
        };
    }
    short
}

fn action(action: LinuxSeccompAction, errno: Option<u32>) -> Result<SeccompAction> {
    Ok(match action {
        LinuxSeccompAction::ScmpActAllow => SeccompAction::Allow,
        LinuxSeccompAction::ScmpActErrno => {
            SeccompAction::Errno(errno.unwrap_or(libc::EPERM.cast_unsigned()))
        }
        LinuxSeccompAction::ScmpActKillProcess => SeccompAction::KillProcess,
        LinuxSeccompAction::ScmpActKill | LinuxSeccompAction::ScmpActKillThread => {
            SeccompAction::KillThread
        }
        LinuxSeccompAction::ScmpActLog => SeccompAction::Log,
        LinuxSeccompAction::ScmpActTrap => SeccompAction::Trap,
        other => bail!("the seccomp action {other:?} is not supported"),
    })
}

/// Adds the entry's names; those that this architecture does not have are passed over, as the
/// profile is written for all of them.
fn add(rules: &mut Rules, entry: &LinuxSyscall) -> Result<()> {
    let conditions: Vec<_> = entry.args().iter().flatten().map(condition).collect::<Result<_>>()?;
    for number in entry.names().iter().filter_map(|name| name.parse::<Sysno>().ok()) {
        let number = number.id().into();
        // A call with an empty list of rules matches always; nothing narrows it any more.
        let always = rules.get(&number).is_some_and(Vec::is_empty);
        if conditions.is_empty() {
            rules.insert(number, Vec::new());
        } else if !always {
            rules.entry(number).or_default().push(SeccompRule::new(conditions.clone())?);
        }
    }
    Ok(())
}

fn condition(arg: &LinuxSeccompArg) -> Result<SeccompCondition> {
    let (value, two) = (arg.value(), arg.value_two().unwrap_or(0));
    let (op, value) = match arg.op() {
        LinuxSeccompOperator::ScmpCmpNe => (SeccompCmpOp::Ne, value),
        LinuxSeccompOperator::ScmpCmpLt => (SeccompCmpOp::Lt, value),
        LinuxSeccompOperator::ScmpCmpLe => (SeccompCmpOp::Le, value),
        LinuxSeccompOperator::ScmpCmpEq => (SeccompCmpOp::Eq, value),
        LinuxSeccompOperator::ScmpCmpGe => (SeccompCmpOp::Ge, value),
        LinuxSeccompOperator::ScmpCmpGt => (SeccompCmpOp::Gt, value),
        LinuxSeccompOperator::ScmpCmpMaskedEq => (SeccompCmpOp::MaskedEq(value), two),
    };
    // Of an argument that is a C int the kernel does not read the register's upper half. "Not 40" would
    // be true of 40 with something in there.
    let low = op == SeccompCmpOp::Ne && u32::try_from(value).is_ok();
    let len = if low { SeccompCmpArgLen::Dword } else { SeccompCmpArgLen::Qword };
    Ok(SeccompCondition::new(u8::try_from(arg.index())?, len, op, value)?)
}

#[cfg(test)]
mod tests {
    use caps::CapsHashSet;
    use seccompiler::{SeccompAction, SeccompFilter, sock_filter};

    use super::{Filters, Rules, profile, shortened};

    /// What the program answers to a call of this number: the kernel's machine, as far as these
    /// programs use it (linux/filter.h).
    fn answer(program: &[sock_filter], number: u32) -> u32 {
        const X86_64: u32 = 0xc000_003e;
        const AARCH64: u32 = 0xc000_00b7;
        let arch = if cfg!(target_arch = "x86_64") { X86_64 } else { AARCH64 };
        let (mut at, mut loaded) = (0, 0);
        loop {
            let step = &program[at];
            at += 1;
            match step.code {
                0x20 => loaded = [number, arch, 0, 0][(step.k as usize / 4).min(3)],
                0x05 => at += step.k as usize,
                0x15 => at += usize::from(if loaded == step.k { step.jt } else { step.jf }),
                0x06 => return step.k,
                0x54 => loaded &= step.k,
                0x25 => at += usize::from(if loaded > step.k { step.jt } else { step.jf }),
                0x35 => at += usize::from(if loaded >= step.k { step.jt } else { step.jf }),
                other => panic!("unknown instruction {other:#x}"),
            }
        }
    }

    #[test]
    fn a_shortened_filter_gives_the_same_answers() {
        let mut rules = Rules::new();
        for number in (0..300).step_by(3) {
            rules.insert(number, Vec::new());
        }
        let arch = std::env::consts::ARCH.try_into().unwrap();
        let filter = SeccompFilter::new(rules, SeccompAction::Errno(1), SeccompAction::Allow, arch);
        let long: seccompiler::BpfProgram = filter.unwrap().try_into().unwrap();
        let short = shortened(&long);
        assert!(short.len() * 2 < long.len());
        for number in 0..500 {
            assert_eq!(answer(&short, number), answer(&long, number), "{number}");
        }
    }

    #[test]
    fn the_profile_compiles_and_denies_by_default() {
        let profile = serde_json::from_value(profile(&CapsHashSet::new())).unwrap();
        let Filters(programs) = Filters::compile(&profile).unwrap();
        let denied = 0x0005_0000 | libc::EPERM.cast_unsigned();
        assert_eq!(answer(&programs[0], 9999), denied);
        let allowed = u32::try_from(libc::SYS_read).unwrap();
        assert_eq!(answer(&programs[0], allowed), 0x7fff_0000);
        // The calls of x32, a third ABI of x86_64, are those of this one with a bit set.
        assert_eq!(answer(&programs[0], 0x4000_0000 | allowed), denied);
        let mount = u32::try_from(libc::SYS_mount).unwrap();
        assert_eq!(answer(&programs[0], mount), denied);
    }
}
