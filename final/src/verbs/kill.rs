//! `final kill`

use std::os::fd::AsFd as _;

use anyhow::{Context as _, Result};
use clap::Args;
use nix::sys::signal::Signal;
use step01_namespaces::pidfd_send_signal;

use crate::store::{Container, Store};

/// `kill [-s SIGNAL] CONTAINER...`
#[derive(Args, Debug, Clone)]
pub struct KillArgs {
    /// The signal, by name or number
    #[arg(long, short, default_value = "KILL", value_parser = parse_signal)]
    pub signal: Signal,

    /// Names, ids, or beginnings of ids
    #[arg(required = true)]
    pub containers: Vec<String>,
}

/// Sends the signal to each container's first process; docker's `kill` prints what it reached, and
/// waits for the end if the signal leaves no choice.
pub fn run(args: &KillArgs) -> Result<u8> {
    let send = || -> Result<()> {
        let store = Store::open()?;
        for name in &args.containers {
            let container = store.find(name)?;
            signal(&container, args.signal)?;
            if args.signal == Signal::SIGKILL {
                container.wait_until_ended()?;
            }
            super::print(&format!("{name}\n"))?;
        }
        Ok(())
    };
    send().map(|()| 0).map_err(|error| super::failed(&error))
}

/// Sends `signal` to the container's first process.
pub(crate) fn signal(container: &Container, signal: Signal) -> Result<()> {
    let (_, pidfd) = container.first_process()?;
    pidfd_send_signal(pidfd.as_fd(), signal)
        .with_context(|| format!("cannot send {signal} to {}", container.state.name))
}

/// Reads `TERM`, `SIGTERM` or `15`.
pub fn parse_signal(text: &str) -> Result<Signal> {
    let name = text.to_ascii_uppercase();
    let name = if name.starts_with("SIG") { name } else { format!("SIG{name}") };
    name.parse()
        .ok()
        .or_else(|| Signal::try_from(text.parse::<i32>().ok()?).ok())
        .with_context(|| format!("no such signal: {text}"))
}
