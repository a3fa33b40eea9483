//! Fault drills: `cargo workshop break` opens a lab in which a container has one fault.
//!
//! A drill is a block of text in [`network`] or [`processes`]; almost all of it is shell, so what
//! breaks the lab, what checks it and what repairs it can be read, and typed, as it is. This file
//! runs them: it starts the container, takes the [`state`] of the lab, breaks it, and opens a shell
//! with the commands `check`, `hint`, `answer`. `check` wants two things: the symptom is gone, and
//! all else is as it was before the fault.

mod network;
mod processes;
pub mod state;

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::{SystemTime, UNIX_EPOCH};

use crate::exercises::learner::programs;
use crate::lab::{self, Who, is_machines_root};
use crate::text::{is_on, paragraphs, search_path, wrapped};
use anyhow::{Context as _, Result, bail, ensure};
use state::State;

/// One fault, and all that is said about it. What is shell is run by `sh` in the lab.
pub struct Drill {
    /// Its name; it tells the fault, so `--list` does not show it.
    pub name: &'static str,
    /// What `--list` shows.
    pub title: &'static str,
    /// What a user of the container complains about.
    pub ticket: &'static str,
    /// The tools without which it cannot be repaired.
    pub needs: &'static [&'static str],
    /// Whether it takes a cgroup that we may limit.
    pub limits: bool,
    /// Shell: starts the container `web`, and what else there is.
    pub up: &'static str,
    /// Shell: breaks it.
    pub fault: &'static str,
    /// Shell: fails, and prints what it saw, as long as the symptom is there.
    pub symptom: &'static str,
    /// Shell: fails, and says why, if the repair reaches too far in a way that only trying it shows.
    pub only: &'static str,
    /// How the lines of the state begin that a repair may add, or write otherwise than they were.
    pub touches: &'static [&'static str],
    /// Whether the repair has to start the container anew.
    pub restarts: bool,
    /// From the place to look at to almost the cause.
    pub hints: [&'static str; 3],
    /// The cause, and why this is its repair.
    pub answer: &'static str,
    /// Shell: the repair, as one types it.
    pub repair: &'static str,
    /// Repairs that are none: shell, and what `check` says to it.
    pub wrong: &'static [(&'static str, &'static str)],
}

/// What a drill need not say.
const PLAIN: Drill = Drill {
    name: "",
    title: "",
    ticket: "",
    needs: &[],
    limits: false,
    up: "serve --name web -p 8080:80",
    fault: "",
    symptom: "",
    only: "",
    touches: &[],
    restarts: false,
    hints: [""; 3],
    answer: "",
    repair: "",
    wrong: &[],
};

/// All drills, in the order of their numbers.
pub fn drills() -> impl Iterator<Item = &'static Drill> {
    network::DRILLS.iter().chain(processes::DRILLS)
}

/// `break [DRILL]`
#[derive(clap::Args)]
pub struct Args {
    /// The drill, by its number or name; without it, one that you are not told
    drill: Option<String>,

    /// List the drills; the titles do not tell the faults
    #[arg(long)]
    list: bool,

    /// Print the part of the book's page that is made from the drills
    #[arg(long, hide = true)]
    book: bool,

    /// What the commands in the drill's shell call
    #[arg(long, hide = true, num_args = 1.., allow_hyphen_values = true)]
    inside: Vec<String>,
}

/// Of a drill's lab: on its own /run, so it is gone with the lab.
const BASE: &str = "/run/drill";

/// What the drills' shell texts have in common: a container with our server in it.
const PRELUDE: &str = r#"
background() { { "$@" || touch /run/drill/failed; } >/dev/null 2>>/run/drill/log & }
serve() {
    background final run --rm -v "$PROBE:/probe:ro" "$@" host \
        sh -c '/probe @serve 0.0.0.0:80 & wait'
}
joinable() {
    until final exec "$1" true 2>/dev/null; do
        [ ! -e /run/drill/failed ] || exit 1
        sleep 0.1
    done
}
gets_out() {
    answer=$(final exec web /probe @get 198.51.100.1:80 2>&1)
    case $answer in *198.51.100.10*) ;; *) echo "web asked 198.51.100.1: $answer"; return 1 ;; esac
}
is_reached() {
    answer=$(probe @get "$@")
    case $answer in *hello*) ;; *) echo "a GET of $*, which web should answer: $answer"; return 1 ;; esac
}
"#;

/// Does what the command line says; returns the exit status.
pub fn main(args: &Args) -> Result<u8> {
    if let Some((command, words)) = args.inside.split_first() {
        return inside(command, words);
    }
    if args.book {
        print!("{}", book());
        return Ok(0);
    }
    if args.list {
        for (index, drill) in drills().enumerate() {
            let note = if drill.limits { " (takes a cgroup that you may limit: root)" } else { "" };
            println!("{:>2}  {}{note}", index + 1, drill.title);
        }
        return Ok(0);
    }
    let drill = choose(args.drill.as_deref())?;
    let missing = missing_tools(drill);
    ensure!(
        missing.is_empty(),
        "this drill is repaired with {}, which is not installed here (Debian's package: {}); \
         `cargo workshop break` without a number takes one that you can do",
        missing.join(" and "),
        missing.iter().map(|tool| package(tool)).collect::<Vec<_>>().join(" ")
    );
    programs()?;
    let status = lab::run(Who::of_caller(), false, || match session(drill) {
        Ok(status) => status,
        Err(error) => {
            eprintln!("error: {error:#}");
            125
        }
    })?;
    lab::take_terminal();
    Ok(u8::try_from(lab::exit_status(status)).unwrap_or(125))
}

fn choose(wanted: Option<&str>) -> Result<&'static Drill> {
    if let Some(wanted) = wanted {
        let number = wanted.parse::<usize>().ok();
        let mut all = drills().enumerate();
        let found = all.find(|(index, drill)| Some(index + 1) == number || drill.name == wanted);
        return Ok(found
            .with_context(|| format!("no drill {wanted:?}: `cargo workshop break --list` has all"))?
            .1);
    }
    let possible: Vec<_> = drills()
        .filter(|drill| (!drill.limits || is_machines_root()) && missing_tools(drill).is_empty())
        .collect();
    let now = SystemTime::now().duration_since(UNIX_EPOCH)?.subsec_nanos();
    Ok(possible[now as usize / 1000 % possible.len()])
}

fn missing_tools(drill: &Drill) -> Vec<&'static str> {
    let path = path();
    drill.needs.iter().copied().filter(|tool| !is_on(&path, tool)).collect()
}

fn package(tool: &str) -> &str {
    match tool {
        "ip" => "iproute2",
        "nft" => "nftables",
        _ => "util-linux",
    }
}

/// The commands of the drill, and all others.
fn path() -> String {
    format!("{BASE}/bin:{}:/usr/bin:/bin", search_path())
}

fn own_program() -> Result<PathBuf> {
    std::env::current_exe().context("cannot find our own program")
}

/// In the lab: starts, breaks, and lets the learner at it. Returns the shell's exit status.
fn session(drill: &Drill) -> Result<i32> {
    furnish(drill)?;
    let done = bring_up(drill).and_then(|()| {
        eprintln!(
            "{}\n\nThis is a lab: find the cause with the tools of the host (ip, nft, nsenter, ps, \
             cat /proc/...), and repair that.\nweb is a container, `final ps` lists it, and `pid web` \
             is its first process as seen from here.\n`probe @get ADDRESS:PORT` is a small curl; in \
             web it is /probe.\nThen: check. For help: hint, answer. Leave with: exit",
            wrapped(drill.ticket)
        );
        lab::lead_terminal();
        let shell = std::env::var_os("SHELL").unwrap_or_else(|| "/bin/sh".into());
        let status = Command::new(&shell)
            .env("PATH", path())
            .env("PROBE", own_program()?)
            .status()
            .with_context(|| format!("cannot execute {}", shell.display()))?;
        Ok(lab::exit_status(status))
    });
    // All else ends with the lab, but cgroups are the machine's: their runtimes remove them.
    let removed = sh("for id in $(final ps -aq); do final rm -f \"$id\"; done");
    let status = done?;
    let removed = removed?;
    ensure!(removed.status.success(), "cannot end the containers: {}", text(&removed));
    Ok(status)
}

/// Makes the commands that the shell has, and keeps which drill this is.
fn furnish(drill: &Drill) -> Result<()> {
    let bin = Path::new(BASE).join("bin");
    fs::create_dir_all(&bin).context("cannot make the drill's directory")?;
    let own = own_program()?;
    symlink(own.with_file_name("final"), bin.join("final"))?;
    symlink(&own, bin.join("probe"))?;
    for command in ["check", "hint", "answer", "pid"] {
        let script =
            format!("#!/bin/sh\nexec '{}' break --inside {command} \"$@\"\n", own.display());
        let path = bin.join(command);
        fs::write(&path, script).with_context(|| format!("cannot write {}", path.display()))?;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755))?;
    }
    Ok(fs::write(Path::new(BASE).join("name"), drill.name)?)
}

/// Starts what there is, keeps its state, breaks it, and keeps that state, too.
fn bring_up(drill: &Drill) -> Result<()> {
    let up = sh(drill.up)?;
    let ready = "joinable web; until is_reached 10.77.0.2:80; do sleep 0.1; done";
    if !up.status.success() || !sh(ready)?.status.success() {
        let log = fs::read_to_string(Path::new(BASE).join("log")).unwrap_or_default();
        let log = log.trim();
        if drill.limits {
            bail!(
                "this drill takes a cgroup that may be limited, and there is none for you: {log}\n\
                 The drills without that note in `cargo workshop break --list` work without one."
            );
        }
        bail!("the drill's containers do not start: {}{log}", text(&up));
    }
    let healthy = sh(drill.symptom)?;
    ensure!(healthy.status.success(), "broken before it was broken: {}", text(&healthy));
    State::take()?.save(&Path::new(BASE).join("healthy"))?;
    let fault = sh(drill.fault)?;
    ensure!(fault.status.success(), "cannot break it: {}", text(&fault));
    State::take()?.save(&Path::new(BASE).join("broken"))
}

/// The commands in the drill's shell.
fn inside(command: &str, words: &[String]) -> Result<u8> {
    let name = fs::read_to_string(Path::new(BASE).join("name"))
        .context("this is no drill: `cargo workshop break` starts one")?;
    let drill = choose(Some(&name))?;
    match command {
        "check" => return check(drill),
        "hint" => hint(drill)?,
        "answer" => println!("{}\n\n{}", wrapped(drill.answer), indented(drill.repair)),
        "pid" => {
            let name = words.first().context("pid takes a container's name: pid web")?;
            println!("{}", state::container(name)?.pid);
        }
        other => bail!("no command {other}"),
    }
    Ok(0)
}

/// Says whether it is repaired, and nothing else is changed; 0 if so.
fn check(drill: &Drill) -> Result<u8> {
    let symptom = sh(drill.symptom)?;
    if !symptom.status.success() {
        println!("Not repaired. {}", text(&symptom));
        return Ok(1);
    }
    let read = |name: &str| State::read(&Path::new(BASE).join(name));
    let mut wrong = State::take()?.differences(&read("healthy")?, &read("broken")?, drill);
    let only = sh(drill.only)?;
    if !only.status.success() {
        wrong.push(text(&only));
    }
    if wrong.is_empty() {
        println!("Repaired, and nothing else is changed. `answer` has the whole story.");
        return Ok(0);
    }
    println!(
        "The symptom is gone, but all else has to be as it was before the fault (- it was there, \
         + it was not):\n{}",
        indented(&wrong.join("\n"))
    );
    Ok(1)
}

/// The next hint.
fn hint(drill: &Drill) -> Result<()> {
    let path = Path::new(BASE).join("hints");
    let given = fs::read_to_string(&path).map_or(0, |marks| marks.len());
    match drill.hints.get(given) {
        Some(hint) => {
            println!("{}", wrapped(&format!("{}/{}: {hint}", given + 1, drill.hints.len())));
            fs::write(&path, "x".repeat(given + 1))?;
        }
        None => println!("That was the last hint. `answer` has the cause and the repair."),
    }
    Ok(())
}

/// Runs shell text with the drill's commands.
fn sh(script: &str) -> Result<Output> {
    let mut command = Command::new("sh");
    command.arg("-c").arg(format!("{PRELUDE}\n{script}"));
    command.env("PATH", path()).env("PROBE", own_program()?).stdin(std::process::Stdio::null());
    command.output().context("cannot run sh")
}

fn text(output: &Output) -> String {
    let both = [&output.stdout[..], &output.stderr[..]].concat();
    String::from_utf8_lossy(&both).trim().to_owned()
}

fn indented(text: &str) -> String {
    text.lines().map(|line| format!("    {line}")).collect::<Vec<_>>().join("\n")
}

/// The drills as Markdown: the second half of the book's page.
#[must_use]
pub fn book() -> String {
    let mut page = String::new();
    let details = |summary: &str, body: &str| {
        format!("<details><summary>{summary}</summary>\n\n{body}\n\n</details>\n\n")
    };
    for (index, drill) in drills().enumerate() {
        let ticket = paragraphs(drill.ticket).join("\n>\n> ");
        let number = index + 1;
        page += &format!("## {number}. {} {{#drill-{number}}}\n\n> {ticket}\n\n", drill.title);
        let hints = drill.hints.map(|hint| format!("1. {}", paragraphs(hint).concat()));
        page += &details("Hints", &hints.join("\n"));
        let answer = paragraphs(drill.answer).join("\n\n");
        let answer = format!("{answer}\n\n```sh\n{}\n```", drill.repair.trim());
        page += &details(&format!("Answer: <code>{}</code>", drill.name), &answer);
        let wrong = drill.wrong.iter();
        let wrong: Vec<_> = wrong
            .map(|(sh, says)| format!("```sh\n{}\n```\n\n`check` says: `{says}`", sh.trim()))
            .collect();
        page += &details("What is no repair", &wrong.join("\n\n"));
    }
    page.trim_end().to_owned() + "\n"
}
