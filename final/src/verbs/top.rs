//! `final top`

use std::fs;
use std::io::ErrorKind;
use std::process::Command;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, Result, bail, ensure};
use clap::Args;
use nix::unistd::{Pid, Uid, User};
use step01_namespaces::printable;
use step02_cgroups::Cgroup;

use crate::format::table;
use crate::store::Container;

/// In how many parts /proc counts a second: USER_HZ, the same on every machine (time(7)).
const TICKS: u64 = 100;

/// `top CONTAINER [OPTIONS OF ps]`
#[derive(Args, Debug, Clone)]
pub struct TopArgs {
    /// Name, id, or the beginning of an id
    pub container: String,

    /// Options of the host's ps(1), whose columns are shown then; one has to be PID
    #[arg(value_name = "PS OPTIONS", trailing_var_arg = true, allow_hyphen_values = true)]
    pub options: Vec<String>,
}

/// Shows a container's processes, by the numbers that the host has for them.
pub fn run(args: &TopArgs) -> Result<()> {
    let store = super::open()?;
    let pids = processes(&store.find(&args.container)?)?;
    super::print(&if args.options.is_empty() { ours(&pids)? } else { ps(&args.options, &pids)? })
}

/// Those in its cgroup; where it has none, in its PID namespace, which it then has for itself.
fn processes(container: &Container) -> Result<Vec<Pid>> {
    let (first, _pidfd) = container.first_process()?;
    let cgroup = Cgroup::of_container(container.state.short_id(), first)?;
    let mut pids = if cgroup.has_group() {
        cgroup.processes()?
    } else {
        let namespace = |pid| fs::read_link(format!("/proc/{pid}/ns/pid")).ok();
        let wanted = namespace(first);
        ensure!(wanted.is_some(), "cannot look at the process {first}");
        let all = fs::read_dir("/proc").context("cannot read /proc")?;
        let all = all.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
        all.map(Pid::from_raw).filter(|&pid| namespace(pid) == wanted).collect()
    };
    pids.sort();
    Ok(pids)
}

/// The columns of `ps -ef`, as docker has them; who ends meanwhile is left out.
fn ours(pids: &[Pid]) -> Result<String> {
    let uptime = fs::read_to_string("/proc/uptime").context("cannot read /proc/uptime")?;
    let uptime = uptime.split('.').next().and_then(|seconds| seconds.parse().ok());
    let uptime = uptime.context("cannot understand /proc/uptime")?;
    let titles = ["UID", "PID", "PPID", "C", "STIME", "TTY", "TIME", "CMD"].map(str::to_owned);
    let rows = pids.iter().filter_map(|&pid| row(pid, uptime));
    Ok(table(&[titles].into_iter().chain(rows).collect::<Vec<_>>()))
}

fn row(pid: Pid, uptime: u64) -> Option<[String; 8]> {
    let read = |file| fs::read(format!("/proc/{pid}/{file}")).ok();
    let text = |file| read(file).map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
    // The name is any bytes that the program likes: count from its end (proc_pid_stat(5)).
    let stat = text("stat")?;
    let (start, rest) = stat.rsplit_once(") ")?;
    let fields: Vec<_> = rest.split(' ').collect();
    let number = |field: usize| fields.get(field - 3)?.parse::<u64>().ok();
    let used = (number(14)? + number(15)?) / TICKS;
    let age = uptime.saturating_sub(number(22)? / TICKS);
    let status = text("status")?;
    let user = status.lines().find_map(|line| line.strip_prefix("Uid:"))?;
    let user = Uid::from_raw(user.split_whitespace().nth(1)?.parse().ok()?);
    let words = read("cmdline")?.iter().map(|&b| if b == 0 { b' ' } else { b }).collect::<Vec<_>>();
    let command = match String::from_utf8_lossy(&words).trim_end() {
        "" => format!("[{}]", start.split_once('(')?.1), // a thread of the kernel, or a zombie
        words => words.to_owned(),
    };
    Some([
        User::from_uid(user).ok().flatten().map_or_else(|| user.to_string(), |user| user.name),
        pid.to_string(),
        number(4)?.to_string(),
        (used * 100 / age.max(1)).to_string(),
        started(age),
        terminal(number(7)?),
        format!("{:02}:{:02}:{:02}", used / 3600, used / 60 % 60, used % 60),
        printable(&command),
    ])
}

/// The time of day when that many seconds ago is today, else the day, or the year, as ps(1) has it.
fn started(age: u64) -> String {
    const MONTHS: [&str; 12] =
        ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |now| now.as_secs());
    let (then, now) = (local(now.saturating_sub(age)), local(now));
    let month = usize::try_from(then.tm_mon).ok().and_then(|month| MONTHS.get(month));
    if then.tm_year != now.tm_year {
        (then.tm_year + 1900).to_string()
    } else if then.tm_yday != now.tm_yday {
        format!("{}{:02}", month.unwrap_or(&"?"), then.tm_mday)
    } else {
        format!("{:02}:{:02}", then.tm_hour, then.tm_min)
    }
}

/// localtime_r(3): seconds since 1970, as the clock on the wall has them.
fn local(seconds: u64) -> libc::tm {
    let seconds = i64::try_from(seconds).unwrap_or(i64::MAX);
    // SAFETY: tm is plain numbers and a pointer, for which all zeros is a valid value.
    let mut time: libc::tm = unsafe { std::mem::zeroed() };
    // SAFETY: both outlive the call; where it fails, nothing is written.
    unsafe { libc::localtime_r(&raw const seconds, &raw mut time) };
    time
}

/// A terminal's name by its number (linux/Documentation/admin-guide/devices.txt).
fn terminal(device: u64) -> String {
    let (major, minor) = (device >> 8 & 0xfff, device & 0xff | device >> 12 & 0xfff00);
    match major {
        136..=143 => format!("pts/{}", (major - 136) * 256 + minor),
        4 => format!("tty{minor}"),
        _ => "?".to_owned(),
    }
}

/// What the host's ps says, but only the lines about these.
fn ps(options: &[String], pids: &[Pid]) -> Result<String> {
    let output = match Command::new("ps").args(options).output() {
        Err(error) if error.kind() == ErrorKind::NotFound => {
            bail!("these are options of ps, which is not installed here (Debian: procps)")
        }
        output => output.context("cannot run ps")?,
    };
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "ps: {}", said.lines().next().unwrap_or("it failed"));
    let shown = String::from_utf8_lossy(&output.stdout);
    let mut lines = shown.lines();
    let titles = lines.next().unwrap_or_default();
    let column = titles.split_whitespace().position(|title| title == "PID");
    let column = column.context("what ps shows has no column PID, by which to know whose it is")?;
    let pids: Vec<_> = pids.iter().map(ToString::to_string).collect();
    let is_its = |line: &&str| {
        line.split_whitespace().nth(column).is_some_and(|pid| pids.iter().any(|its| its == pid))
    };
    let lines = [titles].into_iter().chain(lines.filter(is_its));
    Ok(lines.flat_map(|line| [line, "\n"]).collect())
}
