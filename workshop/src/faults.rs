//! Faults: a program of which any system call can be made to fail, or be its last.
//!
//! A thread of ours puts a seccomp filter upon itself and starts the program, which inherits it. At
//! each call of interest the kernel then stops the program and asks us (seccomp_unotify(2)): we let
//! the call happen, or answer in its place with an error, or kill who made it. The program knows
//! nothing of it, so what is tested is what is shipped.
//!
//! The three processes (who was started, the container's monitor, and the container's first process
//! before its exec) are told apart, and the calls of each are numbered from 1. Each does its work in the
//! same order every time; how they interleave, nobody can say.

use std::fs::{self, File};
use std::os::fd::{AsFd as _, AsRawFd as _, FromRawFd as _, OwnedFd};
use std::os::unix::fs::FileExt as _;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::channel;
use std::thread::{JoinHandle, spawn};
use std::time::{Duration, Instant};
use std::{fmt, mem};

use libc::{
    BPF_ABS, BPF_JEQ, BPF_JMP, BPF_K, BPF_LD, BPF_RET, BPF_W, seccomp_data, seccomp_notif,
    seccomp_notif_resp, sock_filter, sock_fprog,
};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::prctl;
use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, gettid};
use syscalls::Sysno;

use crate::monitors::wait_for_end;
use crate::suite::{Outcome, finish};

/// The calls of interest: all that change something, and all whose failure a program has to notice.
/// Not every architecture has each.
const CALLS: &str = "
    accept4 access bind capset chdir chmod chown chroot clone clone3 close_range connect creat dup2
    dup3 epoll_create1 epoll_ctl eventfd2 execve execveat faccessat faccessat2 fchdir fchmod
    fchmodat fchmodat2 fchown fchownat fcntl flock fork fsconfig fsmount fsopen ftruncate getdents64
    ioctl keyctl kill lchown link linkat listen mkdir mkdirat mknod mknodat mount mount_setattr
    move_mount open open_tree openat openat2 pidfd_getfd pidfd_open pidfd_send_signal pipe2
    pivot_root poll ppoll prctl prlimit64 pwrite64 read readlink readlinkat recvfrom recvmsg rename
    renameat renameat2 rmdir rt_sigprocmask seccomp sendmsg sendto sethostname setgid setgroups
    setns setpgid setresgid setresuid setrlimit setsid setsockopt setuid signalfd4 socket socketpair
    statx symlink symlinkat truncate umount2 unlink unlinkat unshare vfork waitid write";

/// Which of the three.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// The program that was started.
    Runtime,
    /// Its child, which stays with the container.
    Monitor,
    /// The child of that one, up to the exec; and before it a child that only helps to make it.
    Container,
}

/// What happens at a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// It is not done, and returns ENOMEM: a kernel may always be short of memory, and nobody takes that
    /// for anything else.
    Error,
    /// It is not done: the process that asked for it is killed.
    Kill,
}

/// A place in a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Point {
    /// Whose call.
    pub role: Role,
    /// Its how many-th call; the first is 1.
    pub number: usize,
}

/// A system call, as far as we care.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Call {
    /// Who makes it.
    pub role: Role,
    /// Its name.
    pub name: &'static str,
    /// What it is about: a path, an open file, or a number. Empty where we may not look.
    pub object: String,
}

impl fmt::Display for Call {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}: {}({})", self.role, self.name, self.object)
    }
}

/// How a run with a fault went.
#[derive(Debug)]
pub struct Watched {
    /// How the program ended.
    pub outcome: Outcome,
    /// The call that the fault was put at; none if there were not so many.
    pub hit: Option<Call>,
    /// Whether the container was still there ten seconds after its monitor's end. (It is not any more.)
    pub outlived: bool,
}

/// Runs the program with a fault. `waiting` is called when the container runs and the program has
/// begun to wait for its end.
///
/// # Panics
/// If the kernel does not take the filter.
pub fn run(mut command: Command, fault: Option<(Point, Fault)>, waiting: impl FnOnce()) -> Watched {
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let (listener, starter, child) = start(command);
    let finisher = spawn(move || finish(child.join().expect("a child"), Duration::from_secs(60)));
    let watcher = Watcher {
        listener,
        starter,
        fault,
        runtime: None,
        monitor: None,
        container: None,
        executed: false,
        counts: [0; 3],
        hit: None,
    };
    let (hit, outlived) = watcher.serve(waiting, &finisher);
    Watched { outcome: finisher.join().expect("an outcome"), hit, outlived }
}

/// Starts the command from a thread that has the filter on, and that ends then.
fn start(mut command: Command) -> (OwnedFd, Pid, JoinHandle<Child>) {
    let (sender, receiver) = channel();
    let child = spawn(move || {
        sender.send((listen(), gettid())).expect("a receiver");
        command.spawn().unwrap_or_else(|error| panic!("cannot run {command:?}: {error}"))
    });
    let (listener, starter) = receiver.recv().expect("a listener");
    (listener, starter, child)
}

/// Puts the filter upon this thread and all that come of it; returns the listener.
fn listen() -> OwnedFd {
    const ARCH: u32 = if cfg!(target_arch = "x86_64") { 0xc000_003e } else { 0xc000_00b7 };
    let op = |code: u32, k, jt| {
        let code = u16::try_from(code).expect("an instruction of BPF");
        sock_filter { code, jt, jf: 0, k }
    };
    let load = |at| op(BPF_LD | BPF_W | BPF_ABS, u32::try_from(at).expect("a small offset"), 0);
    let jump_if = |value, over| op(BPF_JMP | BPF_JEQ | BPF_K, value, over);
    let answer = |action| op(BPF_RET | BPF_K, action, 0);
    let numbers: Vec<_> =
        CALLS.split_whitespace().filter_map(|name| name.parse::<Sysno>().ok()).collect();

    let mut program = vec![
        load(mem::offset_of!(seccomp_data, arch)),
        jump_if(ARCH, 1),
        answer(libc::SECCOMP_RET_ALLOW),
        load(mem::offset_of!(seccomp_data, nr)),
    ];
    for (at, number) in numbers.iter().enumerate() {
        let to_the_end = u8::try_from(numbers.len() - at).expect("fewer than 256 calls");
        program.push(jump_if(number.id().cast_unsigned(), to_the_end));
    }
    program.extend([libc::SECCOMP_RET_ALLOW, libc::SECCOMP_RET_USER_NOTIF].map(answer));

    prctl::set_no_new_privs().expect("no_new_privs");
    install(&mut program).expect("a filter with a listener (Linux 5.5)")
}

/// seccomp(2) with SECCOMP_SET_MODE_FILTER.
fn install(program: &mut [sock_filter]) -> nix::Result<OwnedFd> {
    let len = u16::try_from(program.len()).map_err(|_| Errno::E2BIG)?;
    let program = sock_fprog { len, filter: program.as_mut_ptr() };
    let (mode, flag) = (libc::SECCOMP_SET_MODE_FILTER, libc::SECCOMP_FILTER_FLAG_NEW_LISTENER);
    // SAFETY: the program is of the length that it says, and outlives the call.
    let fd = unsafe { libc::syscall(libc::SYS_seccomp, mode, flag, &raw const program) };
    let fd = i32::try_from(Errno::result(fd)?).map_err(|_| Errno::EBADF)?;
    // SAFETY: the kernel has just made this fd for us.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

mod ioctl {
    #![allow(missing_docs, reason = "nix's macros make public functions; see seccomp_unotify(2)")]
    nix::ioctl_readwrite!(receive, b'!', 0, libc::seccomp_notif);
    nix::ioctl_readwrite!(send, b'!', 1, libc::seccomp_notif_resp);
    nix::ioctl_write_ptr!(is_valid, b'!', 2, u64);
}

/// Who answers the kernel.
struct Watcher {
    listener: OwnedFd,
    /// Our own thread, which has the filter on, too.
    starter: Pid,
    fault: Option<(Point, Fault)>,
    runtime: Option<Pid>,
    monitor: Option<Pid>,
    container: Option<Pid>,
    /// Whether the container's program runs: its calls do not count.
    executed: bool,
    counts: [usize; 3],
    hit: Option<Call>,
}

impl Watcher {
    /// Answers until all processes with the filter have ended.
    fn serve<T>(mut self, waiting: impl FnOnce(), runtime: &JoinHandle<T>) -> (Option<Call>, bool) {
        let (mut waiting, mut ended, mut outlived) = (Some(waiting), None, false);
        loop {
            let mut fds = [PollFd::new(self.listener.as_fd(), PollFlags::POLLIN)];
            let _ = poll(&mut fds, PollTimeout::from(20_u8));
            let events = fds[0].revents().unwrap_or(PollFlags::empty());
            if events.contains(PollFlags::POLLIN) {
                if self.answer()
                    && let Some(waiting) = waiting.take()
                {
                    waiting();
                }
            } else if events.contains(PollFlags::POLLHUP) {
                // The filter goes before its files and locks do.
                self.monitor.into_iter().for_each(wait_for_end);
                return (self.hit, outlived);
            }
            // The runtime has ended when its outputs are read, or they are still held by its child.
            if runtime.is_finished() || self.runtime.is_some_and(is_gone) {
                let ended: &mut Instant = ended.get_or_insert_with(Instant::now);
                // A container goes on without who started it, until we end it; but not without its
                // monitor.
                let must_end = self.monitor.is_some_and(is_gone);
                let patience = Duration::from_secs(if must_end { 10 } else { 1 });
                if ended.elapsed() > patience
                    && let Some(container) = self.container.take()
                {
                    outlived = must_end;
                    let _ = kill(container, Signal::SIGKILL);
                }
            }
        }
    }

    /// Answers one question; true if the runtime now waits for its container.
    fn answer(&mut self) -> bool {
        // SAFETY: plain numbers, and the kernel wants all zeros (seccomp_unotify(2)).
        let mut question: seccomp_notif = unsafe { mem::zeroed() };
        let listener = self.listener.as_raw_fd();
        // SAFETY: the fd is a listener, and the pointer is to what the call fills in.
        if unsafe { ioctl::receive(listener, &raw mut question) }.is_err() {
            return false; // who asked has been killed
        }
        let mut answer = seccomp_notif_resp { id: question.id, val: 0, error: 0, flags: 1 };
        let name = name_of(&question.data);
        let role = self.role_of(&question, name);
        if let Some(role) = role {
            self.counts[role as usize] += 1;
            let at = Point { role, number: self.counts[role as usize] };
            if let Some((_, fault)) = self.fault.filter(|(point, _)| *point == at) {
                let object = object_of(&question, name).unwrap_or_default();
                self.hit = Some(Call { role, name, object });
                if fault == Fault::Kill {
                    self.kill(&question);
                    return false;
                }
                answer = seccomp_notif_resp { error: -libc::ENOMEM, flags: 0, ..answer };
            } else if role == Role::Container && name == "execve" {
                self.executed = true;
            }
        }
        // SAFETY: the fd is a listener, and the pointer is to an answer.
        let _ = unsafe { ioctl::send(listener, &raw mut answer) };
        self.executed && role == Some(Role::Runtime) && name.ends_with("poll")
    }

    /// Whose call it is, if it counts.
    fn role_of(&mut self, question: &seccomp_notif, name: &str) -> Option<Role> {
        let pid = Pid::from_raw(question.pid.cast_signed());
        let Some(runtime) = self.runtime else {
            if name == "execve" {
                self.runtime = Some(pid);
            }
            return None;
        };
        if is_trivial(question, name) {
            None
        } else if pid == runtime {
            Some(Role::Runtime)
        } else if pid == self.starter {
            None
        } else if *self.monitor.get_or_insert(pid) == pid {
            Some(Role::Monitor)
        } else if self.executed {
            None
        } else {
            // One that is there no longer was a helper's process: its calls are the container's first.
            if self.container.is_none_or(|known| known != pid && is_gone(known)) {
                self.container = Some(pid);
            }
            (self.container == Some(pid)).then_some(Role::Container)
        }
    }

    fn kill(&self, question: &seccomp_notif) {
        // SAFETY: the fd is a listener, and the pointer is to a number.
        if unsafe { ioctl::is_valid(self.listener.as_raw_fd(), &raw const question.id) }.is_ok() {
            // It waits for our answer, so the number still means this process.
            let _ = kill(Pid::from_raw(question.pid.cast_signed()), Signal::SIGKILL);
        }
    }
}

/// Whether it has ended, waited for or not.
fn is_gone(pid: Pid) -> bool {
    File::open(format!("/proc/{pid}/exe")).is_err()
}

fn name_of(data: &seccomp_data) -> &'static str {
    let number = usize::try_from(data.nr).ok().and_then(Sysno::new);
    number.map_or("?", |number| number.name())
}

/// What belongs to the C library, or to messages, rather than to the program's work.
fn is_trivial(question: &seccomp_notif, name: &str) -> bool {
    let args = question.data.args;
    match name {
        // The loader and its libraries.
        "openat" | "open" => object_of(question, name)
            .is_some_and(|path| path.contains(".so") || path == "/proc/self/maps"),
        "read" => {
            args[0] <= 2
                || object_of(question, name)
                    .is_some_and(|file| file.contains(".so") || file.ends_with("/maps"))
        }
        "write" => args[0] <= 2,
        "access" => object_of(question, name).is_some_and(|path| path.contains("ld.so")),
        // Is it open? A question of the language's library, in a build for debugging.
        "fcntl" => args[1] == libc::F_GETFD as u64,
        // How large may the stack be? A question of both libraries.
        "prlimit64" => args[1] == u64::from(libc::RLIMIT_STACK) && args[2] == 0,
        // With a time limit it is the language's library, which asks if 0, 1 and 2 are open.
        "poll" => args[2] & 0xffff_ffff != 0xffff_ffff,
        _ => false,
    }
}

/// What a call is about.
fn object_of(question: &seccomp_notif, name: &str) -> Option<String> {
    let (pid, args) = (question.pid, question.data.args);
    let file = || {
        let link = fs::read_link(format!("/proc/{pid}/fd/{}", args[0])).ok()?;
        Some(link.to_string_lossy().into_owned())
    };
    match name {
        "open" | "creat" | "mkdir" | "rmdir" | "unlink" | "rename" | "link" | "chmod" | "chown"
        | "lchown" | "access" | "chdir" | "execve" | "readlink" | "mknod" | "mount" | "umount2"
        | "pivot_root" | "fsopen" | "sethostname" | "truncate" | "chroot" => string(pid, args[0]),
        "symlink" => string(pid, args[1]),
        "fsconfig" => string(pid, args[2]).or_else(|| Some("create".to_owned())),
        "open_tree" | "move_mount" | "mount_setattr" | "statx" => {
            let path = string(pid, args[1]).filter(|path| !path.is_empty());
            path.or_else(|| Some(format!("open {}", file()?)))
        }
        "symlinkat" => string(pid, args[2]),
        "prctl" | "keyctl" | "socket" | "rt_sigprocmask" | "unshare" | "poll" | "waitid" => {
            Some(args[0].to_string())
        }
        "fcntl" => Some(format!("{} {}", args[1], file()?)),
        "prlimit64" | "ioctl" | "setsockopt" => Some(args[1].to_string()),
        other if other.ends_with("at") || other.ends_with("at2") => string(pid, args[1]),
        _ => file(),
    }
}

/// The string at an address of a process: part of a page, up to its NUL.
fn string(pid: u32, address: u64) -> Option<String> {
    let mut bytes = [0; 256];
    let memory = File::open(format!("/proc/{pid}/mem")).ok()?;
    let len = memory.read_at(&mut bytes, address).ok()?;
    let end = bytes[..len].iter().position(|&byte| byte == 0)?;
    Some(String::from_utf8_lossy(&bytes[..end]).into_owned())
}
