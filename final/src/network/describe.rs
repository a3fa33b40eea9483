//! docker's JSON of a network.

use std::time::{Duration, UNIX_EPOCH};

use anyhow::Result;
use humantime::format_rfc3339_seconds;
use serde_json::{Value, json};

use super::{Config, Endpoint};

/// All that is known about a network, and who is on it.
pub fn describe(config: &Config) -> Result<Value> {
    let driver = config.driver();
    let mut containers = json!({});
    let mut pools = Vec::new();
    if driver == "bridge" {
        let subnet = config.subnet()?;
        pools.push(json!({ "Subnet": config.subnet, "Gateway": subnet.gateway() }));
        if let Some(subnet) = config.subnet6()? {
            pools.push(json!({ "Subnet": config.subnet6, "Gateway": subnet.gateway() }));
        }
        for (address, endpoint) in Endpoint::all(&config.bridge)? {
            containers[&endpoint.id] = json!({
                "Name": endpoint.name,
                "IPv4Address": format!("{address}/{}", subnet.prefix()),
                "IPv6Address": match (endpoint.address6, config.subnet6()?) {
                    (Some(address), Some(subnet)) => format!("{address}/{}", subnet.prefix()),
                    _ => String::new(),
                },
            });
        }
    }
    Ok(json!({
        "Name": config.name,
        "Id": config.id,
        "Created": created(config),
        "Scope": "local",
        "Driver": driver,
        "EnableIPv4": driver == "bridge",
        "EnableIPv6": config.subnet6.is_some(),
        "IPAM": { "Driver": "default", "Options": {}, "Config": pools },
        "Internal": config.internal,
        "Attachable": false,
        "Ingress": false,
        "Containers": containers,
        "Options": { "com.docker.network.bridge.name": config.bridge },
        "Labels": {},
    }))
}

/// When it was made.
#[must_use]
pub fn created(config: &Config) -> String {
    format_rfc3339_seconds(UNIX_EPOCH + Duration::from_secs(config.created)).to_string()
}
