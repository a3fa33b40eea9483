//! What each verb does.

pub mod exec;
pub mod gc;
pub mod kill;
pub mod ps;
pub mod rm;
pub mod run;

use anyhow::Error;
use step01_namespaces::Failure;

/// docker's exit status for an error of a verb that runs nothing.
fn failed(error: &Error) -> Error {
    Failure { status: 1, text: format!("{error:#}") }.into()
}
