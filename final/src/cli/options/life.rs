//! The options of `run` and `create` about the container's life.

use std::path::PathBuf;

use clap::Args;

use crate::monitor::Restart;
use crate::verbs::kill::parse_signal;

/// When it ends, and what becomes of it then.
#[derive(Args, Debug, Clone)]
#[group(skip)]
pub struct LifeArgs {
    /// Remove the container when its program ends
    #[arg(long)]
    pub rm: bool,

    /// Start its program again when it ends: no, on-failure[:MOST] or always
    #[arg(long, value_name = "POLICY")]
    pub restart: Option<Restart>,

    /// The signal that `stop` sends; without it, the image's, or SIGTERM
    #[arg(long, value_name = "SIGNAL", value_parser = parse_stop_signal)]
    pub stop_signal: Option<String>,

    /// Seconds after which `stop` kills; -1: never
    #[arg(long, value_name = "SECONDS", default_value = "10", allow_hyphen_values = true)]
    #[arg(value_parser = clap::value_parser!(i64).range(-1..=i64::from(i32::MAX)))]
    pub stop_timeout: i64,

    /// A note about the container (may be repeated)
    #[arg(long, short, value_name = "KEY[=VALUE]", value_parser = parse_label)]
    pub label: Vec<(String, String)>,

    /// Write the container's id into this file, which must not be there yet
    #[arg(long, value_name = "FILE")]
    pub cidfile: Option<PathBuf>,
}

/// Checks it; an image, too, has it as text.
fn parse_stop_signal(text: &str) -> anyhow::Result<String> {
    parse_signal(text).map(|signal| signal.to_string())
}

/// `KEY=VALUE`, or `KEY` for an empty value.
fn parse_label(text: &str) -> Result<(String, String), String> {
    let (key, value) = text.split_once('=').unwrap_or((text, ""));
    if key.is_empty() {
        return Err("a label needs a key: KEY=VALUE or KEY".into());
    }
    Ok((key.to_owned(), value.to_owned()))
}

/// Seconds to wait before SIGKILL; below 0 for ever.
#[must_use]
pub fn grace(seconds: i64) -> Option<u32> {
    u32::try_from(seconds).ok()
}
