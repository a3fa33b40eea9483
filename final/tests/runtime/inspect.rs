//! What `inspect`, `port`, `info` and `version` say, beside what the kernel says.

use std::fs;

use nix::sys::utsname::uname;
use serde_json::{Value, json};
use workshop::lab::Who;

use crate::life::{detach, done};
use crate::{final_, scratch};

/// docker's JSON of the one thing with this name.
fn inspect(name: &str) -> Value {
    let all: Value = serde_json::from_str(&done(&["inspect", name])).unwrap();
    assert_eq!(all.as_array().unwrap().len(), 1, "{all}");
    all[0].clone()
}

/// `inspect` with a template.
fn shown(template: &str, name: &str) -> String {
    done(&["inspect", "--format", template, name])
}

fn in_container(words: &[&str]) -> String {
    done(&[&["exec", "web"], words].concat()).trim().to_owned()
}

pub fn inspect_says_what_the_kernel_says(who: Who) {
    let dir = scratch();
    let volume = format!("{dir}:/data:ro");
    let words = ["-e", "A=1", "-l", "tier=front", "-v", &volume, "--hostname", "box", "-w", "/tmp"];
    let more = ["--init", "--stop-signal", "QUIT", "--add-host", "db:192.0.2.7", "--tmpfs", "/t"];
    let limits = if who == Who::Root { &["-m", "64m", "--pids-limit", "50"][..] } else { &[] };
    detach("web", &[&words[..], &more, limits].concat(), "sleep 1000");
    let web = inspect("web");
    assert_eq!((web["Id"].as_str().unwrap().len(), &web["Name"]), (64, &json!("/web")));
    assert_eq!((&web["Path"], &web["Args"]), (&json!("sh"), &json!(["-c", "sleep 1000"])));
    let state = &web["State"];
    assert_eq!((&state["Status"], &state["Running"]), (&json!("running"), &json!(true)), "{state}");
    assert_eq!(state["FinishedAt"], "0001-01-01T00:00:00Z");
    let pid = state["Pid"].as_i64().unwrap();
    let namespace = fs::read_link(format!("/proc/{pid}/ns/pid")).unwrap();
    assert_eq!(namespace.to_str(), Some(&*in_container(&["readlink", "/proc/1/ns/pid"])));
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let inner = status.lines().find_map(|line| line.strip_prefix("NSpid:")).unwrap();
    assert_eq!(inner.split_whitespace().last(), Some("1"), "the first of its namespace: {inner}");

    let config = &web["Config"];
    assert_eq!(config["Hostname"], in_container(&["hostname"]));
    assert_eq!(config["WorkingDir"], in_container(&["pwd"]));
    let env = config["Env"].as_array().unwrap();
    assert!(env.contains(&json!("A=1")), "{config}");
    assert_eq!(config["Cmd"], json!(["sh", "-c", "sleep 1000"]));
    assert_eq!((&config["Entrypoint"], &config["StopSignal"]), (&Value::Null, &json!("SIGQUIT")));
    assert_eq!(config["Labels"], json!({ "tier": "front" }));

    let host = &web["HostConfig"];
    for (key, value) in [
        ("Binds", json!([volume])),
        ("Init", json!(true)),
        ("ExtraHosts", json!(["db:192.0.2.7"])),
        ("Privileged", json!(false)),
        ("AutoRemove", json!(false)),
        ("CapAdd", json!([])),
        ("CapDrop", json!([])),
        ("PidMode", json!("")),
        ("IpcMode", json!("private")),
        ("SecurityOpt", json!(["no-new-privileges"])),
        ("ShmSize", json!(64 << 20)),
        ("RestartPolicy", json!({ "Name": "no", "MaximumRetryCount": 0 })),
        ("Memory", if who == Who::Root { json!(64 << 20) } else { json!(0) }),
        ("PidsLimit", if who == Who::Root { json!(50) } else { json!(0) }),
    ] {
        assert_eq!(host[key], value, "{key}: {host}");
    }
    assert_eq!(host["Tmpfs"].as_object().unwrap().keys().collect::<Vec<_>>(), ["/t"]);
    let mounts = web["Mounts"].as_array().unwrap();
    let bind = mounts.iter().find(|mount| mount["Type"] == "bind").unwrap();
    assert_eq!((&bind["Source"], &bind["RW"]), (&json!(dir), &json!(false)), "{bind}");
    assert_eq!(mounts.len(), 2, "not what every container has: {mounts:?}");

    // By its id, as a template, and beside others.
    let id = web["Id"].as_str().unwrap();
    assert_eq!(shown("{{.State.Status}} {{.Config.Hostname}}", &id[..12]), "running box\n");
    assert_eq!(shown("{{json .Config.Labels}}", "web"), "{\"tier\":\"front\"}\n");
    done(&["kill", "web"]);
    done(&["wait", "web"]);
    let state = &inspect("web")["State"];
    assert_eq!((&state["Status"], &state["Pid"]), (&json!("exited"), &json!(0)), "{state}");
    assert_eq!((&state["ExitCode"], &state["OOMKilled"]), (&json!(137), &json!(false)), "{state}");
    assert!(
        state["FinishedAt"].as_str().unwrap() > state["StartedAt"].as_str().unwrap(),
        "{state}"
    );
    let both = final_(&["inspect", "web", "nobody", "bridge"]);
    let all: Vec<Value> = serde_json::from_str(&both.stdout).unwrap();
    assert_eq!((both.status, all.len(), &all[1]["Driver"]), (Some(1), 2, &json!("bridge")));
    assert!(both.stderr.contains("no such object: nobody"), "{both:?}");
    let none = final_(&["inspect", "--type", "image", "web"]);
    assert_eq!((none.status, &*none.stdout), (Some(1), "[]\n"));
    assert!(none.stderr.contains("no such image: web"), "{none:?}");
    done(&["rm", "web"]);
}

pub fn inspect_says_what_was_asked_for(who: Who) {
    let words =
        ["create", "--name", "box", "--rm", "--privileged", "--uts", "host", "--net", "none"];
    let more =
        ["--ulimit", "nofile=99", "--oom-score-adj", "7", "--read-only", "--entrypoint", "env"];
    done(&[&words[..], &more, &["host", "A=1", "true"]].concat());
    let box_ = inspect("box");
    let (host, config) = (&box_["HostConfig"], &box_["Config"]);
    assert_eq!((&config["Entrypoint"], &config["Cmd"]), (&json!(["env"]), &json!(["A=1", "true"])));
    for (key, value) in [
        ("Privileged", json!(true)),
        ("AutoRemove", json!(true)),
        ("CapAdd", json!([])),
        ("UTSMode", json!("host")),
        ("NetworkMode", json!("none")),
        ("ReadonlyRootfs", json!(true)),
        ("OomScoreAdj", json!(7)),
        ("MaskedPaths", json!([])),
    ] {
        assert_eq!(host[key], value, "{key}: {host}");
    }
    let ulimits = host["Ulimits"].as_array().unwrap();
    assert!(ulimits.contains(&json!({ "Name": "nofile", "Soft": 99, "Hard": 99 })), "{host}");
    assert_eq!(
        shown("{{.State.Status}} {{.State.StartedAt}}", "box"),
        "created 0001-01-01T00:00:00Z\n"
    );
    assert_eq!(shown("{{range .NetworkSettings.Networks}}{{.IPAddress}}.{{end}}", "box"), ".\n");
    done(&["rm", "box"]);
    if who == Who::Root {
        let caps =
            ["--name", "box", "--net", "none", "--cap-add", "NET_ADMIN", "--cap-drop", "CHOWN"];
        let limits = ["--cpus", "0.5", "--memory", "64m", "--security-opt", "seccomp=unconfined"];
        done(&[&["create"], &caps[..], &limits, &["--restart", "on-failure:3", "host"]].concat());
        let host = &inspect("box")["HostConfig"];
        assert_eq!(
            (&host["CapAdd"], &host["CapDrop"]),
            (&json!(["CAP_NET_ADMIN"]), &json!(["CAP_CHOWN"]))
        );
        assert_eq!(
            (&host["NanoCpus"], &host["MemorySwap"]),
            (&json!(500_000_000), &json!(64 << 20))
        );
        assert_eq!(host["SecurityOpt"], json!(["no-new-privileges", "seccomp=unconfined"]));
        assert_eq!(host["RestartPolicy"], json!({ "Name": "on-failure", "MaximumRetryCount": 3 }));
        done(&["rm", "box"]);
    }
    for (words, named) in [
        (&["inspect"][..], "NAME"),
        (&["inspect", "--format", "table {{.Id}}", "x"], "a table is for lists"),
        (&["inspect", "--format", "{{with .Id}}{{end}}", "x"], "{{with .Id}} is not known here"),
        (&["inspect", "--type", "volume", "x"], "container, image, network"),
    ] {
        let refused = final_(words);
        assert_eq!(refused.status, Some(125), "{words:?}: {refused:?}");
        assert!(refused.stderr.contains(named), "{words:?}: {refused:?}");
    }
}

pub fn a_container_killed_for_memory_says_so(_: Who) {
    // tail is killed, and not the shell.
    detach("box", &["-m", "16m"], "head -c 100m /dev/zero | tail -c 100m >/dev/null; exit 3");
    assert_eq!(done(&["wait", "box"]), "3\n");
    assert_eq!(shown("{{.State.OOMKilled}}", "box"), "true\n");
    done(&["rm", "box"]);
}

pub fn inspect_shows_addresses_and_ports(_: Who) {
    detach("web", &["-p", "8080:80", "-p", "127.0.0.1:53:53/udp", "--expose", "9"], "sleep 1000");
    let settings = &inspect("web")["NetworkSettings"];
    let place = &settings["Networks"]["bridge"];
    let address = place["IPAddress"].as_str().unwrap();
    let own = in_container(&["ip", "-o", "-4", "address", "show", "dev", "eth0"]);
    assert!(own.contains(&format!(" {address}/24 ")), "{own}: {place}");
    let mac = in_container(&["cat", "/sys/class/net/eth0/address"]);
    assert_eq!((&place["MacAddress"], &place["Gateway"]), (&json!(mac), &json!("10.77.0.1")));
    assert_eq!(settings["IPAddress"], address);
    assert_eq!(
        settings["Ports"],
        json!({
            "80/tcp": [{ "HostIp": "0.0.0.0", "HostPort": "8080" }],
            "53/udp": [{ "HostIp": "127.0.0.1", "HostPort": "53" }],
            "9/tcp": null,
        })
    );
    assert_eq!(
        shown("{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}", "web"),
        format!("{address}\n")
    );

    assert_eq!(done(&["port", "web"]), "53/udp -> 127.0.0.1:53\n80/tcp -> 0.0.0.0:8080\n");
    assert_eq!(done(&["port", "web", "80"]), "0.0.0.0:8080\n");
    assert_eq!(done(&["port", "web", "53/udp"]), "127.0.0.1:53\n");
    for (words, status, named) in [
        (&["port", "web", "53"][..], 1, "no public port '53/tcp' published for web"),
        (&["port", "web", "9"], 1, "no public port '9/tcp' published for web"),
        (&["port", "nobody"], 1, "no such container: nobody"),
        (&["port", "web", "x"], 125, "\"x\" is not a port"),
        (&["port", "web", "80-81"], 125, "one port"),
    ] {
        let refused = final_(words);
        assert_eq!(refused.status, Some(status), "{words:?}: {refused:?}");
        assert!(refused.stderr.contains(named), "{words:?}: {refused:?}");
    }
    done(&["kill", "web"]);
    done(&["wait", "web"]);
    assert_eq!(done(&["port", "web"]), "");
    let settings = &inspect("web")["NetworkSettings"];
    assert_eq!((&settings["Ports"], &settings["IPAddress"]), (&json!({}), &json!("")));
    assert_eq!(settings["Networks"]["bridge"]["IPAddress"], "");
    assert_eq!(inspect("web")["HostConfig"]["PortBindings"]["80/tcp"][0]["HostPort"], "8080");
    done(&["rm", "web"]);
}

pub fn info_says_what_this_machine_is(who: Who) {
    detach("box", &[], "sleep 1000");
    done(&["create", "--name", "later", "host", "true"]);
    let info: Value = serde_json::from_str(&done(&["info", "--format", "json"])).unwrap();
    let kernel = uname().unwrap();
    for (key, value) in [
        ("Containers", json!(2)),
        ("ContainersRunning", json!(1)),
        ("ContainersStopped", json!(1)),
        ("Images", json!(0)),
        ("KernelVersion", json!(kernel.release().to_str())),
        ("Architecture", json!(kernel.machine().to_str())),
        ("DockerRootDir", json!(std::env::var("FINAL_ROOT").unwrap())),
    ] {
        assert_eq!(info[key], value, "{key}: {info}");
    }
    let rootless = info["SecurityOptions"].as_array().unwrap().contains(&json!("name=rootless"));
    assert_eq!(rootless, who != Who::Root, "{info}");
    // Where it says that cgroups are made, there is this container's.
    let id = done(&["ps", "-q", "--no-trunc"]);
    let directory = info["CgroupDirectory"].as_str().unwrap();
    let groups = fs::read_dir(directory).into_iter().flatten().filter_map(Result::ok);
    let begins = format!("container-workshop-{}", &id[..12]);
    let mut groups =
        groups.filter(|entry| entry.file_name().to_string_lossy().starts_with(&begins));
    assert_eq!(groups.next().is_some(), !directory.is_empty(), "{info}");
    let text = done(&["info"]);
    assert!(text.starts_with("Containers: 2\n Running: 1\n Paused: 0\n Stopped: 1\n"), "{text}");
    assert_eq!(text.contains("WARNING: no cgroup can be made"), directory.is_empty(), "{text}");
    done(&["rm", "-f", "box", "later"]);

    let version: Value = serde_json::from_str(&done(&["version", "--format", "json"])).unwrap();
    assert_eq!(version["Client"]["KernelVersion"], info["KernelVersion"]);
    let own = done(&["--version"]);
    assert_eq!(done(&["version", "-f", "final {{.Client.Version}}"]), own);
    let text = done(&["version"]);
    assert!(text.starts_with("Client: final\n Version: ") && text.contains("OS/Arch:"), "{text}");
    let refused = final_(&["version", "-f", "{{.Server.Version}}"]);
    assert_eq!(refused.status, Some(1), "{refused:?}");
    assert!(refused.stderr.contains("no field .Server (there is .Client)"), "{refused:?}");
}
