//! Images: what is on disk, what a container is made of, and what other people's tools say to it.

#![allow(clippy::wildcard_imports, reason = "the table below names every test, or it is dead code")]

mod archives;
mod config;
mod hostile;
mod layers;
mod login;
mod made;
mod others;
mod registry;
mod tls;
mod verbs;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use workshop::lab::Who;
use workshop::suite::{Outcome, Test, command, run, suite};
use workshop::test;

const BINARY: &str = env!("CARGO_BIN_EXE_final");

use archives::*;
use config::*;
use hostile::*;
use layers::*;
use login::*;
use others::*;
use registry::*;
use tls::*;
use verbs::*;

static TESTS: &[Test] = &[
    // verbs.rs
    test!(images_are_imported_listed_named_and_removed, [Root, LabRoot, Plain]),
    test!(an_image_in_use_is_not_removed, [Root, LabRoot, Plain]),
    test!(prune_removes_what_nobody_uses, [Root, Plain]),
    test!(what_containers_take_is_counted, [Root, LabRoot, Plain]),
    test!(two_loads_at_once, [Root, Plain]),
    test!(a_killed_load_leaves_nothing, [Root, LabRoot, Plain]),
    test!(a_full_disk_leaves_nothing, [Root, LabRoot]),
    test!(nonsense_is_named, [Root, Plain]),
    // config.rs
    test!(the_image_says_what_runs, [Root, LabRoot, Plain]),
    test!(the_image_says_as_whom, [Root]),
    // layers.rs
    test!(layers_lie_over_each_other, [Root, LabRoot, Plain]),
    test!(files_are_as_the_archive_has_them, [Root, LabRoot, Plain]),
    test!(containers_share_layers_and_no_writes, [Root, LabRoot, Plain]),
    test!(an_image_of_many_layers, [Root, LabRoot, Plain]),
    // archives.rs
    test!(every_form_of_archive_is_read, [Root, Plain]),
    test!(what_is_not_as_its_digest_says_is_refused, [Root, Plain]),
    test!(the_image_for_this_machine_is_taken, [Plain]),
    // hostile.rs
    test!(hostile_layers_change_nothing_outside, [Root, LabRoot, Plain]),
    test!(bombs_are_refused, [Root, Plain]),
    test!(layers_that_are_hard_to_remove, [Root, LabRoot, Plain]),
    // others.rs
    test!(skopeo_reads_what_we_write, [Root, Plain], tools["skopeo"]),
    test!(we_read_what_skopeo_writes, [Root, Plain], tools["skopeo"]),
    test!(umoci_unpacks_the_same_files, [Root], tools ["skopeo", "umoci"]),
    // registry.rs
    test!(debians_registry_serves_us, [Root, Plain], tools ["skopeo", "docker-registry"]),
    test!(what_breaks_off_goes_on, [Root, Plain]),
    test!(what_a_registry_says_is_verified, [Root, Plain]),
    test!(a_registry_that_does_not_end, [Root, Plain]),
    test!(a_killed_pull_leaves_nothing, [Root, Plain]),
    test!(an_index_and_a_redirection_are_followed, [Root, Plain]),
    // login.rs
    test!(a_registry_may_ask_who_we_are, [Root, Plain]),
    test!(who_we_are_is_told_to_nobody_else, [Root, Plain]),
    test!(a_token_is_renewed, [Plain]),
    test!(another_program_may_know_our_password, [Root, Plain]),
    // tls.rs
    test!(a_registry_shows_a_certificate, [Root, Plain], tools ["openssl", "skopeo", "docker-registry"]),
];

fn main() -> ExitCode {
    suite(TESTS)
}

/// Runs `final` with these words to its end.
fn final_(words: &[&str]) -> Outcome {
    run(&mut command(BINARY, words), Duration::from_secs(200))
}

/// The same, if it has to go well; returns what it prints.
fn done(words: &[&str]) -> String {
    let outcome = final_(words);
    assert_eq!(outcome.status, Some(0), "{words:?}: {outcome:?}");
    outcome.stdout
}

/// A shell script in a new container of the image, with the host's programs in /usr.
fn script(image: &str, options: &[&str], script: &str) -> Outcome {
    let common = ["run", "--rm", "--net", "none", "-v", "/usr:/usr:ro"];
    final_(&[&common, options, &[image, "sh", "-c", script]].concat())
}

/// A directory of the lab's that is ours to fill, whoever we are; gone in the end.
struct Scratch(PathBuf);

impl Scratch {
    fn new() -> Self {
        let path = Path::new(&std::env::var("XDG_RUNTIME_DIR").expect("the lab's")).join("scratch");
        fs::create_dir(&path).unwrap();
        Self(path)
    }

    fn path(&self, name: &str) -> String {
        self.0.join(name).to_str().unwrap().to_owned()
    }

    fn write(&self, name: &str, bytes: impl AsRef<[u8]>) -> String {
        fs::write(self.0.join(name), bytes).unwrap();
        self.path(name)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Where the images are.
fn images(who: Who) -> PathBuf {
    let base = match who {
        Who::Root | Who::LabRoot => "/run".to_owned(),
        _ => std::env::var("XDG_RUNTIME_DIR").expect("the lab's"),
    };
    Path::new(&base).join("container-workshop/images")
}

/// What is there beside the index: nothing, if all images are removed.
fn rest(who: Who) -> Vec<String> {
    let images = images(who);
    let mut rest = Vec::new();
    for directory in ["", "blobs/sha256", "layers"] {
        for entry in fs::read_dir(images.join(directory)).into_iter().flatten().flatten() {
            let name = entry.file_name().into_string().unwrap();
            let usual = ["index.json", "oci-layout", "blobs", "layers"].contains(&name.as_str());
            if !(directory.is_empty() && (usual || name.starts_with("host-"))) {
                rest.push(format!("{directory}/{name}"));
            }
        }
    }
    rest
}
