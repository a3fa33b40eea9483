//! Who a process of the container is.
//!
//! Names are looked up in the container's own /etc/passwd and /etc/group: what the host calls a user
//! says nothing about who that is inside.

use std::collections::BTreeSet;
use std::io::{stderr, stdin, stdout};
use std::os::fd::{AsFd as _, BorrowedFd};
use std::path::Path;

use anyhow::{Context as _, Result, bail, ensure};
use nix::errno::Errno;
use nix::sys::prctl;
use nix::sys::signal::Signal;
use nix::sys::statfs::{FsType, fstatfs};
use nix::unistd::{Gid, Uid, fchown, geteuid, setgroups, setresgid, setresuid};
use step01_namespaces::{in_user_namespace, see};
use step03_rootfs::Root;

use crate::process::close_to_others;

/// Who is wanted, as `--user` and `--group-add` write it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Wanted {
    /// `UID[:GID]` or `NAME[:GROUP]`; empty is root.
    pub user: String,
    /// More groups, by number or name.
    pub groups: Vec<String>,
}

/// Who a process is (credentials(7)).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct User {
    /// The user.
    pub uid: Uid,
    /// The first group.
    pub gid: Gid,
    /// The list of groups.
    pub groups: Vec<Gid>,
    /// Whether the user has asked for groups by `--group-add`, or they only are in the image's files.
    pub asked: bool,
    /// The home directory.
    pub home: String,
}

impl Wanted {
    /// Finds it in the files of the container.
    pub fn find(&self, root: &Root) -> Result<User> {
        let read = |path| root.read(Path::new(path)).map(Option::unwrap_or_default);
        self.find_in(&read("/etc/passwd")?, &read("/etc/group")?)
    }

    /// Finds it in the texts of both files (passwd(5), group(5)), by docker's rules: a number need not
    /// be there, and a user for whom no group is given has those of the files.
    fn find_in(&self, passwd: &str, group: &str) -> Result<User> {
        let (name, first) = self.user.split_once(':').unwrap_or((&self.user, ""));
        let name = if name.is_empty() { "0" } else { name };
        let entry = entry(passwd, name).unwrap_or_default();
        let field = |index: usize| entry.get(index).copied();
        let uid = id(name).or_else(|| field(2).and_then(id));
        let uid = uid.with_context(|| format!("no user {name} in /etc/passwd of the container"))?;
        let find_group = |name: &str| {
            id(name)
                .or_else(|| entry_number(group, name))
                .with_context(|| format!("no group {name} in /etc/group of the container"))
        };
        let mut groups = BTreeSet::new();
        let gid = if first.is_empty() {
            groups.extend(field(0).into_iter().flat_map(|name| groups_of(group, name)));
            field(3).and_then(id).unwrap_or(0)
        } else {
            find_group(first)?
        };
        for name in &self.groups {
            groups.insert(find_group(name)?);
        }
        // A group can keep its members out of a file (mode 0604). A set-group-ID program replaces the
        // first group; what is in the list, too, stays (CVE-2022-36109).
        groups.insert(gid);
        Ok(User {
            uid: Uid::from_raw(uid),
            gid: Gid::from_raw(gid),
            groups: groups.into_iter().map(Gid::from_raw).collect(),
            asked: !self.groups.is_empty(),
            home: field(5).filter(|home| !home.is_empty()).unwrap_or("/").to_owned(),
        })
    }
}

/// Reads `UID[:GID]` or `NAME[:GROUP]`.
pub fn parse_user(text: &str) -> Result<String> {
    let (user, group) = text.split_once(':').unwrap_or((text, "0"));
    ensure!(!text.is_empty() && !group.is_empty(), "a user is UID[:GID] or NAME[:GROUP]");
    for name in [user, group].into_iter().filter(|name| !name.is_empty()) {
        parse_group(name)?;
    }
    Ok(text.to_owned())
}

/// Reads a user or group, by number or name.
pub fn parse_group(text: &str) -> Result<String> {
    let negative = text.parse::<i64>().is_ok_and(|number| number < 0);
    let number = text.bytes().all(|byte| byte.is_ascii_digit());
    ensure!(!negative && (!number || id(text).is_some()), "ids are 0 to 2147483647");
    let odd = |c: char| c == ':' || c.is_whitespace() || c.is_control();
    ensure!(
        !text.is_empty() && !text.contains(odd),
        "{text:?} is no name in /etc/passwd or /etc/group"
    );
    Ok(text.to_owned())
}

/// The fields of the line for a name or number.
fn entry<'t>(text: &'t str, name: &str) -> Option<Vec<&'t str>> {
    let column = if id(name).is_some() { 2 } else { 0 };
    let mut lines = text.lines().map(|line| line.split(':').collect::<Vec<_>>());
    lines.find(|fields| match (id(name), fields.get(column)) {
        (Some(wanted), Some(field)) => id(field) == Some(wanted),
        (None, Some(field)) => *field == name,
        _ => false,
    })
}

fn entry_number(group: &str, name: &str) -> Option<u32> {
    entry(group, name)?.get(2).and_then(|number| id(number))
}

/// The groups in which the user is named as a member.
fn groups_of<'t>(group: &'t str, user: &'t str) -> impl Iterator<Item = u32> + 't {
    group.lines().filter_map(move |line| {
        let fields: Vec<_> = line.split(':').collect();
        let is_member = fields.get(3)?.split(',').any(|member| member == user);
        is_member.then(|| id(fields[2])).flatten()
    })
}

/// A number as an id. 2^32 - 1 would mean "leave it as it is" (setresuid(2)), so root; docker takes
/// up to 2^31 - 1.
fn id(text: &str) -> Option<u32> {
    let digits = text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse().ok().filter(|&id| digits && i32::try_from(id).is_ok())
}

impl User {
    /// Leaves the caller's groups, and joins its own.
    pub fn join_groups(&self) -> Result<()> {
        match setgroups(&self.groups) {
            // With a map of one id setgroups(2) is denied (step01's idmap.rs). Those that only the
            // image's files name it then goes without.
            Err(Errno::EPERM) if !self.asked => Ok(()),
            Err(Errno::EPERM | Errno::EINVAL) => {
                let groups: Vec<_> = self.groups.iter().map(ToString::to_string).collect();
                bail!("cannot join the groups {}{ONE_ID}{}", groups.join(" "), see("id-range"))
            }
            result => result.context("cannot leave the caller's groups"),
        }
    }

    /// Becomes this user. Who is not root any more has no capabilities any more (capabilities(7)), but
    /// for the bounding set, which an exec of a set-user-ID program can make use of.
    pub fn switch(&self) -> Result<()> {
        let (uid, gid) = (self.uid, self.gid);
        match setresgid(gid, gid, gid).and_then(|()| setresuid(uid, uid, uid)) {
            Err(Errno::EINVAL) => bail!("cannot become {uid}:{gid}{ONE_ID}{}", see("id-range")),
            result => result.with_context(|| format!("cannot become {uid}:{gid}"))?,
        }
        // The kernel has forgotten both by now (prctl(2)). Should our parent have died in between, the
        // next message to it says so.
        prctl::set_pdeathsig(Signal::SIGKILL).context("cannot tie the child to its parent")?;
        close_to_others()
    }

    /// Lets it open again what it has open: a terminal, or a pipe (as /dev/stdout), is its maker's. A
    /// file that the caller has given us stays the caller's.
    pub fn own_stdio(&self, terminal: bool) -> Result<()> {
        for fd in [stdin().as_fd(), stdout().as_fd(), stderr().as_fd()] {
            if terminal || is_pipe(fd) {
                match fchown(fd, Some(self.uid), None) {
                    // Its maker is nobody whom we know in here.
                    Ok(()) | Err(Errno::EPERM | Errno::EINVAL) => {}
                    result => result.context("cannot give the standard files to the user")?,
                }
            }
        }
        Ok(())
    }
}

/// Whether what we mount is mounted in a user namespace: a plain user's container has one, and we may be in
/// one ourselves.
pub fn is_rootless() -> Result<bool> {
    Ok(!geteuid().is_root() || in_user_namespace()?)
}

/// Whether it is a pipe without a name.
pub fn is_pipe(fd: BorrowedFd<'_>) -> bool {
    const PIPES: FsType = FsType(0x5049_5045); // linux/magic.h
    fstatfs(fd).is_ok_and(|found| found.filesystem_type() == PIPES)
}

/// Why an id cannot be had.
const ONE_ID: &str = ": they are not all in the user namespace, which for a plain user without a range in /etc/subuid \
     and /etc/subgid has one id only, and with --userns remap ids up to 65535";

#[cfg(test)]
mod tests {
    use super::Wanted;

    const PASSWD: &str = "root:x:0:0:root:/root:/bin/sh\n#comment\n\nada:x:1000:100:Ada:/home/ada:/bin/sh\n\
                          web:x:33:33::\n7:x:8:9::/seven:\nbad:x:-5:-5::/:\nhuge:x:4294967295:0::/:\n";
    const GROUP: &str = "root:x:0:\nusers:x:100:\naudio:x:29:bob,ada\nweb:x:33:ada\nodd:x\n";

    fn find(user: &str, groups: &[&str]) -> Option<(u32, u32, Vec<u32>, String)> {
        let groups = groups.iter().map(|&group| group.to_owned()).collect();
        let found = Wanted { user: user.to_owned(), groups }.find_in(PASSWD, GROUP).ok()?;
        let groups = found.groups.iter().map(|group| group.as_raw()).collect();
        Some((found.uid.as_raw(), found.gid.as_raw(), groups, found.home))
    }

    #[test]
    fn users_are_found_by_dockers_rules() {
        for (user, more, uid, gid, groups, home) in [
            ("", &[][..], 0, 0, &[0][..], "/root"),
            ("ada", &[], 1000, 100, &[29, 33, 100], "/home/ada"),
            ("1000", &[], 1000, 100, &[29, 33, 100], "/home/ada"),
            // A group that is given leaves none of those in the files.
            ("ada:web", &[], 1000, 33, &[33], "/home/ada"),
            ("1000:5", &[], 1000, 5, &[5], "/home/ada"),
            ("5555", &[], 5555, 0, &[0], "/"),
            (":audio", &[], 0, 29, &[29], "/root"),
            ("web", &["audio", "7", "audio"], 33, 33, &[7, 29, 33], "/"),
            // Digits are a number, even if somebody has them for a name.
            ("7", &[], 7, 0, &[0], "/"),
        ] {
            let expected = (uid, gid, groups.to_vec(), home.to_owned());
            assert_eq!(find(user, more), Some(expected), "{user} {more:?}");
        }
        // 2^32 - 1 would leave us root.
        for nobody in ["nobody", "ada:nobody", "bad", "huge", "4294967295", "-1", "+1", "odd:odd"] {
            assert_eq!(find(nobody, &[]), None, "{nobody}");
        }
        assert_eq!(find("ada", &["odd"]), None);
    }
}
