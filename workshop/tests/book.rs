//! The checker of the book: that it types, compares, rewrites, and tells what it did not run.
//!
//! The pages themselves show what one machine's tools print, so they are run by `.ci/run`, and not
//! on every machine by `cargo test`. What holds everywhere is tested here.

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::Duration;

use libtest_mimic::{Arguments, Trial};
use workshop::book::{Page, all_pages};
use workshop::suite::{Outcome, run};

type Check = fn();

fn main() -> ExitCode {
    let checks: [(&str, Check); 8] = [
        ("every_block_of_the_book_can_be_read", every_block_of_the_book_can_be_read),
        ("all_rust_is_included_from_the_sources", all_rust_is_included_from_the_sources),
        ("differences_between_steps_are_real", differences_between_steps_are_real),
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
