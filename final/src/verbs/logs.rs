//! `final logs`

use std::fs::File;
use std::io::{BufRead as _, BufReader, Write as _, stderr, stdout};
use std::os::fd::AsFd as _;
use std::time::{Duration, SystemTime};

use anyhow::{Context as _, Result};
use clap::Args;
use humantime::{parse_duration, parse_rfc3339_weak};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};

use crate::monitor::Connection;
use crate::monitor::log::{self, Entry};
use crate::store::Container;

/// `logs [-f] [-t] [--tail N] [--since TIME] [--until TIME] CONTAINER`
#[derive(Args, Debug, Clone)]
pub struct LogsArgs {
    /// Go on until the container ends
    #[arg(long, short)]
    pub follow: bool,

    /// Show when each line was written
    #[arg(long, short)]
    pub timestamps: bool,

    /// Only the last lines
    #[arg(long, short = 'n', value_name = "NUMBER", default_value = "all", value_parser = parse_tail)]
    #[arg(allow_hyphen_values = true)]
    pub tail: Tail,

    /// Only what was written since then: 2030-01-01T12:00:00Z, seconds since 1970, or 10m ago
    #[arg(long, value_name = "TIME", value_parser = parse_time)]
    pub since: Option<SystemTime>,

    /// Only what was written before then
    #[arg(long, value_name = "TIME", value_parser = parse_time)]
    pub until: Option<SystemTime>,

    /// Name, id, or the beginning of an id
    pub container: String,
}

/// How many lines at most.
#[derive(Debug, Clone, Copy)]
pub struct Tail(Option<usize>);

fn parse_tail(text: &str) -> Result<Tail> {
    // docker takes every number below 0 for all of them.
    let number: Result<i64, _> = text.parse();
    match number {
        _ if text == "all" => Ok(Tail(None)),
        Ok(number) => Ok(Tail(usize::try_from(number).ok())),
        Err(_) => anyhow::bail!("a number of lines, or all"),
    }
}

fn parse_time(text: &str) -> Result<SystemTime> {
    if let Ok(seconds) = text.parse::<f64>() {
        let since = Duration::try_from_secs_f64(seconds)?;
        return SystemTime::UNIX_EPOCH.checked_add(since).context("too far away");
    }
    if let Ok(time) = parse_rfc3339_weak(text) {
        return Ok(time);
    }
    let ago = parse_duration(text).context(
        "neither a time (2030-01-01T12:00:00Z), nor seconds since 1970, nor a span (10m)",
    )?;
    SystemTime::now().checked_sub(ago).context("too far away")
}

/// Shows what a container wrote, each stream where it belongs.
pub fn run(args: &LogsArgs) -> Result<()> {
    let store = super::open()?;
    let container = store.find(&args.container)?;
    let mut reader = Reader::open(&container, args)?;
    if args.follow { follow(&container, &mut reader) } else { Ok(()) }
}

struct Reader<'a> {
    args: &'a LogsArgs,
    file: Option<BufReader<File>>,
    /// The beginning of a line that is just being written.
    partial: Vec<u8>,
}

impl<'a> Reader<'a> {
    /// Shows what is there, and stays at its end.
    fn open(container: &Container, args: &'a LogsArgs) -> Result<Self> {
        let mut reader = Self { args, file: None, partial: Vec::new() };
        let mut entries = Vec::new();
        for file in log::files(container.bundle())? {
            reader.file = Some(BufReader::new(file));
            entries.extend(reader.read()?);
        }
        let first = args.tail.0.map_or(0, |most| entries.len().saturating_sub(most));
        show(&entries[first..], args.timestamps)?;
        Ok(reader)
    }

    /// The complete lines up to the end of the file, of the time that is asked for.
    fn read(&mut self) -> Result<Vec<Entry>> {
        let mut entries = Vec::new();
        let Some(file) = &mut self.file else { return Ok(entries) };
        while file.read_until(b'\n', &mut self.partial).context("cannot read the log")? > 0 {
            if !self.partial.ends_with(b"\n") {
                break;
            }
            // A line that a full disk has cut short is no entry.
            if let Ok(entry) = serde_json::from_slice::<Entry>(&self.partial) {
                let time = parse_rfc3339_weak(&entry.time).ok();
                let is_late = self.args.since.is_some_and(|since| time < Some(since));
                let is_early = self.args.until.is_some_and(|until| time > Some(until));
                entries.extend(Some(entry).filter(|_| !is_late && !is_early));
            }
            self.partial.clear();
        }
        Ok(entries)
    }

    /// What has been written since: to this file, and to the one that has taken its place.
    fn read_on(&mut self, container: &Container) -> Result<Vec<Entry>> {
        let mut entries = self.read()?;
        let Some(current) = log::files(container.bundle())?.pop() else { return Ok(entries) };
        if !self.file.as_ref().is_some_and(|file| is_same(file.get_ref(), &current)) {
            entries.extend(self.read()?);
            self.partial.clear();
            self.file = Some(BufReader::new(current));
            entries.extend(self.read()?);
        }
        Ok(entries)
    }
}

fn is_same(one: &File, other: &File) -> bool {
    use std::os::unix::fs::MetadataExt as _;
    let number = |file: &File| file.metadata().map(|data| (data.dev(), data.ino())).ok();
    number(one).is_some() && number(one) == number(other)
}

/// Waits for changes of the log (inotify(7)), and for the end of the container.
fn follow(container: &Container, reader: &mut Reader<'_>) -> Result<()> {
    let changes = Inotify::init(InitFlags::IN_CLOEXEC | InitFlags::IN_NONBLOCK)
        .context("cannot watch the log")?;
    let flags = AddWatchFlags::IN_MODIFY | AddWatchFlags::IN_CREATE;
    match changes.add_watch(container.bundle(), flags) {
        Err(Errno::ENOENT) => return Ok(()), // it has just been removed
        result => result.context("cannot watch the log")?,
    };
    let mut monitor = container.connect().ok();
    loop {
        show(&reader.read_on(container)?, reader.args.timestamps)?;
        let Some(connection) = &monitor else { return Ok(()) };
        let mut fds = [
            PollFd::new(changes.as_fd(), PollFlags::POLLIN),
            PollFd::new(connection.as_fd(), PollFlags::POLLIN),
        ];
        match poll(&mut fds, PollTimeout::NONE) {
            Err(Errno::EINTR) => continue,
            result => result.context("cannot wait for the log")?,
        };
        let said = fds[1].any() == Some(true);
        while changes.read_events().is_ok() {}
        if said && has_ended(connection) {
            // It may just be about to be started again.
            monitor = container.connect().ok();
        }
    }
}

fn has_ended(connection: &Connection) -> bool {
    !matches!(connection.receive(), Ok(Some(crate::monitor::Message::Started)))
}

/// Each entry to the stream that it was written to. Who reads them may go away in the middle.
fn show(entries: &[Entry], timestamps: bool) -> Result<()> {
    for entry in entries {
        let time = if timestamps { format!("{} ", entry.time) } else { String::new() };
        let text = format!("{time}{}", entry.log);
        if entry.stream == "stderr" {
            super::written(stderr().write_all(text.as_bytes()))?;
        } else {
            super::print(&text)?;
        }
    }
    super::written(stdout().flush())
}
