//! The part of config.json that is about the network. OCI leaves it to the engine.

use serde_json::{Value, json};

use super::Request;
use crate::bundle::Annotation;
use crate::cli::RunArgs;
use crate::network::{Exposed, Wanted};

/// What OCI leaves to the engine, as text, since annotations are text.
pub fn annotations(args: &RunArgs, request: &Request) -> Value {
    let args = &args.network;
    let exposed: Vec<Exposed> = args.expose.iter().flatten().copied().collect();
    let mut publish: Vec<Wanted> = args.publish.iter().flatten().copied().collect();
    if args.publish_all {
        let others = exposed.iter().filter(|exposed| {
            !publish.iter().any(|p| (p.container, p.protocol) == (exposed.port, exposed.protocol))
        });
        publish.extend(others.map(|exposed| exposed.publish()).collect::<Vec<_>>());
    }
    let mut annotations = json!({
        Annotation::NETWORK: request.net.name(),
        Annotation::BRIDGE: args.bridge.bridge,
        Annotation::SUBNET: args.bridge.subnet.to_string(),
        Annotation::PUBLISH: words(&publish),
        Annotation::EXPOSED: words(&exposed),
    });
    if let Some(ip) = args.bridge.ip {
        annotations[Annotation::IP] = ip.to_string().into();
    }
    annotations
}

fn words(list: &[impl ToString]) -> String {
    list.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ")
}
