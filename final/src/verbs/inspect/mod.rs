//! `final inspect`

mod container;
mod host_config;
mod image;

use anyhow::{Result, bail};
use clap::{Args, ValueEnum};
use serde_json::Value;
use step01_namespaces::tell;

use crate::format::Format;
use crate::image::Images;
use crate::network::{Networks, describe};
use crate::store::{Container, Store};

/// `inspect [OPTIONS] NAME...`
#[derive(Args, Debug, Clone)]
pub struct InspectArgs {
    /// json, or a template: '{{.State.Status}} {{json .Mounts}}'
    #[arg(long, short, value_name = "FORMAT", value_parser = Format::without_table)]
    pub format: Option<Format>,

    /// Of containers also how much room their files take
    #[arg(long, short)]
    pub size: bool,

    /// Only what is one of these
    #[arg(long = "type", value_name = "TYPE")]
    pub kind: Option<Kind>,

    /// Containers, images or networks, by their names, ids, or beginnings of ids
    #[arg(required = true, value_name = "NAME")]
    pub names: Vec<String>,
}

/// What can be inspected.
#[derive(ValueEnum, Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A container
    Container,
    /// An image
    Image,
    /// A network
    Network,
}

/// Shows all that is known, as docker's JSON; as docker, it tells of what it does not find, and goes on
/// with the next.
pub fn run(args: &InspectArgs) -> Result<u8> {
    inspect(args).map_err(|error| super::failed(&error))
}

fn inspect(args: &InspectArgs) -> Result<u8> {
    let store = super::open()?;
    let (mut found, mut status) = (Vec::new(), 0);
    for name in &args.names {
        match about(&store, name, args) {
            Ok(thing) => found.push(thing),
            Err(error) => {
                tell(&error);
                status = 1;
            }
        }
    }
    super::print(&Format::inspect(args.format.as_ref(), &found)?)?;
    Ok(status)
}

/// The first thing that has this name: a container, an image, or a network.
fn about(store: &Store, name: &str, args: &InspectArgs) -> Result<Value> {
    let may_be = |other| args.kind.is_none_or(|kind| kind == other);
    if may_be(Kind::Container) {
        let is_it = |c: &Container| c.state.name == name || c.state.id.starts_with(name);
        if !name.is_empty() && store.list()?.iter().any(is_it) {
            return container::about(&store.find(name)?, args.size);
        }
    }
    if may_be(Kind::Image) {
        let images = Images::open(store)?;
        if let Some(image) = images.find(name)? {
            return image::about(&images, &image);
        }
    }
    if may_be(Kind::Network)
        && let Some(network) = Networks::of(store).meant(name)?
    {
        return describe(&network);
    }
    let kind = args.kind.and_then(|kind| Some(kind.to_possible_value()?.get_name().to_owned()));
    bail!("no such {}: {name}", kind.as_deref().unwrap_or("object"))
}
