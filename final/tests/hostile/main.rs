//! Hostile input: nonsense on the command line, images that lead outside, a host that has run out of
//! something, callers that pass on odd things. Each has to end in one clear line and docker's status,
//! and, as the suite looks after every test, with nothing left.

#![allow(clippy::wildcard_imports, reason = "the table below names every test, or it is dead code")]

mod arguments;
mod caller;
mod ends;
mod images;

use std::process::{Command, ExitCode};
use std::time::Duration;

use workshop::suite::{Outcome, Test, command, run, suite};
use workshop::test;

const BINARY: &str = env!("CARGO_BIN_EXE_final");

use arguments::*;
use caller::*;
use ends::*;
use images::*;

static TESTS: &[Test] = &[
    // arguments.rs
    test!(nonsense_as_a_size_or_name_is_named, [Root, LabRoot, Plain]),
    test!(nonsense_as_a_file_or_flag_is_named, [Root, LabRoot, Plain]),
    test!(nonsense_as_a_mount_or_right_is_named, [Root, LabRoot, Plain]),
    test!(nonsense_for_a_bridge_is_named, [Root, LabRoot]),
    test!(nonsense_for_the_steps_is_named, [Root, Plain]),
    test!(nonsense_for_the_other_verbs_is_named, [Root, LabRoot, Plain]),
    test!(programs_that_cannot_run_are_126_or_127, [Root, Plain]),
    test!(what_is_not_utf_8_is_refused, [Root, Plain]),
    test!(a_program_may_call_itself_anything, [Root, LabRoot, Plain]),
    // images.rs
    test!(images_that_lead_outside_change_nothing_there, [Root, LabRoot, Plain]),
    test!(images_with_the_wrong_kind_of_file, [Root, LabRoot, Plain]),
    test!(an_image_with_a_name_that_commands_the_terminal, [Root, LabRoot, Plain]),
    // ends.rs
    test!(a_full_disk, [Root, LabRoot]),
    test!(a_read_only_state_directory, [Root, LabRoot]),
    test!(garbage_in_the_state_directory, [Root, LabRoot, Plain]),
    test!(no_more_open_files, [Root, LabRoot, Plain]),
    test!(no_more_processes, [Plain]),
    test!(no_more_memory, [Root, LabRoot, Plain]),
    test!(no_file_may_grow, [Root, LabRoot, Plain]),
    // caller.rs
    test!(outputs_that_take_nothing, [Root, LabRoot, Plain]),
    test!(closed_standard_files, [Root, LabRoot, Plain]),
    test!(signals_that_the_caller_ignores_or_blocks, [Root, LabRoot, Plain]),
    test!(a_umask_that_takes_everything, [Root, LabRoot, Plain]),
    test!(a_working_directory_that_is_gone, [Root, Plain]),
    test!(an_odd_environment, [Plain]),
];

fn main() -> ExitCode {
    suite(TESTS)
}

/// Runs a command that we have changed something about to its end.
fn outcome(command: &mut Command) -> Outcome {
    run(command, Duration::from_secs(100))
}

/// Runs `final` with these words to its end.
fn final_(words: &[&str]) -> Outcome {
    outcome(&mut command(BINARY, words))
}

/// A directory of the lab's that is ours to fill, whoever we are.
fn scratch() -> String {
    std::env::var("XDG_RUNTIME_DIR").expect("the lab has made it")
}

/// Checks what holds for every refusal: the status, one error, the words that it has to name, nothing
/// that only a programmer understands, nothing that a terminal obeys.
fn check(what: &dyn std::fmt::Debug, refused: &Outcome, status: i32, named: &[&str]) {
    let text = &refused.stderr;
    let fail = |why: &str| panic!("{what:.300?}: {why}: {refused:?}");
    if refused.status != Some(status) {
        fail(&format!("the status should be {status}"));
    }
    if text.lines().filter(|line| line.starts_with("error: ")).count() != 1 {
        fail("there should be one line with an error");
    }
    for name in named {
        if !text.contains(name) {
            fail(&format!("{name:?} should be named"));
        }
    }
    for word in ["panicked", "backtrace", "Os {", "Custom {", "Error {", "Err(", "Some(", "a bug"] {
        if text.contains(word) {
            fail(&format!("{word:?} should not be in it"));
        }
    }
    if text.chars().any(|c| c.is_control() && c != '\n') {
        fail("control characters reach the terminal");
    }
    // The list of all verbs is as long as it is.
    if text.len() > 1200 && !text.contains("\nCommands:\n") {
        fail("it is too long to be read");
    }
}
