//! Its first process.

use anyhow::{Context as _, Result, bail, ensure};
use nix::sys::resource::Resource;
use oci_spec::runtime::{self, PosixRlimitType, Spec};

use super::{Annotation, annotation};
use crate::process::Process;
use crate::security::{Filters, parse_capabilities};
use crate::user::Wanted;

/// The first process, checked and ready.
pub(super) fn process(spec: &Spec) -> Result<Process> {
    let process = spec.process().as_ref().context("it has no `process` part")?;
    let names = process.capabilities().as_ref().and_then(|c| c.bounding().as_ref());
    let names: Vec<_> = names.into_iter().flatten().map(|c| format!("CAP_{c}")).collect();
    let rlimits = process.rlimits().iter().flatten().map(|limit| {
        let resource = match limit.typ() {
            PosixRlimitType::RlimitNofile => Resource::RLIMIT_NOFILE,
            PosixRlimitType::RlimitCore => Resource::RLIMIT_CORE,
            other => bail!("the rlimit {other:?} is not supported yet"),
        };
        Ok((resource, limit.soft(), limit.hard()))
    });
    let args = process.args().clone().unwrap_or_default();
    ensure!(!args.is_empty(), "it names no program");
    let seccomp = spec.linux().as_ref().and_then(|linux| linux.seccomp().as_ref());
    Ok(Process {
        args,
        user: user(spec, process.user()),
        env: process.env().clone().unwrap_or_default(),
        terminal: process.terminal().unwrap_or_default(),
        interactive: annotation(spec, Annotation::INTERACTIVE)? == "true",
        capabilities: parse_capabilities(names.iter().map(String::as_str))?,
        seccomp: seccomp.map(Filters::compile).transpose()?,
        rlimits: rlimits.collect::<Result<_>>()?,
    })
}

/// By its names, which only the container's files can tell, or by the ids that OCI has.
fn user(spec: &Spec, ids: &runtime::User) -> Wanted {
    match annotation(spec, Annotation::USER) {
        Ok(user) => Wanted {
            user: user.to_owned(),
            groups: annotation(spec, Annotation::GROUPS)
                .map(|groups| groups.split_whitespace().map(str::to_owned).collect())
                .unwrap_or_default(),
        },
        Err(_) => Wanted {
            user: format!("{}:{}", ids.uid(), ids.gid()),
            groups: ids.additional_gids().iter().flatten().map(ToString::to_string).collect(),
        },
    }
}
