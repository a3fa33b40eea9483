//! Who the program is.

use std::fs;

use workshop::lab::Who;
use workshop::suite::eventually;

use crate::{final_, scratch, script, start, stop};

/// Who it is, and what it may do, as /proc/self/status says it. `CapBnd` is docker's default.
const WHO: &str = "grep -E '^(Uid|Gid|Groups|Cap(Inh|Prm|Eff|Amb))' /proc/self/status | tr '\\t\\n' ' ;'; echo $HOME";
const NO_CAPABILITIES: &str = "CapInh: 0000000000000000;CapPrm: 0000000000000000;\
                               CapEff: 0000000000000000;CapAmb: 0000000000000000;";

/// What [`WHO`] says of a user who is not root.
fn plain(uid: u32, gid: u32, groups: &str, home: &str) -> String {
    format!(
        "Uid: {uid} {uid} {uid} {uid};Gid: {gid} {gid} {gid} {gid};Groups: {groups} ;\
         {NO_CAPABILITIES}{home}\n"
    )
}

pub fn the_user_is_looked_up_in_the_container(_: Who) {
    let scratch = scratch();
    fs::write(format!("{scratch}/passwd"), "root:x:0:0::/root:\nada:x:2000:2001::/home/ada:\n")
        .unwrap();
    fs::write(format!("{scratch}/group"), "root:x:0:\nada:x:2001:\naudio:x:2029:ada\n").unwrap();
    let files = ["passwd", "group"].map(|file| format!("{scratch}/{file}:/etc/{file}:ro"));
    let who = |options: &[&str]| {
        let seen = script(&[&["-v", &files[0], "-v", &files[1]], options].concat(), WHO);
        assert_eq!(seen.status, Some(0), "{seen:?}");
        seen.stdout
    };
    let ada = plain(2000, 2001, "2001 2029", "/home/ada");
    assert_eq!(who(&["--user", "ada"]), ada);
    assert_eq!(who(&["-u", "2000"]), ada);
    assert_eq!(who(&["-u", "ada:audio"]), plain(2000, 2029, "2029", "/home/ada"));
    assert_eq!(who(&["-u", "ada:7", "-e", "HOME=/x"]), plain(2000, 7, "7", "/x"));
    assert_eq!(who(&["-u", "4711"]), plain(4711, 0, "0", "/"));
    let more = ["-u", "4711", "--group-add", "audio", "--group-add", "9"];
    assert_eq!(who(&more), plain(4711, 0, "0 9 2029", "/"));
    // The host's nobody is no user of this container's, and neither is what is no regular file.
    for (options, named) in [
        (&["-u", "nobody"][..], "no user nobody in /etc/passwd of the container"),
        (&["-u", "ada:nobody"], "no group nobody in /etc/group"),
        (&["--group-add", "nobody"], "no group nobody in /etc/group"),
        (&["-u", "ada", "-v", "/dev/zero:/etc/group"], "/etc/group"),
    ] {
        let volumes = ["-v", &files[0], "-v", &files[1]];
        let volumes = if options.len() > 3 { &volumes[..2] } else { &volumes };
        let refused = script(&[volumes, options].concat(), "true");
        assert_eq!(refused.status, Some(125), "{options:?}: {refused:?}");
        assert!(refused.stderr.contains(named), "{options:?}: {refused:?}");
    }
    for file in ["passwd", "group"] {
        fs::remove_file(format!("{scratch}/{file}")).unwrap();
    }
}

pub fn another_user_may_do_less(_: Who) {
    let user = ["-u", "nobody"];
    for forbidden in ["cat /etc/shadow-", "touch /etc/x", "chown nobody /etc", "ls /root"] {
        let tried = script(&[&user[..], &["-v", "/etc:/hosts:ro"]].concat(), forbidden);
        assert!(tried.status.is_some_and(|status| status != 0), "{forbidden}: {tried:?}");
    }
    // What it has open it can open again: a pipe, and its terminal.
    let own = script(&user, "echo out > /dev/stdout; echo err > /dev/stderr");
    assert_eq!((own.status, own.stdout.as_str()), (Some(0), "out\n"), "{own:?}");
    let own = script(&["-u", "nobody", "-t"], "echo out > $(tty); stat -c %u $(tty)");
    assert_eq!((own.status, own.stdout.as_str()), (Some(0), "out\r\n65534\r\n"), "{own:?}");
}

pub fn exec_is_the_containers_user_or_another(_: Who) {
    let runtime = start("box", &["-u", "nobody", "--group-add", "tty"], &["sleep", "1000"]);
    let who =
        |options: &[&str]| final_(&[&["exec"], options, &["box", "sh", "-c", WHO]].concat()).stdout;
    assert_eq!(who(&[]), plain(65534, 65534, "5 65534", "/"));
    assert_eq!(who(&["-u", "12:13"]), plain(12, 13, "5 13", "/"));
    assert!(who(&["-u", "root"]).contains("CapEff: 00000000a80425fb;"));
    let refused = final_(&["exec", "-u", "ada", "box", "true"]);
    assert_eq!(refused.status, Some(125), "{refused:?}");
    assert!(refused.stderr.contains("no user ada in /etc/passwd of the container"), "{refused:?}");
    stop("box", runtime);
}

pub fn exec_can_have_all_capabilities(_: Who) {
    let runtime = start("box", &[], &["sleep", "1000"]);
    let effective = |options: &[&str], pid: &str| {
        let status = format!("/proc/{pid}/status");
        let words = ["box", "grep", "CapEff", &status];
        final_(&[&["exec"], options, &words].concat()).stdout
    };
    let privileged = script(&["--privileged"], "grep CapEff /proc/self/status").stdout;
    assert_eq!(effective(&["--privileged"], "self"), privileged);
    assert_eq!(effective(&["--privileged"], "1"), "CapEff:\t00000000a80425fb\n");
    stop("box", runtime);
}

/// The kernel forgets PR_SET_PDEATHSIG with a change of user.
pub fn another_user_dies_with_the_monitor(_: Who) {
    let runtime = start("orphan", &["-u", "nobody"], &["sleep", "123454321"]);
    let runs = || {
        let all = fs::read_dir("/proc")
            .unwrap()
            .filter_map(|entry| fs::read_to_string(entry.ok()?.path().join("cmdline")).ok());
        all.into_iter().any(|line| line == "sleep\x00123454321\x00")
    };
    assert!(runs());
    crate::kill_monitor("orphan");
    workshop::suite::finish(runtime, std::time::Duration::from_secs(60));
    eventually("it has ended", || !runs());
    assert_eq!(final_(&["gc"]).status, Some(0));
}

/// With one id there is one user.
pub fn where_there_is_one_id_another_is_refused(_: Who) {
    assert_eq!(script(&["-u", "0:0"], "id -u").stdout, "0\n");
    for options in [&["-u", "1000"][..], &["-u", "0:5"], &["--group-add", "tty"]] {
        let refused = script(options, "true");
        assert_eq!(refused.status, Some(125), "{options:?}: {refused:?}");
        assert!(refused.stderr.contains("/etc/subuid"), "{options:?}: {refused:?}");
    }
}
