//! The book is true: what its pages show was typed and came out.
//!
//! Every ```` ```console ```` block of a page is typed into a lab, in order, and what comes out is
//! compared with what the page shows, but for what may be different each time (`book/mask.rs`).
//!
//! | a line of a block | means |
//! |---|---|
//! | `lab# COMMAND` | typed by root in a lab |
//! | `$ COMMAND` | typed by a plain user, in another lab |
//! | `# COMMAND` | typed by root on a machine with nothing else on it: run with `--vm` |
//! | `box# COMMAND` | typed into the program that runs, which asks with this prompt |
//! | `> MORE` | the rest of a command whose line ended in `\` or has a `<<` |
//! | `^C` | the keys Ctrl-C |
//! | `...` | some lines that are left out |
//! | anything else | output |
//!
//! `cargo workshop book --bless` writes what came into the pages, where that differs. What is behind
//! `#` changes the machine, so it is run in a virtual one, whose files are gone with it:
//!
//! ```text
//! .ci/vm sh -c 'target/debug/workshop book --vm --bless PAGE 2> /dev/null' > NEW && mv NEW PAGE
//! ```
//!
//! A page has one lab for each kind of prompt, for all of its blocks. A block that begins with
//! output goes on with what the block before left running. Comments in the lines right above a
//! block change how it is run:
//!
//! | comment | means |
//! |---|---|
//! | `<!-- terminal 2 -->` | typed at another terminal in the same lab |
//! | `<!-- root -->` | needs the machine's own root (limits do); a plain user does not run it |
//! | `<!-- not run: REASON -->` | not run at all, but listed with the reason |

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail, ensure};
use nix::unistd::geteuid;

mod mask;
mod page;
mod session;

pub use page::{Block, Page, Prompt, Step};
use session::Session;

/// The options of `cargo workshop book`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Write what comes out into the pages, where that differs
    #[arg(long)]
    bless: bool,

    /// Run the blocks behind `#`, and no others: they change the machine. To be used in .ci/vm;
    /// as the machine's files are gone with it, --bless prints the page
    #[arg(long)]
    vm: bool,

    /// The pages; without any, all of the book and the README
    pages: Vec<PathBuf>,
}

/// Runs the verb; the exit status is 1 if a page is not true.
pub fn main(args: &Args) -> Result<u8> {
    build_programs()?;
    let pages = if args.pages.is_empty() { all_pages()? } else { args.pages.clone() };
    let (mut ran, mut not_run, mut wrong) = (0, Vec::new(), 0);
    for path in pages {
        let mut page = Page::read(&path)?;
        let mut run = Vec::new();
        for (index, block) in page.blocks.iter().enumerate() {
            match why_not(block, args.vm) {
                Some(reason) => not_run.push(format!("{}: {reason}", page.place(block.line))),
                None => run.push(index),
            }
        }
        ran += run.len();
        let mut differences = compare(&page, &run)?;
        wrong += differences.len();
        for difference in &differences {
            eprint!("{}", difference.describe(&page));
        }
        if args.bless {
            differences.sort_by_key(|difference| std::cmp::Reverse(difference.step.shown.start));
            let all: Vec<_> =
                differences.into_iter().map(|d| (d.step.shown.clone(), d.came)).collect();
            bless(&mut page, all)?;
            if args.vm {
                print!("{}", page.text());
            } else {
                std::fs::write(&path, page.text())
                    .with_context(|| format!("cannot write {}", path.display()))?;
            }
        }
    }
    for block in &not_run {
        eprintln!("not run: {block}");
    }
    let what = if args.bless { "rewritten" } else { "not as the page shows" };
    eprintln!("{ran} blocks run, {} not run; outputs {what}: {wrong}", not_run.len());
    Ok(u8::from(wrong > 0 && !args.bless))
}

/// Something typed whose output is not what the page shows.
struct Difference<'a> {
    step: &'a Step,
    came: Vec<String>,
}

/// Types the blocks with these indices.
fn compare<'a>(page: &'a Page, run: &[usize]) -> Result<Vec<Difference<'a>>> {
    let mut differences = Vec::new();
    for whose in [Prompt::User, Prompt::Lab, Prompt::Machine] {
        let blocks = run.iter().map(|&index| &page.blocks[index]);
        let blocks: Vec<_> = blocks.filter(|block| block.prompt == whose).collect();
        let steps: Vec<_> = blocks
            .iter()
            .flat_map(|block| block.steps.iter().map(|step| (block.terminal, step)))
            .collect();
        let asked = steps.iter().map(|(_, step)| step.prompt.clone());
        let inner = asked.filter(|prompt| !prompt.is_empty() && prompt != whose.text()).collect();
        let mut session = Session::open(whose, inner);
        for (index, &(terminal, step)) in steps.iter().enumerate() {
            // What is still there when the next block at this terminal begins has no end yet.
            let next = steps[index + 1..].iter().find(|(other, _)| *other == terminal);
            let runs_on = next.is_some_and(|(_, next)| next.prompt.is_empty());
            let shown = &page.lines[step.shown.clone()];
            let came = session.step(terminal, step, runs_on, shown);
            let came = came.with_context(|| page.place(step.line))?;
            if let Some(line) = came.iter().find(|line| line.ends_with(": command not found")) {
                bail!("{}: {line}: install it", page.place(step.line));
            }
            if !mask::same(shown, &came) {
                differences.push(Difference { step, came });
            }
        }
    }
    Ok(differences)
}

impl Difference<'_> {
    /// The lines that differ: `-` are on the page, `+` came.
    fn describe(&self, page: &Page) -> String {
        let shown = &page.lines[self.step.shown.clone()];
        let same = |pair: &(&String, &String)| mask::masked(pair.0) == mask::masked(pair.1);
        let start = shown.iter().zip(&self.came).take_while(same).count();
        let (shown, came) = (&shown[start..], &self.came[start..]);
        let end = shown.iter().rev().zip(came.iter().rev()).take_while(same).count();
        let mut text = format!("{}: {}\n", page.place(self.step.line), page.lines[self.step.line]);
        for (sign, lines) in [('-', shown), ('+', came)] {
            for line in &lines[..lines.len() - end] {
                text += &format!("  {sign} {line}\n");
            }
        }
        text
    }
}

/// Puts what came into the page, from its end to its beginning: line numbers stay right.
fn bless(page: &mut Page, differences: Vec<(std::ops::Range<usize>, Vec<String>)>) -> Result<()> {
    for (shown, came) in differences {
        if let Some(line) = came.iter().find(|line| page::prompt_of(line).is_some()) {
            let place = page.place(shown.start - 1);
            bail!("{place}: this output would be read as something typed: {line}");
        }
        page.lines.splice(shown, came);
    }
    Ok(())
}

/// Why a block is not run.
fn why_not(block: &Block, vm: bool) -> Option<String> {
    if let Some(reason) = &block.not_run {
        return Some(reason.clone());
    }
    match block.prompt {
        Prompt::Machine if !vm => Some("it takes a machine of its own: --vm".into()),
        Prompt::User | Prompt::Lab if vm => Some("--vm runs only what is behind #".into()),
        _ if block.root && !geteuid().is_root() => Some("it takes root".into()),
        _ => None,
    }
}

/// Cargo, if it has started us, brings the programs up to date; it has just done so with this one.
fn build_programs() -> Result<()> {
    let Some(cargo) = std::env::var_os("CARGO") else { return Ok(()) };
    let mut build = std::process::Command::new(cargo);
    build.args(["build", "-q", "--workspace", "--exclude", "workshop", "--bins", "--examples"]);
    let status = build.status();
    ensure!(status.context("cannot run cargo")?.success(), "the programs do not build");
    Ok(())
}

/// The root of the repository.
fn workspace() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("we are a member of it")
}

/// README.md and the pages of the book.
pub fn all_pages() -> Result<Vec<PathBuf>> {
    let here = std::env::current_dir().unwrap_or_default();
    let root = workspace().strip_prefix(here).unwrap_or(workspace());
    let book = root.join("book/src");
    let pages = std::fs::read_dir(&book).with_context(|| format!("no {}", book.display()))?;
    let mut pages = pages.map(|entry| Ok(entry?.path())).collect::<Result<Vec<_>>>()?;
    pages.sort();
    pages.insert(0, root.join("README.md"));
    Ok(pages)
}
