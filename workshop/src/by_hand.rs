//! The scripts `by-hand.sh`: each step once more, by the programs that a learner can type.
//!
//! A step's tests that say what its mechanism is run against its script, too, as `NAME/by-hand/WHO`.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use crate::text::{is_on, search_path};

/// How the names of such tests go on behind the function's.
pub(crate) const MARK: &str = "by-hand/";

/// The script, if this process tests one.
static SCRIPT: OnceLock<PathBuf> = OnceLock::new();

/// Whether the programs are there that the script names in its line `# Needs:`.
pub(crate) fn has_tools(script: &str) -> bool {
    let needs = script.lines().find_map(|line| line.strip_prefix("# Needs:"));
    let path = search_path();
    needs.expect("a line # Needs:").split_whitespace().all(|tool| is_on(&path, tool))
}

/// Runs a test for which the script takes the place of the program. It is copied into the lab, where a
/// plain user may not reach the original.
pub(crate) fn with(script: &str, test: impl FnOnce() -> i32) -> i32 {
    let place =
        Path::new(&std::env::var_os("XDG_RUNTIME_DIR").expect("the lab's")).join("by-hand.sh");
    fs::write(&place, script).expect("the lab's /run takes a file");
    SCRIPT.set(place.clone()).expect("one test for each process");
    let status = test();
    fs::remove_file(place).expect("our own file");
    status
}

/// What runs the script, if this process tests one.
pub(crate) fn command() -> Option<Command> {
    let script = SCRIPT.get()?;
    let mut command = Command::new("bash");
    command.arg(script);
    Some(command)
}
