//! Limits that the kernel keeps.

use workshop::lab::Who;

use crate::{final_, probe_volume, script};

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
    assert!(ended.stderr.is_empty(), "{ended:?}");
}

pub fn processor_time_is_limited(_: Who) {
    let spun = probe(&["--cpus", "0.5"], &["@spin", "2"]).stdout;
    let used: u64 = spun.split(' ').nth(1).and_then(|ms| ms.parse().ok()).expect("a number");
    // About 1000: less on a busy machine, and a quota is counted in slices. Without a limit, 2000.
    assert!((400..=1500).contains(&used), "half a processor for 2 s gave {used} ms");
}

pub fn processes_are_limited(_: Who) {
    // The probe itself is one of the sixteen.
    let stopped = probe(&["--pids-limit", "16"], &["@forks"]);
    assert!(stopped.stdout.starts_with("started 15, then: "), "{stopped:?}");
}

pub fn a_limit_that_cannot_be_kept_is_an_error(_: Who) {
    let refused = script(&["--memory", "64M"], "true");
    assert_eq!(refused.status, Some(125), "{refused:?}");
    for part in ["cgroup", "root"] {
        assert!(refused.stderr.contains(part), "{refused:?}");
    }
}
