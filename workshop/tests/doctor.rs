//! The doctor against the real kernel: it says what is true, and changes nothing.

use std::fs;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::Duration;

use nix::errno::Errno;
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use nix::sys::prctl;
use nix::sys::resource::{Resource, setrlimit};
use nix::unistd::{Uid, chown, setuid};
use workshop::doctor::checks::CHECKS;
use workshop::lab::Who;
use workshop::nft::{self, Base};
use workshop::suite::{Outcome, Test, command, read, run, suite};
use workshop::test;
use workshop::wire::Wire;

const PROGRAM: &str = env!("CARGO_BIN_EXE_workshop");

static TESTS: &[Test] = &[
    test!(the_report_has_a_line_for_each_check, [Root, LabRoot, Plain]),
    test!(one_check_is_shown_in_detail, [Root, Plain]),
    test!(what_is_no_check_is_refused, [Root]),
    test!(a_reader_who_goes_away_is_no_error, [Root]),
    test!(user_namespaces_switched_off_stop_a_plain_user, [LabRoot]),
    test!(user_namespaces_switched_off_are_a_hint_for_root, [LabRoot]),
    test!(namespaces_that_ran_out_are_named, [LabRoot]),
    test!(a_low_limit_of_processes_is_named, [Plain]),
    test!(a_system_call_hidden_by_seccomp_is_named, [Root, LabRoot, Plain]),
    test!(a_root_without_its_capability_is_in_a_container, [Root]),
    test!(a_container_is_known_by_its_marks, [Root, LabRoot]),
    test!(a_masked_proc_is_named, [LabRoot]),
    test!(cgroups_are_roots_or_delegated, [Root, LabRoot, Plain], Limits),
    test!(an_undelegated_user_is_told_how_to_get_one, [LabRoot, Plain], NoLimits),
    test!(a_delegated_cgroup_is_enough, [Root]),
    test!(tmp_without_exec_is_named, [Root, LabRoot]),
    test!(a_route_over_the_subnet_is_named, [Root, LabRoot]),
    test!(forwarding_is_as_it_is_and_so_is_who_set_it, [Root, LabRoot]),
    test!(a_foreign_chain_that_drops_is_named_with_the_fix, [Root, LabRoot]),
    test!(only_root_sees_the_firewall, [Plain]),
];

fn main() -> ExitCode {
    suite(TESTS)
}

fn doctor(words: &[&str]) -> Command {
    command(PROGRAM, &[&["doctor"], words].concat())
}

fn examine(words: &[&str]) -> Outcome {
    run(&mut doctor(words), Duration::from_secs(60))
}

/// What one check says: its word (ok, hint, stops, unseen), and all of it.
fn check(name: &str) -> (String, String) {
    result(name, &examine(&[name]))
}

fn result(name: &str, outcome: &Outcome) -> (String, String) {
    let text = &outcome.stdout;
    let word = text.strip_prefix("result").and_then(|text| text.split_whitespace().next());
    let word = word.unwrap_or_else(|| panic!("{name}: {outcome:?}")).to_owned();
    assert_eq!(outcome.status, Some(i32::from(word == "stops")), "{outcome:?}");
    (word, text.clone())
}

#[track_caller]
fn assert_says(name: &str, word: &str, texts: &[&str]) {
    assert_is(check(name), word, texts);
}

#[track_caller]
fn assert_is((found, text): (String, String), word: &str, texts: &[&str]) {
    assert_eq!(found, word, "{text}");
    for part in texts {
        assert!(text.contains(part), "{part:?}: {text}");
    }
}

fn the_report_has_a_line_for_each_check(who: Who) {
    let outcome = examine(&[]);
    let mut stopped = Vec::new();
    let mut lines = outcome.stdout.lines();
    for (check, line) in CHECKS.iter().zip(&mut lines) {
        let words: Vec<_> = line.split_whitespace().take(2).collect();
        assert_eq!(words[1], check.name, "{line}");
        match words[0] {
            "ok" | "unseen" => {}
            "hint" => assert!(line.contains("; fix: "), "{line}"),
            "stops" => {
                assert!(line.contains(check.needed_by) && line.contains("; fix: "), "{line}");
                stopped.push(check.name);
            }
            _ => panic!("{line}"),
        }
    }
    let last = lines.next().expect("a summary");
    assert_eq!(lines.next(), None);
    assert_eq!(outcome.status, Some(i32::from(!stopped.is_empty())), "{outcome:?}");
    assert!(outcome.stderr.is_empty(), "{outcome:?}");
    match stopped.first() {
        None => assert_eq!(last, "Nothing here stops the workshop."),
        Some(_) => assert!(last.contains(&stopped.join(", ")), "{last}"),
    }
    // We are in a lab, as this user, so these have to work.
    for name in ["kernel", "namespaces", "proc", "overlay", "overlay-userns", "lab"] {
        assert!(!stopped.contains(&name), "{who:?}: {}", outcome.stdout);
    }
    let left = fs::read_dir("/tmp")
        .unwrap()
        .filter_map(|entry| entry.unwrap().file_name().into_string().ok());
    let left: Vec<_> = left.filter(|name| name.starts_with("container-workshop-doctor")).collect();
    assert!(left.is_empty(), "{left:?}");
}

fn one_check_is_shown_in_detail(_: Who) {
    for check in CHECKS {
        let (_, text) = self::check(check.name);
        for part in [check.name, check.needed_by, check.tries] {
            assert!(text.contains(part), "{part}: {text}");
        }
    }
    let list = examine(&["--list"]).stdout;
    assert_eq!(list.lines().count(), CHECKS.len());
    let mut names = list.lines().map(|line| line.split_whitespace().next());
    assert!(CHECKS.iter().all(|check| names.next() == Some(Some(check.name))), "{list}");
}

fn what_is_no_check_is_refused(_: Who) {
    let outcome = examine(&["usernss"]);
    assert_eq!(outcome.status, Some(125), "{outcome:?}");
    assert!(
        outcome.stderr.contains("there is no check usernss; these are: kernel, "),
        "{outcome:?}"
    );
}

fn a_reader_who_goes_away_is_no_error(_: Who) {
    let outcome =
        run(doctor(&["--list"]).stdout(std::process::Stdio::piped()), Duration::from_secs(60));
    assert_eq!(outcome.status, Some(0));
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let output = doctor(&["--list"]).stdout(writer).output().unwrap();
    assert_eq!((output.status.code(), output.stderr), (Some(0), Vec::new()));
}

/// Moves this process, which has to have one thread, into a new user namespace, as this user.
fn enter_user_namespace(id: u32) {
    unshare(CloneFlags::CLONE_NEWUSER).unwrap();
    for map in ["uid_map", "gid_map"] {
        fs::write(format!("/proc/self/{map}"), format!("{id} 0 1")).unwrap();
    }
}

fn user_namespaces_switched_off_stop_a_plain_user(_: Who) {
    enter_user_namespace(1000);
    fs::write("/proc/sys/user/max_user_namespaces", "0").unwrap(); // this namespace's own
    let fix = "sudo sysctl -w user.max_user_namespaces=10000";
    assert_says("userns", "stops", &["user.max_user_namespaces=0", fix]);
    // What could not be tried for want of it is not said to be broken.
    for name in ["namespaces", "proc", "overlay", "overlay-userns", "veth", "bridge", "nf-tables"] {
        assert_says(name, "unseen", &["see the check userns"]);
    }
    let outcome = examine(&[]);
    assert_eq!(outcome.status, Some(1), "{outcome:?}");
    assert!(outcome.stdout.contains("\nStopped by: userns, "), "{outcome:?}");
}

fn user_namespaces_switched_off_are_a_hint_for_root(_: Who) {
    assert_says("userns", "ok", &[]);
    fs::write("/proc/sys/user/max_user_namespaces", "0").unwrap();
    assert_says("userns", "hint", &["user.max_user_namespaces=0", "or run as root"]);
    assert_says("overlay", "ok", &[]); // root of this lab needs no other
}

fn namespaces_that_ran_out_are_named(_: Who) {
    assert_says("limits", "ok", &[]);
    fs::write("/proc/sys/user/max_net_namespaces", "31").unwrap();
    assert_says("limits", "hint", &["user.max_net_namespaces=31", "sudo sysctl -w"]);
    fs::write("/proc/sys/user/max_net_namespaces", "0").unwrap();
    assert_says("namespaces", "stops", &["cannot make a net namespace: ENOSPC", "sudo sysctl -w"]);
}

fn a_low_limit_of_processes_is_named(_: Who) {
    let mut doctor = doctor(&["limits"]);
    // SAFETY: setrlimit(2) may be called between fork and exec.
    unsafe { doctor.pre_exec(|| Ok(setrlimit(Resource::RLIMIT_NPROC, 150, 150)?)) };
    let outcome = run(&mut doctor, Duration::from_secs(60));
    assert_is(
        result("limits", &outcome),
        "hint",
        &["ulimit -u 150 leaves", "/etc/security/limits.conf"],
    );
}

/// A seccomp filter that says ENOSYS to clone3, as Docker's did for a long time.
fn hide_clone3() -> nix::Result<()> {
    let step =
        |code: u32, jt, jf, k| libc::sock_filter { code: code.try_into().unwrap_or(0), jt, jf, k };
    let call = u32::try_from(libc::SYS_clone3).unwrap_or(0);
    let refusal = libc::SECCOMP_RET_ERRNO | libc::ENOSYS.unsigned_abs();
    let mut filter = [
        step(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0, 0), // the call's number
        step(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, 0, 1, call),
        step(libc::BPF_RET | libc::BPF_K, 0, 0, refusal),
        step(libc::BPF_RET | libc::BPF_K, 0, 0, libc::SECCOMP_RET_ALLOW),
    ];
    let program = libc::sock_fprog { len: 4, filter: filter.as_mut_ptr() };
    prctl::set_no_new_privs()?;
    let mode = libc::c_ulong::from(libc::SECCOMP_MODE_FILTER);
    // SAFETY: program and filter outlive the call, which copies them.
    Errno::result(unsafe { libc::prctl(libc::PR_SET_SECCOMP, mode, &raw const program) }).map(drop)
}

fn a_system_call_hidden_by_seccomp_is_named(_: Who) {
    assert_says("kernel", "ok", &[&format!("Linux {}", read("/proc/sys/kernel/osrelease"))]);
    let mut doctor = doctor(&["kernel"]);
    // SAFETY: prctl(2) may be called between fork and exec.
    unsafe { doctor.pre_exec(|| Ok(hide_clone3()?)) };
    let outcome = run(&mut doctor, Duration::from_secs(60));
    assert_is(
        result("kernel", &outcome),
        "stops",
        &["refuses clone3 (ENOSYS), needed from step 1 on", "lift the seccomp filter"],
    );
}

fn a_root_without_its_capability_is_in_a_container(_: Who) {
    for (name, text) in [
        ("container", "root here lacks CAP_SYS_ADMIN"),
        ("namespaces", "cannot make a mnt namespace: EPERM"),
    ] {
        assert_says(name, "ok", &[]);
        let mut doctor = doctor(&[name]);
        let drop = || {
            const SYS_ADMIN: libc::c_ulong = 21;
            // SAFETY: PR_CAPBSET_DROP takes a number and touches no memory of ours.
            Ok(Errno::result(unsafe { libc::prctl(libc::PR_CAPBSET_DROP, SYS_ADMIN) })
                .map(std::mem::drop)?)
        };
        // SAFETY: prctl(2) may be called between fork and exec.
        unsafe { doctor.pre_exec(drop) };
        let outcome = run(&mut doctor, Duration::from_secs(60));
        assert_is(result(name, &outcome), "stops", &[text]);
    }
}

fn a_container_is_known_by_its_marks(_: Who) {
    let mark = "/run/.containerenv";
    fs::write(mark, "").unwrap();
    assert_says("container", "ok", &["are here, but nothing is forbidden"]);
    unshare(CloneFlags::CLONE_NEWNS).unwrap();
    let none = None::<&str>;
    mount(Some("/dev/null"), "/proc/version", none, MsFlags::MS_BIND, none).unwrap();
    let mut doctor = doctor(&["container"]);
    // SAFETY: prctl(2) may be called between fork and exec.
    unsafe { doctor.pre_exec(|| Ok(hide_clone3()?)) };
    let outcome = run(&mut doctor, Duration::from_secs(60));
    let texts = &["this is inside", "a seccomp filter refuses", "parts of /proc are hidden"];
    assert_is(result("container", &outcome), "hint", texts);
    fs::remove_file(mark).unwrap();
}

fn a_masked_proc_is_named(_: Who) {
    unshare(CloneFlags::CLONE_NEWNS).unwrap();
    let none = None::<&str>;
    mount(Some("/dev/null"), "/proc/version", none, MsFlags::MS_BIND, none).unwrap();
    enter_user_namespace(0); // one that cannot take away what another one has mounted
    assert_says("proc", "stops", &["cannot mount a new proc: EPERM", "the whole of the old one"]);
}

fn version() -> &'static str {
    let v1 = read("/proc/self/cgroup").lines().any(|line| line.contains(":memory:"));
    if v1 { "version 1" } else { "version 2" }
}

fn cgroups_are_roots_or_delegated(_: Who) {
    assert_says("cgroup-delegation", "ok", &[version(), "limits work"]);
}

fn an_undelegated_user_is_told_how_to_get_one(_: Who) {
    let version = version();
    let why = if version == "version 1" {
        "limits take root of the machine here"
    } else {
        "not yours to write"
    };
    assert_says("cgroup-delegation", "stops", &[version, why]);
}

/// The cgroup trees with the controllers that matter, as directories: four, or one of version 2.
fn trees() -> Vec<PathBuf> {
    let top = Path::new("/sys/fs/cgroup");
    let v1 = ["memory", "cpu", "pids", "cpuset"].map(|name| top.join(name));
    if v1[0].is_dir() { v1.into() } else { vec![top.into()] }
}

/// Removed with the test, for they are the machine's.
struct Groups(Vec<PathBuf>);

impl Drop for Groups {
    fn drop(&mut self) {
        for group in &self.0 {
            fs::remove_dir(group).expect("an empty cgroup");
        }
    }
}

fn a_delegated_cgroup_is_enough(_: Who) {
    let name = format!("doctor-test-{}", std::process::id());
    let Groups(groups) = &Groups(trees().iter().map(|tree| tree.join(&name)).collect());
    for (tree, group) in trees().iter().zip(groups) {
        let enable = tree.join("cgroup.subtree_control");
        if enable.exists() {
            fs::write(enable, "+memory +cpu +pids +cpuset").unwrap();
        }
        fs::create_dir(group).unwrap();
        for file in ["cpuset.cpus", "cpuset.mems"] {
            if group.join(file).exists() && tree.join("tasks").exists() {
                fs::write(group.join(file), read(tree.join(file))).unwrap();
            }
        }
    }
    // Where user 1000 can reach it.
    let program = Path::new("/run/program");
    fs::copy(workshop::lab::program(PROGRAM), program).unwrap();
    let examine = |groups: &[PathBuf]| {
        let mut doctor = Command::new(program);
        let groups = groups.to_vec();
        let join =
            move || groups.iter().try_for_each(|group| fs::write(group.join("cgroup.procs"), "0"));
        // SAFETY: this process has one thread now, so its copy may run any code.
        unsafe { doctor.args(["doctor", "cgroup-delegation"]).pre_exec(join) };
        let become_user = || Ok(setuid(Uid::from_raw(1000))?);
        // SAFETY: setuid(2) may be called between fork and exec.
        unsafe { doctor.pre_exec(become_user) };
        result("cgroup-delegation", &run(&mut doctor, Duration::from_secs(60)))
    };
    assert_is(examine(groups), "stops", &[&name]);
    for group in groups {
        delegate(group);
    }
    if version() == "version 1" {
        assert_is(examine(groups), "ok", &["limits work"]);
    } else {
        assert_is(examine(groups), "stops", &["has processes", "mkdir"]);
        let leaf = Groups(vec![groups[0].join("leaf")]);
        fs::create_dir(&leaf.0[0]).unwrap();
        delegate(&leaf.0[0]);
        assert_is(examine(&leaf.0), "ok", &["limits work, below", &name]);
    }
    fs::remove_file(program).unwrap();
}

fn delegate(group: &Path) {
    for file in ["", "cgroup.procs", "cgroup.subtree_control"] {
        let path = group.join(file);
        if path.exists() {
            chown(&path, Some(Uid::from_raw(1000)), None).unwrap();
        }
    }
}

fn tmp_without_exec_is_named(_: Who) {
    assert_says("tmp", "ok", &[]);
    unshare(CloneFlags::CLONE_NEWNS).unwrap();
    let kind = Some("tmpfs");
    mount(kind, "/tmp", kind, MsFlags::MS_NOEXEC, None::<&str>).unwrap();
    fs::copy("/bin/true", "/tmp/true").unwrap();
    let error = Command::new("/tmp/true").status().unwrap_err();
    assert_eq!(error.raw_os_error(), Some(libc::EACCES)); // that is what noexec means
    assert_says("tmp", "hint", &["a program in /tmp cannot run: EPERM", "noexec", "TMPDIR"]);
}

fn a_route_over_the_subnet_is_named(_: Who) {
    unshare(CloneFlags::CLONE_NEWNET).unwrap();
    let wire = Wire::open().unwrap();
    let bridge = |name, address: [u8; 4], prefix| {
        wire.add_bridge(name).unwrap();
        wire.set_up(name).unwrap();
        wire.add_address(name, std::net::Ipv4Addr::from(address), prefix).unwrap();
    };
    bridge("workshop0", [10, 77, 0, 1], 24); // our own
    bridge("lan", [10, 77, 1, 1], 24);
    assert_says("subnet", "ok", &["no route shares an address with 10.77.0.0/24"]);
    bridge("vpn", [10, 64, 0, 1], 10);
    assert_says(
        "subnet",
        "stops",
        &["the route 10.64.0.0/10 on vpn shares", "--subnet 10.78.0.0/24"],
    );
}

fn forwarding_is_as_it_is_and_so_is_who_set_it(_: Who) {
    unshare(CloneFlags::CLONE_NEWNET).unwrap();
    let switch = |value| fs::write("/proc/sys/net/ipv4/ip_forward", value).unwrap();
    switch("0");
    assert_says("forwarding", "ok", &["off", "step 5 switches it on"]);
    switch("1");
    assert_says("forwarding", "ok", &["on", "step 5 leaves it on"]);
    Wire::open().unwrap().add_bridge("docker0").unwrap();
    fs::create_dir("/run/sysctl.d").unwrap();
    let file = "/run/sysctl.d/router.conf";
    fs::write(file, "# no: net.ipv4.ip_forward = 0\nnet/ipv4/ip_forward = 1\n").unwrap();
    assert_says("forwarding", "ok", &["on, by ", file, "Docker, it seems"]);
    switch("0");
    let (_, text) = check("forwarding");
    assert!(!text.contains(file) && !text.contains("Docker"), "{text}");
    fs::remove_dir_all("/run/sysctl.d").unwrap();
}

fn a_foreign_chain_that_drops_is_named_with_the_fix(_: Who) {
    unshare(CloneFlags::CLONE_NEWNET).unwrap();
    let base = |hook, drops| Some(Base { kind: "filter", hook, priority: 0, drops });
    nft::add_chain("filter", "INPUT", base(1, true)).unwrap();
    nft::add_chain("theirs", "forward", base(2, false)).unwrap();
    assert_says("firewall", "ok", &["no chain drops what is forwarded"]);
    nft::add_chain("filter", "FORWARD", base(2, true)).unwrap();
    let fix = "sudo iptables -I FORWARD -i workshop0 -j ACCEPT; sudo iptables -I FORWARD -o";
    assert_says("firewall", "stops", &["the chain ip filter FORWARD drops", fix]);
    nft::add_chain("filter", "DOCKER-USER", None).unwrap();
    assert_says("firewall", "stops", &["sudo iptables -I DOCKER-USER -i workshop0 -j ACCEPT"]);
    let bridges = fs::read_to_string("/proc/sys/net/bridge/bridge-nf-call-iptables");
    let word = if bridges.is_ok_and(|value| value.trim() == "1") { "hint" } else { "ok" };
    assert_says("bridge-netfilter", word, &[]);
}

fn only_root_sees_the_firewall(_: Who) {
    assert_says("firewall", "unseen", &["only root may look", "doctor firewall"]);
}
