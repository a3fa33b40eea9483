//! Step 2: a program in new namespaces and in a cgroup of its own.
//!
//! `cargo run -p step02-cgroups -- --memory 64M --cpus 0.5 /bin/sh`

use std::process::ExitCode;

use anyhow::Result;
use clap::Parser;
use step01_namespaces::{Child, Program, Signals};
use step02_cgroups::Cgroup;

/// Run a program in new namespaces, with limits
#[derive(Parser)]
#[command(version)]
struct Cli {
    #[command(flatten)]
    namespaces: step01_namespaces::Args,
    #[command(flatten)]
    limits: step02_cgroups::Args,
    #[command(flatten)]
    program: Program,
}

fn main() -> ExitCode {
    step01_namespaces::exit(run(&step01_namespaces::parse()))
}

fn run(cli: &Cli) -> Result<u8> {
    let signals = Signals::block()?;
    let namespaces = cli.namespaces.namespaces()?;
    let cgroup = Cgroup::create(&std::process::id().to_string(), &cli.limits.limits())?;

    // The child's side: in the new namespaces, once the parent has said Go.
    let mut child = Child::spawn(namespaces, cgroup.fd(), || {
        cgroup.join()?;
        namespaces.set_up(&cli.namespaces.hostname)?;
        Ok(cli.program.command())
    })?;

    // The parent's side: on the host, while the child waits.
    child.map_ids()?;
    child.go()?;
    let status = child.wait(&signals)?;
    cgroup.report();
    Ok(status)
}
