//! `final ps`

use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::Result;
use clap::Args;
use step01_namespaces::printable;

use crate::network::ports::shown;
use crate::store::{Container, Store};

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
    rows.extend(containers.iter().rev().map(row));
    super::print(&super::table(&rows))
}

fn row(container: &Container) -> [String; 7] {
    let state = &container.state;
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |now| now.as_secs());
    let age = since(now.saturating_sub(state.created));
    let command: String = state.command.join(" ").chars().take(20).collect();
    let status = match state.exited {
        Some(status) => format!("Exited ({status})"),
        None if state.process.is_some() => format!("Up {age}"),
        None => "Created".to_owned(),
    };
    [
        state.short_id().to_owned(),
        printable(&state.image),
        format!("{command:?}"),
        format!("{age} ago"),
        status,
        shown(&state.ports),
        state.name.clone(),
    ]
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
