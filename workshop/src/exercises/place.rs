//! Exercises in source files: the lines between `// ANCHOR: ex-1.1` and `// ANCHOR_END: ex-1.1`.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};

use super::{Exercise, STEPS, Start};

/// The lines of an exercise in a file's text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// The file, below the workspace.
    pub file: PathBuf,
    /// The file's text up to the line behind the first marker.
    before: String,
    /// The lines between the markers.
    pub body: String,
    /// The rest, from the second marker.
    after: String,
}

impl Place {
    /// Finds the exercise in a workspace.
    pub fn find(workspace: &Path, id: &str) -> Result<Self> {
        let found =
            STEPS.iter().find_map(|step| in_directory(workspace, &Path::new(step).join("src"), id));
        found.with_context(|| {
            format!(
                "the lines \"// ANCHOR: ex-{id}\" and \"// ANCHOR_END: ex-{id}\" are not in {}; \
                 `cargo workshop reset {id}` brings them back",
                workspace.display()
            )
        })
    }

    fn split(file: &Path, text: &str, id: &str) -> Option<Self> {
        let marker = |kind: &str| {
            let marker = format!("// {kind}: ex-{id}");
            let mut at = 0;
            text.split_inclusive('\n').find_map(|line| {
                let start = at;
                at += line.len();
                (line.trim() == marker).then_some((start, at))
            })
        };
        let ((_, start), (end, _)) = (marker("ANCHOR")?, marker("ANCHOR_END")?);
        (start <= end).then(|| Self {
            file: file.to_owned(),
            before: text[..start].to_owned(),
            body: text[start..end].to_owned(),
            after: text[end..].to_owned(),
        })
    }

    /// The number of the first line of the body.
    #[must_use]
    pub fn line(&self) -> usize {
        self.before.lines().count() + 1
    }

    /// The file's whole text.
    #[must_use]
    pub fn text(&self) -> String {
        [self.before.as_str(), &self.body, &self.after].concat()
    }

    /// The file, with the marker as far as the body is indented.
    #[must_use]
    pub fn indent(&self) -> &str {
        let marker = self.before.lines().last().unwrap_or_default();
        &marker[..marker.len() - marker.trim_start().len()]
    }

    /// What the body is before the learner has touched it; `self` is the reference's.
    #[must_use]
    pub fn start(&self, exercise: &Exercise) -> String {
        match exercise.start {
            Start::Blank => self.blank(exercise),
            Start::Repair => {
                let mutant = &exercise.mutants[0];
                let note = format!(
                    "{}// Exercise {}: there is a mistake between these two lines.\n",
                    self.indent(),
                    exercise.id
                );
                note + &without_comments(&self.body.replacen(mutant.from, mutant.to, 1))
            }
        }
    }

    /// A body that does nothing but say so.
    #[must_use]
    pub fn blank(&self, exercise: &Exercise) -> String {
        let Exercise { id, title, .. } = exercise;
        format!("{}todo!(\"exercise {id}: {title}\");\n", self.indent())
    }

    /// Writes the file, with another body.
    pub fn write(&mut self, workspace: &Path, body: &str) -> Result<()> {
        body.clone_into(&mut self.body);
        let path = workspace.join(&self.file);
        fs::write(&path, self.text()).with_context(|| format!("cannot write {}", path.display()))
    }
}

/// The reference's comments would tell the mistake.
fn without_comments(body: &str) -> String {
    let lines = body.split_inclusive('\n').filter(|line| !line.trim_start().starts_with("//"));
    let cut = lines.map(|line| match line.split_once(" // ") {
        Some((code, _)) => format!("{code}\n"),
        None => line.to_owned(),
    });
    cut.filter(|line| !line.trim().is_empty()).collect()
}

fn in_directory(workspace: &Path, below: &Path, id: &str) -> Option<Place> {
    let mut entries: Vec<_> = fs::read_dir(workspace.join(below)).ok()?.flatten().collect();
    entries.sort_by_key(fs::DirEntry::file_name);
    entries.iter().find_map(|entry| {
        let file = below.join(entry.file_name());
        if entry.path().is_dir() {
            return in_directory(workspace, &file, id);
        }
        Place::split(&file, &fs::read_to_string(entry.path()).ok()?, id)
    })
}
