//! The container runtime's binary: `cargo run -p final -- run`.

use std::process::ExitCode;

use runtime::cli::{Cli, Verb};
use runtime::network::rootless;
use runtime::verbs::{
    attach, completion, cp, create, diff, exec, gc, images, import, info, inspect, kill, load,
    logs, network, pause, port, prune, ps, pull, restart, rm, rmi, run, save, start, stats, stop,
    tag, top, version, wait,
};

fn main() -> ExitCode {
    let cli: Cli = step01_namespaces::parse();
    rootless::place_pools();
    step01_namespaces::exit(match cli.verb {
        Verb::Run(args) => run::run(&args),
        Verb::Create(args) => create::run(&args),
        Verb::Start(args) => start::run(&args),
        Verb::Attach(args) => attach::run(&args),
        Verb::Exec(args) => exec::run(&args),
        Verb::Ps(args) => ps::run(&args),
        Verb::Inspect(args) => inspect::run(&args),
        Verb::Port(args) => port::run(&args),
        Verb::Logs(args) => logs::run(&args),
        Verb::Stop(args) => stop::run(&args),
        Verb::Restart(args) => restart::run(&args),
        Verb::Pause(args) => pause::pause(&args),
        Verb::Unpause(args) => pause::unpause(&args),
        Verb::Wait(args) => wait::run(&args),
        Verb::Stats(args) => stats::run(&args),
        Verb::Top(args) => top::run(&args),
        Verb::Diff(args) => diff::run(&args),
        Verb::Cp(args) => cp::run(&args),
        Verb::Kill(args) => kill::run(&args),
        Verb::Rm(args) => rm::run(&args),
        Verb::Images(args) => images::run(&args),
        Verb::Pull(args) => pull::run(&args),
        Verb::Import(args) => import::run(&args),
        Verb::Load(args) => load::run(&args),
        Verb::Save(args) => save::run(&args),
        Verb::Tag(args) => tag::run(&args),
        Verb::Rmi(args) => rmi::run(&args),
        Verb::Network(verb) => network::run(&verb),
        Verb::Prune(args) => prune::run(&args),
        Verb::Gc => gc::run(),
        Verb::Info(args) => info::run(&args),
        Verb::Version(args) => version::run(&args),
        Verb::Completion(args) => completion::run(&args),
    })
}
