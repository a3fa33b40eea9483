//! README's table of verbs and flags is what the command line says of itself, beside docker.txt.
//!
//! After a change: `BLESS=1 cargo test -p final --test readme`.

mod tested;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use clap::{Command, CommandFactory as _};
use runtime::cli::Cli;

const BEGIN: &str = "<!-- flags: BLESS=1 cargo test -p final --test readme -->\n";
const END: &str = "<!-- flags end -->\n";

type Flags = BTreeSet<String>;

/// docker's verbs, each with its flags.
fn dockers() -> BTreeMap<String, Flags> {
    let mut verbs = BTreeMap::<_, Flags>::new();
    for line in include_str!("docker.txt").lines().filter(|line| !line.starts_with('#')) {
        let (verb, flags) = line.split_once(':').expect("VERB: FLAGS");
        let flags = flags.split_whitespace().map(str::to_owned);
        verbs.entry(verb.to_owned()).or_default().extend(flags);
    }
    verbs
}

/// Our verbs, each with its flags; a flag with several names has them all.
fn ours(command: &Command, above: &str, verbs: &mut Vec<(String, Vec<Flags>)>) {
    for verb in command.get_subcommands().filter(|verb| verb.get_name() != "help") {
        let name = format!("{above} {}", verb.get_name()).trim().to_owned();
        if verb.has_subcommands() {
            ours(verb, &name, verbs);
            continue;
        }
        let flags = verb.get_arguments().filter(|flag| flag.get_long() != Some("help"));
        let names = flags.filter_map(|flag| {
            let aliases = flag.get_all_aliases().unwrap_or_default();
            Some(std::iter::once(flag.get_long()?).chain(aliases).map(str::to_owned).collect())
        });
        verbs.push((name, names.collect()));
    }
}

fn table() -> String {
    let dockers = dockers();
    let mut ours_ = Vec::new();
    ours(&Cli::command(), "", &mut ours_);
    let words = |flags: Vec<&String>| {
        let words: Vec<_> = flags.iter().map(|flag| format!("`{flag}`")).collect();
        words.join(" ")
    };
    let mut table =
        "| verb | as docker's | docker's that are not here | ours alone |\n|---|---|---|---|\n"
            .to_owned();
    for (verb, flags) in &ours_ {
        let none = Flags::new();
        let theirs = dockers.get(verb).unwrap_or(&none);
        let all: Flags = flags.iter().flatten().cloned().collect();
        let alone = flags.iter().filter(|names| names.is_disjoint(theirs));
        let alone = alone.map(|names| names.iter().next().expect("a name"));
        let mark = if dockers.contains_key(verb) { "" } else { " (ours)" };
        table += &format!(
            "| `{verb}`{mark} | {} | {} | {} |\n",
            words(theirs.intersection(&all).collect()),
            words(theirs.difference(&all).collect()),
            words(alone.collect())
        );
    }
    let missing = dockers.keys().filter(|verb| !ours_.iter().any(|(ours, _)| ours == *verb));
    format!("{table}\nVerbs of docker that are not here: {}.\n", words(missing.collect()))
}

#[test]
fn the_table_is_what_the_command_line_is() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../README.md");
    let readme = fs::read_to_string(&path).unwrap();
    let (before, rest) = readme.split_once(BEGIN).expect("the beginning of the table");
    let (shown, after) = rest.split_once(END).expect("the end of the table");
    let right = format!("\n{}\n", table());
    if std::env::var_os("BLESS").is_some() {
        fs::write(path, format!("{before}{BEGIN}{right}{END}{after}")).unwrap();
    } else {
        let fix = "README's table is another one: BLESS=1 cargo test -p final --test readme";
        assert_eq!(shown, right, "{fix}");
    }
}

#[test]
fn a_flag_that_is_missing_is_seen() {
    let table = table();
    let run = table.lines().find(|line| line.starts_with("| `run`")).unwrap();
    let columns: Vec<_> = run.split('|').collect();
    assert!(columns[2].contains("`user`") && !columns[3].contains("`user`"), "{run}");
    assert!(columns[3].contains("`gpus`") && columns[4].contains("`cgroup-rw`"), "{run}");
    // `--net` has docker's name as well.
    assert!(columns[2].contains("`network`") && !columns[4].contains("`net`"), "{run}");
    assert!(table.contains("| `gc` (ours) |"), "{table}");
    assert!(table.lines().last().unwrap().contains("`build`"), "{table}");
}

#[test]
fn every_verb_says_what_it_does_and_which_flags_it_has() {
    let mut verbs = vec![(String::new(), Vec::new())];
    ours(&Cli::command(), "", &mut verbs);
    for (verb, flags) in verbs {
        let mut program = std::process::Command::new(env!("CARGO_BIN_EXE_final"));
        let output = program.args(verb.split_whitespace()).arg("--help").output().unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        let usage = format!("Usage: final {verb}");
        assert!(output.status.success() && output.stderr.is_empty(), "{verb}: {text}");
        assert!(text.contains(usage.trim_end()) && !text.starts_with("Usage"), "{verb}: {text}");
        for names in flags {
            let is_shown = names.iter().any(|name| text.contains(&format!("--{name}")));
            assert!(is_shown, "{verb}: {names:?} not in {text}");
        }
    }
}
