//! What each verb does.

pub mod exec;
pub mod gc;
pub mod images;
pub mod import;
pub mod kill;
pub mod load;
pub mod network;
pub mod ps;
pub mod pull;
pub mod rm;
pub mod rmi;
pub mod run;
pub mod save;
pub mod tag;

use std::io::{ErrorKind, Write as _, stdout};
use std::time::{SystemTime, UNIX_EPOCH};

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

/// Rows with a title, in docker's columns.
fn table<const COLUMNS: usize>(rows: &[[String; COLUMNS]]) -> String {
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max();
    let widths: [usize; COLUMNS] = std::array::from_fn(|column| width(column).unwrap_or(0));
    let mut table = String::new();
    for row in rows {
        let cells = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:width$}   "));
        table += cells.collect::<String>().trim_end();
        table.push('\n');
    }
    table
}

/// How long ago that is (seconds since 1970), in docker's words.
fn age(then: u64) -> String {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |now| now.as_secs());
    format!("{} ago", ps::since(now.saturating_sub(then)))
}
