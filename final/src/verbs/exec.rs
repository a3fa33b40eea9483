//! `final exec`

use std::ffi::OsString;
use std::io::{IsTerminal as _, stderr, stdin, stdout};
use std::os::fd::{AsFd as _, OwnedFd};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};
use clap::Args;
use nix::unistd::{ForkResult, fchdir, fork};
use step01_namespaces::{Child, Namespaces, Signals};
use step02_cgroups::Cgroup;
use step03_rootfs::{Root, parse_inside};

use crate::bundle::Bundle;
use crate::cli::{EnvFile, StdioArgs, parse_env, read_env};
use crate::idle;
use crate::join::Join;
use crate::monitor::{
    Connection, Message, close_foreign_files, close_stderr, leave_caller, wait_until_started,
};
use crate::process::{Process, close_to_others, discard_output};
use crate::remap;
use crate::security::protect_own_program;
use crate::store::Store;
use crate::terminal;
use crate::user::parse_user;

/// `exec [OPTIONS] CONTAINER COMMAND...`
#[derive(Args, Debug, Clone)]
pub struct ExecArgs {
    /// Let it run by itself: nobody sees what it writes
    #[arg(long, short)]
    pub detach: bool,

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

/// Runs a program in a running container; returns its exit status, or with `-d` 0 once it runs.
pub fn run(args: &ExecArgs) -> Result<u8> {
    protect_own_program()?;
    if args.detach {
        return detach(args).map(|()| 0);
    }
    let signals = Signals::block()?;
    let input_ok = !(args.stdio.tty && args.stdio.interactive) || stdin().is_terminal();
    ensure!(input_ok, "the input device is not a terminal: leave out -t");
    begin(args)?.wait(&signals)
}

/// Leaves a process behind that waits for the program, as a monitor waits for its container. Without it
/// the host's init would: who has joined a PID namespace is no child of that one's init.
fn detach(args: &ExecArgs) -> Result<()> {
    close_foreign_files()?; // it would keep them open
    let (callers, ours) = Connection::pair()?;
    // SAFETY: this process has one thread, so its copy may go on with any code.
    if let ForkResult::Parent { .. } = unsafe { fork() }.context("cannot start a process")? {
        drop(ours);
        return wait_until_started(&callers);
    }
    drop(callers);
    let stay = || -> Result<()> {
        let begun = leave_caller().and_then(|()| {
            close_stderr(); // what goes wrong is told by a message
            Ok((Signals::block()?, begin(args)?))
        });
        let (signals, mut program) = match begun {
            Err(error) => return Ok(ours.send(&Message::Failed(error.into()))?),
            Ok(begun) => begun,
        };
        ours.send(&Message::Started)?;
        drop(ours);
        idle::give_back();
        program.wait(&signals).map(drop)
    };
    let done = catch_unwind(AssertUnwindSafe(stay));
    // SAFETY: _exit(2) ends the process at once: nothing of the caller's is dropped twice.
    unsafe { libc::_exit(i32::from(!matches!(done, Ok(Ok(()))))) }
}

/// A program that runs.
struct Running {
    child: Child,
    /// Our side of its terminal, or of the pipe in the place of ours.
    master: Option<OwnedFd>,
    process: Process,
}

impl Running {
    fn wait(&mut self, signals: &Signals) -> Result<u8> {
        match self.master.take() {
            Some(master) => terminal::relay(&mut self.child, master, &self.process, signals),
            None => self.child.wait(signals),
        }
    }
}

fn begin(args: &ExecArgs) -> Result<Running> {
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
    process.interactive = args.stdio.interactive && !args.detach;
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
        if args.detach && !args.stdio.tty {
            discard_output()?;
        }
        bundle.process.restrict(&user)?;
        Ok(bundle.process.command(&user, terminal))
    })?;
    // ANCHOR_END: join
    let master = child.go()?;
    Ok(Running { child, master, process: bundle.process })
}

/// Changes to a directory of the container, which may have made it a link: through /proc/self/fd/N
/// it would lead to a directory of the host that we still have open (CVE-2024-21626).
fn enter(root: &Root, workdir: &Path) -> Result<()> {
    let found = root.find(workdir)?;
    let directory = found.with_context(|| format!("no directory {} in it", workdir.display()))?;
    fchdir(&directory).with_context(|| format!("cannot change to {}", workdir.display()))
}
