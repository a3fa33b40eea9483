//! The attacks: what somebody does who is in a container and wants out.
//!
//! They are in this test program, which is put into the containers: `/probe !NAME WORDS...`. Each prints
//! what it has got, or ends with the error that stopped it.

mod files;
mod kernel;
mod neighbours;

use std::fs;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Command, ExitCode};
use std::time::Duration;

use anyhow::{Result, bail};
use nix::sys::ptrace;
use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, Uid, setuid};

use files::*;
use kernel::*;
use neighbours::*;

/// What mount(2) is not told.
const NONE: Option<&str> = None;
/// How long somebody lies in wait; only a test that fails lets them.
const WAIT: Duration = Duration::from_secs(170);

/// Does what the command line says, if it names an attack.
pub fn main() -> Option<ExitCode> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let name = words.first()?.strip_prefix('!')?;
    let words: Vec<_> = words[1..].iter().map(String::as_str).collect();
    Some(match attack(name, &words) {
        Ok(got) => {
            println!("{got}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("attack: {error:#}");
            ExitCode::FAILURE
        }
    })
}

fn attack(name: &str, words: &[&str]) -> Result<String> {
    match (name, words) {
        ("climb", [secret, jail @ ..]) => climb(Path::new(secret), jail.first()),
        ("walk", [secret]) => walk(Path::new(secret)),
        ("careless", [jail, what, path, rest @ ..]) => careless(jail, what, path, rest),
        ("chmod-exe", []) => chmod_exe("self"),
        ("chmod-exes", []) => chmod_exes(),
        ("look-into", [pid, secret]) => look_into(pid, secret),
        ("look-into-all", [secret]) => look_into_all(secret),
        ("join", [pid]) => join(pid),
        ("masks", paths) => masks(paths),
        ("mounts", [root]) => mounts_of(root),
        ("handle", [volume, handle]) => handle_in(volume, handle),
        ("disk", [directory, kind, major, minor]) => {
            disk(Path::new(directory), kind, major.parse()?, minor.parse()?)
        }
        ("become", [id, program, args @ ..]) => {
            setuid(Uid::from_raw(id.parse()?))?;
            Err(Command::new(program).args(args).exec().into())
        }
        ("setting", [path]) => setting(path),
        ("cgroup", [options]) => cgroup(options),
        ("peek", []) => peek(),
        ("key", [name]) => key(name),
        ("user-namespace", []) => user_namespace(),
        ("calls", []) => Ok(calls()),
        ("old-door", []) => old_door(),
        ("inheritable", []) => inheritable(),
        ("signal", [pid]) => {
            kill(Pid::from_raw(pid.parse()?), Signal::SIGTERM)?;
            Ok("signalled".into())
        }
        ("trace", [pid]) => {
            ptrace::seize(Pid::from_raw(pid.parse()?), ptrace::Options::empty())?;
            Ok("traced".into()) // and let go of with our end
        }
        ("type", [text]) => type_in(text),
        ("listen", []) => listen(),
        ("connect", [name]) => connect(name),
        ("advertise", [prefix]) => advertise(prefix),
        _ => bail!("no attack {name} with {words:?}"),
    }
}

/// All processes that we see but ourselves.
fn others() -> Result<Vec<String>> {
    let own = std::process::id().to_string();
    let names =
        fs::read_dir("/proc")?.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    Ok(names.filter(|name| *name != own && name.parse::<u32>().is_ok()).collect())
}
