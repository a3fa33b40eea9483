//! `final exec`

use std::ffi::OsString;
use std::io::{IsTerminal as _, stderr, stdin, stdout};
use std::os::fd::AsFd as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};
use clap::Args;
use nix::unistd::fchdir;
use step01_namespaces::{Child, Namespaces, Signals};
use step02_cgroups::Cgroup;
use step03_rootfs::{Root, parse_inside};

use crate::bundle::Bundle;
use crate::cli::{EnvFile, StdioArgs, parse_env, read_env};
use crate::join::Join;
use crate::process::close_to_others;
use crate::remap;
use crate::security::protect_own_program;
use crate::store::Store;
use crate::terminal;
use crate::user::parse_user;

/// `exec [OPTIONS] CONTAINER COMMAND...`
#[derive(Args, Debug, Clone)]
pub struct ExecArgs {
    /// `-i` and `-t`.
    #[command(flatten)]
    pub stdio: StdioArgs,

    /// Set an environment variable, or pass on the caller's (may be repeated)
    #[arg(long, short, value_name = "NAME[=VALUE]", value_parser = parse_env)]
    pub env: Vec<String>,

    /// Read environment variables from a file, one in each line (may be repeated)
    #[arg(long, value_name = "FILE", value_parser = read_env)]
    pub env_file: Vec<EnvFile>,

    /// The working directory in the container; without it, the container's
    #[arg(long, short, value_name = "DIR", value_parser = parse_inside)]
    pub workdir: Option<PathBuf>,

    /// The user to be, by number or by a name in the container's /etc/passwd
    #[arg(long, short, value_name = "USER[:GROUP]", value_parser = parse_user)]
    #[arg(allow_hyphen_values = true)]
    pub user: Option<String>,

    /// All capabilities
    #[arg(long)]
    pub privileged: bool,

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
    ensure!(!container.is_paused()?, "{name} is paused: first final unpause {name}");

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
    let files = args.env_file.iter().flat_map(|file| &file.0);
    process.env.extend(files.chain(&args.env).filter(|variable| !variable.is_empty()).cloned());
    if let Some(user) = &args.user {
        process.user.user.clone_from(user);
    }
    if args.privileged {
        process.capabilities = caps::all();
    }
    let workdir = args.workdir.clone().unwrap_or_else(|| bundle.rootfs.workdir.clone());

    // ANCHOR: join
    let cgroup = Cgroup::of(first)?;
    // The PID namespace is special: setns(2) puts not us into it, but our next child. And it
    // takes a capability over the user namespace that owns it, so that one comes first.
    let join = Join::of(pidfd, bundle.all_namespaces());
    if let Some(ids) = bundle.ids {
        remap::provide(
            &bundle.process,
            ids,
            &[stdin().as_fd(), stdout().as_fd(), stderr().as_fd()],
        )?;
    }
    join.before_clone()?;

    close_to_others()?; // before the child is there to be seen: it inherits this
    let mut child = Child::spawn(Namespaces::default(), cgroup.fd(), || {
        cgroup.join()?;
        bundle.process.leave_caller()?;
        join.after_clone()?;
        remap::become_root(bundle.ids)?;
        let root = Root::open(Path::new("/"))?;
        enter(&root, &workdir)?;
        let user = bundle.process.user.find(&root)?;
        let terminal = bundle.process.open_stdio(&user)?;
        bundle.process.restrict(&user)?;
        Ok(bundle.process.command(&user, terminal))
    })?;
    // ANCHOR_END: join
    match child.go()? {
        Some(master) => terminal::relay(&mut child, master, &bundle.process, &signals),
        None => child.wait(&signals),
    }
}

/// Changes to a directory of the container, which may have made it a link: through /proc/self/fd/N
/// it would lead to a directory of the host that we still have open (CVE-2024-21626).
fn enter(root: &Root, workdir: &Path) -> Result<()> {
    let found = root.find(workdir)?;
    let directory = found.with_context(|| format!("no directory {} in it", workdir.display()))?;
    fchdir(&directory).with_context(|| format!("cannot change to {}", workdir.display()))
}
