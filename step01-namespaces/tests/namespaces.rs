//! Step 1 against the real kernel: the binary in a lab, and what /proc says.

use std::os::unix::process::ExitStatusExt as _;
use std::process::{ExitCode, Stdio};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use workshop::lab::Who;
use workshop::suite::{Outcome, Test, command, eventually, read, run, suite, this_program};
use workshop::test;

const BINARY: &str = env!("CARGO_BIN_EXE_step01-namespaces");
const KINDS: [&str; 8] = ["mnt", "uts", "ipc", "pid", "net", "user", "cgroup", "time"];

static TESTS: &[Test] = &[
    test!(each_namespace_is_new, [Root, LabRoot, Plain]),
    test!(a_shared_namespace_is_the_hosts, [Root, LabRoot, Plain]),
];

fn main() -> ExitCode {
    suite(TESTS)
}

fn step01(words: &[&str]) -> Outcome {
    run(&mut command(BINARY, words), Duration::from_secs(60))
}

fn links(script_output: &str) -> Vec<String> {
    script_output.lines().map(str::to_owned).collect()
}

/// Prints the container's namespaces, in the order of KINDS.
const SHOW: &str =
    "for kind in mnt uts ipc pid net user cgroup time; do readlink /proc/self/ns/$kind; done";

fn each_namespace_is_new(who: Who) {
    let shown = step01(&["sh", "-c", SHOW]);
    assert_eq!(shown.status, Some(0), "{shown:?}");
    let inside = links(&shown.stdout);
    for (kind, inside) in KINDS.iter().zip(&inside) {
        let ours = std::fs::read_link(format!("/proc/self/ns/{kind}")).unwrap();
        let is_new = ours.to_str() != Some(inside);
        // Only a plain user needs a user namespace.
        assert_eq!(is_new, *kind != "user" || who == Who::Plain, "{kind}: {inside}");
    }
    assert_eq!(inside.len(), KINDS.len());
}

fn a_shared_namespace_is_the_hosts(who: Who) {
    for kind in KINDS {
        let shown = step01(&["--share", kind, "readlink", &format!("/proc/self/ns/{kind}")]);
        if kind == "user" && who == Who::Plain {
            assert_eq!(shown.status, Some(125), "{shown:?}");
            assert!(shown.stderr.contains("--share user"), "{shown:?}");
            continue;
        }
        let ours = std::fs::read_link(format!("/proc/self/ns/{kind}")).unwrap();
        assert_eq!(shown.stdout.trim(), ours.to_str().unwrap(), "{shown:?}");
    }
}
