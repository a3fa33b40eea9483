//! `final run`

use anyhow::Result;
use colored::Colorize as _;
use nix::unistd::geteuid;
use step01_namespaces::{Signals, say, warn};

use crate::bundle::Bundle;
use crate::cli::RunArgs;
use crate::network::Claim;
use crate::security::protect_own_program;
use crate::spec::Request;
use crate::store::{State, Store, new_id};
use crate::{create, spec};

/// Flags + image -> bundle -> a container's whole life; returns its exit status.
pub fn run(args: &RunArgs) -> Result<u8> {
    protect_own_program()?;
    let signals = Signals::block()?;

    // All of it is checked before anything is made.
    let store = Store::open()?;
    let request = Request::new(args, &store)?;
    let id = new_id()?;
    let directory = store.bundle_of(&id);
    let rootfs = request.base.root(&store)?;
    let spec = spec::build(args, &request, &id, &rootfs)?;
    let bundle = Bundle::new(&spec)?;

    super::gc::sweep_if_needed(&store)?;
    let claim = Claim::take(bundle.network.as_ref(), &store)?;
    let base = request.base;
    let mut state = State::new(id, args.name.clone(), base.name.clone(), request.command)?;
    state.image_id.clone_from(&base.id);
    state.rm = args.rm;
    state.ports = claim.shown(&bundle.exposed);
    let mut container = store.create(state)?;
    base.provide(&store)?;
    Bundle::save(&directory, &spec)?;
    if !geteuid().is_root() && args.network.net.is_none() {
        say(
            "rootless:".yellow(),
            "you are not root, so this container has a user namespace, and of networks only its \
             own loopback (--net host shares yours)",
        );
    }
    let status = create::run(&mut container, &bundle, claim, &signals)?;
    // The program has run, and its status is what our caller waits for.
    container.finish(status).unwrap_or_else(|error| warn(&format!("{error:#}")));
    Ok(status)
}
