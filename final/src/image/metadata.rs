//! What a file of a layer is beside its bytes.

use std::collections::BTreeSet;
use std::ffi::{CString, OsStr, OsString};
use std::io::Read;
use std::os::fd::{AsFd, AsRawFd as _, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::PathBuf;

use anyhow::{Context as _, Result, bail};
use nix::dir::Dir;
use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::sys::stat::Mode;
use nix::sys::time::TimeSpec;
use tar::Entry;

/// As the archive has it.
pub(crate) struct Metadata {
    pub owner: (u32, u32),
    pub mode: Mode,
    pub time: TimeSpec,
    /// Extended attributes (xattr(7)), by name.
    pub attributes: Vec<(String, Vec<u8>)>,
}

impl Metadata {
    pub fn of(entry: &mut Entry<'_, impl Read>) -> Result<Self> {
        let mut attributes = Vec::new();
        let header = entry.header();
        let id = |id: u64| u32::try_from(id).with_context(|| format!("there is no user {id}"));
        let owner = (id(header.uid()?)?, id(header.gid()?)?);
        let mode = Mode::from_bits_truncate(header.mode()?);
        let mut time = (i64::try_from(header.mtime()?).unwrap_or_default(), 0);
        for extension in entry.pax_extensions()?.into_iter().flatten() {
            let extension = extension?;
            let key = extension.key().unwrap_or_default();
            if key == "mtime" {
                time = extension.value().ok().and_then(parse_time).unwrap_or(time);
            } else if let Some(name) = key.strip_prefix("SCHILY.xattr.") {
                if is_kept(name) {
                    attributes.push((name.to_owned(), extension.value_bytes().to_owned()));
                }
            } else if key.starts_with("GNU.sparse.") {
                bail!(
                    "sparse files in the format of pax are not read here (tar --format=gnu has another)"
                );
            }
        }
        Ok(Self { owner, mode, time: TimeSpec::new(time.0, time.1), attributes })
    }
}

/// What a layer may set. Not overlayfs's own: a layer could make it show files of other layers.
fn is_kept(attribute: &str) -> bool {
    attribute == "security.capability"
        || (attribute.starts_with("user.") && !attribute.starts_with("user.overlay."))
}

/// Seconds since 1970, with a fraction, as (seconds, nanoseconds).
fn parse_time(text: &str) -> Option<(i64, i64)> {
    let (seconds, fraction) = text.split_once('.').unwrap_or((text, ""));
    let nanoseconds = format!("{fraction:0<9.9}").parse().ok()?;
    Some((seconds.parse().ok()?, nanoseconds))
}

/// What an open directory has, in order.
pub(crate) fn names(directory: &OwnedFd) -> Result<BTreeSet<OsString>> {
    let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    let mut directory = Dir::openat(directory, ".", flags, Mode::empty())?;
    let mut names = BTreeSet::new();
    for entry in directory.iter() {
        let entry = entry.context("cannot read a directory")?;
        let name = entry.file_name().to_bytes();
        if ![&b"."[..], b".."].contains(&name) {
            names.insert(OsStr::from_bytes(name).to_owned());
        }
    }
    Ok(names)
}

/// A path that leads to an open file, also one that was opened for nothing (O_PATH).
pub(crate) fn proc_path(file: &impl AsFd) -> PathBuf {
    format!("/proc/self/fd/{}", file.as_fd().as_raw_fd()).into()
}

/// setxattr(2), of an open file.
pub(crate) fn set_attribute(file: &impl AsFd, name: &str, value: &[u8]) -> Result<(), Errno> {
    let path = CString::new(proc_path(file).as_os_str().as_bytes()).map_err(|_| Errno::EINVAL)?;
    let name = CString::new(name).map_err(|_| Errno::EINVAL)?;
    // SAFETY: both strings are NUL-terminated, the value has this length, and all outlive the call.
    let result = unsafe {
        libc::setxattr(path.as_ptr(), name.as_ptr(), value.as_ptr().cast(), value.len(), 0)
    };
    Errno::result(result).map(drop)
}
