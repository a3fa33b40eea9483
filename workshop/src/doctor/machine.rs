//! The machine itself: its kernel, and what it is inside of.

use std::fs;
use std::io::Read as _;
use std::os::fd::AsRawFd as _;
use std::path::Path;

use anyhow::{Context as _, bail};
use nix::errno::Errno;
use nix::unistd::geteuid;

use super::attempt::{Refused, Seen, in_child};
use super::{Finding, hint, stops};
use crate::lab::{self, Who};
use crate::text::{is_on, search_path};

/// A release of Linux, as far as it matters.
type Version = (u32, u32);

/// The newer system calls that we cannot do without: name, number, the Linux that has them first, and who
/// needs them (who comes later does, too).
const SYSTEM_CALLS: [(&str, i64, Version, &str); 10] = [
    ("pidfd_send_signal", libc::SYS_pidfd_send_signal, (5, 1), "step 1"),
    ("clone3", libc::SYS_clone3, (5, 3), "step 1"),
    ("pidfd_open", libc::SYS_pidfd_open, (5, 3), "step 1"),
    ("open_tree", libc::SYS_open_tree, (5, 2), "step 3"),
    ("move_mount", libc::SYS_move_mount, (5, 2), "step 3"),
    ("fsopen", libc::SYS_fsopen, (5, 2), "step 3"),
    ("fsmount", libc::SYS_fsmount, (5, 2), "step 3"),
    ("openat2", libc::SYS_openat2, (5, 6), "step 3"),
    ("mount_setattr", libc::SYS_mount_setattr, (5, 12), "step 3"),
    ("close_range", libc::SYS_close_range, (5, 9), "final"),
];

/// What we use if it is there, with the Linux that has it first.
const OPTIONAL: [(&str, Version); 2] = [
    ("cgroup.kill, so the processes of a group are ended one by one", (5, 14)),
    ("memory.peak, so step 2 reports no peak", (5, 19)),
];

/// A setting below /proc/sys, without the space around it; `None` if this kernel does not have it.
pub fn setting(name: &str) -> Option<String> {
    let path = Path::new("/proc/sys").join(name.replace('.', "/"));
    Some(fs::read_to_string(path).ok()?.trim().to_owned())
}

fn release() -> String {
    setting("kernel.osrelease").unwrap_or_else(|| "?".into())
}

fn missing_calls() -> Vec<(&'static str, Version, &'static str)> {
    let missing = |number: i64| {
        // SAFETY: a length or flags of -1 are refused by each of these calls before it does anything,
        // and -1 as an address is never followed.
        let result =
            unsafe { libc::syscall(number, -1_i64, -1_i64, -1_i64, -1_i64, -1_i64, -1_i64) };
        Errno::result(result) == Err(Errno::ENOSYS)
    };
    let calls = SYSTEM_CALLS.into_iter().filter(|call| missing(call.1));
    calls.map(|(name, _, since, step)| (name, since, step)).collect()
}

pub fn system_calls() -> Seen {
    let release = release();
    let missing: Vec<_> = missing_calls()
        .into_iter()
        .map(|(name, _, step)| format!("{name} (ENOSYS), needed from {step} on"))
        .collect();
    if !missing.is_empty() {
        return Err(Refused::because(missing.join(", ")));
    }
    Ok(format!("Linux {release} has all the calls{}", without(version(&release))))
}

fn without(ours: Option<Version>) -> String {
    let lacks = |since: Version| ours.is_some_and(|ours| ours < since);
    let lacking: Vec<_> =
        OPTIONAL.into_iter().filter(|(_, since)| lacks(*since)).map(|(what, _)| what).collect();
    if lacking.is_empty() { String::new() } else { format!(", but no {}", lacking.join("; no ")) }
}

pub fn explain_system_calls(refused: &Refused) -> Finding {
    let needed = missing_calls().iter().map(|(_, since, _)| *since).max().unwrap_or((5, 12));
    let cause = format!("Linux {} refuses {}", release(), refused.text);
    if version(&release()).is_some_and(|ours| ours >= needed) {
        let fix = "lift the seccomp filter that hides calls which this kernel has; if it is an outer \
                   container's, start that with --privileged";
        return stops(cause, fix);
    }
    let (major, minor) = needed;
    stops(cause, format!("run Linux {major}.{minor} or later, in a virtual machine if need be"))
}

/// The first two numbers of a release such as 6.1.0-41-amd64.
fn version(release: &str) -> Option<Version> {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(str::parse);
    Some((numbers.next()?.ok()?, numbers.next()?.ok()?))
}

pub fn wsl() -> Seen {
    let release = release();
    if release.ends_with("-Microsoft") {
        return Err(Refused::because(release)); // WSL 2 writes itself microsoft-standard-WSL2
    }
    Ok(if release.contains("microsoft") { "WSL 2" } else { "not Windows" }.into())
}

pub fn explain_wsl(refused: &Refused) -> Finding {
    stops(
        format!("this is WSL 1 ({}), which has no Linux kernel", refused.text),
        "in PowerShell: wsl --set-version DISTRIBUTION 2 (wsl --list says its name)",
    )
}

/// What we are inside of, by the marks that these programs leave.
pub fn outer_container() -> Option<&'static str> {
    let variable = fs::read("/proc/1/environ").unwrap_or_default();
    let is_set = |value: &str| {
        variable.split(|&byte| byte == 0).any(|v| v == format!("container={value}").as_bytes())
    };
    let kubernetes = || std::env::var_os("KUBERNETES_SERVICE_HOST").is_some();
    match () {
        () if Path::new("/.dockerenv").exists() => Some("Docker"),
        () if Path::new("/run/.containerenv").exists() => Some("podman"),
        () if is_set("lxc") => Some("LXC"),
        () if is_set("systemd-nspawn") => Some("systemd-nspawn"),
        () if kubernetes() => Some("Kubernetes"),
        () => None,
    }
}

/// What the fix is if an outer container forbids something.
pub const PRIVILEGED: &str = "start the outer container with --privileged";

/// CAP_SYS_ADMIN (linux/capability.h).
const SYS_ADMIN: u32 = 21;
const NO_SYS_ADMIN: &str = "root here lacks CAP_SYS_ADMIN";

/// A line of /proc/self/status.
fn status(name: &str) -> Option<String> {
    let text = fs::read_to_string("/proc/self/status").ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    Some(line?.trim().to_owned())
}

/// Whether a mount covers a part of /proc, as container engines do to hide it.
fn is_proc_masked() -> bool {
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let mut places = mounts.lines().filter_map(|line| line.split(' ').nth(4));
    places.any(|place| place.starts_with("/proc/") && place != "/proc/sys/fs/binfmt_misc")
}

pub fn container() -> Seen {
    let inside = outer_container();
    let capabilities = status("CapEff").and_then(|mask| u64::from_str_radix(&mask, 16).ok());
    let mut wrong = Vec::new();
    if geteuid().is_root() && capabilities.is_some_and(|mask| mask >> SYS_ADMIN & 1 == 0) {
        wrong.push(NO_SYS_ADMIN);
    }
    if inside.is_some() && status("Seccomp").as_deref() == Some("2") {
        wrong.push("a seccomp filter refuses some system calls");
    }
    if inside.is_some() && is_proc_masked() {
        wrong.push("parts of /proc are hidden");
    }
    if !wrong.is_empty() {
        return Err(Refused::because(wrong.join(", ")));
    }
    Ok(inside.map_or("no mark of an outer container".into(), |engine| {
        format!("marks of {engine} are here, but nothing is forbidden")
    }))
}

pub fn explain_container(refused: &Refused) -> Finding {
    let engine = outer_container().unwrap_or("a container or sandbox");
    let cause = format!("this is inside {engine}, and {}", refused.text);
    // The rest matters only if another check stops, too.
    if refused.text.starts_with(NO_SYS_ADMIN) {
        stops(cause, PRIVILEGED)
    } else {
        hint(cause, format!("if a check below stops: {PRIVILEGED}"))
    }
}

pub fn selinux() -> Seen {
    let enforces =
        fs::read_to_string("/sys/fs/selinux/enforce").is_ok_and(|text| text.trim() == "1");
    let context = fs::read_to_string("/proc/self/attr/current").unwrap_or_default();
    let context = context.trim_end_matches('\0').trim();
    if enforces && !context.contains(":unconfined_t:") {
        return Err(Refused::because(context));
    }
    Ok(if enforces {
        "SELinux enforces, but does not confine you"
    } else {
        "no SELinux confines you"
    }
    .into())
}

pub fn explain_selinux(refused: &Refused) -> Finding {
    hint(
        format!(
            "SELinux confines you as {}: it may refuse mounts and namespaces (EACCES)",
            refused.text
        ),
        "sudo ausearch -m avc -ts recent shows what; log in as an unconfined user (semanage login)",
    )
}

/// What the book's pages call in a shell.
const TOOLS: [(&str, &str); 6] = [
    ("ip", "iproute2"),
    ("nft", "nftables"),
    ("curl", "curl"),
    ("ping", "iputils-ping"),
    ("tcpdump", "tcpdump"),
    ("unshare", "util-linux"),
];

pub fn tools() -> Seen {
    let path = search_path();
    let packages: Vec<_> = TOOLS
        .into_iter()
        .filter(|tool| !is_on(&path, tool.0))
        .map(|(_, package)| package)
        .collect();
    if packages.is_empty() {
        Ok("all there".into())
    } else {
        Err(Refused::because(packages.join(" ")))
    }
}

pub fn explain_tools(refused: &Refused) -> Finding {
    hint(
        format!("the book shows commands of these packages, which are not here: {}", refused.text),
        format!("sudo apt install {} (or as your distribution has it)", refused.text),
    )
}

/// A lab whose first process ends at once. What it says of a failure, it says on stderr.
pub fn lab() -> Seen {
    in_child(|| {
        let (mut reader, writer) = std::io::pipe().context("cannot make a pipe")?;
        // SAFETY: 2 is stderr of this child, which nobody else uses.
        Errno::result(unsafe { libc::dup2(writer.as_raw_fd(), 2) })?;
        drop(writer);
        let status = lab::run(Who::of_caller(), true, || 0)?;
        if status.success() {
            return Ok("a lab was made, with its internet, and is gone".into());
        }
        // SAFETY: as above; it was the last writer, so what follows has an end.
        unsafe { libc::close(2) };
        let mut text = String::new();
        reader.read_to_string(&mut text)?;
        bail!("{}", text.trim())
    })
}

pub fn explain_lab(refused: &Refused) -> Finding {
    stops(refused.text.clone(), "mend what the checks before this one say; then this one works")
}

#[cfg(test)]
mod tests {
    use super::{version, without};

    #[test]
    fn releases_are_read() {
        for (release, numbers) in [
            ("6.18.44-fc-v669", (6, 18)),
            ("5.10.0-41-amd64", (5, 10)),
            ("4.4.0-19041-Microsoft", (4, 4)),
        ] {
            assert_eq!(version(release), Some(numbers));
        }
        assert_eq!(version("?"), None);
        assert_eq!(without(Some((6, 1))), "");
        assert_eq!(without(Some((5, 15))), ", but no memory.peak, so step 2 reports no peak");
    }
}
