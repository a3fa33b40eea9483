//! The part of config.json that is about the network.

use anyhow::Result;
use oci_spec::runtime::Spec;
use step04_bridge_veth::{Args, parse_link_name};

use super::{Annotation, annotation};
use crate::cli::Net;
use crate::network::{self, Exposed, Plan, Wanted};

/// The container's place on a bridge, if it has one.
pub fn plan(spec: &Spec, net: &Net) -> Result<Option<Plan>> {
    if !net.is_bridge() {
        return Ok(None);
    }
    let words = |name| annotation(spec, name).map(str::split_whitespace);
    let plan = Plan {
        network: net.name().to_owned(),
        bridge: Args {
            bridge: parse_link_name(annotation(spec, Annotation::BRIDGE)?)?,
            subnet: annotation(spec, Annotation::SUBNET)?.parse()?,
            ip: annotation(spec, Annotation::IP).ok().map(str::parse).transpose()?,
        },
        internal: annotation(spec, Annotation::INTERNAL)? == "true",
        aliases: words(Annotation::ALIASES)?.map(str::to_owned).collect(),
        publish: each(spec, Annotation::PUBLISH, Wanted::parse)?,
    };
    network::check(&plan)?;
    Ok(Some(plan))
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
