//! The learner's own workspace: the reference with holes, and a git repository that remembers what
//! was done in it.

use std::collections::HashMap;
use std::fs;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use anyhow::{Context as _, Result, bail, ensure};

use super::check::build;
use super::place::Place;
use super::{Exercise, STEPS, all};
use crate::lab::build_directory;

/// Where it is, if nobody says otherwise.
pub const DIRECTORY: &str = "my-container";

/// The learner's workspace.
#[derive(Debug)]
pub struct Learner {
    /// Its directory.
    pub directory: PathBuf,
}

/// What the repository remembers of an exercise.
#[derive(Debug, Clone, Copy, Default)]
pub struct Record {
    /// When it was done, in seconds since 1970.
    pub done: Option<u64>,
    /// How many minutes it was the learner's next one.
    pub minutes: u64,
    /// How many hints were asked for.
    pub hints: usize,
    /// Whether the reference's body was put in.
    pub given: bool,
}

/// The clone of the workshop that this program was built from.
#[must_use]
pub fn reference() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the workspace above the crate")
}

/// The exercise's lines in the reference.
pub fn original(exercise: &Exercise) -> Result<Place> {
    Place::find(reference(), exercise.id)
}

fn is_learners(directory: &Path) -> bool {
    directory.join(NOTE).exists()
}

/// The learner's workspace that this directory is, or is in.
fn workspace_around(directory: &Path) -> Option<&Path> {
    directory.ancestors().find(|directory| is_learners(directory))
}

impl Learner {
    /// The workspace that we are in, or else my-container/ in the clone.
    pub fn find() -> Result<Self> {
        let here = std::env::current_dir().context("the current directory is gone")?;
        let in_clone = reference().join(DIRECTORY);
        let found = workspace_around(&here).or_else(|| Some(&*in_clone).filter(|d| is_learners(d)));
        let directory = found
            .map(Path::to_owned)
            .context("there is no workspace of yours yet: make it with `cargo workshop start`")?;
        Ok(Self { directory })
    }

    /// Writes a new one, in which the exercises that are `open` are to be done.
    pub fn start(directory: &Path, open: impl Fn(&Exercise) -> bool) -> Result<Self> {
        let empty = fs::read_dir(directory).map_or(true, |mut entries| entries.next().is_none());
        ensure!(
            empty,
            "{} is not empty, and may be your work: choose another directory, or remove it",
            directory.display()
        );
        let within = std::path::absolute(directory)?;
        if let Some(other) = within.parent().and_then(workspace_around) {
            bail!(
                "{} is your workspace already: go on there, with cargo workshop check",
                other.display()
            );
        }
        ensure!(
            !reference().as_os_str().as_encoded_bytes().iter().any(u8::is_ascii_whitespace),
            "the clone is in {}; cargo's aliases take no path with a space: move it to another",
            reference().display()
        );
        git(Path::new("."), &["--version"])?;
        fs::create_dir_all(directory)
            .with_context(|| format!("cannot make {}", directory.display()))?;
        let directory = directory.canonicalize()?;
        for step in STEPS {
            copy(&reference().join(step), &directory.join(step))?;
        }
        for file in ["Cargo.lock", "rustfmt.toml"] {
            fs::copy(reference().join(file), directory.join(file))?;
        }
        write(&directory.join("Cargo.toml"), &manifest(&directory)?)?;
        write(&directory.join(NOTE), NOTE_TEXT)?;
        write(&directory.join(".gitignore"), "/target/\n")?;
        fs::create_dir(directory.join(".cargo"))?;
        write(&directory.join(".cargo/config.toml"), &cargo_config())?;
        for exercise in all().filter(|exercise| open(exercise)) {
            let mut place = Place::find(&directory, exercise.id)?;
            let start = place.start(exercise);
            place.write(&directory, &start)?;
        }
        let learner = Self { directory };
        learner.git(&["init", "-q"])?;
        learner.commit("start")?;
        for exercise in all().filter(|exercise| !open(exercise)) {
            learner.note(&format!("{}: given", exercise.id))?;
        }
        Ok(learner)
    }

    /// The exercise's lines in the learner's file.
    pub fn place(&self, exercise: &Exercise) -> Result<Place> {
        Place::find(&self.directory, exercise.id)
    }

    /// Puts another body into the learner's file; what was there is in a commit before it.
    pub fn replace(&self, exercise: &Exercise, body: &str, why: &str) -> Result<()> {
        self.commit(&format!("{}: before {why}", exercise.id))?;
        if self.place(exercise).is_err() {
            self.renew(exercise)?;
        }
        self.place(exercise)?.write(&self.directory, body)?;
        self.commit(&format!("{}: {why}", exercise.id))
    }

    /// Puts the reference's body into the learner's file, and returns that.
    pub fn give(&self, exercise: &Exercise) -> Result<Place> {
        let original = original(exercise)?;
        self.replace(exercise, &original.body, "solved by the reference")?;
        self.note(&format!("{}: given", exercise.id))?;
        Ok(original)
    }

    /// Begins the file anew whose markers are gone, with the other exercises in it as they are.
    fn renew(&self, lost: &Exercise) -> Result<()> {
        let mut fresh = original(lost)?;
        let others = all().filter_map(|other| Some((other, self.place(other).ok()?)));
        let kept: Vec<_> = others.filter(|(_, place)| place.file == fresh.file).collect();
        let body = fresh.body.clone();
        fresh.write(&self.directory, &body)?;
        for (other, mine) in kept {
            self.place(other)?.write(&self.directory, &mine.body)?;
        }
        Ok(())
    }

    /// What the repository remembers.
    pub fn records(&self) -> Result<HashMap<String, Record>> {
        let log = self.git(&["log", "--reverse", "--format=%ct %s"])?;
        let mut records: HashMap<String, Record> = HashMap::new();
        let mut last = None;
        for line in String::from_utf8_lossy(&log.stdout).lines() {
            let Some((time, event)) = line.split_once(' ') else { continue };
            let time = time.parse::<u64>().unwrap_or_default();
            if event == "start" {
                last = Some(time);
            }
            let Some((id, event)) = event.split_once(": ") else { continue };
            let record = records.entry(id.to_owned()).or_default();
            match event {
                "done" if record.done.is_none() => {
                    record.done = Some(time);
                    record.minutes = (time - last.unwrap_or(time)) / 60;
                    last = Some(time);
                }
                "given" => record.given = true,
                "open" | "reset" => *record = Record::default(),
                event if event.starts_with("hint ") => record.hints += 1,
                _ => {}
            }
        }
        Ok(records)
    }

    /// The exercises that are neither done nor given.
    pub fn open(&self) -> Result<Vec<&'static Exercise>> {
        let records = self.records()?;
        let is_open = |exercise: &&Exercise| {
            records.get(exercise.id).is_none_or(|record| record.done.is_none() && !record.given)
        };
        Ok(all().filter(is_open).collect())
    }

    /// The first of them; `None` after the last.
    pub fn next(&self) -> Result<Option<&'static Exercise>> {
        Ok(self.open()?.into_iter().next())
    }

    /// Builds the tests of all exercises, which takes a minute once; after it a check takes seconds.
    /// Each as the check will: what cargo builds of a crate depends on who else is built.
    pub fn build(&self) -> Result<()> {
        cargo(&self.directory, &["fetch", "-q"])?;
        for package in STEPS {
            println!("  {package}");
            let built = build(&self.directory, package, Stdio::inherit())?;
            built.with_context(|| format!("{package} does not compile: see above"))?;
        }
        Ok(())
    }

    /// That the exercise's tests are those that the workspace began with.
    pub fn ensure_tests_are_ours(&self, exercise: &Exercise) -> Result<()> {
        let start = self.git(&["rev-list", "--max-parents=0", "HEAD"])?.stdout;
        let start = String::from_utf8_lossy(&start).trim().to_owned();
        let tests = format!("{}/tests", exercise.package());
        let changed = self.git(&["diff", "--name-only", &start, "--", &tests])?.stdout;
        let changed = String::from_utf8_lossy(&changed).lines().collect::<Vec<_>>().join(" ");
        ensure!(
            changed.is_empty(),
            "{changed} was changed, so what it says means nothing; bring it back, in {}: \
             git checkout {start} -- {changed}",
            self.directory.display()
        );
        Ok(())
    }

    /// Remembers something that changes no file.
    pub fn note(&self, event: &str) -> Result<()> {
        self.git(&["commit", "-q", "--allow-empty", "-m", event]).map(drop)
    }

    /// Commits all that has changed; nothing, if nothing has.
    pub fn commit(&self, event: &str) -> Result<()> {
        self.git(&["add", "--all"])?;
        let changed = !self.git(&["status", "--porcelain"])?.stdout.is_empty();
        if changed { self.git(&["commit", "-q", "-m", event]).map(drop) } else { Ok(()) }
    }

    /// Remembers that it is done; whether that is new.
    pub fn done(&self, exercise: &Exercise) -> Result<bool> {
        let is_new = self.records()?.get(exercise.id).is_none_or(|record| record.done.is_none());
        if is_new {
            self.git(&["add", "--all"])?;
            self.note(&format!("{}: done", exercise.id))?;
        } else {
            self.commit(&format!("{}: written anew", exercise.id))?;
        }
        Ok(is_new)
    }

    /// Remembers that it is to be done again, if it was done; whether it was.
    pub fn reopen(&self, exercise: &Exercise) -> Result<bool> {
        let was_closed = !self.open()?.iter().any(|open| open.id == exercise.id);
        if was_closed {
            self.note(&format!("{}: open", exercise.id))?;
        }
        Ok(was_closed)
    }

    fn git(&self, words: &[&str]) -> Result<Output> {
        git(&self.directory, words)
    }
}

/// The directory of the clone's own programs, which are built if they are not there.
pub fn programs() -> Result<PathBuf> {
    let programs = build_directory()?;
    if !programs.join("final").exists() {
        eprintln!("The workshop's own programs are built now, once.");
        cargo(reference(), &["build", "--workspace", "--bins"])?;
    }
    Ok(programs)
}

/// Runs cargo in a workspace; it says what it does.
pub fn cargo(workspace: &Path, words: &[&str]) -> Result<()> {
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    let status = cargo.args(words).current_dir(workspace).status().context("cannot run cargo")?;
    ensure!(status.success(), "`cargo {}` failed in {}", words.join(" "), workspace.display());
    Ok(())
}

/// git(1), without the user's hooks and signatures, and with a name for who has not told it one.
fn git(directory: &Path, words: &[&str]) -> Result<Output> {
    let mut command = Command::new("git");
    command.current_dir(directory).args(["-c", "commit.gpgsign=false"]);
    command.args(["-c", "core.hooksPath=/dev/null", "-c", "safe.directory=*"]);
    for (variable, value) in [("NAME", "learner"), ("EMAIL", "learner@localhost")] {
        for role in ["AUTHOR", "COMMITTER"] {
            command.env(format!("GIT_{role}_{variable}"), value);
        }
    }
    let output = command.args(words).output().context(
        "cannot run git, which keeps your steps: install it (`apt install git`, `dnf install git`)",
    )?;
    if !output.status.success() {
        bail!("git {}: {}", words[0], String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(output)
}

/// By this file a workspace is known as a learner's.
const NOTE: &str = "EXERCISES.md";

const NOTE_TEXT: &str = "\
# Your container

This is the workshop's code with holes in it. You fill them, and what runs is yours.

- `cargo workshop check` tells what is next, and what the kernel thinks of it.
- `cargo workshop hint` helps, three times for each exercise; `solve` gives the answer.
- `cargo workshop lab` is a throw-away host to try things in; but files in it are your own.
- `cargo run -p final -- run` is your runtime. Try it as a plain user, or in a lab: as root outside of one it
  works on the machine's real network.

Write between the lines `// ANCHOR: ex-...` and `// ANCHOR_END: ex-...`, and leave those two in
their places. This is a git repository of its own: look at its log, use it.
";

/// The workspace's manifest, with the lab taken from the clone, and no warnings about holes.
///
/// Its packages have a version of their own: cargo tells what it has built apart by name and version,
/// and would take another workspace's in the shared directory for ours.
fn manifest(directory: &Path) -> Result<String> {
    let path = reference().join("Cargo.toml");
    let text =
        fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
    let lab = format!("workshop = {{ path = {} }}", quoted(&reference().join("workshop")));
    let mut hasher = DefaultHasher::new();
    directory.hash(&mut hasher);
    let version = format!("\nversion = \"0.1.0-mine.{:x}\"\n", hasher.finish());
    let text = text
        .replacen("\nversion = \"0.1.0\"\n", &version, 1)
        .replace("    \"workshop\",\n", "")
        .replace("workshop = { path = \"workshop\" }", &lab)
        .replace(
            "[workspace.lints.rust]\n",
            "[workspace.lints.rust]\nunused = \"allow\" # as long as there are holes\n",
        );
    Ok(text)
}

/// The crates that are not ours were built already. The alias is a string, as the clone's own is:
/// cargo would join two lists.
fn cargo_config() -> String {
    let (target, manifest) = (quoted(&reference().join("target")), reference().join("Cargo.toml"));
    format!(
        "[build]\nbuild-dir = {target} # since cargo 1.91; before, the first build takes longer\n\n\
         [alias]\nworkshop = \"run -q --manifest-path {} -p workshop --\"\n",
        manifest.display()
    )
}

/// A path as a string of TOML.
fn quoted(path: &Path) -> String {
    format!("\"{}\"", path.display().to_string().replace('\\', "\\\\").replace('"', "\\\""))
}

fn write(path: &Path, text: &str) -> Result<()> {
    fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    fs::create_dir(to).with_context(|| format!("cannot make {}", to.display()))?;
    for entry in fs::read_dir(from).with_context(|| format!("cannot read {}", from.display()))? {
        let entry = entry?;
        let to = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy(&entry.path(), &to)?;
        } else {
            fs::copy(entry.path(), &to)
                .with_context(|| format!("cannot write {}", to.display()))?;
        }
    }
    Ok(())
}
