//! Flags + image -> config.json (OCI runtime-spec v1.2).

mod linux;
mod mounts;
mod process;

use std::path::Path;

use anyhow::{Context as _, Result, ensure};
use nix::unistd::geteuid;
use oci_spec::runtime::Spec;
use serde_json::{Value, json};
use step03_rootfs::Image;

use crate::bundle::Annotation;
use crate::cli::{Net, RunArgs};
use crate::monitor::Restart;
use crate::process::at_terminal;

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
    /// we sit at is interactive. Only who is `attached` sits at it.
    pub fn new(args: &RunArgs, attached: bool) -> Result<Self> {
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
        let sit_at_it = attached && shell && at_terminal();
        let plain_user = !geteuid().is_root();
        let net = args.network.net.unwrap_or(if plain_user { Net::None } else { Net::Bridge });
        ensure!(
            !(plain_user && net == Net::Bridge),
            "--net bridge needs root: a plain user can make a bridge only in a network namespace \
             of its own, without a way out; run as root, or in the lab: cargo workshop lab"
        );
        ensure!(
            args.network.publish.is_empty() || net == Net::Bridge,
            "--publish needs --net bridge: without the bridge there is nothing to translate"
        );
        ensure!(
            !args.life.rm || args.life.restart.unwrap_or_default() == Restart::No,
            "--rm and --restart contradict each other: what is started again is not to be removed"
        );
        if args.limits.cgroup_rw {
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
            !(attached && request.interactive && request.tty) || stdin_is_terminal,
            "the input device is not a terminal: leave out -t"
        );
        Ok(request)
    }
}

/// The config.json for the bundle of container `id`, whose root file system is in `rootfs`.
pub fn build(args: &RunArgs, request: &Request, id: &str, rootfs: &Path) -> Result<Spec> {
    let namespaces = linux::namespaces(request);
    let hostname = match &args.hostname {
        Some(name) => name.clone(),
        None if request.net == Net::Host => nix::unistd::gethostname()?.to_string_lossy().into(),
        None => id[..12].to_owned(),
    };
    let spec = json!({
        "ociVersion": "1.2.0",
        "hostname": hostname,
        "root": { "path": utf8(rootfs)? },
        "process": process::process(args, request, &hostname)?,
        "mounts": mounts::mounts(args, request, namespaces)?,
        "annotations": annotations(args, request),
        "linux": linux::linux(args, namespaces),
    });
    serde_json::from_value(spec).context("cannot write the container's config.json")
}

/// What OCI leaves to the engine, as text, since annotations are text.
fn annotations(args: &RunArgs, request: &Request) -> Value {
    let publish: Vec<_> = args.network.publish.iter().map(ToString::to_string).collect();
    let mut annotations = json!({
        Annotation::NETWORK: request.net.name(),
        Annotation::INTERACTIVE: request.interactive.to_string(),
        Annotation::BRIDGE: args.network.bridge.bridge,
        Annotation::SUBNET: args.network.bridge.subnet.to_string(),
        Annotation::PUBLISH: publish.join(" "),
    });
    if let Some(ip) = args.network.bridge.ip {
        annotations[Annotation::IP] = ip.to_string().into();
    }
    annotations
}

/// A path as text. It may be where a link leads, and so not as it was on the command line.
fn utf8(path: &Path) -> Result<&str> {
    let text = path.to_str();
    text.with_context(|| format!("config.json is UTF-8, and {} is not", path.display()))
}
