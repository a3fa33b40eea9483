//! `--volume`, `--workdir`

#![no_main]

use std::path::{Component, Path};

use libfuzzer_sys::fuzz_target;
use step03_rootfs::{Volume, parse_inside};

fn is_inside(path: &Path) -> bool {
    path.is_absolute() && path.components().all(|part| part != Component::ParentDir)
}

fuzz_target!(|text: &str| {
    if let Ok(path) = parse_inside(text) {
        assert!(is_inside(&path) && path.as_os_str() == text);
    }
    if let Ok(volume) = Volume::parse(text) {
        assert!(is_inside(&volume.destination) && volume.destination != Path::new("/"));
        assert_eq!(volume.source, std::fs::canonicalize(&volume.source).unwrap());
        // A link may lead to what cannot be written here.
        if let Some(source) = volume.source.to_str().filter(|source| !source.contains(':')) {
            let mode = if volume.read_only { "ro" } else { "rw" };
            let again = format!("{source}:{}:{mode}", volume.destination.display());
            assert_eq!(Volume::parse(&again).unwrap(), volume);
        }
    }
});
