//! The checker of the book: that it types, compares, rewrites, and tells what it did not run.
//!
//! The pages themselves show what one machine's tools print, so they are run by `.ci/run`, and not
//! on every machine by `cargo test`. What holds everywhere is tested here.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::Duration;

use libtest_mimic::{Arguments, Trial};
use workshop::book::{Page, all_pages};
use workshop::doctor::checks::CHECKS;
use workshop::exercises::{STEPS, all};
use workshop::suite::{Outcome, run};

type Check = fn();

fn main() -> ExitCode {
    let checks: [(&str, Check); 15] = [
        ("every_block_of_the_book_can_be_read", every_block_of_the_book_can_be_read),
        ("all_rust_is_included_from_the_sources", all_rust_is_included_from_the_sources),
        ("differences_between_steps_are_real", differences_between_steps_are_real),
        ("every_heading_has_an_anchor", every_heading_has_an_anchor),
        ("every_chapter_has_its_parts", every_chapter_has_its_parts),
        ("the_exercises_are_the_tools", the_exercises_are_the_tools),
        ("every_attack_is_on_its_page", every_attack_is_on_its_page),
        ("every_system_call_is_on_its_page", every_system_call_is_on_its_page),
        ("sources_that_pages_name_are_there", sources_that_pages_name_are_there),
        ("every_check_of_the_doctor_is_on_its_page", every_check_of_the_doctor_is_on_its_page),
        ("a_true_page_passes", a_true_page_passes),
        ("a_wrong_page_fails_and_is_mended", a_wrong_page_fails_and_is_mended),
        ("two_terminals_share_a_lab", two_terminals_share_a_lab),
        ("what_is_not_run_is_listed", what_is_not_run_is_listed),
        ("a_page_that_means_nothing_is_refused", a_page_that_means_nothing_is_refused),
    ];
    let trials = checks.map(|(name, check)| {
        Trial::test(name, move || {
            check();
            Ok(())
        })
    });
    libtest_mimic::run(&Arguments::from_args(), trials.into()).exit_code()
}

fn every_block_of_the_book_can_be_read() {
    let pages = all_pages().expect("the pages");
    let pages: Vec<_> = pages.iter().map(|path| Page::read(path).expect("a page")).collect();
    assert!(pages.iter().map(|page| page.blocks.len()).sum::<usize>() > 40);
}

/// So the compiler sees all Rust that the book shows. mdBook says nothing of a missing anchor.
fn all_rust_is_included_from_the_sources() {
    for path in all_pages().expect("the pages") {
        let page = Page::read(&path).expect("a page");
        let starts = page.lines.iter().enumerate().filter(|(_, line)| line.starts_with("```rust"));
        for (start, _) in starts {
            let place = page.place(start + 1);
            let body = page.lines[start + 1..].iter().take_while(|line| *line != "```");
            for line in body {
                let include = line.strip_prefix("{{#include ").and_then(|l| l.strip_suffix("}}"));
                let include = include.unwrap_or_else(|| panic!("{place}: typed by hand: {line}"));
                let (file, anchor) = include.split_once(':').unwrap_or((include, ""));
                let source = source(&path.with_file_name(file));
                let found = |what| source.contains(&format!("{what}: {anchor}\n"));
                let whole = anchor.is_empty() || (found("ANCHOR") && found("ANCHOR_END"));
                assert!(whole, "{place}: no anchor {anchor} in {file}");
            }
        }
    }
}

/// A step's page shows in what its main.rs differs from the one before.
fn differences_between_steps_are_real() {
    let steps = ["namespaces", "cgroups", "rootfs", "bridge-veth", "nat"];
    let name = |number: usize| format!("step{:02}-{}", number + 1, steps[number]);
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let main = |number| source(&root.join(name(number)).join("src/main.rs"));
    for number in 1..steps.len() {
        let (before, after) = (main(number - 1), main(number));
        let has = |text: &str, line: &str| text.lines().any(|other| other.trim() == line.trim());
        let page = Page::read(&root.join(format!("book/src/{}.md", name(number)))).expect("a page");
        let start = page.lines.iter().position(|line| line == "```diff").expect("the difference");
        let body = page.lines[start + 1..].iter().take_while(|line| *line != "```");
        for line in body.filter(|line| *line != " …") {
            let (sign, text) = line.split_at(1);
            let is = (has(&before, text), has(&after, text));
            let should_be = match sign {
                "+" => (false, true),
                "-" => (true, false),
                _ => (true, true),
            };
            assert_eq!(is, should_be, "{}: {line:?} before, after", page.place(start));
        }
    }
}

/// A page's headings, as (the index of the line, the line): what begins with # outside of listings.
fn headings(page: &Page) -> Vec<(usize, &str)> {
    let mut fenced = false;
    let lines = page.lines.iter().map(String::as_str).enumerate();
    let headings = lines.filter(|(_, line)| {
        fenced ^= line.starts_with("```");
        !fenced && line.trim_start_matches('#').starts_with(' ') && line.starts_with('#')
    });
    headings.collect()
}

/// `## Break it {#break}`, so that links to it hold in every language.
fn every_heading_has_an_anchor() {
    for path in all_pages().expect("the pages") {
        // GitHub shows the one without mdBook, and the other is mdBook's table of contents.
        if path.ends_with("README.md") || path.ends_with("SUMMARY.md") {
            continue;
        }
        let page = Page::read(&path).expect("a page");
        let headings = headings(&page);
        assert!(!headings.is_empty(), "{} has no heading", path.display());
        let mut anchors = Vec::new();
        for (at, line) in headings {
            let place = page.place(at);
            let anchor = line.strip_suffix('}').and_then(|line| line.rsplit_once(" {#"));
            let (_, anchor) = anchor.unwrap_or_else(|| panic!("{place}: no anchor: {line}"));
            let allowed = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
            assert!(!anchor.is_empty() && anchor.chars().all(allowed), "{place}: {anchor:?}");
            assert!(!anchors.contains(&anchor), "{place}: a second #{anchor}");
            anchors.push(anchor);
        }
    }
}

/// The pages with exercises: those of the steps and the runtime's.
fn chapters() -> [Page; STEPS.len()] {
    STEPS.map(|step| {
        let name = if step == "final" { "runtime" } else { step };
        let path = workspace().join(format!("book/src/{name}.md"));
        Page::read(&path).expect("a page")
    })
}

/// All chapters have the same parts in the same order; some have more between them.
fn every_chapter_has_its_parts() {
    const PARTS: [&str; 9] = [
        "## Predict {#predict}",
        "## By hand {#by-hand}",
        "## The kernel's side {#kernel}",
        "## The code {#code}",
        "## What changed since step N {#changes}",
        "## Break it {#break}",
        "## Exercises {#exercises}",
        "## What real runtimes do differently {#others}",
        "## Check yourself {#check}",
    ];
    for (index, page) in chapters().iter().enumerate() {
        let parts = PARTS.map(|part| part.replace('N', &index.to_string()));
        let found = headings(page).into_iter().map(|(_, line)| line.to_owned());
        let found: Vec<_> = found.filter(|line| parts.contains(line)).collect();
        assert_eq!(found, parts, "{}", page.path.display());
        let answers = page.lines.iter().skip_while(|line| *line != PARTS[8]);
        let answers = answers.filter(|line| line.starts_with("<details><summary>")).count();
        assert_eq!(answers, 5, "{}: questions to check yourself", page.path.display());
    }
}

/// The table of a chapter's exercises says what `cargo workshop check` does.
fn the_exercises_are_the_tools() {
    const HEAD: [&str; 2] = ["| exercise | | minutes |", "|---|---|---|"];
    for (index, page) in chapters().iter().enumerate() {
        let ours = all().filter(|exercise| exercise.step() == index + 1);
        let ours = ours.map(|e| format!("| {} | {} | {} |", e.id, e.title, e.minutes));
        let wanted: Vec<_> = HEAD.map(str::to_owned).into_iter().chain(ours).collect();
        let shown = page.lines.iter().skip_while(|line| *line != HEAD[0]);
        let shown: Vec<_> = shown.take_while(|line| line.starts_with('|')).collect();
        assert_eq!(shown, wanted.iter().collect::<Vec<_>>(), "{}", page.path.display());
    }
}

/// The page of the attacks lists the tests, and no others.
fn every_attack_is_on_its_page() {
    let tests = source(&workspace().join("final/tests/escape/main.rs"));
    let mut tests = found(r"(?m)^    test!\((\w+),", &tests);
    let page = source(&workspace().join("book/src/attacks.md"));
    let mut listed = found(r"(?m)^\| `(\w+)` \|", &page);
    assert!(tests.len() > 20);
    tests.sort();
    listed.sort();
    assert_eq!(tests, listed, "final/tests/escape/main.rs, and the table of attacks.md");
}

/// The appendix has each system call that a source names, and its tables name sources that do.
fn every_system_call_is_on_its_page() {
    let page = source(&workspace().join("book/src/kernel.md"));
    let mut named = BTreeSet::new();
    for path in sources() {
        let text = source(&path);
        let (text, _) = text.split_once("#[cfg(test)]").unwrap_or((&text, ""));
        named.extend(found(r"\bSYS_(\w+)", text));
        named.extend(found(r"\blibc::([a-z_]\w*)\(", text));
        named.extend(found(r"\bnix::(?:\w+::)+([a-z]\w*)\(", text));
        for import in found(r"(?m)^use nix::([^;]*);", text) {
            named.extend(found(r"\b([a-z]\w*)(?:[,;}\s]|$)", &import));
        }
    }
    // libc's own entrance, a macro, a module, and what only computes.
    for other in [
        "syscall",
        "cmsg_space",
        "sockopt",
        "makedev",
        "major",
        "minor",
        "cfmakeraw",
        "localtime_r",
    ] {
        assert!(named.remove(other), "{other} is not named any more");
    }
    for call in named {
        assert!(page.contains(&format!("`{call}`")), "kernel.md does not have {call}");
    }
    for row in found(r"(?m)^\| (`\w+`.*\| `(?:step|final)[^|]*) \|$", &page) {
        let (calls, path) = (
            found("`([^`]*)`", row.split('|').next().unwrap()),
            found("`([^`]*)`", &row).pop().unwrap(),
        );
        let text = source(&workspace().join(&path));
        assert!(calls.iter().all(|call| text.contains(call)), "{path} does not have {calls:?}");
    }
}

/// Where a page says `final/src/...`, the file is there.
fn sources_that_pages_name_are_there() {
    let mut count = 0;
    for page in all_pages().expect("the pages") {
        for path in found(r"`((?:step0|final/|workshop/)[\w./-]+\.(?:rs|sh))`", &source(&page)) {
            assert!(workspace().join(&path).exists(), "{}: no {path}", page.display());
            count += 1;
        }
    }
    assert!(count > 50, "only {count} were found");
}

/// The doctor says: more in the book's page Troubleshooting.
fn every_check_of_the_doctor_is_on_its_page() {
    let page = source(&workspace().join("book/src/troubleshooting.md"));
    let mut there = found(r"(?m)^### [\w-]+ \{#check-([\w-]+)\}$", &page);
    let mut checks: Vec<_> = CHECKS.iter().map(|check| check.name.to_owned()).collect();
    there.sort();
    checks.sort();
    assert_eq!(checks, there, "the doctor's checks, and the headings of troubleshooting.md");
}

/// The Rust files of the steps and of `final`, without their tests.
fn sources() -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders: Vec<_> = std::fs::read_dir(workspace())
        .expect("the workspace")
        .map(|entry| entry.expect("an entry").path())
        .filter(|path| {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            name.starts_with("step0") || name == "final"
        })
        .flat_map(|path| [path.join("src"), path.join("examples")])
        .filter(|path| path.is_dir())
        .collect();
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).expect("a folder") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                folders.push(path);
            } else {
                found.push(path);
            }
        }
    }
    found
}

/// What the pattern's group matched.
fn found(pattern: &str, text: &str) -> Vec<String> {
    let pattern = regex_lite::Regex::new(pattern).expect("a pattern");
    pattern.captures_iter(text).map(|captures| captures[1].to_owned()).collect()
}

fn workspace() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("it is a member")
}

fn source(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// A page in a file of its own.
fn page(name: &str, text: &str) -> PathBuf {
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("{name}.md"));
    std::fs::write(&path, text).expect("a place for a page");
    path
}

/// `cargo workshop book` with options; CARGO would have it build all programs first.
fn book(options: &[&str], page: &Path) -> Outcome {
    let mut command = Command::new(env!("CARGO_BIN_EXE_workshop"));
    command.arg("book").args(options).arg(page).env_remove("CARGO");
    run(&mut command, Duration::from_secs(120))
}

const TRUE: &str = r"# A page

```console
lab# hostname; cd /run; x=kept
lab
```

```console
lab# pwd; echo $x; id -u
/run
kept
0
lab# printf 'one\ntwo\nthree\nfour\n'
one
...
four
lab# (sleep 0.2; echo later) &
later
lab# readlink /proc/self/ns/net
net:[1]
lab# cat << end
> some `echo words`
> end
some words
lab# PS1='inner# ' bash --norc
inner# echo $((6 * 7))
42
inner# exit 3
exit
lab# echo $?
3
```

```console
$ hostname; pwd | grep -c /run$
lab
0
```
";

fn a_true_page_passes() {
    let outcome = book(&[], &page("true", TRUE));
    assert_eq!((outcome.status, outcome.stdout.as_str()), (Some(0), ""), "{outcome:?}");
    assert_eq!(outcome.stderr, "3 blocks run, 0 not run; outputs not as the page shows: 0\n");
}

fn a_wrong_page_fails_and_is_mended() {
    let wrong =
        TRUE.replace("kept\n0\n", "lost\n0\n").replace("\n42\n", "\n").replace("[1]", "[2]");
    let path = page("wrong", &wrong);
    let outcome = book(&[], &path);
    assert_eq!(outcome.status, Some(1), "{outcome:?}");
    for part in
        ["wrong.md:9: lab# pwd", "\n  - lost\n  + kept\n", "inner# echo $((6 * 7))\n  + 42\n"]
    {
        assert!(outcome.stderr.contains(part), "{part:?}: {outcome:?}");
    }
    assert_eq!(source(&path), wrong, "only --bless writes");
    assert_eq!(book(&["--bless"], &path).status, Some(0));
    // What a mask covers is left as it was, and so is what `...` stands for.
    assert_eq!(source(&path), TRUE.replace("[1]", "[2]"));
}

fn two_terminals_share_a_lab() {
    let text = r"```console
lab# sleep 1000 &
```

<!-- terminal 2 -->
```console
lab# hostname other; pgrep -x sleep | wc -l; tail -f /dev/null
1
```

```console
lab# hostname; pkill -x sleep
other
```

<!-- terminal 2 -->
```console
^C
lab# pgrep -x sleep | wc -l
0
```
";
    let outcome = book(&[], &page("terminals", text));
    assert_eq!(outcome.status, Some(0), "{outcome:?}");
    let outcome = book(&[], &page("terminals-wrong", &text.replace("\nother\n", "\nlab\n")));
    assert!(outcome.stderr.contains("  - lab\n  + other\n"), "{outcome:?}");
    let mut command = Command::new(env!("CARGO_BIN_EXE_workshop"));
    let outcome = run(command.args(["lab", "--join=1", "true"]), Duration::from_secs(20));
    assert_eq!(outcome.status, Some(125));
    assert_eq!(outcome.stderr, "error: the process 1 has no lab open\n");
}

fn what_is_not_run_is_listed() {
    let text = "<!-- not run: it would hurt -->\n```console\nlab# exit\n```\n\n```console\n# reboot\n```\n";
    let outcome = book(&[], &page("not-run", text));
    assert_eq!(outcome.status, Some(0), "{outcome:?}");
    for part in
        ["not-run.md:2: it would hurt\n", "not-run.md:6: it takes a machine", "0 blocks run, 2"]
    {
        assert!(outcome.stderr.contains(part), "{part:?}: {outcome:?}");
    }
}

fn a_page_that_means_nothing_is_refused() {
    let cases = [
        ("```console\nlab# true\n", "it has no end"),
        ("```console\n```\n", "it is empty"),
        ("```console\nhello\n```\n", "begins with one of the prompts"),
        ("  ```console\n  lab# true\n  ```\n", "at the start of a line"),
        ("<!-- not-run: why -->\n```console\nlab# true\n```\n", "there is no mark"),
        ("```console\nlab# no-such-program\n```\n", "not found: install it"),
    ];
    for (text, message) in cases {
        let outcome = book(&[], &page("nothing", text));
        assert_eq!(outcome.status, Some(125), "{text:?}: {outcome:?}");
        assert!(outcome.stderr.contains(message), "{message:?}: {outcome:?}");
    }
    let outcome = book(&["--bless"], &page("nothing", "```console\nlab# echo '# no'\n```\n"));
    assert!(outcome.stderr.contains("would be read as something typed: # no"), "{outcome:?}");
}
