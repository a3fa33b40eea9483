//! The terminals of somebody who reads the book.

use std::collections::BTreeMap;
use std::process::Command;
use std::sync::LazyLock;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use regex_lite::Regex;

use super::mask;
use super::page::{Prompt, Step};
use crate::lab;
use crate::pty::Terminal;

/// One lab, and the terminals in it.
pub struct Session {
    prompt: Prompt,
    /// What programs that are typed into ask with.
    inner: Vec<String>,
    terminals: BTreeMap<u32, Terminal>,
}

/// Our shells' prompts begin with this, which no terminal shows and no program prints.
const BELL: char = '\x07';
/// For the longest command; in a virtual machine without KVM things take thirty times as long.
const PATIENCE: Duration = Duration::from_secs(60);
/// How long something in the background may take to show what the page shows for it.
const FOR_EXPECTED: Duration = Duration::from_secs(10);
/// How long we look whether something in the background shows anything.
const FOR_NOTHING: Duration = Duration::from_secs(1);

/// In a lab there is no network to fetch crates from, and the plain user that root becomes has no
/// ~/.cargo. So here `cargo run -p PROGRAM -- WORDS` runs the PROGRAM that is built.
const CARGO: &str = r#"cargo() { case "$*" in workshop*) "$@" ;; run*-p*--*) local program; while [ "$1" != -- ]; do [ "$1" = -p ] && program=$2; shift; done; shift; "$program" "$@" ;; *) echo "cargo $*: not in a lab" >&2; return 101 ;; esac; }"#;

impl Session {
    /// Whoever types behind `prompt` sits down.
    pub fn open(prompt: Prompt, inner: Vec<String>) -> Self {
        Self { prompt, inner, terminals: BTreeMap::new() }
    }

    /// Types, and returns the lines that are shown then. It is over at the next prompt; but what
    /// runs on is given time until it has shown what is `expected`.
    pub fn step(
        &mut self,
        terminal: u32,
        step: &Step,
        runs_on: bool,
        expected: &[String],
    ) -> Result<Vec<String>> {
        if !self.terminals.contains_key(&terminal) {
            let opened = self.open_terminal(terminal)?;
            self.terminals.insert(terminal, opened);
        }
        let (ours, inner) = (format!("{BELL}{}", self.prompt.text()), &self.inner);
        let terminal = self.terminals.get_mut(&terminal).expect("just opened");
        let at_prompt = |seen: &str| {
            let seen = plain(seen);
            let last = seen.rsplit('\n').next().unwrap_or_default();
            seen.contains(&ours) || inner.iter().any(|prompt| prompt == last)
        };
        if let Some(keys) = step.keys() {
            terminal.type_in(&keys);
        }
        let mut text = String::new();
        if step.typed.is_some() && !runs_on {
            let came = terminal.wait(PATIENCE, |seen| at_prompt(seen).then_some(seen.len()));
            let Some(came) = came else {
                let so_far = terminal.wait(Duration::ZERO, |seen| Some(seen.len()));
                bail!("no prompt came back; shown so far: {:?}", so_far.unwrap_or_default());
            };
            text = came;
        }
        let in_background = step.typed.as_ref().is_none_or(|typed| typed.ends_with('&'));
        if runs_on || in_background {
            let patience = if expected.is_empty() { FOR_NOTHING } else { FOR_EXPECTED };
            let start = Instant::now();
            let as_expected = |text: &str| {
                !expected.is_empty() && mask::same(expected, &lines(text, step, &ours, inner))
            };
            // What runs on may show its last line before it is ready for a Ctrl-C.
            let least = if runs_on { FOR_NOTHING } else { Duration::ZERO };
            while start.elapsed() < patience && !(start.elapsed() >= least && as_expected(&text)) {
                let some = |seen: &str| (!seen.is_empty()).then_some(seen.len());
                text += &terminal.wait(FOR_NOTHING, some).unwrap_or_default();
            }
        }
        Ok(lines(&text, step, &ours, inner))
    }

    fn open_terminal(&self, number: u32) -> Result<Terminal> {
        let workshop = std::env::current_exe().context("cannot find our own program")?;
        let mut command = Command::new("bash");
        if self.prompt != Prompt::Machine {
            command = Command::new(&workshop);
            command.arg("lab");
            if number > 1 {
                let first = self.terminals.get(&1).context("terminal 1 has to be used first")?;
                command.arg(format!("--join={}", first.child.id()));
            }
            if self.prompt == Prompt::User {
                command.arg("--plain");
            }
            command.args(["--", "bash"]);
        }
        command.args(["--norc", "--noediting", "-i"]);
        let system = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
        command
            .current_dir(super::workspace())
            .env_clear()
            .env("PATH", lab::path_before(system.as_ref())?)
            .env("TERM", "dumb")
            .env("HOME", "/tmp");
        command.env("LC_ALL", "C.UTF-8").env("SHELL", "/bin/bash");
        let mut terminal = Terminal::start(command);
        terminal.resize(24, 100); // as wide as the book's lines
        let prompt = self.prompt.text();
        terminal.type_in(&format!("{CARGO}; unset HISTFILE; PS1='\\a{prompt}' PS2=\n"));
        let ready = format!("{BELL}{prompt}");
        let came = terminal.wait(PATIENCE, |seen| seen.find(&ready).map(|at| at + ready.len()));
        came.context("no lab opened: does `cargo workshop lab` work?")?;
        Ok(terminal)
    }
}

impl Drop for Session {
    /// Ends what was left running, and the lab with it.
    fn drop(&mut self) {
        for (number, terminal) in &mut self.terminals {
            if *number == 1 {
                // A container of root's has a cgroup, which is the machine's: `final gc` removes it.
                terminal.type_in("\x03\nkill -KILL $(jobs -p); wait; final gc; exec true\n");
                let start = Instant::now();
                while matches!(terminal.child.try_wait(), Ok(None)) && start.elapsed() < PATIENCE {
                    std::thread::sleep(Duration::from_millis(10));
                }
            }
            let _ = terminal.child.kill();
            let _ = terminal.child.wait();
        }
    }
}

/// With the tabs between columns as a terminal shows them: other tab stops would tear those apart.
fn without_tabs(line: &str) -> String {
    let columns = line.trim_start_matches('\t');
    let mut text = String::new();
    for character in columns.chars() {
        match character {
            '\t' => text += &" ".repeat(8 - text.chars().count() % 8),
            other => text.push(other),
        }
    }
    line[..line.len() - columns.len()].to_owned() + &text
}

/// The text without what controls a terminal.
fn plain(text: &str) -> String {
    static CONTROL: LazyLock<Regex> =
        LazyLock::new(|| Regex::new(r"\x1b\[[0-9;?]*[A-Za-z]|\r").expect("a pattern"));
    CONTROL.replace_all(text, "").into_owned()
}

/// The lines of output: without the echo of what was typed, without prompts.
fn lines(text: &str, step: &Step, ours: &str, inner: &[String]) -> Vec<String> {
    let mut text = plain(text).replace(ours, "");
    if let Some(typed) = &step.typed {
        if let Some(echo) = text.find(typed) {
            text.replace_range(echo..echo + typed.len(), "");
        }
        text = text.strip_prefix('\n').unwrap_or(&text).to_owned();
    }
    let mut lines: Vec<_> = text.lines().map(|line| without_tabs(line.trim_end())).collect();
    if lines.last().is_some_and(|last| inner.iter().any(|prompt| prompt.trim_end() == last)) {
        lines.pop();
    }
    lines.retain(|line| !mask::not_shown(line));
    while lines.last().is_some_and(String::is_empty) {
        lines.pop();
    }
    lines
}
