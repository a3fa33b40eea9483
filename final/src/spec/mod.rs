//! Flags + image -> config.json (OCI runtime-spec v1.2).

mod linux;
mod mounts;
mod namespaces;
mod network;
mod process;

use std::net::Ipv4Addr;
use std::path::Path;

use anyhow::{Context as _, Result, ensure};
use nix::unistd::geteuid;
use oci_spec::runtime::Spec;
use serde_json::{Value, json};
use step01_namespaces::{IdMaps, Namespace};
use step03_rootfs::Image;

use crate::bundle::Annotation;
use crate::cli::{Net, RunArgs};
use crate::image::{Base, config};
use crate::monitor::Restart;
use crate::network::Config;
use crate::process::at_terminal;
use crate::store::Store;

/// The version of the runtime-spec that config.json is written for.
pub const OCI_VERSION: &str = "1.2.0";

/// What was asked for, with docker's defaults filled in.
#[derive(Debug)]
pub struct Request {
    /// What it is made from.
    pub base: Base,
    /// The program with its arguments.
    pub command: Vec<String>,
    /// How many of these words are the entry point.
    pub entrypoint: usize,
    /// Whether our standard input is for it.
    pub interactive: bool,
    /// Whether it gets a terminal.
    pub tty: bool,
    /// Its network.
    pub net: Net,
    /// What is known about that, if it has a bridge.
    pub network: Option<Config>,
    /// Who answers for names there, if that is not whom the host asks.
    pub nameserver: Option<Ipv4Addr>,
    /// Who on the host stands for whom in it: with --userns remap.
    pub ids: Option<IdMaps>,
    /// The namespaces of other containers, with their ids.
    pub joins: Vec<(Namespace, String)>,
}

impl Request {
    /// Fills in what was left out: no image means `host`; no command the image's, or a shell in `host`
    /// and in directories, and a shell that we sit at is interactive. Only who is `attached` sits at it.
    pub fn new(args: &RunArgs, attached: bool, store: &Store) -> Result<Self> {
        let words: Vec<String> = args
            .image_and_command
            .iter()
            .map(|word| word.clone().into_string())
            .collect::<Result<_, _>>()
            .map_err(|word| {
                anyhow::anyhow!("config.json is UTF-8, and {} is not", word.display())
            })?;
        let text = words.first().map_or("host", String::as_str);
        let base =
            if args.mounts.rootfs { Base::directory(text)? } else { Base::find(store, text)? };
        let asked = words.get(1..).unwrap_or_default();
        let entrypoint = args.process.entrypoint.as_ref();
        ensure!(
            !(entrypoint.is_some_and(String::is_empty) && asked.is_empty()),
            "with --entrypoint \"\" COMMAND is needed"
        );
        let entrypoint = entrypoint.map(|program| {
            if program.is_empty() { &[][..] } else { std::slice::from_ref(program) }
        });
        let own = base.config.entrypoint().as_deref();
        let words = entrypoint.or(own).map_or(0, <[String]>::len);
        let mut command = config::command(&base.config, entrypoint, asked);
        let shell = command.is_empty();
        if shell {
            ensure!(
                base.id.is_none(),
                "no command: the image {} has none of its own, so name a program behind it",
                base.name
            );
            let bash = base.image == Image::Host && Path::new("/usr/bin/bash").exists();
            command.push(if bash { "bash" } else { "sh" }.to_owned());
        }
        let sit_at_it = attached && shell && at_terminal();
        let plain_user = !geteuid().is_root();
        let default = if plain_user { Net::None } else { Net::Bridge };
        let net = args.network.net.clone().unwrap_or(default);
        let network = network::find(&args.network, &net, store)?;
        let nameserver = network::nameserver(&net, network.as_ref(), store)?;
        ensure!(
            net != Net::None || args.names.add_host.iter().all(|host| host.address.is_some()),
            "--add-host NAME:host-gateway needs a network on which the host has an address"
        );
        ensure!(
            !args.life.rm || args.life.restart.unwrap_or_default() == Restart::No,
            "--rm and --restart contradict each other: what is started again is not to be removed"
        );
        if args.limits.cgroup_rw {
            step02_cgroups::check_delegation().context("--cgroup-rw cannot be had")?;
        }
        let ids = namespaces::ids(args, &net)?;
        let joins = namespaces::joins(args, &net)?;
        let request = Self {
            base,
            command,
            entrypoint: words,
            interactive: args.stdio.interactive || sit_at_it,
            tty: args.stdio.tty || sit_at_it,
            net,
            network,
            nameserver,
            ids,
            joins,
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
    let new = namespaces::new(args, request);
    let hostname = namespaces::hostname(args, request, id)?;
    let capabilities = process::capabilities(args)?;
    let spec = json!({
        "ociVersion": OCI_VERSION,
        "hostname": hostname,
        "root": { "path": utf8(rootfs)?, "readonly": args.mounts.read_only },
        "process": process::process(args, request, &hostname, &capabilities)?,
        "mounts": mounts::mounts(args, request, new)?,
        "annotations": annotations(args, request),
        "linux": linux::linux(args, request, new, &capabilities)?,
    });
    serde_json::from_value(spec).context("cannot write the container's config.json")
}

/// What OCI leaves to the engine, as text, since annotations are text.
fn annotations(args: &RunArgs, request: &Request) -> Value {
    let mut annotations = network::annotations(args, request);
    annotations[Annotation::INIT] = args.process.init.to_string().into();
    annotations[Annotation::ENTRYPOINT] = request.entrypoint.to_string().into();
    annotations[Annotation::PRIVILEGED] = args.security.privileged.to_string().into();
    annotations[Annotation::INTERACTIVE] = request.interactive.to_string().into();
    if let Some(signal) = request.base.config.stop_signal() {
        annotations[Annotation::STOP_SIGNAL] = signal.as_str().into();
    }
    let user = args.process.user.as_deref().or(request.base.config.user().as_deref());
    annotations[Annotation::USER] = user.unwrap_or_default().into();
    let names = &args.names;
    annotations[Annotation::HOSTS] = words(&names.add_host).into();
    annotations[Annotation::DNS] = words(&names.dns).into();
    annotations[Annotation::DNS_SEARCH] = names.dns_search.join(" ").into();
    annotations[Annotation::DNS_OPTIONS] = names.dns_option.join(" ").into();
    let joins = request.joins.iter().map(|(kind, id)| format!("{}={id}", kind.name()));
    annotations[Annotation::JOIN] = joins.collect::<Vec<_>>().join(" ").into();
    annotations[Annotation::GROUPS] = args.process.group_add.join(" ").into();
    annotations
}

fn words(list: &[impl ToString]) -> String {
    list.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ")
}

/// A path as text. It may be where a link leads, and so not as it was on the command line.
fn utf8(path: &Path) -> Result<&str> {
    let text = path.to_str();
    text.with_context(|| format!("config.json is UTF-8, and {} is not", path.display()))
}
