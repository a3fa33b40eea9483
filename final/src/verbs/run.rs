//! `final run`

use anyhow::Result;
use clap::Args;
use step01_namespaces::Signals;

use super::create::Plan;
use super::pull;
use crate::cli::RunArgs;
use crate::client::{self, Wanted};
use crate::monitor;

/// `run [OPTIONS] [IMAGE [COMMAND...]]`
#[derive(Args, Debug, Clone)]
#[command(override_usage = "final run [OPTIONS] [IMAGE [COMMAND...]]")]
pub struct RunVerb {
    /// Leave it running, and print its id
    #[arg(long, short)]
    pub detach: bool,

    /// The container.
    #[command(flatten)]
    pub container: RunArgs,
}

/// Makes a container, starts it, and stays with it to its end; returns its exit status.
// ANCHOR: run
pub fn run(args: &RunVerb) -> Result<u8> {
    super::begin_start()?;
    pull::if_needed(&args.container)?; // a Ctrl-C may still end us
    let signals = Signals::block()?;
    // All of it is checked before anything is made.
    let mut plan = Plan::new(&args.container, !args.detach)?;
    plan.state.input_ends = !args.detach;
    let cidfile = plan.note_id(args.container.life.cidfile.as_deref())?;
    let (id, stdio) = (plan.state.id.clone(), plan.stdio);

    let wanted = Wanted { input: stdio.interactive, terminal: stdio.tty, signals: true };
    let attach = (!args.detach).then_some(wanted);
    let connection = monitor::start(attach, || plan.make_ready())?;
    monitor::wait_until_started(&connection)?;
    cidfile.keep();
    match attach {
        Some(wanted) => client::attach(&connection, wanted, &signals),
        None => super::print(&format!("{id}\n")).map(|()| 0),
    }
}
// ANCHOR_END: run
