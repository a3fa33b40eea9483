//! `final kill`

use anyhow::{Context as _, Result, ensure};
use clap::Args;
use nix::sys::signal::Signal;

use crate::monitor::Message;

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
    super::for_each(&args.containers, |_, container| {
        let name = &container.state.name;
        ensure!(container.is_alive()?, "the container {name} is not running");
        let failed = || format!("cannot send {} to {name}", args.signal);
        let message = Message::Signal(args.signal);
        if args.signal == Signal::SIGKILL {
            super::stop::end(&container, &message).with_context(failed)
        } else {
            container.connect()?.send(&message).with_context(failed)
        }
    })
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
