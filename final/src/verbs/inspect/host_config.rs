//! `HostConfig`: what the flags of `run` became, read from config.json again.

use std::collections::BTreeSet;

use serde_json::{Map, Value, json};
use step01_namespaces::Namespace;

use super::container::{add, words};
use crate::bundle::Annotation;
use crate::monitor::Restart;
use crate::mounts;
use crate::network::Wanted;
use crate::security::DEFAULT_CAPABILITIES;
use crate::store::State;

pub(super) fn host_config(state: &State, config: &Value) -> Value {
    let (restart, most) = match state.restart {
        Restart::No => ("no", 0),
        Restart::OnFailure(most) => ("on-failure", most),
        Restart::Always => ("always", 0),
    };
    let privileged = config["annotations"][Annotation::PRIVILEGED] == "true";
    let mut shown = fields(json!({
        "AutoRemove": state.rm,
        "RestartPolicy": { "Name": restart, "MaximumRetryCount": most },
        "Privileged": privileged,
        "SecurityOpt": security_options(config, privileged),
        "Init": config["annotations"][Annotation::INIT] == "true",
        "ReadonlyRootfs": config["root"]["readonly"],
        "OomScoreAdj": config["process"]["oomScoreAdj"].as_i64().unwrap_or_default(),
        "MaskedPaths": config["linux"]["maskedPaths"],
        "ReadonlyPaths": config["linux"]["readonlyPaths"],
        "Sysctls": config["linux"]["sysctl"],
        "GroupAdd": words(config, Annotation::GROUPS),
        "NetworkMode": config["annotations"][Annotation::NETWORK],
        "PortBindings": port_bindings(config),
        "Dns": words(config, Annotation::DNS),
        "DnsOptions": words(config, Annotation::DNS_OPTIONS),
        "DnsSearch": words(config, Annotation::DNS_SEARCH),
        "ExtraHosts": words(config, Annotation::HOSTS).iter().map(|h| h.replacen('=', ":", 1))
            .collect::<Vec<_>>(),
        "PidMode": mode(config, Namespace::Pid, ""),
        "IpcMode": mode(config, Namespace::Ipc, "private"),
        "UTSMode": mode(config, Namespace::Uts, ""),
        "UsernsMode": if config["linux"]["uidMappings"].is_array() { "remap" } else { "" },
        "Ulimits": ulimits(config),
    }));
    shown.extend(capabilities(config, privileged));
    shown.extend(files(state, config));
    shown.extend(limits(config));
    shown.into()
}

/// An object's fields.
fn fields(value: Value) -> Map<String, Value> {
    if let Value::Object(fields) = value { fields } else { Map::new() }
}

/// What it may beyond docker's default, and what it may not of that.
fn capabilities(config: &Value, privileged: bool) -> Map<String, Value> {
    let bounding = config["process"]["capabilities"]["bounding"].as_array().into_iter().flatten();
    let has: BTreeSet<_> = bounding.filter_map(Value::as_str).collect();
    let usual = BTreeSet::from(DEFAULT_CAPABILITIES);
    let added: Vec<_> = has.difference(&usual).filter(|_| !privileged).collect();
    fields(json!({ "CapAdd": added, "CapDrop": usual.difference(&has).collect::<Vec<_>>() }))
}

fn security_options(config: &Value, privileged: bool) -> Vec<&'static str> {
    let linux = &config["linux"];
    let has_none = |paths: &Value| paths.as_array().is_none_or(Vec::is_empty);
    let options = [
        ("no-new-privileges", config["process"]["noNewPrivileges"] == true),
        ("seccomp=unconfined", linux["seccomp"].is_null() && !privileged),
        ("systempaths=unconfined", has_none(&linux["maskedPaths"]) && !privileged),
    ];
    options.into_iter().filter(|(_, is_set)| *is_set).map(|(option, _)| option).collect()
}

/// Whose a namespace is: its own, another container's, or the host's.
fn mode(config: &Value, kind: Namespace, own: &str) -> String {
    let joins = words(config, Annotation::JOIN);
    let join = joins.iter().find_map(|join| join.strip_prefix(kind.name())?.strip_prefix('='));
    let new = config["linux"]["namespaces"].as_array().into_iter().flatten();
    let is_new = new.map(|namespace| &namespace["type"]).any(|name| name == kind.name());
    match join {
        Some(id) => format!("container:{id}"),
        None if is_new => own.to_owned(),
        None => "host".to_owned(),
    }
}

fn port_bindings(config: &Value) -> Map<String, Value> {
    let mut bindings: Map<String, Value> = Map::new();
    let wanted = words(config, Annotation::PUBLISH).into_iter();
    for Wanted { address, host, container, protocol } in
        wanted.filter_map(|text| Wanted::parse(&text).ok()).flatten()
    {
        let port = match host {
            None => String::new(),
            Some((one, same)) if one == same => one.to_string(),
            Some((first, last)) => format!("{first}-{last}"),
        };
        let one = json!({ "HostIp": address, "HostPort": port });
        add(bindings.entry(format!("{container}/{protocol}")).or_insert(Value::Null), one);
    }
    bindings
}

fn ulimits(config: &Value) -> Vec<Value> {
    let limits = config["process"]["rlimits"].as_array().into_iter().flatten();
    let shown = limits.map(|limit| {
        let name = limit["type"].as_str().unwrap_or_default().trim_start_matches("RLIMIT_");
        json!({ "Name": name.to_lowercase(), "Soft": limit["soft"], "Hard": limit["hard"] })
    });
    shown.collect()
}

/// Mounts and devices.
fn files(state: &State, config: &Value) -> Map<String, Value> {
    let (mut binds, mut tmpfs) = (Vec::new(), Map::new());
    for mount in mounts::of_user(config, &state.image) {
        let text = |key: &str| mount[key].as_str().unwrap_or_default().to_owned();
        let (place, mode) = (text("Destination"), text("Mode"));
        if mount["Type"] == "bind" {
            let colon = if mode.is_empty() { "" } else { ":" };
            binds.push(format!("{}:{place}{colon}{mode}", text("Source")));
        } else {
            tmpfs.insert(place, mode.into());
        }
    }
    let all = || config["mounts"].as_array().into_iter().flatten();
    let shm = all().filter(|mount| mount["destination"] == "/dev/shm" && mount["type"] == "tmpfs");
    let options = shm.flat_map(|mount| mount["options"].as_array().into_iter().flatten());
    let size = options.filter_map(|option| option.as_str()?.strip_prefix("size=")).next_back();
    let size = size.and_then(|size| step02_cgroups::parse_size(size).ok());
    let made = config["linux"]["devices"].as_array().into_iter().flatten();
    let made = made.map(|device| json!({ "PathInContainer": device["path"] }));
    let bound = all().filter(|mount| mount["options"] == json!(["bind"]));
    let bound =
        bound.map(|d| json!({ "PathOnHost": d["source"], "PathInContainer": d["destination"] }));
    fields(json!({
        "Binds": binds,
        "Tmpfs": tmpfs,
        "ShmSize": size.unwrap_or_default(),
        "Devices": made.chain(bound).collect::<Vec<_>>(),
    }))
}

/// As docker's, 0 is no limit.
fn limits(config: &Value) -> Map<String, Value> {
    let resources = &config["linux"]["resources"];
    let number = |part: &str, key: &str| resources[part][key].as_i64().unwrap_or_default();
    let (quota, period) = (number("cpu", "quota"), number("cpu", "period"));
    fields(json!({
        "Memory": number("memory", "limit"),
        "MemorySwap": number("memory", "swap"),
        "MemoryReservation": number("memory", "reservation"),
        "NanoCpus": if period > 0 { quota * 1_000_000_000 / period } else { 0 },
        "CpuQuota": quota,
        "CpuPeriod": period,
        "CpuShares": number("cpu", "shares"),
        "CpusetCpus": resources["cpu"]["cpus"].as_str().unwrap_or_default(),
        "PidsLimit": number("pids", "limit"),
    }))
}
