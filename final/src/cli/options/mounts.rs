//! The options of `run` about files.

use clap::Args;
use step03_rootfs::Volume;

/// What is mounted.
#[derive(Args, Debug, Clone)]
#[group(skip)]
pub struct MountArgs {
    /// Mount a file or directory of the host in the container (may be repeated)
    #[arg(long, short, value_name = "SRC:DST[:ro]", value_parser = Volume::parse)]
    pub volume: Vec<Volume>,
}
