//! Networks with a name: a file each, beside the containers.
//!
//! A network is its file and nothing else. The bridge, its table and its leases come with the first
//! container and go with the last, as the default bridge's do.

use std::fs::{self, DirBuilder, File, TryLockError};
use std::io::{self, ErrorKind};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, Result, bail, ensure};
use serde::{Deserialize, Serialize};
use step04_bridge_veth::{Cidr, Rtnetlink, explain, parse_link_name};

use super::ipv6::Cidr6;
use super::names::{self, Names};
use super::rootless;
use crate::store::{Store, new_id};

/// The bridge of containers that name no network.
pub const DEFAULT_BRIDGE: &str = "workshop0";
const DEFAULT_SUBNET: &str = "10.77.0.0/24";
/// Names that mean something else.
const RESERVED: [&str; 4] = ["bridge", "host", "none", "default"];

/// What is known about a network.
#[derive(Serialize, Deserialize, Debug, Clone)]
pub struct Config {
    /// 64 hexadecimal digits, as docker's.
    pub id: String,
    /// The user's name for it.
    pub name: String,
    /// Seconds since 1970.
    pub created: u64,
    /// The bridge's name.
    pub bridge: String,
    /// Its IPv4 subnet, in CIDR notation.
    pub subnet: String,
    /// Its IPv6 subnet, if it has one.
    pub subnet6: Option<String>,
    /// Whether there is no way out of it.
    pub internal: bool,
}

impl Config {
    /// The network of containers that name none.
    #[must_use]
    pub fn default_bridge() -> Self {
        Self {
            id: builtin_id("bridge"),
            name: "bridge".into(),
            created: 0,
            bridge: DEFAULT_BRIDGE.into(),
            subnet: DEFAULT_SUBNET.into(),
            subnet6: None,
            internal: false,
        }
    }

    /// Those that are always there, whether anybody is on them or not.
    fn builtin() -> [Self; 3] {
        let without = |name: &str| Self {
            id: builtin_id(name),
            name: name.to_owned(),
            subnet: String::new(),
            ..Self::default_bridge()
        };
        [Self::default_bridge(), without("host"), without("none")]
    }

    /// Whether it is one of those.
    #[must_use]
    pub fn is_builtin(&self) -> bool {
        RESERVED.contains(&&*self.name)
    }

    /// docker's name for the kind of thing that it is.
    #[must_use]
    pub fn driver(&self) -> &'static str {
        match &*self.name {
            "host" => "host",
            "none" => "null",
            _ => "bridge",
        }
    }

    /// Its subnet.
    pub fn subnet(&self) -> Result<Cidr> {
        self.subnet.parse()
    }

    /// Its IPv6 subnet, if it has one.
    pub fn subnet6(&self) -> Result<Option<Cidr6>> {
        self.subnet6.as_deref().map(str::parse).transpose()
    }

    /// The first 12 digits of its id, which docker shows.
    #[must_use]
    pub fn short_id(&self) -> &str {
        &self.id[..12]
    }

    /// Reads and checks the text of a network's file.
    pub fn parse(text: &[u8]) -> Result<Self> {
        let config: Self = serde_json::from_slice(text)?;
        ensure!(is_id(&config.id), "its id is none");
        parse_name(&config.name)?;
        parse_link_name(&config.bridge)?;
        config.subnet()?;
        config.subnet6()?;
        Ok(config)
    }
}

fn is_id(id: &str) -> bool {
    id.len() == 64 && id.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// An id for what is always there: the letters of its name.
fn builtin_id(name: &str) -> String {
    let digits = name.bytes().fold(String::new(), |id, byte| format!("{id}{byte:02x}"));
    format!("{digits:0<64}")
}

/// Checks a name with docker's rule.
pub fn parse_name(name: &str) -> Result<String> {
    let is_name = crate::store::parse_name(name).is_ok();
    ensure!(
        is_name && !RESERVED.contains(&name),
        "a network's name has up to 128 letters, digits, _ . and -, begins with a letter or digit, \
         and is not bridge, host, none or default"
    );
    Ok(name.to_owned())
}

/// What a new network is to be.
#[derive(Debug, Clone)]
pub struct Wish {
    /// Its name.
    pub name: String,
    /// Its subnet; none: one that is free.
    pub subnet: Option<Cidr>,
    /// Whether it is to have an IPv6 subnet as well.
    pub ipv6: bool,
    /// That one; none: one made of its id.
    pub subnet6: Option<Cidr6>,
    /// Whether there is to be no way out.
    pub internal: bool,
}

/// The directory of all networks.
#[derive(Debug)]
pub struct Networks<'s> {
    store: &'s Store,
    path: PathBuf,
}

impl<'s> Networks<'s> {
    /// The networks beside these containers.
    #[must_use]
    pub fn of(store: &'s Store) -> Self {
        Self { path: store.images().with_file_name("networks"), store }
    }

    fn path_of(&self, name: &str) -> PathBuf {
        self.path.join(format!("{name}.json"))
    }

    /// All networks that somebody has made, oldest first.
    pub fn list(&self) -> Result<Vec<Config>> {
        let mut found = Vec::new();
        for path in self.files("json")? {
            let config = match fs::read(&path) {
                Err(error) if error.kind() == ErrorKind::NotFound => continue, // removed meanwhile
                text => text.map_err(Into::into).and_then(|text| Config::parse(&text)),
            };
            found.push(config.with_context(|| {
                format!("cannot use {}; if no container needs it, remove it", path.display())
            })?);
        }
        found.sort_by(|a, b| (a.created, &a.name).cmp(&(b.created, &b.name)));
        Ok(found)
    }

    fn files(&self, extension: &str) -> Result<Vec<PathBuf>> {
        let read = || -> io::Result<Vec<PathBuf>> {
            let paths = fs::read_dir(&self.path)?.map(|entry| Ok(entry?.path()));
            paths.collect()
        };
        let mut paths = match read() {
            Err(error) if error.kind() == ErrorKind::NotFound => Vec::new(),
            paths => paths.with_context(|| format!("cannot read {}", self.path.display()))?,
        };
        paths.retain(|path| path.extension().is_some_and(|found| found == extension));
        Ok(paths)
    }

    /// All networks, by name.
    pub fn all(&self) -> Result<Vec<Config>> {
        let mut all = self.list()?;
        all.extend(Config::builtin());
        all.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(all)
    }

    /// The network with this name, or id, or with an id that begins so, if there is one.
    pub fn meant(&self, text: &str) -> Result<Option<Config>> {
        let mut all = self.all()?;
        if let Some(exact) = all.iter().position(|n| n.name == text || n.id == text) {
            return Ok(Some(all.swap_remove(exact)));
        }
        all.retain(|network| !text.is_empty() && network.id.starts_with(text));
        match all.len() {
            0 | 1 => Ok(all.pop()),
            n => bail!("{n} networks have an id that begins with {text}: give more of it"),
        }
    }

    /// The same, of those that somebody has made; an error if there is none.
    pub fn find(&self, text: &str) -> Result<Config> {
        let made = self.meant(text)?.filter(|network| !network.is_builtin());
        made.with_context(|| format!("no such network: {text}"))
    }

    /// Makes a network. Nobody else makes one at the same time.
    pub fn create(&self, wish: Wish) -> Result<Config> {
        let _lock = self.store.lock()?;
        self.sweep()?;
        let others = self.list()?;
        ensure!(
            !others.iter().any(|other| other.name == wish.name),
            "a network with the name {} is there already",
            wish.name
        );
        let id = new_id()?;
        let subnet6 =
            if wish.ipv6 { Some(choose_subnet6(wish.subnet6, &id, &others)?) } else { None };
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let config = Config {
            // The kernel's names of links have at most 15 letters.
            bridge: format!("cw-{}", &id[..12]),
            id,
            name: wish.name,
            created: now.as_secs(),
            subnet: choose_subnet(wish.subnet, &others)?.to_string(),
            subnet6: subnet6.map(|subnet| subnet.to_string()),
            internal: wish.internal,
        };
        self.save(&config)?;
        Ok(config)
    }

    /// Writes the file under another name first: who looks sees all of it or nothing.
    fn save(&self, config: &Config) -> Result<()> {
        let (path, new) =
            (self.path_of(&config.name), self.path.join(format!("{}.new", config.id)));
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&self.path)
            .and_then(|()| fs::write(&new, serde_json::to_vec_pretty(config)?))
            .and_then(|()| fs::rename(&new, &path))
            .inspect_err(|_| self.remove_traces(&new))
            .with_context(|| format!("cannot write {}", path.display()))
    }

    fn remove_traces(&self, new: &Path) {
        let _ = fs::remove_file(new);
        let _ = fs::remove_dir(&self.path); // if it is empty
    }

    /// Holds the network for as long as the file is open, in this process and in those that it forks:
    /// nobody can remove it.
    pub fn hold(&self, name: &str) -> Result<File> {
        let hold = || -> io::Result<Option<File>> {
            let file = File::open(self.path_of(name))?;
            file.lock_shared()?;
            Ok((file.metadata()?.nlink() > 0).then_some(file)) // or it has been removed meanwhile
        };
        match hold() {
            Ok(Some(file)) => Ok(file),
            Err(error) if error.kind() != ErrorKind::NotFound => {
                Err(error).with_context(|| format!("cannot lock the network {name}"))
            }
            _ => bail!("no such network: {name}"),
        }
    }

    /// Removes the networks that no container is on; returns their names.
    pub fn prune(&self) -> Result<Vec<String>> {
        let mut removed = Vec::new();
        for config in self.list()? {
            if self.remove(&config)? {
                removed.push(config.name);
            }
        }
        Ok(removed)
    }

    /// Removes a network, unless a container holds it: then it says no.
    pub fn remove(&self, network: &Config) -> Result<bool> {
        let _lock = self.store.lock()?;
        let path = self.path_of(&network.name);
        let remove = || -> io::Result<bool> {
            match File::open(&path)?.try_lock() {
                Err(TryLockError::WouldBlock) => Ok(false),
                Err(TryLockError::Error(error)) => Err(error),
                Ok(()) => fs::remove_file(&path).map(|()| true),
            }
        };
        let removed = match remove() {
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(true), // somebody was faster
            removed => removed.with_context(|| format!("cannot remove {}", path.display())),
        };
        let _ = fs::remove_dir(&self.path); // if it is empty
        removed
    }

    /// Removes what was left by who was killed while it made a network. The store must be locked.
    pub fn sweep(&self) -> Result<()> {
        for path in self.files("new")? {
            fs::remove_file(&path).with_context(|| format!("cannot remove {}", path.display()))?;
        }
        let _ = fs::remove_dir(&self.path); // if it is empty
        Ok(())
    }

    /// Whether there is something to sweep, or a name server to start again.
    pub fn has_stale(&self) -> Result<bool> {
        for network in self.list()? {
            if names::is_missing(&network.bridge)? {
                return Ok(true);
            }
        }
        Ok(rootless::has_stale(self.store) || !self.files("new")?.is_empty())
    }

    /// Who is to answer for names on this bridge.
    pub fn names_of(&self, bridge: &str) -> Result<Option<Names>> {
        let Some(config) = self.list()?.into_iter().find(|network| network.bridge == bridge) else {
            return Ok(None);
        };
        let (subnet, internal) = (config.subnet()?, config.internal);
        Ok(Some(Names { network: config.name, bridge: config.bridge, subnet, internal }))
    }
}

/// The wanted subnet if nobody has it, or one that nobody has: no other network, and no route of the
/// host's.
fn choose_subnet(wanted: Option<Cidr>, others: &[Config]) -> Result<Cidr> {
    let failed = |e| explain("veth", "cannot look at the routes", &e);
    let mut rt = Rtnetlink::open().map_err(failed)?;
    let default = Config::default_bridge();
    let mut who_has = |subnet: Cidr| -> Result<Option<String>> {
        for other in others.iter().chain([&default]) {
            let taken = other.subnet()?;
            if subnet.overlaps(taken.network(), taken.prefix()) {
                return Ok(Some(format!("the network {} ({taken})", other.name)));
            }
        }
        Ok(rt.overlapping_route(subnet).map_err(failed)?.map(|route| format!("the route {route}")))
    };
    if let Some(subnet) = wanted {
        let other = who_has(subnet)?;
        ensure!(other.is_none(), "the subnet {subnet} overlaps {}", other.unwrap_or_default());
        return Ok(subnet);
    }
    for third in 1..=255_u8 {
        let subnet = format!("10.77.{third}.0/24").parse()?;
        if who_has(subnet)?.is_none() {
            return Ok(subnet);
        }
    }
    bail!("no subnet of 10.77.0.0/16 is free; choose one with --subnet")
}

fn choose_subnet6(wanted: Option<Cidr6>, id: &str, others: &[Config]) -> Result<Cidr6> {
    let subnet = wanted.map_or_else(|| Cidr6::of_id(id), Ok)?;
    for other in others {
        let taken = other.subnet6()?.filter(|taken| taken.overlaps(subnet));
        ensure!(taken.is_none(), "the subnet {subnet} overlaps the network {}", other.name);
    }
    Ok(subnet)
}

#[cfg(test)]
mod tests {
    use super::{builtin_id, parse_name};

    #[test]
    fn names_that_mean_something_else_are_refused() {
        assert!(["blue", "Blue.1", "0_-"].iter().all(|name| parse_name(name).is_ok()));
        for bad in ["", "bridge", "none", "host", "default", "-x", "a/b", "container:x", ".."] {
            assert!(parse_name(bad).is_err(), "{bad}");
        }
        assert!(builtin_id("bridge").starts_with("627269646765"));
        assert_eq!(builtin_id("host").len(), 64);
    }
}
