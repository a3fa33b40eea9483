//! Its root file system.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use oci_spec::runtime::{LinuxDevice, LinuxDeviceType, Spec};
use step03_rootfs::{Device, Image, Layer, Mount, Rootfs};

/// The root file system, and what is mounted in it.
pub(super) fn rootfs(spec: &Spec) -> Result<Rootfs> {
    let root = spec.root().as_ref().context("it has no `root` part")?;
    let linux = spec.linux().as_ref();
    let mut image = Image::Directory(root.path().clone());
    let (mut layers, mut mounts) = (Vec::new(), Vec::new());
    for mount in spec.mounts().iter().flatten() {
        let mount = Mount {
            destination: mount.destination().clone(),
            kind: mount.typ().clone().unwrap_or_else(|| "bind".into()),
            source: mount.source().clone().unwrap_or_default(),
            options: mount.options().clone().unwrap_or_default(),
        };
        let lowers: Vec<PathBuf> = mount
            .options
            .iter()
            .filter_map(|o| o.strip_prefix("lowerdir+="))
            .map(Into::into)
            .collect();
        match (&lowers[..], mount.kind.as_str()) {
            ([_, ..], "overlay") if mount.destination == Path::new("/") => {
                image = Image::Layers(lowers);
            }
            ([lower], "overlay") => {
                layers.push(Layer { lower: lower.clone(), destination: mount.destination });
            }
            _ => mounts.push(mount),
        }
    }
    let paths =
        |list: Option<&Vec<String>>| list.into_iter().flatten().map(PathBuf::from).collect();
    Ok(Rootfs {
        image,
        layers,
        keep: None, // that is the store's business
        mounts,
        masked: paths(linux.and_then(|linux| linux.masked_paths().as_ref())),
        readonly: paths(linux.and_then(|linux| linux.readonly_paths().as_ref())),
        devices: linux
            .and_then(|l| l.devices().as_ref())
            .into_iter()
            .flatten()
            .map(device)
            .collect::<Result<_>>()?,
        read_only: root.readonly().unwrap_or_default(),
        workdir: spec.process().as_ref().map_or_else(|| "/".into(), |p| p.cwd().clone()),
    })
}

fn device(device: &LinuxDevice) -> Result<Device> {
    let number = |number: i64| {
        u64::try_from(number).with_context(|| format!("{number} is no device's number"))
    };
    Ok(Device {
        destination: device.path().clone(),
        block: match device.typ() {
            LinuxDeviceType::B => true,
            LinuxDeviceType::C | LinuxDeviceType::U => false,
            other => bail!("a device of type {other:?} is not supported"),
        },
        major: number(device.major())?,
        minor: number(device.minor())?,
        mode: device.file_mode().unwrap_or(0o666),
        uid: device.uid().unwrap_or_default(),
        gid: device.gid().unwrap_or_default(),
    })
}
