//! What the program may do, as the options have it.

use std::fs;

use workshop::lab::Who;
use workshop::suite::read;

use crate::{final_, scratch, script, start, stop};

/// docker's fourteen, by their numbers (capabilities(7)).
const USUAL: u64 = 0xa804_25fb;

fn own_capabilities() -> u64 {
    let status = read("/proc/self/status");
    u64::from_str_radix(&status.split("CapPrm:\t").nth(1).unwrap()[..16], 16).unwrap()
}

pub fn capabilities_are_added_and_dropped(_: Who) {
    let own = own_capabilities();
    let last: u32 = read("/proc/sys/kernel/cap_last_cap").parse().unwrap();
    let all = if own == 0 { (2 << last) - 1 } else { own };
    let (chown, net_admin, net_raw) = (1 << 0, 1 << 12, 1 << 13);
    for (options, expected) in [
        (&["--cap-add", "NET_ADMIN"][..], USUAL | net_admin),
        (&["--cap-drop", "cap_net_raw", "--cap-drop", "CHOWN"], USUAL & !net_raw & !chown),
        (&["--cap-drop", "all"], 0),
        (&["--cap-drop", "ALL", "--cap-add", "CAP_CHOWN"], chown),
        (&["--cap-add", "all", "--cap-drop", "chown"], all & !chown),
        (&["--privileged", "--cap-drop", "chown"], all & !chown),
        // What is added stays.
        (&["--cap-drop", "chown", "--cap-add", "chown"], USUAL),
    ] {
        let seen = script(options, "grep -E 'Cap(Prm|Eff|Bnd)' /proc/self/status | cut -f2").stdout;
        assert_eq!(seen, format!("{expected:016x}\n").repeat(3), "{options:?}");
    }
    // The filter of system calls lets through what the capability is for.
    let mount = "mount -t tmpfs none /mnt && echo mounted";
    assert_eq!(script(&["--cap-add", "SYS_ADMIN"], mount).stdout, "mounted\n");
    let unfiltered = ["--security-opt", "seccomp=unconfined"];
    for options in [&[][..], &unfiltered, &["--cap-add", "NET_ADMIN"]] {
        let refused = script(options, mount);
        assert!(refused.status != Some(0) && refused.stdout.is_empty(), "{refused:?}");
    }
}

pub fn exec_has_what_the_container_has(_: Who) {
    let options = ["--cap-drop", "ALL", "--cap-add", "KILL", "--ulimit", "nofile=77:88"];
    let unlike = ["--security-opt", "no-new-privileges=false"];
    let runtime = start("box", &[&options[..], &unlike].concat(), &["sleep", "1000"]);
    let look = "grep -E '^(Cap|NoNew|Seccomp)' /proc/$0/status; grep files /proc/$0/limits";
    let of = |pid: &str| final_(&["exec", "box", "sh", "-c", look, pid]).stdout;
    assert_eq!(of("self"), of("1"));
    for part in ["CapEff:\t0000000000000020\n", "NoNewPrivs:\t0\n", "Seccomp:\t2\n", " 77 "] {
        assert!(of("1").contains(part), "{part} is not in {}", of("1"));
    }
    stop("box", runtime);
}

pub fn a_set_user_id_program_gains_only_if_it_may(_: Who) {
    let gain = "cp /usr/bin/id /usr/local/bin/as-root && chmod u+s /usr/local/bin/as-root && \
                setpriv --reuid 1000 --clear-groups /usr/local/bin/as-root -u; \
                grep -E 'NoNew|Seccomp:' /proc/self/status | cut -f2";
    assert_eq!(script(&[], gain).stdout, "1000\n1\n2\n");
    for option in ["no-new-privileges", "no-new-privileges:true"] {
        assert_eq!(script(&["--security-opt", option], gain).stdout, "1000\n1\n2\n");
    }
    let may = ["--security-opt", "no-new-privileges=false"];
    assert_eq!(script(&may, gain).stdout, "0\n0\n2\n");
}

pub fn a_profile_from_a_file_filters_system_calls(_: Who) {
    let file = format!("{}/profile.json", scratch());
    let option = format!("seccomp={file}");
    let seen = |profile: &str, options: &[&str], text: &str| {
        fs::write(&file, profile).unwrap();
        script(&[&["--security-opt", &option], options].concat(), text)
    };
    let mkdir = "mkdir /tmp/x; grep Seccomp: /proc/self/status | cut -f2";
    let calls = r#"{"names": ["mkdir", "mkdirat", "no_such_call"], "action": "SCMP_ACT_ERRNO", "errnoRet": 28}"#;
    let forbidden = format!(r#"{{"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{calls}]}}"#);
    let full = seen(&forbidden, &[], mkdir);
    assert!(full.stderr.contains("No space left") && full.stdout == "2\n", "{full:?}");
    // docker's form: a rule for those who have a capability, or have it not.
    for (key, adds, works) in [
        ("includes", true, false),
        ("includes", false, true),
        ("excludes", true, true),
        ("excludes", false, false),
    ] {
        let calls = calls.replace('}', &format!(r#", "{key}": {{"caps": ["CAP_NET_ADMIN"]}}}}"#));
        let profile = format!(
            r#"{{"defaultAction": "SCMP_ACT_ALLOW", "archMap": null, "syscalls": [{calls}]}}"#
        );
        let options = if adds { &["--cap-add", "NET_ADMIN"][..] } else { &[] };
        let made = seen(&profile, options, "mkdir /tmp/x && echo made");
        assert_eq!(made.stdout == "made\n", works, "{key} {adds}: {made:?}");
    }
    // An action that is the default's changes nothing: it must not allow the call.
    let same = r#"{"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [
        {"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ALLOW"},
        {"names": ["umask"], "action": "SCMP_ACT_KILL_PROCESS"}]}"#;
    let killed = seen(same, &[], "mkdir /tmp/x && echo made; (umask 0; echo masked); echo $?");
    assert!(killed.stdout.starts_with("made\n159\n"), "{killed:?}");
    let open = script(&["--security-opt", "seccomp=unconfined"], "grep Seccomp: /proc/self/status");
    assert_eq!(open.stdout, "Seccomp:\t0\n");
    for (profile, named) in [
        ("", "EOF"),
        (r#"{"defaultAction": "SCMP_ACT_ALLOW", "nonsense": 1}"#, "nonsense"),
        (r#"{"defaultAction": "SCMP_ACT_NOTIFY"}"#, "Notify is not supported"),
        (r#"{"defaultAction": "SCMP_ACT_ALLOW", "flags": ["SECCOMP_FILTER_FLAG_LOG"]}"#, "flags"),
        (r#"{"defaultAction": "SCMP_ACT_ALLOW", "listenerPath": "/x"}"#, "listener"),
        (r#"{"defaultAction": "SCMP_ACT_ALLOW", "architectures": ["SCMP_ARCH_S390"]}"#, "S390"),
    ] {
        let refused = seen(profile, &[], "true");
        assert_eq!(refused.status, Some(125), "{refused:?}");
        let both = refused.stderr.contains("profile.json") && refused.stderr.contains(named);
        assert!(both, "{named}: {refused:?}");
    }
    fs::remove_file(file).unwrap();
}

pub fn each_process_has_its_limits(who: Who) {
    let options = ["--ulimit", "nofile=100:200", "--ulimit", "core=0", "--ulimit", "cpu=-1"];
    let options =
        [&options[..], &["--ulimit", "fsize=4096:8192", "--oom-score-adj", "500"]].concat();
    let look = "cat /proc/self/limits /proc/self/oom_score_adj; head -c 5000 /dev/zero > /tmp/x";
    let seen = script(&options, look);
    for line in [
        "Max open files 100 200 files",
        "Max core file size 0 0 bytes",
        "Max cpu time unlimited unlimited seconds",
        "Max file size 4096 8192 bytes",
        "500",
    ] {
        let words = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
        assert!(seen.stdout.lines().any(|shown| words(shown) == line), "{line}: {seen:?}");
    }
    assert_eq!(seen.status, Some(153), "SIGXFSZ: {seen:?}");
    // A hard limit is for root to raise; a score for root to lower.
    let hard =
        nix::sys::resource::getrlimit(nix::sys::resource::Resource::RLIMIT_NOFILE).unwrap().1;
    for (flag, value, named) in [
        ("--ulimit", format!("nofile=10:{}", hard + 1), "RLIMIT_NOFILE"),
        ("--oom-score-adj", "-1000".to_owned(), "--oom-score-adj -1000"),
    ] {
        let ended = script(&[flag, &value], "true");
        let sys_resource = 1 << 24; // the machine's root may lack it, say in a container
        if who == Who::Root && own_capabilities() & sys_resource != 0 {
            assert_eq!(ended.status, Some(0), "{ended:?}");
        } else {
            assert_eq!(ended.status, Some(125), "{ended:?}");
            assert!(ended.stderr.contains(named) && ended.stderr.contains("root"), "{ended:?}");
        }
    }
}

pub fn the_paths_of_the_system_can_be_opened(_: Who) {
    let hidden = "grep -cE ' /proc/(kcore|sys|irq|keys) ' /proc/mounts";
    assert_ne!(script(&[], hidden).stdout, "0\n");
    let open = script(&["--security-opt", "systempaths=unconfined"], hidden);
    assert_eq!(open.stdout, "0\n", "{open:?}");
}
