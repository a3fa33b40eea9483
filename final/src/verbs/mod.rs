//! What each verb does.

pub mod attach;
pub mod completion;
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

use std::io::{self, ErrorKind, Write as _, stdout};
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

/// First of all in a verb that leaves a monitor behind: nobody may change its program, nor may it
/// keep files of our caller open.
fn begin_start() -> Result<()> {
    protect_own_program()?;
    close_foreign_files()
}

/// Does this with each container, and prints its name as it was given; as docker, it tells of an error
/// and goes on with the next. Returns 1 if there was one.
fn for_each(names: &[String], act: impl Fn(&Store, Container) -> Result<()>) -> Result<u8> {
    let open = || Store::open().and_then(|store| gc::sweep_if_needed(&store).map(|()| store));
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
