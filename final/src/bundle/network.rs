//! The part of config.json that is about the network.

use std::net::IpAddr;

use anyhow::Result;
use oci_spec::runtime::Spec;
use step04_bridge_veth::{Args, parse_link_name};

use super::{Annotation, annotation, words};
use crate::cli::Net;
use crate::etc::Dns;
use crate::network::{self, Exposed, Plan, Wanted};

/// The container's place on a bridge, if it has one.
pub fn plan(spec: &Spec, net: &Net) -> Result<Option<Plan>> {
    if !net.is_bridge() {
        return Ok(None);
    }
    let plan = Plan {
        network: net.name(),
        bridge: Args {
            bridge: parse_link_name(annotation(spec, Annotation::BRIDGE)?)?,
            subnet: annotation(spec, Annotation::SUBNET)?.parse()?,
            ip: annotation(spec, Annotation::IP).ok().map(str::parse).transpose()?,
        },
        internal: annotation(spec, Annotation::INTERNAL)? == "true",
        aliases: words(spec, Annotation::ALIASES)?,
        dns: words(spec, Annotation::DNS)?,
        publish: each(spec, Annotation::PUBLISH, Wanted::parse)?,
    };
    network::check(&plan)?;
    Ok(Some(plan))
}

/// How it resolves names. Where a server of the network answers for them, that is the only one, and
/// asks those that the user wants.
pub fn dns(spec: &Spec, net: &Net) -> Result<Dns> {
    let mut dns = Dns {
        servers: words(spec, Annotation::DNS)?,
        search: words(spec, Annotation::DNS_SEARCH)?,
        options: words(spec, Annotation::DNS_OPTIONS)?,
    };
    if net.is_bridge() || dns.servers.is_empty() {
        let own: Vec<IpAddr> = words(spec, Annotation::NAMESERVER)?;
        dns.servers = if own.is_empty() { dns.servers } else { own };
    }
    Ok(dns)
}

/// The ports that the container's programs are said to listen at.
pub fn exposed(spec: &Spec) -> Result<Vec<Exposed>> {
    each(spec, Annotation::EXPOSED, Exposed::parse)
}

/// What all words of an annotation say.
fn each<T>(spec: &Spec, name: &str, parse: impl Fn(&str) -> Result<Vec<T>>) -> Result<Vec<T>> {
    let mut found = Vec::new();
    for word in annotation(spec, name)?.split_whitespace() {
        found.extend(parse(word)?);
    }
    Ok(found)
}
