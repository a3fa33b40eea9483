//! Its namespaces and limits.

use anyhow::{Context as _, Result, bail};
use oci_spec::runtime::{
    Linux, LinuxCpu, LinuxIdMapping, LinuxMemory, LinuxNamespaceType, LinuxPids, Spec,
};
use step01_namespaces::{IdMaps, IdRange, Namespace, Namespaces};
use step02_cgroups::{Cpus, Limits, Memory, Swap};

use super::{Annotation, annotation};
use crate::sysctl;

/// The namespaces that are new.
pub(super) fn namespaces(linux: &Linux) -> Result<Namespaces> {
    let namespaces = linux.namespaces().iter().flatten().map(|namespace| {
        if let Some(path) = namespace.path() {
            bail!("joining a namespace by path ({}) is not there yet", path.display());
        }
        Ok(namespace_of(namespace.typ()))
    });
    namespaces.collect()
}

/// The maps of its user namespace, if they are not to be those of a plain user.
pub(super) fn ids(linux: &Linux) -> Result<Option<IdMaps>> {
    let (uids, gids) = (linux.uid_mappings(), linux.gid_mappings());
    if uids.is_none() && gids.is_none() {
        return Ok(None);
    }
    let range = |map: &Option<Vec<LinuxIdMapping>>| match map.as_deref().unwrap_or_default() {
        [one] if one.container_id() == 0 => Ok(IdRange { first: one.host_id(), count: one.size() }),
        _ => bail!("uidMappings and gidMappings have to be one range each, from 0 on"),
    };
    Ok(Some(IdMaps { uids: range(uids)?, gids: range(gids)? }))
}

/// Those of other containers.
pub(super) fn joins(spec: &Spec) -> Result<Vec<(Namespace, String)>> {
    let Ok(joins) = annotation(spec, Annotation::JOIN) else { return Ok(Vec::new()) };
    let joins = joins.split_whitespace().map(|join| {
        let (name, id) = join.split_once('=').context("it is not KIND=ID")?;
        let kind = Namespace::ALL.into_iter().find(|kind| kind.name() == name);
        Ok((kind.with_context(|| format!("no namespace {name}"))?, id.to_owned()))
    });
    joins.collect()
}

/// The settings of its namespaces.
pub(super) fn settings(linux: &Linux) -> Result<Vec<(String, String)>> {
    let own = namespaces(linux)?;
    let settings = linux.sysctl().iter().flatten().map(|(name, value)| {
        sysctl::check(name, own)?;
        Ok((name.clone(), value.clone()))
    });
    settings.collect()
}

fn namespace_of(kind: LinuxNamespaceType) -> Namespace {
    match kind {
        LinuxNamespaceType::Mount => Namespace::Mnt,
        LinuxNamespaceType::Cgroup => Namespace::Cgroup,
        LinuxNamespaceType::Uts => Namespace::Uts,
        LinuxNamespaceType::Ipc => Namespace::Ipc,
        LinuxNamespaceType::User => Namespace::User,
        LinuxNamespaceType::Pid => Namespace::Pid,
        LinuxNamespaceType::Network => Namespace::Net,
        LinuxNamespaceType::Time => Namespace::Time,
    }
}

/// The limits of its cgroup.
pub(super) fn limits(spec: &Spec) -> Result<Limits> {
    let Some(resources) = spec.linux().as_ref().and_then(|linux| linux.resources().as_ref()) else {
        return Ok(Limits::default());
    };
    let memory = resources.memory().as_ref().and_then(LinuxMemory::limit);
    let pids = resources.pids().as_ref().map(LinuxPids::limit);
    let cpu = resources.cpu().as_ref();
    let quota = cpu.and_then(LinuxCpu::quota);
    let period = cpu.and_then(LinuxCpu::period);
    let cpuset = cpu.and_then(|cpu| cpu.cpus().as_ref());
    Ok(Limits {
        // Below 0 is no limit, by the specification.
        memory: memory.and_then(|bytes| u64::try_from(bytes).ok()).map(Memory::new).transpose()?,
        cpus: match (quota, period) {
            (Some(quota), Some(period)) => Some(Cpus::from_quota(quota, period)?),
            _ => None,
        },
        pids: pids.and_then(|limit| u64::try_from(limit).ok()),
        cpuset: cpuset.map(|list| list.parse()).transpose()?,
        swap: match resources.memory().as_ref().and_then(LinuxMemory::swap) {
            Some(total) if Some(total) == memory => None,
            Some(total) => Some(u64::try_from(total).map_or(Swap::Unlimited, Swap::Total)),
            None => None,
        },
        reservation: resources
            .memory()
            .as_ref()
            .and_then(LinuxMemory::reservation)
            .and_then(|bytes| u64::try_from(bytes).ok()),
        shares: cpu.and_then(LinuxCpu::shares),
    })
}
