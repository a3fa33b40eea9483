//! Every system call of `final run`, made to fail, and made the last: the undoing is as good as the
//! doing. By default one call in 25 is tried; `WORKSHOP_EVERY_CALL=1`, as in `.ci/run`, tries them all.

mod walk;

use std::collections::BTreeSet;
use std::process::ExitCode;
use std::thread::{ScopedJoinHandle, scope};
use std::time::Duration;

use workshop::faults::Fault;
use workshop::internet::{SERVER, UPLINK};
use workshop::lab::Who;
use workshop::snapshot::Snapshot;
use workshop::suite::{Outcome, Running, Test, command, get, probe_volume, run, suite};
use workshop::test;

use walk::Walk;

const BINARY: &str = env!("CARGO_BIN_EXE_final");

static TESTS: &[Test] = &[
    test!(a_call_that_fails_is_reported_and_undone, [Root, LabRoot, Plain]),
    test!(a_kill_at_any_call_is_cleaned_up, [Root, LabRoot, Plain]),
    test!(the_only_container_at_a_terminal_reports_and_undoes, [Root, LabRoot, Plain]),
    test!(the_only_container_killed_at_any_call_is_cleaned_up, [Root, LabRoot, Plain]),
    test!(a_remapped_container_reports_and_undoes, [Root], IdMaps),
    test!(a_remapped_container_killed_at_any_call_is_cleaned_up, [Root], IdMaps),
    test!(two_and_eight_at_once_are_apart, [Root, LabRoot]),
];

fn main() -> ExitCode {
    suite(TESTS)
}

fn a_call_that_fails_is_reported_and_undone(who: Who) {
    Walk::beside_another(who).of(Fault::Error);
}

fn a_kill_at_any_call_is_cleaned_up(who: Who) {
    Walk::beside_another(who).of(Fault::Kill);
}

fn the_only_container_at_a_terminal_reports_and_undoes(who: Who) {
    Walk::alone(who).of(Fault::Error);
}

fn the_only_container_killed_at_any_call_is_cleaned_up(who: Who) {
    Walk::alone(who).of(Fault::Kill);
}

fn a_remapped_container_reports_and_undoes(who: Who) {
    Walk::remapped(who).of(Fault::Error);
}

fn a_remapped_container_killed_at_any_call_is_cleaned_up(who: Who) {
    Walk::remapped(who).of(Fault::Kill);
}

/// Twenty times a number of containers that come and leave at once, each with a port of its own.
fn two_and_eight_at_once_are_apart(_: Who) {
    let before = Snapshot::take(&[]).expect("a snapshot");
    for round in 0..20 {
        let ports = 8000..if round % 2 == 0 { 8002 } else { 8008 };
        let all: Vec<_> = scope(|scope| {
            let threads: Vec<_> =
                ports.map(|port| (port, scope.spawn(move || serve(port)))).collect();
            let join = |(port, thread): (u16, ScopedJoinHandle<'_, Running>)| {
                (port, thread.join().expect("a container"))
            };
            threads.into_iter().map(join).collect()
        });
        let ask = |(port, _): &(u16, Running)| {
            let outside = get(&format!("{SERVER}:80"), &format!("/tcp/{UPLINK}/{port}"));
            assert!(outside.contains("hello"), "round {round}, port {port}: {outside}");
            let here = get(&format!("127.0.0.1:{port}"), "/");
            let address = here.split("at ").nth(1).map(|rest| rest.trim().to_owned());
            address.unwrap_or_else(|| panic!("round {round}, port {port}: {here}"))
        };
        let addresses: BTreeSet<_> = all.iter().map(ask).collect();
        assert_eq!(addresses.len(), all.len(), "round {round}: {addresses:?}");
        scope(|scope| {
            for (_, running) in all {
                scope.spawn(|| drop(running)); // they leave at once, too
            }
        });
        before.ensure_restored(&[]).unwrap_or_else(|error| panic!("round {round}: {error:#}"));
    }
}

/// A container in which only this port answers, with the address that it was asked at: a rule that
/// leads to another container leads nowhere.
fn serve(port: u16) -> Running {
    let volume = probe_volume();
    let publish = format!("{port}:{port}");
    let script = format!("/probe @serve 0.0.0.0:{port} & read end; exit 7");
    let words = ["run", "--rm", "-i", "-v", &volume, "-p", &publish, "host", "sh", "-c", &script];
    let (running, ready) = Running::start(&mut command(BINARY, &words));
    assert_eq!(ready, "ready\n");
    running
}

/// Runs `final` with these words to its end.
fn final_(words: &[&str]) -> Outcome {
    run(&mut command(BINARY, words), Duration::from_secs(100))
}
