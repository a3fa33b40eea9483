//! What only version 2 has.

use std::fs;
use std::io::Read as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use nix::sched::{CloneFlags, unshare};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use step01_namespaces::Namespaces;
use step02_cgroups::{Cgroup, Limits};
use workshop::lab::{Who, program};
use workshop::suite::{Outcome, eventually, finish, read, run};

use crate::{
    BEGIN, BINARY, KILLED, PATIENCE, Running, TREES, WAIT, any_exists, fifo, find, mount,
    processes, step02,
};

/// Our own cgroup, as the mount shows it.
fn own_group() -> PathBuf {
    let own = read("/proc/self/cgroup");
    let path = own.lines().find_map(|line| line.strip_prefix("0::/")).unwrap();
    Path::new(TREES).join(path)
}

/// By way of the library: before Go the child has not run a line of its set-up.
pub fn the_child_is_born_in_its_cgroup(_: Who) {
    let cgroup = Cgroup::create("born", &Limits::default()).unwrap();
    let child = step01_namespaces::Child::spawn(Namespaces::default(), cgroup.fd(), || {
        Ok(Command::new("true"))
    });
    let child = child.unwrap();
    let pid = child.pid().to_string();
    let groups = find(Path::new(TREES), &|group| processes(group).contains(&pid));
    assert!(groups[0].ends_with("container-workshop/container-workshop-born"), "{groups:?}");
}

pub fn the_kernel_tells_what_it_refused(_: Who) {
    let script = format!("{BEGIN}; \"$0\" @eat 64; echo $?; \"$0\" @forks; {WAIT}");
    let mut running = Running::start(&["--memory", "32M", "--pids", "8"], &script);
    assert_eq!(running.line(), KILLED.to_string());
    assert!(running.line().starts_with("started 6, "), "beside it there are a shell and a probe");
    let event = |file: &str, name: &str| {
        let text = running.setting(file).unwrap();
        let value = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        value.unwrap_or_else(|| panic!("no {name} in {file}:\n{text}")).parse::<u64>().unwrap()
    };
    assert_eq!(event("memory.events", "oom_kill"), 1);
    assert!(event("memory.events.local", "oom") > 0 && event("memory.events", "max") > 0);
    assert!(event("pids.events", "max") > 0);
    let peak: u64 = running.setting("memory.peak").unwrap().parse().unwrap();
    assert!((31 << 20..=32 << 20).contains(&peak), "{peak}");
    assert_eq!(running.setting("memory.swap.current").unwrap_or_else(|| "0".into()), "0");
    running.end();
}

/// A group has a controller only if every group above it gives it.
pub fn controllers_are_on_all_the_way_down(_: Who) {
    let options = ["--memory", "64M", "--cpus", "0.5", "--pids", "32", "--cpuset", "0"];
    let running = Running::start(&options, &format!("{BEGIN}; {WAIT}"));
    for above in running.groups[0].ancestors().skip(1).take_while(|path| path.starts_with(TREES)) {
        let on = read(above.join("cgroup.subtree_control"));
        for controller in ["cpu", "cpuset", "memory", "pids"] {
            assert!(on.split(' ').any(|name| name == controller), "{}: {on}", above.display());
        }
    }
    // Nothing asked for: what is not for accounting stays off in the container's own group.
    assert_eq!(running.setting("cgroup.subtree_control").unwrap(), "");
    running.end();
}

/// A FIFO in the place of `cgroup.kill` shows, in this lab, what is written to it.
pub fn all_are_killed_by_one_write(_: Who) {
    let running = Running::start(&["--share", "pid"], &format!("sleep 60 & {BEGIN}; {WAIT}"));
    let group = running.groups[0].clone();
    let (fifo, mut seen) = fifo("cgroup.kill");
    mount(Some(&fifo), &group.join("cgroup.kill"), None);
    kill(Pid::from_raw(running.child.id().cast_signed()), Signal::SIGTERM).unwrap();
    let mut written = [0; 64];
    eventually("something is written", || seen.read(&mut written).is_ok());
    assert_eq!(written[..2], *b"1\0");
    assert_eq!(processes(&group).len(), 1, "nobody was killed otherwise");
    nix::mount::umount(&group.join("cgroup.kill")).unwrap();
    fs::write(group.join("cgroup.kill"), "1").unwrap();
    assert_eq!(finish(running.child, PATIENCE).status, Some(0));
    assert!(!group.exists());
    fs::remove_file(fifo).unwrap();
}

pub fn the_root_cgroup_may_have_processes(_: Who) {
    fs::write(Path::new(TREES).join("cgroup.procs"), "0").unwrap();
    let running = Running::start(&["--memory", "64M"], &format!("{BEGIN}; {WAIT}"));
    assert!(read(Path::new(TREES).join("cgroup.subtree_control")).contains("memory"));
    assert_eq!(read("/proc/self/cgroup"), "0::/", "we are where we were");
    running.end();
}

/// step02 where the tree begins with a group that has processes, as in a container of docker's that
/// may write to its cgroup.
fn step02_in_container(group: &Path, script: &str) -> Outcome {
    let procs = group.join("cgroup.procs");
    let mut command = Command::new("sh");
    command.args(["-c", script]).arg(program(BINARY));
    // SAFETY: this program has one thread, so the copy may do anything.
    unsafe {
        command.pre_exec(move || {
            fs::write(&procs, "0")?;
            unshare(CloneFlags::CLONE_NEWCGROUP | CloneFlags::CLONE_NEWNS)?;
            mount(None, Path::new(TREES), Some("tmpfs")); // no file system is mounted on itself
            mount(None, Path::new(TREES), Some("cgroup2"));
            Ok(())
        });
    }
    run(&mut command, PATIENCE)
}

pub fn processes_of_others_are_not_moved(_: Who) {
    let own = own_group();
    let parent = if own == Path::new(TREES) { &own } else { own.parent().unwrap() };
    let group = parent.join("workshop-test");
    fs::create_dir(&group).unwrap();
    let where_are_we = "cat /proc/self/cgroup";
    let refused = step02_in_container(&group, &format!("\"$0\" --memory 64M true; {where_are_we}"));
    assert_eq!(refused.stdout, "0::/\n", "{refused:?}");
    assert!(refused.stderr.contains("cannot limit --memory: "), "{refused:?}");
    assert!(refused.stderr.contains("has processes"), "{refused:?}");
    // What the message says helps.
    let fix = refused.stderr.trim().rsplit_once("below it: ").unwrap().1;
    let helped = step02_in_container(
        &group,
        &format!("{fix}; {where_are_we}; \"$0\" --memory 64M {where_are_we}"),
    );
    assert_eq!(
        (helped.status, helped.stdout.as_str()),
        (Some(0), "0::/leaf\n0::/\n"),
        "{helped:?}"
    );
    fs::remove_dir(group.join("leaf")).unwrap();
    fs::remove_dir(&group).unwrap();
}

pub fn the_last_container_takes_the_directory_along(_: Who) {
    let first = Running::start(&[], &format!("{BEGIN}; {WAIT}"));
    let parent = first.groups[0].parent().unwrap().to_owned();
    assert!(parent.ends_with("container-workshop"), "{}", parent.display());
    assert_eq!(step02(&["true"]).status, Some(0));
    assert!(any_exists(&first.groups), "it was not the last one");
    first.end();
    // Other tests may be in it at this time, but not at all times.
    eventually("the directory is gone for a moment", || !parent.exists());
}
