//! The learner's tool: `cargo workshop`. On a system that is not Linux it says how to get one.

use std::process::ExitCode;

#[cfg(any(test, not(target_os = "linux")))]
mod elsewhere;

#[cfg(target_os = "linux")]
fn main() -> ExitCode {
    workshop::cli::main()
}

#[cfg(not(target_os = "linux"))]
fn main() -> ExitCode {
    eprintln!("{}", elsewhere::advice(std::env::consts::OS));
    ExitCode::FAILURE
}
