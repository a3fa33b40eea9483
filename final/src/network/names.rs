//! The name server of a network: one small process, from its first container to its last.
//!
//! It knows nothing by itself. For each question it looks into the directory of the bridge, where
//! each container has a file ([`Endpoint`]): so a name is there as soon as its container is, and gone
//! as soon as that is, and a new server knows at once what the one before it knew.

use std::fs;
use std::io::{ErrorKind, PipeWriter, Read as _, Write as _};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::{AsFd as _, AsRawFd as _};
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::wait::waitpid;
use nix::unistd::{ForkResult, Pid, fork};
use step01_namespaces::pidfd_open;
use step04_bridge_veth::{Cidr, Pool};

use super::dns::{RCODE, Verdict, decide, without_answer};
use super::endpoint::Endpoint;
use super::{helper, rootless, uplink};
use crate::process::end;
use crate::store::Process;

/// The file in the bridge's directory that names the process.
const FILE: &str = "names";
/// Of DNS (RFC 1035, section 4.2).
const PORT: u16 = 53;
/// How long another server may take to answer.
const PATIENCE: Duration = Duration::from_secs(2);
/// Questions that wait for other servers, and connections, at most.
const MOST_WAITING: usize = 64;
const MOST_CONNECTIONS: usize = 4;
/// The longest answer without TCP that others may give us (RFC 6891, section 6.2.5).
const LONGEST: usize = 4096;

/// The name server of one network.
#[derive(Debug, Clone)]
pub struct Names {
    /// The network's name.
    pub network: String,
    /// Its bridge.
    pub bridge: String,
    /// Its subnet: who is not in it is not answered.
    pub subnet: Cidr,
    /// Whether other questions are refused, since there is no way out.
    pub internal: bool,
}

impl Names {
    /// Starts the server if it is not there. Nobody else does so meanwhile: the pool is locked.
    pub fn ensure(&self, pool: &Pool) -> Result<()> {
        if running(pool)?.is_some() {
            return Ok(());
        }
        let at = (self.subnet.gateway(), PORT);
        let sockets = UdpSocket::bind(at).and_then(|udp| Ok((udp, TcpListener::bind(at)?)));
        let (udp, tcp) = sockets.with_context(|| {
            format!(
                "cannot answer for names at {}:{PORT}; if a name server of this host has that port at \
                 all of its addresses, give it its own (ss -lnup sport 53 says who it is)",
                at.0
            )
        })?;
        let path = pool.path().join(FILE);
        let (started, starts) = std::io::pipe().context("cannot make a pipe")?;
        // Twice, so that it is nobody's child who would have to wait for it.
        // SAFETY: this process has one thread, so its copy may go on with any code.
        match unsafe { fork() }.context("cannot start the network's name server")? {
            ForkResult::Parent { child } => {
                waitpid(child, None).context("cannot wait for the name server's start")?;
            }
            ForkResult::Child => {
                // SAFETY: as above; and _exit(2) runs no more code of ours.
                if let Ok(ForkResult::Child) = unsafe { fork() } {
                    self.serve(&path, starts, &udp, &tcp);
                }
                // SAFETY: it ends the process at once: nothing of the caller's is dropped twice.
                unsafe { libc::_exit(0) }
            }
        }
        drop(starts);
        helper::wait_for(started).context("cannot start the network's name server")
    }

    /// The server's whole life: it is ended from outside.
    ///
    /// It writes its note by itself, and first: so there is none that nobody knows of, whoever is killed
    /// meanwhile. Its copy of the pool's lock keeps others away until then.
    fn serve(&self, note: &Path, starts: PipeWriter, udp: &UdpSocket, tcp: &TcpListener) -> ! {
        let begin = || -> Result<()> {
            let own = serde_json::to_vec(&Process::of(Pid::this())?)?;
            fs::write(note, own).with_context(|| format!("cannot write {}", note.display()))?;
            let kept = [udp.as_raw_fd(), tcp.as_raw_fd(), starts.as_raw_fd()];
            helper::leave_caller(&kept, c"final-names")
        };
        let begun = begin();
        let _ = helper::tell(starts, begun).and_then(|()| self.answer_all(udp, tcp));
        // SAFETY: it ends the process at once: nothing of the caller's is dropped twice.
        unsafe { libc::_exit(1) }
    }

    fn answer_all(&self, udp: &UdpSocket, tcp: &TcpListener) -> Result<()> {
        let connections = AtomicUsize::new(0);
        udp.set_nonblocking(true)?;
        tcp.set_nonblocking(true)?;
        std::thread::scope(|scope| {
            let mut waiting: Vec<Waiting> = Vec::new();
            let mut question = [0; LONGEST];
            loop {
                wait(udp, tcp, &waiting)?;
                while let Ok((len, client)) = udp.recv_from(&mut question) {
                    match self.verdict(&question[..len], client) {
                        Verdict::Answer(answer) => drop(udp.send_to(&answer, client)),
                        Verdict::Forward if waiting.len() < MOST_WAITING => {
                            let servers = self.servers_for(client);
                            match Waiting::start(&question[..len], client, servers) {
                                Some(one) => waiting.push(one),
                                None => give_up(udp, &question[..len], client),
                            }
                        }
                        _ => {}
                    }
                }
                waiting.retain_mut(|one| !one.is_done(udp));
                while let Ok((stream, client)) = tcp.accept() {
                    if connections.load(Ordering::Relaxed) < MOST_CONNECTIONS {
                        connections.fetch_add(1, Ordering::Relaxed);
                        let connections = &connections;
                        let answer = move || {
                            let _ = self.converse(stream, client);
                            connections.fetch_sub(1, Ordering::Relaxed);
                        };
                        let small = std::thread::Builder::new().stack_size(128 * 1024);
                        drop(small.spawn_scoped(scope, answer));
                    }
                }
            }
        })
    }

    fn verdict(&self, question: &[u8], client: SocketAddr) -> Verdict {
        let SocketAddr::V4(client) = client else { return Verdict::Ignore };
        // Other networks of this host reach the bridge's address, too.
        if !self.subnet.overlaps(*client.ip(), 32) {
            return Verdict::Ignore;
        }
        let all = Endpoint::noted(&self.bridge).unwrap_or_default();
        let lives = |endpoint: &Endpoint| endpoint.process.is_there().unwrap_or(false);
        let own = format!(".{}", self.network.to_ascii_lowercase());
        let addresses = |name: &str| {
            let name = name.strip_suffix(&*own).unwrap_or(name);
            let found = all.iter().filter(|(_, one)| one.answers_to(name) && lives(one));
            found.map(|(address, one)| (*address, one.address6)).collect()
        };
        let name_of = |address| {
            let found = all.iter().find(|(other, one)| *other == address && lives(one));
            found.map(|(_, one)| format!("{}{own}", one.name))
        };
        match decide(question, addresses, name_of) {
            Verdict::Forward if self.internal => without_answer(question, RCODE::Refused),
            verdict => verdict,
        }
    }

    /// Whom to ask for this client.
    fn servers_for(&self, client: SocketAddr) -> Vec<SocketAddr> {
        let all = Endpoint::noted(&self.bridge).unwrap_or_default();
        let own = all.into_iter().find(|(address, _)| client.ip() == *address);
        let own = own.map(|(_, endpoint)| endpoint.dns).filter(|dns| !dns.is_empty());
        let servers = own.unwrap_or_else(hosts_servers).into_iter();
        servers.map(|address| SocketAddr::new(address, PORT)).collect()
    }

    /// Questions by TCP, each behind its length: for answers that are too long for a datagram.
    fn converse(&self, mut stream: TcpStream, client: SocketAddr) -> std::io::Result<()> {
        stream.set_nonblocking(false)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        loop {
            let question = read_one(&mut stream)?;
            let answer = match self.verdict(&question, client) {
                Verdict::Answer(answer) => answer,
                Verdict::Forward => ask_by_tcp(&question, &self.servers_for(client))?,
                Verdict::Ignore => return Ok(()),
            };
            write_one(&mut stream, &answer)?;
        }
    }
}

/// Waits for questions and answers; for nothing else, so that who has nothing to do does nothing.
fn wait(udp: &UdpSocket, tcp: &TcpListener, waiting: &[Waiting]) -> Result<()> {
    let sockets = waiting.iter().map(|one| one.socket.as_fd());
    let mut fds: Vec<_> = [udp.as_fd(), tcp.as_fd()]
        .into_iter()
        .chain(sockets)
        .map(|fd| PollFd::new(fd, PollFlags::POLLIN))
        .collect();
    let next = waiting.iter().map(|one| one.deadline).min();
    let timeout = next.map_or(PollTimeout::NONE, |next| {
        let left = next.saturating_duration_since(Instant::now()).as_millis() + 1;
        PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX)
    });
    match poll(&mut fds, timeout) {
        Err(Errno::EINTR) | Ok(_) => Ok(()),
        Err(errno) => Err(errno).context("cannot wait for questions"),
    }
}

/// A question that another server has been asked.
struct Waiting {
    question: Vec<u8>,
    client: SocketAddr,
    /// A port of its own for each question is half of what makes false answers hard (RFC 5452).
    socket: UdpSocket,
    /// Who is asked next, if the one does not answer.
    others: Vec<SocketAddr>,
    deadline: Instant,
}

impl Waiting {
    fn start(question: &[u8], client: SocketAddr, mut others: Vec<SocketAddr>) -> Option<Self> {
        others.reverse();
        let socket = ask_next(question, &mut others)?;
        let deadline = Instant::now() + PATIENCE;
        Some(Self { question: question.to_vec(), client, socket, others, deadline })
    }

    /// Passes the answer on as it is, or asks the next one; says whether there is nothing left to do.
    fn is_done(&mut self, udp: &UdpSocket) -> bool {
        let mut answer = [0; LONGEST];
        match self.socket.recv(&mut answer) {
            Ok(len) if answer[..len].get(..2) == self.question.get(..2) => {
                let _ = udp.send_to(&answer[..len], self.client);
                return true;
            }
            Ok(_) => return false,
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                if Instant::now() < self.deadline {
                    return false;
                }
            }
            Err(_) => {} // nobody listens there
        }
        let Some(socket) = ask_next(&self.question, &mut self.others) else {
            give_up(udp, &self.question, self.client);
            return true;
        };
        (self.socket, self.deadline) = (socket, Instant::now() + PATIENCE);
        false
    }
}

/// Says that there is nobody to ask: silence would make the client wait for seconds, and ask again.
fn give_up(udp: &UdpSocket, question: &[u8], client: SocketAddr) {
    if let Verdict::Answer(answer) = without_answer(question, RCODE::ServerFailure) {
        let _ = udp.send_to(&answer, client);
    }
}

/// Asks the last of these servers that can be asked.
fn ask_next(question: &[u8], servers: &mut Vec<SocketAddr>) -> Option<UdpSocket> {
    let ask = |server: SocketAddr| -> std::io::Result<UdpSocket> {
        let any: SocketAddr =
            if server.is_ipv4() { ([0; 4], 0).into() } else { ([0_u16; 8], 0).into() };
        let socket = UdpSocket::bind(any)?;
        socket.connect(server)?;
        socket.set_nonblocking(true)?;
        socket.send(question).map(|_| socket)
    };
    std::iter::from_fn(|| servers.pop()).find_map(|server| ask(server).ok())
}

fn ask_by_tcp(question: &[u8], servers: &[SocketAddr]) -> std::io::Result<Vec<u8>> {
    let ask = |server: &SocketAddr| -> std::io::Result<Vec<u8>> {
        let mut stream = TcpStream::connect_timeout(server, PATIENCE)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        write_one(&mut stream, question)?;
        read_one(&mut stream)
    };
    let answer = servers.iter().find_map(|server| ask(server).ok());
    answer.ok_or_else(|| std::io::Error::other("nobody answers"))
}

fn read_one(stream: &mut TcpStream) -> std::io::Result<Vec<u8>> {
    let mut length = [0; 2];
    stream.read_exact(&mut length)?;
    let mut message = vec![0; usize::from(u16::from_be_bytes(length))];
    stream.read_exact(&mut message).map(|()| message)
}

fn write_one(stream: &mut TcpStream, message: &[u8]) -> std::io::Result<()> {
    let length = u16::try_from(message.len()).map_err(std::io::Error::other)?;
    stream.write_all(&[&length.to_be_bytes(), message].concat())
}

/// The host's servers, as they are now. Unlike a container we also reach those on loopback; in a plain
/// user's network namespace through pasta.
fn hosts_servers() -> Vec<IpAddr> {
    let text = fs::read_to_string("/etc/resolv.conf").unwrap_or_default();
    let address = |line: &str| line.strip_prefix("nameserver")?.trim().parse().ok();
    let reached = |address: IpAddr| {
        if address.is_loopback() && rootless::is_inside() {
            uplink::NAMESERVER.into()
        } else {
            address
        }
    };
    text.lines().filter_map(address).map(reached).collect()
}

/// The server, if it is there.
fn running(pool: &Pool) -> Result<Option<Process>> {
    let Some(process) = noted(pool.path())? else { return Ok(None) };
    Ok(process.is_there()?.then_some(process))
}

fn noted(directory: &Path) -> Result<Option<Process>> {
    let path = directory.join(FILE);
    match fs::read(&path) {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        // Who was killed while he wrote it has left less.
        text => Ok(serde_json::from_slice(
            &text.with_context(|| format!("cannot read {}", path.display()))?,
        )
        .ok()),
    }
}

/// Ends the server, if there is one. The pool is locked: nobody starts another one meanwhile.
pub fn stop(pool: &Pool) -> Result<()> {
    stop_in(pool.path())
}

/// The same, of the pool in this directory.
pub fn stop_in(directory: &Path) -> Result<()> {
    if let Some(process) = noted(directory)? {
        match pidfd_open(Pid::from_raw(process.pid)) {
            Ok(pidfd) if process.is_there()? => {
                end(&pidfd).context("cannot end the name server")?;
            }
            Ok(_) | Err(Errno::ESRCH) => {}
            Err(errno) => return Err(anyhow!(errno).context("cannot get hold of the name server")),
        }
    }
    match fs::remove_file(directory.join(FILE)) {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            Err(error).context("cannot remove the name server's note")
        }
        _ => Ok(()),
    }
}

/// Whether the server of this bridge is missing, though a container needs it.
pub fn is_missing(bridge: &str) -> Result<bool> {
    let note = fs::read(Pool::directory(bridge)?.join(FILE)).unwrap_or_default();
    let process: Option<Process> = serde_json::from_slice(&note).ok();
    let lives = process.map_or(Ok(false), Process::is_there)?;
    Ok(!lives && !Endpoint::all(bridge)?.is_empty())
}
