//! config.json -> what the steps need to know. Below here nothing else is read.

mod linux;
mod network;
mod process;
mod rootfs;

use std::fs;
use std::path::Path;
use std::str::FromStr;

use anyhow::{Context as _, Result, ensure};
use oci_spec::runtime::Spec;
use serde::de::DeserializeOwned;
use serde_json::Value;
use step01_namespaces::{IdMaps, Namespace, Namespaces, see};
use step02_cgroups::{Cgroup, Limits};
use step03_rootfs::{Mount, Rootfs};

use crate::cli::Net;
use crate::etc::{Host, resolv_conf};
use crate::network::{Exposed, Plan, rootless};
use crate::process::Process;

/// Names of the annotations that carry what OCI leaves to the engine.
pub struct Annotation;

impl Annotation {
    /// `bridge`, `none`, `host`, or a network's name. With a bridge come all the others but its address.
    pub const NETWORK: &str = "io.container-workshop.network";
    /// The bridge's name.
    pub const BRIDGE: &str = "io.container-workshop.bridge";
    /// Its subnet, in CIDR notation.
    pub const SUBNET: &str = "io.container-workshop.subnet";
    /// The container's address, if it is not to be the next free one.
    pub const IP: &str = "io.container-workshop.ip";
    /// Its IPv6 subnet, if it has one.
    pub const SUBNET6: &str = "io.container-workshop.subnet6";
    /// Whether there is no way out: `true` or `false`.
    pub const INTERNAL: &str = "io.container-workshop.internal";
    /// Names that the container answers to beside its own, separated by spaces.
    pub const ALIASES: &str = "io.container-workshop.aliases";
    /// Who answers for names, if that is not whom the host asks.
    pub const NAMESERVER: &str = "io.container-workshop.nameserver";
    /// The published ports, separated by spaces.
    pub const PUBLISH: &str = "io.container-workshop.publish";
    /// The ports that programs in it are said to listen at, separated by spaces.
    pub const EXPOSED: &str = "io.container-workshop.exposed";
    /// Whether our standard input is for the program.
    pub const INTERACTIVE: &str = "io.container-workshop.interactive";
    /// The signal that asks the image's program to end, if it is not TERM (image-spec, conversion.md).
    pub const STOP_SIGNAL: &str = "org.opencontainers.image.stopSignal";
    /// Whether an init is in front of the program.
    pub const INIT: &str = "io.container-workshop.init";
    /// How many of the program's words are its image's, or `--entrypoint`.
    pub const ENTRYPOINT: &str = "io.container-workshop.entrypoint";
    /// Whether the walls are taken away.
    pub const PRIVILEGED: &str = "io.container-workshop.privileged";
    /// The user, as `--user` has it; without it, the ids in `process` are meant.
    pub const USER: &str = "io.container-workshop.user";
    /// More groups of theirs, separated by spaces.
    pub const GROUPS: &str = "io.container-workshop.groups";
    /// Lines of /etc/hosts, as NAME=IP, separated by spaces.
    pub const HOSTS: &str = "io.container-workshop.hosts";
    /// Name servers, in place of the host's.
    pub const DNS: &str = "io.container-workshop.dns";
    /// Domains that complete a name, in place of the host's.
    pub const DNS_SEARCH: &str = "io.container-workshop.dns-search";
    /// Options of resolv.conf, in place of the host's.
    pub const DNS_OPTIONS: &str = "io.container-workshop.dns-options";
    /// Namespaces of other containers, as KIND=ID, separated by spaces. OCI would have a path, but it
    /// is another one whenever the other container, or this one, is started again.
    pub const JOIN: &str = "io.container-workshop.join";
}

/// A bundle, read and checked.
pub struct Bundle {
    /// The namespaces that are new.
    pub namespaces: Namespaces,
    /// Who on the host stands for whom in it: with --userns remap.
    pub ids: Option<IdMaps>,
    /// Those that are another container's, with its id.
    pub joins: Vec<(Namespace, String)>,
    /// The name in the UTS namespace.
    pub hostname: String,
    /// The cgroup's limits.
    pub limits: Limits,
    /// Which network.
    pub net: Net,
    /// Its place on a bridge, if it has one.
    pub network: Option<Plan>,
    /// The ports that programs in it are said to listen at.
    pub exposed: Vec<Exposed>,
    /// Settings of its namespaces.
    pub sysctl: Vec<(String, String)>,
    /// The names that the user adds.
    pub hosts: Vec<Host>,
    /// The container's /etc/resolv.conf.
    pub resolv_conf: String,
    /// Whether an init is in front of the program.
    pub init: bool,
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

    /// All of config.json, for who only shows it.
    pub fn read(directory: &Path) -> Result<Value> {
        parse(&directory.join("config.json"))
    }

    /// Reads config.json from the directory.
    pub fn load(directory: &Path) -> Result<Self> {
        let path = directory.join("config.json");
        Self::new(&parse(&path)?).with_context(|| format!("cannot use {}", path.display()))
    }

    /// Takes from the configuration what we know, and refuses what we cannot do.
    pub fn new(spec: &Spec) -> Result<Self> {
        let linux = spec.linux().as_ref().context("it has no `linux` part")?;
        let net = annotation(spec, Annotation::NETWORK)?;
        let net = Net::parse(net)?;
        Ok(Self {
            namespaces: linux::namespaces(linux)?,
            ids: linux::ids(linux)?,
            joins: linux::joins(spec)?,
            hostname: spec.hostname().clone().unwrap_or_default(),
            limits: linux::limits(spec)?,
            network: network::plan(spec, &net)?,
            exposed: network::exposed(spec)?,
            sysctl: linux::settings(linux)?,
            hosts: words(spec, Annotation::HOSTS)?,
            resolv_conf: resolv_conf(net == Net::Host, &network::dns(spec, &net)?)?,
            net,
            init: annotation(spec, Annotation::INIT).is_ok_and(|init| init == "true"),
            process: process::process(spec)?,
            rootfs: rootfs::rootfs(spec)?,
        })
    }

    /// All namespaces that are not the host's.
    #[must_use]
    pub fn all_namespaces(&self) -> Namespaces {
        let joined = |kind| {
            let rootless = kind == Namespace::User && rootless::applies();
            rootless || self.joins.iter().any(|(other, _)| *other == kind)
        };
        let all = Namespace::ALL.into_iter();
        all.filter(|&kind| self.namespaces.contains(kind) || joined(kind)).collect()
    }

    /// Whether it has a network namespace of its own.
    #[must_use]
    pub fn has_own_network(&self) -> bool {
        self.namespaces.contains(Namespace::Net)
    }

    /// Whether it is in a PID namespace of others: they see its first process before it is ready.
    #[must_use]
    pub fn is_seen_by_others(&self) -> bool {
        self.joins.iter().any(|(kind, _)| *kind == Namespace::Pid)
    }

    /// The first process of a PID namespace takes all others along when it ends (pid_namespaces(7)). In
    /// one of others it is not the first, and only the cgroup knows who belongs to it.
    pub fn check_end(&self, cgroup: &Cgroup) -> Result<()> {
        ensure!(
            self.namespaces.contains(Namespace::Pid) || cgroup.has_group(),
            "--pid cannot share processes here: what the container starts could only be ended by its \
             cgroup, and there is none for you{}",
            see("cgroup-delegation")
        );
        Ok(())
    }

    /// Whether its cgroup is delegated to it.
    #[must_use]
    pub fn may_write_cgroup(&self) -> bool {
        let writable = |m: &Mount| m.kind == "cgroup2" && !m.options.iter().any(|o| o == "ro");
        self.namespaces.contains(Namespace::Cgroup) && self.rootfs.mounts.iter().any(writable)
    }
}

fn parse<T: DeserializeOwned>(path: &Path) -> Result<T> {
    let text = fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
    serde_json::from_slice(&text)
        .with_context(|| format!("{} is not an OCI configuration", path.display()))
}

/// What the words of an annotation say that need not be there.
fn words<T: FromStr<Err: Into<anyhow::Error>>>(spec: &Spec, name: &str) -> Result<Vec<T>> {
    let text = annotation(spec, name).unwrap_or_default();
    text.split_whitespace().map(|word| word.parse().map_err(Into::into)).collect()
}

fn annotation<'s>(spec: &'s Spec, name: &str) -> Result<&'s str> {
    let text = spec.annotations().as_ref().and_then(|all| all.get(name));
    text.map(String::as_str).with_context(|| format!("it has no annotation {name}"))
}
