//! Its namespaces and limits.

use anyhow::{Result, bail};
use oci_spec::runtime::{Linux, LinuxCpu, LinuxMemory, LinuxNamespaceType, LinuxPids, Spec};
use step01_namespaces::{Namespace, Namespaces};
use step02_cgroups::{Cpus, Limits, Memory};

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
    })
}
