//! What tests run inside containers: small programs that do one thing and say what they saw.
//!
//! They are in every test program, and in the workshop's: `PROGRAM @NAME WORDS...`. A fresh machine
//! has no client or server that a test could count on.

use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, TcpListener, UdpSocket};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use nix::sys::socket::{
    AddressFamily, SockFlag, SockProtocol, SockType, setsockopt, socket, sockopt,
};

use crate::suite::get;
use crate::wire::Wire;

/// Runs the probe that the command line names; `None` if it names none.
#[must_use]
pub fn main() -> Option<ExitCode> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let name = words.first()?.strip_prefix('@')?;
    let words: Vec<_> = words[1..].iter().map(String::as_str).collect();
    Some(match run(name, &words) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("probe: {error:#}");
            ExitCode::FAILURE
        }
    })
}

fn run(name: &str, words: &[&str]) -> Result<()> {
    let number = || -> Result<usize> { Ok(words.first().context("no number")?.parse()?) };
    match name {
        "eat" => eat(number()?),
        "spin" => spin(Duration::from_secs(number()? as u64)),
        "forks" => forks(number().unwrap_or(1000)),
        "flee" => flee(),
        "get" => println!("{}", get(words[0], words.get(1).unwrap_or(&"/"))),
        "spy" => spy()?,
        "become" => {
            nix::unistd::setuid(nix::unistd::Uid::from_raw(words[0].parse()?))?;
            std::thread::sleep(Duration::from_secs(1000));
        }
        "serve" => serve(words[0])?,
        "echo" => echo(words[0])?,
        "send" => send(words[0], words[1], words[2])?,
        "wire" => Wire::open()?.describe()?.iter().for_each(|line| println!("{line}")),
        "ping" => ping(words[0].parse()?)?,
        "mount" => {
            let (kind, none) = (Some("tmpfs"), None::<&str>);
            nix::mount::mount(kind, words[0], kind, nix::mount::MsFlags::empty(), none)?;
        }
        "fds" => println!("{}", links("/proc/self/fd")?.join("\n")),
        "report" => {
            print!("{}", report()?);
            std::io::stdin().read_line(&mut String::new())?;
            std::process::exit(7);
        }
        other => bail!("no probe {other}"),
    }
    Ok(())
}

/// Where the symbolic links in a directory lead to.
fn links(directory: &str) -> Result<Vec<String>> {
    let links = std::fs::read_dir(directory)?.filter_map(|entry| {
        Some(std::fs::read_link(entry.ok()?.path()).ok()?.display().to_string())
    });
    Ok(links.collect())
}

/// All that a container sees of itself, without the numbers that are others in the next one.
fn report() -> Result<String> {
    let read = |path: &str| std::fs::read_to_string(path).with_context(|| format!("no {path}"));
    let mut report = String::new();
    for path in [
        "/etc/hostname",
        "/etc/hosts",
        "/etc/resolv.conf",
        "/proc/self/limits",
        "/proc/self/uid_map",
        "/proc/net/route",
        "/proc/sys/kernel/hostname",
    ] {
        report += &read(path)?;
    }
    let kept = [
        "Umask", "Uid", "Gid", "Groups", "Shd", "SigB", "SigI", "Cap", "NoNew", "Seccomp", "NSsid",
    ];
    let stays = |line: &&str| kept.iter().any(|name| line.starts_with(name));
    report.extend(read("/proc/self/status")?.lines().filter(stays).flat_map(|line| [line, "\n"]));
    for mount in read("/proc/self/mountinfo")?.lines() {
        let words: Vec<_> = mount.split(' ').collect();
        report += &format!("mount {}\n", words[3..7].join(" "));
    }
    for directory in ["/dev", "/sys/class/net"] {
        let names = std::fs::read_dir(directory)?.filter_map(|entry| Some(entry.ok()?.file_name()));
        let mut names: Vec<_> = names.collect();
        names.sort();
        report += &format!("{names:?}\n");
    }
    report += &format!("{:?}\n", std::env::vars());
    report += &format!("{}\n", std::env::current_dir()?.display());
    Ok(report)
}

/// Touches so many MiB of memory, a page at a time: asking for memory alone takes none.
fn eat(mebibytes: usize) {
    let mut memory = vec![0_u8; mebibytes << 20];
    for page in memory.chunks_mut(4096) {
        page[0] = 1;
    }
    println!(
        "ate {} MiB",
        memory.iter().step_by(4096).map(|&b| usize::from(b)).sum::<usize>() >> 8
    );
}

/// Uses as much processor time as it gets, and says how much that was.
fn spin(time: Duration) {
    let start = Instant::now();
    while start.elapsed() < time {}
    let used = nix::time::clock_gettime(nix::time::ClockId::CLOCK_PROCESS_CPUTIME_ID);
    let used = used.map_or(Duration::ZERO, Duration::from);
    println!("used {} ms", used.as_millis());
}

/// Starts processes that wait, until it may start no more, or has so many; says how many that were.
fn forks(most: usize) {
    let mut children = Vec::new();
    let error = loop {
        match std::process::Command::new("sleep").arg("60").spawn() {
            Ok(child) => children.push(child),
            Err(error) => break error,
        }
        if children.len() >= most {
            println!("no limit");
            break std::io::Error::other("none");
        }
    };
    println!("started {}, then: {error}", children.len());
    for mut child in children {
        let _ = child.kill();
        let _ = child.wait();
    }
}

/// Goes on in a new process all the time, for ever: who is to be ended by number has fled by then.
fn flee() -> ! {
    loop {
        // SAFETY: this process has one thread, so its copy may go on with any code.
        if let Ok(nix::unistd::ForkResult::Parent { .. }) = unsafe { nix::unistd::fork() } {
            std::process::exit(0);
        }
    }
}

/// Answers every connection to the address with the client's address and our own, for ever.
fn serve(address: &str) -> Result<()> {
    let listener = TcpListener::bind(address).with_context(|| format!("cannot have {address}"))?;
    println!("ready");
    loop {
        let (mut stream, client) = listener.accept()?;
        let mut request = [0; 512];
        let _ = stream.read(&mut request)?;
        let own = stream.local_addr()?.ip();
        write!(stream, "HTTP/1.0 200 OK\r\n\r\nhello {} at {own}\n", client.ip())?;
    }
}

/// Answers every datagram to the address with the client's address, for ever.
fn echo(address: &str) -> Result<()> {
    let socket = UdpSocket::bind(address).with_context(|| format!("cannot have {address}"))?;
    println!("ready");
    loop {
        let mut bytes = [0; 512];
        let (_, client) = socket.recv_from(&mut bytes)?;
        socket.send_to(format!("hello {}\n", client.ip()).as_bytes(), client)?;
    }
}

/// Sends a datagram to the address by this interface, whatever the routing table says.
fn send(interface: &str, address: &str, text: &str) -> Result<()> {
    let socket = UdpSocket::bind("0.0.0.0:0")?;
    setsockopt(&socket, sockopt::BindToDevice, &interface.into())?;
    socket.send_to(text.as_bytes(), address)?;
    Ok(())
}

/// One ICMP echo request (RFC 792); waits for its answer for three seconds.
fn ping(address: Ipv4Addr) -> Result<()> {
    const IP_HEADER: usize = 20;
    const DATA: &[u8; 8] = b"question";
    let fd = socket(AddressFamily::Inet, SockType::Raw, SockFlag::SOCK_CLOEXEC, SockProtocol::Icmp);
    // A raw socket sends and receives like a UDP socket, only that the ports mean nothing.
    let socket = UdpSocket::from(fd.context("cannot open a raw socket")?);
    socket.set_read_timeout(Some(Duration::from_secs(3)))?;
    // Type, code, checksum (so that all 16-bit words add up to 0xffff), identifier, number.
    let mut request = [&[8, 0, 0, 0, 0, 7, 0, 1], &DATA[..]].concat();
    let words = request.chunks(2).map(|word| u32::from(word[0]) << 8 | u32::from(word[1]));
    let sum = words.sum::<u32>();
    let sum = !u16::try_from((sum >> 16) + (sum & 0xffff))?;
    request[2..4].copy_from_slice(&sum.to_be_bytes());
    socket.send_to(&request, (address, 0))?;
    loop {
        let mut packet = [0; 128];
        let (len, from) = socket.recv_from(&mut packet).context("no answer")?;
        // Our own host's answers to others arrive here, too.
        let icmp = &packet[IP_HEADER.min(len)..len];
        if from.ip() == address && icmp[0] == 0 && icmp[4..] == request[4..] {
            println!("{address} answered");
            return Ok(());
        }
    }
}

/// Looks at every other process as long as it lives, says that it was there, and which files of the
/// runtime's it could see open.
fn spy() -> Result<()> {
    let own = std::process::id().to_string();
    loop {
        for entry in std::fs::read_dir("/proc")?.filter_map(Result::ok) {
            let pid = entry.file_name().to_string_lossy().into_owned();
            if pid == own || pid.parse::<u32>().is_err() {
                continue;
            }
            let name = std::fs::read_to_string(entry.path().join("comm")).unwrap_or_default();
            if name.trim() != "final" {
                continue;
            }
            println!("process {pid}");
            let Ok(files) = std::fs::read_dir(entry.path().join("fd")) else { continue };
            let links = files.filter_map(|file| std::fs::read_link(file.ok()?.path()).ok());
            let links: Vec<_> = links.collect();
            // Not if it has become the container's program meanwhile: then they are that one's.
            if std::fs::read_to_string(entry.path().join("comm")).is_ok_and(|now| now == name) {
                for link in links {
                    println!("open in {pid}: {}", link.display());
                }
            }
        }
    }
}
