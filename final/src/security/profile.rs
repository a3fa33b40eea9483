//! A seccomp profile from a file, in docker's form or in OCI's.

use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result, ensure};
use caps::CapsHashSet;
use nix::sys::utsname::uname;
use oci_spec::runtime::LinuxSeccomp;
use serde::Deserialize;
use serde_json::{Value, json};

use super::Filters;

/// docker's form: OCI's, and each rule can say for whom it is. (moby, profiles/seccomp/seccomp.go)
#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Profile {
    default_action: String,
    default_errno_ret: Option<u32>,
    architectures: Option<Vec<String>>,
    arch_map: Option<Vec<Architecture>>,
    flags: Option<Vec<String>>,
    listener_path: Option<String>,
    listener_metadata: Option<String>,
    syscalls: Option<Vec<Rule>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Architecture {
    architecture: String,
    #[serde(rename = "subArchitectures")]
    _others: Option<Vec<String>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Rule {
    name: Option<String>,
    names: Option<Vec<String>>,
    action: String,
    errno_ret: Option<u32>,
    args: Option<Vec<Value>>,
    #[serde(rename = "comment")]
    _comment: Option<String>,
    includes: Option<Condition>,
    excludes: Option<Condition>,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Condition {
    caps: Option<Vec<String>>,
    arches: Option<Vec<String>>,
    min_kernel: Option<String>,
}

/// This architecture, as docker's rules and OCI's list name it.
#[cfg(target_arch = "x86_64")]
const NATIVE: (&str, &str) = ("amd64", "SCMP_ARCH_X86_64");
#[cfg(target_arch = "aarch64")]
const NATIVE: (&str, &str) = ("arm64", "SCMP_ARCH_AARCH64");

/// Reads the profile in the file, for a container with these capabilities, in OCI's form.
pub fn read_profile(path: &Path, capabilities: &CapsHashSet) -> Result<Value> {
    let read = || -> Result<Value> {
        let profile = convert(serde_json::from_slice(&fs::read(path)?)?, capabilities)?;
        let checked: LinuxSeccomp = serde_json::from_value(profile.clone())?;
        Filters::compile(&checked)?;
        Ok(profile)
    };
    read().with_context(|| format!("cannot use the seccomp profile {}", path.display()))
}

fn convert(profile: Profile, capabilities: &CapsHashSet) -> Result<Value> {
    let map = profile.arch_map.into_iter().flatten().map(|architecture| architecture.architecture);
    let architectures: Vec<_> = profile.architectures.into_iter().flatten().chain(map).collect();
    ensure!(
        architectures.is_empty() || architectures.iter().any(|name| name == NATIVE.1),
        "it is for {}, and this is {}",
        architectures.join(", "),
        NATIVE.1
    );
    let kernel = uname().context("cannot ask for the kernel's version")?;
    let kernel = version(&kernel.release().to_string_lossy())?;
    let mut syscalls = Vec::new();
    for rule in profile.syscalls.into_iter().flatten() {
        let (includes, excludes) =
            (rule.includes.unwrap_or_default(), rule.excludes.unwrap_or_default());
        if includes.holds(capabilities, kernel)?.contains(&false)
            || excludes.holds(capabilities, kernel)?.contains(&true)
        {
            continue;
        }
        let mut entry = json!({
            "names": rule.names.into_iter().flatten().chain(rule.name).collect::<Vec<_>>(),
            "action": rule.action,
            "args": rule.args.unwrap_or_default(),
        });
        if let Some(errno) = rule.errno_ret {
            entry["errnoRet"] = errno.into();
        }
        syscalls.push(entry);
    }
    let mut converted = json!({
        "defaultAction": profile.default_action,
        "flags": profile.flags.unwrap_or_default(),
        "syscalls": syscalls,
    });
    for (name, value) in [
        ("defaultErrnoRet", profile.default_errno_ret.map(Value::from)),
        ("listenerPath", profile.listener_path.map(Value::from)),
        ("listenerMetadata", profile.listener_metadata.map(Value::from)),
    ] {
        if let Some(value) = value {
            converted[name] = value;
        }
    }
    Ok(converted)
}

impl Condition {
    /// Of each part that there is, whether it holds.
    fn holds(&self, capabilities: &CapsHashSet, kernel: (u32, u32)) -> Result<Vec<bool>> {
        let mut parts = Vec::new();
        if let Some(arches) = self.arches.as_ref().filter(|list| !list.is_empty()) {
            parts.push(arches.iter().any(|name| name == NATIVE.0));
        }
        for capability in self.caps.iter().flatten() {
            let known = capability.parse().map(|capability| capabilities.contains(&capability));
            parts.push(known.unwrap_or(false));
        }
        if let Some(least) = self.min_kernel.as_ref().filter(|version| !version.is_empty()) {
            parts.push(kernel >= version(least)?);
        }
        Ok(parts)
    }
}

/// `6.18` and `6.18.5-arch1` as numbers.
fn version(text: &str) -> Result<(u32, u32)> {
    let numbers: Vec<_> = text.split(|c: char| !c.is_ascii_digit()).take(2).collect();
    let parse = |index: usize| numbers.get(index)?.parse().ok();
    Option::zip(parse(0), parse(1)).with_context(|| format!("{text:?} is no kernel's version"))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::{NATIVE, convert, version};
    use crate::security::parse_capabilities;

    #[test]
    fn dockers_conditions() {
        let rule = |name: &str, key: &str, condition: serde_json::Value| json!({ "names": [name], "action": "SCMP_ACT_ALLOW", key: condition });
        let profile = json!({
            "defaultAction": "SCMP_ACT_ERRNO",
            "archMap": [{ "architecture": NATIVE.1, "subArchitectures": [] }],
            "syscalls": [
                rule("has", "includes", json!({ "caps": ["CAP_CHOWN"] })),
                rule("has not", "includes", json!({ "caps": ["CAP_CHOWN", "CAP_SYS_ADMIN"] })),
                rule("not without", "excludes", json!({ "caps": ["CAP_CHOWN"] })),
                rule("not with", "excludes", json!({ "caps": ["CAP_SYS_ADMIN"] })),
                rule("here", "includes", json!({ "arches": ["s390x", NATIVE.0] })),
                rule("elsewhere", "includes", json!({ "arches": ["s390x"] })),
                rule("now", "includes", json!({ "minKernel": "4.8" })),
                rule("later", "includes", json!({ "minKernel": "99.0" })),
                rule("", "comment", json!("words")),
            ],
        });
        let capabilities = parse_capabilities(["CAP_CHOWN"]).unwrap();
        let read = |profile| convert(serde_json::from_value(profile).unwrap(), &capabilities);
        let oci = read(profile).unwrap();
        let names: Vec<_> = oci["syscalls"].as_array().unwrap().iter().collect();
        let names: Vec<_> = names.iter().map(|rule| rule["names"][0].as_str().unwrap()).collect();
        assert_eq!(names, ["has", "not with", "here", "now", ""]);
        let foreign =
            json!({ "defaultAction": "SCMP_ACT_ALLOW", "architectures": ["SCMP_ARCH_S390X"] });
        assert!(read(foreign).unwrap_err().to_string().contains("SCMP_ARCH_S390X"));
        assert!(version("5.10.0-rc1").unwrap() < version("6.1").unwrap());
    }
}
