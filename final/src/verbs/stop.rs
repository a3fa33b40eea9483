//! `final stop`

use anyhow::{Context as _, Result};
use clap::Args;
use nix::errno::Errno;
use nix::sys::signal::Signal;

use super::kill::parse_signal;
use crate::cli::grace;
use crate::client;
use crate::monitor::Message;
use crate::store::Container;

/// `stop [-s SIGNAL] [-t SECONDS] CONTAINER...`
#[derive(Args, Debug, Clone)]
pub struct StopArgs {
    /// How.
    #[command(flatten)]
    pub how: How,

    /// Names, ids, or beginnings of ids
    #[arg(required = true)]
    pub containers: Vec<String>,
}

/// How containers are to end; what is left out is as the container was made.
#[derive(Args, Debug, Clone)]
#[group(skip)]
pub struct How {
    /// The signal that asks the program to end
    #[arg(long, short, value_name = "SIGNAL", value_parser = parse_signal)]
    pub signal: Option<Signal>,

    /// Seconds after which it is killed; -1: never
    #[arg(long, short, visible_alias = "time", value_name = "SECONDS", allow_hyphen_values = true)]
    #[arg(value_parser = clap::value_parser!(i64).range(-1..=i64::from(i32::MAX)))]
    pub timeout: Option<i64>,
}

/// Asks each container's program to end, and kills it if it does not.
pub fn run(args: &StopArgs) -> Result<u8> {
    super::for_each(&args.containers, |_, container| stop(&container, &args.how))
}

/// Ends a container, and waits until nothing of it is left. One that does not run has ended.
pub(super) fn stop(container: &Container, how: &How) -> Result<()> {
    if !container.is_alive()? {
        return Ok(());
    }
    let state = &container.state;
    let signal = match how.signal {
        Some(signal) => signal,
        None => parse_signal(&state.stop_signal)?,
    };
    let grace = how.timeout.map_or(state.stop_timeout, grace);
    end(container, &Message::Stop(signal, grace))
        .with_context(|| format!("cannot stop {}", state.name))
}

/// Says that to its monitor, and waits for the end.
pub(super) fn end(container: &Container, message: &Message) -> Result<()> {
    let connection = container.connect()?;
    match connection.send(message) {
        Ok(()) | Err(Errno::EPIPE | Errno::ECONNRESET) => {}
        Err(errno) => return Err(errno).context("cannot reach its monitor"),
    }
    match client::wait(&connection) {
        // It was just ending, and had no time for us.
        Err(error) if client::is_closed(&error) && !container.is_stale()? => Ok(()),
        result => result.map(drop),
    }
}
