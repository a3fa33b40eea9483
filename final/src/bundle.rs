//! config.json -> what the steps need to know. Below here nothing else is read.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, anyhow, bail, ensure};
use clap::ValueEnum as _;
use nix::sys::resource::Resource;
use oci_spec::runtime::{
    LinuxCpu, LinuxMemory, LinuxNamespaceType, LinuxPids, PosixRlimitType, Spec,
};
use step01_namespaces::{Namespace, Namespaces};
use step02_cgroups::{Cpus, Limits, Memory};
use step03_rootfs::{Image, Layer, Mount, Rootfs};
use step04_bridge_veth::parse_link_name;
use step05_nat::Publish;

use crate::cli::Net;
use crate::etc::resolv_conf;
use crate::process::Process;
use crate::security::{Filters, parse_capabilities};

/// Names of the annotations that carry what OCI leaves to the engine.
pub struct Annotation;

impl Annotation {
    /// `bridge`, `none` or `host`.
    pub const NETWORK: &str = "io.container-workshop.network";
    /// The bridge's name.
    pub const BRIDGE: &str = "io.container-workshop.bridge";
    /// Its subnet, in CIDR notation.
    pub const SUBNET: &str = "io.container-workshop.subnet";
    /// The container's address, if it is not to be the next free one.
    pub const IP: &str = "io.container-workshop.ip";
    /// The published ports, separated by spaces.
    pub const PUBLISH: &str = "io.container-workshop.publish";
    /// Whether our standard input is for the program.
    pub const INTERACTIVE: &str = "io.container-workshop.interactive";
}

/// A bundle, read and checked.
pub struct Bundle {
    /// The namespaces that are new.
    pub namespaces: Namespaces,
    /// The name in the UTS namespace.
    pub hostname: String,
    /// The cgroup's limits.
    pub limits: Limits,
    /// `bridge`, `none` or `host`.
    pub net: Net,
    /// The bridge to be on.
    pub bridge: step04_bridge_veth::Args,
    /// The ports to be reachable from outside.
    pub publish: Vec<Publish>,
    /// The container's /etc/resolv.conf.
    pub resolv_conf: String,
    /// Its first process.
    pub process: Process,
    /// Its root file system.
    pub rootfs: Rootfs,
}

impl Bundle {
    /// Writes config.json into the directory.
    pub fn save(directory: &Path, spec: &Spec) -> Result<()> {
        let path = directory.join("config.json");
        fs::write(&path, serde_json::to_vec(spec)?)
            .with_context(|| format!("cannot write {}", path.display()))
    }

    /// Reads config.json from the directory.
    pub fn load(directory: &Path) -> Result<Self> {
        let path = directory.join("config.json");
        let text = fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
        let spec = serde_json::from_slice(&text)
            .with_context(|| format!("{} is not an OCI configuration", path.display()))?;
        Self::new(&spec).with_context(|| format!("cannot use {}", path.display()))
    }

    /// Takes from the configuration what we know, and refuses what we cannot do.
    pub fn new(spec: &Spec) -> Result<Self> {
        let linux = spec.linux().as_ref().context("it has no `linux` part")?;
        let namespaces = linux.namespaces().iter().flatten().map(|namespace| {
            if let Some(path) = namespace.path() {
                bail!("joining a namespace by path ({}) is not there yet", path.display());
            }
            Ok(namespace_of(namespace.typ()))
        });
        let net = annotation(spec, Annotation::NETWORK)?;
        let net = Net::from_str(net, false).map_err(|_| anyhow!("no network mode {net:?}"))?;
        Ok(Self {
            namespaces: namespaces.collect::<Result<_>>()?,
            hostname: spec.hostname().clone().unwrap_or_default(),
            limits: limits(spec)?,
            net,
            bridge: bridge(spec)?,
            publish: annotation(spec, Annotation::PUBLISH)?
                .split_whitespace()
                .map(str::parse)
                .collect::<Result<_>>()?,
            resolv_conf: resolv_conf(net == Net::Host)?,
            process: process(spec)?,
            rootfs: rootfs(spec)?,
        })
    }

    /// Whether it has a network namespace of its own.
    #[must_use]
    pub fn has_own_network(&self) -> bool {
        self.namespaces.contains(Namespace::Net)
    }

    /// Whether its cgroup is delegated to it.
    #[must_use]
    pub fn may_write_cgroup(&self) -> bool {
        let writable = |m: &Mount| m.kind == "cgroup2" && !m.options.iter().any(|o| o == "ro");
        self.namespaces.contains(Namespace::Cgroup) && self.rootfs.mounts.iter().any(writable)
    }
}

fn annotation<'s>(spec: &'s Spec, name: &str) -> Result<&'s str> {
    let text = spec.annotations().as_ref().and_then(|all| all.get(name));
    text.map(String::as_str).with_context(|| format!("it has no annotation {name}"))
}

fn bridge(spec: &Spec) -> Result<step04_bridge_veth::Args> {
    Ok(step04_bridge_veth::Args {
        bridge: parse_link_name(annotation(spec, Annotation::BRIDGE)?)?,
        subnet: annotation(spec, Annotation::SUBNET)?.parse()?,
        ip: annotation(spec, Annotation::IP).ok().map(str::parse).transpose()?,
    })
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

fn limits(spec: &Spec) -> Result<Limits> {
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

fn process(spec: &Spec) -> Result<Process> {
    let process = spec.process().as_ref().context("it has no `process` part")?;
    let names = process.capabilities().as_ref().and_then(|c| c.bounding().as_ref());
    let names: Vec<_> = names.into_iter().flatten().map(|c| format!("CAP_{c}")).collect();
    let rlimits = process.rlimits().iter().flatten().map(|limit| {
        let resource = match limit.typ() {
            PosixRlimitType::RlimitNofile => Resource::RLIMIT_NOFILE,
            PosixRlimitType::RlimitCore => Resource::RLIMIT_CORE,
            other => bail!("the rlimit {other:?} is not supported yet"),
        };
        Ok((resource, limit.soft(), limit.hard()))
    });
    let args = process.args().clone().unwrap_or_default();
    ensure!(!args.is_empty(), "it names no program");
    let seccomp = spec.linux().as_ref().and_then(|linux| linux.seccomp().as_ref());
    Ok(Process {
        args,
        env: process.env().clone().unwrap_or_default(),
        terminal: process.terminal().unwrap_or_default(),
        interactive: annotation(spec, Annotation::INTERACTIVE)? == "true",
        capabilities: parse_capabilities(names.iter().map(String::as_str))?,
        seccomp: seccomp.map(Filters::compile).transpose()?,
        rlimits: rlimits.collect::<Result<_>>()?,
    })
}

fn rootfs(spec: &Spec) -> Result<Rootfs> {
    let root = spec.root().as_ref().context("it has no `root` part")?;
    let linux = spec.linux().as_ref();
    let (mut layers, mut mounts) = (Vec::new(), Vec::new());
    for mount in spec.mounts().iter().flatten() {
        let mount = Mount {
            destination: mount.destination().clone(),
            kind: mount.typ().clone().unwrap_or_else(|| "bind".into()),
            source: mount.source().clone().unwrap_or_default(),
            options: mount.options().clone().unwrap_or_default(),
        };
        match mount.options.iter().find_map(|option| option.strip_prefix("lowerdir=")) {
            Some(lower) if mount.kind == "overlay" => {
                layers.push(Layer { lower: lower.into(), destination: mount.destination });
            }
            _ => mounts.push(mount),
        }
    }
    let paths =
        |list: Option<&Vec<String>>| list.into_iter().flatten().map(PathBuf::from).collect();
    Ok(Rootfs {
        image: Image::Directory(root.path().clone()),
        layers,
        mounts,
        masked: paths(linux.and_then(|linux| linux.masked_paths().as_ref())),
        readonly: paths(linux.and_then(|linux| linux.readonly_paths().as_ref())),
        workdir: spec.process().as_ref().map_or_else(|| "/".into(), |p| p.cwd().clone()),
    })
}
