//! Names on a network: who answers, what, and for how long.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::thread::{scope, spawn};
use std::time::Duration;

use nix::mount::{MsFlags, mount, umount};
use nix::sched::{CloneFlags, setns};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use workshop::internet::{SERVER, UPLINK};
use workshop::lab::Who;
use workshop::snapshot::Snapshot;
use workshop::suite::{eventually, get, probe_volume};

use crate::networks::{address, inspect, network, web};
use crate::{ensure_small_and_idle, final_, script, start, stop};

/// What a container finds for a name; nothing if it finds none.
fn lookup(container: &str, name: &str) -> String {
    let found = final_(&["exec", container, "getent", "ahostsv4", name]).stdout;
    found.split_whitespace().next().unwrap_or_default().to_owned()
}

pub fn containers_find_each_other_by_name(_: Who) {
    network(&["create", "blue"]);
    network(&["create", "green"]);
    let looker = start("looker", &["--net", "blue"], &["sleep", "1000"]);
    let other = start("other", &["--net", "green"], &["sleep", "1000"]);
    let plain = start("plain", &[], &["sleep", "1000"]);
    assert_eq!(lookup("looker", "Web"), "");
    let options = ["--net", "blue", "--network-alias", "shop", "--ip", "10.77.1.77"];
    let server = web("Web", &options);
    let id = final_(&["exec", "Web", "hostname"]).stdout;
    for name in ["Web", "web", "WEB", "web.blue", "shop", id.trim(), "10.77.1.77"] {
        assert_eq!(lookup("looker", name), "10.77.1.77", "{name}");
    }
    assert_eq!(lookup("looker", "looker"), address("looker"));
    let reverse = final_(&["exec", "looker", "getent", "hosts", "10.77.1.77"]).stdout;
    assert_eq!(reverse.split_whitespace().nth(1), Some("Web.blue"), "{reverse}");
    for stranger in ["other", "plain"] {
        assert_eq!(lookup(stranger, "web"), "");
    }
    // Nobody knows: that is said at once, as the lab has no name server.
    let answer = ask("looker", "10.77.1.1", &question("nobody"));
    assert_eq!((answer[..2].to_vec(), answer[3] & 0xf), (vec![0, 7], 2), "{answer:?}");
    // A name is no more than an address: it is reached.
    let volume = probe_volume();
    let asked = "getent ahostsv4 web | head -1 | { read a rest; exec /probe @get $a:80; }";
    let asked = script(&["--net", "blue", "-v", &volume], asked);
    assert!(asked.stdout.contains("hello"), "{asked:?}");
    // Others of this host are not told who is there.
    let gateway = inspect("blue")["IPAM"]["Config"][0]["Gateway"].as_str().unwrap().to_owned();
    let stranger = UdpSocket::bind((UPLINK, 0)).unwrap();
    stranger.set_read_timeout(Some(Duration::from_millis(500))).unwrap();
    stranger.send_to(&question("web"), (gateway.as_str(), 53)).unwrap();
    assert!(stranger.recv(&mut [0; 512]).is_err());
    // Gone is gone: the very next question.
    stop("Web", server);
    assert_eq!(lookup("looker", "web"), "");
    for (name, runtime) in [("looker", looker), ("other", other), ("plain", plain)] {
        stop(name, runtime);
    }
    network(&["rm", "blue", "green"]);
}

/// A question for the address of a name: number 7, recursion desired.
fn question(name: &str) -> Vec<u8> {
    let labels = name
        .split('.')
        .flat_map(|label| [&[u8::try_from(label.len()).unwrap()], label.as_bytes()].concat());
    let head = [0, 7, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    head.into_iter().chain(labels).chain([0, 0, 1, 0, 1]).collect()
}

/// Does something in the network of a container.
fn inside<T: Send>(container: &str, work: impl FnOnce() -> T + Send) -> T {
    let all = fs::read_dir("/run/container-workshop").unwrap().filter_map(Result::ok);
    let files = all.filter_map(|pool| fs::read_dir(pool.path()).ok()).flatten();
    let texts = files.filter_map(|file| fs::read_to_string(file.ok()?.path()).ok());
    let mut endpoints = texts.filter_map(|text| serde_json::from_str::<Value>(&text).ok());
    let endpoint =
        endpoints.find(|endpoint| endpoint["name"] == container && endpoint["aliases"].is_array());
    let pid = endpoint.unwrap()["process"]["pid"].clone();
    let network = fs::File::open(format!("/proc/{pid}/ns/net")).unwrap();
    scope(|scope| {
        let work = || {
            setns(network, CloneFlags::CLONE_NEWNET).unwrap();
            work()
        };
        scope.spawn(work).join().unwrap()
    })
}

/// What the name server at this address answers a container.
fn ask(container: &str, server: &str, question: &[u8]) -> Vec<u8> {
    inside(container, || {
        let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        socket.send_to(question, (server, 53)).unwrap();
        let mut answer = [0; 4096];
        let len = socket.recv(&mut answer).unwrap();
        answer[..len].to_vec()
    })
}

pub fn other_questions_go_to_whom_the_host_asks(_: Who) {
    // Two servers, of which the first does not answer; the second says the question once more, and "!".
    let base = std::env::var("XDG_RUNTIME_DIR").unwrap();
    let conf = format!("{base}/resolv.conf");
    fs::write(&conf, "search lan\nnameserver 127.0.0.2\nnameserver 127.0.0.3\n").unwrap();
    mount(Some(&*conf), "/etc/resolv.conf", None::<&str>, MsFlags::MS_BIND, None::<&str>).unwrap();
    let silent = UdpSocket::bind("127.0.0.2:53").unwrap();
    let udp = UdpSocket::bind("127.0.0.3:53").unwrap();
    let tcp = TcpListener::bind("127.0.0.3:53").unwrap();
    spawn(move || {
        let mut bytes = [0; 4096];
        loop {
            let (len, client): (usize, SocketAddr) = udp.recv_from(&mut bytes).unwrap();
            udp.send_to(&[&bytes[..len], b"!"].concat(), client).unwrap();
        }
    });
    spawn(move || {
        loop {
            let (mut stream, _) = tcp.accept().unwrap();
            let mut bytes = [0; 4096];
            let len = stream.read(&mut bytes).unwrap();
            let long = u16::try_from(len - 2 + 3000).unwrap().to_be_bytes();
            stream.write_all(&[&long, &bytes[2..len], &[b'!'; 3000][..]].concat()).unwrap();
        }
    });
    network(&["create", "blue"]);
    network(&["create", "--internal", "inside"]);
    let one = start("one", &["--net", "blue"], &["sleep", "1000"]);
    let resolv = final_(&["exec", "one", "cat", "/etc/resolv.conf"]).stdout;
    assert_eq!(resolv, "search lan\nnameserver 10.77.1.1\n");
    for odd in [question("www.example.org"), [&question("a.b")[..], b"and more"].concat()] {
        assert_eq!(ask("one", "10.77.1.1", &odd), [&odd[..], b"!"].concat());
    }
    let mut buffer = [0; 512];
    assert!(silent.recv(&mut buffer).unwrap() > 20); // it has been asked first
    let mut stream = inside("one", || TcpStream::connect("10.77.1.1:53").unwrap());
    let asked = question("long.example.org");
    let length = u16::try_from(asked.len()).unwrap().to_be_bytes();
    stream.write_all(&[&length[..], &asked].concat()).unwrap();
    let mut answer = vec![0; asked.len() + 3002];
    stream.read_exact(&mut answer).unwrap();
    assert!(answer[2..].starts_with(&asked) && answer.ends_with(b"!!!"));
    drop(stream);

    // Where there is no way out, there is none for questions.
    // Who wants others asks others.
    let picky = start("picky", &["--net", "blue", "--dns", "127.0.0.3"], &["sleep", "1000"]);
    let resolv = final_(&["exec", "picky", "cat", "/etc/resolv.conf"]).stdout;
    assert!(resolv.contains("nameserver 10.77.1.1\n") && !resolv.contains("127.0.0.3"), "{resolv}");
    silent.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
    while silent.recv(&mut buffer).is_ok() {}
    assert!(ask("picky", "10.77.1.1", &question("www.example.org")).ends_with(b"!"));
    assert!(silent.recv(&mut buffer).is_err(), "the host's server was asked");
    stop("picky", picky);

    let two = start("two", &["--net", "inside"], &["sleep", "1000"]);
    let answer = ask("two", "10.77.2.1", &question("www.example.org"));
    assert_eq!((answer[..2].to_vec(), answer[3] & 0xf), (vec![0, 7], 5), "{answer:?}");
    assert!(ask("two", "10.77.2.1", &question("two")).ends_with(&[10, 77, 2, 2]));
    stop("one", one);
    stop("two", two);
    network(&["rm", "blue", "inside"]);
    umount("/etc/resolv.conf").unwrap();
    fs::remove_file(conf).unwrap();
}

/// The processes that answer for names.
fn servers() -> Vec<i32> {
    let pids = fs::read_dir("/proc").unwrap().filter_map(|entry| {
        let pid: i32 = entry.ok()?.file_name().to_str()?.parse().ok()?;
        let name = fs::read_to_string(format!("/proc/{pid}/comm")).ok()?;
        (name.trim() == "final-names").then_some(pid)
    });
    pids.collect()
}

fn kill_hard(pid: i32) {
    kill(Pid::from_raw(pid), Signal::SIGKILL).unwrap();
    eventually("it is dead", || !servers().contains(&pid));
}

pub fn a_name_server_lives_as_long_as_its_network_is_used(_: Who) {
    network(&["create", "blue"]);
    network(&["create", "green"]);
    let made = Snapshot::take(&[]).unwrap();
    let one = start("one", &["--net", "blue"], &["sleep", "1000"]);
    let first = servers();
    assert_eq!(first.len(), 1);
    let two = start("two", &["--net", "blue"], &["sleep", "1000"]);
    let three = start("three", &["--net", "green"], &["sleep", "1000"]);
    assert_eq!((servers().len(), servers()[0]), (2, first[0]));
    stop("one", one);
    assert_eq!(lookup("two", "two"), address("two"));
    stop("three", three);
    assert_eq!(servers(), first);

    // Killed, the next command starts it again, whatever that is.
    kill_hard(first[0]);
    assert_eq!(final_(&["ps"]).status, Some(0));
    assert_eq!(lookup("two", "two"), address("two"));
    assert_ne!(servers(), first);
    kill_hard(servers()[0]);
    let four = start("four", &["--net", "blue"], &["sleep", "1000"]);
    assert_eq!(lookup("four", "two"), address("two"));
    stop("four", four);
    stop("two", two);
    assert!(servers().is_empty());
    made.ensure_restored(&[]).unwrap();

    // Killed with everybody else, nothing is left.
    for with_server in [false, true] {
        let mut one = start("one", &["--net", "blue"], &["sleep", "1000"]);
        if with_server {
            kill_hard(servers()[0]);
        }
        crate::kill_monitor("one");
        one.wait().unwrap();
        assert_eq!(final_(&["ps"]).status, Some(0));
        made.ensure_restored(&[]).unwrap();
    }
    network(&["rm", "blue", "green"]);
}

pub fn a_name_server_is_small_and_idle(_: Who) {
    network(&["create", "blue"]);
    let starter = start("starter", &["--net", "blue", "--ip", "10.77.1.9"], &["sleep", "1000"]);
    let one = start("one", &["--net", "blue", "--ip", "10.77.1.2"], &["sleep", "1000"]);
    let pid = servers()[0];
    stop("starter", starter); // with whom it has shared its memory
    for _ in 0..1000 {
        assert!(ask("one", "10.77.1.1", &question("one")).ends_with(&[10, 77, 1, 2]));
    }
    ensure_small_and_idle("the name server", Pid::from_raw(pid));
    // Of who has started it, it has nothing: no file, no lock.
    let files = fs::read_dir(format!("/proc/{pid}/fd")).unwrap().count();
    assert_eq!(files, 5, "input, output, errors, and two sockets");
    stop("one", one);
    network(&["rm", "blue"]);
}

pub fn a_network_can_be_another_containers(_: Who) {
    network(&["create", "blue"]);
    let server = web("web", &["--net", "blue", "-p", "8080:80"]);
    let volume = probe_volume();
    let inside = |options: &[&str], text: &str| {
        let options = [&["--net", "container:web", "-v", &volume], options].concat();
        script(&options, text)
    };
    let seen = inside(
        &[],
        "hostname; tail -n 1 /etc/hosts; cat /etc/resolv.conf; /probe @get 127.0.0.1:80",
    );
    let lines: Vec<_> = seen.stdout.lines().collect();
    let name = final_(&["exec", "web", "hostname"]).stdout;
    assert_eq!(lines[0], name.trim(), "{seen:?}");
    assert_eq!(lines[1], format!("{}\t{}", address("web"), name.trim()), "{seen:?}");
    assert!(seen.stdout.contains("nameserver 10.77.1.1\n"), "{seen:?}");
    assert!(seen.stdout.contains("hello 127.0.0.1 at 127.0.0.1"), "{seen:?}");
    let outside = inside(&[], &format!("/probe @get {SERVER}:80"));
    assert!(outside.stdout.contains(&UPLINK.to_string()), "{outside:?}");
    for (options, why) in [
        (&["-p", "81:81"][..], "conflicting options: --publish and --net container:web"),
        (&["-P"], "conflicting options: --publish-all and"),
        (&["--expose", "81"], "conflicting options: --expose and"),
        (&["--ip", "10.77.1.9"], "conflicting options: --ip and"),
        (&["-h", "other"], "conflicting options: --hostname and --net container:web"),
    ] {
        let refused = inside(options, "true");
        assert_eq!(refused.status, Some(125), "{refused:?}");
        assert!(refused.stderr.contains(why), "{options:?}: {refused:?}");
    }
    // The network stays with its last process, the name and the ports go with their owner.
    let guest = start("guest", &["--net", "container:web"], &["sleep", "1000"]);
    stop("web", server);
    assert!(get(&format!("{UPLINK}:8080"), "/").starts_with("error"));
    stop("guest", guest);
    for (net, why) in
        [("container:web", "no such container: web"), ("container:", "no such container")]
    {
        let refused = script(&["--net", net], "true");
        assert_eq!(refused.status, Some(125), "{refused:?}");
        assert!(refused.stderr.contains(why), "{refused:?}");
    }
    network(&["rm", "blue"]);
}

pub fn a_plain_user_shares_another_containers_network(_: Who) {
    let one = start("one", &[], &["sleep", "1000"]);
    let own = final_(&["exec", "one", "readlink", "/proc/self/ns/net"]).stdout;
    let shared = script(&["--net", "container:one"], "readlink /proc/self/ns/net");
    assert_eq!((shared.status, shared.stdout), (Some(0), own), "{}", shared.stderr);
    stop("one", one);
}
