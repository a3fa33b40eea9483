//! By what is copied out of a container.

use std::fs;
use std::path::Path;

use workshop::lab::Who;

use crate::{Host, SECRET, final_, start};

/// CVE-2018-15664: a link of the container's is followed by somebody outside. The kernel takes an absolute
/// one from the root of who follows it, so `/proc/PID/root` is no wall, and no look beforehand helps, as
/// the link may be new by the time of its use.
///
/// In ours only a process follows it whose root is the container's, and that hands over an archive:
/// `Inside` in copy/inside.rs. It loads nothing and executes nothing from there (CVE-2019-14271).
pub fn through_a_link_that_is_copied(_: Who) {
    let host = Host::new();
    let _box = start(&[], "host");
    let shown = final_(&["inspect", "--format", "{{.State.Pid}}", "box"]).stdout;
    let root = format!("/proc/{}/root", shown.trim());
    for (target, beyond) in [(host.secret(), ""), (host.path(""), "/secret")] {
        let made = final_(&["exec", "box", "ln", "-sfn", &target, "/loot"]);
        assert_eq!(made.status, Some(0), "{made:?}");
        let loot = format!("/loot{beyond}");
        let followed = fs::read_to_string(format!("{root}{loot}"));
        assert_eq!(followed.unwrap(), SECRET, "the attack is broken");
        for follow in [&[][..], &["--follow-link"]] {
            let out = host.path("out");
            let source = format!("box:{loot}");
            let copied = final_(&[&["cp"], follow, &[&source, &out]].concat());
            // The link alone is a link, and nothing of what is behind it.
            let is_link = follow.is_empty() && beyond.is_empty();
            assert_eq!(copied.status, Some(i32::from(!is_link)), "{copied:?}");
            assert!(is_link || copied.stderr.contains("No such file"), "{copied:?}");
            assert_eq!(Path::new(&out).is_symlink(), is_link);
            let _ = fs::remove_file(out);
        }
        let new = host.path("new");
        fs::write(&new, "of the caller").unwrap();
        let copied = final_(&["cp", &new, &format!("box:{loot}")]);
        assert!(copied.status == Some(1), "{copied:?}");
        assert_eq!(fs::read_to_string(host.secret()).unwrap(), SECRET);
    }
}
