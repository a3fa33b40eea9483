//! `cargo workshop matrix`: every test, on two kernels, as root and as a plain user.
//!
//! The kernels are this one and Debian's in the virtual machine (`.ci/vm`), which has cgroup version
//! 2 as systemd mounts it. The plain user is one all the way: the test programs are started as user
//! 1000, and there is no root above them. On version 2 part of the tree is delegated to him, as
//! systemd does, and before that he meets a tree of which nothing is his.
//!
//! The programs are built once, here. A cell that cannot run is a failure, and so is one that has run
//! fewer tests than it should: a test that its machine cannot run is not listed there (see
//! [`Needs`](crate::suite::Needs)), and nobody would miss it.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::os::unix::fs::chown;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Context as _, Result, bail, ensure};
use clap::ValueEnum;
use nix::unistd::geteuid;
use serde_json::Value;

use crate::lab::{self, PLAIN_USER};
use crate::suite::PATIENCE_FACTOR;

/// Whom a cell is about.
#[derive(ValueEnum, Debug, Clone, Copy, PartialEq, Eq)]
pub enum User {
    /// The tests that are for root of the machine.
    Root,
    /// All others, by a plain user: in a lab where he is root, and in one where he is not.
    Plain,
}

/// Test programs that are not about the kernel, and so in no cell but the first.
const NO_KERNEL: [(&str, &str); 2] = [
    ("proof", "about the texts of the exercises; the tests of the exercises are in every cell"),
    ("book", "about the book's checker; the pages themselves are checked by `cargo workshop book`"),
];

/// What is left out in the virtual machine, where all takes ten times as long, and some things more than
/// a test may: a test program, a word in the names of its tests, and why that is no loss.
const TOO_SLOW: [(&str, &str, &str); 7] = [
    (
        "rootfs",
        "by-hand",
        "the script starts many programs; those of steps 1 and 2 are tried there",
    ),
    ("bridge", "by-hand", "likewise"),
    ("nat", "by-hand", "likewise, some hundred"),
    (
        "drills",
        "",
        "each looks at the lab until what it broke is seen, and the kernel's part is in the others",
    ),
    ("faults", "", "a walk runs a container for each fault point: hours there"),
    ("images", "bombs", "a million files are unpacked before the limit is met"),
    (
        "hostile",
        "nonsense",
        "hundreds of command lines, which are refused before the kernel is asked",
    ),
];

/// Kernel (whether it is Debian's), user, and how many tests there are at least.
const CELLS: [(bool, User, usize); 4] = [
    (false, User::Root, 435),
    (false, User::Plain, 585),
    (true, User::Root, 375),
    (true, User::Plain, 540),
];

/// What a cell's first line begins with.
const KERNEL: &str = "kernel: ";

/// Runs all four cells and prints the table; whether all was well.
pub fn run() -> Result<bool> {
    ensure!(geteuid().is_root(), "run it as root: half of the table is about root");
    // Before the build, which may put another file in its place: then the kernel calls ours deleted.
    let program = std::env::current_exe().context("cannot find our own program")?;
    let suites = build()?;
    let mut rows = [describe_kernel(), "the virtual machine".into()].map(|k| (k, String::new()));
    let mut well = true;
    for (debian, user, least) in CELLS {
        let start = Instant::now();
        let mut command = cell_command(debian, user, &program, &suites);
        let ended = watch(command.current_dir(workspace()), user)
            .with_context(|| format!("cannot run {command:?}"))?;
        let (kernel, cells) = &mut rows[usize::from(debian)];
        *kernel = ended.kernel.unwrap_or(std::mem::take(kernel));
        let problem = match (ended.success, ended.left_out, ended.tests) {
            (false, _, _) => Some("FAILED".into()),
            (_, 1.., _) => Some(format!("{} LEFT OUT", ended.left_out)),
            (_, _, tests) if tests < least => Some(format!("LESS THAN {least}")),
            _ => None,
        };
        well &= problem.is_none();
        let remark = problem.unwrap_or_else(|| format!("in {} s", start.elapsed().as_secs()));
        *cells += &format!("{:>24}", format!("{} {remark}", ended.tests));
    }
    println!("\n{:40}{:>24}{:>24}", "tests passed", "root", "plain user");
    for (kernel, cells) in &rows {
        println!("{kernel:40}{cells}");
    }
    for (program, why) in NO_KERNEL {
        println!("only in the first cell: {program}, {why}");
    }
    for (program, tests, why) in TOO_SLOW {
        println!("not in the virtual machine: {program}'s tests {tests:?}, {why}");
    }
    ensure!(rows[1].0.ends_with("version 2"), "no cgroup version 2 in {}", rows[1].0);
    Ok(well)
}

/// Root on this kernel is README's own command. (It also runs what a plain user would, as root who
/// becomes one in each lab; that is not counted.)
fn cell_command(debian: bool, user: User, program: &Path, suites: &[PathBuf]) -> Command {
    if !debian && user == User::Root {
        let mut cargo = Command::new("cargo");
        cargo.args(["test", "--workspace", "--no-fail-fast"]);
        return cargo;
    }
    let mut command = if debian { Command::new(".ci/vm") } else { Command::new(program) };
    command.env("VM_TIMEOUT", "1h");
    command.args(debian.then_some(program)).arg("cell").args(debian.then_some("--emulated"));
    command.arg(if user == User::Root { "root" } else { "plain" }).args(suites);
    command
}

fn workspace() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("a crate of the workspace")
}

/// Builds the test programs of all crates' `tests/`.
fn build() -> Result<Vec<PathBuf>> {
    let cargo = Command::new("cargo")
        .args(["test", "--workspace", "--no-run", "--message-format=json-render-diagnostics"])
        .current_dir(workspace())
        .stderr(Stdio::inherit())
        .output()
        .context("cannot run cargo")?;
    ensure!(cargo.status.success(), "cannot build the tests");
    let mut suites = Vec::new();
    for line in cargo.stdout.split(|&byte| byte == b'\n').filter(|line| !line.is_empty()) {
        let message: Value = serde_json::from_slice(line).context("cannot read cargo's answer")?;
        let about_kernel = |name: &Value| NO_KERNEL.iter().all(|(program, _)| name != program);
        if message["target"]["kind"][0] == "test"
            && about_kernel(&message["target"]["name"])
            && let Some(program) = message["executable"].as_str()
        {
            suites.push(program.into());
        }
    }
    ensure!(!suites.is_empty(), "cargo names no test program");
    Ok(suites)
}

struct Ended {
    success: bool,
    tests: usize,
    /// Of the user's tests; for lack of a tool.
    left_out: usize,
    kernel: Option<String>,
}

/// Shows what the command writes, and counts the user's tests in it.
fn watch(command: &mut Command, user: User) -> Result<Ended> {
    println!("\n== {command:?}");
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn()?;
    let (mut tests, mut left_out, mut kernel) = (0, 0, None);
    for line in BufReader::new(child.stdout.take().expect("piped")).split(b'\n') {
        let line = String::from_utf8_lossy(&line?).into_owned();
        println!("{line}");
        kernel = line.strip_prefix(KERNEL).map(str::to_owned).or(kernel);
        let mut words = line.split_whitespace();
        let name = words.next().filter(|&word| word == "test").and_then(|_| words.next());
        let who = name.and_then(|name| name.rsplit_once('/')).map(|(_, who)| who);
        let counts = who.is_some_and(|who| (who == "root") == (user == User::Root));
        match words.nth(1).filter(|_| counts) {
            Some("ok") => tests += 1,
            Some("ignored") => left_out += 1,
            _ => {}
        }
    }
    Ok(Ended { success: child.wait()?.success(), tests, left_out, kernel })
}

fn describe_kernel() -> String {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let version = if lab::has_cgroup_v2() { "version 2" } else { "version 1" };
    format!("{}, cgroup {version}", release.trim())
}

/// One cell, by root of the machine that it is about.
pub fn cell(user: User, emulated: bool, suites: &[PathBuf]) -> Result<bool> {
    ensure!(geteuid().is_root(), "only root can become both users");
    println!("{KERNEL}{}", describe_kernel());
    let tree = lab::has_cgroup_v2().then(Tree::make).transpose()?;
    let well = run_as(user, emulated, suites, tree.as_ref());
    tree.map_or(Ok(()), Tree::remove)?;
    well
}

fn run_as(user: User, emulated: bool, suites: &[PathBuf], tree: Option<&Tree>) -> Result<bool> {
    let run_suites = |filter: &str| run_suites(suites, user, emulated, filter);
    let enter = |place: &str| tree.map_or(Ok(()), |tree| tree.enter(place));
    enter(LOGIN)?;
    if user == User::Root {
        return run_suites("/root");
    }
    lab::show_programs()?;
    lab::open_tun()?;
    let refused = tree.is_none() || run_suites("undelegated")?;
    enter(SCOPE)?;
    Ok(run_suites("")? && refused)
}

fn run_suites(suites: &[PathBuf], user: User, emulated: bool, filter: &str) -> Result<bool> {
    let mut well = true;
    for suite in suites {
        let program = lab::program(&suite.to_string_lossy());
        println!("\n{} {filter}", program.display());
        let mut command = Command::new(&program);
        command.args(["--test-threads=2", filter]);
        if emulated {
            command.env(PATIENCE_FACTOR, "5");
        }
        let name = program.file_name().unwrap_or_default().to_string_lossy(); // with a hash behind it
        for (slow, tests, _) in TOO_SLOW {
            if emulated && name.rsplit_once('-').is_some_and(|(name, _)| name == slow) {
                command.args(["--skip", tests]);
            }
        }
        if user == User::Plain {
            // With the uid the supplementary groups go, too.
            command.uid(PLAIN_USER).gid(PLAIN_USER).env("HOME", "/").env_remove("XDG_RUNTIME_DIR");
        }
        let status = command.status();
        well &= status.with_context(|| format!("cannot run {}", program.display()))?.success();
    }
    Ok(well)
}

/// The cgroups of a cell, in the shape that systemd gives them: a login's is root's, and in the
/// user's own service he may do as he likes (`Delegate=`, <https://systemd.io/CGROUP_DELEGATION>).
/// Processes are in the leaves only.
struct Tree {
    top: PathBuf,
    before: PathBuf,
}

const LOGIN: &str = "session-2.scope";
const SERVICE: &str = "user@1000.service";
const SLICE: &str = "user@1000.service/app.slice";
const SCOPE: &str = "user@1000.service/app.slice/run.scope";

impl Tree {
    fn make() -> Result<Self> {
        let root = Path::new("/sys/fs/cgroup");
        let own = fs::read_to_string("/proc/self/cgroup").context("cannot read our cgroup")?;
        let own = own.lines().find_map(|line| line.strip_prefix("0::/")).context("no cgroup")?;
        let tree = Self { top: root.join("workshop-matrix"), before: root.join(own) };
        let mut place = tree.top.join(SCOPE);
        fs::create_dir_all(&place).with_context(|| format!("cannot make {}", place.display()))?;
        fs::create_dir(tree.top.join(LOGIN))?;
        // What the system's systemd does for a `Delegate=cpu cpuset memory pids`, and the user's in turn.
        for above in [root, &tree.top, &tree.top.join(SERVICE), &tree.top.join(SLICE)] {
            let control = above.join("cgroup.subtree_control");
            fs::write(&control, "+cpu +cpuset +memory +pids")
                .with_context(|| format!("cannot switch controllers on in {}", above.display()))?;
        }
        while place != tree.top {
            for file in ["", "cgroup.procs", "cgroup.threads", "cgroup.subtree_control"] {
                chown(place.join(file), Some(PLAIN_USER), Some(PLAIN_USER))?;
            }
            place.pop();
        }
        Ok(tree)
    }

    fn enter(&self, place: &str) -> Result<()> {
        move_to(&self.top.join(place))
    }

    /// Fails if the tests have left something in it.
    fn remove(self) -> Result<()> {
        move_to(&self.before)?;
        for place in [LOGIN, SCOPE, SLICE, SERVICE, ""] {
            let path = self.top.join(place);
            if let Err(error) = fs::remove_dir(&path) {
                bail!("cannot remove {}: {error}: have the tests left a cgroup?", path.display());
            }
        }
        Ok(())
    }
}

fn move_to(group: &Path) -> Result<()> {
    let file = group.join("cgroup.procs");
    fs::write(&file, "0").with_context(|| format!("cannot move into {}", group.display()))
}
