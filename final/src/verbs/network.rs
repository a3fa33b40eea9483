//! `final network ...`

use std::str::FromStr;
use std::time::{Duration, UNIX_EPOCH};

use anyhow::{Result, bail, ensure};
use clap::{Args, Subcommand};
use humantime::format_rfc3339_seconds;
use serde_json::{Value, json};
use step04_bridge_veth::Cidr;

use crate::format::Format;
use crate::network::config::{Wish, builtin_id, parse_name};
use crate::network::{Cidr6, Config, Endpoint, Networks};

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
pub fn run(verb: &NetworkVerb) -> Result<u8> {
    let done = || -> Result<()> {
        let store = super::open()?;
        let networks = Networks::of(&store);
        match verb {
            NetworkVerb::Create(args) => create(args, &networks),
            NetworkVerb::Ls(args) => list(args, &networks),
            NetworkVerb::Inspect(args) => inspect(args, &networks),
            NetworkVerb::Rm(args) => remove(&args.networks, &networks),
            NetworkVerb::Prune(args) => prune(args, &networks),
        }
    };
    done().map(|()| 0).map_err(|error| super::failed(&error))
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

/// A network as the list has it: some are always there.
fn rows(networks: &Networks<'_>) -> Result<Vec<(Config, &'static str)>> {
    let without = |name: &str| Config {
        id: builtin_id(name),
        name: name.to_owned(),
        subnet: String::new(),
        ..Config::default_bridge()
    };
    let mut rows = vec![
        (Config::default_bridge(), "bridge"),
        (without("host"), "host"),
        (without("none"), "null"),
    ];
    rows.extend(networks.list()?.into_iter().map(|config| (config, "bridge")));
    rows.sort_by(|(a, _), (b, _)| a.name.cmp(&b.name));
    Ok(rows)
}

fn list(args: &LsArgs, networks: &Networks<'_>) -> Result<()> {
    let id = |config: &Config| {
        if args.no_trunc { config.id.clone() } else { config.short_id().to_owned() }
    };
    let rows = rows(networks)?;
    if args.quiet {
        let ids = rows.iter().map(|(config, _)| id(config) + "\n");
        return super::print(&ids.collect::<String>());
    }
    let row = |(config, driver): &(Config, &str)| {
        json!({
            "CreatedAt": rfc3339(config.created),
            "Driver": driver,
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
    let rows: Vec<_> = rows.iter().map(row).collect();
    super::print(&Format::list(args.format.as_ref(), &columns, &titles, &rows)?)
}

/// The network that is meant by a name or the beginning of an id, if there is one.
pub(super) fn find(networks: &Networks<'_>, text: &str) -> Result<Option<Config>> {
    let mut all: Vec<_> = rows(networks)?.into_iter().map(|(config, _)| config).collect();
    let meant = all
        .iter()
        .position(|config| config.name == text)
        .or_else(|| all.iter().position(|config| !text.is_empty() && config.id.starts_with(text)));
    Ok(meant.map(|meant| all.swap_remove(meant)))
}

/// docker's JSON.
fn inspect(args: &InspectArgs, networks: &Networks<'_>) -> Result<()> {
    let all = args.names.networks.iter().map(|name| about(networks, name));
    let all: Vec<_> = all.collect::<Result<_>>()?;
    super::print(&Format::inspect(args.format.as_ref(), &all)?)
}

/// All that is known about the network with this name or id.
pub(super) fn about(networks: &Networks<'_>, name: &str) -> Result<Value> {
    let (config, driver) = match rows(networks)?.into_iter().find(|(n, _)| n.name == *name) {
        Some(row) => row,
        None => (networks.find(name)?, "bridge"),
    };
    describe(&config, driver)
}

fn describe(config: &Config, driver: &str) -> Result<Value> {
    let mut containers = json!({});
    let mut pools = Vec::new();
    if driver == "bridge" {
        let subnet = config.subnet()?;
        pools.push(json!({ "Subnet": config.subnet, "Gateway": subnet.gateway() }));
        if let Some(subnet) = config.subnet6()? {
            pools.push(json!({ "Subnet": config.subnet6, "Gateway": subnet.gateway() }));
        }
        for (address, endpoint) in Endpoint::all(&config.bridge)? {
            containers[&endpoint.id] = json!({
                "Name": endpoint.name,
                "IPv4Address": format!("{address}/{}", subnet.prefix()),
                "IPv6Address": match (endpoint.address6, config.subnet6()?) {
                    (Some(address), Some(subnet)) => format!("{address}/{}", subnet.prefix()),
                    _ => String::new(),
                },
            });
        }
    }
    Ok(json!({
        "Name": config.name,
        "Id": config.id,
        "Created": rfc3339(config.created),
        "Scope": "local",
        "Driver": driver,
        "EnableIPv4": driver == "bridge",
        "EnableIPv6": config.subnet6.is_some(),
        "IPAM": { "Driver": "default", "Options": {}, "Config": pools },
        "Internal": config.internal,
        "Attachable": false,
        "Ingress": false,
        "Containers": containers,
        "Options": { "com.docker.network.bridge.name": config.bridge },
        "Labels": {},
    }))
}

/// A time as docker's JSON has it.
fn rfc3339(seconds: u64) -> String {
    format_rfc3339_seconds(UNIX_EPOCH + Duration::from_secs(seconds)).to_string()
}

fn remove(names: &[String], networks: &Networks<'_>) -> Result<()> {
    for name in names {
        let builtin = ["bridge", "host", "none"].contains(&&**name);
        ensure!(!builtin, "the network {name} is always there: it cannot be removed");
        let config = networks.find(name)?;
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
