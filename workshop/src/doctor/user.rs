//! Namespaces, ids and numbers: what a user may have.

use std::fs;
use std::io::{Read as _, Write as _};
use std::os::unix::fs::MetadataExt as _;
use std::process::Command;

use anyhow::{Context as _, Result};
use nix::errno::Errno;
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use nix::sys::resource::{Resource, getrlimit};
use nix::sys::wait::waitpid;
use nix::unistd::{ForkResult, Uid, User, fork, getegid, geteuid};

use super::attempt::{Refused, Seen, enter, in_child, in_namespaces};
use super::machine::{PRIVILEGED, outer_container, setting};
use super::{Finding, hint, stops, stops_plain_users};

/// CLONE_NEWTIME (linux/sched.h), which nix does not know.
const NEWTIME: CloneFlags = CloneFlags::from_bits_retain(0x80);

/// All kinds but user namespaces, with their names in /proc/self/ns.
const KINDS: [(&str, CloneFlags); 7] = [
    ("mnt", CloneFlags::CLONE_NEWNS),
    ("uts", CloneFlags::CLONE_NEWUTS),
    ("ipc", CloneFlags::CLONE_NEWIPC),
    ("pid", CloneFlags::CLONE_NEWPID),
    ("net", CloneFlags::CLONE_NEWNET),
    ("cgroup", CloneFlags::CLONE_NEWCGROUP),
    ("time", NEWTIME),
];

pub fn namespaces() -> Seen {
    for (kind, flag) in KINDS {
        in_namespaces(CloneFlags::empty(), || {
            unshare(flag).with_context(|| format!("cannot make a {kind} namespace"))?;
            Ok(String::new())
        })?;
    }
    Ok("mnt, uts, ipc, pid, net, cgroup, time: each can be made".into())
}

pub fn explain_namespaces(refused: &Refused) -> Finding {
    let fix = match refused.errno {
        Errno::ENOSPC => "raise the limit: sudo sysctl -w user.max_KIND_namespaces=10000".into(),
        Errno::EINVAL => "this kernel was built without it: take a distribution's kernel".into(),
        _ => match outer_container() {
            Some(_) => PRIVILEGED.to_owned(),
            None => "run it outside of the sandbox that forbids it".into(),
        },
    };
    stops(refused.text.clone(), fix)
}

pub fn user_namespace() -> Seen {
    in_child(|| {
        let spaces = CloneFlags::CLONE_NEWUSER | CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_NEWNET;
        enter(spaces)?;
        let (kind, none) = (Some("tmpfs"), None::<&str>);
        mount(kind, "/tmp", kind, MsFlags::empty(), none).context("cannot mount a tmpfs in it")?;
        Ok("a user namespace can be made, and is worth something".into())
    })
}

/// The settings that forbid user namespaces: name, the value that does, the one that does not, and what
/// there is to know.
const FORBID: [(&str, &str, &str, &str); 3] = [
    (
        "kernel.apparmor_restrict_unprivileged_userns",
        "1",
        "0",
        "only programs with an AppArmor profile may use user namespaces (Ubuntu's default)",
    ),
    ("kernel.unprivileged_userns_clone", "0", "1", "only root may make user namespaces"),
    ("user.max_user_namespaces", "0", "10000", "nobody may make user namespaces"),
];

pub fn explain_user_namespace(refused: &Refused) -> Finding {
    for (name, bad, good, why) in FORBID {
        if setting(name).as_deref() == Some(bad) {
            let fix = format!("sudo sysctl -w {name}={good} (until the next boot), or run as root");
            return stops_plain_users(format!("{why}: {name}={bad} ({})", refused.text), fix);
        }
    }
    let (cause, fix) = match (outer_container(), refused.errno) {
        (Some(engine), _) => (format!("{engine} refuses it"), PRIVILEGED),
        (_, Errno::EINVAL) => {
            ("this kernel was built without them".into(), "take a distribution's kernel")
        }
        (_, Errno::ENOSPC) => (
            "a limit in /proc/sys/user is reached".into(),
            "sudo sysctl -w user.max_user_namespaces=10000",
        ),
        _ => (
            "a sandbox or a security module refuses it".into(),
            "leave the sandbox, or run as root",
        ),
    };
    stops_plain_users(format!("{cause} ({})", refused.text), fix)
}

/// Our range in `file`, as (first id, count) in decimal (subuid(5)).
fn range(file: &str) -> Option<(String, String)> {
    let uid = Uid::current();
    let name = User::from_uid(uid).ok()?.map_or_else(String::new, |user| user.name);
    fs::read_to_string(file).ok()?.lines().find_map(|line| {
        let mut fields = line.split(':');
        let owner = fields.next()?;
        let range = (fields.next()?.to_owned(), fields.next()?.to_owned());
        (owner == name || owner == uid.to_string()).then_some(range)
    })
}

const HELPERS: [(&str, &str); 2] =
    [("/usr/bin/newuidmap", "/etc/subuid"), ("/usr/bin/newgidmap", "/etc/subgid")];

pub fn id_range() -> Seen {
    if geteuid().is_root() {
        return Ok("root needs none".into());
    }
    let mut ranges = Vec::new();
    for (helper, file) in HELPERS {
        let range =
            range(file).ok_or_else(|| Refused::because(format!("{file} has no range for you")))?;
        if fs::metadata(helper).is_err() {
            return Err(Refused::because(format!("{helper} is not installed")));
        }
        ranges.push(range);
    }
    map_ranges(&ranges)?;
    Ok(format!("containers without root get {} more users", ranges[0].1))
}

/// Starts a child in a new user namespace, and has the helpers map the ranges into it.
fn map_ranges(ranges: &[(String, String)]) -> Result<()> {
    let (mut ready, tell) = std::io::pipe()?;
    let (wait, done) = std::io::pipe()?;
    // SAFETY: this process has one thread, so its copy may go on with any code.
    let child = match unsafe { fork() }.context("cannot start a process")? {
        ForkResult::Child => {
            drop((ready, done));
            let unshared = unshare(CloneFlags::CLONE_NEWUSER).is_ok();
            let _ = (&tell).write_all(&[u8::from(unshared)]);
            let _ = (&wait).read(&mut [0]); // end of file, when the parent has done its part
            // SAFETY: _exit(2) ends the process at once; no Rust code runs after it.
            unsafe { libc::_exit(0) }
        }
        ForkResult::Parent { child } => child,
    };
    drop((wait, tell));
    let mut unshared = [0];
    let mapped = ready.read_exact(&mut unshared).map_err(Into::into).and_then(|()| {
        anyhow::ensure!(unshared == [1], "no user namespace can be made: see the check userns");
        for ((helper, file), (first, count)) in HELPERS.iter().zip(ranges) {
            let ours = if *file == "/etc/subuid" { geteuid().as_raw() } else { getegid().as_raw() };
            let output = Command::new(helper)
                .args([&child.to_string(), "0", &ours.to_string(), "1", "1", first, count])
                .output()
                .with_context(|| format!("cannot run {helper}"))?;
            let why = String::from_utf8_lossy(&output.stderr);
            anyhow::ensure!(output.status.success(), "{helper} refused: {}", why.trim());
        }
        Ok(())
    });
    drop(done);
    let _ = waitpid(child, None);
    mapped
}

pub fn explain_id_range(refused: &Refused) -> Finding {
    let user = User::from_uid(Uid::current()).ok().flatten();
    let name = user.map_or_else(|| Uid::current().to_string(), |user| user.name);
    let without = "without root a container has one user, so the image's other owners are nobody";
    if refused.text.contains("no range") {
        let fix =
            format!("sudo usermod --add-subuids 100000-165535 --add-subgids 100000-165535 {name}");
        return hint(format!("{}; {without}", refused.text), fix);
    }
    if refused.text.contains("not installed") {
        return hint(format!("{}; {without}", refused.text), "sudo apt install uidmap");
    }
    if fs::metadata(HELPERS[0].0).is_ok_and(|file| file.uid() != 0) {
        return hint(
            format!("the owner of {} is not root here; {without}", HELPERS[0].0),
            "run as root",
        );
    }
    stops(
        format!(
            "{} (setuid programs do not work with no_new_privs or on nosuid mounts)",
            refused.text
        ),
        "sudo apt install --reinstall uidmap, and leave sandboxes",
    )
}

/// Too few for a container and the tests beside it.
const FEW_PROCESSES: u64 = 200;
const FEW_NAMESPACES: u64 = 32;

pub fn limits() -> Seen {
    let mut low = Vec::new();
    let (soft, _) = getrlimit(Resource::RLIMIT_NPROC).context("cannot read ulimit -u")?;
    let room = soft.saturating_sub(threads_of(geteuid()));
    // Root is not held to it (getrlimit(2)).
    if !geteuid().is_root() && room < FEW_PROCESSES {
        low.push(format!("ulimit -u {soft} leaves {room} more processes"));
    }
    if let Some((room, file)) =
        super::cgroup::room_for_processes().filter(|(room, _)| *room < FEW_PROCESSES)
    {
        low.push(format!("{file} leaves {room} more processes"));
    }
    for kind in ["mnt", "uts", "ipc", "pid", "net", "cgroup", "time", "user"] {
        let name = format!("user.max_{kind}_namespaces");
        let most = setting(&name).and_then(|value| value.parse::<u64>().ok());
        // None at all is what the checks userns and namespaces are about.
        if let Some(most @ 1..FEW_NAMESPACES) = most {
            low.push(format!("{name}={most}"));
        }
    }
    if low.is_empty() { Ok("high enough".into()) } else { Err(Refused::because(low.join(", "))) }
}

/// How many threads the user has, as RLIMIT_NPROC counts.
fn threads_of(user: Uid) -> u64 {
    let Ok(processes) = fs::read_dir("/proc") else { return 0 };
    let threads = |directory: fs::DirEntry| {
        let owner = directory.metadata().ok()?.uid();
        let tasks = (owner == user.as_raw())
            .then(|| fs::read_dir(directory.path().join("task")).ok())??;
        u64::try_from(tasks.count()).ok()
    };
    processes.filter_map(Result::ok).filter_map(threads).sum()
}

pub fn explain_limits(refused: &Refused) -> Finding {
    let fix = if refused.text.starts_with("ulimit") {
        "ulimit -u 4096; if that is refused: a line `USER hard nproc 4096` in /etc/security/limits.conf"
    } else if refused.text.contains("pids.max") {
        "write max to that file as root, or give the virtual machine or outer container more processes"
    } else {
        "sudo sysctl -w NAME=10000, for each of them"
    };
    hint(format!("a low limit: {}", refused.text), fix)
}
