//! Its `process` part.

use anyhow::{Context as _, Result, ensure};
use caps::{CapSet, CapsHashSet};
use nix::sys::resource::{Resource, getrlimit};
use nix::unistd::geteuid;
use serde_json::{Value, json};

use super::Request;
use crate::cli::RunArgs;
use crate::image::config;
use crate::security::{ALL, DEFAULT_CAPABILITIES, Ulimit, parse_capabilities, tweak_capabilities};

const PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// The container's first process.
pub(super) fn process(
    args: &RunArgs,
    request: &Request,
    hostname: &str,
    capabilities: &CapsHashSet,
) -> Result<Value> {
    let mut env = vec![PATH.to_owned(), format!("HOSTNAME={hostname}")];
    if request.tty {
        env.push(format!("TERM={}", std::env::var("TERM").as_deref().unwrap_or("xterm")));
    }
    let image = &request.base.config;
    let files = args.process.env_file.iter().flat_map(|file| &file.0);
    let all = image.env().iter().flatten().chain(files).chain(&args.process.env);
    for variable in all.filter(|variable| !variable.is_empty()) {
        let name = variable.split_once('=').map_or(variable.as_str(), |(name, _)| name);
        env.retain(|other| other.split_once('=').is_none_or(|(n, _)| n != name));
        env.push(variable.clone());
    }
    let workdir = args.process.workdir.clone().map_or_else(|| config::workdir(image), Ok)?;
    let mut names: Vec<_> = capabilities.iter().map(ToString::to_string).collect();
    names.sort();
    Ok(json!({
        "terminal": request.tty,
        // Who that is, the container's files tell: see the annotations.
        "user": { "uid": 0, "gid": 0 },
        "args": request.command,
        "env": env,
        "cwd": workdir,
        "noNewPrivileges": args.security.no_new_privileges(),
        "capabilities": { "bounding": names, "effective": names, "permitted": names },
        "rlimits": rlimits(args)?,
        "oomScoreAdj": args.security.oom_score_adj,
    }))
}

/// The capabilities that it keeps; a plain user has all of them in the container's user namespace.
pub(super) fn capabilities(args: &RunArgs) -> Result<CapsHashSet> {
    let args = &args.security;
    let usual =
        if args.privileged { caps::all() } else { parse_capabilities(DEFAULT_CAPABILITIES)? };
    let own = caps::read(None, CapSet::Permitted).context("cannot read our own capabilities")?;
    for name in args.cap_add.iter().filter(|name| *name != ALL && geteuid().is_root()) {
        let ours = own.contains(&name.parse()?);
        ensure!(ours, "--cap-add {name} cannot be had: we do not have it ourselves");
    }
    tweak_capabilities(&usual, &args.cap_add, &args.cap_drop)
}

fn rlimits(args: &RunArgs) -> Result<Vec<Value>> {
    // docker's: programs that use select(2) want no more than 1024 files, databases ask for more.
    let (_, files) =
        getrlimit(Resource::RLIMIT_NOFILE).context("cannot read the limit of open files")?;
    let files = files.min(524_288);
    let files = Ulimit { resource: Resource::RLIMIT_NOFILE, soft: files.min(1024), hard: files };
    // The program in the host's core_pattern is run on the host for a core of ours, whatever the limit
    // is; only 1 keeps the kernel from it (fs/coredump.c). A process that wants to can still lower it:
    // what such a program reads it must not trust.
    let (_, core) = getrlimit(Resource::RLIMIT_CORE).context("cannot read the limit of cores")?;
    let core = core.min(1);
    let core = Ulimit { resource: Resource::RLIMIT_CORE, soft: core, hard: core };

    let mut limits = vec![files, core];
    for limit in &args.security.ulimit {
        limits.retain(|other| other.resource != limit.resource);
        limits.push(*limit);
    }
    let in_json = |limit: &Ulimit| {
        let name = format!("{:?}", limit.resource);
        json!({ "type": name, "soft": limit.soft, "hard": limit.hard })
    };
    Ok(limits.iter().map(in_json).collect())
}
