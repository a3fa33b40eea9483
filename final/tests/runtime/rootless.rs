//! The networks of a plain user: in a network namespace of theirs, and with pasta as the way out.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, Shutdown, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use nix::unistd::Pid;
use workshop::internet::{SERVER, UPLINK};
use workshop::lab::Who;
use workshop::monitors::{kill_process, monitor};
use workshop::snapshot::Snapshot;
use workshop::suite::{
    Outcome, command, eventually, finish, get, probe_volume, read, run, this_program,
};
use workshop::wire::Wire;

use crate::networks::{address, ask, inspect, network, refusal};
use crate::{BINARY, final_, kill_with_monitor, script, start, stop};

/// A container with an HTTP server, which only others on its networks reach.
fn web(name: &str, net: &str) -> Child {
    let volume = probe_volume();
    let options = ["--net", net, "-v", &volume];
    let child = start(name, &options, &["/probe", "@serve", "0.0.0.0:80"]);
    let own = || final_(&["exec", name, "/probe", "@get", "127.0.0.1:80"]).stdout;
    eventually("it serves", || own().contains("hello"));
    child
}

/// Where the namespace's own things are.
fn place() -> String {
    format!("{}/rootless", std::env::var("FINAL_ROOT").unwrap())
}

fn pasta() -> Option<Pid> {
    let note = fs::read_to_string(format!("{}/pasta.pid", place())).ok()?;
    note.trim().parse().ok().map(Pid::from_raw)
}

/// As on a machine on which there is no pasta.
fn without_pasta(words: &[&str]) -> Outcome {
    run(command(BINARY, words).env("PATH", "/nowhere"), Duration::from_secs(100))
}

pub fn a_plain_user_has_networks_of_their_own(_: Who) {
    let links = Wire::open().unwrap().links().unwrap();
    network(&["create", "blue"]);
    network(&["create", "green"]);
    let blue = web("web", "blue");
    let green = start("other", &["--net", "green", "--ip", "10.77.2.9"], &["sleep", "1000"]);
    assert_eq!(Wire::open().unwrap().links().unwrap(), links, "the host has a link more");
    assert_eq!(address("other"), "10.77.2.9");

    // Names, on the one network; nothing from the other one.
    let looked = script(&["--net", "blue"], "getent ahostsv4 web; cat /etc/resolv.conf");
    assert!(looked.stdout.starts_with(&address("web")), "{looked:?}");
    assert!(looked.stdout.contains("nameserver 10.77.1.1\n"), "{looked:?}");
    assert!(ask("blue", &format!("{}:80", address("web"))).contains("hello"));
    assert!(ask("green", &format!("{}:80", address("web"))).contains("error"));
    let other = final_(&["exec", "other", "getent", "ahostsv4", "web"]);
    assert_eq!(other.stdout, "");
    // As root has it: who is on a network is shown, and holds it.
    let shown = inspect("green")["Containers"].to_string();
    assert!(shown.contains("10.77.2.9/24") && shown.contains("other"), "{shown}");
    let template = "{{.NetworkSettings.Networks.green.IPAddress}}";
    assert_eq!(final_(&["inspect", "-f", template, "other"]).stdout, "10.77.2.9\n");
    let refused = refusal(&["rm", "green"]);
    assert!(refused.contains("in use by other"), "{refused}");
    let shared = script(&["--net", "container:web"], "tail -n 1 /etc/hosts");
    assert!(shared.stdout.starts_with(&address("web")), "{shared:?}");
    let other = script(&["--net", "bridge"], "tail -n 1 /etc/hosts");
    assert!(other.stdout.starts_with("10.77.0."), "{other:?}");

    stop("web", blue);
    stop("other", green);
    assert!(!fs::exists(place()).unwrap());
    network(&["rm", "blue", "green"]);
}

pub fn without_pasta_a_network_has_no_way_out(_: Who) {
    network(&["create", "blue"]);
    let volume = probe_volume();
    let get = format!("{SERVER}:80");
    let words = ["run", "--rm", "--net", "blue", "-v", &volume, "host", "/probe", "@get", &get];
    let ran = without_pasta(&words);
    assert!(ran.stdout.contains("error"), "{ran:?}");
    assert!(ran.stderr.contains("Debian package: passt"), "{ran:?}");
    // A network that is to have none is not worth a word.
    network(&["create", "--internal", "closed"]);
    let ran = without_pasta(&["run", "--rm", "--net", "closed", "host", "true"]);
    assert_eq!((ran.status, &*ran.stderr), (Some(0), ""));
    network(&["rm", "blue", "closed"]);
}

pub fn pasta_is_the_way_out(_: Who) {
    network(&["create", "blue"]);
    let web = web("web", "blue");
    // The world sees the user's own sockets.
    assert!(ask("blue", &format!("{SERVER}:80")).contains(&UPLINK.to_string()));
    assert!(ask("bridge", &format!("{SERVER}:80")).contains(&UPLINK.to_string()));
    // Killed, it is started again by the next command, for those who are there.
    kill_process(pasta().expect("it is there"));
    assert_eq!(final_(&["ps"]).status, Some(0));
    let server = format!("{SERVER}:80");
    let asked = final_(&["exec", "web", "/probe", "@get", &server]);
    assert!(asked.stdout.contains(&UPLINK.to_string()), "{asked:?}");
    // The host's processes are not reached through it.
    let mut host = Command::new(this_program());
    let mut host = host.args(["@serve", "127.0.0.1:8000"]).stdout(Stdio::null()).spawn().unwrap();
    eventually("the host serves", || get("127.0.0.1:8000", "/").contains("hello"));
    for address in [SERVER, UPLINK, Ipv4Addr::LOCALHOST] {
        let get = format!("{address}:8000");
        let asked = final_(&["exec", "web", "timeout", "1", "/probe", "@get", &get]);
        assert!(!asked.stdout.contains("hello"), "{address}: {asked:?}");
    }
    host.kill().unwrap();
    host.wait().unwrap();
    let last = pasta().expect("it is there");
    stop("web", web);
    eventually("pasta ends", || !fs::exists(format!("/proc/{last}")).unwrap());
    network(&["rm", "blue"]);
}

pub fn what_is_killed_in_a_users_namespace_is_replaced_or_cleaned_up(_: Who) {
    network(&["create", "blue"]);
    let before = Snapshot::take(&[]).unwrap();
    let mut first = web("first", "blue");
    let second = web("second", "blue");
    let namespace = |name| fs::read_link(format!("/proc/{}/ns/net", monitor(name))).unwrap();
    assert_eq!(namespace("first"), namespace("second"));
    // Who has made the namespace is nobody special.
    kill_with_monitor(&mut first);
    assert!(ask("blue", &format!("{}:80", address("second"))).contains("hello"));
    let note = fs::read_dir(format!("{}/pools", place())).unwrap().next().unwrap().unwrap();
    let names: serde_json::Value = serde_json::from_str(&read(note.path().join("names"))).unwrap();
    kill_process(Pid::from_raw(i32::try_from(names["pid"].as_i64().unwrap()).unwrap()));
    assert_eq!(final_(&["ps"]).status, Some(0));
    let looked = script(&["--net", "blue"], "getent ahostsv4 second");
    assert!(looked.stdout.starts_with(&address("second")), "{looked:?}");
    // The last one: the next command ends what has outlived it.
    let mut second = second;
    kill_with_monitor(&mut second);
    assert_eq!(final_(&["gc"]).status, Some(0));
    assert!(!fs::exists(place()).unwrap());
    before.ensure_restored(&[]).unwrap();
    network(&["rm", "blue"]);
}

pub fn who_come_at_once_are_in_one_namespace(_: Who) {
    network(&["create", "blue"]);
    let names: Vec<_> = (1..=6).map(|number| format!("c{number}")).collect();
    let run = |name: &String| {
        let words = ["run", "--rm", "--name", name, "--net", "blue", "host", "sleep", "1000"];
        let mut command = command(BINARY, &words);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command.spawn().unwrap()
    };
    let all: Vec<_> = names.iter().map(run).collect();
    let there = || inspect("blue")["Containers"].as_object().unwrap().len();
    eventually("all are there", || there() == names.len());
    eventually("all run", || final_(&["ps", "--quiet"]).stdout.lines().count() == names.len());
    let found = final_(&["exec", "c1", "getent", "ahostsv4", "c6"]);
    assert!(found.stdout.starts_with("10.77.1."), "{found:?}");
    // They leave at once, too.
    let killed =
        final_(&[&["kill"][..], &names.iter().map(String::as_str).collect::<Vec<_>>()].concat());
    assert_eq!(killed.status, Some(0), "{killed:?}");
    for child in all {
        assert_eq!(finish(child, Duration::from_secs(60)).status, Some(137));
    }
    assert!(!fs::exists(place()).unwrap());
    network(&["rm", "blue"]);
}

pub fn a_plain_users_ports_are_published(_: Who) {
    let volume = probe_volume();
    // The first time it fails, and is started again: the ports are still its own.
    let program = "test -e /again || { touch /again; exit 1; }; /probe @echo 0.0.0.0:53 & \
                   exec /probe @serve 0.0.0.0:80";
    let options = ["-p", "8080:80", "-p", "127.0.0.1:8081:80", "-p", "5353:53/udp"];
    let words = ["run", "-d", "--name", "web", "--restart", "on-failure", "--net", "bridge"];
    let image = ["-v", &volume, "host", "sh", "-c", program];
    let ran = final_(&[&words[..], &options, &image].concat());
    assert_eq!(ran.status, Some(0), "{ran:?}");
    let from_outside =
        |protocol, port: u16| get(&format!("{SERVER}:80"), &format!("/{protocol}/{UPLINK}/{port}"));
    for (protocol, port) in [("tcp", 8080), ("udp", 5353)] {
        let reached = || from_outside(protocol, port).contains("hello 10.77.0.1");
        eventually(&format!("{protocol} {port}"), reached);
    }
    assert!(get("127.0.0.1:8080", "/").contains("hello"));
    assert!(get("127.0.0.1:8081", "/").contains("hello"));
    assert!(from_outside("tcp", 8081).contains("Connection refused"));
    let ps = final_(&["ps"]).stdout;
    assert!(ps.contains("0.0.0.0:8080->80/tcp"), "{ps}");
    // As long as it is there, and no longer.
    let refused = script(&["--net", "bridge", "-p", "8080:81"], "true");
    assert_eq!(refused.status, Some(125), "{refused:?}");
    assert!(
        refused.stderr.contains("8080/tcp is already in use by the container web"),
        "{refused:?}"
    );
    let refused = script(&["--net", "bridge", "-p", "80:80"], "true");
    assert!(refused.stderr.contains("the port 80 is root's"), "{refused:?}");
    // Of its starter it has nothing: no file, no lock.
    let forwarder = forwarder("web").expect("it is there");
    let files = || fs::read_dir(format!("/proc/{forwarder}/fd")).unwrap().count();
    eventually("input, output, errors, three ports, one UDP client", || files() == 7);
    assert_eq!(final_(&["rm", "-f", "web"]).status, Some(0));
    assert!(get("127.0.0.1:8080", "/").starts_with("error"));
    // With its monitor it dies, whatever that dies of.
    let volume = probe_volume();
    let mut runtime = start(
        "web",
        &["--net", "bridge", "-p", "8080:80", "-v", &volume],
        &["/probe", "@serve", "0.0.0.0:80"],
    );
    eventually("it serves", || get("127.0.0.1:8080", "/").contains("hello"));
    kill_with_monitor(&mut runtime);
    eventually("it is gone", || get("127.0.0.1:8080", "/").starts_with("error"));
    assert_eq!(final_(&["gc"]).status, Some(0));
}

/// Who copies what comes to a container's ports.
fn forwarder(name: &str) -> Option<Pid> {
    let comm = |pid: &Pid| fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
    let is_it = |pid: &Pid| comm(pid).trim() == "final-ports";
    crate::children(monitor(name)).into_iter().find(is_it)
}

pub fn who_copies_for_a_port_is_replaced_when_killed(_: Who) {
    let volume = probe_volume();
    let options = ["--net", "bridge", "-p", "8080:80", "-v", &volume];
    let runtime = start("web", &options, &["/probe", "@serve", "0.0.0.0:80"]);
    eventually("it serves", || get("127.0.0.1:8080", "/").contains("hello"));
    for _ in 0..3 {
        let killed = forwarder("web").expect("it is there");
        kill_process(killed);
        eventually("another one", || forwarder("web").is_some_and(|other| other != killed));
        let answer = get("127.0.0.1:8080", "/");
        assert!(answer.contains("hello"), "{answer}");
    }
    stop("web", runtime);
    assert!(get("127.0.0.1:8080", "/").starts_with("error"));
}

/// Much, in both directions at once, and the end of one of them before the other's.
pub fn what_goes_through_a_plain_users_port_is_whole(_: Who) {
    let options = ["--net", "bridge", "-p", "8080:80"];
    let server = "import socket; s = socket.create_server(('', 80))\n\
                  while True:\n c = s.accept()[0]; all = b''\n \
                  while data := c.recv(65536): all += data\n c.sendall(all); c.close()";
    let runtime = start("echo", &options, &["python3", "-c", server]);
    let sent: Vec<u8> =
        (0..3_000_000_u32).map(|n| n.to_le_bytes()[usize::from(n % 2 == 0)]).collect();
    let connect = || TcpStream::connect("127.0.0.1:8080");
    let exchange = || -> std::io::Result<Vec<u8>> {
        let mut stream = connect()?;
        stream.write_all(&sent)?;
        stream.shutdown(Shutdown::Write)?;
        let mut back = Vec::new();
        stream.read_to_end(&mut back).map(|_| back)
    };
    eventually("it is whole", || exchange().is_ok_and(|back| back == sent));
    stop("echo", runtime);
}
