//! `final info`

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::thread::available_parallelism;

use anyhow::Result;
use clap::Args;
use nix::sys::utsname::uname;
use serde_json::{Value, json};
use step02_cgroups::{Version, place};

use super::stats::machines_memory;
use crate::format::Format;
use crate::image::Images;
use crate::network::{rootless, uplink};
use crate::status::Status;
use crate::store::{self};
use crate::user::is_rootless;

/// `info [-f FORMAT]`
#[derive(Args, Debug, Clone)]
pub struct InfoArgs {
    /// json, or a template: '{{.CgroupVersion}}'
    #[arg(long, short, value_name = "FORMAT", value_parser = Format::without_table)]
    pub format: Option<Format>,
}

const TEXT: &str = "\
Containers: {{.Containers}}
 Running: {{.ContainersRunning}}
 Paused: {{.ContainersPaused}}
 Stopped: {{.ContainersStopped}}
Images: {{.Images}}
Storage Driver: {{.Driver}}
Cgroup Driver: {{.CgroupDriver}}
Cgroup Version: {{.CgroupVersion}}
Cgroup Directory: {{.CgroupDirectory}}
Security Options:
{{range .SecurityOptions}} {{.}}
{{end}}Network Tools:
{{range .NetworkTools}} {{.}}
{{end}}Kernel Version: {{.KernelVersion}}
Operating System: {{.OperatingSystem}}
OSType: {{.OSType}}
Architecture: {{.Architecture}}
CPUs: {{.NCPU}}
Total Memory: {{.MemTotal}}B
Name: {{.Name}}
Root Dir: {{.DockerRootDir}}
{{range .Warnings}}WARNING: {{.}}
{{end}}";

/// Shows what this machine gives to containers, and how many there are.
pub fn run(args: &InfoArgs) -> Result<()> {
    let shown = info().and_then(|info| Format::show(args.format.as_ref(), TEXT, &info));
    super::print(&shown?)
}

fn info() -> Result<Value> {
    let store = super::open()?;
    let states = store.list()?.iter().map(Status::of).collect::<Result<Vec<_>>>()?;
    let count = |wanted: &[Status]| states.iter().filter(|status| wanted.contains(status)).count();
    let images: BTreeSet<_> = Images::open(&store)?.list()?.into_iter().map(|i| i.id).collect();
    let (cgroup, directory) = place()?;
    let pasta = uplink::program();
    let kernel = uname()?;
    let mut warnings = Vec::new();
    if directory.is_none() {
        warnings.push("no cgroup can be made here, so limits are refused");
    }
    if pasta.is_none() && rootless::applies() {
        warnings.push("no pasta (package passt) is installed, so networks have no way out");
    }
    Ok(json!({
        "Containers": states.len(),
        "ContainersRunning": count(&[Status::Running, Status::Restarting]),
        "ContainersPaused": count(&[Status::Paused]),
        "ContainersStopped": count(&[Status::Created, Status::Exited]),
        "Images": images.len(),
        "Driver": "overlay",
        "CgroupDriver": if directory.is_some() { "cgroupfs" } else { "none" },
        "CgroupVersion": if cgroup == Version::V1 { "1" } else { "2" },
        "CgroupDirectory": directory.unwrap_or_default(),
        "SecurityOptions": security_options()?,
        "NetworkTools": pasta.into_iter().collect::<Vec<_>>(),
        "KernelVersion": kernel.release().to_string_lossy(),
        "OperatingSystem": operating_system(),
        "OSType": "linux",
        "Architecture": kernel.machine().to_string_lossy(),
        "NCPU": available_parallelism()?,
        "MemTotal": machines_memory(),
        "Name": kernel.nodename().to_string_lossy(),
        "DockerRootDir": store::root()?,
        "Warnings": warnings,
    }))
}

/// What keeps containers in, in docker's words.
fn security_options() -> Result<Vec<&'static str>> {
    let is_there = |path: &str| Path::new(path).exists();
    let options = [
        ("name=seccomp,profile=builtin", is_there("/proc/sys/kernel/seccomp/actions_avail")),
        ("name=rootless", is_rootless()?),
        ("name=cgroupns", is_there("/proc/self/ns/cgroup")),
        ("name=no-new-privileges", true),
    ];
    Ok(options.into_iter().filter(|(_, is_so)| *is_so).map(|(option, _)| option).collect())
}

/// os-release(5).
fn operating_system() -> String {
    let text = fs::read_to_string("/etc/os-release").unwrap_or_default();
    let name = text.lines().find_map(|line| line.strip_prefix("PRETTY_NAME="));
    name.unwrap_or("Linux").trim_matches('"').to_owned()
}
