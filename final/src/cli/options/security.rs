//! The options of `run` about what the program may do.

use clap::Args;

/// What the program may do.
#[derive(Args, Debug, Clone)]
#[group(skip)]
pub struct SecurityArgs {
    /// Take the walls away: all capabilities, all system calls, nothing masked or read-only in /proc
    /// and /sys. Run as root, such a container is root on the host
    #[arg(long)]
    pub privileged: bool,
}
