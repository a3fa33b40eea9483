//! Networks with a name: their files, and who reaches whom.

use std::collections::BTreeSet;
use std::fs;
use std::process::{Child, Command, Stdio};
use std::thread::{scope, sleep};
use std::time::Instant;

use serde_json::Value;
use workshop::internet::{SECOND_HOST, SERVER, UPLINK};
use workshop::lab::Who;
use workshop::snapshot::Snapshot;
use workshop::suite::{command, eventually, get, probe_volume, this_program};

use crate::{BINARY, final_, script, start, stop};

/// `final network` with these words; it has to work.
pub fn network(words: &[&str]) -> String {
    let outcome = final_(&[&["network"], words].concat());
    assert_eq!((outcome.status, &*outcome.stderr), (Some(0), ""), "{words:?}: {outcome:?}");
    outcome.stdout
}

/// Why `final network` does not do that.
pub fn refusal(words: &[&str]) -> String {
    let outcome = final_(&[&["network"], words].concat());
    assert_eq!(outcome.status, Some(1), "{words:?}: {outcome:?}");
    outcome.stderr
}

pub fn inspect(name: &str) -> Value {
    let all: Value = serde_json::from_str(&network(&["inspect", name])).unwrap();
    all[0].clone()
}

/// A container with an HTTP server at port 80.
pub fn web(name: &str, options: &[&str]) -> Child {
    let volume = probe_volume();
    let options = [&["-v", &volume], options].concat();
    let child = start(name, &options, &["/probe", "@serve", "0.0.0.0:80"]);
    eventually("it serves", || get(&format!("{}:80", address(name)), "/").contains("hello"));
    child
}

/// The address of a container, as it knows it itself.
pub fn address(name: &str) -> String {
    let hosts = final_(&["exec", name, "tail", "-n", "1", "/etc/hosts"]).stdout;
    hosts.split_whitespace().next().unwrap().to_owned()
}

/// What a container on a network is answered there.
pub fn ask(net: &str, address: &str) -> String {
    let volume = probe_volume();
    let asked =
        final_(&["run", "--rm", "--net", net, "-v", &volume, "host", "/probe", "@get", address]);
    asked.stdout + &asked.stderr
}

pub fn a_network_is_made_listed_shown_and_removed(_: Who) {
    let id = network(&["create", "blue"]);
    let id = id.trim();
    assert_eq!((id.len(), &*inspect("blue")["Id"].to_string()), (64, &*format!("\"{id}\"")));
    let green = network(&["create", "--internal", "--subnet", "10.99.0.0/16", "green"]);
    let list = network(&["ls"]);
    for (name, driver) in
        [("bridge", "bridge"), ("host", "host"), ("none", "null"), ("blue", "bridge")]
    {
        let row = list.lines().find(|line| line.split_whitespace().nth(1) == Some(name));
        let words: Vec<_> = row.unwrap_or_else(|| panic!("{list}")).split_whitespace().collect();
        assert_eq!((words[0].len(), &words[2..]), (12, &[driver, "local"][..]), "{list}");
    }
    assert!(list.starts_with("NETWORK ID     NAME     DRIVER   SCOPE\n"), "{list}");
    assert!(network(&["ls", "-q", "--no-trunc"]).lines().any(|line| line == id));
    let json = network(&["ls", "--format", "json"]);
    let rows: Vec<Value> = json.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let row = rows.iter().find(|row| row["Name"] == "green").unwrap();
    assert_eq!((&row["Internal"], &row["ID"]), (&"true".into(), &green[..12].into()), "{json}");
    let green = inspect(&green[..12]);
    assert_eq!(green["Name"], "green");
    assert_eq!(green["Internal"], true);
    assert_eq!(green["IPAM"]["Config"][0]["Subnet"], "10.99.0.0/16");
    assert_eq!(green["IPAM"]["Config"][0]["Gateway"], "10.99.0.1");
    assert!(green["Created"].as_str().unwrap().starts_with("20"), "{green}");

    assert!(refusal(&["create", "blue"]).contains("blue is there already"));
    assert!(refusal(&["rm", "bridge"]).contains("always there"));
    assert!(refusal(&["rm", "red"]).contains("no such network: red"));
    assert!(refusal(&["inspect", "red"]).contains("no such network: red"));
    let unknown = script(&["--net", "red"], "true");
    assert_eq!(unknown.status, Some(125), "{unknown:?}");
    assert!(unknown.stderr.contains("no such network: red"), "{unknown:?}");

    let box_ =
        start("box", &["--net", "blue", "--ip", &subnet_host("blue", 9)], &["sleep", "1000"]);
    let container = &inspect("blue")["Containers"];
    let (_, container) = container.as_object().unwrap().iter().next().unwrap();
    assert_eq!(container["Name"], "box");
    assert_eq!(container["IPv4Address"], format!("{}/24", subnet_host("blue", 9)));
    assert!(refusal(&["rm", "blue"]).contains("the network blue is in use by box"));
    assert_eq!(network(&["prune", "-f"]), "Deleted Networks:\ngreen\n\n");
    assert_eq!(network(&["prune", "-f"]), "");
    stop("box", box_);
    assert_eq!(inspect("blue")["Containers"], serde_json::json!({}));
    assert_eq!(network(&["rm", "blue"]), "blue\n");
}

/// An address in a network's subnet.
fn subnet_host(name: &str, host: u8) -> String {
    let subnet = inspect(name)["IPAM"]["Config"][0]["Subnet"].as_str().unwrap().to_owned();
    format!("{}.{host}", subnet.rsplit_once('.').unwrap().0)
}

pub fn each_network_has_a_subnet_of_its_own(_: Who) {
    let names: Vec<_> = (0..8).map(|n| format!("net{n}")).collect();
    scope(|scope| {
        let create = |name: &String| {
            let name = name.clone();
            scope.spawn(move || network(&["create", &name]))
        };
        let threads: Vec<_> = names.iter().map(create).collect();
        for thread in threads {
            thread.join().unwrap();
        }
    });
    let subnets = names.iter().map(|name| inspect(name)["IPAM"]["Config"][0]["Subnet"].to_string());
    let subnets: BTreeSet<_> = subnets.collect();
    assert_eq!(subnets.len(), names.len(), "{subnets:?}");
    let bridges = names.iter().map(|name| {
        let bridge = inspect(name)["Options"]["com.docker.network.bridge.name"].clone();
        bridge.as_str().unwrap().to_owned()
    });
    assert!(bridges.collect::<Vec<_>>().iter().all(|bridge| bridge.len() <= 15));
    for (subnet, why) in [
        ("10.77.0.0/24", "overlaps the network bridge (10.77.0.0/24)"),
        ("10.0.0.0/8", "overlaps the network"),
        ("198.51.0.0/16", "overlaps the route 198.51.100.0/24 dev uplink"),
    ] {
        assert!(refusal(&["create", "--subnet", subnet, "x"]).contains(why), "{subnet}");
    }
    for (ip, why) in [("192.0.2.1", "is not for a container"), ("10.77.1.1", "first address")] {
        let refused = script(&["--net", "net0", "--ip", ip], "true");
        assert_eq!(refused.status, Some(125), "{refused:?}");
        assert!(refused.stderr.contains(why), "{refused:?}");
    }
    network(&[&["rm"], &names.iter().map(|name| &**name).collect::<Vec<_>>()[..]].concat());
    // At once with the making of a container on it, there is one or the other.
    for _ in 0..8 {
        network(&["create", "brief"]);
        let run = || script(&["--net", "brief"], "true");
        let (removed, ran) = scope(|scope| {
            let thread = scope.spawn(run);
            (final_(&["network", "rm", "brief"]), thread.join().unwrap())
        });
        match (removed.status, ran.status) {
            (Some(0), Some(0 | 125)) => {}
            (Some(1), Some(0)) => drop(network(&["rm", "brief"])),
            other => panic!("{other:?}: {removed:?} {ran:?}"),
        }
    }
}

pub fn two_networks_are_closed_to_each_other(_: Who) {
    network(&["create", "blue"]);
    network(&["create", "green"]);
    let server = web("web", &["--net", "blue", "-p", "8080:80"]);
    let here = address("web");
    let published = format!("{UPLINK}:8080");
    assert!(ask("blue", &format!("{here}:80")).contains("hello"));
    assert!(ask("blue", &published).contains("hello"));
    assert!(get(&published, "/").contains("hello"));
    let outside = get(&format!("{SERVER}:80"), &format!("/tcp/{UPLINK}/8080"));
    assert!(outside.contains(&format!("hello {SECOND_HOST}")), "{outside}");
    let inside = format!("{here}:80");
    for other in ["green", "bridge"] {
        assert!(ask(other, &format!("{SERVER}:80")).contains(&UPLINK.to_string()));
    }
    let second = web("second", &["-p", "8081:80"]);
    let there = format!("{}:80", address("second"));
    assert!(ask("bridge", &there).contains("hello"));
    closed(&[
        ("green", &inside),
        ("green", &published),
        ("bridge", &inside),
        ("bridge", &published),
        ("blue", &there),
        ("blue", &format!("{UPLINK}:8081")),
    ]);
    stop("second", second);
    stop("web", server);
    network(&["rm", "blue", "green"]);
}

/// From none of these networks anything is reached at the address. Each waits for an answer for seconds,
/// so they do so at once.
fn closed(tries: &[(&str, &str)]) {
    scope(|scope| {
        for (net, address) in tries {
            scope.spawn(move || {
                let answer = ask(net, address);
                assert!(answer.starts_with("error: "), "{net} {address}: {answer}");
            });
        }
    });
}

pub fn an_internal_network_has_no_way_out(_: Who) {
    network(&["create", "--internal", "inside"]);
    let server = web("web", &["--net", "inside"]); // its host reaches it
    let here = address("web");
    assert!(ask("inside", &format!("{here}:80")).contains("hello"));
    assert!(ask("inside", &format!("{SERVER}:80")).contains("unreachable"));
    // Also who knows the way, and may take it.
    let gateway = subnet_host("inside", 1);
    let volume = probe_volume();
    let mut host = Command::new(this_program());
    let mut host = host.args(["@serve", "0.0.0.0:8000"]).stdout(Stdio::null()).spawn().unwrap();
    eventually("the host serves", || get("127.0.0.1:8000", "/").contains("hello"));
    let script = format!(
        "ip route add default via {gateway}; for a in {SERVER}:80 {UPLINK}:8000; do /probe @get $a & done; wait; \
         /probe @ping {gateway}"
    );
    let words =
        ["run", "--rm", "--privileged", "--net", "inside", "-v", &volume, "host", "sh", "-c"];
    let tried = final_(&[&words[..], &[&script]].concat());
    assert_eq!(tried.stdout.matches("error: ").count(), 2, "{tried:?}");
    assert!(tried.stdout.contains(&format!("{gateway} answered")), "{tried:?}");
    assert!(!tried.stdout.contains("unreachable"), "the route is there: {tried:?}");
    host.kill().unwrap();
    host.wait().unwrap();
    let refused = crate::script(&["--net", "inside", "-p", "8080:80"], "true");
    assert!(refused.stderr.contains("internal"), "{refused:?}");
    stop("web", server);
    network(&["rm", "inside"]);
}

pub fn a_network_survives_who_is_killed(_: Who) {
    let before = Snapshot::take(&[]).unwrap();
    network(&["create", "blue"]);
    let made = Snapshot::take(&[]).unwrap();
    for _ in 0..2 {
        let mut runtime = web("web", &["--net", "blue", "-p", "8080:80"]);
        crate::kill_monitor("web");
        runtime.wait().unwrap();
        network(&["ls"]);
        made.ensure_restored(&[]).unwrap();
    }
    // At any time, from the first call to the last. Also the name server may have to go.
    let words = ["run", "--rm", "--net", "blue", "-p", "8080:80", "host", "true"];
    let start = Instant::now();
    assert_eq!(final_(&words).status, Some(0));
    let whole = start.elapsed();
    for part in 0..30 {
        let mut runtime = command(BINARY, &words);
        let mut runtime = runtime.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        sleep(whole * part / 30);
        crate::kill_with_monitor(&mut runtime);
        let cleaned = final_(&["network", "ls"]);
        assert_eq!((cleaned.status, &*cleaned.stderr), (Some(0), ""), "{part}");
        made.ensure_restored(&[]).unwrap_or_else(|error| panic!("{part}: {error:#}"));
    }
    // Half a file of one who was killed while he made a network.
    let base = std::env::var("XDG_RUNTIME_DIR").unwrap();
    let base = if base.ends_with("/0") { "/run".to_owned() } else { base };
    fs::write(format!("{base}/container-workshop/networks/x.new"), "{").unwrap();
    network(&["rm", "blue"]);
    before.ensure_restored(&[]).unwrap();
}
