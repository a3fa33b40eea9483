//! The namespaces of a lab, and who one is in it.

use std::ffi::{CString, OsStr, OsString};
use std::fs::{self, File};
use std::io::Write as _;
use std::os::unix::fs::MetadataExt as _;
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;

use anyhow::{Context as _, Result, anyhow, bail};
use nix::errno::Errno;
use nix::fcntl::AT_FDCWD;
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, setns, unshare};
use nix::sys::prctl;
use nix::sys::signal::{SigHandler, Signal, signal};
use nix::sys::stat::{FchmodatFlags, Mode, SFlag, fchmodat, makedev, mknod};
use nix::sys::wait::{WaitStatus, wait};
use nix::unistd::{
    ForkResult, Gid, Pid, Uid, chown, fork, getegid, geteuid, getpgrp, mkdtemp, setgid, setgroups,
    sethostname, setpgid, setuid, tcsetpgrp,
};

use crate::snapshot::Snapshot;
use crate::{internet, wire};

/// Who one is in a lab.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Who {
    /// Root of the machine: no user namespace, so the kernel treats us as it treats root.
    Root,
    /// A plain user who is root in the lab's user namespace.
    LabRoot,
    /// A plain user who is nothing more in the lab.
    Plain,
    /// A plain user on the machine itself: in a lab's user namespace setgroups(2) is denied for ever,
    /// so what must be written for that can be tried only outside. See [`without`].
    User,
}

impl Who {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Root, Self::LabRoot, Self::Plain, Self::User];

    /// As tests are named.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Root => "root",
            Self::LabRoot => "lab-root",
            Self::Plain => "plain",
            Self::User => "user",
        }
    }

    /// As people are told.
    #[must_use]
    pub fn words(self) -> &'static str {
        match self {
            Self::Root => "as root",
            Self::LabRoot => "as root of the lab",
            Self::Plain => "as a plain user of the lab",
            Self::User => "as a plain user, outside of the lab",
        }
    }

    /// What a lab makes of its caller without being told: root stays root.
    #[must_use]
    pub fn of_caller() -> Self {
        if geteuid().is_root() { Self::Root } else { Self::LabRoot }
    }
}

/// Whether we are in the first user namespace, where every id is itself.
pub(crate) fn in_first_user_namespace() -> bool {
    fs::read_to_string("/proc/self/uid_map")
        .is_ok_and(|map| map.split_whitespace().eq(["0", "0", "4294967295"]))
}

/// Whether we are root of the machine: root of another user namespace is root of what belongs to that.
pub(crate) fn is_machines_root() -> bool {
    geteuid().is_root() && in_first_user_namespace()
}

/// How a process ended, as a shell says it: 128+n for signal n.
pub(crate) fn exit_status(ended: ExitStatus) -> i32 {
    ended.code().unwrap_or_else(|| 128 + ended.signal().unwrap_or(0))
}

/// The plain user that root becomes for a lab; a plain user stays who he is.
pub(crate) const PLAIN_USER: u32 = 1000;

/// Where a lab shows the directory of our programs, which a plain user may not reach otherwise: it
/// could be below /root.
pub const PROGRAMS: &str = "/mnt/programs";

/// Runs `inside` as a process of a new lab, and returns how it ended. With `check`, something left
/// behind on the lab's host is a failure, too.
///
/// Call it from a process with one thread: what follows a fork is a copy of the calling thread.
pub fn run(who: Who, check: bool, inside: impl FnOnce() -> i32) -> Result<ExitStatus> {
    let was_root = geteuid().is_root();
    if who == Who::Root && !was_root {
        bail!("only root can have a lab as root");
    }
    // A Ctrl-C is for what runs inside; we stay until it is done.
    ignore(&[Signal::SIGINT, Signal::SIGQUIT])?;
    let mut spaces = CloneFlags::CLONE_NEWNS
        | CloneFlags::CLONE_NEWNET
        | CloneFlags::CLONE_NEWPID
        | CloneFlags::CLONE_NEWIPC
        | CloneFlags::CLONE_NEWUTS;
    if was_root && who != Who::Root {
        show_programs()?;
    }
    if was_root && who == Who::LabRoot {
        become_user(PLAIN_USER)?;
    }
    // Should our caller be killed, the kernel ends us too, and with us the lab.
    prctl::set_pdeathsig(Signal::SIGKILL).context("cannot tie the lab to its caller")?;
    let (uid, gid) = (geteuid(), getegid());
    if !uid.is_root() {
        spaces |= CloneFlags::CLONE_NEWUSER;
    }
    unshare(spaces).map_err(|errno| {
        anyhow!(
            "cannot make the lab's namespaces: {errno}; if this system restricts user namespaces, \
             run as root\nsee: cargo workshop doctor userns"
        )
    })?;
    if !uid.is_root() {
        let inside = if who == Who::LabRoot { (0, 0) } else { (uid.as_raw(), gid.as_raw()) };
        map_ids(inside, (uid, gid))?;
    }
    // The lab's first process is the next child: with it the kernel ends all others.
    // SAFETY: this process has one thread, so its copy may go on with any code.
    match unsafe { fork() }.context("cannot start the lab")? {
        ForkResult::Parent { .. } => Ok(wait_for_lab()?),
        ForkResult::Child => {
            let drop_to = (was_root && who == Who::Plain).then_some(PLAIN_USER);
            let status = first_process(who, drop_to, check, inside).unwrap_or_else(|error| {
                eprintln!("the lab failed: {error:#}");
                125
            });
            std::process::exit(status)
        }
    }
}

/// Runs `inside` as a plain user in no lab at all, and returns how it ended. It must touch nothing but
/// processes of its own.
pub fn without(inside: impl FnOnce() -> i32) -> Result<ExitStatus> {
    if geteuid().is_root() {
        become_user(PLAIN_USER)?;
    }
    Ok(ExitStatus::from_raw(inside() << 8))
}

/// Runs `inside` as one more process of a lab that this user has open: the one that the process
/// `caller` waits for, or, if that is 0, the only one.
///
/// Call it from a process with one thread, as [`run`].
pub fn join(caller: i32, who: Who, inside: impl FnOnce() -> i32) -> Result<ExitStatus> {
    let caller = match (caller, &open_labs()?[..]) {
        (0, [pid]) => *pid,
        (0, []) => bail!("no lab is open: open one with `cargo workshop lab`"),
        (0, labs) => bail!("several labs are open; say which with --join=PID: {labs:?}"),
        (pid, labs) if labs.contains(&pid) => pid,
        (pid, _) => bail!("the process {pid} has no lab open"),
    };
    ignore(&[Signal::SIGINT, Signal::SIGQUIT])?;
    let place = std::env::current_dir().context("cannot find our directory")?;
    // The user namespace first: it gives us the right to the others.
    let spaces = ["user", "net", "pid_for_children", "ipc", "uts", "mnt"]
        .map(|kind| (format!("/proc/{caller}/ns/{kind}"), format!("/proc/self/ns/{kind}")));
    let other =
        spaces.iter().filter(|(lab, own)| fs::read_link(lab).ok() != fs::read_link(own).ok());
    let open =
        |(lab, _): &(String, _)| File::open(lab).with_context(|| format!("cannot open {lab}"));
    for space in other.map(open).collect::<Result<Vec<_>>>()? {
        setns(space, CloneFlags::empty()).context("cannot go into the lab")?;
    }
    std::env::set_current_dir(place).context("the lab does not have our directory")?;
    // SAFETY: this process has one thread, so its copy may go on with any code.
    match unsafe { fork() }.context("cannot start a process in the lab")? {
        ForkResult::Parent { .. } => wait_for_lab(),
        ForkResult::Child => {
            let drop_to = (who == Who::Plain && geteuid().is_root()).then_some(PLAIN_USER);
            let user = drop_to.map_or_else(geteuid, Uid::from_raw);
            make_runtime_directory(user).and_then(|()| start_program(who, drop_to)).unwrap_or_else(
                |error| {
                    eprintln!("the lab failed: {error:#}");
                    std::process::exit(125)
                },
            );
            std::process::exit(inside())
        }
    }
}

/// A PATH for in a lab: the workshop's programs, also where who may not see the clone has them ([`PROGRAMS`]),
/// and behind them `others`.
pub fn path_before(others: &OsStr) -> Result<OsString> {
    let program = std::env::current_exe().context("cannot find our own program")?;
    let build = program.parent().context("our own program is nowhere")?;
    let mut path = OsString::new();
    for programs in [Path::new(PROGRAMS), build] {
        for directory in [programs, &programs.join("examples")] {
            path.push(directory);
            path.push(":");
        }
    }
    path.push(others);
    Ok(path)
}

/// The processes that wait for a lab of ours: only their children are in its PID namespace.
fn open_labs() -> Result<Vec<i32>> {
    let program = std::env::current_exe().context("cannot find our own program")?;
    let entries = fs::read_dir("/proc").context("cannot read /proc")?;
    let pids = entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    let link = |pid: i32, name: &str| fs::read_link(format!("/proc/{pid}/{name}")).ok();
    Ok(pids
        .filter(|&pid| link(pid, "exe").is_some_and(|exe| exe == program))
        .filter(|&pid| link(pid, "ns/pid") != link(pid, "ns/pid_for_children"))
        .collect())
}

/// What a program in the lab begins with.
fn start_program(who: Who, drop_to: Option<u32>) -> Result<()> {
    // SAFETY: the handlers are SIG_DFL, no code of ours.
    unsafe {
        signal(Signal::SIGINT, SigHandler::SigDfl)?;
        signal(Signal::SIGQUIT, SigHandler::SigDfl)?;
    }
    match drop_to {
        Some(user) => become_user(user),
        None if who == Who::Plain => drop_capabilities(),
        None => Ok(()),
    }
}

/// capset(2): who made the lab's user namespace has every capability in it, up to the next exec.
fn drop_capabilities() -> Result<()> {
    // linux/capability.h: version 3, our own process; effective, permitted and inheritable in two halves.
    let (mut header, none) = ([0x2008_0522_u32, 0], [0_u32; 6]);
    // SAFETY: both have the kernel's layout, and outlive the call.
    let result = unsafe { libc::syscall(libc::SYS_capset, header.as_mut_ptr(), none.as_ptr()) };
    Errno::result(result).map(drop).context("cannot give up our capabilities")
}

/// The path of one of our programs as it is in this lab.
#[must_use]
pub fn program(path: &str) -> PathBuf {
    let shown = Path::new(PROGRAMS);
    match build_directory().and_then(|build| Ok(Path::new(path).strip_prefix(build)?.to_owned())) {
        Ok(below) if shown.exists() => shown.join(below),
        _ => PathBuf::from(path),
    }
}

/// Whether cgroups are version 2's here, and nothing else.
pub(crate) fn has_cgroup_v2() -> bool {
    Path::new("/sys/fs/cgroup/cgroup.controllers").exists()
}

/// Whether the plain user that a lab has owns the cgroup that we are in (version 2): then it is
/// below what was delegated to him.
pub(crate) fn owns_cgroup() -> bool {
    let user = if geteuid().is_root() { PLAIN_USER } else { geteuid().as_raw() };
    let own = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let own = own.lines().find_map(|line| line.strip_prefix("0::/")).unwrap_or_default();
    let procs = Path::new("/sys/fs/cgroup").join(own).join("cgroup.procs");
    fs::metadata(procs).is_ok_and(|file| file.uid() == user)
}

/// target/debug: the parent of deps/, where test programs are, or the directory of the workshop.
pub(crate) fn build_directory() -> Result<PathBuf> {
    let mut path = match std::env::var_os("WORKSHOP_BUILD") {
        Some(path) => return Ok(path.into()),
        None => std::env::current_exe().context("cannot find our own program")?,
    };
    path.pop();
    if path.ends_with("deps") {
        path.pop();
    }
    Ok(path)
}

/// Enters a mount namespace in which a plain user reaches our programs.
pub(crate) fn show_programs() -> Result<()> {
    unshare(CloneFlags::CLONE_NEWNS).context("cannot make a mount namespace")?;
    make_private()?;
    let (build, none) = (build_directory()?, None::<&str>);
    mount(Some("tmpfs"), "/mnt", Some("tmpfs"), MsFlags::empty(), Some("mode=755"))
        .context("cannot mount a tmpfs on /mnt")?;
    fs::create_dir(PROGRAMS)?;
    mount(Some(&build), PROGRAMS, none, MsFlags::MS_BIND, none)
        .with_context(|| format!("cannot show {} as {PROGRAMS}", build.display()))?;
    // SAFETY: one thread, so nobody reads the environment at this time.
    unsafe { std::env::set_var("WORKSHOP_BUILD", build) };
    Ok(())
}

fn become_user(id: u32) -> Result<()> {
    setgroups(&[])?;
    setgid(Gid::from_raw(id))?;
    setuid(Uid::from_raw(id)).with_context(|| format!("cannot become the user {id}"))?;
    // Or else our files in /proc would be root's, and we could not write our id maps.
    prctl::set_dumpable(true)?;
    Ok(())
}

pub(crate) fn map_ids(inside: (u32, u32), (uid, gid): (Uid, Gid)) -> Result<()> {
    let write = |file: &str, text: &str| {
        fs::write(format!("/proc/self/{file}"), text)
            .with_context(|| format!("cannot write {text:?} to /proc/self/{file}"))
    };
    write("setgroups", "deny")?;
    write("uid_map", &format!("{} {uid} 1", inside.0))?;
    write("gid_map", &format!("{} {gid} 1", inside.1))
}

fn wait_for_lab() -> Result<ExitStatus> {
    loop {
        match wait() {
            Err(Errno::EINTR) => {}
            Ok(WaitStatus::Exited(_, code)) => return Ok(ExitStatus::from_raw(code << 8)),
            Ok(WaitStatus::Signaled(_, signal, _)) => {
                return Ok(ExitStatus::from_raw(signal as i32));
            }
            Ok(other) => bail!("unexpected wait status {other:?}"),
            Err(errno) => return Err(errno).context("cannot wait for the lab"),
        }
    }
}

/// PID 1 of the lab: builds it, starts `inside`, and takes in orphans until that has ended.
fn first_process(
    who: Who,
    drop_to: Option<u32>,
    check: bool,
    inside: impl FnOnce() -> i32,
) -> Result<i32> {
    prctl::set_pdeathsig(Signal::SIGKILL).context("cannot tie the lab to its caller")?;
    build_host()?;
    if check && !build_directory()?.starts_with("/tmp") {
        // Who has no runtime directory keeps state there, and others outside do so meanwhile.
        fresh("tmpfs", "/tmp")?;
    }
    let user = drop_to.map_or_else(geteuid, Uid::from_raw);
    make_runtime_directory(user)?;
    let disk = put_state_on_disk(user)?;
    if drop_to.is_some() {
        open_tun()?;
    }
    let server = internet::start()?;
    let own = [Pid::this(), server];
    let before = check.then(|| Snapshot::take(&own)).transpose()?;

    // SAFETY: this process has one thread, so its copy may go on with any code.
    let main = match unsafe { fork() }.context("cannot start a process in the lab")? {
        ForkResult::Parent { child } => child,
        ForkResult::Child => {
            start_program(who, drop_to)?;
            std::process::exit(inside())
        }
    };
    let status = loop {
        match wait() {
            Err(Errno::EINTR) => {}
            Ok(WaitStatus::Exited(pid, code)) if pid == main => break code,
            Ok(WaitStatus::Signaled(pid, signal, _)) if pid == main => break 128 + signal as i32,
            result => drop(result.context("cannot wait in the lab")?),
        }
    };
    if let Some(before) = before.filter(|_| status == 0) {
        before.ensure_restored(&own)?;
    }
    if let Some(disk) = disk {
        fs::remove_dir_all(&disk).with_context(|| format!("cannot remove {}", disk.display()))?;
    }
    Ok(status)
}

/// What a login makes for a user: a place for state that is gone with the lab. The state of containers
/// goes there, too: what the machine has is not to be seen, nor changed.
fn make_runtime_directory(user: Uid) -> Result<()> {
    let path = format!("/run/user/{user}");
    fs::create_dir_all(&path)?;
    chown(path.as_str(), Some(user), None).with_context(|| format!("cannot make {path}"))?;
    let base = if user.is_root() { "/run" } else { &path };
    // SAFETY: one thread, so nobody reads the environment at this time.
    unsafe {
        std::env::set_var("FINAL_ROOT", format!("{base}/container-workshop"));
        std::env::set_var("XDG_RUNTIME_DIR", &path);
    }
    Ok(())
}

/// A plain user's overlay keeps notes in attributes of the kind `user`, and tmpfs has none before Linux
/// 6.6: then the state of containers is on disk, in a directory that the lab has to remove.
fn put_state_on_disk(user: Uid) -> Result<Option<PathBuf>> {
    if (user.is_root() && in_first_user_namespace()) || takes_attributes("/run") {
        return Ok(None);
    }
    let state = std::env::var("FINAL_ROOT").context("no FINAL_ROOT")?;
    let disk = mkdtemp("/var/tmp/container-workshop-lab-XXXXXX")
        .context("cannot make a directory in /var/tmp")?;
    chown(&disk, Some(user), None)?;
    fs::create_dir(&state).with_context(|| format!("cannot make {state}"))?;
    mount(Some(&disk), &*state, None::<&str>, MsFlags::MS_BIND, None::<&str>)
        .with_context(|| format!("cannot mount {} on {state}", disk.display()))?;
    Ok(Some(disk))
}

/// Whether the directory's file system has attributes of the kind `user` (xattr(7)).
fn takes_attributes(directory: &str) -> bool {
    let path = CString::new(directory).expect("no NUL in it");
    // SAFETY: both strings are NUL-terminated, and no value is read for a length of 0.
    let result =
        unsafe { libc::setxattr(path.as_ptr(), c"user.lab".as_ptr(), std::ptr::null(), 0, 0) };
    result == 0
}

/// Gives the lab's host its own /proc, /sys and /run, and a name.
fn build_host() -> Result<()> {
    make_private()?;
    sethostname("lab").context("cannot name the lab")?;
    let none = None::<&str>;
    fresh("tmpfs", "/run")?; // state of containers outside must not be seen, nor changed
    fresh("proc", "/proc")?;
    // The new /sys shows the lab's links; the cgroup trees move over to it.
    let (cgroups, aside) = ("/sys/fs/cgroup", "/run/cgroup");
    fs::create_dir(aside)?;
    mount(Some(cgroups), aside, none, MsFlags::MS_BIND | MsFlags::MS_REC, none)
        .context("cannot bind the cgroup trees")?;
    fresh("sysfs", "/sys")?;
    mount(Some(aside), cgroups, none, MsFlags::MS_MOVE, none)
        .context("cannot move the cgroup trees to the new /sys")?;
    fs::remove_dir(aside).context("cannot clean up /run")?;
    name_server()
}

/// Who asks for a name learns at once that nobody knows it: the machine's own name server is out of reach,
/// and to wait for it takes ten seconds.
fn name_server() -> Result<()> {
    let (file, shown) = ("/run/resolv.conf", "/etc/resolv.conf");
    if !Path::new(shown).exists() {
        return Ok(()); // a link to what is no longer in /run: then libc asks 127.0.0.1
    }
    // Our own address, where nobody listens. From others the kernel's refusals are few (icmp(7), icmp_ratelimit).
    fs::write(file, format!("nameserver {}\n", internet::UPLINK))
        .with_context(|| format!("cannot write {file}"))?;
    let none = None::<&str>;
    mount(Some(file), shown, none, MsFlags::MS_BIND, none)
        .with_context(|| format!("cannot mount {file} on {shown}"))
}

/// On a machine with udev everybody may open /dev/net/tun (50-udev-default.rules); in a container often
/// root alone may.
pub(crate) fn open_tun() -> Result<()> {
    if !Path::new("/dev/net/tun").exists() {
        return Ok(());
    }
    mount(Some("tmpfs"), "/dev/net", Some("tmpfs"), MsFlags::MS_NOSUID, None::<&str>)
        .context("cannot mount tmpfs on /dev/net")?;
    let everybody = Mode::from_bits_retain(0o666);
    mknod("/dev/net/tun", SFlag::S_IFCHR, everybody, makedev(10, 200))
        .and_then(|()| fchmodat(AT_FDCWD, "/dev/net/tun", everybody, FchmodatFlags::FollowSymlink))
        .context("cannot make /dev/net/tun")
}

fn fresh(kind: &str, path: &str) -> Result<()> {
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
    mount(Some(kind), path, Some(kind), flags, None::<&str>)
        .with_context(|| format!("cannot mount {kind} on {path}"))
}

pub(crate) fn make_private() -> Result<()> {
    let none = None::<&str>;
    mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none)
        .context("cannot make the mounts private")
}

fn ignore(signals: &[Signal]) -> Result<()> {
    for &ignored in signals {
        // SAFETY: the handler is SIG_IGN, no code of ours.
        unsafe { signal(ignored, SigHandler::SigIgn) }.context("cannot ignore a signal")?;
    }
    Ok(())
}

/// Makes us the leader of a process group in the terminal's foreground, if there is a terminal.
///
/// Call it inside, before a shell: when a shell with job control ends, it gives the terminal back to the
/// group that it was started in, and a group outside of its PID namespace has no number there.
pub fn lead_terminal() {
    // It fails where it is not needed: a session's leader leads a group already.
    let _ = setpgid(Pid::from_raw(0), Pid::from_raw(0));
    take_terminal();
}

/// Puts our process group into the terminal's foreground, if there is a terminal.
///
/// Call it outside, after [`run`], if inside was a [`lead_terminal`].
pub fn take_terminal() {
    // Who is in the background gets SIGTTOU for this (tcsetpgrp(3)).
    // SAFETY: the handlers are SIG_IGN and the one before, no code of ours.
    unsafe {
        let before = signal(Signal::SIGTTOU, SigHandler::SigIgn);
        let _ = tcsetpgrp(std::io::stdin(), getpgrp());
        let _ = before.map(|before| signal(Signal::SIGTTOU, before));
    }
}

/// What a shell in the lab says first.
pub fn greet() {
    let links = wire::Wire::open().and_then(|wire| wire.links()).unwrap_or_default();
    let _ = writeln!(
        std::io::stderr(),
        "This is a lab: nothing that you do to its network, mounts or processes reaches your \
         machine.\nFiles are your machine's own, but those in /run, /proc and /sys.\nIts links: {}. The internet: http://{}/ (it says who asked), and\n\
         http://{}/tcp/ADDRESS/PORT makes {} connect there. A second shell here: \
         cargo workshop lab --join\nLeave with: exit",
        links.join(", "),
        internet::SERVER,
        internet::SERVER,
        internet::SECOND_HOST
    );
}
