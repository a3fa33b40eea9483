//! The command line, with docker's names.

mod options;

use clap::{Args, Parser, Subcommand};

pub use options::{
    EnvFile, HostDevice, LimitArgs, Net, NetworkArgs, Pull, RunArgs, Seccomp, Share, parse_env,
    read_env,
};

use crate::verbs::exec::ExecArgs;
use crate::verbs::images::ImagesArgs;
use crate::verbs::import::ImportArgs;
use crate::verbs::kill::KillArgs;
use crate::verbs::load::LoadArgs;
use crate::verbs::network::NetworkVerb;
use crate::verbs::ps::PsArgs;
use crate::verbs::pull::PullArgs;
use crate::verbs::rm::RmArgs;
use crate::verbs::rmi::RmiArgs;
use crate::verbs::save::SaveArgs;
use crate::verbs::tag::TagArgs;

/// A container runtime made of five steps
#[derive(Parser, Debug)]
#[command(name = "final", version)]
pub struct Cli {
    /// What to do
    #[command(subcommand)]
    pub verb: Verb,
}

/// What can be done.
#[derive(Subcommand, Debug)]
pub enum Verb {
    /// Run a program in a new container
    Run(Box<RunArgs>),
    /// Run a program in a running container
    Exec(ExecArgs),
    /// List containers
    Ps(PsArgs),
    /// Send a signal to a container's first process
    Kill(KillArgs),
    /// Remove containers
    Rm(RmArgs),
    /// List images
    Images(ImagesArgs),
    /// Get an image from a registry
    Pull(PullArgs),
    /// Make an image of the archive of a root file system
    Import(ImportArgs),
    /// Take images from an archive
    Load(LoadArgs),
    /// Write images into an archive
    Save(SaveArgs),
    /// Give an image one more name
    Tag(TagArgs),
    /// Remove images
    Rmi(RmiArgs),
    /// Networks with a name
    #[command(subcommand)]
    Network(NetworkVerb),
    /// Clean up after containers whose runtime was killed
    Gc,
}

/// `-i` and `-t`.
#[derive(Args, Debug, Clone, Copy)]
#[group(skip)]
pub struct StdioArgs {
    /// Pass on our standard input
    #[arg(long, short)]
    pub interactive: bool,

    /// Give the program a terminal of its own
    #[arg(long, short)]
    pub tty: bool,
}
