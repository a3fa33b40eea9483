//! The fault drills: each is broken, is repaired by its own answer, and by nothing else.

use std::io::Write as _;
use std::process::{ExitCode, Stdio};
use std::time::Duration;

use workshop::drill::{Drill, book, drills};
use workshop::lab::Who;
use workshop::pty::Terminal;
use workshop::suite::{Outcome, Test, command, finish, run, suite};
use workshop::test;

const BINARY: &str = env!("CARGO_BIN_EXE_workshop");

static TESTS: &[Test] = &[
    test!(no_masquerade, [Root, LabRoot]),
    test!(ip_forward_off, [Root, LabRoot]),
    test!(wrong_gateway, [Root, LabRoot, Plain]),
    test!(forward_drop, [Root, LabRoot]),
    test!(veth_down, [Root, LabRoot]),
    test!(duplicate_address, [Root, LabRoot]),
    test!(memory_too_low, [Root, LabRoot], Limits),
    test!(sigterm_ignored, [Root, LabRoot]),
    test!(leaked_mount, [Root, LabRoot]),
    test!(pids_full, [Root, LabRoot], Limits),
    test!(an_undelegated_user_is_offered_the_others, [LabRoot, Plain], NoLimits),
    test!(a_missing_tool_is_named, [Root, LabRoot]),
    test!(bad_input_is_named, [Root, Plain]),
    test!(the_list_tells_no_fault, [Plain]),
    test!(one_is_chosen_for_who_asks_for_none, [Root, LabRoot]),
    test!(hints_and_answer_are_given, [Root]),
    test!(a_person_sits_at_a_terminal, [Root, LabRoot]),
    test!(every_drill_has_its_test, [Plain]),
    test!(the_book_has_the_drills, [Plain]),
];

fn main() -> ExitCode {
    suite(TESTS)
}

/// A drill whose shell reads these lines.
fn session(options: &[&str], lines: &str) -> Outcome {
    let mut command = command(BINARY, &[&["break"], options].concat());
    command.env("SHELL", "/bin/sh");
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("the workshop starts");
    let mut input = child.stdin.take().expect("piped");
    let _ = input.write_all(lines.as_bytes()); // it may refuse, and read nothing
    drop(input);
    finish(child, Duration::from_secs(100))
}

/// The text, wherever its lines are broken.
fn words(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

fn find(name: &str) -> &'static Drill {
    drills().find(|drill| drill.name == name).unwrap_or_else(|| panic!("no drill {name}"))
}

/// Once with the answer, and once with each wrong repair.
fn drill(name: &str) {
    let drill = find(name);
    let lines = format!("check && exit 90\n{}\ncheck || exit 91\n", drill.repair);
    let repaired = session(&[name], &lines);
    assert_eq!(repaired.status, Some(0), "{repaired:?}");
    assert!(words(&repaired.stderr).starts_with(&words(drill.ticket)), "{repaired:?}");
    assert!(repaired.stdout.starts_with("Not repaired. "), "{repaired:?}");
    assert!(repaired.stdout.contains("\nRepaired, and nothing else"), "{repaired:?}");
    assert!(!drill.wrong.is_empty());
    for (wrong, says) in drill.wrong {
        let refused = session(&[name], &format!("{wrong}\ncheck && exit 90\nexit 92\n"));
        assert_eq!(refused.status, Some(92), "{wrong}: {refused:?}");
        assert!(refused.stdout.contains(says), "{wrong}: {refused:?}");
        let gone = refused.stdout.contains("The symptom is gone, but");
        assert_eq!(gone, !says.starts_with("Not repaired."), "{wrong}: {refused:?}");
    }
}

fn no_masquerade(_: Who) {
    drill("no-masquerade");
}

fn ip_forward_off(_: Who) {
    drill("ip-forward-off");
}

fn wrong_gateway(_: Who) {
    drill("wrong-gateway");
}

fn forward_drop(_: Who) {
    drill("forward-drop");
}

fn veth_down(_: Who) {
    drill("veth-down");
}

fn duplicate_address(_: Who) {
    drill("duplicate-address");
}

fn memory_too_low(_: Who) {
    drill("memory-too-low");
}

fn sigterm_ignored(_: Who) {
    drill("sigterm-ignored");
}

fn leaked_mount(_: Who) {
    drill("leaked-mount");
}

fn pids_full(_: Who) {
    drill("pids-full");
}

fn an_undelegated_user_is_offered_the_others(_: Who) {
    for name in ["memory-too-low", "pids-full"] {
        let refused = session(&[name], "check\n");
        assert_eq!(refused.status, Some(125), "{refused:?}");
        for part in ["takes a cgroup that may be limited", "cannot limit --", "--list"] {
            assert!(refused.stderr.contains(part), "{refused:?}");
        }
        assert!(refused.stdout.is_empty(), "{refused:?}");
    }
}

fn every_drill_has_its_test(_: Who) {
    for drill in drills() {
        let name = drill.name.replace('-', "_");
        assert!(TESTS.iter().any(|test| test.name == name), "{name}");
    }
    assert_eq!(drills().count(), 10);
}

fn a_missing_tool_is_named(_: Who) {
    // A drill looks in root's own directories, too, whatever PATH says.
    let script = "mount -t tmpfs none /usr/sbin && exec \"$0\" break no-masquerade";
    let program = workshop::lab::program(BINARY).to_string_lossy().into_owned();
    let words = ["lab", "--", "sh", "-c", script, &program];
    let refused = run(&mut command(BINARY, &words), Duration::from_secs(60));
    assert_eq!(refused.status, Some(125), "{refused:?}");
    for part in ["nft", "not installed", "nftables"] {
        assert!(refused.stderr.contains(part), "{refused:?}");
    }
}

fn bad_input_is_named(_: Who) {
    for (options, named) in [
        (&["0"][..], "\"0\""),
        (&["11"], "--list"),
        (&["no-such-drill"], "no-such-drill"),
        (&["--inside", "check"], "this is no drill"),
    ] {
        let refused = session(options, "");
        assert_eq!(refused.status, Some(125), "{options:?}: {refused:?}");
        assert!(refused.stderr.contains(named), "{options:?}: {refused:?}");
    }
}

fn the_list_tells_no_fault(_: Who) {
    let listed = session(&["--list"], "");
    assert_eq!((listed.status, listed.stdout.lines().count()), (Some(0), 10), "{listed:?}");
    for drill in drills() {
        assert!(listed.stdout.contains(drill.title), "{listed:?}");
        assert!(!listed.stdout.contains(drill.name), "{listed:?}");
    }
}

fn one_is_chosen_for_who_asks_for_none(_: Who) {
    let chosen = session(&[], "check && exit 90\nexit 92\n");
    assert_eq!(chosen.status, Some(92), "{chosen:?}");
    assert!(chosen.stdout.starts_with("Not repaired. "), "{chosen:?}");
    let said = words(&chosen.stderr);
    let drill = drills().find(|drill| said.starts_with(&words(drill.ticket))).expect("a ticket");
    assert!(!chosen.stderr.contains(drill.name), "{chosen:?}");
}

fn hints_and_answer_are_given(_: Who) {
    let drill = find("wrong-gateway");
    let asked = session(&["3"], "hint\nhint\nhint\nhint\nanswer\npid web\npid nobody\n");
    let said = words(&asked.stdout);
    for (index, hint) in drill.hints.iter().enumerate() {
        assert!(said.contains(&words(&format!("{}/3: {hint}", index + 1))), "{asked:?}");
    }
    assert!(said.contains("the last hint"), "{asked:?}");
    assert!(said.contains(&words(drill.answer)), "{asked:?}");
    assert!(asked.stdout.contains(drill.repair), "{asked:?}");
    let pid = asked.stdout.lines().last().map(str::parse::<u32>);
    assert!(matches!(pid, Some(Ok(_))), "{asked:?}");
    assert!(asked.stderr.contains("no container nobody is running"), "{asked:?}");
}

fn the_book_has_the_drills(_: Who) {
    let page = include_str!("../../book/src/drills.md");
    assert!(page.ends_with(&book()), "regenerate it: see the last lines of the page's first part");
}

fn a_person_sits_at_a_terminal(_: Who) {
    let drill = find("wrong-gateway");
    let mut program = command(BINARY, &["break", drill.name]);
    program.env("SHELL", "/bin/sh");
    let mut terminal = Terminal::start(program);
    terminal.expect("Leave with: exit");
    terminal.expect("# ");
    // What is typed is shown, too, so what is waited for is spelt another way. The job itself says
    // it: by then it is in the foreground.
    terminal.type_in("sh -c 'echo sle\"\"ep; exec sleep 1000'\n");
    terminal.expect("sleep\r\n");
    terminal.type_in("\x03"); // Ctrl-C is for what runs in the shell, and for nothing else
    terminal.expect("# ");
    terminal.type_in("check\n");
    terminal.expect("Not repaired.");
    terminal.expect("# ");
    terminal.type_in(&format!("{}\ncheck\n", drill.repair));
    terminal.expect("Repaired, and nothing else");
    terminal.expect("# ");
    terminal.type_in("exit 7\n");
    assert_eq!(terminal.child.wait().expect("our own child").code(), Some(7));
}
