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

    /// The working directory in the container
    #[arg(long, short, value_name = "DIR", default_value = "/", value_parser = parse_inside)]
    pub workdir: PathBuf,

    /// The user to be, by number or by a name in the container's /etc/passwd
    #[arg(long, short, value_name = "USER[:GROUP]", value_parser = parse_user)]
    #[arg(allow_hyphen_values = true)]
    pub user: Option<String>,

    /// A group to be in, beside the user's own (may be repeated)
    #[arg(long, value_name = "GROUP", value_parser = parse_group, allow_hyphen_values = true)]
    pub group_add: Vec<String>,
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
