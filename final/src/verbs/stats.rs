//! `final stats`

use std::fs;
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::Result;
use clap::Args;
use nix::unistd::Pid;
use serde_json::{Value, json};
use step02_cgroups::{Cgroup, Usage};

use crate::bundle::Bundle;
use crate::format::Format;
use crate::store::{Container, Store};

/// `stats [OPTIONS] [CONTAINER...]`
#[derive(Args, Debug, Clone)]
pub struct StatsArgs {
    /// Also containers that do not run
    #[arg(long, short)]
    pub all: bool,

    /// Ids in full
    #[arg(long)]
    pub no_trunc: bool,

    /// Show it once, instead of every second
    #[arg(long)]
    pub no_stream: bool,

    /// table, json, or a template: '{{.Name}} {{.CPUPerc}}'
    #[arg(long, value_name = "FORMAT")]
    pub format: Option<Format>,

    /// Names, ids, or beginnings of ids; without any, all that run
    pub containers: Vec<String>,
}

/// Shows what containers use, in docker's columns: what their cgroups and network namespaces count.
pub fn run(args: &StatsArgs) -> Result<()> {
    let store = super::open()?;
    let mut ids = Vec::new();
    for name in &args.containers {
        let container = store.find(name)?;
        if !args.all {
            container.first_process()?; // or it is an error, and not a missing line
        }
        ids.push(container.state.id.clone());
    }
    loop {
        let table = table(&store, &ids, args)?;
        if args.no_stream {
            return super::print(&table);
        }
        super::print(&format!("\x1b[H\x1b[2J{table}"))?; // the cursor home, the screen empty
    }
}

/// Looks twice, as the share of a processor takes a time in which it was used. No ids are those of all.
fn table(store: &Store, ids: &[String], args: &StatsArgs) -> Result<String> {
    const TIME: Duration = Duration::from_secs(1);
    let mut all = Vec::new();
    for container in store.list()? {
        let state = &container.state;
        if !(ids.is_empty() || ids.contains(&state.id)) {
            continue;
        }
        if let Ok((first, _pidfd)) = container.first_process() {
            let cgroup = Cgroup::of_container(state.short_id(), first)?;
            let before = (cgroup.usage(), Instant::now());
            all.push((container, Some((first, cgroup, before))));
        } else if args.all {
            all.push((container, None));
        }
    }
    sleep(TIME);
    let mut rows = Vec::new();
    for (container, running) in &all {
        let mut row = match running {
            Some((first, cgroup, (before, then))) => {
                row(container, *first, &cgroup.usage(), before, then.elapsed())?
            }
            None => nothing(),
        };
        let state = &container.state;
        row["ID"] = if args.no_trunc { &*state.id } else { state.short_id() }.into();
        row["Container"] = row["ID"].clone();
        row["Name"] = (&*state.name).into();
        rows.push(row);
    }
    let titles = json!({
        "Container": "CONTAINER",
        "ID": "CONTAINER ID",
        "Name": "NAME",
        "CPUPerc": "CPU %",
        "MemUsage": "MEM USAGE / LIMIT",
        "MemPerc": "MEM %",
        "NetIO": "NET I/O",
        "BlockIO": "BLOCK I/O",
        "PIDs": "PIDS",
    });
    let columns = ["ID", "Name", "CPUPerc", "MemUsage", "MemPerc", "NetIO", "BlockIO", "PIDs"];
    Format::list(args.format.as_ref(), &columns, &titles, &rows)
}

fn row(
    container: &Container,
    first: Pid,
    usage: &Usage,
    before: &Usage,
    time: Duration,
) -> Result<Value> {
    // As docker, `--` for what nobody counts: a plain user's container may have no cgroup.
    let unknown = || "--".to_owned();
    let percent = |part: f64| format!("{:.2}%", part * 100.0);
    let cpu = usage.cpu.zip(before.cpu).map(|(now, then)| {
        percent(Duration::from_micros(now.saturating_sub(then)).as_secs_f64() / time.as_secs_f64())
    });
    let limit = match Bundle::load(container.bundle())?.limits.memory {
        Some(limit) => limit.bytes(),
        None => machines_memory(),
    };
    #[allow(clippy::cast_precision_loss, reason = "a share of memory is shown with two digits")]
    let share = usage.memory.map(|used| percent(used as f64 / limit.max(1) as f64));
    let memory = usage.memory.map(|used| format!("{} / {}", binary(used), binary(limit)));
    let both = |(i, o)| format!("{} / {}", super::size(i), super::size(o));
    Ok(json!({
        "CPUPerc": cpu.unwrap_or_else(unknown),
        "MemUsage": memory.unwrap_or_else(unknown),
        "MemPerc": share.unwrap_or_else(unknown),
        "NetIO": network(first).map_or_else(unknown, both),
        "BlockIO": usage.read.zip(usage.written).map_or_else(unknown, both),
        "PIDs": usage.pids.map_or_else(unknown, |pids| pids.to_string()),
    }))
}

/// What docker shows of a container that does not run.
fn nothing() -> Value {
    json!({
        "CPUPerc": "0.00%",
        "MemUsage": "0B / 0B",
        "MemPerc": "0.00%",
        "NetIO": "0B / 0B",
        "BlockIO": "0B / 0B",
        "PIDs": "0",
    })
}

/// In bytes: the limit of who has none.
pub(super) fn machines_memory() -> u64 {
    let text = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let total = text.lines().find_map(|line| line.strip_prefix("MemTotal:"));
    let kibibytes =
        total.and_then(|rest| rest.trim().strip_suffix(" kB")?.trim().parse::<u64>().ok());
    kibibytes.unwrap_or_default() * 1024
}

/// Bytes received and sent by all links but the loopback one (proc_pid_net(5), `dev`).
fn network(first: Pid) -> Option<(u64, u64)> {
    let text = fs::read_to_string(format!("/proc/{first}/net/dev")).ok()?;
    let links = text.lines().filter_map(|line| line.split_once(':'));
    let mut sum = (0, 0);
    for (_, counts) in links.filter(|(name, _)| name.trim() != "lo") {
        let numbers: Vec<u64> = counts.split_whitespace().filter_map(|n| n.parse().ok()).collect();
        sum = (sum.0 + numbers.first()?, sum.1 + numbers.get(8)?);
    }
    Some(sum)
}

fn binary(bytes: u64) -> String {
    super::scaled(bytes, 1024.0, ["B", "KiB", "MiB", "GiB", "TiB"], 4)
}

#[cfg(test)]
mod tests {
    use super::binary;

    #[test]
    fn sizes_have_four_digits() {
        assert_eq!(binary(0), "0B");
        assert_eq!(binary(1536), "1.5KiB");
        assert_eq!(binary((64 << 20) + 1), "64MiB");
        assert_eq!(binary(123_456_789), "117.7MiB");
    }
}
