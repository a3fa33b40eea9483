//! What is listed and shown of containers, images and networks.

use std::fs;
use std::path::PathBuf;
use std::process::Stdio;
use std::thread::sleep;
use std::time::Instant;

use serde_json::Value;
use workshop::lab::Who;
use workshop::suite::command;

use crate::life::{detach, done};
use crate::{BINARY, final_, scratch};

/// What `ps` prints with these words.
fn ps(words: &[&str]) -> String {
    done(&[&["ps"], words].concat())
}

/// The names of those that these words leave of the list.
fn names(words: &[&str]) -> String {
    ps(&[&["--format", "{{.Names}}"], words].concat()).replace('\n', " ").trim_end().to_owned()
}

pub fn ps_lists_what_was_asked_for(who: Who) {
    let dir = scratch();
    let volume = format!("{dir}:/data");
    detach("web", &["-l", "tier=front", "-l", "x", "-v", &volume, "--net", "host"], "sleep 1000");
    detach("worker", &["-l", "tier=back", "--net", "none"], "exit 3");
    assert_eq!(done(&["wait", "worker"]), "3\n");
    done(&["create", "--name", "later", "--net", "none", "host", "sh", "-c", "true"]);

    assert_eq!(names(&[]), "web");
    for (words, expected) in [
        (&["-a"][..], "later worker web"),
        (&["-n", "2"], "later worker"),
        (&["--latest"], "later"),
        (&["-l", "-f", "status=exited"], "worker"),
        (&["-f", "status=exited"], "worker"),
        (&["-f", "status=exited", "-f", "status=running"], "worker web"),
        (&["-a", "-f", "exited=3"], "worker"),
        (&["-a", "-f", "exited=0"], ""),
        (&["-a", "-f", "name=w"], "worker web"),
        (&["-a", "-f", "name=^w", "-f", "name=er$"], "later worker web"),
        (&["-a", "-f", "name=^/web$"], "web"),
        (&["-a", "-f", "label=tier"], "worker web"),
        (&["-a", "-f", "label=tier=front"], "web"),
        (&["-a", "-f", "label=tier", "-f", "label=x"], "web"),
        (&["-a", "-f", "network=none"], "later worker"),
        (&["-a", "-f", "ancestor=host"], "later worker web"),
        (&["-a", "-f", "ancestor=no-such"], ""),
        (&["-a", "-f", "volume=/data"], "web"),
        (&["-a", "-f", &format!("volume={dir}")], "web"),
        (&["-a", "-f", "volume=/proc"], ""),
    ] {
        assert_eq!(names(words), expected, "{words:?}");
    }
    let id = ps(&["-q", "--no-trunc"]);
    assert_eq!(id.trim().len(), 64, "{id}");
    assert_eq!(names(&["-f", &format!("id=^{}", &id[..12])]), "web");

    let row: Value = serde_json::from_str(&ps(&["--format", "json"])).unwrap();
    for (field, value) in [
        ("ID", &id[..12]),
        ("Image", "host"),
        ("Command", "\"sh -c sleep 1000\""),
        ("Names", "web"),
        ("State", "running"),
        ("Networks", "host"),
        ("Labels", "tier=front,x="),
        ("Mounts", &dir),
    ] {
        assert_eq!(row[field], value, "{row}");
        // Each is a column, too.
        let column = ps(&["--format", &format!("table {{{{.{field}}}}}")]);
        assert_eq!(column.lines().count(), 2, "{column}");
        assert_eq!(column.lines().nth(1), row[field].as_str(), "{column}");
    }
    assert!(row["CreatedAt"].as_str().unwrap().ends_with(" +0000 UTC"), "{row}");
    assert!(row["Status"].as_str().unwrap().starts_with("Up "), "{row}");
    let command = ["--no-trunc", "-a", "-f", "name=later", "--format", "{{.Command}}"];
    assert_eq!(ps(&command), "\"sh -c true\"\n");

    if who != Who::Plain {
        done(&["rm", "-f", "web"]);
        detach("web", &["-p", "8080:80"], "sleep 1000");
        let ports = ["-a", "-f", "name=web", "--format", "{{.Ports}}"];
        assert_eq!(ps(&ports), "0.0.0.0:8080->80/tcp\n");
        done(&["kill", "web"]);
        done(&["wait", "web"]);
        assert_eq!(ps(&ports), "\n", "it has ended");
    }
    done(&["rm", "-f", "web", "worker", "later"]);
    for (words, named) in [
        (&["-f", "health=none"][..], "health"),
        (&["-f", "status=gone"], "created, running, paused, restarting, exited"),
        (&["-f", "name=a|b"], "^ and $"),
        (&["-n", "0"], "0"),
        (&["-l", "-n", "1"], "--last"),
        (&["-q", "--format", "json"], "--quiet"),
        (&["--format", "{{if .ID}}x{{end}}"], "{{if .ID}} is not known here"),
        (&["--format", "raw"], "it is json, or a template"),
    ] {
        let refused = final_(&[&["ps"], words].concat());
        assert_eq!(refused.status, Some(125), "{words:?}: {refused:?}");
        assert!(refused.stderr.contains(named), "{words:?}: {refused:?}");
    }
    let refused = final_(&["ps", "--format", "{{.Sizes}}"]);
    assert_eq!(refused.status, Some(1), "{refused:?}");
    assert!(refused.stderr.contains("no field .Sizes (there is .Command"), "{refused:?}");
}

pub fn every_list_has_dockers_formats(who: Who) {
    assert_eq!(done(&["images", "--format", "{{.ID}}"]), "");
    assert_eq!(done(&["images", "--format", "table {{.ID}}\\t{{.Size}}"]), "IMAGE ID   SIZE\n");
    // The ids of those that are always there begin alike.
    for words in [&["network", "inspect", "6"][..], &["inspect", "6"], &["ps", "-f", "network=6"]] {
        let refused = final_(words);
        assert_eq!(refused.status, Some(1), "{refused:?}");
        assert!(refused.stderr.contains("3 networks have an id that begins with 6"), "{refused:?}");
    }
    let drivers = done(&["network", "ls", "--format", "{{.Name}} {{.Driver}}"]);
    assert_eq!(drivers, "bridge bridge\nhost host\nnone null\n");
    let subnet =
        ["--format", "{{range .IPAM.Config}}{{.Subnet}} via {{.Gateway}}{{end}}", "bridge"];
    assert_eq!(
        done(&[&["network", "inspect"], &subnet[..]].concat()),
        "10.77.0.0/24 via 10.77.0.1\n"
    );
    let json = done(&["network", "inspect", "--format", "json", "host", "none"]);
    let json: Value = serde_json::from_str(&json).unwrap();
    assert_eq!((&json[0]["Name"], &json[1]["Driver"]), (&"host".into(), &"null".into()));

    detach("busy", &[], "sleep 1000");
    let stats = ["stats", "--no-stream", "--format"];
    let row: Value = serde_json::from_str(&done(&[&stats[..], &["json"]].concat())).unwrap();
    assert_eq!(row["Name"], "busy");
    let cpu = row["CPUPerc"].as_str().unwrap();
    assert!(cpu.ends_with('%') || who != Who::Root, "{row}");
    let is_v2 = fs::exists("/sys/fs/cgroup/cgroup.controllers").unwrap();
    assert!(is_v2 || row["BlockIO"] == "--", "version 1 does not count: {row}");
    assert_eq!(
        done(&[&stats[..], &["{{.Name}}: {{.PIDs}}"]].concat()).split(':').next(),
        Some("busy")
    );
    // A name is that one's, also where another's id begins so.
    let id = ps(&["-q"]);
    detach(&id[..4], &["--net", "none"], "sleep 1000");
    assert_eq!(done(&[&stats[..], &["{{.Name}}", &id[..4]]].concat()), format!("{}\n", &id[..4]));
    done(&["rm", "-f", "busy", &id[..4]]);
}

/// The directory of the only container.
fn directory() -> PathBuf {
    let root = std::env::var("FINAL_ROOT").unwrap();
    fs::read_dir(format!("{root}/containers")).unwrap().next().unwrap().unwrap().path()
}

pub fn a_half_made_container_is_whole_or_gone(_: Who) {
    // Whoever made it was killed when all of it was there, or not yet all.
    for (is_whole, words) in [(true, "Created\n"), (false, "")] {
        done(&["create", "--name", "half", "host", "true"]);
        let path = directory().join("state.json");
        let mut state: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
        state["monitor"] = serde_json::json!({ "pid": 1, "start_time": 1_u64 << 50 });
        fs::write(&path, state.to_string()).unwrap();
        if !is_whole {
            fs::write(directory().join("config.json"), "{").unwrap();
        }
        assert_eq!(ps(&["-a", "--format", "{{.Status}}"]), words);
        assert_eq!(names(&["-f", "status=created"]), if is_whole { "half" } else { "" });
        if is_whole {
            assert_eq!(final_(&["start", "-a", "half"]).status, Some(0));
            done(&["rm", "half"]);
        }
    }
    // At any time.
    let words = ["create", "--name", "half", "host", "true"];
    let start = Instant::now();
    done(&words);
    let whole = start.elapsed();
    done(&["rm", "half"]);
    for part in 0..20 {
        let mut create = command(BINARY, &words);
        let mut create = create.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        sleep(whole * part / 20);
        create.kill().unwrap();
        create.wait().unwrap();
        let left = ps(&["-a", "--format", "{{.Names}} {{.Status}}"]);
        assert!(["", "half Created\n"].contains(&&*left), "{part}: {left}");
        if !left.is_empty() {
            done(&["rm", "half"]);
        }
    }
}
