//! Published ports of a plain user's container: a small process that copies.
//!
//! The host's firewall is root's, so no rule sends packets on. But a socket stays in the network
//! namespace in which it was made: those that hold the ports were made on the host, and what this
//! process makes is in the user's namespace, where it is. So it takes each connection from the one side,
//! and makes one to the container on the other. The container sees it come from the bridge.

use std::collections::HashMap;
use std::io::{self, PipeWriter};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use nix::sys::prctl;
use nix::sys::signal::{Signal, kill};
use nix::sys::socket::{Backlog, listen};
use nix::sys::wait::waitpid;
use nix::unistd::{ForkResult, Pid, fork, getppid};
use step01_namespaces::{pidfd_open, warn};
use step05_nat::Protocol;

use super::helper;

/// Connections, and clients of a UDP port, at most: each is a thread or two.
const MOST: usize = 256;
/// How long a client of a UDP port is remembered that says and is told nothing, as conntrack does
/// (nf_conntrack_udp_timeout).
const IDLE: Duration = Duration::from_secs(30);

/// A port of the host's that is ours, and which one of the container it is.
#[derive(Debug)]
pub struct Held {
    /// What holds it: it listens, if it is TCP.
    pub socket: OwnedFd,
    /// The port in the container.
    pub container: u16,
    /// TCP or UDP.
    pub protocol: Protocol,
}

impl Held {
    /// One more file for the same socket.
    pub fn try_clone(&self) -> Result<Self> {
        let socket = self.socket.try_clone().context("cannot keep the published ports")?;
        Ok(Self { socket, ..*self })
    }
}

/// The process. Dropping it ends it; with us it ends as well.
#[derive(Debug)]
pub struct Forwarder {
    process: Running,
    /// For the next one, if this one is killed. Who connects meanwhile waits.
    ports: Vec<Held>,
    address: Ipv4Addr,
}

impl Forwarder {
    /// Starts it, for a container at this address. Call it from a process with one thread only.
    pub fn start(ports: Vec<Held>, address: Ipv4Addr) -> Result<Self> {
        Ok(Self { process: Running::start(&ports, address)?, ports, address })
    }

    /// Starts it once more: it has ended.
    pub fn restart(&mut self) -> Result<()> {
        self.process = Running::start(&self.ports, self.address)?;
        Ok(())
    }
}

/// Readable when it has ended.
impl AsFd for Forwarder {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.process.pidfd.as_fd()
    }
}

/// One that is to be waited for.
#[derive(Debug)]
struct Running {
    pid: Pid,
    pidfd: OwnedFd,
}

impl Running {
    fn start(ports: &[Held], address: Ipv4Addr) -> Result<Self> {
        let start = || -> Result<Self> {
            let parent = Pid::this();
            let (started, starts) = io::pipe().context("cannot make a pipe")?;
            // SAFETY: this process has one thread, so its copy may go on with any code.
            match unsafe { fork() }.context("cannot fork")? {
                ForkResult::Parent { child } => {
                    let pidfd = pidfd_open(child).inspect_err(|_| end(child));
                    let pidfd = pidfd.context("cannot get hold of it")?;
                    let running = Self { pid: child, pidfd };
                    drop(starts);
                    helper::wait_for(started).map(|()| running)
                }
                ForkResult::Child => {
                    let _ = serve(ports, address, parent, starts);
                    // SAFETY: it ends the process at once: nothing of the caller's is dropped twice.
                    unsafe { libc::_exit(1) }
                }
            }
        };
        start().context("cannot start the process for published ports")
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        end(self.pid);
    }
}

/// It is our child, so the number is its own until we have waited.
fn end(child: Pid) {
    let ended = kill(child, Signal::SIGKILL).and_then(|()| waitpid(child, None));
    if let Err(errno) = ended {
        warn(&format!("cannot end the process for published ports: {errno}"));
    }
}

/// Its whole life: it is ended from outside.
fn serve(ports: &[Held], address: Ipv4Addr, parent: Pid, starts: PipeWriter) -> Result<()> {
    let begin = || -> Result<()> {
        prctl::set_pdeathsig(Signal::SIGKILL).context("cannot be made to end with the monitor")?;
        ensure!(getppid() == parent, "the monitor was killed");
        // These are the threads'; what they were made of is closed with all the caller's files.
        let ports: Vec<_> = ports.iter().map(Held::try_clone).collect::<Result<_>>()?;
        let sockets = ports.iter().map(|port| port.socket.as_raw_fd());
        let kept: Vec<_> = sockets.chain([starts.as_raw_fd()]).collect();
        helper::leave_caller(&kept, c"final-ports")?;
        ports.into_iter().try_for_each(|port| forward(port, address))
    };
    let begun = begin();
    helper::tell(starts, begun)?;
    loop {
        thread::park();
    }
}

/// A thread for each port.
fn forward(Held { socket, container, protocol }: Held, address: Ipv4Addr) -> Result<()> {
    let to = SocketAddr::from((address, container));
    let work = move || match protocol {
        Protocol::Tcp => forward_connections(socket, to),
        Protocol::Udp => forward_datagrams(&Arc::new(UdpSocket::from(socket)), to),
    };
    thread::Builder::new().spawn(work).map(drop).context("cannot start a thread for a port")
}

fn forward_connections(socket: OwnedFd, to: SocketAddr) -> io::Result<()> {
    // It has listened for nobody so far.
    listen(&socket, Backlog::new(128)?)?;
    let listener = TcpListener::from(socket);
    let connections = Arc::new(AtomicUsize::new(0));
    loop {
        let Ok((client, _)) = listener.accept() else {
            thread::sleep(Duration::from_millis(100)); // too many open files: some will be closed
            continue;
        };
        if connections.load(Ordering::Relaxed) < MOST {
            let counted = Counted::new(&connections);
            drop(spawn(move || {
                let _ = relay(&client, to);
                drop(counted);
            }));
        }
    }
}

/// One connection, until both sides have said all they wanted.
fn relay(client: &TcpStream, to: SocketAddr) -> io::Result<()> {
    let server = TcpStream::connect(to)?;
    let copy = |mut from: &TcpStream, mut to: &TcpStream| {
        let _ = io::copy(&mut from, &mut to);
        let _ = to.shutdown(Shutdown::Write); // the end, too
    };
    thread::scope(|scope| {
        let back = thread::Builder::new().stack_size(STACK);
        back.spawn_scoped(scope, || copy(&server, client))?;
        copy(client, &server);
        Ok(())
    })
}

fn forward_datagrams(socket: &Arc<UdpSocket>, to: SocketAddr) -> io::Result<()> {
    let clients: Arc<Mutex<HashMap<SocketAddr, Arc<UdpSocket>>>> = Arc::default();
    let mut datagram = vec![0; 65536];
    loop {
        let Ok((len, client)) = socket.recv_from(&mut datagram) else { continue };
        let known = lock(&clients).get(&client).cloned();
        let server = match known {
            Some(server) => server,
            None if lock(&clients).len() >= MOST => continue,
            None => {
                let server = Arc::new(UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?);
                server.connect(to)?;
                server.set_read_timeout(Some(IDLE))?;
                lock(&clients).insert(client, Arc::clone(&server));
                let (back, ours, all) =
                    (Arc::clone(&server), Arc::clone(socket), Arc::clone(&clients));
                let started = spawn(move || {
                    let mut datagram = vec![0; 65536];
                    while let Ok(len) = back.recv(&mut datagram) {
                        let _ = ours.send_to(&datagram[..len], client);
                    }
                    lock(&all).remove(&client);
                });
                if started.is_err() {
                    lock(&clients).remove(&client);
                }
                server
            }
        };
        let _ = server.send(&datagram[..len]);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

const STACK: usize = 128 * 1024;

fn spawn(work: impl FnOnce() + Send + 'static) -> io::Result<()> {
    thread::Builder::new().stack_size(STACK).spawn(work).map(drop)
}

/// One of a number of things, as long as it is there.
struct Counted(Arc<AtomicUsize>);

impl Counted {
    fn new(number: &Arc<AtomicUsize>) -> Self {
        number.fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(number))
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}
