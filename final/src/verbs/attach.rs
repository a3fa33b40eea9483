//! `final attach`

use std::io::{IsTerminal as _, stdin};

use anyhow::{Result, anyhow, ensure};
use clap::Args;
use step01_namespaces::Signals;

use crate::bundle::Bundle;
use crate::client::{self, Wanted};
use crate::store::Container;

/// `attach CONTAINER`
#[derive(Args, Debug, Clone)]
pub struct AttachArgs {
    /// Do not pass on our standard input
    #[arg(long)]
    pub no_stdin: bool,

    /// Whether signals that we get are the program's; else they end us, and the program goes on
    #[arg(long, value_name = "BOOL", default_value = "true", num_args = 0..=1)]
    #[arg(default_missing_value = "true", action = clap::ArgAction::Set)]
    pub sig_proxy: bool,

    /// Name, id, or the beginning of an id
    pub container: String,
}

/// Shows what a running container writes from now on, and passes on what is typed, until its end or
/// ctrl-p ctrl-q; returns its exit status.
pub fn run(args: &AttachArgs) -> Result<u8> {
    let signals = Signals::block()?;
    let open = || {
        let store = super::open()?;
        store.find(&args.container)
    };
    let container = open().map_err(|error| super::failed(&error))?;
    attach(&container, !args.no_stdin, args.sig_proxy, &signals)
        .map_err(|error| super::failed(&error))
}

/// The same, for `start` of one that runs already.
pub(super) fn attach(
    container: &Container,
    input: bool,
    proxy: bool,
    signals: &Signals,
) -> Result<u8> {
    let connection = container.connect()?;
    ensure!(!container.is_paused()?, "it is paused: first final unpause");
    let process = Bundle::load(container.bundle())?.process;
    let input = input && process.interactive;
    let wanted = Wanted { input, terminal: process.terminal, signals: proxy };
    check_terminal(wanted)?;
    client::ask(&connection, wanted)?;
    client::attach(&connection, wanted, signals).map_err(|error| {
        // Without a last word, and yet nobody was killed.
        if client::is_closed(&error) && matches!(container.is_stale(), Ok(false)) {
            return anyhow!(
                "the container wrote faster than was read here, and did not wait: {} has all of it",
                format_args!("final logs {}", container.state.name)
            );
        }
        error
    })
}

/// Keys can be passed on only from a terminal.
pub(super) fn check_terminal(wanted: Wanted) -> Result<()> {
    let input_ok = !(wanted.input && wanted.terminal) || stdin().is_terminal();
    ensure!(input_ok, "the input device is not a terminal, and the container's is one");
    Ok(())
}
