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
    let (mut unit, mut factor) = ("B", 1);
    for larger in ["kB", "MB", "GB", "TB"] {
        if bytes < factor * 1000 {
            break;
        }
        (unit, factor) = (larger, factor * 1000);
    }
    let whole = bytes / factor;
    let places = if factor == 1 || whole >= 100 {
        0
    } else if whole >= 10 {
        1
    } else {
        2
    };
    let digits = format!("{:03}", bytes % factor * 1000 / factor);
    let point = if places == 0 { "" } else { "." };
    format!("{whole}{point}{}{unit}", &digits[..places])
}

#[cfg(test)]
mod tests {
    #[test]
    fn sizes_have_three_digits() {
        for (bytes, text) in [
            (0, "0B"),
            (999, "999B"),
            (1000, "1.00kB"),
            (12_345, "12.3kB"),
            (123_456_789, "123MB"),
            (9_999_999_999, "9.99GB"),
            (u64::MAX, "18446744TB"),
        ] {
            assert_eq!(super::size(bytes), text);
        }
    }
}
