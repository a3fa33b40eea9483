//! Which namespaces are new, which are another container's, and what the container is called.

use anyhow::{Context as _, Result, ensure};
use nix::unistd::{geteuid, gethostname};
use serde_json::{Value, json};
use step01_namespaces::{IdMaps, Namespace, Namespaces};

use super::Request;
use crate::bundle::Bundle;
use crate::cli::{Net, RunArgs, Share, Userns};
use crate::remap;
use crate::store::Store;

/// Those of other containers, with their ids. They have to be running.
pub(super) fn joins(args: &RunArgs, net: &Net) -> Result<Vec<(Namespace, String)>> {
    let mut joins = Vec::new();
    for kind in Namespace::ALL {
        let shared = match (kind, &args.network.net, args.namespaces.share(kind)) {
            (Namespace::Net, Some(Net::Container(name)), _) | (_, _, Share::Container(name)) => {
                Some(name)
            }
            _ => None,
        };
        if let Some(name) = shared {
            let container = Store::open()?.find(name)?;
            container.first_process()?;
            joins.push((kind, container.state.id.clone()));
        }
    }
    // A plain user has power over another container's namespaces only in its user namespace.
    if let Some((_, id)) = joins.first()
        && !geteuid().is_root()
        && !net.is_bridge()
    {
        joins.insert(0, (Namespace::User, id.clone()));
    }
    Ok(joins)
}

/// The ids that it has on the host, with --userns remap. As with docker some things cannot be had then: over
/// a namespace only who is root in the user namespace that owns it has power.
pub(super) fn ids(args: &RunArgs, net: &Net) -> Result<Option<IdMaps>> {
    if args.namespaces.userns != Some(Userns::Remap) {
        return Ok(None);
    }
    let ids = remap::find().context("--userns remap cannot be had")?;
    let shares = |kind| args.namespaces.share(kind);
    let is_others = |kind| matches!(shares(kind), Share::Container(_));
    let all = [Namespace::Pid, Namespace::Ipc, Namespace::Uts];
    for (option, given, what) in [
        ("--privileged", args.security.privileged, "the host"),
        ("--net host", *net == Net::Host, "the host's network"),
        ("--pid host", *shares(Namespace::Pid) == Share::Host, "the host's processes"),
        ("--cgroup-rw", args.limits.cgroup_rw, "a cgroup"),
        (
            "container:NAME",
            matches!(net, Net::Container(_)) || all.into_iter().any(is_others),
            "another container's namespaces",
        ),
    ] {
        ensure!(
            !given,
            "conflicting options: --userns remap and {option}: its root has no power over {what}"
        );
    }
    Ok(Some(ids))
}

/// The namespaces that are new, as docker's: all but time, and user for a plain user only.
pub(super) fn new(args: &RunArgs, request: &Request) -> Namespaces {
    let joined = |kind| request.joins.iter().any(|(other, _)| *other == kind);
    Namespace::ALL
        .into_iter()
        .filter(|&kind| !joined(kind) && *args.namespaces.share(kind) == Share::Own)
        .filter(|namespace| match namespace {
            Namespace::Time => false,
            // On a bridge it is in the user's: see network::rootless.
            Namespace::User => {
                request.ids.is_some() || (!geteuid().is_root() && request.network.is_none())
            }
            Namespace::Net => request.net != Net::Host,
            other => other.is_in_kernel(),
        })
        .collect()
}

/// As config.json has them (config-linux.md, "Namespaces").
pub(super) fn list(namespaces: Namespaces) -> Value {
    let new = Namespace::ALL.into_iter().filter(|&namespace| namespaces.contains(namespace));
    let oci_name = |namespace: Namespace| match namespace {
        Namespace::Mnt => "mount",
        Namespace::Net => "network",
        other => other.name(),
    };
    new.map(|namespace| json!({ "type": oci_name(namespace) })).collect()
}

/// What it is called in its UTS namespace.
pub(super) fn hostname(args: &RunArgs, request: &Request, id: &str) -> Result<String> {
    let share = args.namespaces.share(Namespace::Uts);
    ensure!(
        args.hostname.is_none() || *share == Share::Own,
        "conflicting options: --hostname would rename the owner of the UTS namespace that --uts shares"
    );
    if let Net::Container(name) = &request.net {
        ensure!(
            args.hostname.is_none(),
            "conflicting options: --hostname and --net {}: who shares a network has one name there",
            request.net.name()
        );
        if *share == Share::Own {
            return Ok(Bundle::load(Store::open()?.find(name)?.bundle())?.hostname);
        }
    }
    Ok(match (share, &args.hostname) {
        (Share::Container(name), _) => Bundle::load(Store::open()?.find(name)?.bundle())?.hostname,
        (Share::Own, Some(name)) => name.clone(),
        (Share::Own, None) if request.net != Net::Host => id[..12].to_owned(),
        _ => gethostname()?.to_string_lossy().into(),
    })
}
