//! Step 1: a program in new namespaces.
//!
//! `cargo run -p step01-namespaces -- --hostname box /bin/sh`

use std::process::ExitCode;

use anyhow::Result;
use clap::Parser;
use step01_namespaces::{Child, Program, Signals};

/// Run a program in new namespaces
#[derive(Parser)]
#[command(version)]
struct Cli {
    #[command(flatten)]
    namespaces: step01_namespaces::Args,
    #[command(flatten)]
    program: Program,
}

fn main() -> ExitCode {
    step01_namespaces::exit(run(&step01_namespaces::parse()))
}

fn run(cli: &Cli) -> Result<u8> {
    let signals = Signals::block()?;
    let namespaces = cli.namespaces.namespaces()?;

    // The child's side: in the new namespaces, once the parent has said Go.
    let mut child = Child::spawn(namespaces, None, || {
        namespaces.set_up(&cli.namespaces.hostname)?;
        Ok(cli.program.command())
    })?;

    // The parent's side: on the host, while the child waits.
    child.map_ids()?;
    child.go()?;
    child.wait(&signals)
}
