//! The learner's tool: `cargo workshop VERB`.

use std::ffi::OsString;
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::{Command, ExitCode};

use anyhow::Result;
use clap::{Parser, Subcommand};

use crate::lab::{self, Who};
use crate::{book, doctor, drill, exercises, matrix, probe};

/// The workshop's tool
#[derive(Parser)]
#[command(name = "cargo workshop", bin_name = "cargo workshop", version)]
struct Cli {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    #[command(flatten)]
    Exercises(exercises::verbs::Verb),
    /// Open a shell in a lab: a throw-away host with an internet beside it
    Lab {
        /// Stay a plain user in the lab (uid 1000 if you are root now)
        #[arg(long)]
        plain: bool,

        /// Open a second shell in your lab; if there are several, PID says in which
        #[arg(long, value_name = "PID", num_args = 0..=1, require_equals = true)]
        #[arg(default_missing_value = "0")]
        join: Option<i32>,

        /// The program to run there, with its arguments; without one, a shell
        #[arg(trailing_var_arg = true)]
        command: Vec<OsString>,
    },

    /// Say what on this machine stops which step, why, and how to mend it; changes nothing
    ///
    /// Most checks try the thing itself, in a child and in namespaces that are gone with it. The
    /// kernel may load modules for that, as it would for the steps.
    Doctor {
        /// Only this check, in detail
        #[arg(value_name = "CHECK", conflicts_with = "list")]
        name: Option<String>,

        /// List the checks
        #[arg(long)]
        list: bool,
    },

    /// Type what the book's pages show into labs, and compare
    Book(book::Args),

    /// Open a lab in which one thing is broken: find it, repair it, check it
    Break(drill::Args),

    /// Run all tests, on this kernel and on Debian's, as root and as a plain user
    Matrix,

    /// Run one cell of that, in the machine that it is about
    #[command(hide = true)]
    Cell {
        /// Leave out what takes too long in a machine without KVM
        #[arg(long)]
        emulated: bool,

        /// Whom it is about
        user: matrix::User,

        /// The test programs
        suites: Vec<PathBuf>,
    },
}

/// The `main` of the program.
#[must_use]
pub fn main() -> ExitCode {
    if let Some(status) = probe::main() {
        return status;
    }
    let result = match Cli::parse().verb {
        Verb::Lab { plain, join, command } => open_lab(plain, join, command),
        Verb::Exercises(verb) => exercises::verbs::run(verb),
        Verb::Doctor { name, list } => doctor::main(name.as_deref(), list),
        Verb::Book(args) => book::main(&args),
        Verb::Break(args) => drill::main(&args),
        Verb::Matrix => matrix::run().map(|well| u8::from(!well)),
        Verb::Cell { emulated, user, suites } => {
            matrix::cell(user, emulated, &suites).map(|well| u8::from(!well))
        }
    };
    match result {
        Ok(status) => ExitCode::from(status),
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::from(125)
        }
    }
}

fn open_lab(plain: bool, join: Option<i32>, mut words: Vec<OsString>) -> Result<u8> {
    let who = if plain { Who::Plain } else { Who::of_caller() };
    let shell = words.is_empty();
    if shell {
        words.push(std::env::var_os("SHELL").unwrap_or_else(|| "/bin/sh".into()));
    }
    let path = std::env::var_os("PATH").unwrap_or_else(|| "/usr/bin:/bin".into());
    let path = lab::path_before(&path)?;
    let inside = move || {
        if shell {
            lab::greet();
            lab::lead_terminal();
        }
        let error = Command::new(&words[0]).args(&words[1..]).env("PATH", path).exec();
        eprintln!("error: cannot execute {}: {error}", words[0].display());
        if error.kind() == std::io::ErrorKind::NotFound { 127 } else { 126 }
    };
    let status = match join {
        Some(pid) => lab::join(pid, who, inside)?,
        None => lab::run(who, false, inside)?,
    };
    if shell {
        lab::take_terminal();
    }
    Ok(u8::try_from(lab::exit_status(status)).unwrap_or(125))
}
