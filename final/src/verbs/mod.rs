//! What each verb does.

pub mod exec;
pub mod gc;
pub mod kill;
pub mod ps;
pub mod rm;
pub mod run;

use std::io::{ErrorKind, Write as _, stdout};

use anyhow::{Context as _, Error, Result};
use step01_namespaces::Failure;

/// docker's exit status for an error of a verb that runs nothing.
fn failed(error: &Error) -> Error {
    Failure { status: 1, text: format!("{error:#}") }.into()
}

/// Prints a verb's answer. Who reads it may go away in the middle (`final ps | head -1`), and that
/// is no error; a full disk is one.
fn print(text: &str) -> Result<()> {
    match stdout().write_all(text.as_bytes()) {
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(()),
        result => result.context("cannot write to the standard output"),
    }
}
