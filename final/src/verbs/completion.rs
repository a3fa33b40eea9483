//! `final completion`

use anyhow::Result;
use clap::{Args, CommandFactory as _, ValueEnum};
use clap_complete::{generate, shells};

use crate::cli::Cli;

/// `completion SHELL`
#[derive(Args, Debug, Clone)]
pub struct CompletionArgs {
    /// For which: source <(final completion bash)
    #[arg(value_enum)]
    pub shell: Shell,
}

/// The shells that are known.
#[derive(ValueEnum, Debug, Clone, Copy)]
pub enum Shell {
    /// GNU Bash
    Bash,
    /// fish
    Fish,
    /// Zsh
    Zsh,
}

/// Prints a script by which a shell completes our verbs and flags: what the command line says of itself.
pub fn run(args: &CompletionArgs) -> Result<()> {
    let (mut command, mut script) = (Cli::command(), Vec::new());
    match args.shell {
        Shell::Bash => generate(shells::Bash, &mut command, "final", &mut script),
        Shell::Fish => generate(shells::Fish, &mut command, "final", &mut script),
        Shell::Zsh => generate(shells::Zsh, &mut command, "final", &mut script),
    }
    super::print(&String::from_utf8_lossy(&script))
}
