//! The runner of our tests: each in a lab of its own, as each kind of user that it is for.
//!
//! A test program's `main` is [`suite`]. Run by a person or by cargo it starts itself once more
//! for each test; that second process has one thread, enters a lab, and runs the test there.
//! What the test left on the lab's host makes it fail, so no test can forget to look.

use std::io::{BufRead as _, BufReader, Read, Write as _};
use std::net::{Ipv4Addr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, ExitCode, Stdio};
use std::thread::{JoinHandle, sleep};
use std::time::{Duration, Instant};

use libtest_mimic::{Arguments, Failed, Trial};
use nix::unistd::{AccessFlags, access, geteuid};

use crate::internet::{connect_from, timed_out};
use crate::lab::{self, Who};
use crate::text::{is_on, search_path};
use crate::{by_hand, ids, probe};

/// A test: its name, who it is for, and what it does.
pub struct Test {
    /// The function's name.
    pub name: &'static str,
    /// Everybody that it has to pass for.
    pub who: &'static [Who],
    /// What the machine has to have; without it the test is not listed.
    pub needs: Needs,
    /// Programs that it is compared with, or devices (/dev/...); without them it is shown as ignored.
    pub tools: &'static [&'static str],
    /// The text of the script by-hand.sh, if it has to pass with that, too. There limits take root.
    pub by_hand: Option<&'static str>,
    /// Panics if something is not as it should be.
    pub run: fn(Who),
}

/// What a test needs of the machine, which a lab cannot fake: of its cgroups, or its file systems.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Needs {
    /// Nothing.
    Nothing,
    /// That whoever it is for can set limits: root always, a plain user with a delegated subtree.
    Limits,
    /// That he cannot.
    NoLimits,
    /// Limits, and that they are version 1's.
    Version1,
    /// Limits, and that they are version 2's.
    Version2,
    /// ID-mapped mounts of /usr and of a tmpfs, where the images of labs are.
    IdMaps,
    /// ID-mapped mounts of /var/tmp, below an overlay.
    IdMapsOnDisk,
}

impl Needs {
    /// Whether it is there for `who`. Only version 2 has delegation: to whom our own group belongs.
    fn are_met(self, who: Who) -> bool {
        let v2 = lab::has_cgroup_v2();
        let limits = who == Who::Root || (v2 && lab::owns_cgroup());
        match self {
            Self::Nothing => true,
            Self::Limits => limits,
            Self::NoLimits => !limits,
            Self::Version1 => limits && !v2,
            Self::Version2 => limits && v2,
            Self::IdMaps => ids::can_be_mapped("/usr", (6, 3)), // tmpfs: Linux 6.3
            Self::IdMapsOnDisk => ids::can_be_mapped("/var/tmp", (5, 19)), // overlayfs: 5.19
        }
    }
}

/// `test!(function, [Root, Plain])`. With what it [`Needs`] behind that: `test!(function, [Root], Limits)`,
/// or the programs: `test!(function, [Root], tools ["tar"])`; with `by_hand` at the end, what the script
/// by-hand.sh can do, too.
#[macro_export]
macro_rules! test {
    ($function:ident, [$($who:ident),+]) => {
        $crate::test!($function, [$($who),+], Nothing, None)
    };
    ($function:ident, [$($who:ident),+], by_hand) => {
        $crate::test!($function, [$($who),+], Nothing, by_hand)
    };
    ($function:ident, [$($who:ident),+], $needs:ident) => {
        $crate::test!($function, [$($who),+], $needs, None)
    };
    ($function:ident, [$($who:ident),+], $needs:ident, by_hand) => {
        $crate::test!($function, [$($who),+], $needs, Some(include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/by-hand.sh"))))
    };
    ($function:ident, [$($who:ident),+], tools [$($tool:literal),+]) => {
        $crate::suite::Test { tools: &[$($tool),+], ..$crate::test!($function, [$($who),+]) }
    };
    ($function:ident, [$($who:ident),+], $needs:ident, $script:expr) => {
        $crate::suite::Test {
            name: stringify!($function),
            who: &[$($crate::lab::Who::$who),+],
            needs: $crate::suite::Needs::$needs,
            tools: &[],
            by_hand: $script,
            run: $function,
        }
    };
}

/// Says which test this process is to run: `NAME/WHO`, or `NAME/by-hand/WHO`.
const VARIABLE: &str = "WORKSHOP_TEST";
/// A test takes a second or two, and a walk over faults one or two minutes; on a machine that is busy many
/// times that.
const PATIENCE: Duration = Duration::from_secs(600);
/// How many times longer than that, and than they say themselves, tests wait: for slow machines.
pub const PATIENCE_FACTOR: &str = "WORKSHOP_PATIENCE";

/// The time to wait for something on this machine that takes less than `usual` on most.
pub(crate) fn patience(usual: Duration) -> Duration {
    let factor = std::env::var(PATIENCE_FACTOR).ok().and_then(|factor| factor.parse().ok());
    usual * factor.unwrap_or(1)
}

/// The `main` of a test program.
#[must_use]
pub fn suite(tests: &'static [Test]) -> ExitCode {
    if let Some(status) = probe::main() {
        return status;
    }
    if let Ok(wanted) = std::env::var(VARIABLE) {
        return run_in_lab(tests, &wanted);
    }
    let root = geteuid().is_root();
    let trial = |test: &Test, mark: &str, who: Who| {
        let name = format!("{}/{mark}{}", test.name, who.name());
        let trial = Trial::test(name.clone(), move || run_apart(&name));
        let path = search_path();
        let is_there = |tool: &str| {
            if tool.starts_with("/dev/") {
                root || access(tool, AccessFlags::R_OK | AccessFlags::W_OK).is_ok()
            } else {
                is_on(&path, tool)
            }
        };
        let missing = test.tools.iter().copied().filter(|tool| !is_there(tool));
        let missing = missing.collect::<Vec<_>>().join(", ");
        let ignored = (who == Who::Root && !root) || !missing.is_empty();
        let kind = if missing.is_empty() { missing } else { format!("needs {missing}") };
        trial.with_kind(kind).with_ignored_flag(ignored)
    };
    let mut trials = Vec::new();
    for test in tests {
        let who = || test.who.iter().copied().filter(|&who| test.needs.are_met(who));
        trials.extend(who().map(|who| trial(test, "", who)));
        if let Some(script) = test.by_hand {
            let can = |who: &Who| test.needs == Needs::Nothing || *who == Who::Root;
            let by_hand = who().filter(can).map(|who| trial(test, by_hand::MARK, who));
            let skip =
                |t: Trial| if by_hand::has_tools(script) { t } else { t.with_ignored_flag(true) };
            trials.extend(by_hand.map(skip));
        }
    }
    libtest_mimic::run(&Arguments::from_args(), trials).exit_code()
}

fn run_in_lab(tests: &[Test], wanted: &str) -> ExitCode {
    let (name, who) = wanted.split_once('/').unwrap_or((wanted, ""));
    let (by_hand, who) = who.strip_prefix(by_hand::MARK).map_or((false, who), |who| (true, who));
    let who = Who::ALL.into_iter().find(|w| w.name() == who);
    let (Some(test), Some(who)) = (tests.iter().find(|test| test.name == name), who) else {
        eprintln!("no test {wanted}");
        return ExitCode::FAILURE;
    };
    let inside = || {
        // SAFETY: one thread, so nobody reads the environment at this time.
        unsafe { std::env::remove_var(VARIABLE) }; // or our probes would be tests
        let run = || match std::panic::catch_unwind(|| (test.run)(who)) {
            Ok(()) => 0,
            Err(_) => 101, // the panic's message is on stderr
        };
        match test.by_hand.filter(|_| by_hand) {
            Some(script) => by_hand::with(script, run),
            None => run(),
        }
    };
    let status = if who == Who::User { lab::without(inside) } else { lab::run(who, true, inside) };
    match status {
        Ok(status) if status.success() => ExitCode::SUCCESS,
        Ok(_) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run_apart(name: &str) -> Result<(), Failed> {
    let exe = std::env::current_exe()?;
    let outcome = run(Command::new(exe).env(VARIABLE, name).env("RUST_BACKTRACE", "0"), PATIENCE);
    if outcome.status == Some(0) {
        print!("{}", outcome.stdout); // a test that passes may have a figure to tell
        return Ok(());
    }
    Err(format!("{}{}", outcome.stdout, outcome.stderr).into())
}

/// How a command ended, and what it wrote.
#[derive(Debug, Clone)]
pub struct Outcome {
    /// Its exit status; none if a signal ended it.
    pub status: Option<i32>,
    /// What it wrote to its standard output.
    pub stdout: String,
    /// What it wrote to its standard error.
    pub stderr: String,
}

/// Runs a command to its end, with nothing to read; kills it when it takes longer than `usual`, on this
/// machine ([`PATIENCE_FACTOR`]).
pub fn run(command: &mut Command, usual: Duration) -> Outcome {
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let child = command.spawn().unwrap_or_else(|e| panic!("cannot run {command:?}: {e}"));
    finish(child, usual)
}

/// Waits for a command whose outputs are pipes.
pub fn finish(mut child: Child, usual: Duration) -> Outcome {
    let patience = patience(usual);
    let stdout = reader(child.stdout.take().expect("piped"));
    let stderr = reader(child.stderr.take().expect("piped"));
    let start = Instant::now();
    let mut late = false;
    let status = loop {
        match child.try_wait().expect("our own child") {
            Some(status) => break status,
            None if start.elapsed() > patience && !late => {
                late = true;
                let _ = child.kill();
            }
            None => sleep(Duration::from_millis(5)),
        }
    };
    let text = |bytes: JoinHandle<Vec<u8>>| {
        String::from_utf8_lossy(&bytes.join().unwrap_or_default()).into_owned()
    };
    let (stdout, mut stderr) = (text(stdout), text(stderr));
    if late {
        stderr += &format!("\n[killed: no end within {patience:?}]\n");
    }
    Outcome { status: status.code(), stdout, stderr }
}

/// Reads a pipe to its end, beside us: a full one would make its writer wait.
fn reader(mut pipe: impl Read + Send + 'static) -> JoinHandle<Vec<u8>> {
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        let _ = pipe.read_to_end(&mut bytes);
        bytes
    })
}

/// A program under test, as it is in this lab, with words for its command line; or the script that
/// does the same by hand, if that is under test.
#[must_use]
pub fn command(program: &str, words: &[&str]) -> Command {
    let program = || Command::new(lab::program(program));
    let mut command = by_hand::command().unwrap_or_else(program);
    command.args(words);
    command
}

/// This very program, as it is in this lab: in containers it is a [`probe`].
#[must_use]
pub fn this_program() -> PathBuf {
    // The link's text is the path outside of the lab; by then the lab may show another.
    lab::program(&std::env::current_exe().expect("a path").to_string_lossy())
}

/// The value of `--volume` that puts this program into a container, as /probe.
#[must_use]
pub fn probe_volume() -> String {
    format!("{}:/probe:ro", this_program().display())
}

/// Puts into an image the links that the host has beside /usr: with that as a volume it can run
/// programs.
pub fn link_to_usr(image: &Path) {
    for link in ["bin", "sbin", "lib", "lib32", "lib64", "libx32"] {
        if let Ok(target) = std::fs::read_link(Path::new("/").join(link)) {
            std::os::unix::fs::symlink(target, image.join(link)).expect("an image of our own");
        }
    }
}

/// Something that runs until it is dropped.
pub struct Running {
    child: Child,
    /// Open, or it could not print any more.
    output: BufReader<ChildStdout>,
}

impl Running {
    /// Starts it; returns also the first line that it prints, when it has done so.
    pub fn start(command: &mut Command) -> (Self, String) {
        let child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn();
        let mut child = child.unwrap_or_else(|error| panic!("cannot run {command:?}: {error}"));
        let mut output = BufReader::new(child.stdout.take().expect("piped"));
        let mut line = String::new();
        output.read_line(&mut line).expect("its output");
        (Self { child, output }, line)
    }

    /// Starts a container with `program` and options, and in it a probe that is a server; waits until
    /// that is there.
    #[must_use]
    pub fn container(program: &str, options: &[&str], server: &str) -> Self {
        let script = format!("/probe {server} & read end; exit 0");
        let volume = probe_volume();
        let words = [options, &["--volume", &volume, "sh", "-c", &script]].concat();
        let (running, line) = Self::start(&mut command(program, &words));
        assert_eq!(line, "ready\n", "{words:?}");
        running
    }

    /// Its process id.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Waits for its end, and returns its exit status.
    #[must_use]
    pub fn wait(mut self) -> Option<i32> {
        let _ = std::io::copy(&mut self.output, &mut std::io::sink()); // or it might wait for us
        self.child.wait().expect("our own child").code()
    }

    /// Kills it: a runtime cannot clean up then.
    pub fn kill(mut self) {
        self.child.kill().expect("our own child");
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        drop(self.child.stdin.take()); // the end that the container's shell reads
        let _ = std::io::copy(&mut self.output, &mut std::io::sink());
        let _ = self.child.wait();
    }
}

/// Waits until `condition` holds; panics after 20 seconds, or what is like them on this machine.
pub fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    let (start, limit) = (Instant::now(), patience(Duration::from_secs(20)));
    while !condition() {
        assert!(start.elapsed() < limit, "it never happened: {what}");
        sleep(Duration::from_millis(10));
    }
}

/// How long an answer may take.
const LIMIT: Duration = Duration::from_secs(5);

/// A GET from the lab's internet server, or from anybody; returns the whole answer.
#[must_use]
pub fn get(address: &str, path: &str) -> String {
    let address = address.parse().map_err(std::io::Error::other);
    ask(address.and_then(|address| TcpStream::connect_timeout(&address, patience(LIMIT))), path)
}

/// The same, from one of our own addresses, and with less patience: a learner waits for it.
#[must_use]
pub fn get_from(from: Ipv4Addr, address: &str, path: &str) -> String {
    let address = address.parse().map_err(std::io::Error::other);
    ask(address.and_then(|address| connect_from(from.into(), address)).map_err(timed_out), path)
}

fn ask(stream: std::io::Result<TcpStream>, path: &str) -> String {
    let ask = || -> std::io::Result<String> {
        let mut stream = stream?;
        stream.set_read_timeout(Some(patience(LIMIT)))?;
        stream.write_all(format!("GET {path} HTTP/1.0\r\n\r\n").as_bytes())?; // in one piece
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        Ok(answer)
    };
    ask().unwrap_or_else(|error| format!("error: {error}"))
}

/// A text file as the kernel shows it, without the space around it.
#[must_use]
pub fn read(path: impl AsRef<Path>) -> String {
    let path = path.as_ref();
    let text = std::fs::read_to_string(path);
    text.unwrap_or_else(|error| panic!("cannot read {}: {error}", path.display())).trim().to_owned()
}
