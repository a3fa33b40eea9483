//! The options of `run` about its first process.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::Args;
use step03_rootfs::parse_inside;

use crate::user::{parse_group, parse_user};

/// What the program finds when it starts.
#[derive(Args, Debug, Clone)]
#[group(skip)]
pub struct ProcessArgs {
    /// Set an environment variable, or pass on the caller's (may be repeated)
    #[arg(long, short, value_name = "NAME[=VALUE]", value_parser = parse_env)]
    pub env: Vec<String>,

    /// Read environment variables from a file, one in each line (may be repeated)
    #[arg(long, value_name = "FILE", value_parser = read_env)]
    pub env_file: Vec<EnvFile>,

    /// The program to run, in place of the image's; COMMAND is its arguments
    #[arg(long, value_name = "PROGRAM")]
    pub entrypoint: Option<String>,

    /// Run an init in front of the program, which passes on signals and waits for orphans
    #[arg(long)]
    pub init: bool,

    /// The working directory in the container; without it, the image's
    #[arg(long, short, value_name = "DIR", value_parser = parse_inside)]
    pub workdir: Option<PathBuf>,

    /// The user to be, by number or by a name in the container's /etc/passwd
    #[arg(long, short, value_name = "USER[:GROUP]", value_parser = parse_user)]
    #[arg(allow_hyphen_values = true)]
    pub user: Option<String>,

    /// A group to be in, beside the user's own (may be repeated)
    #[arg(long, value_name = "GROUP", value_parser = parse_group, allow_hyphen_values = true)]
    pub group_add: Vec<String>,
}

/// The variables of a file.
#[derive(Debug, Clone)]
pub struct EnvFile(pub Vec<String>);

/// Reads lines as [`parse_env`] does; empty ones and those that begin with `#` are left out, and quotes
/// are part of the value, as with docker.
pub fn read_env(path: &str) -> Result<EnvFile, String> {
    let text = std::fs::read_to_string(path).map_err(|error| format!("cannot read it: {error}"))?;
    let lines = text.lines().map(str::trim_start);
    let lines = lines.filter(|line| !line.is_empty() && !line.starts_with('#'));
    let variables = lines.map(|line| {
        let name = line.split_once('=').map_or(line, |(name, _)| name);
        if name.contains(char::is_whitespace) {
            return Err(format!("{name:?} has a space, so it is not a variable's name"));
        }
        parse_env(line)
    });
    variables.collect::<Result<_, _>>().map(EnvFile)
}

/// `NAME=VALUE`, or `NAME` for the caller's value: nothing if the caller has none, as docker.
pub fn parse_env(text: &str) -> Result<String, String> {
    match text.split_once('=') {
        Some(("", _)) | None if text.is_empty() || text.starts_with('=') => {
            Err("an environment variable needs a name: NAME=VALUE or NAME".into())
        }
        Some(_) => Ok(text.to_owned()),
        None => match std::env::var_os(text).map(OsString::into_string) {
            Some(Ok(value)) => Ok(format!("{text}={value}")),
            Some(Err(_)) => {
                Err("our own value of it is not UTF-8, as config.json has to be".into())
            }
            None => Ok(String::new()),
        },
    }
}
