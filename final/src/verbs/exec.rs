//! `final exec`

use std::ffi::OsString;
use std::io::{IsTerminal as _, stdin};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};
use clap::Args;
use nix::sched::{CloneFlags, setns};
use nix::unistd::fchdir;
use step01_namespaces::{Child, Namespace, Namespaces, Signals};
use step02_cgroups::Cgroup;
use step03_rootfs::{Root, parse_inside};

use crate::bundle::Bundle;
use crate::cli::{StdioArgs, parse_env};
use crate::process::close_to_others;
use crate::security::protect_own_program;
use crate::store::Store;
use crate::terminal;

/// `exec [OPTIONS] CONTAINER COMMAND...`
#[derive(Args, Debug, Clone)]
pub struct ExecArgs {
    /// `-i` and `-t`.
    #[command(flatten)]
    pub stdio: StdioArgs,

    /// Set an environment variable, or pass on the caller's (may be repeated)
    #[arg(long, short, value_name = "NAME[=VALUE]", value_parser = parse_env)]
    pub env: Vec<String>,

    /// The working directory in the container; without it, the container's
    #[arg(long, short, value_name = "DIR", value_parser = parse_inside)]
    pub workdir: Option<PathBuf>,

    /// Name, id, or the beginning of an id
    pub container: String,

    /// The program to run, with its arguments
    #[arg(required = true, trailing_var_arg = true)]
    pub command: Vec<OsString>,
}

/// Runs a program in a running container; returns its exit status.
pub fn run(args: &ExecArgs) -> Result<u8> {
    protect_own_program()?;
    let signals = Signals::block()?;
    let input_ok = !(args.stdio.tty && args.stdio.interactive) || stdin().is_terminal();
    ensure!(input_ok, "the input device is not a terminal: leave out -t");
    let store = Store::open()?;
    let container = store.find(&args.container)?;
    let (first, pidfd) = container.first_process()?;
    let name = &container.state.name;
    ensure!(!super::pause::is_paused(&container)?, "{name} is paused: first final unpause {name}");

    let mut bundle = Bundle::load(container.bundle())?;
    let process = &mut bundle.process;
    process.args = args
        .command
        .iter()
        .map(|word| word.clone().into_string())
        .collect::<Result<_, _>>()
        .map_err(|word| anyhow::anyhow!("{} is not UTF-8", word.display()))?;
    process.terminal = args.stdio.tty;
    process.interactive = args.stdio.interactive;
    process.env.extend(args.env.iter().filter(|variable| !variable.is_empty()).cloned());
    let workdir = args.workdir.clone().unwrap_or_else(|| bundle.rootfs.workdir.clone());

    // ANCHOR: join
    let cgroup = Cgroup::of(first)?;
    // The PID namespace is special: setns(2) puts not us into it, but our next child. And it
    // takes a capability over the user namespace that owns it, so that one comes first.
    let (before, after) = split(bundle.namespaces);
    setns(&pidfd, flags(&before)).context("cannot join the container's PID namespace")?;

    close_to_others()?; // before the child is there to be seen: it inherits this
    let mut child = Child::spawn(Namespaces::default(), cgroup.fd(), || {
        cgroup.join()?;
        bundle.process.leave_caller()?;
        setns(&pidfd, flags(&after)).context("cannot join the container's namespaces")?;
        enter(&workdir)?;
        let terminal = bundle.process.open_stdio()?;
        bundle.process.restrict()?;
        Ok(bundle.process.command(terminal))
    })?;
    // ANCHOR_END: join
    match child.go()? {
        Some(master) => terminal::relay(&mut child, master, &bundle.process, &signals),
        None => child.wait(&signals),
    }
}

/// Changes to a directory of the container, which may have made it a link: through /proc/self/fd/N
/// it would lead to a directory of the host that we still have open (CVE-2024-21626).
fn enter(workdir: &Path) -> Result<()> {
    let found = Root::open(Path::new("/"))?.find(workdir)?;
    let directory = found.with_context(|| format!("no directory {} in it", workdir.display()))?;
    fchdir(&directory).with_context(|| format!("cannot change to {}", workdir.display()))
}

/// What is joined before the clone, and what after it, as setns(2) wants it.
// ANCHOR: split
#[must_use]
pub fn split(namespaces: Namespaces) -> (Vec<Namespace>, Vec<Namespace>) {
    // ANCHOR: ex-6.1
    Namespace::ALL
        .into_iter()
        .filter(|&namespace| namespaces.contains(namespace))
        .partition(|namespace| matches!(namespace, Namespace::User | Namespace::Pid))
    // ANCHOR_END: ex-6.1
}
// ANCHOR_END: split

fn flags(namespaces: &[Namespace]) -> CloneFlags {
    CloneFlags::from_bits_retain(namespaces.iter().fold(0, |flags, n| flags | n.flag()))
}
