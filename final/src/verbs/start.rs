//! `final start`

use anyhow::{Result, ensure};
use clap::Args;
use step01_namespaces::Signals;

use crate::bundle::Bundle;
use crate::client::{self, Wanted};
use crate::monitor::{self, Connection};
use crate::network::Claim;
use crate::store::{Container, Store};

/// `start [-a] [-i] CONTAINER...`
#[derive(Args, Debug, Clone)]
pub struct StartArgs {
    /// Show what it writes, pass on signals, and return its exit status
    #[arg(long, short)]
    pub attach: bool,

    /// The same, and pass on our standard input
    #[arg(long, short)]
    pub interactive: bool,

    /// Names, ids, or beginnings of ids
    #[arg(required = true)]
    pub containers: Vec<String>,
}

/// Starts containers that were made, or have ended.
pub fn run(args: &StartArgs) -> Result<u8> {
    super::begin_start()?;
    if !(args.attach || args.interactive) {
        return super::for_each(&args.containers, |store, container| start(store, &container));
    }
    let signals = Signals::block()?;
    let attach = || {
        let [name] = &args.containers[..] else {
            anyhow::bail!("one can be attached to one container at a time");
        };
        let store = super::open()?;
        let container = store.find(name)?;
        if container.is_alive()? {
            return super::attach::attach(&container, args.interactive, true, &signals);
        }
        let bundle = Bundle::load(container.bundle())?;
        let wanted = Wanted {
            input: args.interactive && bundle.process.interactive,
            terminal: bundle.process.terminal,
            signals: true,
        };
        super::attach::check_terminal(wanted)?;
        let connection = launch(&store, &container, bundle, Some(wanted))?;
        monitor::wait_until_started(&connection)?;
        client::attach(&connection, wanted, &signals)
    };
    attach()
}

/// Starts a container, if it does not run.
pub(super) fn start(store: &Store, container: &Container) -> Result<()> {
    if container.is_alive()? {
        return Ok(());
    }
    let bundle = Bundle::load(container.bundle())?;
    let connection = launch(store, container, bundle, None)?;
    match monitor::wait_until_started(&connection) {
        // Somebody else was faster.
        Err(_) if store.find(&container.state.id)?.is_alive()? => Ok(()),
        result => result,
    }
}

fn launch(
    store: &Store,
    container: &Container,
    bundle: Bundle,
    attach: Option<Wanted>,
) -> Result<Connection> {
    let id = &container.state.id;
    ensure!(id.len() == 64, "not an id: {id}");
    monitor::start(attach, || {
        let claim = Claim::take(bundle.network.as_ref(), store)?;
        Ok((store.take(id)?, bundle, claim))
    })
}
