//! Limits of each process (getrlimit(2)).

use std::str::FromStr;

use anyhow::{Context as _, Error, Result, bail, ensure};
use nix::sys::resource::{RLIM_INFINITY, Resource};

/// All that there are.
const RESOURCES: [Resource; 16] = [
    Resource::RLIMIT_AS,
    Resource::RLIMIT_CORE,
    Resource::RLIMIT_CPU,
    Resource::RLIMIT_DATA,
    Resource::RLIMIT_FSIZE,
    Resource::RLIMIT_LOCKS,
    Resource::RLIMIT_MEMLOCK,
    Resource::RLIMIT_MSGQUEUE,
    Resource::RLIMIT_NICE,
    Resource::RLIMIT_NOFILE,
    Resource::RLIMIT_NPROC,
    Resource::RLIMIT_RSS,
    Resource::RLIMIT_RTPRIO,
    Resource::RLIMIT_RTTIME,
    Resource::RLIMIT_SIGPENDING,
    Resource::RLIMIT_STACK,
];

/// The resource with a name such as `RLIMIT_NOFILE`.
pub fn parse_resource(name: &str) -> Result<Resource> {
    let found = RESOURCES.into_iter().find(|resource| format!("{resource:?}") == name);
    found.with_context(|| format!("no resource {name}"))
}

/// A soft and a hard limit, as `--ulimit` has them: the first counts, and the process may raise it up
/// to the second.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ulimit {
    /// Of what.
    pub resource: Resource,
    /// The unit is the resource's own: bytes, seconds, or a number.
    pub soft: u64,
    /// No less than the soft one.
    pub hard: u64,
}

impl FromStr for Ulimit {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let Some((name, limits)) = text.split_once('=') else {
            bail!("a limit is NAME=SOFT[:HARD]")
        };
        let resource = parse_resource(&format!("RLIMIT_{}", name.to_ascii_uppercase()));
        let resource = resource.ok().with_context(|| {
            let names = RESOURCES.map(|resource| Ulimit { resource, soft: 0, hard: 0 }.name());
            format!("no limit {name:?}; there are {}", names.join(", "))
        })?;
        let number = |text: &str| match text {
            "-1" | "unlimited" => Ok(RLIM_INFINITY),
            digits => digits.parse().ok().filter(|_| !digits.starts_with('+')).with_context(|| {
                format!("{digits:?} is not a limit: it is a number, or -1 for none")
            }),
        };
        let (soft, hard) = limits.split_once(':').unwrap_or((limits, limits));
        let (soft, hard) = (number(soft)?, number(hard)?);
        ensure!(soft <= hard, "the soft limit {soft} is above the hard one, {hard}");
        Ok(Self { resource, soft, hard })
    }
}

impl Ulimit {
    /// As the shell's ulimit(1p) and docker have it.
    #[must_use]
    pub fn name(&self) -> String {
        format!("{:?}", self.resource).trim_start_matches("RLIMIT_").to_ascii_lowercase()
    }
}

#[cfg(test)]
mod tests {
    use nix::sys::resource::{RLIM_INFINITY, Resource};

    use super::Ulimit;

    #[test]
    fn limits_as_docker_writes_them() {
        let read = |text: &str| text.parse::<Ulimit>().map(|l| (l.resource, l.soft, l.hard));
        assert_eq!(read("nofile=5:6").unwrap(), (Resource::RLIMIT_NOFILE, 5, 6));
        assert_eq!(read("core=0").unwrap(), (Resource::RLIMIT_CORE, 0, 0));
        let none = (Resource::RLIMIT_MEMLOCK, RLIM_INFINITY, RLIM_INFINITY);
        assert_eq!(read("memlock=-1").unwrap(), none);
        for bad in
            ["", "nofile", "nofile=", "files=5", "nofile=6:5", "nofile=-2", "nofile=+5", "cpu=1:x"]
        {
            assert!(read(bad).is_err(), "{bad}");
        }
    }
}
