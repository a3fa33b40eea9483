//! Ways out of a container: each is shown to work in a weak container, and to fail in ours.
//!
//! A test has both halves, so none passes because its attack is broken. The weak container is the first
//! of our steps that is weak in that way, or a careless runtime that is written in `attack.rs`. In ours
//! the attack has to fail for the reason that the test names.
//!
//! The attacks read a secret of the lab's host, and open what would do harm without writing to it.

#![allow(clippy::wildcard_imports, reason = "the table below names every test, or it is dead code")]

mod attack;
mod copies;
mod files;
mod kernel;
mod neighbours;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::Duration;

use workshop::suite::{
    Outcome, Running, Test, command, eventually, link_to_usr, probe_volume, run, suite,
    this_program,
};
use workshop::test;

use copies::*;
use files::*;
use kernel::*;
use neighbours::*;

const FINAL: &str = env!("CARGO_BIN_EXE_final");
const SECRET: &str = "the host's secret";
const PATIENCE: Duration = Duration::from_secs(100);

static TESTS: &[Test] = &[
    // files.rs: into the host's files
    test!(up_from_a_chroot, [Root, LabRoot, Plain]),
    test!(through_an_inherited_directory, [Root, LabRoot, Plain]),
    test!(through_the_working_directory, [Root, LabRoot, Plain]),
    test!(through_the_programs_input, [Root, LabRoot, Plain]),
    test!(through_the_programs_path, [Root, LabRoot, Plain]),
    test!(into_the_runtimes_own_program, [Root, LabRoot, Plain]),
    test!(a_volume_on_a_link_that_changes, [Root, LabRoot, Plain]),
    test!(a_mask_that_is_a_link, [Root, LabRoot, Plain]),
    test!(etc_in_the_settings_of_the_kernel, [Root]),
    test!(a_file_by_its_handle, [Root]),
    test!(a_node_for_the_disk, [Root]),
    test!(a_set_user_id_program_in_a_volume, [Root]),
    test!(a_set_user_id_program_for_the_host, [Root], IdMaps),
    // copies.rs: by what is copied out
    test!(through_a_link_that_is_copied, [Root, LabRoot, Plain]),
    // kernel.rs: into the kernel
    test!(settings_behind_a_read_only_mount, [Root, LabRoot, Plain]),
    test!(the_release_agent_of_a_cgroup, [Root]),
    test!(what_the_kernel_knows, [Root]),
    test!(the_callers_keys, [Root, LabRoot, Plain]),
    test!(capabilities_in_a_new_user_namespace, [Root, LabRoot, Plain]),
    test!(dangerous_system_calls, [Root, LabRoot, Plain]),
    test!(the_door_of_32_bit_programs, [Root, LabRoot, Plain]),
    test!(capabilities_from_the_caller, [Root, LabRoot]),
    // neighbours.rs: to processes, terminals and machines beside it
    test!(a_signal_to_a_process_of_the_host, [Root, LabRoot, Plain]),
    test!(a_debugger_for_a_process_of_the_host, [Root]),
    test!(the_root_of_a_process_of_the_host, [Root]),
    test!(the_open_files_of_whoever_comes_in, [Root]),
    test!(typing_into_the_users_terminal, [Root, LabRoot, Plain]),
    test!(listening_at_the_users_terminal, [Root, LabRoot, Plain]),
    test!(an_abstract_socket_of_the_host, [Root, LabRoot, Plain]),
    test!(posing_as_a_router, [Root, LabRoot]),
];

fn main() -> ExitCode {
    attack::main().unwrap_or_else(|| suite(TESTS))
}

/// The binary of a step: a container that is weaker than ours.
fn step(name: &str) -> String {
    let path = Path::new(FINAL).with_file_name(name);
    assert!(path.exists(), "no {}: cargo build --workspace --bins makes it", path.display());
    path.to_str().expect("UTF-8").to_owned()
}

/// An attack in a container of step 1: new namespaces, and the host's files.
fn in_step1(options: &[&str], attack: &[&str]) -> Command {
    let program = this_program();
    let words = [options, &["--", program.to_str().expect("UTF-8")], attack].concat();
    command(&step("step01-namespaces"), &words)
}

/// An attack in a container of step 3: with a root file system of its own, but with all capabilities
/// and system calls.
fn in_step3(options: &[&str], attack: &[&str]) -> Command {
    let volume = probe_volume();
    let words = [options, &["--volume", &volume, "--", "/probe"], attack].concat();
    command(&step("step03-rootfs"), &words)
}

/// An attack in a container of ours.
fn in_final(options: &[&str], attack: &[&str]) -> Command {
    let volume = probe_volume();
    let words =
        [&["run", "--rm", "--volume", &volume], options, &["host", "/probe"], attack].concat();
    command(FINAL, &words)
}

fn final_(words: &[&str]) -> Outcome {
    run(&mut command(FINAL, words), PATIENCE)
}

// ANCHOR: halves
/// The attack works, and gets `loot`.
#[track_caller]
fn works(mut attack: Command, loot: &str) {
    let outcome = run(&mut attack, PATIENCE);
    assert_eq!(outcome.stdout.trim(), loot, "the attack is broken: {attack:?} {outcome:?}");
}

/// The attack is made, and fails with this error.
#[track_caller]
fn fails(mut attack: Command, reason: &str) {
    let outcome = run(&mut attack, PATIENCE);
    let made = outcome.status == Some(1) && outcome.stderr.contains("attack: ");
    assert!(made && outcome.stdout.is_empty(), "{attack:?} {outcome:?}");
    assert!(outcome.stderr.contains(reason), "not stopped by {reason}: {attack:?} {outcome:?}");
}
// ANCHOR_END: halves

/// A directory on the lab's host, with a secret in it; gone with the test.
struct Host(PathBuf);

impl Host {
    fn new() -> Self {
        let path = PathBuf::from(std::env::var_os("XDG_RUNTIME_DIR").unwrap()).join("host");
        fs::create_dir(&path).unwrap();
        fs::write(path.join("secret"), SECRET).unwrap();
        Self(path)
    }

    fn path(&self, name: &str) -> String {
        self.0.join(name).to_str().unwrap().to_owned()
    }

    fn secret(&self) -> String {
        self.path("secret")
    }

    fn directory(&self, name: &str) -> String {
        fs::create_dir_all(self.0.join(name)).unwrap();
        self.path(name)
    }

    /// A copy of a program, which a test may lose.
    fn copy(&self, name: &str, program: &Path) -> String {
        fs::copy(program, self.0.join(name)).unwrap();
        self.path(name)
    }

    /// A small image: with the host's /usr as a volume it can run programs.
    fn image(&self, name: &str) -> String {
        for directory in ["usr", "proc"] {
            self.directory(&format!("{name}/{directory}"));
        }
        link_to_usr(&self.0.join(name));
        self.path(name)
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        fs::remove_dir_all(&self.0).unwrap();
    }
}

/// Options of `run` for programs in such an image.
const USR: [&str; 3] = ["--rm", "--volume", "/usr:/usr:ro"];

/// `run` with an image of ours and a probe in it.
fn in_image(options: &[&str], image: &str, attack: &[&str]) -> Command {
    let volume = probe_volume();
    let words = [
        &["run"][..],
        &USR,
        &["--net", "none", "--volume", &volume],
        options,
        &[image, "/probe"],
        attack,
    ];
    command(FINAL, &words.concat())
}

/// A container of ours, in the background, called `box`; ends when it is dropped.
fn start(options: &[&str], image: &str) -> Running {
    let volume = probe_volume();
    let words = [
        &["run"][..],
        &USR,
        &["--net", "none", "--name", "box", "--interactive", "--volume", &volume],
        options,
        &[image, "sh", "-c", "echo ready; read end"],
    ];
    let (running, line) = Running::start(&mut command(FINAL, &words.concat()));
    assert_eq!(line, "ready\n");
    // It can be joined a moment later, when its runtime knows that it runs.
    eventually("it can be joined", || final_(&["exec", "box", "true"]).status == Some(0));
    running
}
