//! The doctor: what on this machine stops which step, why, and how to mend it.
//!
//! | file | what it holds |
//! |---|---|
//! | [`checks`] | the table of all checks |
//! | [`attempt`] | trying something in a child, in namespaces that are gone with it |
//! | `machine`, `user`, `cgroup`, `mounts`, `network`, `firewall` | what the checks do |
//!
//! It changes nothing: what it makes is in namespaces of its own, or is removed at once (a file without
//! a name in /tmp, an empty cgroup). The kernel may load a module, as it would for the steps.

pub mod attempt;
mod cgroup;
pub mod checks;
mod firewall;
mod machine;
mod mounts;
mod network;
mod user;

use std::fmt::Write as _;
use std::io::{ErrorKind, Write as _};

use anyhow::{Context as _, Result};
use colored::{ColoredString, Colorize as _};
use nix::unistd::geteuid;

use attempt::{Refused, Seen};
use checks::CHECKS;

/// One thing that a step needs.
#[derive(Debug)]
pub struct Check {
    /// Stable: error messages name it.
    pub name: &'static str,
    /// Which parts of the workshop.
    pub needed_by: &'static str,
    /// What is tried, in words.
    pub tries: &'static str,
    /// Tries it.
    pub attempt: fn() -> Seen,
    /// Finds out why that failed.
    pub explain: fn(&Refused) -> Finding,
}

/// What a check has found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Finding {
    /// It works; this is what was seen.
    Well(String),
    /// It cannot be seen from here, and why.
    Unseen(String),
    /// It stops nobody, but will surprise.
    Hint(Advice),
    /// What needs it cannot work.
    Stops(Advice),
}

/// Why, and the one thing to do about it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Advice {
    /// The cause.
    pub cause: String,
    /// The fix.
    pub fix: String,
}

/// A [`Finding::Stops`].
fn stops(cause: impl Into<String>, fix: impl Into<String>) -> Finding {
    Finding::Stops(Advice { cause: cause.into(), fix: fix.into() })
}

/// A [`Finding::Hint`].
fn hint(cause: impl Into<String>, fix: impl Into<String>) -> Finding {
    Finding::Hint(Advice { cause: cause.into(), fix: fix.into() })
}

/// What a plain user cannot do without, and root can.
fn stops_plain_users(cause: impl Into<String>, fix: impl Into<String>) -> Finding {
    if geteuid().is_root() { hint(cause, fix) } else { stops(cause, fix) }
}

/// What stops only those who change the network of the machine itself: others do so in a lab.
fn stops_as_root(cause: impl Into<String>, fix: impl Into<String>) -> Finding {
    if geteuid().is_root() { stops(cause, fix) } else { hint(cause, fix) }
}

impl Check {
    /// Does it.
    pub fn run(&self) -> Finding {
        match (self.attempt)() {
            Ok(seen) => Finding::Well(seen),
            Err(refused) if refused.untried => Finding::Unseen(refused.text),
            Err(refused) => (self.explain)(&refused),
        }
    }
}

impl Finding {
    fn word(&self) -> ColoredString {
        match self {
            Self::Well(_) => "ok".green(),
            Self::Unseen(_) => "unseen".yellow(),
            Self::Hint(_) => "hint".yellow(),
            Self::Stops(_) => "stops".red().bold(),
        }
    }

    /// The line of the check `name` in the report.
    fn line(&self, check: &Check) -> String {
        let text = match self {
            Self::Well(seen) | Self::Unseen(seen) => seen.clone(),
            Self::Hint(advice) => format!("{}; fix: {}", advice.cause, advice.fix),
            Self::Stops(advice) => {
                format!("{}: {}; fix: {}", check.needed_by, advice.cause, advice.fix)
            }
        };
        format!("{:6} {:17} {}\n", self.word(), check.name, text.replace('\n', " "))
    }
}

/// `cargo workshop doctor`: the exit status is 1 if something stops a part of the workshop.
pub fn main(name: Option<&str>, list: bool) -> Result<u8> {
    if list {
        print(&CHECKS.iter().fold(String::new(), |mut text, check| {
            let _ = writeln!(text, "{:17} {}", check.name, check.needed_by);
            text
        }))?;
        return Ok(0);
    }
    if let Some(name) = name {
        let check = CHECKS.iter().find(|check| check.name == name).with_context(|| {
            let names: Vec<_> = CHECKS.iter().map(|check| check.name).collect();
            format!("there is no check {name}; these are: {}", names.join(", "))
        })?;
        return detail(check);
    }
    let mut stopped = Vec::new();
    for check in CHECKS {
        let finding = check.run();
        print(&finding.line(check))?;
        if matches!(finding, Finding::Stops(_)) {
            stopped.push(check.name);
        }
    }
    match stopped.first() {
        None => print("Nothing here stops the workshop.\n")?,
        Some(first) => print(&format!(
            "Stopped by: {}. More of one: cargo workshop doctor {first}\n",
            stopped.join(", ")
        ))?,
    }
    Ok(u8::from(!stopped.is_empty()))
}

fn detail(check: &Check) -> Result<u8> {
    let finding = check.run();
    let mut lines = vec![("check", check.name), ("needed by", check.needed_by)];
    lines.push(("tries", check.tries));
    match &finding {
        Finding::Well(seen) | Finding::Unseen(seen) => lines.push(("seen", seen)),
        Finding::Hint(advice) | Finding::Stops(advice) => {
            lines.extend([("cause", advice.cause.as_str()), ("fix", advice.fix.as_str())]);
        }
    }
    let mut text = format!("{:10} {}\n", "result", finding.word());
    for (what, value) in lines {
        let _ = writeln!(text, "{what:10} {value}");
    }
    text += "more       the book's page Troubleshooting\n";
    print(&text)?;
    Ok(u8::from(matches!(finding, Finding::Stops(_))))
}

/// A reader who goes away is no error.
fn print(text: &str) -> Result<()> {
    match std::io::stdout().write_all(text.as_bytes()) {
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(()),
        result => result.context("cannot print the report"),
    }
}
