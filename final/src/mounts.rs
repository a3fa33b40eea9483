//! Which of a container's mounts its user has asked for.

use std::collections::HashSet;

use serde_json::{Value, json};
use step01_namespaces::Namespace;
use step03_rootfs::{Image, default_mounts};

/// Those of config.json, as docker's `inspect` shows them: without what every container has, what the
/// image `host` has, and device nodes.
#[must_use]
pub fn of_user(config: &Value, image: &str) -> Vec<Value> {
    let Some(all) = config["mounts"].as_array() else { return Vec::new() };
    let usual = default_mounts(Namespace::ALL.into_iter().collect()).unwrap_or_default();
    let image = Image::parse(image).ok().filter(|image| *image == Image::Host);
    let images = image.and_then(|image| image.mounts().ok()).unwrap_or_default();
    // On a place that has a usual mount there may be one of the user's, too: it is the second.
    let mut ours: HashSet<_> =
        usual.into_iter().chain(images).map(|mount| mount.destination).collect();
    let users = all.iter().filter(|mount| {
        let words: Vec<_> = mount["options"].as_array().into_iter().flatten().collect();
        let place = mount["destination"].as_str().unwrap_or_default();
        let is_kind = mount["type"] == "bind" || mount["type"] == "tmpfs";
        !ours.remove(std::path::Path::new(place)) && is_kind && words.iter().any(|o| *o == "nodev")
    });
    let describe = |mount: &Value| {
        let writable = !mount["options"].as_array().into_iter().flatten().any(|o| o == "ro");
        let mut shown = json!({
            "Type": mount["type"],
            "Destination": mount["destination"],
            "Mode": if writable { "" } else { "ro" },
            "RW": writable,
        });
        if mount["type"] == "bind" {
            shown["Source"] = mount["source"].clone();
            shown["Propagation"] = "rprivate".into();
        }
        shown
    };
    users.map(describe).collect()
}
