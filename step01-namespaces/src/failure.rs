//! Errors that carry an exit status, and the one place that prints them.

use std::fmt;
use std::io::ErrorKind;
use std::process::ExitCode;

use anyhow::Result;
use colored::Colorize as _;

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
    format!("\nsee: cargo workshop doctor {check}")
}

/// Begins `main`: reads the command line. What it cannot read is an engine's error (125), where
/// clap alone would say 2, which a container's program may well mean by itself.
#[must_use]
pub fn parse<C: clap::Parser>() -> C {
    C::try_parse().unwrap_or_else(|error| {
        let _ = error.print();
        std::process::exit(if error.use_stderr() { Failure::ENGINE.into() } else { 0 })
    })
}

/// Ends `main`: prints the error, once, and turns the result into an exit status.
#[must_use]
pub fn exit(result: Result<u8>) -> ExitCode {
    let status = result.unwrap_or_else(|error| {
        let status = error.downcast_ref::<Failure>().map_or(Failure::ENGINE, |f| f.status);
        eprintln!("{} {error:#}", "error:".red().bold());
        status
    });
    ExitCode::from(status)
}
