//! Errors that carry an exit status, and the one place that prints them.

use std::fmt;
use std::io::{ErrorKind, Write as _, stderr};
use std::process::ExitCode;

use anyhow::Result;
use colored::{ColoredString, Colorize as _};

use crate::caller;

/// An error with docker's exit status for it: 125 the engine's own, 126 the program cannot be
/// executed, 127 the program was not found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// The exit status that the error ends in.
    pub status: u8,
    /// The whole chain of context, ready to be printed.
    pub text: String,
}

impl Failure {
    /// The status of everything that is not the program's fault.
    pub const ENGINE: u8 = 125;

    /// The failure of an exec of `program`.
    pub(crate) fn of_exec(program: &str, error: &std::io::Error) -> Self {
        let (status, cause) = match error.kind() {
            ErrorKind::NotFound => (127, "no such file in the container (nor on its PATH)".into()),
            _ => (126, error.to_string()),
        };
        let program = if program.is_empty() { "an empty name" } else { program };
        Self { status, text: format!("cannot execute {program}: {cause}") }
    }
}

impl From<anyhow::Error> for Failure {
    fn from(error: anyhow::Error) -> Self {
        error
            .downcast()
            .unwrap_or_else(|error| Self { status: Self::ENGINE, text: format!("{error:#}") })
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl std::error::Error for Failure {}

/// The last line of an error that a check of the workshop's doctor says more about; it goes to the end
/// of the innermost text, so that it stays the last.
#[must_use]
pub fn see(check: &str) -> String {
    format!("{SEE}{check}")
}

const SEE: &str = "\nsee: cargo workshop doctor ";

/// Begins `main`: forgets what the caller passed on by accident, and reads the command line. What it
/// cannot read is an engine's error (125), where clap alone would say 2, which a container's program
/// may well mean by itself.
#[must_use]
pub fn parse<C: clap::Parser>() -> C {
    caller::forget();
    C::try_parse().unwrap_or_else(|error| {
        if !error.use_stderr() {
            let _ = error.print(); // --help and --version
            std::process::exit(0);
        }
        let text = error.render().to_string();
        let text = text.trim_start_matches("error: ").trim_end();
        // clap's own lines stay lines, unless one of them could be an argument's.
        let hostile = |word: std::ffi::OsString| word.to_string_lossy().contains(char::is_control);
        let lines =
            if std::env::args_os().any(hostile) { vec![text] } else { text.lines().collect() };
        let lines: Vec<_> = lines.into_iter().map(printable).collect();
        print("error:".red().bold(), &lines.join("\n"));
        std::process::exit(Failure::ENGINE.into())
    })
}

/// Ends `main`: prints the error, once, and turns the result into an exit status.
#[must_use]
pub fn exit(result: Result<u8>) -> ExitCode {
    let status = result.unwrap_or_else(|error| {
        tell(&error);
        error.downcast_ref::<Failure>().map_or(Failure::ENGINE, |f| f.status)
    });
    ExitCode::from(status)
}

/// Prints an error with all its context, where it is not the last thing that is done.
pub fn tell(error: &anyhow::Error) {
    say("error:".red().bold(), &format!("{error:#}"));
}

/// A line for the user on the standard error, with a label such as `killed:` before it.
pub fn say(label: ColoredString, text: &str) {
    // Of all line breaks only that one is surely ours.
    let (text, see) = text.split_at(text.rfind(SEE).unwrap_or(text.len()));
    let see =
        see.strip_prefix('\n').map_or_else(String::new, |see| format!("\n{}", printable(see)));
    print(label, &(printable(text) + &see));
}

/// What went wrong, where the work has to go on: a guard's `Drop` cannot return an error.
pub fn warn(text: &str) {
    say("warning:".yellow().bold(), text);
}

/// eprintln! panics if nobody can take the line (a closed pipe, a full disk). That would be the end
/// of all undoing, and a wrong exit status.
#[allow(clippy::needless_pass_by_value, reason = "labels are made where they are printed")]
fn print(label: ColoredString, text: &str) {
    let _ = stderr().write_all(format!("{label} {text}\n").as_bytes());
}

/// Longest word that is shown in full, in characters.
const LONGEST_WORD: usize = 300;

/// Text that may hold anything, such as the name of a file, so that it cannot command the terminal
/// (move the cursor, forge a line) nor flood it.
#[must_use]
pub fn printable(text: &str) -> String {
    let mut shown = String::new();
    let mut word = 0;
    for character in text.chars() {
        word = if character == ' ' { 0 } else { word + 1 };
        match word {
            0..=LONGEST_WORD if character.is_control() => shown.extend(character.escape_default()),
            0..=LONGEST_WORD => shown.push(character),
            _ if word == LONGEST_WORD + 1 => shown.push('\u{2026}'),
            _ => {}
        }
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::printable;

    #[test]
    fn text_cannot_command_the_terminal() {
        assert_eq!(printable("a \x1b[2J\r\nb\u{9b}c"), r"a \u{1b}[2J\r\nb\u{9b}c");
        assert_eq!(printable("/stra\u{df}e/\u{6771}"), "/stra\u{df}e/\u{6771}");
    }

    #[test]
    fn text_cannot_flood_the_terminal() {
        let shown = printable(&format!("cannot use {}: why", "x".repeat(5000)));
        assert!(shown.len() < 350 && shown.ends_with("x\u{2026} why"), "{shown}");
    }
}
