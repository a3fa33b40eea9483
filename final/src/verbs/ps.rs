//! `final ps`

use anyhow::Result;
use clap::Args;
use step01_namespaces::printable;

use super::pause::is_paused;
use crate::network::ports::shown;
use crate::store::{Container, Store, now};

/// `ps [-a] [-q]`
#[derive(Args, Debug, Clone)]
pub struct PsArgs {
    /// Also containers that have ended
    #[arg(long, short)]
    pub all: bool,

    /// Only the ids
    #[arg(long, short)]
    pub quiet: bool,
}

/// Lists the containers, newest first, in docker's columns.
pub fn run(args: &PsArgs) -> Result<u8> {
    list(args).map(|()| 0).map_err(|error| super::failed(&error))
}

fn list(args: &PsArgs) -> Result<()> {
    let store = Store::open()?;
    super::gc::sweep_if_needed(&store)?;
    let mut containers = Vec::new();
    for container in store.list()? {
        if args.all || container.is_alive()? {
            containers.push(container);
        }
    }
    if args.quiet {
        let ids = containers.iter().rev().flat_map(|container| [container.state.short_id(), "\n"]);
        return super::print(&ids.collect::<String>());
    }
    let titles = ["CONTAINER ID", "IMAGE", "COMMAND", "CREATED", "STATUS", "PORTS", "NAMES"];
    let mut rows = vec![titles.map(str::to_owned)];
    for container in containers.iter().rev() {
        rows.push(row(container)?);
    }
    super::print(&super::table(&rows))
}

fn row(container: &Container) -> Result<[String; 7]> {
    let state = &container.state;
    let command: String = state.command.join(" ").chars().take(20).collect();
    Ok([
        state.short_id().to_owned(),
        printable(&state.image),
        format!("{command:?}"),
        format!("{} ago", ago(state.created)),
        status(container)?,
        shown(&state.ports),
        state.name.clone(),
    ])
}

/// What it does, and since when, in docker's words.
fn status(container: &Container) -> Result<String> {
    let state = &container.state;
    let ended = || state.finished.map_or_else(String::new, |end| format!(" {} ago", ago(end)));
    Ok(match (container.is_alive()?, state.process, state.exited) {
        (true, Some(_), _) => {
            let paused = if is_paused(container).unwrap_or(false) { " (Paused)" } else { "" };
            format!("Up {}{paused}", ago(state.started.unwrap_or(state.created)))
        }
        (true, None, Some(status)) => format!("Restarting ({status}){}", ended()),
        (false, _, Some(status)) => format!("Exited ({status}){}", ended()),
        _ => "Created".to_owned(),
    })
}

/// The time from then (nanoseconds since 1970) to now, in docker's words.
fn ago(then: u64) -> String {
    since(now().saturating_sub(then) / 1_000_000_000)
}

/// A time span in docker's words.
pub(super) fn since(seconds: u64) -> String {
    let count =
        |number, unit: &str| format!("{number} {unit}{}", if number == 1 { "" } else { "s" });
    match seconds {
        0 => "Less than a second".to_owned(),
        1..60 => count(seconds, "second"),
        60..3600 => count(seconds / 60, "minute"),
        3600..172_800 => count(seconds / 3600, "hour"),
        _ => count(seconds / 86_400, "day"),
    }
}
