//! Its `linux` part.

use nix::unistd::geteuid;
use serde_json::{Value, json};
use step01_namespaces::{Namespace, Namespaces};
use step03_rootfs::{MASKED_PATHS, READONLY_PATHS};

use super::Request;
use crate::cli::{Net, RunArgs};
use crate::security::profile;

/// The namespaces that are new, as docker's: all but time, and user for a plain user only.
pub(super) fn namespaces(request: &Request) -> Namespaces {
    Namespace::ALL
        .into_iter()
        .filter(|namespace| match namespace {
            Namespace::Time => false,
            Namespace::User => !geteuid().is_root(),
            Namespace::Net => request.net != Net::Host,
            other => other.is_in_kernel(),
        })
        .collect()
}

/// Namespaces, limits, and what is hidden and forbidden.
pub(super) fn linux(args: &RunArgs, namespaces: Namespaces) -> Value {
    json!({
        "namespaces": Namespace::ALL
            .into_iter()
            .filter(|&namespace| namespaces.contains(namespace))
            .map(|namespace| json!({ "type": oci_name(namespace) }))
            .collect::<Vec<_>>(),
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

/// The names that the specification gives them (config-linux.md, "Namespaces").
fn oci_name(namespace: Namespace) -> &'static str {
    match namespace {
        Namespace::Mnt => "mount",
        Namespace::Net => "network",
        other => other.name(),
    }
}
