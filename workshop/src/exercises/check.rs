//! What the kernel thinks of an exercise: builds its tests, runs each in a lab, and reads the verdict.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use nix::unistd::geteuid;

use super::Exercise;
use crate::lab::Who;
use crate::suite::{self, Outcome};
use crate::verdict::WORDS;

/// A test takes a second; thirty times that in an emulated machine.
pub const PATIENCE: Duration = Duration::from_secs(30);

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
    /// As whom it ran, in words.
    pub who: String,
    /// The three lines of the verdict, or else all that the test wrote.
    pub text: String,
}

/// Checks an exercise in a workspace.
pub fn check(workspace: &Path, exercise: &Exercise) -> Result<Verdict> {
    let Some(program) = build(workspace, exercise.package(), Stdio::inherit())? else {
        return Ok(Verdict::DoesNotCompile);
    };
    run(&program, &exercise.tests(), PATIENCE)
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

/// Runs the tests whose names begin with `prefix`, up to the first that fails, or takes longer than
/// `patience`.
pub fn run(program: &Path, prefix: &str, patience: Duration) -> Result<Verdict> {
    let list = Command::new(program).arg("--list").output();
    let list = list.with_context(|| format!("cannot run {}", program.display()))?;
    let list = String::from_utf8_lossy(&list.stdout).into_owned();
    let root = geteuid().is_root();
    let names = list.lines().filter_map(|line| line.strip_suffix(": test"));
    let names = names.filter(|name| name.starts_with(prefix));
    let mut count = 0;
    for name in names.filter(|name| root || !name.ends_with("/root")) {
        let mut test = Command::new(program);
        let outcome =
            suite::run(test.env("WORKSHOP_TEST", name).env("RUST_BACKTRACE", "0"), patience);
        if outcome.status != Some(0) {
            return Ok(read(name, &outcome));
        }
        count += 1;
    }
    ensure!(count > 0, "{} has no test {prefix}...", program.display());
    Ok(Verdict::Passed(count))
}

/// Reads what a failed test wrote. What it wrote first is the cause: when it unwinds, it may come to
/// another exercise that is not written.
fn read(name: &str, outcome: &Outcome) -> Verdict {
    let text = [outcome.stdout.as_str(), &outcome.stderr].concat();
    let told = text.find(&format!("\n{}", WORDS[0]));
    let before = told.map_or(&*text, |at| &text[..at]);
    if let Some((_, rest)) = before.split_once("not yet implemented: exercise ") {
        return Verdict::NotWritten(rest.split(':').next().unwrap_or_default().to_owned());
    }
    let (test, who) = name.split_once('/').unwrap_or((name, ""));
    let test = test.splitn(3, '_').last().unwrap_or(test).replace('_', " ");
    let ran = Who::ALL.into_iter().find(|known| known.name() == who);
    let who = ran.map_or(who, |known| known.words());
    let text = match (told, outcome.status) {
        (Some(at), _) => told_and_wrote(&text[at..], before),
        (None, None) => hangs(&text),
        (None, Some(_)) => text.trim().to_owned(),
    };
    Verdict::Failed(Finding { test, who: who.to_owned(), text })
}

/// The verdict, and what was written before it: the learner's own eprintln! and panics.
fn told_and_wrote(told: &str, before: &str) -> String {
    const NOTE: &str = "note: run with";
    let told = told.split(NOTE).next().unwrap_or(told);
    let mut lines: Vec<_> = told.lines().filter(|line| !line.is_empty()).collect();
    let is_own = |line: &&str| !line.is_empty() && !line.starts_with(NOTE);
    let mut wrote: Vec<_> = before.lines().filter(is_own).collect();
    wrote.pop(); // where the test panicked
    if !wrote.is_empty() {
        lines.push("Before that it wrote:");
        lines.extend(wrote);
    }
    lines.join("\n")
}

fn hangs(text: &str) -> String {
    let [one, two, three] = WORDS;
    format!(
        "{one}the test ends\n{two}it did not, and was killed: {}\n{three}what in your lines loops, or \
         waits for somebody who does not come",
        text.trim()
    )
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{Finding, Verdict, read};
    use crate::suite::{Outcome, run};

    fn failed(stderr: &str) -> Outcome {
        Outcome { status: Some(1), stdout: String::new(), stderr: stderr.into() }
    }

    #[test]
    fn a_failed_test_is_read() {
        let text = "\nthread 'main' panicked at src:1:2:\nexpected: a\nbut: b\nlook at: c\nnote: run with x\n";
        let found = Finding {
            test: "the child waits".into(),
            who: "as a plain user of the lab".into(),
            text: "expected: a\nbut: b\nlook at: c".into(),
        };
        assert_eq!(
            read("ex1_2_the_child_waits/plain", &failed(text)),
            Verdict::Failed(found.clone())
        );
        let unwound = format!("{text}not yet implemented: exercise 1.5: how\n");
        assert_eq!(read("ex1_2_the_child_waits/plain", &failed(&unwound)), Verdict::Failed(found));
        let debugged = read("ex1_2_the_child_waits/plain", &failed(&format!("uid = 0\n{text}")));
        assert!(
            matches!(debugged, Verdict::Failed(found) if found.text.ends_with("wrote:\nuid = 0"))
        );
        let text = "thread 'main' panicked at src:1:2:\nnot yet implemented: exercise 1.1: eight\n";
        let not_written = Verdict::NotWritten("1.1".into());
        assert_eq!(read("ex1_2_the_child_waits/plain", &failed(text)), not_written);
    }

    #[test]
    fn a_test_that_hangs_is_named() {
        let late = run(std::process::Command::new("sleep").arg("60"), Duration::from_millis(50));
        let verdict = read("ex1_2_the_child_waits/plain", &late);
        assert!(matches!(verdict, Verdict::Failed(found) if found.text.contains("the test ends")));
    }
}
