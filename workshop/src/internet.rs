//! The internet, as seen from the lab: a second network namespace with two hosts in it.
//!
//! ```text
//!   the lab's host                     the internet
//!   uplink 198.51.100.10 ============= 198.51.100.1:80  says who asked
//!                                      198.51.100.2     connects back when asked to
//!          2001:db8::10                2001:db8::1, 2001:db8::2: the same, if the kernel has IPv6
//! ```
//!
//! 198.51.100.0/24 is TEST-NET-2 (RFC 5737): nobody on the real internet has such an address. The
//! internet knows no way to any other subnet, just as the real one knows none to 10.77.0.0/24.

use std::fs::File;
use std::io::{BufRead as _, BufReader, ErrorKind, Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::{AsFd as _, AsRawFd as _};
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result};
use nix::sched::{CloneFlags, setns, unshare};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, SockaddrStorage, bind, connect, socket};
use nix::unistd::{ForkResult, Pid, fork};

use crate::wire::Wire;

/// The lab host's own address on the link to the internet.
pub const UPLINK: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 10);
/// The server: on port 80 it answers with the client's address.
pub const SERVER: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 1);
/// The host that connects back: `GET /tcp/ADDRESS/PORT` (or `/udp/`) of the server makes it ask there.
pub const SECOND_HOST: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 2);

/// The same three with IPv6, in 2001:db8::/32, which nobody has either (RFC 3849).
pub const UPLINK6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0x10);
/// The server.
pub const SERVER6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1);
/// The host that connects back.
pub const SECOND_HOST6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 2);

const PREFIX: u8 = 24;
const PREFIX6: u8 = 64;

/// Whether this kernel has IPv6 at all.
#[must_use]
pub fn has_ipv6() -> bool {
    Path::new("/proc/sys/net/ipv6").exists()
}

/// Makes the internet and the link to it; returns the process that is the internet's servers.
///
/// Call it in the lab's network namespace, from a process with one thread.
pub fn start() -> Result<Pid> {
    let host = File::open("/proc/self/ns/net").context("cannot open our network namespace")?;
    unshare(CloneFlags::CLONE_NEWNET).context("cannot make the internet's network namespace")?;
    let wire = Wire::open()?;
    wire.set_up("lo")?;
    wire.add_veth("eth0", "uplink", host.as_raw_fd())?;
    wire.add_address("eth0", SERVER, PREFIX)?;
    wire.add_address("eth0", SECOND_HOST, PREFIX)?;
    if has_ipv6() {
        wire.add_address("eth0", SERVER6, PREFIX6)?;
        wire.add_address("eth0", SECOND_HOST6, PREFIX6)?;
    }
    wire.set_up("eth0")?;
    let listen = |ip: IpAddr| TcpListener::bind((ip, 80)).context("cannot listen on the internet");
    let mut listeners = vec![listen(SERVER.into())?];
    if has_ipv6() {
        listeners.push(listen(SERVER6.into())?);
    }

    // SAFETY: this process has one thread, so its copy may go on with any code.
    let server = match unsafe { fork() }.context("cannot start the internet")? {
        ForkResult::Child => serve(listeners),
        ForkResult::Parent { child } => child,
    };
    setns(host.as_fd(), CloneFlags::CLONE_NEWNET).context("cannot go back to the lab's host")?;
    let wire = Wire::open()?;
    wire.set_up("lo")?;
    wire.add_address("uplink", UPLINK, PREFIX)?;
    wire.set_up("uplink")?;
    wire.add_default_route(SERVER)?;
    if has_ipv6() {
        wire.add_address("uplink", UPLINK6, PREFIX6)?;
        wire.add_default_route(SERVER6)?;
    }
    Ok(server)
}

/// Answers for ever: the lab's end is its end.
fn serve(mut listeners: Vec<TcpListener>) -> ! {
    while listeners.len() > 1 {
        let other = listeners.pop().into_iter().collect();
        std::thread::spawn(move || serve(other));
    }
    let listener = &listeners[0];
    loop {
        if let Ok((stream, client)) = listener.accept() {
            let client = client.ip().to_string();
            std::thread::spawn(move || answer(stream, &client));
        }
    }
}

fn answer(mut stream: TcpStream, client: &str) {
    let mut request = String::new();
    let mut reader = BufReader::new(&stream);
    if reader.read_line(&mut request).is_err() {
        return;
    }
    let mut line = String::new();
    while reader.read_line(&mut line).is_ok_and(|len| len > 2) {
        line.clear(); // the headers, up to an empty line
    }
    let path: Vec<_> = request.split(' ').nth(1).unwrap_or("/").split('/').skip(1).collect();
    let (status, body) = match path[..] {
        [protocol @ ("tcp" | "udp"), address, port] => match ask(protocol, address, port) {
            Ok(answer) => ("200 OK", answer),
            Err(error) => ("502 Bad Gateway", format!("{SECOND_HOST} says: {error:#}\n")),
        },
        _ => ("200 OK", format!("{client}\n")),
    };
    let length = body.len();
    let _ = write!(
        stream,
        "HTTP/1.1 {status}\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{body}"
    );
}

/// The second host asks: a GET by TCP, the word `ping` by UDP; returns what it was answered.
fn ask(protocol: &str, address: &str, port: &str) -> Result<String> {
    let to = SocketAddr::new(address.parse()?, port.parse()?);
    let from: IpAddr = if to.is_ipv6() { SECOND_HOST6.into() } else { SECOND_HOST.into() };
    let limit = Some(Duration::from_secs(3));
    let mut answer = Vec::new();
    if protocol == "udp" {
        let socket = UdpSocket::bind((from, 0))?;
        socket.set_read_timeout(limit)?;
        socket.send_to(b"ping", to)?;
        answer.resize(1500, 0);
        let (len, _) = socket.recv_from(&mut answer).map_err(timed_out)?;
        answer.truncate(len);
    } else {
        let mut stream = connect_from(from, to).map_err(timed_out)?;
        stream.set_read_timeout(limit)?;
        stream.write_all(b"GET / HTTP/1.0\r\n\r\n")?;
        stream.read_to_end(&mut answer).map_err(timed_out)?;
    }
    Ok(String::from_utf8_lossy(&answer).into_owned())
}

/// `TcpStream::connect`, but from a given address.
pub(crate) fn connect_from(from: IpAddr, to: SocketAddr) -> std::io::Result<TcpStream> {
    let family = if to.is_ipv6() { AddressFamily::Inet6 } else { AddressFamily::Inet };
    let fd = socket(family, SockType::Stream, SockFlag::SOCK_CLOEXEC, None)?;
    bind(fd.as_raw_fd(), &SockaddrStorage::from(SocketAddr::new(from, 0)))?;
    let stream = TcpStream::from(fd);
    // connect(2) waits as long as sending may take (socket(7), SO_SNDTIMEO).
    stream.set_write_timeout(Some(Duration::from_secs(3)))?;
    connect(stream.as_raw_fd(), &SockaddrStorage::from(to))?;
    Ok(stream)
}

pub(crate) fn timed_out(error: std::io::Error) -> std::io::Error {
    match error.kind() {
        ErrorKind::WouldBlock => std::io::Error::new(ErrorKind::TimedOut, "no answer in 3 seconds"),
        _ if error.raw_os_error() == Some(libc::EINPROGRESS) => {
            std::io::Error::new(ErrorKind::TimedOut, "no answer in 3 seconds")
        }
        _ => error,
    }
}
