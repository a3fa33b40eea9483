//! Its `linux` part.

use std::collections::BTreeMap;

use anyhow::Result;
use caps::CapsHashSet;
use serde_json::{Value, json};
use step01_namespaces::{IdMaps, Namespaces};
use step02_cgroups::Swap;
use step03_rootfs::{MASKED_PATHS, READONLY_PATHS};

use super::{Request, mounts, namespaces};
use crate::cli::{LimitArgs, RunArgs, Seccomp};
use crate::security::{profile, read_profile};

/// Namespaces, limits, and what is hidden and forbidden.
pub(super) fn linux(
    args: &RunArgs,
    request: &Request,
    new: Namespaces,
    capabilities: &CapsHashSet,
) -> Result<Value> {
    let hides = args.security.hides_paths();
    let mut linux = json!({
        "namespaces": namespaces::list(new),
        "devices": mounts::devices(args)?,
        "sysctl": args.namespaces.sysctl.iter().cloned().collect::<BTreeMap<_, _>>(),
        "resources": resources(&args.limits)?,
        "maskedPaths": if hides { &MASKED_PATHS[..] } else { &[] },
        "readonlyPaths": if hides { &READONLY_PATHS[..] } else { &[] },
        "seccomp": match args.security.seccomp() {
            Seccomp::File(file) => Some(read_profile(file, capabilities)?),
            Seccomp::Usual if !args.security.privileged => Some(profile(capabilities)),
            Seccomp::Usual | Seccomp::Unconfined => None,
        },
    });
    if let Some(IdMaps { uids, gids }) = request.ids {
        for (name, range) in [("uidMappings", uids), ("gidMappings", gids)] {
            linux[name] = json!([{ "containerID": 0, "hostID": range.first, "size": range.count }]);
        }
    }
    Ok(linux)
}

fn resources(args: &LimitArgs) -> Result<Value> {
    let mut resources = json!({});
    args.check_memory()?;
    if let Some(memory) = args.memory {
        resources["memory"]["limit"] = memory.bytes().into();
        resources["memory"]["swap"] = match args.memory_swap {
            None => memory.bytes().into(),
            Some(Swap::Total(bytes)) => bytes.into(),
            Some(Swap::Unlimited) => (-1).into(),
        };
    }
    if let Some(bytes) = args.memory_reservation {
        resources["memory"]["reservation"] = bytes.into();
    }
    if let Some(cpus) = args.cpu_time()? {
        resources["cpu"]["quota"] = cpus.quota().into();
        resources["cpu"]["period"] = cpus.period().into();
    }
    if let Some(shares) = args.cpu_shares {
        resources["cpu"]["shares"] = shares.into();
    }
    if let Some(cpuset) = &args.cpuset_cpus {
        resources["cpu"]["cpus"] = cpuset.to_string().into();
    }
    if let Some(pids) = args.pids_limit {
        resources["pids"] = json!({ "limit": pids });
    }
    Ok(resources)
}
