//! Whether each verb and each flag of the command line is in the arguments of an end-to-end test.
//!
//! The command line says itself what there is, and the tests' sources what is typed. A statement of a test types
//! its own strings, those of the variables that it names, and those of one statement of a function that
//! it calls. There the verb and the flag have to be together. What the test makes of them, only its
//! reader can say.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use clap::{Arg, Command, CommandFactory as _};
use proc_macro2::{Delimiter, TokenStream, TokenTree};
use runtime::cli::Cli;

/// The tests in which `final` does something: in the others it refuses, or fails, as in those with [`REFUSED`].
const PROGRAMS: [&str; 4] = ["runtime", "images", "escape", "nginx.rs"];

/// How the names of tests begin that are about bad input.
const REFUSED: &str = "bad_input";

type Words = BTreeSet<String>;

/// What a statement has in it.
#[derive(Debug, Default, Clone)]
struct Statement {
    texts: Words,
    names: Words,
    /// The variables that it sets.
    sets: Words,
}

impl Statement {
    fn read(&mut self, tokens: impl IntoIterator<Item = TokenTree>) {
        let mut before = String::new();
        for token in tokens {
            let text = token.to_string();
            match token {
                TokenTree::Group(group) if before == "let" => {
                    self.sets.extend(group.stream().into_iter().map(|token| token.to_string()));
                }
                TokenTree::Group(group) => self.read(group.stream()),
                TokenTree::Literal(_) if text.ends_with(['"', '#']) => {
                    let text = text.trim_start_matches('r').trim_matches('#').trim_matches('"');
                    self.texts.insert(text.to_owned());
                }
                TokenTree::Ident(_) if ["let", "mut"].contains(&&*before) => {
                    self.sets.insert(text.clone());
                }
                TokenTree::Ident(_) => drop(self.names.insert(text.clone())),
                _ => {}
            }
            before = text;
        }
    }
}

/// The statements of a function: they end with a `;`, and loops with their body.
fn statements(body: TokenStream) -> Vec<Statement> {
    let mut statements = Vec::new();
    let mut tokens = Vec::new();
    for token in body {
        let is_body = matches!(&token, TokenTree::Group(g) if g.delimiter() == Delimiter::Brace);
        let is_loop = tokens.first().is_some_and(|first: &TokenTree| first.to_string() == "for");
        let ends = token.to_string() == ";" || (is_body && is_loop);
        tokens.push(token);
        if ends {
            statements.push(std::mem::take(&mut tokens));
        }
    }
    statements.push(tokens);
    let read = |tokens| {
        let mut statement = Statement::default();
        statement.read(tokens);
        statement
    };
    statements.into_iter().map(read).collect()
}

/// All functions of a program's sources.
fn functions(path: &Path) -> BTreeMap<String, Vec<Statement>> {
    let files: Vec<PathBuf> = match fs::read_dir(path) {
        Ok(entries) => entries.map(|entry| entry.unwrap().path()).collect(),
        Err(_) => vec![path.to_owned()],
    };
    let mut functions = BTreeMap::<_, Vec<_>>::new();
    for file in files.iter().filter(|file| file.extension().is_some_and(|end| end == "rs")) {
        let source: TokenStream = fs::read_to_string(file).unwrap().parse().expect("Rust");
        let mut name = None;
        let mut before = String::new();
        for token in source {
            let text = token.to_string();
            match token {
                TokenTree::Ident(_) if before == "fn" => name = Some(text.clone()),
                TokenTree::Group(group) if group.delimiter() == Delimiter::Brace => {
                    if let Some(name) = name.take() {
                        functions.entry(name).or_default().extend(statements(group.stream()));
                    }
                }
                _ => {}
            }
            before = text;
        }
    }
    functions
}

/// All that a statement may type at once. `within` are all of its function's.
fn typed(
    statement: &Statement,
    within: &[Statement],
    functions: &BTreeMap<String, Vec<Statement>>,
    depth: usize,
) -> Vec<Words> {
    let mut all = statement.clone();
    for _ in 0..3 {
        for set in within {
            if !set.sets.is_disjoint(&all.names) {
                all.texts.extend(set.texts.iter().cloned());
                all.names.extend(set.names.iter().cloned());
            }
        }
    }
    let called = all.names.iter().filter_map(|name| functions.get(name)).filter(|_| depth > 0);
    let below = called.flat_map(|body| {
        body.iter().flat_map(|statement| typed(statement, body, functions, depth - 1))
    });
    let mut typed: Vec<Words> = below.map(|words| &words | &all.texts).collect();
    typed.push(all.texts);
    typed
}

/// Whether a word is this flag, with or without its value, or among other letters.
fn is_flag(word: &str, flag: &Arg) -> bool {
    let is_long = |name: &str| {
        let rest = word.strip_prefix("--").and_then(|word| word.strip_prefix(name));
        rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('='))
    };
    let letters = word.strip_prefix('-').filter(|letters| letters.chars().all(char::is_alphabetic));
    flag.get_long_and_visible_aliases().into_iter().flatten().any(is_long)
        || flag.get_all_aliases().into_iter().flatten().any(is_long)
        || flag.get_short().is_some_and(|short| letters.is_some_and(|all| all.contains(short)))
}

/// The verbs, and the flags of each, that none of these has typed. The flags of `create` are those of `run`, in one
/// struct, so there they need no other test; `--help` has one of its own, for all verbs.
fn missing(command: &Command, above: &[&str], typed: &[Words]) -> Vec<String> {
    let with = |verbs: &[&str]| {
        let verbs: Words = verbs.iter().map(|&verb| verb.to_owned()).collect();
        typed.iter().filter(move |words| words.is_superset(&verbs))
    };
    let mut missing = Vec::new();
    if with(above).next().is_none() {
        missing.push(above.join(" "));
    }
    let verb = if above == ["create"] { &["run"] } else { above };
    for flag in command.get_arguments().filter(|flag| !flag.is_positional()) {
        let is_typed = with(verb).flatten().any(|word| is_flag(word, flag));
        if !is_typed && flag.get_id() != "help" {
            missing.push(format!("{} --{}", above.join(" "), flag.get_id()));
        }
    }
    for verb in command.get_subcommands() {
        missing.extend(self::missing(verb, &[above, &[verb.get_name()]].concat(), typed));
    }
    missing
}

#[test]
fn each_verb_and_flag_is_typed_in_a_test() {
    let mut typed = Vec::new();
    for program in PROGRAMS {
        let functions =
            functions(&Path::new(env!("CARGO_MANIFEST_DIR")).join("tests").join(program));
        let shown = functions.iter().filter(|(name, _)| !name.starts_with(REFUSED));
        for (_, body) in shown {
            typed.extend(
                body.iter().flat_map(|statement| self::typed(statement, body, &functions, 2)),
            );
        }
    }
    let missing = missing(&Cli::command(), &[], &typed);
    assert!(missing.is_empty(), "no test types these:\n{}", missing.join("\n"));
}

#[test]
fn what_is_typed_is_found_in_the_sources() {
    let source = r#"
        let port = if plain { &[][..] } else { &["-p", "80:80"] };
        detach("web", &[port, &["--net=none"]].concat());
        for options in [["--init"]] { ask(options) }
        // done(&["rm", "-f"])
        done(&["stop", "web"]);
    "#;
    let helper = r#"let words = [&["run", "-dt"], options].concat(); done(&words); done(&["ps"])"#;
    let within = statements(source.parse().unwrap());
    let functions = [("detach".to_owned(), statements(helper.parse().unwrap()))].into();
    let typed: Vec<_> =
        within.iter().flat_map(|statement| typed(statement, &within, &functions, 2)).collect();
    let missing = |verb: &'static str| {
        let cli = Cli::command();
        let missing = missing(cli.find_subcommand(verb).unwrap(), &[verb], &typed);
        move |flag: &str| missing.contains(&format!("{verb}{flag}"))
    };
    let run = missing("run");
    for flag in ["", " --publish", " --net", " --detach", " --tty"] {
        assert!(!run(flag), "{flag}");
    }
    // In no statement with this verb, or in a comment.
    assert!(
        run(" --init") && run(" --publish_all") && missing("rm")("") && missing("rm")(" --force")
    );
    assert!(!missing("stop")("") && missing("stop")(" --timeout") && !missing("ps")(""));
}
