//! Settings of the kernel that a namespace has for itself (proc_sys(5)).

use std::fs;
use std::path::{Component, Path, PathBuf};

use anyhow::{Context as _, Result, bail, ensure};
use step01_namespaces::{Namespace, Namespaces};

/// Those of an IPC namespace (ipc_namespaces(7)).
const IPC: [&str; 8] = [
    "kernel.msgmax",
    "kernel.msgmnb",
    "kernel.msgmni",
    "kernel.sem",
    "kernel.shmall",
    "kernel.shmmax",
    "kernel.shmmni",
    "kernel.shm_rmid_forced",
];

/// Reads `NAME=VALUE`.
pub fn parse(text: &str) -> Result<(String, String)> {
    let (name, value) = text.split_once('=').context("a setting is NAME=VALUE")?;
    path(name)?;
    Ok((name.to_owned(), value.to_owned()))
}

/// Refuses what is not the container's own, but the whole machine's or the host's.
pub fn check(name: &str, own: Namespaces) -> Result<()> {
    let (namespace, option) = if IPC.contains(&name) || name.starts_with("fs.mqueue.") {
        (Namespace::Ipc, "--ipc")
    } else if name.starts_with("net.") {
        (Namespace::Net, "--net")
    } else {
        bail!("--sysctl {name} cannot be set: it is no namespace's, but the whole machine's")
    };
    ensure!(
        own.contains(namespace),
        "--sysctl {name} cannot be set: with {option} it belongs to the host, or to another container"
    );
    Ok(())
}

/// The child's side, in its namespaces, while it still sees a /proc/sys that can be written. The kernel
/// looks for the namespace of who opens the file, not of who has mounted it.
pub fn write(settings: &[(String, String)]) -> Result<()> {
    for (name, value) in settings {
        fs::write(path(name)?, value)
            .with_context(|| format!("cannot set --sysctl {name}={value}"))?;
    }
    Ok(())
}

/// `net.ipv4.ip_forward` as a path; an interface's name may have dots, written as slashes: sysctl(8).
fn path(name: &str) -> Result<PathBuf> {
    let exchanged = name.chars().map(|c| match c {
        '.' => '/',
        '/' => '.',
        other => other,
    });
    let below: String = exchanged.collect();
    let is_inside = Path::new(&below).components().all(|part| matches!(part, Component::Normal(_)));
    let is_plain = !below.is_empty() && !below.contains(|c: char| c.is_control());
    ensure!(
        is_inside && is_plain && !below.contains("//"),
        "{name:?} is not the name of a setting"
    );
    Ok(Path::new("/proc/sys").join(below))
}

#[cfg(test)]
mod tests {
    use step01_namespaces::{Namespace, Namespaces};

    use super::{check, parse, path};

    #[test]
    fn names_and_whose_they_are() {
        assert_eq!(
            path("net.ipv4.conf.eth0/5.x").unwrap().to_str().unwrap(),
            "/proc/sys/net/ipv4/conf/eth0.5/x"
        );
        for bad in ["", "net", "=1", "net..x=1", ".net=1", "net.//.x=1", "/=1", "net.\n=1"] {
            assert!(parse(bad).is_err(), "{bad:?}");
        }
        let own: Namespaces = [Namespace::Net].into_iter().collect();
        assert!(check("net.core.somaxconn", own).is_ok());
        assert!(check("kernel.shmmax", own).is_err());
        assert!(check("kernel.panic", own).is_err());
        assert!(check("networks.x", own).is_err());
    }
}
