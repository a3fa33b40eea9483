//! Its `linux` part.

use serde_json::{Value, json};
use step01_namespaces::Namespaces;
use step03_rootfs::{MASKED_PATHS, READONLY_PATHS};

use super::namespaces;
use crate::cli::RunArgs;
use crate::security::profile;

/// Namespaces, limits, and what is hidden and forbidden.
pub(super) fn linux(args: &RunArgs, new: Namespaces) -> Value {
    json!({
        "namespaces": namespaces::list(new),
        "resources": resources(args),
        "maskedPaths": if args.security.privileged { &[][..] } else { &MASKED_PATHS },
        "readonlyPaths": if args.security.privileged { &[][..] } else { &READONLY_PATHS },
        "seccomp": (!args.security.privileged).then(profile),
    })
}

fn resources(args: &RunArgs) -> Value {
    let mut resources = json!({});
    if let Some(memory) = args.limits.memory {
        let bytes = memory.bytes();
        resources["memory"] = json!({ "limit": bytes, "swap": bytes });
    }
    if let Some(cpus) = args.limits.cpus {
        resources["cpu"]["quota"] = cpus.quota().into();
        resources["cpu"]["period"] = cpus.period().into();
    }
    if let Some(cpuset) = &args.limits.cpuset_cpus {
        resources["cpu"]["cpus"] = cpuset.to_string().into();
    }
    if let Some(pids) = args.limits.pids_limit {
        resources["pids"] = json!({ "limit": pids });
    }
    resources
}
