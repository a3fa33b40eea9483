//! What a container's program wrote, as lines of JSON in docker's format (json-file).

use std::fs::{self, File};
use std::io::{self, ErrorKind, Write as _};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use anyhow::{Context as _, Result};
use humantime::format_rfc3339_nanos;
use serde::{Deserialize, Serialize};

use super::Stream;

/// The file, in a container's directory, and the one before it.
const NAMES: [&str; 2] = ["log.json", "log.json.1"];
/// It is moved aside before it grows beyond this, in bytes. So there are at most two of that size.
const LARGEST: u64 = 10 << 20;
/// A line that is longer is cut into several.
const LONGEST_LINE: usize = 16 * 1024;

/// One line of the log.
#[derive(Serialize, Deserialize, Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// What was written, with the line's end if it has one.
    pub log: String,
    /// `stdout` or `stderr`.
    pub stream: String,
    /// When, in RFC 3339, with nanoseconds.
    pub time: String,
}

/// The log of a container that runs.
#[derive(Debug)]
pub struct Log {
    directory: PathBuf,
    file: File,
    size: u64,
    /// Of each stream the line that is not complete yet.
    partial: [Vec<u8>; 2],
}

impl Log {
    /// Goes on with the log in this directory.
    pub fn open(directory: &Path) -> Result<Self> {
        let failed = || format!("cannot open {}/{}", directory.display(), NAMES[0]);
        let (file, size) = open(directory).with_context(failed)?;
        Ok(Self { directory: directory.to_owned(), file, size, partial: Default::default() })
    }

    /// Notes what was written, line by line.
    pub fn write(&mut self, stream: Stream, bytes: &[u8]) -> io::Result<()> {
        let partial = &mut self.partial[stream as usize];
        partial.extend(bytes);
        let mut lines = Vec::new();
        loop {
            let line = partial.iter().take(LONGEST_LINE).position(|&byte| byte == b'\n');
            match line.map(|at| at + 1) {
                Some(len) => lines.push(partial.drain(..len).collect()),
                None if partial.len() >= LONGEST_LINE => {
                    lines.push(partial.drain(..LONGEST_LINE).collect());
                }
                None => break,
            }
        }
        self.append(stream, &lines)
    }

    /// At the program's end: notes the lines that have none.
    pub fn end(&mut self) -> io::Result<()> {
        for stream in [Stream::Output, Stream::Errors] {
            let rest = std::mem::take(&mut self.partial[stream as usize]);
            if !rest.is_empty() {
                self.append(stream, &[rest])?;
            }
        }
        Ok(())
    }

    fn append(&mut self, stream: Stream, lines: &[Vec<u8>]) -> io::Result<()> {
        if lines.is_empty() {
            return Ok(());
        }
        let time = format_rfc3339_nanos(SystemTime::now()).to_string();
        let mut text = Vec::new();
        for line in lines {
            let log = String::from_utf8_lossy(line).into_owned();
            let entry = Entry { log, stream: stream.name().to_owned(), time: time.clone() };
            serde_json::to_writer(&mut text, &entry)?;
            text.push(b'\n');
        }
        if self.size > 0 && self.size + text.len() as u64 > LARGEST {
            fs::rename(self.directory.join(NAMES[0]), self.directory.join(NAMES[1]))?;
            (self.file, self.size) = open(&self.directory)?;
        }
        self.file.write_all(&text)?;
        self.size += text.len() as u64;
        Ok(())
    }
}

fn open(directory: &Path) -> io::Result<(File, u64)> {
    let file = File::options().create(true).append(true).open(directory.join(NAMES[0]))?;
    let size = file.metadata()?.len();
    Ok((file, size))
}

/// The files of the log in this directory that are there, the older one first.
pub fn files(directory: &Path) -> Result<Vec<File>> {
    let mut found = Vec::new();
    for name in NAMES.iter().rev() {
        let path = directory.join(name);
        match File::open(&path) {
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            file => found.push(file.with_context(|| format!("cannot open {}", path.display()))?),
        }
    }
    Ok(found)
}
