//! `final create`

use std::fs::{self, File};
use std::io::Write as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use colored::Colorize as _;
use oci_spec::runtime::Spec;
use step01_namespaces::say;

use super::kill::parse_signal;
use super::pull;
use crate::bundle::Bundle;
use crate::cli::{RunArgs, StdioArgs, grace};
use crate::image::Base;
use crate::monitor::Ready;
use crate::network::{Claim, rootless, uplink};
use crate::spec;
use crate::spec::Request;
use crate::store::{Container, State, Store, new_id};

/// Makes a container that is not started yet, and prints its id.
pub fn run(args: &RunArgs) -> Result<u8> {
    pull::if_needed(args)?;
    let plan = Plan::new(args, false)?;
    let cidfile = plan.note_id(args.life.cidfile.as_deref())?;
    let id = plan.state.id.clone();
    plan.make()?.0.made()?;
    cidfile.keep();
    super::print(&format!("{id}\n")).map(|()| 0)
}

/// A container that is to be made: all that can be checked has been, and nothing is made yet.
pub struct Plan {
    store: Store,
    spec: Spec,
    bundle: Bundle,
    base: Base,
    /// What will be known about it.
    pub state: State,
    /// What was asked for, with docker's defaults filled in.
    pub stdio: StdioArgs,
}

impl Plan {
    /// Flags + image -> bundle. Whoever is `attached` sits at the container's terminal.
    pub fn new(args: &RunArgs, attached: bool) -> Result<Self> {
        let store = Store::open()?;
        let request = Request::new(args, attached, &store)?;
        let stdio = StdioArgs { interactive: request.interactive, tty: request.tty };
        let id = new_id()?;
        let rootfs = request.base.root(&store)?;
        let leads_out = request.network.as_ref().is_some_and(|network| !network.internal);
        let spec = spec::build(args, &request, &id, &rootfs)?;
        let bundle = Bundle::new(&spec)?;
        let base = request.base;
        let mut state = State::new(id, args.name.clone(), base.name.clone(), request.command);
        state.image_id.clone_from(&base.id);
        state.labels = args.life.label.iter().cloned().collect();
        state.rm = args.life.rm;
        state.restart = args.life.restart.unwrap_or_default();
        let stop_signal = args.life.stop_signal.as_ref().or(base.config.stop_signal().as_ref());
        if let Some(signal) = stop_signal {
            state.stop_signal = parse_signal(signal)?.to_string();
        }
        state.stop_timeout = grace(args.life.stop_timeout);
        super::gc::sweep_if_needed(&store)?;
        if rootless::applies() && args.network.net.is_none() {
            say(
                "rootless:".yellow(),
                "you are not root, so this container has a user namespace, and of networks only \
                 its own loopback (--net bridge gives it more, --net host shares yours)",
            );
        }
        if rootless::applies() && leads_out && uplink::program().is_none() {
            say(
                "rootless:".yellow(),
                "pasta is not installed (Debian package: passt), so of this container's network nothing \
                 is reached but its other containers",
            );
        }
        Ok(Self { store, spec, bundle, base, state, stdio })
    }

    /// Makes its directory, and takes hold of what its start needs.
    pub fn make_ready(self) -> Result<Ready> {
        let claim = Claim::take(self.bundle.network.as_ref(), &self.store)?;
        let (container, bundle) = self.make()?;
        Ok((container, bundle, claim))
    }

    /// Makes its directory.
    fn make(self) -> Result<(Container, Bundle)> {
        let container = self.store.create(self.state)?;
        self.base.provide(&self.store)?;
        Bundle::save(container.bundle(), &self.spec)?;
        Ok((container, self.bundle))
    }

    /// Writes the id into a file, which must not be there yet.
    pub fn note_id(&self, path: Option<&Path>) -> Result<IdFile> {
        if let Some(path) = path {
            File::create_new(path)
                .and_then(|mut file| file.write_all(self.state.id.as_bytes()))
                .with_context(|| {
                    format!("cannot write the container's id to {}", path.display())
                })?;
        }
        Ok(IdFile(path.map(Path::to_owned)))
    }
}

/// `--cidfile`. Dropping it removes it: there is no container.
pub struct IdFile(Option<PathBuf>);

impl IdFile {
    /// There is one.
    pub fn keep(mut self) {
        self.0 = None;
    }
}

impl Drop for IdFile {
    fn drop(&mut self) {
        self.0.iter().for_each(|path| drop(fs::remove_file(path)));
    }
}
