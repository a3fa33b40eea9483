//! Names of images, with docker's rules: what is left out is docker.io, library/ and latest.

use std::fmt::{self, Display};
use std::str::FromStr;

use anyhow::{Error, Result, anyhow, bail, ensure};

/// The registry of names without one.
pub const DOCKER_HUB: &str = "docker.io";
const OFFICIAL: &str = "library/";

/// A name in full: `docker.io/library/nginx:latest`, or with a digest instead of the tag.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Name {
    /// Host and port of the registry.
    pub registry: String,
    /// What it is called there.
    pub repository: String,
    /// Which version: a tag, or `sha256:` and a digest.
    pub version: Version,
}

/// Which of a repository's images.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Version {
    /// The one that has this tag now.
    Tag(String),
    /// The one with this manifest: `sha256:` and 64 hexadecimal digits.
    Digest(String),
}

impl Name {
    /// The repository as docker shows it: without what can be left out.
    #[must_use]
    pub fn short_repository(&self) -> String {
        match (self.registry.as_str(), self.repository.strip_prefix(OFFICIAL)) {
            (DOCKER_HUB, Some(official)) if !official.contains('/') => official.to_owned(),
            (DOCKER_HUB, _) => self.repository.clone(),
            (registry, _) => format!("{registry}/{}", self.repository),
        }
    }

    /// As docker shows it: `nginx:latest`.
    #[must_use]
    pub fn short(&self) -> String {
        format!("{}{}", self.short_repository(), self.version)
    }

    /// The tag, if it has one.
    #[must_use]
    pub fn tag(&self) -> Option<&str> {
        match &self.version {
            Version::Tag(tag) => Some(tag),
            Version::Digest(_) => None,
        }
    }
}

impl Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}{}", self.registry, self.repository, self.version)
    }
}

impl Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tag(tag) => write!(f, ":{tag}"),
            Self::Digest(digest) => write!(f, "@{digest}"),
        }
    }
}

impl FromStr for Name {
    type Err = Error;

    /// Reads `[REGISTRY/]REPOSITORY[:TAG|@DIGEST]` (the grammar of docker's package reference).
    fn from_str(text: &str) -> Result<Self> {
        let (name, digest) =
            text.split_once('@').map_or((text, None), |(name, digest)| (name, Some(digest)));
        // A colon before a slash is a port's.
        let (name, tag) = match name.rsplit_once(':') {
            Some((name, tag)) if !tag.contains('/') => (name, Some(tag)),
            _ => (name, None),
        };
        let version = match (digest, tag) {
            (Some(digest), _) => {
                let hex = digest.strip_prefix("sha256:").unwrap_or_default();
                ensure!(is_digest(hex), "{text:?}: a digest is sha256: and 64 hexadecimal digits");
                Version::Digest(digest.to_owned())
            }
            (None, tag) => Version::Tag(tag.unwrap_or("latest").to_owned()),
        };
        // The first part is a registry if it could not be a part of a repository's name.
        let (registry, repository) = match name.split_once('/') {
            Some((host, rest)) if host.contains(['.', ':']) || host == "localhost" => (host, rest),
            _ => (DOCKER_HUB, name),
        };
        let registry = if registry == "index.docker.io" { DOCKER_HUB } else { registry };
        let repository = if registry == DOCKER_HUB && !repository.contains('/') {
            format!("{OFFICIAL}{repository}")
        } else {
            repository.to_owned()
        };
        let name = Self { registry: registry.to_owned(), repository, version };
        // In one piece: clap shows the outermost text only.
        name.check().map_err(|error| anyhow!("{text:?} is no name of an image: {error}"))?;
        Ok(name)
    }
}

impl Name {
    fn check(&self) -> Result<()> {
        ensure!(self.repository.len() <= 255, "it has more than 255 characters");
        let (host, port) = self.registry.split_once(':').unwrap_or((&self.registry, "1"));
        let label = |label: &str| {
            !label.is_empty() && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
        };
        let port = port.bytes().all(|b| b.is_ascii_digit()) && port.parse::<u16>().is_ok();
        ensure!(host.split('.').all(label) && port, "a registry is HOST or HOST:PORT");
        for part in self.repository.split('/') {
            ensure!(
                is_part(part),
                "a repository has lower case letters and digits, with . _ or - between them"
            );
        }
        // It would look like an id.
        ensure!(!is_digest(self.short_repository().as_str()), "it is an id");
        if let Version::Tag(tag) = &self.version {
            let inside = |c: char| c.is_ascii_alphanumeric() || "_.-".contains(c);
            if tag.is_empty()
                || tag.len() > 128
                || !tag.chars().all(inside)
                || tag.starts_with(['.', '-'])
            {
                bail!(
                    "a tag has up to 128 letters, digits, _ . and -, and begins with a letter, digit or _"
                );
            }
        }
        Ok(())
    }
}

/// Words of lower case letters and digits with `.`, `_`, `__` or any number of `-` between them.
fn is_part(part: &str) -> bool {
    let inside = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    let separators = part.split(inside).filter(|between| !between.is_empty());
    part.starts_with(inside)
        && part.ends_with(inside)
        && separators
            .into_iter()
            .all(|s| [".", "_", "__"].contains(&s) || s.chars().all(|c| c == '-'))
}

/// Whether these are 64 hexadecimal digits, as they are written.
pub(crate) fn is_digest(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
}

#[cfg(test)]
mod tests {
    use super::Name;

    #[test]
    fn names_are_dockers() {
        let digest = format!("sha256:{}", "0a".repeat(32));
        for (text, full, short) in [
            ("nginx", "docker.io/library/nginx:latest", "nginx:latest"),
            ("nginx:1.25", "docker.io/library/nginx:1.25", "nginx:1.25"),
            ("docker.io/nginx", "docker.io/library/nginx:latest", "nginx:latest"),
            ("index.docker.io/library/nginx", "docker.io/library/nginx:latest", "nginx:latest"),
            ("me/web:1", "docker.io/me/web:1", "me/web:1"),
            ("localhost/web", "localhost/web:latest", "localhost/web:latest"),
            ("localhost:5000/a/b", "localhost:5000/a/b:latest", "localhost:5000/a/b:latest"),
            ("ghcr.io/o/r:v1", "ghcr.io/o/r:v1", "ghcr.io/o/r:v1"),
            ("a__b/c--d.e_f", "docker.io/a__b/c--d.e_f:latest", "a__b/c--d.e_f:latest"),
            (
                &format!("web@{digest}"),
                &format!("docker.io/library/web@{digest}"),
                &format!("web@{digest}"),
            ),
            (
                &format!("web:1@{digest}"),
                &format!("docker.io/library/web@{digest}"),
                &format!("web@{digest}"),
            ),
        ] {
            let name: Name = text.parse().unwrap_or_else(|error| panic!("{text}: {error:#}"));
            assert_eq!((name.to_string().as_str(), name.short().as_str()), (full, short));
            // What is written can be read.
            assert_eq!(full.parse::<Name>().unwrap(), name);
            assert_eq!(name.short().parse::<Name>().unwrap(), name);
        }
        let id = "0a".repeat(32);
        for text in [
            "",
            ":",
            "a:",
            ":a",
            "/",
            "a/",
            "/a",
            "a//b",
            "A",
            "a/B",
            "-a",
            "a-",
            "a..b",
            "a___b",
            "a:b:c",
            "a:-",
            "a@",
            "a@sha256:1",
            "../a",
            "a/../b",
            "http://a/b",
            "a b",
            "a\n",
            &id,
            "host.x:port/../a",
            "ä",
            "localhost:5000/",
            "../b",
            "./b",
            "localhost:/a",
            "localhost:99999/a",
            "a.:1/b",
        ] {
            assert!(text.parse::<Name>().is_err(), "{text:?}");
        }
    }
}
