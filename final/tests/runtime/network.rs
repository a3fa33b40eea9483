//! A container's network, from inside and from outside.

use std::collections::BTreeSet;
use std::thread::scope;

use workshop::internet::{SECOND_HOST, SERVER, UPLINK};
use workshop::lab::Who;
use workshop::suite::{eventually, get, read};
use workshop::wire::Wire;

use crate::{final_, probe_volume, script, start, stop};

pub fn the_internet_sees_the_hosts_address(_: Who) {
    let (volume, server) = (probe_volume(), format!("{SERVER}:80"));
    let asked = final_(&["run", "--rm", "-v", &volume, "host", "/probe", "@get", &server]);
    assert!(asked.stdout.trim().ends_with(&UPLINK.to_string()), "{asked:?}");
}

pub fn a_published_port_is_reached_from_everywhere(_: Who) {
    let volume = probe_volume();
    let options = ["-v", &volume, "-p", "8080:80", "--ip", "10.77.0.9"];
    let runtime = start("web", &options, &["/probe", "@serve", "0.0.0.0:80"]);
    eventually("it serves", || get("10.77.0.9:80", "/").contains("hello"));

    let from_outside = get(&format!("{SERVER}:80"), &format!("/tcp/{UPLINK}/8080"));
    assert!(from_outside.contains(&format!("hello {SECOND_HOST}")), "{from_outside}");
    for address in [UPLINK.to_string(), "127.0.0.1".to_owned(), "10.77.0.1".to_owned()] {
        let answer = get(&format!("{address}:8080"), "/");
        assert!(answer.contains("hello"), "{address}: {answer}");
    }
    let ps = final_(&["ps"]).stdout;
    assert!(ps.contains("0.0.0.0:8080->80/tcp"), "{ps}");
    let second = script(&["-p", "8080:81"], "true");
    assert_eq!(second.status, Some(125), "{second:?}");
    assert!(second.stderr.contains("8080/tcp is already in use"), "{second:?}");
    stop("web", runtime);
    assert!(get(&format!("{UPLINK}:8080"), "/").starts_with("error"));
}

pub fn host_and_none_are_what_they_say(_: Who) {
    let interfaces = |net: &str| {
        let shown = script(&["--net", net], "tail -n +3 /proc/net/dev | cut -d: -f1").stdout;
        shown.split_whitespace().map(str::to_owned).collect::<BTreeSet<_>>()
    };
    assert_eq!(interfaces("host"), BTreeSet::from(["lo".to_owned(), "uplink".to_owned()]));
    assert_eq!(interfaces("none"), BTreeSet::from(["lo".to_owned()]));
}

pub fn eight_at_once_share_a_bridge(_: Who) {
    let run = || script(&[], "tail -n 1 /etc/hosts");
    // A few times: they also leave at once, and none may leave the clean-up to the others.
    for _ in 0..4 {
        let outcomes: Vec<_> = scope(|scope| {
            let threads: Vec<_> = (0..8).map(|_| scope.spawn(run)).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        for outcome in &outcomes {
            assert_eq!(outcome.status, Some(0), "{outcome:?}");
            assert!(outcome.stdout.starts_with("10.77.0."), "{outcome:?}");
        }
        let links = Wire::open().and_then(|wire| wire.links()).unwrap();
        assert!(!links.contains(&"workshop0".to_owned()), "{links:?}");
        assert_eq!(read("/proc/sys/net/ipv4/ip_forward"), "0");
    }
}

pub fn a_plain_user_has_no_bridge(_: Who) {
    let refused = script(&["--net", "bridge"], "true");
    assert_eq!(refused.status, Some(125), "{refused:?}");
    assert!(refused.stderr.contains("needs root"), "{refused:?}");
    // Without being told, it runs and says in one line what differs.
    let ran = script(&[], "true");
    assert_eq!((ran.status, ran.stderr.lines().count()), (Some(0), 1), "{ran:?}");
    assert!(ran.stderr.contains("rootless"), "{ran:?}");
}
