//! What each verb does.

pub mod attach;
pub mod completion;
pub mod cp;
pub mod create;
pub mod diff;
pub mod exec;
pub mod gc;
pub mod images;
pub mod import;
pub mod info;
pub mod inspect;
pub mod kill;
pub mod load;
pub mod logs;
pub mod network;
pub mod pause;
pub mod port;
pub mod prune;
pub mod ps;
pub mod pull;
pub mod restart;
pub mod rm;
pub mod rmi;
pub mod run;
pub mod save;
mod size;
pub mod start;
pub mod stats;
pub mod stop;
pub mod tag;
pub mod top;
pub mod version;
pub mod wait;

use std::io::{self, ErrorKind, Write as _, stdin, stdout};
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, Error, Result};
use step01_namespaces::{Failure, tell};

use crate::monitor::close_foreign_files;
use crate::security::protect_own_program;
use crate::store::{Container, Store};

/// docker's exit status for an error of a verb that runs nothing.
fn failed(error: &Error) -> Error {
    Failure { status: 1, text: format!("{error:#}") }.into()
}

/// How a verb ends that runs nothing, and either does all that it is to do or fails.
pub fn plain(done: Result<()>) -> Result<u8> {
    done.map(|()| 0).map_err(|error| failed(&error))
}

/// Prints a verb's answer. Who reads it may go away in the middle (`final ps | head -1`), and that
/// is no error; a full disk is one.
fn print(text: &str) -> Result<()> {
    written(stdout().write_all(text.as_bytes()))
}

fn written(result: io::Result<()>) -> Result<()> {
    match result {
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(()),
        result => result.context("cannot write to the standard output"),
    }
}

/// All that went wrong, as one error, if anything did.
fn all_of(problems: &[Error]) -> Result<()> {
    let said: Vec<_> = problems.iter().map(|problem| format!("{problem:#}")).collect();
    if said.is_empty() { Ok(()) } else { Err(Error::msg(said.join("; "))) }
}

/// Asks whether to remove that.
fn is_confirmed(what: &str) -> Result<bool> {
    write!(stdout(), "This removes {what}. Go on? [y/N] ")
        .and_then(|()| stdout().flush())
        .context("cannot ask")?;
    let mut answer = String::new();
    stdin().read_line(&mut answer).context("cannot read the answer")?;
    Ok(["y", "Y", "yes"].contains(&answer.trim()))
}

/// What was removed, below a title; nothing if nothing was.
fn section(title: &str, lines: &[String]) -> String {
    if lines.is_empty() { String::new() } else { format!("{title}:\n{}\n\n", lines.join("\n")) }
}

/// First of all in a verb that leaves a monitor behind: nobody may change its program, nor may it
/// keep files of our caller open.
fn begin_start() -> Result<()> {
    protect_own_program()?;
    close_foreign_files()
}

/// The store, without what runtimes have left in it that were killed.
fn open() -> Result<Store> {
    let store = Store::open()?;
    gc::sweep_if_needed(&store)?;
    Ok(store)
}

/// Does this with each container, and prints its name as it was given; as docker, it tells of an error
/// and goes on with the next. Returns 1 if there was one.
fn for_each(names: &[String], act: impl Fn(&Store, Container) -> Result<()>) -> Result<u8> {
    let store = open().map_err(|error| failed(&error))?;
    let mut status = 0;
    for name in names {
        match store.find(name).and_then(|container| act(&store, container)) {
            Ok(()) => print(&format!("{name}\n")).map_err(|error| failed(&error))?,
            Err(error) => {
                tell(&error);
                status = 1;
            }
        }
    }
    Ok(status)
}

/// How long ago that is (seconds since 1970), in docker's words.
fn age(then: u64) -> String {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |now| now.as_secs());
    format!("{} ago", ps::since(now.saturating_sub(then)))
}

/// A size as docker writes it: three digits that count, in powers of 1000.
fn size(bytes: u64) -> String {
    scaled(bytes, 1000.0, ["B", "kB", "MB", "GB", "TB"], 3)
}

/// So many digits that count (Go's `%.3g`), in the largest of these units that is not too large.
#[allow(clippy::cast_precision_loss, reason = "it is shown with four digits at most")]
fn scaled(bytes: u64, step: f64, units: [&str; 5], digits: usize) -> String {
    let (mut value, mut unit) = (bytes as f64, 0);
    while value >= step && unit + 1 < units.len() {
        (value, unit) = (value / step, unit + 1);
    }
    let places = digits.saturating_sub(value.trunc().to_string().len());
    let text = format!("{value:.places$}");
    let text = if places == 0 { &text } else { text.trim_end_matches('0').trim_end_matches('.') };
    format!("{text}{}", units[unit])
}

#[cfg(test)]
mod tests {
    #[test]
    fn sizes_have_three_digits() {
        for (bytes, text) in [
            (0, "0B"),
            (999, "999B"),
            (1000, "1kB"),
            (1500, "1.5kB"),
            (12_345, "12.3kB"),
            (123_456_789, "123MB"),
            (9_999_999_999, "10GB"),
            (u64::MAX, "18446744TB"),
        ] {
            assert_eq!(super::size(bytes), text);
        }
    }
}
