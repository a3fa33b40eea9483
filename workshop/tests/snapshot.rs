//! The lab's own look at what is left: for each kind of thing, that it is missed if it is left.

use std::cell::Cell;
use std::fs::{self, File};
use std::net::Ipv4Addr;
use std::os::unix::fs::MetadataExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode};
use std::ptr::null_mut;
use std::time::Duration;

use nix::mount::{MsFlags, mount, umount};
use nix::sched::{CloneFlags, unshare};
use nix::unistd::sethostname;
use step04_bridge_veth::Rtnetlink;
use step05_nat::nftables::{
    self, Hook, Kind, Nftables, add_chain, add_rule, add_table, delete_table,
};
use workshop::lab::{self, Who};
use workshop::snapshot::{Snapshot, cgroup_trees};
use workshop::suite::{Test, run, suite, this_program};
use workshop::test;
use workshop::wire::Wire;

static TESTS: &[Test] = &[
    test!(links_addresses_and_routes_are_missed, [Root, LabRoot]),
    test!(tables_chains_and_rules_are_missed, [Root, LabRoot]),
    test!(switches_and_names_are_missed, [Root, LabRoot]),
    test!(mounts_of_any_namespace_are_missed, [Root, LabRoot]),
    test!(processes_are_missed, [Root, LabRoot, Plain]),
    test!(files_are_missed, [Root, LabRoot, Plain]),
    test!(system_v_objects_are_missed, [Root, LabRoot, Plain]),
    test!(stale_cgroups_are_missed, [Root]),
    test!(the_lab_fails_if_something_is_left, [Root, LabRoot, Plain]),
];

/// With this word our program is a lab whose test leaves a file behind.
const LEAVES_A_FILE: &str = "leave-a-file";

fn main() -> ExitCode {
    if std::env::args().nth(1).as_deref() != Some(LEAVES_A_FILE) {
        return suite(TESTS);
    }
    let ended = lab::run(Who::of_caller(), true, || {
        let left = PathBuf::from(std::env::var_os("XDG_RUNTIME_DIR").unwrap()).join("left");
        fs::write(left, "").map_or(1, |()| 0)
    });
    match ended {
        Ok(status) if status.success() => ExitCode::SUCCESS,
        _ => ExitCode::FAILURE,
    }
}

/// Makes something, looks, and takes it away again: the snapshot has to name it, and only then.
fn is_missed(names: &[&str], leave: impl FnOnce(), take_away: impl FnOnce()) {
    let before = Snapshot::take(&[]).unwrap();
    leave();
    let difference = before.difference(&Snapshot::take(&[]).unwrap());
    for name in names {
        let named = difference.iter().any(|line| line.starts_with('+') && line.contains(name));
        assert!(named, "{name} is not in {difference:#?}");
    }
    take_away();
    before.ensure_restored(&[]).unwrap();
}

fn links_addresses_and_routes_are_missed(_: Who) {
    let wire = Wire::open().unwrap();
    is_missed(
        &[
            "link left0",
            "left0/mtu",
            "address 192.0.2.1/24 on left0",
            "route 192.0.2.0/24 on left0",
        ],
        || {
            wire.add_bridge("left0").unwrap();
            wire.add_address("left0", Ipv4Addr::new(192, 0, 2, 1), 24).unwrap();
            wire.set_up("left0").unwrap();
        },
        || Rtnetlink::open().unwrap().delete("left0").unwrap(),
    );
}

fn tables_chains_and_rules_are_missed(_: Who) {
    let commit = |changes| Nftables::open().unwrap().commit(changes).unwrap();
    let remove = || commit(vec![delete_table("left")]);
    is_missed(&["table left"], || commit(vec![add_table("left", "")]), remove);
    commit(vec![add_table("left", "")]);
    let chain = || add_chain("left", "guard", Hook::Forward, Kind::Filter);
    let rule = || add_rule("left", "guard", &nftables::drop(), "");
    let before = Snapshot::take(&[]).unwrap();
    commit(vec![chain(), rule()]);
    let difference = before.difference(&Snapshot::take(&[]).unwrap()).join("\n");
    assert!(difference.contains("+ chain left guard"), "{difference}");
    assert!(difference.contains("+ rule left guard"), "{difference}");
    remove();
}

fn switches_and_names_are_missed(_: Who) {
    for path in ["ip_forward", "conf/lo/route_localnet", "conf/lo/forwarding"] {
        let path = Path::new("/proc/sys/net/ipv4").join(path);
        let set = |value| fs::write(&path, value).unwrap();
        is_missed(&[&format!("{} = 1", path.display())], || set("1"), || set("0"));
    }
    is_missed(&["host name left"], || sethostname("left").unwrap(), || sethostname("lab").unwrap());
}

fn mounts_of_any_namespace_are_missed(_: Who) {
    let mount = || mount(Some("left"), "/tmp", Some("tmpfs"), MsFlags::empty(), None::<&str>);
    is_missed(&["- tmpfs left"], || mount().unwrap(), || umount("/tmp").unwrap());

    let child = Cell::new(None);
    let leave = || {
        let mut sleep = Command::new("sleep");
        // SAFETY: unshare(2) and mount(2) may be called between fork and exec (signal-safety(7)).
        unsafe {
            sleep.arg("1000").pre_exec(move || {
                unshare(CloneFlags::CLONE_NEWNS)?;
                Ok(mount()?)
            })
        };
        child.set(Some(sleep.spawn().unwrap()));
    };
    is_missed(&["- tmpfs left"], leave, || end(child.take()));
}

fn processes_are_missed(_: Who) {
    let child = Cell::new(None);
    let leave = || child.set(Some(Command::new("sleep").arg("1000").spawn().unwrap()));
    is_missed(&["process"], leave, || end(child.take()));
}

fn end(child: Option<Child>) {
    let mut child = child.unwrap();
    child.kill().unwrap();
    child.wait().unwrap();
}

fn files_are_missed(_: Who) {
    let run = PathBuf::from(std::env::var("XDG_RUNTIME_DIR").unwrap());
    let state = run.join("container-workshop");
    for path in [
        run.join("left"),
        state.join("containers/0123"),
        state.join("net-1-workshop0"),
        state.join("images/host-1-2.3.4"), // half done
        PathBuf::from("/tmp/container-workshop-9/container-workshop/containers/0123"),
    ] {
        let remove = || {
            fs::remove_dir_all(&path).unwrap();
            let _ = fs::remove_dir_all("/tmp/container-workshop-9");
        };
        let name = format!("file {}", path.display());
        is_missed(&[&name], || fs::create_dir_all(&path).unwrap(), remove);
    }
    // Images are meant to stay.
    let image = state.join("images/host-1-2.3/etc");
    is_missed(&[], || fs::create_dir_all(&image).unwrap(), || ());
    fs::remove_dir_all(state.join("images")).unwrap();
}

fn system_v_objects_are_missed(_: Who) {
    let id = Cell::new(0);
    // SAFETY: takes numbers only.
    let make = || id.set(unsafe { libc::shmget(libc::IPC_PRIVATE, 4096, 0o600) });
    // SAFETY: this command takes no buffer.
    let remove = || assert_eq!(unsafe { libc::shmctl(id.get(), libc::IPC_RMID, null_mut()) }, 0);
    is_missed(&["System V shm"], make, remove);
}

fn stale_cgroups_are_missed(_: Who) {
    let trees = cgroup_trees().unwrap();
    let tree = trees.iter().find(|tree| tree.exists()).expect("a mounted tree");
    let lab = fs::metadata("/proc/self/ns/pid").unwrap().ino(); // the tree is the machine's
    let group = tree.join(format!("container-workshop-left-{lab}"));
    let name = format!("cgroup {}", group.display());
    // The cgroup trees are the machine's, and who sweeps in another lab may be faster.
    let lock = Cell::new(None);
    let make = || {
        fs::create_dir(&group).unwrap();
        let held = File::open(&group).unwrap();
        held.lock().unwrap();
        lock.set(Some(held));
    };
    is_missed(&[], make, || ()); // that one is somebody's
    is_missed(&[&name], || drop(lock.take()), || fs::remove_dir(&group).unwrap());
}

fn the_lab_fails_if_something_is_left(_: Who) {
    let mut lab = Command::new(this_program());
    let outcome = run(lab.arg(LEAVES_A_FILE), Duration::from_secs(60));
    assert_ne!(outcome.status, Some(0), "{outcome:?}");
    assert!(outcome.stderr.contains("\n  + file /run/user/"), "{outcome:?}");
}
