//! /proc/self/mountinfo and /proc/self/cgroup, with a NUL between them: everybody who may mount or make
//! a cgroup on this machine has a say in them.

#![no_main]

use std::path::Component;

use libfuzzer_sys::fuzz_target;
use step02_cgroups::{Version, parse};

fuzz_target!(|text: &str| {
    let (mountinfo, cgroup) = text.split_once('\0').unwrap_or((text, ""));
    let found = parse(mountinfo, cgroup);
    assert!(found.len() <= mountinfo.lines().count());
    for (n, hierarchy) in found.iter().enumerate() {
        assert_eq!(hierarchy.controllers.is_empty(), hierarchy.version == Version::V2);
        let same = |other: &&step02_cgroups::Hierarchy| {
            (other.version, &other.controllers) == (hierarchy.version, &hierarchy.controllers)
        };
        assert_eq!(found[..n].iter().find(same), None);
        // Whatever stands there, we stay below the mount.
        let below = hierarchy.own.strip_prefix(&hierarchy.mount).unwrap();
        assert!(below.components().all(|part| matches!(part, Component::Normal(_))), "{found:?}");
    }
});
