//! Its first process.

use anyhow::{Context as _, Result, ensure};
use oci_spec::runtime::{self, Spec};

use super::{Annotation, annotation};
use crate::process::Process;
use crate::security::{Filters, parse_capabilities, parse_resource};
use crate::user::Wanted;

/// The first process, checked and ready.
pub(super) fn process(spec: &Spec) -> Result<Process> {
    let process = spec.process().as_ref().context("it has no `process` part")?;
    let names = process.capabilities().as_ref().and_then(|c| c.bounding().as_ref());
    let names: Vec<_> = names.into_iter().flatten().map(|c| format!("CAP_{c}")).collect();
    let rlimits = process.rlimits().iter().flatten().map(|limit| {
        let name = serde_json::to_value(limit.typ())?;
        Ok((parse_resource(name.as_str().unwrap_or_default())?, limit.soft(), limit.hard()))
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
        no_new_privileges: process.no_new_privileges().unwrap_or_default(),
        oom_score_adj: process.oom_score_adj(),
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
