//! `final ps`

mod filter;

use std::time::{Duration, UNIX_EPOCH};

use anyhow::Result;
use clap::Args;
use humantime::format_rfc3339_seconds;
use serde_json::{Value, json};
use step01_namespaces::warn;

use crate::bundle::{Annotation, Bundle};
use crate::format::Format;
use crate::mounts;
use crate::network::ports::shown;
use crate::status::Status;
use crate::store::{Container, now};
use crate::verbs::size::Size;
use filter::{Filter, Filters};

/// `ps [OPTIONS]`
#[derive(Args, Debug, Clone)]
#[allow(clippy::struct_excessive_bools, reason = "each is a flag")]
pub struct PsArgs {
    /// Also containers that do not run
    #[arg(long, short)]
    pub all: bool,

    /// Only the ids
    #[arg(long, short)]
    pub quiet: bool,

    /// The whole ids and commands
    #[arg(long)]
    pub no_trunc: bool,

    /// Also how much room its files take: what it has written, and with its image
    #[arg(long, short)]
    pub size: bool,

    /// Only the newest, as many as this, also such as do not run
    #[arg(long, short = 'n', value_name = "NUMBER", value_parser = clap::value_parser!(u32).range(1..))]
    pub last: Option<u32>,

    /// Only the newest, also one that does not run
    #[arg(long, short, conflicts_with = "last")]
    pub latest: bool,

    /// Only containers of which this is true: id, name, label, status, exited, ancestor, network,
    /// volume (may be repeated)
    #[arg(long, short, value_name = "KEY=VALUE")]
    pub filter: Vec<Filter>,

    /// table, json, or a template: '{{.ID}} {{.Names}}'
    #[arg(long, value_name = "FORMAT", conflicts_with = "quiet")]
    pub format: Option<Format>,
}

/// The columns.
const COLUMNS: [&str; 7] = ["ID", "Image", "Command", "RunningFor", "Status", "Ports", "Names"];

/// Lists the containers, newest first, in docker's columns.
pub fn run(args: &PsArgs) -> Result<()> {
    let store = super::open()?;
    let filters = Filters::new(&args.filter, &store)?;
    let most = args.last.or(args.latest.then_some(1));
    let size = args.size || args.format.as_ref().is_some_and(|format| format.shows("Size"));
    let all = args.all || most.is_some() || filters.are_about_status();
    let (mut ids, mut rows) = (String::new(), Vec::new());
    for container in store.list()?.iter().rev() {
        let status = Status::of(container)?;
        // The 200th part of a list with 200 containers: what is not asked for is not read.
        let config = if args.format.is_some() || filters.are_about_config() {
            Bundle::read(container.bundle())?
        } else {
            Value::Null
        };
        if (all || status.is_running()) && filters.admit(container, status, &config) {
            let id = if args.no_trunc { &container.state.id } else { container.state.short_id() };
            ids += &format!("{id}\n");
            let mut row = row(container, status, &config, args.no_trunc);
            if size && !args.quiet {
                row["Size"] = shown_size(container).into();
            }
            rows.push(row);
        }
        if most == u32::try_from(rows.len()).ok() {
            break;
        }
    }
    if args.quiet {
        return super::print(&ids);
    }
    let columns = COLUMNS.into_iter().chain(args.size.then_some("Size")).collect::<Vec<_>>();
    super::print(&Format::list(args.format.as_ref(), &columns, &titles(), &rows)?)
}

fn titles() -> Value {
    json!({
        "ID": "CONTAINER ID",
        "Image": "IMAGE",
        "Command": "COMMAND",
        "CreatedAt": "CREATED AT",
        "RunningFor": "CREATED",
        "Status": "STATUS",
        "State": "STATE",
        "Ports": "PORTS",
        "Names": "NAMES",
        "Labels": "LABELS",
        "Networks": "NETWORKS",
        "Mounts": "MOUNTS",
        "Size": "SIZE",
    })
}

/// In docker's words. Of one that cannot be read it tells, and goes on with the list.
fn shown_size(container: &Container) -> String {
    let size = Size::of(container).unwrap_or_else(|error| {
        warn(&format!("{}: {error:#}", container.state.name));
        Size { written: None, whole: None }
    });
    let written = size.written.map_or_else(|| "--".to_owned(), super::size);
    let whole = size.whole.map(|whole| format!(" (virtual {})", super::size(whole)));
    written + &whole.unwrap_or_default()
}

fn row(container: &Container, status: Status, config: &Value, whole: bool) -> Value {
    let state = &container.state;
    let mut command = state.command.join(" ");
    if !whole && command.chars().count() > 20 {
        command = command.chars().take(19).chain(['…']).collect();
    }
    let created = UNIX_EPOCH + Duration::from_nanos(state.created);
    let created = format_rfc3339_seconds(created).to_string();
    let labels = state.labels.iter().map(|(key, value)| format!("{key}={value}"));
    let mounts = mounts::of_user(config, &state.image);
    let mounts = mounts.iter().filter_map(|mount| mount["Source"].as_str());
    json!({
        "ID": if whole { &state.id } else { state.short_id() },
        "Image": state.image,
        "Command": format!("{command:?}"),
        "CreatedAt": created.replace('T', " ").replace('Z', " +0000 UTC"),
        "RunningFor": format!("{} ago", ago(state.created)),
        "Status": in_words(container, status),
        "State": status.to_string(),
        // Who does not run listens at none.
        "Ports": if status.is_up() { shown(&state.ports) } else { String::new() },
        "Names": state.name,
        "Labels": labels.collect::<Vec<_>>().join(","),
        "Networks": config["annotations"][Annotation::NETWORK].as_str().unwrap_or_default(),
        "Mounts": mounts.collect::<Vec<_>>().join(","),
    })
}

/// What it does, and since when, in docker's words.
fn in_words(container: &Container, status: Status) -> String {
    let state = &container.state;
    let up = || format!("Up {}", ago(state.started.unwrap_or(state.created)));
    let (exited, ended) = (state.exited.unwrap_or_default(), state.finished.map(ago));
    let ended = ended.map_or_else(String::new, |span| format!(" {span} ago"));
    match status {
        Status::Created => "Created".to_owned(),
        Status::Running => up(),
        Status::Paused => up() + " (Paused)",
        Status::Restarting => format!("Restarting ({exited}){ended}"),
        Status::Exited => format!("Exited ({exited}){ended}"),
    }
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
