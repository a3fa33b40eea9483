//! What the kernel thinks of an exercise: builds its tests, runs each in a lab, and reads the verdict.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, ensure};
use nix::unistd::geteuid;

use super::Exercise;
use crate::verdict::WORDS;

/// The answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// So many tests, and all pass.
    Passed(usize),
    /// This exercise is not written yet.
    NotWritten(String),
    /// A test failed.
    Failed(Finding),
    /// The compiler has said why, on stderr.
    DoesNotCompile,
}

/// What a test found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// The test's name, in words.
    pub test: String,
    /// As whom it ran: root, lab-root, plain.
    pub who: String,
    /// The three lines of the verdict, or else all that the test wrote.
    pub text: String,
}

/// Checks an exercise in a workspace.
pub fn check(workspace: &Path, exercise: &Exercise) -> Result<Verdict> {
    let Some(program) = build(workspace, exercise.package(), Stdio::inherit())? else {
        return Ok(Verdict::DoesNotCompile);
    };
    run(&program, &exercise.tests())
}

/// Builds the exercises' tests of a package; `None` if the code does not compile.
pub fn build(workspace: &Path, package: &str, stderr: Stdio) -> Result<Option<PathBuf>> {
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.args(["test", "-q", "--no-run", "--offline", "--message-format=json-render-diagnostics"]);
    cargo.args(["-p", package, "--test", "exercises"]).current_dir(workspace);
    let output = cargo.stderr(stderr).output().context("cannot run cargo")?;
    if !output.status.success() {
        return Ok(None);
    }
    let text = String::from_utf8_lossy(&output.stdout);
    let programs = text.lines().filter(|line| line.contains("\"name\":\"exercises\""));
    let mut executable = programs.filter_map(|line| {
        let (_, path) = line.split_once("\"executable\":\"")?;
        path.split_once('"').map(|(path, _)| PathBuf::from(path))
    });
    Ok(Some(executable.next_back().context("cargo built no tests of exercises")?))
}

/// Runs the tests whose names begin with `prefix`, up to the first that fails.
pub fn run(program: &Path, prefix: &str) -> Result<Verdict> {
    let list = Command::new(program).arg("--list").output();
    let list = list.with_context(|| format!("cannot run {}", program.display()))?;
    let list = String::from_utf8_lossy(&list.stdout).into_owned();
    let root = geteuid().is_root();
    let names = list.lines().filter_map(|line| line.strip_suffix(": test"));
    let names = names.filter(|name| name.starts_with(prefix));
    let mut count = 0;
    for name in names.filter(|name| root || !name.ends_with("/root")) {
        let mut test = Command::new(program);
        test.env("WORKSHOP_TEST", name).env("RUST_BACKTRACE", "0").stdin(Stdio::null());
        let output = test.output().context("cannot run a test")?;
        if !output.status.success() {
            let text = [output.stdout, output.stderr].concat();
            return Ok(read(name, &String::from_utf8_lossy(&text)));
        }
        count += 1;
    }
    ensure!(count > 0, "{} has no test {prefix}...", program.display());
    Ok(Verdict::Passed(count))
}

/// Reads what a failed test wrote.
fn read(name: &str, text: &str) -> Verdict {
    if let Some((_, rest)) = text.split_once("not yet implemented: exercise ") {
        return Verdict::NotWritten(rest.split(':').next().unwrap_or_default().to_owned());
    }
    let lines = text.lines().skip_while(|line| !line.starts_with(WORDS[0]));
    let note = |line: &&str| !line.starts_with("note: run with");
    let told: Vec<_> = lines.take_while(note).filter(|line| !line.is_empty()).collect();
    let (test, who) = name.split_once('/').unwrap_or((name, ""));
    let test = test.splitn(3, '_').last().unwrap_or(test).replace('_', " ");
    let text = if told.is_empty() { text.trim().to_owned() } else { told.join("\n") };
    Verdict::Failed(Finding { test, who: who.to_owned(), text })
}

#[cfg(test)]
mod tests {
    use super::{Finding, Verdict, read};

    #[test]
    fn a_failed_test_is_read() {
        let text = "\nthread 'main' panicked at src:1:2:\nexpected: a\nbut: b\nlook at: c\nnote: run with x\n";
        let found = Finding {
            test: "the child waits".into(),
            who: "plain".into(),
            text: "expected: a\nbut: b\nlook at: c".into(),
        };
        assert_eq!(read("ex1_2_the_child_waits/plain", text), Verdict::Failed(found));
        let text = "thread 'main' panicked at src:1:2:\nnot yet implemented: exercise 1.1: eight\n";
        assert_eq!(read("ex1_2_the_child_waits/plain", text), Verdict::NotWritten("1.1".into()));
    }
}
