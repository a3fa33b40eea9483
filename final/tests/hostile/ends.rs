//! A host that has run out of something.

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::Duration;

use nix::mount::{MsFlags, mount, umount};
use nix::sys::resource::{Resource, setrlimit};
use nix::sys::stat::Mode;
use nix::unistd::mkfifo;
use workshop::lab::Who;
use workshop::monitors::kill_monitor;
use workshop::suite::{Outcome, command, eventually, finish};

use crate::{BINARY, check, final_, outcome, scratch};

const STATE: &str = "/run/container-workshop";

fn mount_state(options: &str, flags: MsFlags) {
    fs::create_dir_all(STATE).unwrap();
    mount(Some("tmpfs"), STATE, Some("tmpfs"), flags, Some(options)).unwrap();
}

/// A container that stays in the list when it has ended, and that runs.
fn start(name: &str) -> Child {
    // Without a bridge, whose notes would give room when they are removed.
    let words = ["run", "--name", name, "--net", "none", "host", "sleep", "1000"];
    let mut runtime = command(BINARY, &words);
    runtime.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let runtime = runtime.spawn().unwrap();
    eventually("it runs", || final_(&["exec", name, "true"]).status == Some(0));
    runtime
}

fn fill() {
    let mut filler = fs::File::create(format!("{STATE}/filler")).unwrap();
    let error = std::iter::from_fn(|| Some(filler.write_all(&[0; 4096]))).find_map(Result::err);
    assert_eq!(error.unwrap().kind(), std::io::ErrorKind::StorageFull);
}

pub fn a_full_disk(_: Who) {
    // From nothing on up to what is enough, in bytes and in files.
    let sizes = (1..100).map(|pages| format!("mode=700,size={}", pages * 4096));
    let files = (1..100).map(|inodes| format!("mode=700,nr_inodes={inodes}"));
    for mut levels in [Box::new(sizes) as Box<dyn Iterator<Item = String>>, Box::new(files)] {
        let mut refused = 0;
        let enough = levels.find(|level| {
            mount_state(level, MsFlags::empty());
            let ended = final_(&["run", "--rm", "host", "true"]);
            let done = ended.status == Some(0);
            if !done {
                check(level, &ended, 125, &["No space left on device"]);
                refused += 1;
            }
            let left = fs::read_dir(format!("{STATE}/containers")).map_or(0, Iterator::count);
            assert_eq!(left, 0, "{level}: {ended:?}");
            umount(STATE).unwrap();
            done
        });
        assert!(enough.is_some() && refused > 2, "{enough:?} was enough, {refused} were not");
    }

    // Full while a container runs: its program's status is passed on, and what it wrote stays.
    mount_state("mode=700,size=1m", MsFlags::empty());
    let runtime = start("first");
    fill();
    assert_eq!(final_(&["kill", "first"]).status, Some(0));
    let ended = finish(runtime, Duration::from_secs(60));
    assert_eq!(ended.status, Some(137), "{ended:?}");
    assert!(ended.stderr.contains("No space left on device"), "{ended:?}");
    fs::remove_file(format!("{STATE}/filler")).unwrap();
    let kept = final_(&["ps", "--all", "--format", "{{.Names}} {{.Status}}"]);
    assert!(kept.stdout.starts_with("first Exited (137)"), "{kept:?}");
    assert_eq!(final_(&["rm", "first"]).status, Some(0));

    // Full when others clean up after a monitor that was killed.
    let mut runtime = start("second");
    fill();
    kill_monitor("second");
    runtime.wait().unwrap();
    let swept = final_(&["ps", "--all", "--format", "{{.Names}}"]);
    assert_eq!((swept.status, &*swept.stdout), (Some(0), "second\n"), "{swept:?}");
    assert!(swept.stderr.contains("No space left on device"), "{swept:?}");
    assert_eq!(final_(&["rm", "second"]).status, Some(0)); // the way to have space again
    assert_eq!(fs::read_dir(format!("{STATE}/containers")).unwrap().count(), 0);
    umount(STATE).unwrap();
}

pub fn a_read_only_state_directory(who: Who) {
    let named = if who == Who::Plain {
        fs::set_permissions(scratch(), fs::Permissions::from_mode(0o500)).unwrap();
        "Permission denied"
    } else {
        mount_state("mode=700", MsFlags::MS_RDONLY);
        "Read-only file system"
    };
    for (words, status) in [
        (&["run", "--rm", "host", "true"][..], 125),
        (&["exec", "x", "true"], 125),
        (&["ps"], 1),
        (&["kill", "x"], 1),
        (&["rm", "x"], 1),
        (&["gc"], 1),
    ] {
        check(&words, &final_(words), status, &["state", "container-workshop", named]);
    }
    if who == Who::Plain {
        fs::set_permissions(scratch(), fs::Permissions::from_mode(0o700)).unwrap();
    } else {
        umount(STATE).unwrap();
    }
}

/// Where the directories of the containers are.
fn containers(who: Who) -> PathBuf {
    let base = if who == Who::Plain { scratch() } else { "/run".into() };
    Path::new(&base).join("container-workshop/containers")
}

pub fn garbage_in_the_state_directory(who: Who) {
    let containers = containers(who);
    fs::create_dir_all(&containers).unwrap();
    // What is no container's directory is not looked at. What has no state.json is swept.
    fs::write(containers.join("file"), "").unwrap();
    symlink("/no/such", containers.join("link")).unwrap();
    mkfifo(&containers.join("fifo"), Mode::S_IRWXU).unwrap();
    fs::create_dir(containers.join("empty")).unwrap();
    for words in [&["ps"][..], &["gc"], &["run", "--rm", "host", "true"]] {
        let ended = final_(words);
        assert_eq!(ended.status, Some(0), "{words:?}: {ended:?}");
    }
    assert!(!containers.join("empty").exists());
    for name in ["file", "link", "fifo"] {
        fs::remove_file(containers.join(name)).unwrap();
    }

    let runtime = start("box");
    let id = fs::read_dir(&containers).unwrap().next().unwrap().unwrap().path();
    let good = fs::read_to_string(id.join("state.json")).unwrap();
    let copy = containers.join("0".repeat(64));
    fs::create_dir(&copy).unwrap();
    let own =
        |text: &str| text.replace(&*id.file_name().unwrap().to_string_lossy(), &"0".repeat(64));
    let half = &good[..good.len() / 2];
    let odd_name = own(&good).replace("\"box\"", "\"\\u001b[2J\\n\"");
    for text in ["", "{}", "null", "\0\0", half, &good, &odd_name, &"[".repeat(100_000)] {
        fs::write(copy.join("state.json"), text).unwrap();
        for (words, status) in [
            (&["run", "--rm", "host", "true"][..], 125),
            (&["exec", "box", "true"], 125),
            (&["ps"], 1),
            (&["rm", "box"], 1),
            (&["gc"], 1),
        ] {
            let named = format!("{}/state.json", copy.display());
            check(&(words, text), &final_(words), status, &[&named, "remove that directory"]);
        }
    }
    // Numbers that are no process's: nobody is killed for them.
    let pid = good.split("\"pid\": ").nth(2).unwrap().split(',').next().unwrap();
    for number in ["-1", "0", "1", "2147483647", &std::process::id().to_string()] {
        let text = own(&good).replace("\"box\"", "\"odd\"");
        let text = text.replace(&format!("\"pid\": {pid},"), &format!("\"pid\": {number},"));
        fs::write(copy.join("state.json"), text).unwrap();
        check(&number, &final_(&["kill", "odd"]), 1, &["not running"]);
    }
    fs::remove_dir_all(&copy).unwrap();

    let config = id.join("config.json");
    let good = fs::read_to_string(&config).unwrap();
    let path = "/../../../../../../../../../x".repeat(200);
    let on = |bridge: &str, subnet: &str| {
        let annotation = |name, value| format!("\"io.container-workshop.{name}\":\"{value}\"");
        let network = [("network", "bridge"), ("bridge", bridge), ("subnet", subnet)];
        let network = network.map(|(name, value)| annotation(name, value)).join(",");
        good.replace(&annotation("network", "none"), &network)
    };
    for text in [
        "",
        "{}",
        &good[..good.len() / 2],
        &on(&path, "10.77.0.0/24"),
        &good.replace("\"none\"", "\"moon\\u001b[2J\""),
        &good.replace("SCMP_ACT_ERRNO", "SCMP_ACT_NOTIFY"),
        &good.replace("CAP_CHOWN", "CAP_NONSENSE"),
        &on("workshop0", "10.77.0.0/99"),
    ] {
        fs::write(&config, text).unwrap();
        check(&text, &final_(&["exec", "box", "true"]), 125, &[config.to_str().unwrap()]);
    }
    fs::remove_file(&config).unwrap();
    check(&"no config.json", &final_(&["exec", "box", "true"]), 125, &["config.json", "No such"]);
    assert_eq!(final_(&["rm", "-f", "box"]).status, Some(0));
    assert_eq!(finish(runtime, Duration::from_secs(60)).status, Some(137));
}

/// Runs a container under this limit: it does run, or `final` says what is missing, or the program
/// could not even be loaded. Nothing is left in each case. Returns whether it ran.
fn run_limited(resource: Resource, limit: u64, named: &[&str]) -> bool {
    let mut runtime = command(BINARY, &["run", "--rm", "host", "true"]);
    // SAFETY: setrlimit(2) may be called between fork and exec.
    unsafe { runtime.pre_exec(move || Ok(setrlimit(resource, limit, limit)?)) };
    let ended = outcome(&mut runtime);
    let what = (resource, limit);
    let swept = final_(&["gc"]);
    assert_eq!((swept.status, &*swept.stderr), (Some(0), ""), "{what:?}: {ended:?}");
    assert_eq!(final_(&["ps", "--all", "--quiet"]).stdout, "", "{what:?}: {ended:?}");
    if !is_loaders(&ended, resource) && ended.status != Some(0) {
        check(&what, &ended, 125, &[]);
        let is_named = named.iter().any(|name| ended.stderr.contains(name));
        assert!(is_named, "{what:?}: one of {named:?} should be in it: {ended:?}");
    }
    ended.status == Some(0)
}

/// Whether it was not our program that failed, but the loading of it or of the container's. Without
/// memory a program can only be aborted.
fn is_loaders(ended: &Outcome, resource: Resource) -> bool {
    ["error while loading shared libraries", "failed to map segment"]
        .iter()
        .any(|text| ended.stderr.contains(text))
        || (resource == Resource::RLIMIT_AS && ended.status.is_none())
}

pub fn no_more_open_files(_: Who) {
    let ran = (3..=70)
        .filter(|&limit| run_limited(Resource::RLIMIT_NOFILE, limit, &["open files", "EMFILE"]))
        .count();
    assert!((5..60).contains(&ran), "with {ran} of the limits it ran");
}

pub fn no_more_processes(_: Who) {
    assert!(!run_limited(Resource::RLIMIT_NPROC, 1, &["limit of processes"]));
}

pub fn no_more_memory(_: Who) {
    let ran = (0..80)
        .filter(|step| {
            let words = ["Cannot allocate memory", "ENOMEM", "status "];
            run_limited(Resource::RLIMIT_AS, step * (1 << 19), &words)
        })
        .count();
    assert!((1..80).contains(&ran), "with {ran} of the limits it ran");
}

pub fn no_file_may_grow(_: Who) {
    let limits = [0, 1, 10, 100, 300, 600, 1000, 3000, 9000, 100_000];
    let ran = limits
        .into_iter()
        .filter(|&limit| run_limited(Resource::RLIMIT_FSIZE, limit, &["File too large", "EFBIG"]))
        .count();
    assert!((1..10).contains(&ran), "with {ran} of the limits it ran");
}
