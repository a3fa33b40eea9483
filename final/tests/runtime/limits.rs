//! Limits that the kernel keeps.

use std::fs;
use std::path::PathBuf;

use workshop::lab::{self, Who};

use crate::{BINARY, final_, probe_volume, script, start, stop};

/// Runs a probe with options.
fn probe(options: &[&str], words: &[&str]) -> workshop::suite::Outcome {
    let volume = probe_volume();
    final_(&[&["run", "--rm", "-v", &volume], options, &["host", "/probe"], words].concat())
}

pub fn too_much_memory_is_killed_and_reported(_: Who) {
    let killed = probe(&["--memory", "32M"], &["@eat", "64"]);
    assert_eq!(killed.status, Some(137), "{killed:?}");
    assert!(killed.stderr.contains("over its memory limit of 32 MiB, peak 32 MiB"), "{killed:?}");
    let ended = probe(&["--memory", "128M"], &["@eat", "64"]);
    assert_eq!((ended.status, ended.stdout.as_str()), (Some(0), "ate 64 MiB\n"), "{ended:?}");
    assert!(!ended.stderr.contains("killed"), "{ended:?}");
}

pub fn processor_time_is_limited(_: Who) {
    let spun = probe(&["--cpus", "0.1"], &["@spin", "2"]).stdout;
    let used: u64 = spun.split(' ').nth(1).and_then(|ms| ms.parse().ok()).expect("a number");
    // About 200: less on a busy machine, more on one that is late to stop it. Without a limit, 2000.
    assert!((20..=1500).contains(&used), "a tenth of a processor for 2 s gave {used} ms");
}

pub fn processes_are_limited(_: Who) {
    // The probe itself is one of the sixteen.
    let stopped = probe(&["--pids-limit", "16"], &["@forks"]);
    assert!(stopped.stdout.starts_with("started 15, then: "), "{stopped:?}");
}

pub fn an_undelegated_limit_is_an_error(_: Who) {
    let refused = script(&["--memory", "64M"], "true");
    assert_eq!(refused.status, Some(125), "{refused:?}");
    for part in ["cgroup", "root"] {
        assert!(refused.stderr.contains(part), "{refused:?}");
    }
}

/// Whatever its network is: with the host's, /sys is the host's, too.
pub fn the_container_sees_its_own_cgroup_only(_: Who) {
    for net in ["none", "host"] {
        let seen = script(
            &["--net", net, "--memory", "64M"],
            "cat /proc/self/cgroup; cd /sys/fs/cgroup; cat memory.max; head -1 cgroup.procs; \
             find . -mindepth 1 -type d; mkdir new; echo max > memory.max",
        );
        assert_eq!(seen.stdout, format!("0::/\n{}\n1\n", 64 << 20), "{seen:?}");
        assert_eq!(seen.stderr.matches("Read-only file system").count(), 2, "{seen:?}");
    }
}

pub fn a_cgroup_of_its_own_is_for_it_to_divide(_: Who) {
    let options = ["--cgroup-rw", "--net", "none", "--memory", "64M", "--pids-limit", "32"];
    let seen = script(
        &options,
        "cat /proc/self/cgroup; cd /sys/fs/cgroup; stat -c %u . cgroup.procs; echo +pids > \
         cgroup.subtree_control; mkdir new; echo 5 > new/pids.max; cat new/pids.max; cat pids.max; \
         for limit in memory.max pids.max; do echo max > $limit; done; cat memory.max pids.max",
    );
    let limits = format!("{}\n32\n", 64 << 20);
    assert_eq!(seen.stdout, format!("0::/init\n0\n0\n5\n32\n{limits}"), "{seen:?}");
    let runtime = start("box", &options, &["sleep", "1000"]);
    let joined = final_(&["exec", "box", "cat", "/proc/self/cgroup"]);
    assert_eq!(joined.stdout, "0::/init\n", "{joined:?}");
    stop("box", runtime);
}

/// Our program, in a container of ours, makes one with a limit, and a probe in it dies of that.
pub fn a_container_runs_in_a_container(_: Who) {
    let (outer, inner) = (lab::program(BINARY), probe_volume());
    let (outer, probe) = (format!("{}:/final:ro", outer.display()), "/probe:/probe:ro");
    let nested = |memory: &str| {
        let run = ["run", "--rm", "--net", "none"];
        let outside =
            ["--privileged", "--cgroup-rw", "--memory", "256M", "-v", &outer, "-v", &inner];
        let inside = ["--memory", memory, "-v", probe, "host", "/probe", "@eat", "64"];
        final_(&[&run, &outside[..], &["host", "/final"], &run, &inside].concat())
    };
    let killed = nested("32M");
    assert_eq!(killed.status, Some(137), "{killed:?}");
    assert!(killed.stderr.contains("over its memory limit of 32 MiB"), "{killed:?}");
    assert!(!killed.stderr.contains("256 MiB"), "only the inner one was: {killed:?}");
    let ended = nested("128M");
    assert_eq!((ended.status, ended.stdout.as_str()), (Some(0), "ate 64 MiB\n"), "{ended:?}");
}

pub fn an_undelegated_cgroup_stays_read_only(who: Who) {
    let refused = script(&["--cgroup-rw"], "true");
    assert_eq!(refused.status, Some(125), "{refused:?}");
    let why = if who == Who::Root { "version 1" } else { "cgroup" };
    assert!(refused.stderr.contains("--cgroup-rw cannot be had: "), "{refused:?}");
    assert!(refused.stderr.contains(why), "{refused:?}");
}

pub fn processors_are_chosen(_: Who) {
    let allowed = "grep Cpus_allowed_list /proc/self/status";
    let of_us = std::process::Command::new("sh").args(["-c", allowed]).output().unwrap();
    let last = String::from_utf8(of_us.stdout).unwrap();
    let last = last.trim().rsplit(['\t', ',', '-']).next().unwrap().to_owned();
    let seen = script(&["--cpuset-cpus", &last], allowed);
    assert_eq!(seen.stdout, format!("Cpus_allowed_list:\t{last}\n"), "{seen:?}");
    let runtime = start("box", &["--cpuset-cpus", &last], &["sleep", "1000"]);
    let joined = final_(&["exec", "box", "sh", "-c", allowed]);
    assert_eq!(joined.stdout, seen.stdout, "{joined:?}");
    stop("box", runtime);
}

/// The text of a file of the cgroup whose name ends so, in whatever hierarchy has it.
fn setting(group: &str, file: &str) -> Option<String> {
    let mut open = vec![PathBuf::from("/sys/fs/cgroup")];
    while let Some(directory) = open.pop() {
        let below = fs::read_dir(&directory).into_iter().flatten().flatten();
        let below = below.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
        open.extend(below.map(|entry| entry.path()));
        if directory.to_str().is_some_and(|path| path.ends_with(group))
            && let Ok(text) = fs::read_to_string(directory.join(file))
        {
            return Some(text.trim().to_owned());
        }
    }
    None
}

pub fn the_kernel_has_dockers_other_limits(_: Who) {
    let options = ["--memory", "64m", "--memory-reservation", "32m", "--cpu-shares", "512"];
    let time = ["--cpu-quota", "30000", "--cpu-period", "60000"];
    let runtime = start("box", &[&options[..], &time].concat(), &["sleep", "1000"]);
    let group = format!("container-workshop-{}", final_(&["ps", "-q"]).stdout.trim());
    let reservation = (32 << 20).to_string();
    let of_version_1 = [
        ("memory.soft_limit_in_bytes", reservation.as_str()),
        ("cpu.shares", "512"),
        ("cpu.cfs_quota_us", "30000"),
        ("cpu.cfs_period_us", "60000"),
    ];
    let of_version_2 =
        [("memory.low", reservation.as_str()), ("cpu.weight", "20"), ("cpu.max", "30000 60000")];
    let is_version_2 = setting(&group, "cgroup.controllers").is_some_and(|all| !all.is_empty());
    let expected = if is_version_2 { &of_version_2[..] } else { &of_version_1[..] };
    for &(file, value) in expected {
        assert_eq!(setting(&group, file).as_deref(), Some(value), "{file}");
    }
    let swap = if is_version_2 { "memory.swap.max" } else { "memory.memsw.limit_in_bytes" };
    let counts_swap = setting(&group, swap).is_some();
    stop("box", runtime);

    // A kernel that does not count swap cannot limit it: then that is said.
    for (total, in_v1, in_v2) in
        [("96m", 96 << 20, (32 << 20).to_string()), ("-1", -1, "max".to_owned())]
    {
        let options = ["--memory", "64m", "--memory-swap", total];
        if !counts_swap {
            let refused = script(&options, "true");
            assert_eq!(refused.status, Some(125), "{refused:?}");
            assert!(refused.stderr.contains("cannot limit --memory-swap"), "{refused:?}");
            continue;
        }
        let runtime = start("box", &options, &["sleep", "1000"]);
        let group = format!("container-workshop-{}", final_(&["ps", "-q"]).stdout.trim());
        let found = setting(&group, swap).unwrap();
        if is_version_2 {
            assert_eq!(found, in_v2);
        } else {
            assert!(in_v1 < 0 || found == in_v1.to_string(), "{found}");
        }
        stop("box", runtime);
    }
}
