//! `final version`

use anyhow::Result;
use clap::Args;
use nix::sys::utsname::uname;
use oci_spec::image::Arch;
use serde_json::{Value, json};

use crate::format::Format;
use crate::spec::OCI_VERSION;

/// `version [-f FORMAT]`
#[derive(Args, Debug, Clone)]
pub struct VersionArgs {
    /// json, or a template: '{{.Client.Version}}'
    #[arg(long, short, value_name = "FORMAT", value_parser = Format::without_table)]
    pub format: Option<Format>,
}

/// Of docker's two parts there is only the client: no daemon serves it.
const TEXT: &str = "\
Client: {{.Client.Name}}
 Version:          {{.Client.Version}}
 OCI Version:      {{.Client.OCIVersion}}
 OS/Arch:          {{.Client.Os}}/{{.Client.Arch}}
 Kernel Version:   {{.Client.KernelVersion}}
";

/// Shows the version of this program, of what it reads and writes, and of what it runs on.
pub fn run(args: &VersionArgs) -> Result<()> {
    let shown = version().and_then(|version| Format::show(args.format.as_ref(), TEXT, &version));
    super::print(&shown?)
}

fn version() -> Result<Value> {
    Ok(json!({
        "Client": {
            "Name": "final",
            "Version": env!("CARGO_PKG_VERSION"),
            "OCIVersion": OCI_VERSION,
            "Os": "linux",
            "Arch": Arch::default(), // Go's name, as images have it
            "KernelVersion": uname()?.release().to_string_lossy(),
        }
    }))
}
