//! What each verb about images does and says.

use std::fs;
use std::path::Path;
use std::process::Stdio;
use std::thread::sleep;
use std::time::{Duration, Instant};

use nix::mount::{MsFlags, mount, umount};
use serde_json::{Value, json};
use workshop::lab::Who;
use workshop::suite::{command, eventually, finish};

use crate::made::{Layer, docker_archive, gzip};
use crate::{BINARY, Scratch, done, final_, rest, script};

pub fn images_are_imported_listed_named_and_removed(who: Who) {
    let scratch = Scratch::new();
    assert_eq!(done(&["images"]), "REPOSITORY   TAG   IMAGE ID   CREATED   SIZE\n");
    let rootfs = scratch.write("rootfs", gzip(&Layer::base().file("hello", "hello\n").bytes()));
    let changes = ["-c", "CMD [\"cat\", \"/hello\"]", "--change", "ENV A=1"];
    let id = done(&[&["import"], &changes[..], &[&rootfs, "web:1"]].concat());
    let digits = id.trim().strip_prefix("sha256:").unwrap();
    assert_eq!(digits.len(), 64);

    let listed = done(&["images"]);
    let row: Vec<_> = listed.lines().nth(1).unwrap().split_whitespace().collect();
    assert_eq!((row[0], row[1], row[2]), ("web", "1", &digits[..12]), "{listed}");
    assert!(listed.contains(" ago ") && row.last() == Some(&"6B"), "{listed}");
    let line: Value = serde_json::from_str(&done(&["images", "--format", "json"])).unwrap();
    assert_eq!((&line["Repository"], &line["Tag"]), (&json!("web"), &json!("1")), "{line}");
    assert!(line["CreatedAt"].as_str().unwrap().starts_with("20"), "{line}");

    let image: Value = serde_json::from_str(&done(&["inspect", "web:1"])).unwrap();
    let image = &image[0];
    assert_eq!(
        (&image["Id"], &image["RepoTags"]),
        (&json!(id.trim()), &json!(["web:1"])),
        "{image}"
    );
    assert_eq!((&image["Size"], &image["Os"]), (&json!(6), &json!("linux")), "{image}");
    assert_eq!(image["Config"], json!({ "Cmd": ["cat", "/hello"], "Env": ["A=1"] }), "{image}");
    assert_eq!(image["RootFS"]["Layers"].as_array().unwrap().len(), 1, "{image}");
    assert_eq!(image["RepoDigests"], json!([format!("web@{}", line["Digest"].as_str().unwrap())]));
    assert_eq!(
        done(&["inspect", "-f", "{{.Architecture}}", &digits[..12]]).trim(),
        image["Architecture"]
    );

    // The same image by its name and by its id.
    for name in ["web:1", "docker.io/library/web:1", &digits[..12], &id.trim()[..20], digits] {
        let words = ["run", "--rm", "--net", "none", "-v", "/usr:/usr:ro", name];
        assert_eq!(done(&words), "hello\n", "{name}");
    }
    assert_eq!(done(&["tag", "web:1", "other/web"]), "");
    assert_eq!(done(&["images", "-q"]), format!("{}\n", &digits[..12]));
    assert_eq!(done(&["images", "-q", "web"]).lines().count(), 1);
    assert_eq!(done(&["images", "-q", "web:2"]), "");
    let refused = final_(&["rmi", &digits[..12]]);
    assert!(refused.stderr.contains("several names (web:1, other/web:latest)"), "{refused:?}");
    assert_eq!(done(&["rmi", "web:1"]), "Untagged: web:1\n");

    // A name that goes to another image leaves the first one without.
    let second = scratch.write("second", Layer::base().bytes());
    let second_id = done(&["import", &second, "other/web"]);
    let listed = done(&["images"]);
    assert!(listed.contains("<none>       <none>   ") && listed.lines().count() == 3, "{listed}");
    assert_eq!(done(&["rmi", digits]).lines().next(), Some(&*format!("Deleted: {}", id.trim())));
    let removed = done(&["rmi", "other/web"]);
    assert!(removed.starts_with("Untagged: other/web:latest\nDeleted: sha256:"), "{removed}");
    assert!(removed.contains(second_id.trim()), "{removed}");
    assert_eq!(rest(who), [""; 0]);
}

pub fn an_image_in_use_is_not_removed(who: Who) {
    let scratch = Scratch::new();
    let file =
        scratch.write("archive", docker_archive("used", &json!({}), &[Layer::base().bytes()]));
    done(&["load", "-i", &file]);
    let words = ["run", "--name", "user", "--net", "none", "-v", "/usr:/usr:ro", "used"];
    let words = [&words[..], &["sleep", "1000"]].concat();
    let mut container = command(BINARY, &words).stdin(Stdio::null()).spawn().unwrap();
    eventually("it runs", || final_(&["exec", "user", "true"]).status == Some(0));
    let refused = final_(&["rmi", "used"]);
    assert_eq!(refused.status, Some(1), "{refused:?}");
    assert!(refused.stderr.contains("the container user uses the image used"), "{refused:?}");
    // One more name can go; the last cannot.
    done(&["tag", "used", "again"]);
    assert_eq!(done(&["rmi", "used"]), "Untagged: used:latest\n");
    assert_eq!(final_(&["rmi", "--force", "again"]).status, Some(1));
    done(&["kill", "user"]);
    container.wait().unwrap();
    // It has ended, and could be started again.
    assert!(final_(&["rmi", "again"]).stderr.contains("final rm user"));
    done(&["rm", "user"]);
    done(&["rmi", "again"]);
    assert_eq!(rest(who), [""; 0]);
}

pub fn what_containers_take_is_counted(who: Who) {
    let scratch = Scratch::new();
    let rootfs = scratch.write("rootfs", Layer::base().file("hello", "hello\n").bytes());
    done(&["import", &rootfs, "web"]);
    let size = || done(&["ps", "-a", "--format", "{{.Size}}"]);
    let inside =
        ["create", "--name", "box", "--net", "none", "-v", "/usr:/usr:ro", "web", "sh", "-c"];
    // A second name, a directory and a removed file take nothing, a link what it says, and a hole as docker
    // has it. What others may not read counts, and no volume does.
    let script = "rm /hello; mkdir -p /a/b; head -c 1000 /dev/zero > /a/b/file; ln /a/b/file /name; \
                  ln -s 123456789 /link; truncate -s 1M /a/hole; chmod 0 /a/b/file /a; touch /done; \
                  echo more > /dev/shm/x; sleep 1000";
    done(&[&inside[..], &[script]].concat());
    assert_eq!(size(), "0B (virtual 6B)\n");
    done(&["start", "box"]);
    eventually("it has written", || final_(&["exec", "box", "ls", "/done"]).status == Some(0));
    let written = 1000 + 9 + (1 << 20);
    let listed = done(&["ps", "-s"]);
    assert!(listed.lines().next().unwrap().ends_with("NAMES   SIZE"), "{listed}");
    assert!(listed.ends_with("   1.05MB (virtual 1.05MB)\n"), "{listed}");
    let about = |name: &str| -> Value {
        serde_json::from_str(&done(&["inspect", "--size", name])).unwrap()
    };
    let container = &about("box")[0];
    let counted = (&container["SizeRw"], &container["SizeRootFs"]);
    assert_eq!(counted, (&json!(written), &json!(written + 6)), "{container}");
    done(&["kill", "box"]);
    done(&["wait", "box"]);
    assert_eq!(size(), "1.05MB (virtual 1.05MB)\n");
    done(&["rm", "box"]);
    // Nobody has counted the host's files; and who does not ask for it is not told.
    done(&["create", "--name", "box", "host", "true"]);
    assert_eq!(done(&["ps", "-a", "--format", "{{.Names}}: {{.Size}}"]), "box: 0B\n");
    let container = &about("box")[0];
    let counted = (&container["SizeRw"], &container["SizeRootFs"]);
    assert_eq!(counted, (&json!(0), &Value::Null), "{container}");
    assert!(!done(&["inspect", "box"]).contains("SizeR"));
    for words in [&["ps", "-a"][..], &["ps", "-a", "--format", "json"]] {
        assert!(!done(words).to_lowercase().contains("size"));
    }
    done(&["rm", "box"]);
    done(&["rmi", "web"]);
    assert_eq!(rest(who), [""; 0]);
}

pub fn prune_removes_what_nobody_uses(who: Who) {
    let scratch = Scratch::new();
    for name in ["used", "unused"] {
        let config = json!({ "Labels": { "name": name } }); // or they would be one image
        let archive = docker_archive(name, &config, &[Layer::base().bytes()]);
        done(&["load", "-i", &scratch.write(name, archive)]);
    }
    let unnamed = done(&["import", &scratch.write("none", Layer::base().file("f", "x").bytes())]);
    for (name, more, words) in
        [("runs", "-d", &["sleep", "1000"][..]), ("ended", "--init", &["true"])]
    {
        let options = ["run", more, "--name", name, "--net", "none", "-v", "/usr:/usr:ro", "used"];
        done(&[&options[..], words].concat());
    }
    // Nobody says yes.
    let asked = done(&["prune"]);
    assert!(asked.starts_with("This removes") && asked.ends_with("Go on? [y/N] "), "{asked}");
    assert_eq!(done(&["ps", "-aq"]).lines().count(), 2);

    let ended = done(&["inspect", "-f", "{{.Id}}", "ended"]);
    let said = done(&["prune", "-f"]);
    assert!(
        said.starts_with(&format!("Deleted Containers:\n{ended}\nDeleted Images:\n")),
        "{said}"
    );
    assert!(said.contains(&format!("Deleted: {}", unnamed.trim())), "{said}");
    assert!(said.ends_with("\nTotal reclaimed space of images: 1B\n"), "{said}");
    assert_eq!(done(&["ps", "-a", "--format", "{{.Names}}"]), "runs\n");
    assert_eq!(done(&["images", "-q"]).lines().count(), 2);

    let said = done(&["prune", "--all", "--force"]);
    assert!(
        said.contains("Untagged: unused:latest\n") && !said.contains("Untagged: used"),
        "{said}"
    );
    done(&["kill", "runs"]);
    done(&["wait", "runs"]);
    done(&["prune", "-af"]);
    assert_eq!(done(&["images", "-q"]) + &done(&["ps", "-aq"]), "");
    assert_eq!(rest(who), [""; 0]);
}

pub fn two_loads_at_once(who: Who) {
    let scratch = Scratch::new();
    let shared = Layer::base().file("shared", &"shared\n".repeat(100_000)).bytes();
    let file = |name: &str| {
        let own = Layer::new().file("own", name).bytes();
        scratch.write(name, docker_archive(name, &json!({}), &[shared.clone(), own]))
    };
    // The same image three times, and two others with a layer of it.
    let files = ["one", "two", "three"].map(file);
    for _ in 0..5 {
        let loads = [0, 0, 0, 1, 2].map(|number| {
            let mut load = command(BINARY, &["load", "-i", &files[number]]);
            load.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
            load.spawn().unwrap()
        });
        for load in loads {
            let ended = finish(load, Duration::from_secs(60));
            assert_eq!(ended.status, Some(0), "{ended:?}");
        }
        assert_eq!(done(&["images", "-q"]).lines().count(), 3);
        for name in ["one", "two", "three"] {
            assert_eq!(script(name, &[], "cat /own").stdout, name);
            done(&["rmi", name]);
        }
        assert_eq!(rest(who), [""; 0]);
    }
}

pub fn a_killed_load_leaves_nothing(who: Who) {
    let scratch = Scratch::new();
    let mut layers = vec![Layer::base().bytes()];
    for number in 0..20 {
        let mut layer = Layer::new();
        for file in 0..20 {
            layer = layer.file(&format!("{number}-{file}"), &"text\n".repeat(5000));
        }
        layers.push(layer.bytes());
    }
    let file = scratch.write("archive", docker_archive("big", &json!({}), &layers));
    let start = Instant::now();
    done(&["load", "-i", &file]);
    let whole = start.elapsed();
    done(&["rmi", "big"]);
    for part in 0..20 {
        let mut load = command(BINARY, &["load", "-i", &file]);
        let mut load = load.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        sleep(whole * part / 20);
        load.kill().unwrap();
        load.wait().unwrap();
        // One more command brings it back to what it was, or the load was faster.
        done(&["gc"]);
        if done(&["images", "-q"]).is_empty() {
            assert_eq!(rest(who), [""; 0], "{part}");
        } else {
            assert_eq!(script("big", &[], "cat /19-19 | wc -l").stdout, "5000\n");
            done(&["rmi", "big"]);
        }
    }
    // Or one that removes it.
    done(&["load", "-i", &file]);
    let mut remove = command(BINARY, &["rmi", "big"]);
    let mut remove = remove.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    sleep(Duration::from_millis(5));
    remove.kill().unwrap();
    remove.wait().unwrap();
    if !done(&["images", "-q"]).is_empty() {
        done(&["rmi", "big"]);
    }
    // What no image needs any more goes with the next that is removed.
    let other = scratch.write("other", Layer::base().bytes());
    done(&["import", &other, "other"]);
    done(&["rmi", "other"]);
    assert_eq!(rest(who), [""; 0]);
}

pub fn a_full_disk_leaves_nothing(who: Who) {
    let scratch = Scratch::new();
    let text = "text\n".repeat(20_000);
    let layers = [Layer::base().file("a", &text).bytes(), Layer::new().file("b", &text).bytes()];
    let file = scratch.write("archive", docker_archive("big", &json!({}), &layers));
    let state = Path::new("/run/container-workshop");
    fs::create_dir_all(state).unwrap();
    let sizes = (8..1600).step_by(40).map(|kilobytes| format!("mode=700,size={kilobytes}k"));
    let files = (5..80).step_by(3).map(|inodes| format!("mode=700,nr_inodes={inodes}"));
    for mut levels in [Box::new(sizes) as Box<dyn Iterator<Item = String>>, Box::new(files)] {
        let mut refused = 0;
        let enough = levels.find(|level| {
            let kind = Some("tmpfs");
            mount(kind, state, kind, MsFlags::empty(), Some(level.as_str())).unwrap();
            let ended = final_(&["load", "-i", &file]);
            let loaded = ended.status == Some(0);
            if !loaded {
                assert_eq!(ended.status, Some(1), "{level}: {ended:?}");
                let said = ended.stderr.contains("No space left on device")
                    || ended.stderr.contains("ENOSPC");
                assert!(said, "{level}: {ended:?}");
                assert_eq!(rest(who), [""; 0], "{level}: {ended:?}");
                refused += 1;
            }
            umount(state).unwrap();
            loaded
        });
        assert!(enough.is_some() && refused > 2, "{enough:?} was enough, {refused} were not");
    }
}

pub fn nonsense_is_named(_: Who) {
    let scratch = Scratch::new();
    let archive = scratch.write("rootfs", Layer::base().bytes());
    let directory = scratch.path("");
    for (words, status, named) in [
        (&["import"][..], 125, "FILE"),
        (&["import", "/no/such"], 1, "cannot read /no/such"),
        (&["import", &directory], 1, "is a directory, and no archive"),
        (&["import", "/proc/version"], 1, "no tar archive"),
        (&["import", &archive, "UPPER"], 125, "lower case"),
        (&["import", &archive, "a:b:c"], 125, "no name of an image"),
        (&["import", "-c", "RUN true", &archive], 125, "RUN is not known"),
        (&["import", "-c", "CMD [", &archive], 125, "no list of words"),
        (&["load", "-i", "/no/such"], 1, "cannot read /no/such"),
        (&["save"], 125, "IMAGE"),
        (&["save", "no-such"], 1, "no such image: no-such"),
        (&["rmi", "no-such", "other"], 1, "no such image: no-such; no such image: other"),
        (&["rmi", ""], 1, "no such image"),
        (&["tag", "no-such", "a"], 1, "no such image: no-such"),
        (&["tag", "a", "../b"], 125, "no name of an image"),
        (&["pull"], 125, "NAME"),
        (&["pull", "UPPER"], 125, "lower case"),
        (&["run", "--pull", "often", "a"], 125, "missing, never, always"),
        (&["images", "--format", "yaml"], 125, "it is json, or a template"),
        (&["run", "--pull", "never", "no-such"], 125, "no such image: no-such"),
        (&["run", "a/../b"], 125, "no such image: a/../b"),
    ] {
        let refused = final_(words);
        assert_eq!(refused.status, Some(status), "{words:?}: {refused:?}");
        assert!(refused.stderr.contains(named), "{words:?}: {refused:?}");
        assert_eq!(refused.stderr.matches("error: ").count(), 1, "{words:?}: {refused:?}");
    }
    assert_eq!(done(&["images", "-q"]), "");
}
