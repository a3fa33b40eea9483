//! `final network ...`

use std::str::FromStr;

use anyhow::{Context as _, Result, bail, ensure};
use clap::{Args, Subcommand};
use serde_json::json;
use step04_bridge_veth::Cidr;

use crate::format::Format;
use crate::network::config::{Wish, parse_name};
use crate::network::{Cidr6, Config, Endpoint, Networks, created, describe};

/// What can be done with networks.
#[derive(Subcommand, Debug, Clone)]
pub enum NetworkVerb {
    /// Make a network
    Create(CreateArgs),
    /// List networks
    #[command(visible_alias = "list")]
    Ls(LsArgs),
    /// Show all that is known about networks
    Inspect(InspectArgs),
    /// Remove networks that no container is on
    #[command(visible_alias = "remove")]
    Rm(NamesArgs),
    /// Remove all networks that no container is on
    Prune(PruneArgs),
}

/// `network create [OPTIONS] NAME`
#[derive(Args, Debug, Clone)]
pub struct CreateArgs {
    /// Its subnet, whose first address is the bridge's own; without it, one that is free. With --ipv6 there
    /// may be one of each kind
    #[arg(long, value_name = "CIDR")]
    pub subnet: Vec<Subnet>,

    /// IPv6 as well
    #[arg(long)]
    pub ipv6: bool,

    /// No way out of it, and none in
    #[arg(long)]
    pub internal: bool,

    /// Its name
    #[arg(value_parser = parse_name)]
    pub name: String,
}

/// A subnet of either kind.
#[derive(Debug, Clone, Copy)]
pub enum Subnet {
    /// IPv4.
    V4(Cidr),
    /// IPv6.
    V6(Cidr6),
}

impl FromStr for Subnet {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        if text.contains(':') { text.parse().map(Self::V6) } else { text.parse().map(Self::V4) }
    }
}

/// `network ls [OPTIONS]`
#[derive(Args, Debug, Clone)]
pub struct LsArgs {
    /// Only the ids
    #[arg(long, short)]
    pub quiet: bool,

    /// The whole ids
    #[arg(long)]
    pub no_trunc: bool,

    /// table, json, or a template: '{{.ID}} {{.Name}}'
    #[arg(long, value_name = "FORMAT", conflicts_with = "quiet")]
    pub format: Option<Format>,
}

/// `network inspect [OPTIONS] NETWORK...`
#[derive(Args, Debug, Clone)]
pub struct InspectArgs {
    /// json, or a template: '{{.Name}}: {{json .IPAM}}'
    #[arg(long, short, value_name = "FORMAT", value_parser = Format::without_table)]
    pub format: Option<Format>,

    /// Which.
    #[command(flatten)]
    pub names: NamesArgs,
}

/// `network rm NETWORK...`
#[derive(Args, Debug, Clone)]
pub struct NamesArgs {
    /// Names, ids, or beginnings of ids
    #[arg(required = true)]
    pub networks: Vec<String>,
}

/// `network prune [-f]`
#[derive(Args, Debug, Clone)]
pub struct PruneArgs {
    /// Do not ask
    #[arg(long, short)]
    pub force: bool,
}

/// Does it.
pub fn run(verb: &NetworkVerb) -> Result<()> {
    let store = super::open()?;
    let networks = Networks::of(&store);
    match verb {
        NetworkVerb::Create(args) => create(args, &networks),
        NetworkVerb::Ls(args) => list(args, &networks),
        NetworkVerb::Inspect(args) => inspect(args, &networks),
        NetworkVerb::Rm(args) => remove(&args.networks, &networks),
        NetworkVerb::Prune(args) => prune(args, &networks),
    }
}

fn create(args: &CreateArgs, networks: &Networks<'_>) -> Result<()> {
    let CreateArgs { subnet: subnets, ipv6, internal, name } = args.clone();
    let (mut subnet, mut subnet6) = (None, None);
    for wanted in subnets {
        let is_first = match wanted {
            Subnet::V4(wanted) => subnet.replace(wanted).is_none(),
            Subnet::V6(wanted) => subnet6.replace(wanted).is_none(),
        };
        ensure!(is_first, "a network has one subnet of each kind");
    }
    if let (false, Some(subnet)) = (ipv6, subnet6) {
        bail!("the subnet {subnet} takes --ipv6");
    }
    let config = networks.create(Wish { name, subnet, ipv6, subnet6, internal })?;
    super::print(&format!("{}\n", config.id))
}

fn list(args: &LsArgs, networks: &Networks<'_>) -> Result<()> {
    let id = |config: &Config| {
        if args.no_trunc { config.id.clone() } else { config.short_id().to_owned() }
    };
    let all = networks.all()?;
    if args.quiet {
        let ids = all.iter().map(|config| id(config) + "\n");
        return super::print(&ids.collect::<String>());
    }
    let row = |config: &Config| {
        json!({
            "CreatedAt": created(config),
            "Driver": config.driver(),
            "ID": id(config),
            "IPv4": (!config.subnet.is_empty()).to_string(),
            "IPv6": config.subnet6.is_some().to_string(),
            "Internal": config.internal.to_string(),
            "Labels": "",
            "Name": config.name,
            "Scope": "local",
        })
    };
    let titles = json!({
        "CreatedAt": "CREATED AT",
        "Driver": "DRIVER",
        "ID": "NETWORK ID",
        "IPv4": "IPV4",
        "IPv6": "IPV6",
        "Internal": "INTERNAL",
        "Labels": "LABELS",
        "Name": "NAME",
        "Scope": "SCOPE",
    });
    let columns = ["ID", "Name", "Driver", "Scope"];
    let rows: Vec<_> = all.iter().map(row).collect();
    super::print(&Format::list(args.format.as_ref(), &columns, &titles, &rows)?)
}

fn meant(networks: &Networks<'_>, name: &str) -> Result<Config> {
    networks.meant(name)?.with_context(|| format!("no such network: {name}"))
}

/// docker's JSON.
fn inspect(args: &InspectArgs, networks: &Networks<'_>) -> Result<()> {
    let all = args.names.networks.iter().map(|name| describe(&meant(networks, name)?));
    let all: Vec<_> = all.collect::<Result<_>>()?;
    super::print(&Format::inspect(args.format.as_ref(), &all)?)
}

fn remove(names: &[String], networks: &Networks<'_>) -> Result<()> {
    for name in names {
        let config = meant(networks, name)?;
        let builtin = config.is_builtin();
        ensure!(!builtin, "the network {name} is always there: it cannot be removed");
        if !networks.remove(&config)? {
            let users = Endpoint::all(&config.bridge)?;
            let users: Vec<_> = users.iter().map(|(_, endpoint)| &*endpoint.name).collect();
            bail!("the network {name} is in use by {}: end it first", users.join(", "));
        }
        super::print(&format!("{name}\n"))?;
    }
    Ok(())
}

fn prune(args: &PruneArgs, networks: &Networks<'_>) -> Result<()> {
    if !args.force && !super::is_confirmed("all networks that no container is on")? {
        return Ok(());
    }
    super::print(&super::section("Deleted Networks", &networks.prune()?))
}
