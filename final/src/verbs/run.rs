//! `final run`

use std::io::{Write as _, stderr};

use anyhow::Result;
use colored::Colorize as _;
use nix::unistd::geteuid;
use step01_namespaces::{Signals, say, warn};

use crate::bundle::Bundle;
use crate::cli::{Pull, RunArgs};
use crate::image::{Base, Images, Name, pull::pull};
use crate::network::Claim;
use crate::security::protect_own_program;
use crate::spec::Request;
use crate::store::{State, Store, new_id};
use crate::{create, spec};

/// Flags + image -> bundle -> a container's whole life; returns its exit status.
pub fn run(args: &RunArgs) -> Result<u8> {
    protect_own_program()?;
    let store = Store::open()?;
    pull_if_needed(args, &store)?; // a Ctrl-C may still end us
    let signals = Signals::block()?;

    // All of it is checked before anything is made.
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

/// Gets the image from its registry, if `--pull` wants that.
fn pull_if_needed(args: &RunArgs, store: &Store) -> Result<()> {
    let text = args.image_and_command.first().and_then(|text| text.to_str()).unwrap_or("host");
    if args.mounts.rootfs || args.pull == Pull::Never || !Base::is_name(text) {
        return Ok(());
    }
    let Ok(name) = text.parse::<Name>() else { return Ok(()) }; // what is wrong with it is told later
    let images = Images::open(store)?;
    if args.pull == Pull::Missing {
        if images.find(text)?.is_some() {
            return Ok(());
        }
        tell(&format!("Unable to find image '{}' locally", name.short()));
    }
    pull(&images, &name, &mut tell)
}

/// docker's lines about an image go to the standard error: the output is the program's.
fn tell(line: &str) {
    let _ = writeln!(stderr(), "{line}");
}
