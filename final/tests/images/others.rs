//! Other people's tools: what they say to what we write, and we to what they write.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use serde_json::{Value, json};
use tar::EntryType;
use workshop::lab::Who;
use workshop::suite::run;

use crate::made::{Layer, docker_archive, gzip};
use crate::{Scratch, done, images, script};

/// What one of these programs prints.
pub fn tool(scratch: &Scratch, words: &[&str]) -> String {
    let mut tool = Command::new(words[0]);
    tool.args(&words[1..])
        .current_dir(&scratch.0)
        .env("TMPDIR", &scratch.0)
        .env("HOME", &scratch.0)
        // Or skopeo keeps notes for root in /var/lib/containers/cache, and all tests and machines share them.
        .env("_CONTAINERS_ROOTLESS_UID", "1000");
    let outcome = run(&mut tool, Duration::from_secs(100));
    assert_eq!(outcome.status, Some(0), "{words:?}: {outcome:?}");
    outcome.stdout
}

pub fn skopeo(scratch: &Scratch, words: &[&str]) -> String {
    let place = scratch.path("");
    tool(scratch, &[&["skopeo", "--insecure-policy", "--tmpdir", &place], words].concat())
}

fn load_ours(scratch: &Scratch, name: &str) -> String {
    let layers =
        [Layer::base().file("one", "1\n").bytes(), Layer::new().file("two", "2\n").bytes()];
    let config =
        json!({ "Cmd": ["cat", "/one", "/two"], "Env": ["A=b"], "ExposedPorts": { "80/tcp": {} } });
    done(&["load", "-i", &scratch.write("ours", gzip(&docker_archive(name, &config, &layers)))]);
    done(&["images", "-q", "--no-trunc", name]).trim().to_owned()
}

pub fn skopeo_reads_what_we_write(_: Who) {
    let scratch = Scratch::new();
    let id = load_ours(&scratch, "web:1");
    done(&["tag", "web:1", "web:2"]);
    done(&["save", "-o", &scratch.path("saved"), "web:1"]);
    for from in ["docker-archive:saved:web:1", "oci-archive:saved:1", "docker-archive:saved"] {
        let inspected = skopeo(&scratch, &["inspect", "--config", from]);
        let config: Value = serde_json::from_str(&inspected).unwrap();
        assert_eq!(config["config"]["Cmd"], json!(["cat", "/one", "/two"]), "{from}");
        skopeo(&scratch, &["copy", from, "oci:copy:x"]);
        let manifest: Value =
            serde_json::from_str(&skopeo(&scratch, &["inspect", "--raw", "oci:copy:x"])).unwrap();
        // docker's configuration has more in it than OCI's, so there skopeo writes another.
        if from.starts_with("oci") {
            assert_eq!(manifest["config"]["digest"], json!(id), "{from}");
        }
        fs::remove_dir_all(scratch.path("copy")).unwrap();
    }
    // Two names of one image, and one more image: docker's form says which is which.
    let layer = [Layer::base().file("three", "3\n").bytes()];
    done(&["load", "-i", &scratch.write("b", docker_archive("b", &json!({}), &layer))]);
    done(&["save", "-o", &scratch.path("all"), "web:1", "web:2", "b"]);
    let ids = ["web:1", "web:2", "b:latest"]
        .map(|name| skopeo(&scratch, &["inspect", "--raw", &format!("docker-archive:all:{name}")]));
    assert!(ids[0] == ids[1] && ids[0] != ids[2], "{ids:?}");
    done(&["rmi", "web:1", "web:2", "b"]);
    // And we read it again, as it was.
    let loaded = done(&["load", "-i", &scratch.path("all")]);
    assert_eq!(loaded, "Loaded image: web:1\nLoaded image: web:2\nLoaded image: b:latest\n");
    assert_eq!(done(&["images", "-q", "--no-trunc", "web:2"]).trim(), id);
    done(&["rmi", "web:1", "web:2", "b"]);
}

pub fn we_read_what_skopeo_writes(_: Who) {
    let scratch = Scratch::new();
    let id = load_ours(&scratch, "web:1");
    done(&["save", "-o", &scratch.path("saved"), "web:1"]);
    done(&["rmi", "web:1"]);
    for (number, (to, options, name)) in [
        ("docker-archive:theirs:me/web:3", &[][..], Some("me/web:3")),
        ("oci-archive:theirs:me/web:3", &[], Some("me/web:3")),
        (
            "oci-archive:theirs:me/web:3",
            &["--dest-compress-format", "zstd", "--format", "oci"],
            Some("me/web:3"),
        ),
        ("oci-archive:theirs", &[], None),
    ]
    .into_iter()
    .enumerate()
    {
        skopeo(&scratch, &[&["copy"], options, &["oci-archive:saved", to]].concat());
        let said = done(&["load", "-i", &scratch.path("theirs")]);
        fs::remove_file(scratch.path("theirs")).unwrap();
        match name {
            Some(name) => assert_eq!(said, format!("Loaded image: {name}\n"), "{number}"),
            None => assert!(said.starts_with("Loaded image ID: sha256:"), "{number}: {said}"),
        }
        let image =
            name.map_or_else(|| said.rsplit(':').next().unwrap().trim().to_owned(), str::to_owned);
        let words = ["run", "--rm", "--net", "none", "-v", "/usr:/usr:ro", &image];
        assert_eq!(done(&words), "1\n2\n", "{number}");
        if number != 2 {
            assert_eq!(done(&["images", "-q", "--no-trunc"]).trim(), id, "{number}");
        }
        done(&["rmi", &image]);
    }
}

/// Every file of a tree: kind, mode, owner, size, time, links, bytes.
fn listing(tree: &Path) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    let mut waiting = vec![tree.to_owned()];
    while let Some(path) = waiting.pop() {
        let now = fs::symlink_metadata(&path).unwrap();
        let text = if now.is_dir() {
            waiting.extend(fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
            String::new()
        } else if now.is_symlink() {
            fs::read_link(&path).unwrap().display().to_string()
        } else if now.is_file() {
            format!("{} {} {:?}", now.nlink(), now.len(), fs::read(&path).unwrap())
        } else {
            format!("{}", now.rdev())
        };
        let name = path.strip_prefix(tree).unwrap().display().to_string();
        let owner = (now.uid(), now.gid());
        found.insert(name, format!("{:o} {owner:?} {} {text}", now.mode(), now.mtime()));
    }
    found
}

/// umoci does by itself what overlayfs does with our directories.
pub fn umoci_unpacks_the_same_files(_: Who) {
    let scratch = Scratch::new();
    let root = |layer: Layer| layer.dir("./", 0o755);
    let lower = root(Layer::new())
        .dir("bin/", 0o755)
        .file("bin/tool", "tool\n")
        .hard_link("bin/again", "bin/tool")
        .symlink("bin/link", "tool")
        .dir("var/", 0o700)
        .dir("var/old/", 0o755)
        .file("var/old/file", "old\n")
        .file("var/file", "lower\n")
        .entry(EntryType::Regular, b"su", b"", b"x", |header| {
            header.set_mode(0o6755);
            header.set_uid(33);
            header.set_gid(44);
        })
        .entry(EntryType::Char, b"null", b"", b"", |header| {
            header.set_device_major(1).unwrap();
            header.set_device_minor(3).unwrap();
        })
        .entry(EntryType::Fifo, b"fifo", b"", b"", |_| {})
        .dir("many/", 0o1777)
        .file("many/a", "a")
        .file("many/b", "b");
    let upper = root(Layer::new())
        .dir("var/", 0o711)
        .file("var/.wh.old", "")
        .file("var/file", "upper\n")
        .dir("many/", 0o1777)
        .file("many/.wh..wh..opq", "")
        .file("many/c", "c")
        .dir("bin/", 0o755)
        .file("bin/.wh.link", "");
    let layers = [lower.bytes(), upper.bytes()];
    done(&["load", "-i", &scratch.write("ours", docker_archive("both", &json!({}), &layers))]);
    done(&["save", "-o", &scratch.path("saved"), "both"]);
    skopeo(&scratch, &["copy", "oci-archive:saved", "oci:layout:x"]);
    tool(&scratch, &["umoci", "unpack", "--image", "layout:x", "bundle"]);
    // A container would put /proc and so on into it: so lay the layers over each other here.
    let theirs = listing(&scratch.0.join("bundle/rootfs"));
    let ours = scratch.0.join("merged");
    fs::create_dir(&ours).unwrap();
    let ids = layers.each_ref().map(|layer| crate::made::sha256(layer));
    let tree = |id: &str| images(Who::Root).join("layers").join(id).join("tree");
    let options = format!("lowerdir={}:{}", tree(&ids[1]).display(), tree(&ids[0]).display());
    let kind = Some("overlay");
    nix::mount::mount(kind, &ours, kind, nix::mount::MsFlags::empty(), Some(options.as_str()))
        .unwrap();
    let merged = listing(&ours);
    nix::mount::umount(&ours).unwrap();
    for (path, theirs) in &theirs {
        assert_eq!(merged.get(path), Some(theirs), "{path}");
    }
    assert_eq!(merged.len(), theirs.len(), "{:?}", merged.keys());

    // A layer that umoci makes, and one that it changes.
    done(&["rmi", "both"]);
    fs::write(scratch.0.join("bundle/rootfs/bin/tool"), "changed\n").unwrap();
    fs::remove_file(scratch.0.join("bundle/rootfs/many/c")).unwrap();
    tool(&scratch, &["umoci", "repack", "--image", "layout:y", "bundle"]);
    tool(
        &scratch,
        &["umoci", "config", "--image", "layout:y", "--config.cmd", "true", "--config.env", "A=1"],
    );
    fs::write(scratch.0.join("added"), "added\n").unwrap();
    tool(&scratch, &["umoci", "insert", "--image", "layout:y", "added", "/var/added"]);
    skopeo(&scratch, &["copy", "oci:layout:y", "oci-archive:theirs:changed:1"]);
    done(&["load", "-i", &scratch.path("theirs")]);
    // The host's programs lie over /bin of this image.
    let look = "cat /var/added; ls /many; ls /usr/bin/env; echo $A";
    let words = ["-v", "/usr/bin:/bin:ro", "-v", "/usr/lib:/lib:ro", "-v", "/usr/lib64:/lib64:ro"];
    let seen = script("changed:1", &words, look);
    assert_eq!(seen.stdout, "added\n/usr/bin/env\n1\n", "{seen:?}");
    done(&["rmi", "changed:1"]);
    for directory in ["bundle", "layout"] {
        fs::remove_dir_all(scratch.0.join(directory)).unwrap();
    }
}
