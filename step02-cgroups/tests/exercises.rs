//! The exercises of step 2. What takes a cgroup of one's own is tried only where the caller may
//! make one; tests/cgroups/ tries it all on the kernel.

use std::fs::{self, File};
use std::io::ErrorKind;
use std::mem::ManuallyDrop;
use std::os::fd::AsFd as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use nix::sys::signal::{Signal, kill};
use nix::sys::wait::waitpid;
use step01_namespaces::{Child, Namespace, Namespaces};
use step02_cgroups::{Cpuset, Limits, Usage, Version, hierarchies, settings};
use workshop::lab::Who;
use workshop::suite::{Test, suite};
use workshop::test;
use workshop::verdict::{expect, verdict};

static TESTS: &[Test] = &[
    test!(ex2_1_each_limit_is_a_number_in_a_file, [Root, LabRoot, Plain]),
    test!(ex2_2_the_numbers_of_a_group_are_read, [Root, LabRoot, Plain]),
    test!(ex2_3_the_other_flags_stay, [Plain]),
    test!(ex2_3_the_child_is_born_in_its_cgroup, [Root, LabRoot, Plain]),
];

fn main() -> ExitCode {
    suite(TESTS)
}

fn ex2_1_each_limit_is_a_number_in_a_file(_: Who) {
    let look =
        "Documentation/admin-guide/cgroup-v2.rst, \"Core Interface Files\" of each controller";
    let limits = Limits {
        memory: Some("64m".parse().unwrap()),
        cpus: Some("0.5".parse().unwrap()),
        pids: Some(32),
        cpuset: Some("0".parse::<Cpuset>().unwrap()),
        ..Limits::default()
    };
    let found = settings(&limits, Version::V2);
    for (file, value, why) in [
        ("memory.max", "67108864", "64 MiB, in bytes"),
        ("memory.swap.max", "0", "or the rest would go to swap"),
        ("cpu.max", "50000 100000", "half of a period: quota and period in microseconds"),
        ("pids.max", "32", "processes and threads"),
        ("cpuset.cpus", "0", "the list as it is"),
    ] {
        let setting = found.iter().find(|setting| setting.file == file);
        let but = match setting {
            Some(setting) if setting.value == value => continue,
            Some(setting) => format!("{:?} would be written there", setting.value),
            None => format!(
                "nothing would be; the files are {:?}",
                found.iter().map(|setting| setting.file).collect::<Vec<_>>()
            ),
        };
        verdict(&format!("{value:?} is written to {file} ({why})"), &but, look);
    }
    let none = settings(&Limits::default(), Version::V2);
    expect(none.is_empty(), "no limit asked for, none written", &format!("{none:?}"), look);
}

fn ex2_2_the_numbers_of_a_group_are_read(_: Who) {
    let state = PathBuf::from(std::env::var_os("XDG_RUNTIME_DIR").unwrap());
    let events = "low 0\nhigh 0\nmax 41\noom 9\noom_kill 3\noom_group_kill 0\n";
    let v2: &[_] =
        &[("memory.current", "1048576\n"), ("memory.peak", "2097152\n"), ("memory.events", events)];
    let v1: &[_] = &[
        ("memory.usage_in_bytes", "1048576\n"),
        ("memory.max_usage_in_bytes", "2097152\n"),
        ("memory.oom_control", "oom_kill_disable 0\nunder_oom 0\noom_kill 3\n"),
    ];
    for (version, files) in [(2, v2), (1, v1)] {
        // As the kernel writes them after a process was killed; a group of our own takes root.
        let group = state.join(format!("v{version}"));
        fs::create_dir(&group).unwrap();
        for (file, text) in files {
            fs::write(group.join(file), text).unwrap();
        }
        let mut usage = Usage::default();
        usage.read(&group);
        fs::remove_dir_all(&group).unwrap();
        let names: Vec<_> = files.iter().map(|(name, _)| *name).collect();
        let look = format!("what is read for version {version}: {names:?}");
        for (what, right, found) in [
            ("memory in use (bytes)", 1 << 20, usage.memory),
            ("the most memory that was in use (bytes)", 2 << 20, usage.memory_peak),
            ("processes killed over the limit", 3, usage.oom_kills),
        ] {
            expect(
                found == Some(right),
                &format!("version {version}, {what}: {right}"),
                &found.map_or_else(|| "nothing was found".into(), |found| found.to_string()),
                &look,
            );
        }
    }
}

fn spawn(namespaces: Namespaces, directory: &Path) -> anyhow::Result<ManuallyDrop<Child>> {
    let directory = File::open(directory).unwrap();
    let child = Child::spawn(namespaces, Some(directory.as_fd()), || Ok(Command::new("true")));
    child.map(ManuallyDrop::new) // its own end would be exercise 1.5
}

fn ex2_3_the_other_flags_stay(_: Who) {
    // A plain user may make no network namespace alone; /run, which is no cgroup, is met later.
    let child = spawn([Namespace::Net].into_iter().collect(), Path::new("/run"));
    let but = child.err().map_or_else(|| "it let us".into(), |error| format!("{error:#}"));
    expect(
        but.contains("Operation not permitted"),
        "the kernel is still asked for the namespaces, which a plain user may not have (EPERM)",
        &but,
        "args.flags: there are bits in it already, which have to stay",
    );
}

fn ex2_3_the_child_is_born_in_its_cgroup(_: Who) {
    let look = "clone3(2), CLONE_INTO_CGROUP: a bit in flags, and the directory's fd in cgroup";
    let spawn = |directory: &Path| spawn(Namespaces::default(), directory);
    // A directory that is no cgroup tells the kernel's answer from none: EBADF.
    let but = match spawn(Path::new("/run")) {
        Ok(_) => "it took one: the child is in our own cgroup, and nobody asked for another",
        Err(error) if format!("{error:#}").contains("Bad file descriptor") => "",
        Err(error) => &format!("{error:#}"),
    };
    expect(but.is_empty(), "the kernel refuses /run as a cgroup (EBADF)", but, look);

    let hierarchies = hierarchies().unwrap();
    let Some(v2) = hierarchies.iter().find(|h| h.version == Version::V2) else { return };
    // The tree is the machine's, and other labs are at work: a name of our own, and locked, as else
    // the group looks like one that a killed runtime has left.
    let lab = fs::metadata("/proc/self/ns/pid").unwrap().ino();
    let name = format!("container-workshop-exercise-{lab}");
    let group = v2.own.join(&name);
    match fs::create_dir(&group) {
        Ok(()) => {}
        // We may not: then the kernel has at least to say so, for a group that is not ours.
        Err(error) if error.kind() == ErrorKind::PermissionDenied => {
            let refused = spawn(&v2.own).err().map(|error| format!("{error:#}"));
            let refused = refused.unwrap_or_else(|| "it let us".into());
            let but = if refused.contains("Permission denied") { "" } else { &refused };
            expect(
                but.is_empty(),
                "the kernel does not let us put a child into a cgroup that is not ours (EACCES)",
                but,
                look,
            );
            return;
        }
        Err(error) => panic!("the test cannot make {}: {error}", group.display()),
    }
    let lock = File::open(&group).unwrap();
    lock.lock().unwrap();
    let born = spawn(&group);
    let shown = born.as_ref().map(|child| {
        fs::read_to_string(format!("/proc/{}/cgroup", child.pid())).unwrap_or_default()
    });
    let shown = shown.unwrap_or_else(|error| format!("{error:#}"));
    if let Ok(child) = born {
        kill(child.pid(), Signal::SIGKILL).unwrap();
        waitpid(child.pid(), None).unwrap();
    }
    fs::remove_dir(&group).unwrap();
    expect(
        shown.contains(&name),
        "/proc/PID/cgroup of the new child names the group, before it has done anything",
        &shown,
        look,
    );
}
