//! What a process of the container may still do.

mod own_program;
mod profile;
mod rlimits;
mod seccomp;

use std::str::FromStr as _;

use anyhow::{Context as _, Result};
use caps::{CapSet, Capability, CapsHashSet};
use nix::errno::Errno;
use nix::sys::prctl;

pub use own_program::protect_own_program;
pub use profile::read_profile;
pub use rlimits::{Ulimit, parse_resource};
pub use seccomp::{Filters, profile};

/// docker's default capabilities (capabilities(7)).
pub const DEFAULT_CAPABILITIES: [&str; 14] = [
    "CAP_AUDIT_WRITE",
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_FOWNER",
    "CAP_FSETID",
    "CAP_KILL",
    "CAP_MKNOD",
    "CAP_NET_BIND_SERVICE",
    "CAP_NET_RAW",
    "CAP_SETFCAP",
    "CAP_SETGID",
    "CAP_SETPCAP",
    "CAP_SETUID",
    "CAP_SYS_CHROOT",
];

/// Reads names such as `CAP_CHOWN`.
pub fn parse_capabilities<'a>(names: impl IntoIterator<Item = &'a str>) -> Result<CapsHashSet> {
    names
        .into_iter()
        .map(|name| Capability::from_str(name).with_context(|| format!("no capability {name}")))
        .collect()
}

/// All capabilities.
pub const ALL: &str = "ALL";

/// Reads a name as `--cap-add` has it, `CHOWN` or `cap_chown`, or `ALL`; returns it in full.
pub fn parse_capability(text: &str) -> Result<String> {
    let name = text.to_ascii_uppercase();
    let short = name.strip_prefix("CAP_").unwrap_or(&name);
    if short == ALL {
        return Ok(ALL.to_owned());
    }
    let capability = Capability::from_str(&format!("CAP_{short}"));
    let known = capability.ok().with_context(|| format!("there is no capability {text:?}"))?;
    Ok(known.to_string())
}

/// What is left of `usual` after docker's `--cap-add` and `--cap-drop`: what is added stays, unless all
/// are.
pub fn tweak_capabilities(
    usual: &CapsHashSet,
    add: &[String],
    drop: &[String],
) -> Result<CapsHashSet> {
    let has_all = |list: &[String]| list.iter().any(|name| name == ALL);
    let read = |list: &[String]| {
        parse_capabilities(list.iter().map(String::as_str).filter(|name| *name != ALL))
    };
    let (added, dropped) = (read(add)?, read(drop)?);
    Ok(match (has_all(add), has_all(drop)) {
        (true, _) => &caps::all() - &dropped,
        (false, true) => added,
        (false, false) => &(usual - &dropped) | &added,
    })
}

/// Takes every capability that is not in `keep` out of the bounding set: an exec by user 0, or of a
/// set-user-ID program, gains all that is in it. It takes CAP_SETPCAP.
pub fn limit_bounding_set(keep: &CapsHashSet) -> Result<()> {
    let limit = || -> Result<(), caps::errors::CapsError> {
        for capability in caps::all() {
            if !keep.contains(&capability) && caps::has_cap(None, CapSet::Bounding, capability)? {
                caps::drop(None, CapSet::Bounding, capability)?;
            }
        }
        Ok(())
    };
    limit().context("cannot limit the capabilities")
}

/// Gives up every capability that is not in `keep`.
pub fn limit_capabilities(keep: &CapsHashSet) -> Result<()> {
    let limit = || -> Result<(), caps::errors::CapsError> {
        // What the caller, or who is not root, lacks itself it cannot keep.
        let keep = &caps::read(None, CapSet::Permitted)? & keep;
        caps::clear(None, CapSet::Inheritable)?; // the ambient set shrinks with it
        caps::set(None, CapSet::Effective, &keep)?;
        caps::set(None, CapSet::Permitted, &keep)
    };
    limit().context("cannot give up capabilities")
}

/// From here on no exec gains a privilege: no set-user-ID bit, no file capability (prctl(2)).
pub fn no_new_privileges() -> Result<()> {
    prctl::set_no_new_privs().context("cannot set no_new_privs")
}

/// Leaves the caller's session keyring for a new one: keys are not in any namespace
/// (session-keyring(7)), and the user's may open the user's disks or mails.
pub fn new_session_keyring() -> Result<()> {
    const KEYCTL_JOIN_SESSION_KEYRING: libc::c_int = 1;
    let anonymous = std::ptr::null::<libc::c_char>();
    // SAFETY: a null name asks for an anonymous keyring.
    let result = unsafe { libc::syscall(libc::SYS_keyctl, KEYCTL_JOIN_SESSION_KEYRING, anonymous) };
    match Errno::result(result) {
        // No keys in this kernel, or a sandbox around us without them: none to be protected.
        Ok(_) | Err(Errno::ENOSYS) => Ok(()),
        Err(errno) => Err(errno).context("cannot make a new session keyring"),
    }
}
