//! The learner's tool: `cargo workshop lab`, and the tests': `cargo workshop matrix`.

use std::ffi::OsString;
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::path::PathBuf;
use std::process::{Command, ExitCode};

use anyhow::Result;
use clap::{Parser, Subcommand};
use workshop::lab::{self, Who};
use workshop::matrix;

/// The workshop's tool
#[derive(Parser)]
#[command(name = "cargo workshop", bin_name = "cargo workshop", version)]
struct Cli {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Open a shell in a lab: a throw-away host with an internet beside it
    Lab {
        /// Stay a plain user in the lab (uid 1000 if you are root now)
        #[arg(long)]
        plain: bool,

        /// The program to run there, with its arguments; without one, a shell
        #[arg(trailing_var_arg = true)]
        command: Vec<OsString>,
    },

    /// Run all tests, on this kernel and on Debian's, as root and as a plain user
    Matrix,

    /// Run one cell of that, in the machine that it is about
    #[command(hide = true)]
    Cell {
        /// Whom it is about
        user: matrix::User,

        /// The test programs
        suites: Vec<PathBuf>,
    },
}

fn main() -> ExitCode {
    if let Some(status) = workshop::probe::main() {
        return status;
    }
    let ended = match Cli::parse().verb {
        Verb::Lab { plain, command } => open_lab(plain, command),
        Verb::Matrix => matrix::run().map(|well| u8::from(!well)),
        Verb::Cell { user, suites } => matrix::cell(user, &suites).map(|well| u8::from(!well)),
    };
    match ended {
        Ok(status) => ExitCode::from(status),
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::from(125)
        }
    }
}

fn open_lab(plain: bool, mut words: Vec<OsString>) -> Result<u8> {
    let who = if plain { Who::Plain } else { Who::of_caller() };
    let shell = words.is_empty();
    if shell {
        words.push(std::env::var_os("SHELL").unwrap_or_else(|| "/bin/sh".into()));
    }
    let status = lab::run(who, false, move || {
        if shell {
            lab::greet();
        }
        let error = Command::new(&words[0]).args(&words[1..]).exec();
        eprintln!("error: cannot execute {}: {error}", words[0].display());
        if error.kind() == std::io::ErrorKind::NotFound { 127 } else { 126 }
    })?;
    let status = status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or(0));
    Ok(u8::try_from(status).unwrap_or(125))
}
