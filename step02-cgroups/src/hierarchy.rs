//! Where cgroups are mounted (cgroups(7)).
//!
//! Version 1 has a tree for each controller, each mounted by itself; version 2 has one tree for
//! all. Many hosts of the years between have both, the "hybrid": then each controller is in one
//! of them only, whichever took it first.

use std::path::{Component, Path, PathBuf};

use anyhow::{Context as _, Result};

/// The version of a hierarchy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Version {
    /// A tree for some controllers.
    V1,
    /// The one tree.
    V2,
}

/// A mounted tree, and our own place in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hierarchy {
    /// Which kind.
    pub version: Version,
    /// Of version 1: its controllers. Of version 2 they are in `cgroup.controllers`.
    pub controllers: Vec<String>,
    /// Where it is mounted.
    pub mount: PathBuf,
    /// The cgroup that we are in, as a path below the mount.
    pub own: PathBuf,
    /// Of version 2: whether a cgroup namespace is a border of delegation here (cgroup-v2.rst).
    pub nsdelegate: bool,
}

/// What is mounted here.
pub fn hierarchies() -> Result<Vec<Hierarchy>> {
    Ok(parse(&read("/proc/self/mountinfo")?, &read("/proc/self/cgroup")?))
}

/// Reads a file in which others have named things, mounts or cgroups, maybe not in UTF-8.
pub(crate) fn read(path: &str) -> Result<String> {
    let bytes = std::fs::read(path).with_context(|| format!("cannot read {path}"))?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// Finds the hierarchies in the texts of /proc/self/mountinfo (proc_pid_mountinfo(5)) and
/// /proc/self/cgroup.
#[must_use]
pub fn parse(mountinfo: &str, cgroup: &str) -> Vec<Hierarchy> {
    let mut found: Vec<Hierarchy> = Vec::new();
    for line in mountinfo.lines() {
        let Some(hierarchy) = parse_line(line, cgroup) else { continue };
        // The same tree may be mounted twice; one place is enough.
        let known = |h: &Hierarchy| {
            (h.version, &h.controllers) == (hierarchy.version, &hierarchy.controllers)
        };
        if !found.iter().any(known) {
            found.push(hierarchy);
        }
    }
    found
}

/// `36 35 0:29 /ROOT /MOUNT rw - cgroup SOURCE rw,memory`
fn parse_line(line: &str, cgroup: &str) -> Option<Hierarchy> {
    let (place, file_system) = line.split_once(" - ")?;
    let mut place = place.split(' ').skip(3);
    let (root, mount) = (unescape(place.next()?), unescape(place.next()?));
    let mut file_system = file_system.split(' ');
    let version = match file_system.next()? {
        "cgroup" => Version::V1,
        "cgroup2" => Version::V2,
        _ => return None,
    };
    let options = file_system.nth(1)?;
    let (controllers, path) = match version {
        Version::V2 => (Vec::new(), own_path(cgroup, "")?),
        Version::V1 => {
            // Which of the options are controllers, /proc/self/cgroup tells.
            let mut names = options.split(',');
            names.find_map(|name| Some((names_of(cgroup, name)?, own_path(cgroup, name)?)))?
        }
    };
    // Inside a container the mount may begin at a place deep in the host's tree. A path that is
    // not below it, or leads up from a cgroup namespace's root, cannot be seen: use the top.
    let is_below =
        |path: &&Path| path.components().all(|part| matches!(part, Component::Normal(_)));
    let below = Path::new(path).strip_prefix(&root).ok().filter(is_below).unwrap_or(Path::new(""));
    let mount = PathBuf::from(mount);
    let own = mount.join(below).components().collect(); // without a slash at the end
    let nsdelegate = options.split(',').any(|option| option == "nsdelegate");
    Some(Hierarchy { version, controllers, mount, own, nsdelegate })
}

/// Our path in the hierarchy of a controller; version 2's line has an empty name.
fn own_path<'c>(cgroup: &'c str, controller: &str) -> Option<&'c str> {
    lines(cgroup)
        .find_map(|(names, path)| names.split(',').any(|n| n == controller).then_some(path))
}

/// All controllers of the hierarchy that has this one.
fn names_of(cgroup: &str, controller: &str) -> Option<Vec<String>> {
    let (names, _) = lines(cgroup).find(|(names, _)| names.split(',').any(|n| n == controller))?;
    (!names.is_empty()).then(|| names.split(',').map(str::to_owned).collect())
}

/// `4:memory:/path`, as names and path.
fn lines(cgroup: &str) -> impl Iterator<Item = (&str, &str)> {
    cgroup.lines().filter_map(|line| line.split_once(':')?.1.split_once(':'))
}

/// Spaces and the like are written as \040 in mountinfo.
fn unescape(text: &str) -> String {
    let mut bytes = Vec::new();
    let mut rest = text.as_bytes();
    while let Some((&(mut first), tail)) = rest.split_first() {
        (first, rest) = match tail {
            [a @ b'0'..=b'3', b @ b'0'..=b'7', c @ b'0'..=b'7', tail @ ..] if first == b'\\' => {
                ((a - b'0') << 6 | (b - b'0') << 3 | (c - b'0'), tail)
            }
            _ => (first, tail),
        };
        bytes.push(first);
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::{Version, parse, unescape};

    #[test]
    fn version_2_alone() {
        let found = parse(
            "30 23 0:26 / /sys/fs/cgroup rw,nosuid shared:9 - cgroup2 cgroup2 rw,nsdelegate,memory_recursiveprot\n",
            "0::/user.slice/user-1000.slice/session-3.scope\n",
        );
        assert_eq!(found.len(), 1);
        assert_eq!((found[0].version, found[0].nsdelegate), (Version::V2, true));
        let own = "/sys/fs/cgroup/user.slice/user-1000.slice/session-3.scope";
        assert_eq!(found[0].own.to_str(), Some(own));
    }

    #[test]
    fn hybrid() {
        let found = parse(
            "32 31 0:29 / /sys/fs/cgroup/cpu rw,relatime - cgroup cgroup rw,cpu,cpuacct\n\
             35 31 0:32 / /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory\n\
             40 31 0:37 / /sys/fs/cgroup/systemd rw,relatime - cgroup cgroup rw,name=systemd\n\
             41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw\n",
            "9:name=systemd:/\n4:memory:/a/b\n1:cpu,cpuacct:/\n0::/\n",
        );
        assert_eq!(found.len(), 4);
        assert_eq!(found[0].controllers, ["cpu", "cpuacct"]);
        assert_eq!(found[1].own.to_str(), Some("/sys/fs/cgroup/memory/a/b"));
        assert_eq!(found[3].version, Version::V2);
    }

    #[test]
    fn inside_docker() {
        let found = parse(
            "9 8 0:32 /docker/1f /sys/fs/cgroup/memory ro - cgroup cgroup rw,memory\n\
             6 8 0:31 / /sys/fs/cgroup/pids ro - cgroup cgroup rw,pids\n\
             7 8 0:33 /.. /sys/fs/cgroup ro - cgroup2 cgroup rw\n",
            "4:memory:/docker/1f/sub\n3:pids:/../other\n0::/../other\n",
        );
        assert_eq!(found[0].own.to_str(), Some("/sys/fs/cgroup/memory/sub"));
        assert_eq!(found[1].own.to_str(), Some("/sys/fs/cgroup/pids"));
        assert_eq!(found[2].own.to_str(), Some("/sys/fs/cgroup/other"));
    }

    #[test]
    fn nonsense_is_passed_over() {
        assert_eq!(parse("\n - \na b - cgroup2\n1 2 3 4 5 - cgroup x", "::\n0\n"), []);
        // Found by fuzzing: an empty root, below which every path is.
        let found = parse("1 2 0:3  /m rw - cgroup2 c rw", "0::/etc");
        assert_eq!(found[0].own.to_str(), Some("/m"));
        assert_eq!(unescape(r"/a\040b\9\04\+40"), r"/a b\9\04\+40");
    }
}
