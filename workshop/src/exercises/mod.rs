//! The exercises: what the learner is told, in order.
//!
//! The code of an exercise is the reference's own, between two lines such as `// ANCHOR: ex-1.1` and
//! `// ANCHOR_END: ex-1.1`. Its tests are the functions `ex1_1_...` in the `tests/exercises.rs` of its
//! step. Here is the rest of it, and what plausible wrong solutions look like.
//!
//! | file | what it holds |
//! |---|---|
//! | `step01` to `step05`, `runtime` | what the learner is told about each exercise |
//! | [`place`] | exercises in source files |
//! | [`learner`] | the learner's own workspace |
//! | [`check`] | what the kernel thinks of an exercise |
//! | [`predict`] | a question for each step, answered by the lab |
//! | [`verbs`] | `cargo workshop start`, `check`, `hint` and so on |

pub mod check;
pub mod learner;
pub mod place;
pub mod predict;
mod runtime;
mod step01;
mod step02;
mod step03;
mod step04;
mod step05;
pub mod verbs;

/// An exercise.
#[derive(Debug)]
pub struct Exercise {
    /// Step and number: `4.2`. Step 6 is the runtime, `final`.
    pub id: &'static str,
    /// Its one idea.
    pub title: &'static str,
    /// How long it takes somebody who does it for the first time.
    pub minutes: u32,
    /// What stands in the learner's file at the beginning.
    pub start: Start,
    /// What is to be done, and why.
    pub task: &'static str,
    /// From a push to nearly everything.
    pub hints: [&'static str; 3],
    /// Wrong solutions, each of which its tests have to catch.
    pub mutants: &'static [Mutant],
}

/// What stands in the learner's file at the beginning.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Start {
    /// Nothing: `todo!()`.
    Blank,
    /// The first mutant: somebody has written it, and it is wrong.
    Repair,
}

/// A plausible wrong solution: the reference with one piece replaced.
#[derive(Debug)]
pub struct Mutant {
    /// The mistake.
    pub what: &'static str,
    /// A piece that the reference has once.
    pub from: &'static str,
    /// What stands there instead.
    pub to: &'static str,
    /// Words of the verdict that it has to get.
    pub says: &'static str,
}

/// All of them, in the order of the story.
pub fn all() -> impl Iterator<Item = &'static Exercise> {
    let steps = [
        step01::EXERCISES,
        step02::EXERCISES,
        step03::EXERCISES,
        step04::EXERCISES,
        step05::EXERCISES,
        runtime::EXERCISES,
    ];
    steps.into_iter().flatten()
}

/// A choice of exercises for a workshop of a given length; the others are solved from the beginning.
#[derive(Debug)]
pub struct Route {
    /// As `cargo workshop start --route` knows it.
    pub name: &'static str,
    /// How long the workshop is, in minutes, with everything.
    pub minutes: u32,
    /// The exercises.
    pub exercises: &'static [&'static str],
}

/// About three quarters of a workshop are exercises; the rest is talk, and coffee.
pub const ROUTES: [Route; 3] = [
    Route { name: "90-minutes", minutes: 90, exercises: &["1.1", "1.4", "3.2", "4.3", "5.1"] },
    Route {
        name: "half-day",
        minutes: 240,
        exercises: &[
            "1.1", "1.2", "1.3", "1.4", "2.1", "2.2", "3.2", "3.4", "4.2", "4.3", "5.1", "5.3",
            "6.3",
        ],
    },
    Route {
        name: "full-day",
        minutes: 420,
        exercises: &[
            "1.1", "1.2", "1.3", "1.4", "1.5", "2.1", "2.2", "2.3", "3.1", "3.2", "3.3", "3.4",
            "4.1", "4.2", "4.3", "5.1", "5.2", "5.3", "6.1", "6.2", "6.3",
        ],
    },
];

/// The tables of the leader's page.
#[must_use]
pub fn leaders_tables() -> String {
    let mut text = String::new();
    for Route { name, minutes, exercises } in &ROUTES {
        let chosen: Vec<_> = all().filter(|exercise| exercises.contains(&exercise.id)).collect();
        let work: u32 = chosen.iter().map(|exercise| exercise.minutes).sum();
        text += &format!(
            "### `--route {name}` {{#route-{name}}}\n\n{} exercises, {work} minutes of work in {minutes}\n\n\
             | exercise | minutes | from the start |\n|---|---|---|\n",
            chosen.len()
        );
        let mut clock = 0;
        for exercise in chosen {
            clock += exercise.minutes;
            let Exercise { id, title, minutes, .. } = exercise;
            text += &format!("| {id} {title} | {minutes} | {}:{:02} |\n", clock / 60, clock % 60);
        }
        text.push('\n');
    }
    text
}

/// The directories of the steps; the last one is `final`.
pub const STEPS: [&str; 6] = [
    "step01-namespaces",
    "step02-cgroups",
    "step03-rootfs",
    "step04-bridge-veth",
    "step05-nat",
    "final",
];

impl Exercise {
    /// The number of its step, from 1.
    #[must_use]
    pub fn step(&self) -> usize {
        usize::from(self.id.as_bytes()[0] - b'0')
    }

    /// The package whose tests are about it.
    #[must_use]
    pub fn package(&self) -> &'static str {
        STEPS[self.step() - 1]
    }

    /// How the names of its tests begin.
    #[must_use]
    pub fn tests(&self) -> String {
        format!("ex{}_", self.id.replace('.', "_"))
    }
}
