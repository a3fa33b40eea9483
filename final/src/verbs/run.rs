//! `final run`

use anyhow::Result;
use colored::Colorize as _;
use nix::unistd::geteuid;
use step01_namespaces::{Signals, say, warn};
use step03_rootfs::Image;

use crate::bundle::Bundle;
use crate::cli::RunArgs;
use crate::network::Ports;
use crate::security::protect_own_program;
use crate::spec::Request;
use crate::store::{State, Store, new_id};
use crate::{create, image, spec};

/// Flags + image -> bundle -> a container's whole life; returns its exit status.
pub fn run(args: &RunArgs) -> Result<u8> {
    protect_own_program()?;
    let signals = Signals::block()?;

    // All of it is checked before anything is made.
    let request = Request::new(args)?;
    let id = new_id()?;
    let store = Store::open()?;
    let directory = store.bundle_of(&id);
    let rootfs = match &request.image {
        Image::Host => image::host_rootfs(&store)?,
        Image::Directory(path) => path.clone(),
    };
    let spec = spec::build(args, &request, &id, &rootfs)?;
    let bundle = Bundle::new(&spec)?;

    super::gc::sweep_if_needed(&store)?;
    let ports = match &bundle.network {
        Some(plan) => Ports::take(&plan.publish, &store)?,
        None => Ports::default(),
    };
    let mut state = State::new(id, args.name.clone(), request.image_name, request.command)?;
    state.rm = args.rm;
    state.ports = ports.shown(&bundle.exposed);
    let mut container = store.create(state)?;
    if request.image == Image::Host {
        image::write_host(&store, &rootfs)?;
    }
    Bundle::save(&directory, &spec)?;
    if !geteuid().is_root() && args.network.net.is_none() {
        say(
            "rootless:".yellow(),
            "you are not root, so this container has a user namespace, and of networks only its \
             own loopback (--net host shares yours)",
        );
    }
    let status = create::run(&mut container, &bundle, ports, &signals)?;
    // The program has run, and its status is what our caller waits for.
    container.finish(status).unwrap_or_else(|error| warn(&format!("{error:#}")));
    Ok(status)
}
