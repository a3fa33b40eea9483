//! Step 4: a container with a cable to a bridge.
//!
//! `cargo run -p step04-bridge-veth -- /bin/sh`

use std::process::ExitCode;

use anyhow::Result;
use clap::Parser;
use step01_namespaces::{Child, Program, Signals};
use step02_cgroups::Cgroup;
use step04_bridge_veth::Network;

/// Run a program in a container that is plugged into a bridge
#[derive(Parser)]
#[command(version)]
struct Cli {
    #[command(flatten)]
    namespaces: step01_namespaces::Args,
    #[command(flatten)]
    limits: step02_cgroups::Args,
    #[command(flatten)]
    rootfs: step03_rootfs::Args,
    #[command(flatten)]
    network: step04_bridge_veth::Args,
    #[command(flatten)]
    program: Program,
}

fn main() -> ExitCode {
    step01_namespaces::exit(run(&step01_namespaces::parse()))
}

fn run(cli: &Cli) -> Result<u8> {
    let signals = Signals::block()?;
    let namespaces = cli.namespaces.namespaces()?;
    let rootfs = cli.rootfs.rootfs(namespaces)?;
    let cgroup = Cgroup::create(&std::process::id().to_string(), &cli.limits.limits())?;
    let network = Network::join(&cli.network, namespaces)?;

    // The child's side: in the new namespaces, once the parent has said Go.
    let mut child = Child::spawn(namespaces, cgroup.fd(), || {
        cgroup.join()?;
        namespaces.set_up(&cli.namespaces.hostname)?;
        network.configure()?;
        rootfs.enter()?;
        Ok(cli.program.command())
    })?;

    // The parent's side: on the host, while the child waits.
    child.map_ids()?;
    network.plug(child.pid())?;
    child.go()?;
    let status = child.wait(&signals)?;
    cgroup.report();
    Ok(status)
}
