//! A page's console blocks: what is typed there, and what is shown for it.

use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use anyhow::{Context as _, Result, bail, ensure};
use regex_lite::Regex;

/// Who types a block, and where: its first prompt says so.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Prompt {
    /// `lab#`: root in a lab.
    Lab,
    /// `$`: a plain user.
    User,
    /// `#`: root on a machine with nothing else on it.
    Machine,
}

impl Prompt {
    const ALL: [Self; 3] = [Self::Lab, Self::User, Self::Machine];

    /// As a page shows it.
    #[must_use]
    pub fn text(self) -> &'static str {
        match self {
            Self::Lab => "lab# ",
            Self::User => "$ ",
            Self::Machine => "# ",
        }
    }
}

/// Something typed, and what is shown until the next thing is.
#[derive(Debug)]
pub struct Step {
    /// The index of its first line.
    pub line: usize,
    /// The prompt that it is typed behind.
    pub prompt: String,
    /// None for what a program still running shows at the start of a block.
    pub typed: Option<String>,
    /// The indices of the lines that are shown for it.
    pub shown: Range<usize>,
}

/// A ```` ```console ```` block.
#[derive(Debug)]
pub struct Block {
    /// The index of its first line.
    pub line: usize,
    /// Why it is not run, if it is not.
    pub not_run: Option<String>,
    /// Whether it needs the machine's own root, which a plain user's lab has not.
    pub root: bool,
    /// Whose it is.
    pub prompt: Prompt,
    /// Which of that person's terminals.
    pub terminal: u32,
    /// What happens there.
    pub steps: Vec<Step>,
}

/// A page of the book.
#[derive(Debug)]
pub struct Page {
    /// Where it is.
    pub path: PathBuf,
    /// Its text.
    pub lines: Vec<String>,
    /// Its console blocks, in order.
    pub blocks: Vec<Block>,
}

const CTRL_C: &str = "^C";

/// The prompt that a line begins with, if it does.
pub fn prompt_of(line: &str) -> Option<&str> {
    static PROMPT: LazyLock<Regex> =
        LazyLock::new(|| Regex::new(r"^([\w.@:~/-]+ ?)?[#$] ").expect("a pattern"));
    PROMPT.find(line).map(|found| found.as_str())
}

impl Page {
    /// Reads a page and finds its blocks.
    pub fn read(path: &Path) -> Result<Self> {
        let text = std::fs::read_to_string(path);
        let text = text.with_context(|| format!("cannot read {}", path.display()))?;
        Self::parse(path, &text)
    }

    /// Finds the blocks.
    pub fn parse(path: &Path, text: &str) -> Result<Self> {
        let lines = text.lines().map(str::to_owned).collect();
        let mut page = Self { path: path.to_owned(), lines, blocks: Vec::new() };
        let mut at = 0;
        while at < page.lines.len() {
            let line = page.lines[at].as_str();
            if line.trim_start().starts_with("```console") {
                let block = page.block(at).with_context(|| page.place(at))?;
                at = block.steps.last().map_or(at, |step| step.shown.end);
                page.blocks.push(block);
            }
            at += 1;
        }
        Ok(page)
    }

    /// `FILE:LINE`, as editors know it.
    #[must_use]
    pub fn place(&self, line: usize) -> String {
        format!("{}:{}", self.path.display(), line + 1)
    }

    /// The whole text.
    #[must_use]
    pub fn text(&self) -> String {
        self.lines.join("\n") + "\n"
    }

    fn block(&self, start: usize) -> Result<Block> {
        ensure!(
            self.lines[start] == "```console",
            "a console block begins with ```console at the start of a line, and nothing after it"
        );
        let len = self.lines[start..].iter().position(|line| line == "```");
        let steps = self.steps(start + 1, start + len.context("it has no end")?)?;
        let mut block = Block {
            line: start,
            not_run: None,
            root: false,
            prompt: Prompt::Lab,
            terminal: 1,
            steps,
        };
        let marks = self.lines[..start].iter().rev();
        for line in marks.take_while(|line| line.starts_with("<!--")) {
            let mark = line.trim_start_matches("<!--").trim_end_matches("-->").trim();
            match mark.split_once(' ') {
                None if mark == "root" => block.root = true,
                Some(("terminal", number)) => block.terminal = number.parse()?,
                Some(("not", reason)) if reason.starts_with("run: ") => {
                    block.not_run = Some(reason["run: ".len()..].to_owned());
                }
                _ => bail!("there is no mark {line}, only: not run: REASON, terminal N, root"),
            }
        }
        let first = &block.steps[0].prompt;
        let known = Prompt::ALL.into_iter().find(|prompt| prompt.text() == first);
        // What is typed into a program, or shown by one, is where that was left running.
        let before = || self.blocks.iter().rev().find(|b| b.terminal == block.terminal);
        let Some(prompt) = known.or_else(|| before().map(|block| block.prompt)) else {
            bail!("a page's first block begins with one of the prompts lab#, $ and #");
        };
        Ok(Block { prompt, ..block })
    }

    fn steps(&self, start: usize, end: usize) -> Result<Vec<Step>> {
        let mut steps: Vec<Step> = Vec::new();
        for (at, line) in self.lines.iter().enumerate().take(end).skip(start) {
            let shown = at + 1..at + 1;
            let step = |prompt: &str, typed: &str| {
                let (prompt, typed) = (prompt.to_owned(), Some(typed.to_owned()));
                Step { line: at, prompt, typed, shown: shown.clone() }
            };
            if let Some(prompt) = prompt_of(line) {
                steps.push(step(prompt, &line[prompt.len()..]));
            } else if line == CTRL_C {
                steps.push(step("", CTRL_C));
            } else if let Some(last) = steps.last_mut() {
                match (&mut last.typed, line.strip_prefix("> ")) {
                    (Some(typed), Some(more)) if last.shown.is_empty() && goes_on(typed) => {
                        *typed += &format!("\n{more}");
                        last.shown = shown;
                    }
                    _ => last.shown.end = at + 1,
                }
            } else {
                let (prompt, shown) = (String::new(), at..at + 1);
                steps.push(Step { line: at, prompt, typed: None, shown });
            }
        }
        ensure!(!steps.is_empty(), "it is empty");
        Ok(steps)
    }
}

impl Step {
    /// The keys that are pressed.
    #[must_use]
    pub fn keys(&self) -> Option<String> {
        self.typed.as_ref().map(|typed| match typed.as_str() {
            CTRL_C => "\x03".to_owned(),
            line => format!("{line}\n"),
        })
    }
}

/// Whether the shell asks for another line, with its prompt `>`.
fn goes_on(typed: &str) -> bool {
    typed.ends_with('\\') || typed.contains("<<")
}
