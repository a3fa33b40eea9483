//! The exercises, proved: that the holes are where they should be, that the reference fills them, and
//! that no exercise lets a wrong solution pass. What takes minutes is for `.ci/run`:
//! `cargo test -p workshop --test proof -- --include-ignored`. With EXERCISES="2.3 5.1" wrong solutions
//! are tried of these alone.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use nix::unistd::geteuid;
use workshop::exercises::check::{self, Verdict};
use workshop::exercises::learner::{Learner, original, reference};
use workshop::exercises::place::Place;
use workshop::exercises::predict::{self, QUESTIONS};
use workshop::exercises::{self, Exercise, ROUTES, STEPS};

/// A learner's workspace in target/, which is removed when the test has passed.
struct Workspace(Learner);

impl Workspace {
    fn start(name: &str) -> Self {
        let directory = reference().join("target/proof").join(name);
        let _ = fs::remove_dir_all(&directory); // of a test that failed
        Self(Learner::start(&directory, |_| true).unwrap())
    }

    /// One in which everything is solved.
    fn solved(name: &str) -> Self {
        let workspace = Self::start(name);
        exercises::all().for_each(|exercise| workspace.put(exercise, |place| place.body.clone()));
        workspace
    }

    fn path(&self) -> &Path {
        &self.0.directory
    }

    /// Writes an exercise's body, made from the reference.
    fn put(&self, exercise: &Exercise, body: impl Fn(&Place) -> String) {
        let body = body(&original(exercise).unwrap());
        Place::find(self.path(), exercise.id).unwrap().write(self.path(), &body).unwrap();
    }

    fn remove(self) {
        fs::remove_dir_all(self.path()).unwrap();
    }
}

#[test]
fn each_exercise_is_whole() {
    let mut last = String::new();
    for exercise in exercises::all() {
        let id = exercise.id;
        assert!(*id > *last, "{id} comes after {last}");
        id.clone_into(&mut last);
        let body = original(exercise).unwrap().body;
        let lines = body.lines().count();
        assert!((1..=25).contains(&lines), "{id} has {lines} lines");
        assert!((5..=30).contains(&exercise.minutes), "{id} takes {} minutes", exercise.minutes);
        assert!(exercise.mutants.len() >= 2, "{id} has too few wrong solutions");
        for mutant in exercise.mutants {
            let count = body.matches(mutant.from).count();
            assert_eq!(count, 1, "{id}, {}: the piece is there {count} times", mutant.what);
        }
    }
    for step in 1..=STEPS.len() {
        let count = exercises::all().filter(|exercise| exercise.step() == step).count();
        assert!((3..=5).contains(&count), "step {step} has {count} exercises");
    }
}

#[test]
fn the_leaders_page_has_the_exercises_minutes() {
    let page = fs::read_to_string(reference().join("book/src/leader.md")).unwrap();
    let tables = exercises::leaders_tables();
    assert!(page.contains(&tables), "book/src/leader.md should have these tables:\n\n{tables}");
    for route in &ROUTES {
        let chosen = exercises::all().filter(|exercise| route.exercises.contains(&exercise.id));
        let (count, work) =
            chosen.fold((0, 0), |(n, sum), exercise| (n + 1, sum + exercise.minutes));
        assert_eq!(count, route.exercises.len(), "{}", route.name);
        assert!((70..=85).contains(&(work * 100 / route.minutes)), "{}: {work}", route.name);
    }
}

#[test]
fn hints_do_not_tell_the_answer() {
    for exercise in exercises::all() {
        let body = original(exercise).unwrap().body;
        let told = exercise.hints.join("\n") + exercise.task;
        assert!(exercise.hints.iter().all(|hint| hint.len() > 40), "{}: a short hint", exercise.id);
        for line in body.lines().map(str::trim).filter(|line| line.len() > 12) {
            assert!(!told.contains(line), "{}: a hint has the line {line}", exercise.id);
        }
    }
}

#[test]
fn the_holes_filled_in_give_the_reference() {
    let workspace = Workspace::solved("filled");
    for step in STEPS {
        for file in files(&reference().join(step)) {
            let below = file.strip_prefix(reference()).unwrap();
            let (ours, theirs) = (fs::read(&file).unwrap(), fs::read(workspace.path().join(below)));
            assert!(theirs.is_ok_and(|theirs| ours == theirs), "{} differs", below.display());
        }
    }
    workspace.remove();
}

fn files(directory: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path());
    let deep = |path: PathBuf| if path.is_dir() { files(&path) } else { vec![path] };
    entries.flat_map(deep).collect()
}

/// Also the first exercise as a learner meets it, from `start` to `done`.
#[test]
#[ignore = "takes minutes: .ci/long does it"]
fn the_starter_compiles_without_a_warning() {
    let workspace = Workspace::start("starter");
    let mut cargo = Command::new(env!("CARGO"));
    cargo.args(["build", "--workspace", "--all-targets", "--offline"]);
    let output = cargo.current_dir(workspace.path()).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && !said.contains("warning"), "{said}");

    let first = exercises::all().next().unwrap();
    let verdict = || check::check(workspace.path(), first).unwrap();
    assert_eq!(verdict(), Verdict::NotWritten(first.id.to_owned()));
    workspace.put(first, |place| wrong(place, first, 0));
    assert!(matches!(verdict(), Verdict::Failed(finding) if finding.text.contains("namespace")));
    workspace.put(first, |place| place.body.clone());
    assert!(matches!(verdict(), Verdict::Passed(2..)));
    workspace.remove();
}

/// The kernel answers; that the texts go with the answers is what is asserted here.
#[test]
#[ignore = "takes built programs: .ci/long does it"]
fn the_predictions_come_out_as_the_texts_say() {
    for (question, right) in QUESTIONS.iter().zip(["a", "b", "a", "c", "c"]) {
        if question.needs_cgroup && !geteuid().is_root() {
            println!("step {}: takes root", question.step);
            continue;
        }
        assert_eq!(predict::experiment(question).unwrap(), right, "{}", question.text);
    }
}

fn wrong(place: &Place, exercise: &Exercise, mutant: usize) -> String {
    let mutant = &exercise.mutants[mutant];
    place.body.replacen(mutant.from, mutant.to, 1)
}

/// The one exercise whose tests use an earlier one: that clone3's other flags are still there shows in
/// a namespace that the kernel refuses, and 1.1 is where its flag is written.
const BUILDS_ON: (&str, &str) = ("2.3", "1.1");

#[test]
#[ignore = "takes minutes: .ci/long does it"]
fn a_hole_fails_its_own_tests_and_no_others() {
    let workspace = Workspace::solved("holes");
    for hole in exercises::all() {
        workspace.put(hole, |place| place.blank(hole));
        for package in STEPS {
            let program = check::build(workspace.path(), package, Stdio::inherit()).unwrap();
            let program = program.unwrap_or_else(|| panic!("without {}: {package}", hole.id));
            for exercise in exercises::all().filter(|exercise| exercise.package() == package) {
                let verdict = check::run(&program, &exercise.tests(), check::PATIENCE).unwrap();
                let what =
                    format!("the tests of {}, without {}: {verdict:?}", exercise.id, hole.id);
                match verdict {
                    Verdict::NotWritten(id) => {
                        let may = id == exercise.id || BUILDS_ON == (exercise.id, &*id);
                        assert!(id == hole.id && may, "{what}");
                    }
                    Verdict::Passed(_) => assert_ne!(exercise.id, hole.id, "{what}"),
                    _ => panic!("{what}"),
                }
            }
        }
        workspace.put(hole, |place| place.body.clone());
    }
    workspace.remove();
}

#[test]
#[ignore = "takes minutes: .ci/long does it"]
fn each_wrong_solution_gets_its_verdict() {
    let workspace = Workspace::solved("wrong");
    let (mut table, mut failures) = (String::new(), Vec::new());
    let wanted = std::env::var("EXERCISES").unwrap_or_default();
    let is_wanted = |exercise: &&Exercise| wanted.is_empty() || wanted.contains(exercise.id);
    for exercise in exercises::all().filter(is_wanted) {
        let mut caught = 0;
        for (number, mutant) in exercise.mutants.iter().enumerate() {
            workspace.put(exercise, |place| wrong(place, exercise, number));
            let verdict = check::check(workspace.path(), exercise).unwrap();
            let what = format!("{}, {}", exercise.id, mutant.what);
            match &verdict {
                Verdict::Failed(finding) if finding.text.contains(mutant.says) => {
                    caught += 1;
                    let but = finding.text.lines().nth(1).unwrap_or_default();
                    let row = [exercise.id, mutant.what, mutant.says, but];
                    table += &format!("| {} |\n", row.join(" | "));
                }
                // What only root can see, only root can be told.
                Verdict::Passed(_) if !geteuid().is_root() => println!("{what}: takes root"),
                other => failures.push(format!("{what}: {other:?}")),
            }
        }
        if caught < 2 {
            failures.push(format!("{}: only {caught} wrong solutions were caught", exercise.id));
        }
        workspace.put(exercise, |place| place.body.clone());
    }
    println!(
        "| exercise | wrong solution | the verdict | what was found |\n|---|---|---|---|\n{table}"
    );
    assert!(failures.is_empty(), "{}", failures.join("\n"));
    workspace.remove();
}
