//! The verbs of `cargo workshop` that are about exercises.

use std::fs;
use std::io::{IsTerminal as _, stdout};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread::sleep;
use std::time::{Duration, SystemTime};

use anyhow::{Context as _, Result, bail};
use clap::Subcommand;
use colored::Colorize as _;

use super::check::{Verdict, check};
use super::learner::{DIRECTORY, Learner, cargo, original, reference};
use super::place::Place;
use super::predict;
use super::{Exercise, ROUTES, Route, STEPS, all};
use crate::text::{count, folded, wrapped};
use crate::verdict::WORDS;

/// The exercises.
#[derive(Subcommand)]
pub enum Verb {
    /// Make your own workspace: the workshop's code with holes in it
    Start {
        /// Where; not a directory that has something in it
        #[arg(default_value = DIRECTORY)]
        directory: PathBuf,

        /// Leave the steps before this one solved: step04, or 4
        #[arg(long, value_name = "STEP", value_parser = parse_step, default_value = "1")]
        from: usize,

        /// Leave all solved but the exercises of a shorter workshop
        #[arg(long, value_parser = ROUTES.map(|route| route.name))]
        route: Option<String>,
    },
    /// Try an exercise on the kernel; without a number, the next one that is not done
    Check {
        /// Its number: 1.3
        exercise: Option<String>,
    },
    /// Check on every save
    Watch,
    /// Show one more of an exercise's three hints
    Hint {
        /// Its number; without it, the next one that is not done
        exercise: Option<String>,
    },
    /// Put the reference's lines into your file; yours stay in the git log
    Solve {
        /// Its number
        exercise: String,
    },
    /// Put an exercise back to its beginning; yours stays in the git log
    Reset {
        /// Its number
        exercise: String,
    },
    /// Show your lines beside the reference's
    Diff {
        /// Its number
        exercise: String,
    },
    /// Answer a question about a step, and let the lab find who is right
    Predict {
        /// step04, or 4; without it, the step that you are at
        #[arg(value_parser = parse_step)]
        step: Option<usize>,

        /// Your prediction, for who does not want to be asked
        #[arg(long)]
        answer: Option<String>,
    },
    /// Show what is done, in how many minutes, with how many hints
    Progress,
    /// Solve all that comes before a step, and go on from there
    Catchup {
        /// step04, or 4
        #[arg(value_parser = parse_step)]
        step: usize,
    },
    /// Fetch and build everything, so that the rest works without a network
    Prefetch,
}

fn parse_step(text: &str) -> Result<usize> {
    let number = text.strip_prefix("step").unwrap_or(text);
    let number = if number == "final" { "6" } else { number };
    let step = number.parse().ok().filter(|step| (1..=STEPS.len()).contains(step));
    step.with_context(|| format!("{text:?} is no step: these are step01 to step05, and final"))
}

/// Does what the verb says.
pub fn run(verb: Verb) -> Result<u8> {
    let done = 0;
    match verb {
        Verb::Start { directory, from, route } => {
            let route = ROUTES.iter().find(|known| Some(known.name) == route.as_deref());
            start(&directory, from, route)?;
        }
        Verb::Check { exercise } => {
            let learner = Learner::find()?;
            let Some(exercise) = choose(&learner, exercise.as_deref())? else {
                println!("All exercises are done: `cargo run -p final -- run` is yours.");
                return Ok(done);
            };
            return Ok(if check_one(&learner, exercise)? { done } else { 1 });
        }
        Verb::Watch => watch(&Learner::find()?)?,
        Verb::Hint { exercise } => hint(&Learner::find()?, exercise.as_deref())?,
        Verb::Solve { exercise } => solve(&Learner::find()?, by_id(&exercise)?)?,
        Verb::Reset { exercise } => {
            let (learner, exercise) = (Learner::find()?, by_id(&exercise)?);
            let start = original(exercise)?.start(exercise);
            learner.replace(exercise, &start, "reset")?;
            println!("Exercise {} is as it was; your lines are in the git log.", exercise.id);
        }
        Verb::Diff { exercise } => diff(&Learner::find()?, by_id(&exercise)?)?,
        Verb::Predict { step, answer } => {
            let step = step.map_or_else(|| at_step(&Learner::find()?), Ok)?;
            return predict::run(step, answer);
        }
        Verb::Progress => progress(&Learner::find()?)?,
        Verb::Catchup { step } => catch_up(&Learner::find()?, step)?,
        Verb::Prefetch => prefetch()?,
    }
    Ok(done)
}

fn by_id(id: &str) -> Result<&'static Exercise> {
    let found = all().find(|exercise| exercise.id == id);
    found.with_context(|| {
        let all: Vec<_> = all().map(|exercise| exercise.id).collect();
        format!("there is no exercise {id:?}; these are {}", all.join(", "))
    })
}

fn choose(learner: &Learner, id: Option<&str>) -> Result<Option<&'static Exercise>> {
    id.map_or_else(|| learner.next(), |id| by_id(id).map(Some))
}

fn at_step(learner: &Learner) -> Result<usize> {
    Ok(learner.next()?.map_or(STEPS.len(), Exercise::step).min(predict::QUESTIONS.len()))
}

fn start(directory: &Path, from: usize, route: Option<&Route>) -> Result<()> {
    let on_route = |id| route.is_none_or(|route| route.exercises.contains(&id));
    let learner = Learner::start(directory, |e| e.step() >= from && on_route(e.id))?;
    let directory = learner.directory.display();
    println!(
        "Your workspace is {directory}: the workshop's code, with holes for you to fill.\n\
         What you write there is what runs. It is built now, once; then a check takes seconds."
    );
    learner.build()?;
    println!("\nBegin with:\n\n    cd {directory}\n    cargo workshop check");
    Ok(())
}

/// Checks, and says what came out; whether it passed.
fn check_one(learner: &Learner, exercise: &'static Exercise) -> Result<bool> {
    let place = learner.place(exercise)?;
    learner.ensure_tests_are_ours(exercise)?;
    println!("{}", heading(exercise, &place));
    match check(&learner.directory, exercise)? {
        Verdict::DoesNotCompile => {
            println!("\nIt does not compile: the compiler says why, above.");
            return Ok(false);
        }
        Verdict::NotWritten(id) if id == exercise.id => println!(
            "\n{}\n\nWrite it in {}, line {}, in place of the todo!; then check again. \
             Stuck? cargo workshop hint",
            wrapped(exercise.task),
            place.file.display(),
            place.line()
        ),
        Verdict::NotWritten(id) => {
            println!("\nIts tests came to exercise {id}, which is not written.");
        }
        Verdict::Failed(finding) => {
            if is_untouched(exercise, &place)? {
                println!("\n{}", wrapped(exercise.task));
            }
            println!("\n{} {} ({})", "no:".red(), finding.test, finding.who);
            finding.text.lines().for_each(|line| println!("  {}", emphasize(line)));
            println!("\nStuck? cargo workshop hint {}", exercise.id);
        }
        Verdict::Passed(tests) => {
            println!("{} {} on this kernel", "yes:".green(), count(tests, "test"));
            if learner.done(exercise)? {
                what_next(learner, exercise)?;
            }
            return Ok(true);
        }
    }
    if learner.reopen(exercise)? {
        println!("It was done, and is to be done again now.");
    }
    Ok(false)
}

fn is_untouched(exercise: &Exercise, place: &Place) -> Result<bool> {
    Ok(original(exercise)?.start(exercise) == place.body)
}

fn what_next(learner: &Learner, exercise: &Exercise) -> Result<()> {
    let next = learner.next()?;
    if next.is_none_or(|next| next.step() != exercise.step()) {
        let package = exercise.package();
        println!(
            "{package} is yours now. All its tests: cargo test -p {package}\n\
             And your own program: cargo run -p {package}"
        );
    }
    match next {
        Some(next) => println!("Next: {} {}", next.id, next.title),
        None => {
            println!("That was the last one: `cargo run -p final -- run` is a container of yours.");
        }
    }
    Ok(())
}

fn heading(exercise: &Exercise, place: &Place) -> String {
    let Exercise { id, title, .. } = exercise;
    let title = format!("{id}  {title}").bold();
    format!("{title}  ({}:{})", place.file.display(), place.line())
}

fn emphasize(line: &str) -> String {
    match WORDS.iter().find_map(|&word| Some((word, line.strip_prefix(word)?))) {
        Some((word, rest)) => {
            let rest = folded(rest, 78).replace('\n', "\n            ");
            format!("{}{rest}", format!("{word:<10}").bold())
        }
        None => line.to_owned(),
    }
}

fn watch(learner: &Learner) -> Result<()> {
    loop {
        let seen = last_change(&learner.directory);
        let Some(exercise) = learner.next()? else {
            println!("All exercises are done.");
            return Ok(());
        };
        print!("{}", if stdout().is_terminal() { "\x1b[2J\x1b[H" } else { "\n" });
        if check_one(learner, exercise).inspect_err(|error| println!("{error:#}")).unwrap_or(false)
        {
            sleep(Duration::from_secs(2)); // to be read, before the next one's task comes
            continue;
        }
        println!("\nWaiting for you to save a file; Ctrl-C ends.");
        while last_change(&learner.directory) == seen {
            sleep(Duration::from_millis(200));
        }
    }
}

/// When a source file of the learner's was last written.
fn last_change(directory: &Path) -> Option<SystemTime> {
    fn newest(directory: &Path) -> Option<SystemTime> {
        let entries = fs::read_dir(directory).ok()?.flatten();
        entries
            .filter_map(|entry| {
                if entry.file_type().ok()?.is_dir() {
                    newest(&entry.path())
                } else {
                    entry.metadata().ok()?.modified().ok()
                }
            })
            .max()
    }
    STEPS.iter().filter_map(|step| newest(&directory.join(step).join("src"))).max()
}

fn hint(learner: &Learner, id: Option<&str>) -> Result<()> {
    let exercise = choose(learner, id)?.context("all exercises are done: no hints are left")?;
    let asked = learner.records()?.get(exercise.id).map_or(0, |record| record.hints);
    println!("{}", heading(exercise, &learner.place(exercise)?));
    let shown = (asked + 1).min(exercise.hints.len());
    for (number, hint) in exercise.hints.iter().enumerate().take(shown) {
        println!("\n{}\n{}", format!("Hint {} of 3", number + 1).bold(), wrapped(hint));
    }
    if asked < exercise.hints.len() {
        learner.note(&format!("{}: hint {}", exercise.id, asked + 1))?;
    } else {
        println!("\nThat is all. The answer: cargo workshop solve {}", exercise.id);
    }
    Ok(())
}

fn solve(learner: &Learner, exercise: &'static Exercise) -> Result<()> {
    let given = learner.give(exercise)?;
    println!("{}\n\n{}", heading(exercise, &given), given.body);
    println!("These lines are in your file now; yours are in the git log.");
    Ok(())
}

fn diff(learner: &Learner, exercise: &Exercise) -> Result<()> {
    let directory = std::env::temp_dir().join(format!("workshop-diff-{}", std::process::id()));
    fs::create_dir(&directory).with_context(|| format!("cannot make {}", directory.display()))?;
    let shown = (|| -> Result<()> {
        fs::write(directory.join("yours"), learner.place(exercise)?.body)?;
        fs::write(directory.join("reference"), original(exercise)?.body)?;
        let mut git = Command::new("git");
        git.args(["diff", "--no-index", "--no-ext-diff", "yours", "reference"]);
        git.current_dir(&directory).status().context("cannot run git")?;
        Ok(())
    })();
    fs::remove_dir_all(&directory)?;
    shown
}

fn progress(learner: &Learner) -> Result<()> {
    let records = learner.records()?;
    println!("{:<5} {:<46} {:>7} {:>7} {:>5}  state", "", "", "planned", "minutes", "hints");
    let (mut planned, mut done, mut given) = (0, 0, 0);
    for exercise in all() {
        let record = records.get(exercise.id).copied().unwrap_or_default();
        let (state, minutes) = match (record.done, record.given) {
            (Some(_), answered) => {
                done += 1;
                let state = if answered { "done, with the answer" } else { "done" };
                (state, record.minutes.to_string())
            }
            (None, true) => {
                given += 1;
                ("given", "-".into())
            }
            (None, false) => {
                planned += exercise.minutes;
                ("", "-".into())
            }
        };
        let Exercise { id, title, minutes: plan, .. } = exercise;
        println!("{id:<5} {title:<46} {plan:>7} {minutes:>7} {:>5}  {state}", record.hints);
    }
    let yours = all().count() - given;
    println!("{done} of {yours} done, {given} given; about {planned} minutes to go");
    Ok(())
}

fn catch_up(learner: &Learner, step: usize) -> Result<()> {
    let open = learner.open()?.into_iter().filter(|exercise| exercise.step() < step);
    let given = open.map(|exercise| learner.give(exercise)).collect::<Result<Vec<_>>>()?.len();
    println!(
        "Solved for you: {}; what you had written is in the git log.",
        count(given, "exercise")
    );
    Ok(())
}

fn prefetch() -> Result<()> {
    cargo(reference(), &["fetch", "--locked"])?;
    cargo(reference(), &["build", "--workspace", "--all-targets", "--offline"])?;
    if Command::new("git").arg("--version").output().is_err() {
        bail!("git is missing, which `cargo workshop start` needs: install it now");
    }
    println!("Everything is here: from now on no network is needed.");
    Ok(())
}
