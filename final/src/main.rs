//! The container runtime's binary: `cargo run -p final -- run`.

use std::process::ExitCode;

use runtime::cli::{Cli, Verb};
use runtime::network::rootless;
use runtime::security::protect_own_program;
use runtime::verbs::{
    attach, completion, cp, create, diff, exec, gc, images, import, info, inspect, kill, load,
    logs, network, pause, plain, port, prune, ps, pull, restart, rm, rmi, run, save, start, stats,
    stop, tag, top, version, wait,
};

fn main() -> ExitCode {
    step01_namespaces::forget_caller();
    // These verbs execute our program once more: before it has read the command line, or it would do so twice.
    let verb = std::env::args_os().nth(1).unwrap_or_default();
    if ["run", "start", "restart", "exec", "cp"].iter().any(|again| verb == *again)
        && let Err(error) = protect_own_program()
    {
        return step01_namespaces::exit(Err(error));
    }
    let cli: Cli = step01_namespaces::parse();
    rootless::place_pools();
    step01_namespaces::exit(match cli.verb {
        Verb::Run(args) => run::run(&args),
        Verb::Create(args) => create::run(&args),
        Verb::Start(args) => start::run(&args),
        Verb::Attach(args) => attach::run(&args),
        Verb::Exec(args) => exec::run(&args),
        Verb::Ps(args) => plain(ps::run(&args)),
        Verb::Inspect(args) => inspect::run(&args),
        Verb::Port(args) => plain(port::run(&args)),
        Verb::Logs(args) => plain(logs::run(&args)),
        Verb::Stop(args) => stop::run(&args),
        Verb::Restart(args) => restart::run(&args),
        Verb::Pause(args) => pause::pause(&args),
        Verb::Unpause(args) => pause::unpause(&args),
        Verb::Wait(args) => plain(wait::run(&args)),
        Verb::Stats(args) => plain(stats::run(&args)),
        Verb::Top(args) => plain(top::run(&args)),
        Verb::Diff(args) => plain(diff::run(&args)),
        Verb::Cp(args) => plain(cp::run(&args)),
        Verb::Kill(args) => kill::run(&args),
        Verb::Rm(args) => rm::run(&args),
        Verb::Images(args) => plain(images::run(&args)),
        Verb::Pull(args) => plain(pull::run(&args)),
        Verb::Import(args) => plain(import::run(&args)),
        Verb::Load(args) => plain(load::run(&args)),
        Verb::Save(args) => plain(save::run(&args)),
        Verb::Tag(args) => plain(tag::run(&args)),
        Verb::Rmi(args) => plain(rmi::run(&args)),
        Verb::Network(verb) => plain(network::run(&verb)),
        Verb::Prune(args) => plain(prune::run(&args)),
        Verb::Gc => plain(gc::run()),
        Verb::Info(args) => plain(info::run(&args)),
        Verb::Version(args) => plain(version::run(&args)),
        Verb::Completion(args) => plain(completion::run(&args)),
    })
}
