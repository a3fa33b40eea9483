//! Its `process` part.

use anyhow::{Context as _, Result};
use nix::sys::resource::{Resource, getrlimit};
use serde_json::{Value, json};

use super::Request;
use crate::cli::RunArgs;
use crate::security::DEFAULT_CAPABILITIES;

const PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// The container's first process.
pub(super) fn process(args: &RunArgs, request: &Request, hostname: &str) -> Result<Value> {
    let mut env = vec![PATH.to_owned(), format!("HOSTNAME={hostname}")];
    if request.tty {
        env.push(format!("TERM={}", std::env::var("TERM").as_deref().unwrap_or("xterm")));
    }
    for variable in args.process.env.iter().filter(|variable| !variable.is_empty()) {
        let name = variable.split_once('=').map_or(variable.as_str(), |(name, _)| name);
        env.retain(|other| other.split_once('=').is_none_or(|(n, _)| n != name));
        env.push(variable.clone());
    }
    // docker's: programs that use select(2) want no more than 1024 files, databases ask for more.
    let (_, most_files) =
        getrlimit(Resource::RLIMIT_NOFILE).context("cannot read the limit of open files")?;
    let most_files = most_files.min(524_288);
    let all: Vec<_> = caps::all().into_iter().map(|capability| capability.to_string()).collect();
    let capabilities =
        if args.security.privileged { json!(all) } else { json!(DEFAULT_CAPABILITIES) };
    let (_, core) = getrlimit(Resource::RLIMIT_CORE).context("cannot read the limit of cores")?;
    let core = core.min(1);
    Ok(json!({
        "terminal": request.tty,
        // Who that is, the container's files tell: see the annotations.
        "user": { "uid": 0, "gid": 0 },
        "args": request.command,
        "env": env,
        "cwd": args.process.workdir,
        "noNewPrivileges": true,
        "capabilities": {
            "bounding": capabilities,
            "effective": capabilities,
            "permitted": capabilities,
        },
        "rlimits": [
            { "type": "RLIMIT_NOFILE", "soft": most_files.min(1024), "hard": most_files },
            // The program in the host's core_pattern is run on the host for a core of ours, whatever
            // the limit is; only 1 keeps the kernel from it (fs/coredump.c). A process that wants to
            // can still lower it: what such a program reads it must not trust.
            { "type": "RLIMIT_CORE", "soft": core, "hard": core },
        ],
    }))
}
