//! Flags + image -> config.json (OCI runtime-spec v1.2).

use std::path::Path;

use anyhow::{Context as _, Result, ensure};
use nix::sys::resource::{Resource, getrlimit};
use nix::unistd::geteuid;
use oci_spec::runtime::Spec;
use serde_json::{Value, json};
use step01_namespaces::{Namespace, Namespaces};
use step03_rootfs::{Image, Layer, MASKED_PATHS, Mount, READONLY_PATHS, default_mounts};

use crate::bundle::Annotation;
use crate::cli::{Net, RunArgs};
use crate::process::at_terminal;
use crate::security::{DEFAULT_CAPABILITIES, profile};

const PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// What was asked for, with docker's defaults filled in.
#[derive(Debug)]
pub struct Request {
    /// As the user wrote it.
    pub image_name: String,
    /// What it is.
    pub image: Image,
    /// The program with its arguments.
    pub command: Vec<String>,
    /// Whether our standard input is for it.
    pub interactive: bool,
    /// Whether it gets a terminal.
    pub tty: bool,
    /// Its network.
    pub net: Net,
}

impl Request {
    /// Fills in what was left out: no image means `host`, no command a shell, and a shell that
    /// we sit at is interactive.
    pub fn new(args: &RunArgs) -> Result<Self> {
        let words: Vec<String> = args
            .image_and_command
            .iter()
            .map(|word| word.clone().into_string())
            .collect::<Result<_, _>>()
            .map_err(|word| {
                anyhow::anyhow!("config.json is UTF-8, and {} is not", word.display())
            })?;
        let image_name = words.first().map_or("host", String::as_str);
        let image = Image::parse(image_name)?;
        let mut command: Vec<_> = words.iter().skip(1).cloned().collect();
        let shell = command.is_empty();
        if shell {
            let bash = image == Image::Host && Path::new("/usr/bin/bash").exists();
            command.push(if bash { "bash" } else { "sh" }.to_owned());
        }
        let sit_at_it = shell && at_terminal();
        let plain_user = !geteuid().is_root();
        let net = args.net.unwrap_or(if plain_user { Net::None } else { Net::Bridge });
        ensure!(
            !(plain_user && net == Net::Bridge),
            "--net bridge needs root: a plain user can make a bridge only in a network namespace \
             of its own, without a way out; run as root, or in the lab: cargo workshop lab"
        );
        ensure!(
            args.publish.is_empty() || net == Net::Bridge,
            "--publish needs --net bridge: without the bridge there is nothing to translate"
        );
        if args.cgroup_rw {
            step02_cgroups::check_delegation().context("--cgroup-rw cannot be had")?;
        }
        let request = Self {
            image_name: image_name.to_owned(),
            image,
            command,
            interactive: args.stdio.interactive || sit_at_it,
            tty: args.stdio.tty || sit_at_it,
            net,
        };
        let stdin_is_terminal = std::io::IsTerminal::is_terminal(&std::io::stdin());
        ensure!(
            !(request.interactive && request.tty) || stdin_is_terminal,
            "the input device is not a terminal: leave out -t"
        );
        Ok(request)
    }

    /// The namespaces that are new, as docker's: all but time, and user for a plain user only.
    fn namespaces(&self) -> Namespaces {
        Namespace::ALL
            .into_iter()
            .filter(|namespace| match namespace {
                Namespace::Time => false,
                Namespace::User => !geteuid().is_root(),
                Namespace::Net => self.net != Net::Host,
                other => other.is_in_kernel(),
            })
            .collect()
    }
}

/// The config.json for the bundle of container `id`, whose root file system is in `rootfs`.
pub fn build(args: &RunArgs, request: &Request, id: &str, rootfs: &Path) -> Result<Spec> {
    let namespaces = request.namespaces();
    let hostname = match &args.hostname {
        Some(name) => name.clone(),
        None if request.net == Net::Host => nix::unistd::gethostname()?.to_string_lossy().into(),
        None => id[..12].to_owned(),
    };
    let spec = json!({
        "ociVersion": "1.2.0",
        "hostname": hostname,
        "root": { "path": utf8(rootfs)? },
        "process": process(args, request, &hostname)?,
        "mounts": mounts(args, request, namespaces)?,
        "annotations": annotations(args, request),
        "linux": {
            "namespaces": Namespace::ALL
                .into_iter()
                .filter(|&namespace| namespaces.contains(namespace))
                .map(|namespace| json!({ "type": oci_name(namespace) }))
                .collect::<Vec<_>>(),
            "resources": resources(args),
            "maskedPaths": if args.privileged { &[][..] } else { &MASKED_PATHS },
            "readonlyPaths": if args.privileged { &[][..] } else { &READONLY_PATHS },
            "seccomp": (!args.privileged).then(profile),
        },
    });
    serde_json::from_value(spec).context("cannot write the container's config.json")
}

/// What OCI leaves to the engine, as text, since annotations are text.
fn annotations(args: &RunArgs, request: &Request) -> Value {
    let publish: Vec<_> = args.publish.iter().map(ToString::to_string).collect();
    let mut annotations = json!({
        Annotation::NETWORK: request.net.name(),
        Annotation::INTERACTIVE: request.interactive.to_string(),
        Annotation::BRIDGE: args.bridge.bridge,
        Annotation::SUBNET: args.bridge.subnet.to_string(),
        Annotation::PUBLISH: publish.join(" "),
    });
    if let Some(ip) = args.bridge.ip {
        annotations[Annotation::IP] = ip.to_string().into();
    }
    annotations
}

fn process(args: &RunArgs, request: &Request, hostname: &str) -> Result<Value> {
    let mut env = vec![PATH.to_owned(), format!("HOSTNAME={hostname}"), "HOME=/root".to_owned()];
    if request.tty {
        env.push(format!("TERM={}", std::env::var("TERM").as_deref().unwrap_or("xterm")));
    }
    for variable in args.env.iter().filter(|variable| !variable.is_empty()) {
        let name = variable.split_once('=').map_or(variable.as_str(), |(name, _)| name);
        env.retain(|other| other.split_once('=').is_none_or(|(n, _)| n != name));
        env.push(variable.clone());
    }
    // docker's: programs that use select(2) want no more than 1024 files, databases ask for more.
    let (_, most_files) =
        getrlimit(Resource::RLIMIT_NOFILE).context("cannot read the limit of open files")?;
    let most_files = most_files.min(524_288);
    let all: Vec<_> = caps::all().into_iter().map(|capability| capability.to_string()).collect();
    let capabilities = if args.privileged { json!(all) } else { json!(DEFAULT_CAPABILITIES) };
    let (_, core) = getrlimit(Resource::RLIMIT_CORE).context("cannot read the limit of cores")?;
    let core = core.min(1);
    Ok(json!({
        "terminal": request.tty,
        "user": { "uid": 0, "gid": 0 },
        "args": request.command,
        "env": env,
        "cwd": args.workdir,
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

fn mounts(args: &RunArgs, request: &Request, namespaces: Namespaces) -> Result<Vec<Value>> {
    let volumes = args.volume.iter().map(|v| Mount::bind(&v.source, &v.destination, v.read_only));
    let (layers, mounts) = (request.image.layers()?, request.image.mounts()?);
    layers
        .iter()
        .map(overlay)
        .chain(default_mounts(namespaces)?)
        .chain(mounts)
        .chain(volumes)
        .map(|mut mount| {
            // What we mount below /sys ourselves is read-only, unless it was asked for.
            let writable = match mount.kind.as_str() {
                "cgroup2" => args.cgroup_rw,
                "sysfs" => args.privileged,
                _ => false,
            };
            mount.options.retain(|option| !(writable && option == "ro"));
            Ok(json!({
                "destination": utf8(&mount.destination)?,
                "type": mount.kind,
                "source": utf8(&mount.source)?,
                "options": mount.options,
            }))
        })
        .collect()
}

/// A path as text. It may be where a link leads, and so not as it was on the command line.
fn utf8(path: &Path) -> Result<&str> {
    let text = path.to_str();
    text.with_context(|| format!("config.json is UTF-8, and {} is not", path.display()))
}

/// A layer as a mount: an overlay whose upper directory is left to us.
fn overlay(layer: &Layer) -> Mount {
    Mount {
        destination: layer.destination.clone(),
        kind: "overlay".into(),
        source: "overlay".into(),
        options: vec![format!("lowerdir={}", layer.lower.display())],
    }
}

fn resources(args: &RunArgs) -> Value {
    let mut resources = json!({});
    if let Some(memory) = args.memory {
        let bytes = memory.bytes();
        resources["memory"] = json!({ "limit": bytes, "swap": bytes });
    }
    if let Some(cpus) = args.cpus {
        resources["cpu"]["quota"] = cpus.quota().into();
        resources["cpu"]["period"] = cpus.period().into();
    }
    if let Some(cpuset) = &args.cpuset_cpus {
        resources["cpu"]["cpus"] = cpuset.to_string().into();
    }
    if let Some(pids) = args.pids_limit {
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
