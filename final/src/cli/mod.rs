//! The command line, with docker's names.

mod options;

use clap::{Args, Parser, Subcommand};

pub use options::{
    EnvFile, HostDevice, LimitArgs, Net, NetworkArgs, Pull, RunArgs, Seccomp, Share, Userns, grace,
    parse_env, read_env,
};

use crate::verbs::attach::AttachArgs;
use crate::verbs::completion::CompletionArgs;
use crate::verbs::cp::CpArgs;
use crate::verbs::diff::DiffArgs;
use crate::verbs::exec::ExecArgs;
use crate::verbs::images::ImagesArgs;
use crate::verbs::import::ImportArgs;
use crate::verbs::info::InfoArgs;
use crate::verbs::inspect::InspectArgs;
use crate::verbs::kill::KillArgs;
use crate::verbs::load::LoadArgs;
use crate::verbs::logs::LogsArgs;
use crate::verbs::network::NetworkVerb;
use crate::verbs::pause::PauseArgs;
use crate::verbs::port::PortArgs;
use crate::verbs::prune::PruneArgs;
use crate::verbs::ps::PsArgs;
use crate::verbs::pull::PullArgs;
use crate::verbs::restart::RestartArgs;
use crate::verbs::rm::RmArgs;
use crate::verbs::rmi::RmiArgs;
use crate::verbs::run::RunVerb;
use crate::verbs::save::SaveArgs;
use crate::verbs::start::StartArgs;
use crate::verbs::stats::StatsArgs;
use crate::verbs::stop::StopArgs;
use crate::verbs::tag::TagArgs;
use crate::verbs::top::TopArgs;
use crate::verbs::version::VersionArgs;
use crate::verbs::wait::WaitArgs;

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
    Run(Box<RunVerb>),
    /// Make a container, and do not start it yet
    #[command(override_usage = "final create [OPTIONS] [IMAGE [COMMAND...]]")]
    Create(Box<RunArgs>),
    /// Start containers that were made, or have ended
    Start(StartArgs),
    /// Sit at a running container: its input and output, until it ends or ctrl-p ctrl-q
    Attach(AttachArgs),
    /// Run a program in a running container
    Exec(ExecArgs),
    /// List containers
    Ps(PsArgs),
    /// Show all that is known about containers, images and networks
    Inspect(InspectArgs),
    /// List the published ports of a container
    Port(PortArgs),
    /// Show what a container wrote
    Logs(LogsArgs),
    /// End containers: ask first, then kill
    Stop(StopArgs),
    /// End containers, and start them again
    Restart(RestartArgs),
    /// Send a signal to a container's first process
    Kill(KillArgs),
    /// Stop all processes of containers where they are
    Pause(PauseArgs),
    /// Let paused containers go on
    Unpause(PauseArgs),
    /// Wait until containers have ended, and print their exit statuses
    Wait(WaitArgs),
    /// Show what containers use
    Stats(StatsArgs),
    /// Show the processes of a container
    Top(TopArgs),
    /// Show what a container has made of its image: A added, C changed, D deleted
    Diff(DiffArgs),
    /// Copy files between the host and a container
    #[command(
        override_usage = "final cp [OPTIONS] CONTAINER:SRC DEST|-\n       final cp [OPTIONS] SRC|- CONTAINER:DEST"
    )]
    Cp(CpArgs),
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
    /// Remove containers that do not run, and networks and images that nobody uses
    Prune(PruneArgs),
    /// Clean up after containers whose monitor was killed
    Gc,
    /// Show what this machine gives to containers
    Info(InfoArgs),
    /// Show which version this is
    Version(VersionArgs),
    /// Print a script by which a shell completes this command line
    Completion(CompletionArgs),
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
