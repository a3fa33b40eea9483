//! A mount, in the shape that it has in OCI's config.json and in fstab(5).

use std::io::{Error, ErrorKind};
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, anyhow};
use step01_namespaces::{Namespace, Namespaces, in_user_namespace, see};

use crate::root::is_directory;
use crate::{Root, sys};

/// A mount (OCI runtime-spec, config.md, "Mounts").
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mount {
    /// Where, inside the container.
    pub destination: PathBuf,
    /// The file system type, or `bind`.
    pub kind: String,
    /// What: for `bind` a path on the host, else only a name to show in /proc/mounts.
    pub source: PathBuf,
    /// As after `mount -o`: `ro`, `nosuid`, `rbind`, `mode=755`.
    pub options: Vec<String>,
}

impl Mount {
    /// A mount of a file system of type `kind`; `options` separated by commas.
    #[must_use]
    pub fn new(kind: &str, destination: &str, options: &str) -> Self {
        Self {
            destination: destination.into(),
            kind: kind.into(),
            source: kind.into(),
            options: options.split(',').map(str::to_owned).collect(),
        }
    }

    /// A bind mount of the host's `source`, with all that is mounted below it. Device nodes in
    /// it cannot be opened: see the file devices.rs.
    #[must_use]
    pub fn bind(source: &Path, destination: &Path, read_only: bool) -> Self {
        let mut options = vec!["rbind".to_owned(), "nodev".to_owned()];
        options.extend(read_only.then(|| "ro".to_owned()));
        Self {
            destination: destination.into(),
            kind: "bind".into(),
            source: source.into(),
            options,
        }
    }

    /// Makes the mount, attached to nothing yet. The source is the host's: do it before the pivot.
    pub fn open(&self) -> Result<OwnedFd> {
        let (attributes, data) = self.parse_options();
        let open = || -> Result<OwnedFd, Error> {
            if self.kind == "bind" {
                let recursive = self.options.iter().any(|option| option == "rbind");
                let tree = sys::open_tree(&self.source, recursive)?;
                sys::mount_setattr(tree.as_fd(), attributes, true)?;
                return Ok(tree);
            }
            let fs = sys::fsopen(&self.kind)?;
            sys::fsconfig(fs.as_fd(), "source", Some(&self.source.to_string_lossy()))?;
            for option in data {
                let (key, value) =
                    option.split_once('=').map_or((option, None), |(k, v)| (k, Some(v)));
                sys::fsconfig(fs.as_fd(), key, value)?;
            }
            sys::fsconfig_create(fs.as_fd())?;
            sys::fsmount(fs.as_fd(), attributes)
        };
        open().map_err(|error| anyhow!("cannot mount {self}: {error}{}", self.hint(&error)))
    }

    /// Puts the open mount into its place inside the root, which is made if it is missing.
    pub fn attach(&self, mount: &OwnedFd, root: &Root) -> Result<()> {
        let place = if is_directory(mount.as_fd()) {
            root.directory(&self.destination)?
        } else {
            root.file(&self.destination)?
        };
        sys::move_mount(mount.as_fd(), place.as_fd())
            .with_context(|| format!("cannot put the mount {self} into its place"))
    }

    /// Splits the options into the mount's attributes and the file system's own data.
    fn parse_options(&self) -> (u64, Vec<&str>) {
        let mut attributes = 0;
        let mut data = Vec::new();
        for option in &self.options {
            match option.as_str() {
                "ro" => attributes |= sys::RDONLY,
                "nosuid" => attributes |= sys::NOSUID,
                "nodev" => attributes |= sys::NODEV,
                "noexec" => attributes |= sys::NOEXEC,
                "strictatime" => attributes |= sys::STRICTATIME,
                // The defaults, and what concerns bind mounts: ours are private in any case.
                "" | "defaults" | "rw" | "suid" | "dev" | "exec" | "relatime" | "bind"
                | "rbind" | "private" | "rprivate" => {}
                other => data.push(other),
            }
        }
        (attributes, data)
    }

    /// What there is to say about an error, beside what the kernel says.
    fn hint(&self, error: &Error) -> String {
        let missing = error.raw_os_error() == Some(libc::ENODEV);
        let (why, check) = match (self.kind.as_str(), error.kind()) {
            ("bind", ErrorKind::NotFound) => ("the source must exist on the host", None),
            ("proc" | "sysfs", ErrorKind::PermissionDenied) => (
                "in a user namespace the kernel gives a new one only to those who already see \
                 the whole of the old one: inside another container, that one must be privileged",
                Some("proc"),
            ),
            (_, ErrorKind::Unsupported) => ("Linux 5.12 or later is needed", Some("kernel")),
            ("overlay", _) if in_user_namespace().unwrap_or(false) => return see("overlay-userns"),
            ("overlay", _) => return see("overlay"),
            _ if missing => ("this kernel does not have that file system", None),
            _ => return String::new(),
        };
        format!(" ({why}){}", check.map(see).unwrap_or_default())
    }
}

impl std::fmt::Display for Mount {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.kind.as_str() {
            "bind" => write!(f, "{} on {}", self.source.display(), self.destination.display()),
            kind => write!(f, "{kind} on {}", self.destination.display()),
        }
    }
}

/// What docker mounts in every container, for the namespaces that are new.
///
/// A user namespace may mount proc, sysfs and mqueue only where it also owns the namespace that
/// they show (PID, network, IPC): where that one is the host's, the host's mount is bound.
pub fn default_mounts(namespaces: Namespaces) -> Result<Vec<Mount>> {
    let rootless = namespaces.contains(Namespace::User) || in_user_namespace()?;
    let owns = |namespace| !rootless || namespaces.contains(namespace);
    let bind = |path: &str| Mount::bind(Path::new(path), Path::new(path), path == "/sys");
    // Group 5 is tty on every distribution; an id map of one id does not have it.
    let pts = if rootless { "" } else { ",gid=5" };

    let mut mounts = vec![
        if owns(Namespace::Pid) {
            Mount::new("proc", "/proc", "nosuid,noexec,nodev")
        } else {
            bind("/proc")
        },
        Mount::new("tmpfs", "/dev", "nosuid,nodev,strictatime,mode=755,size=65536k"),
        Mount::new(
            "devpts",
            "/dev/pts",
            &format!("nosuid,noexec,newinstance,ptmxmode=0666,mode=0620{pts}"),
        ),
        // POSIX shared memory is files here (shm_overview(7)): it goes with the IPC namespace.
        if namespaces.contains(Namespace::Ipc) {
            Mount::new("tmpfs", "/dev/shm", "nosuid,noexec,nodev,mode=1777,size=65536k")
        } else {
            bind("/dev/shm")
        },
        if owns(Namespace::Net) {
            Mount::new("sysfs", "/sys", "nosuid,noexec,nodev,ro")
        } else {
            bind("/sys")
        },
    ];
    if owns(Namespace::Ipc) {
        mounts.push(Mount::new("mqueue", "/dev/mqueue", "nosuid,noexec,nodev"));
    }
    if namespaces.contains(Namespace::Cgroup) && is_cgroup_v2() {
        mounts.push(Mount::new("cgroup2", "/sys/fs/cgroup", "nosuid,noexec,nodev,ro"));
    }
    Ok(mounts)
}

fn is_cgroup_v2() -> bool {
    Path::new("/sys/fs/cgroup/cgroup.controllers").exists()
}
