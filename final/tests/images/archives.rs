//! Archives of images, in every form, and with every lie.

use std::io::Write as _;
use std::process::{Command, Stdio};
use std::slice;

use serde_json::{Value, json};
use workshop::lab::Who;
use workshop::suite::{command, finish};

use crate::made::{
    Layer, architecture, configuration, descriptor, docker_archive, docker_archive_of, gzip,
    oci_archive, oci_blobs, sha256, tar,
};
use crate::{BINARY, Scratch, done, final_, rest, script};

fn layers() -> [Vec<u8>; 2] {
    [Layer::base().file("one", "1\n").bytes(), Layer::new().file("two", "2\n").bytes()]
}

fn index(manifest: &Value, names: &[(&str, &str)]) -> Value {
    let mut manifest = manifest.clone();
    for (key, value) in names {
        manifest["annotations"][*key] = (*value).into();
    }
    json!({ "schemaVersion": 2, "manifests": [manifest] })
}

pub fn every_form_of_archive_is_read(who: Who) {
    let scratch = Scratch::new();
    let layers = layers();
    let config = configuration(&json!({}), &layers);
    let compressed = layers.clone().map(|layer| gzip(&layer));
    let blobs = oci_blobs(&config, &layers);
    let manifest = descriptor("manifest.v1+json", &blobs[0]);
    let (name, full) = ("org.opencontainers.image.ref.name", "io.containerd.image.name");
    // One index may be behind another.
    let inner = index(&manifest, &[]).to_string().into_bytes();
    let outer = descriptor("index.v1+json", &inner);
    let id = format!("Loaded image ID: sha256:{}\n", sha256(config.to_string().as_bytes()));
    let named = "Loaded image: some/thing:1\n";
    let forms = [
        (docker_archive("some/thing:1", &json!({}), &layers), named),
        (docker_archive_of("some/thing:1", &config, &compressed), named),
        (oci_archive(&index(&manifest, &[(name, "some/thing:1")]), &blobs), named),
        (
            oci_archive(
                &index(&manifest, &[(name, "1"), (full, "docker.io/some/thing:1")]),
                &blobs,
            ),
            named,
        ),
        (oci_archive(&index(&manifest, &[(name, "latest")]), &blobs), &id),
        (oci_archive(&index(&outer, &[]), &[slice::from_ref(&inner), &blobs[..]].concat()), &id),
    ];
    let id = &sha256(config.to_string().as_bytes());
    for (number, (archive, says)) in forms.iter().enumerate() {
        for packed in [archive.clone(), gzip(archive)] {
            let file = scratch.write("archive", &packed);
            assert_eq!(done(&["load", "-i", &file]), *says, "{number}");
            let ids = done(&["images", "-q", "--no-trunc"]);
            assert_eq!(ids, format!("sha256:{id}\n"), "{number}");
            assert_eq!(script(id, &[], "cat /one /two").stdout, "1\n2\n", "{number}");
            done(&["rmi", &id[..8]]);
            assert_eq!(rest(who), [""; 0], "{number}");
        }
    }
    // From the standard input; and in zstd, if that is there.
    let mut archive = forms[0].0.clone();
    if let Ok(zstd) = Command::new("zstd").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn() {
        let mut zstd = zstd;
        let mut input = zstd.stdin.take().unwrap();
        let writer = std::thread::spawn(move || {
            input.write_all(&archive).unwrap();
        });
        archive = zstd.wait_with_output().unwrap().stdout;
        writer.join().unwrap();
        archive = [archive.clone(), b"\x50\x2a\x4d\x18\x03\0\0\0any".to_vec()].concat();
    }
    let mut load = command(BINARY, &["load"]);
    load.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut load = load.spawn().unwrap();
    load.stdin.take().unwrap().write_all(&archive).unwrap();
    let loaded = finish(load, std::time::Duration::from_secs(60));
    assert_eq!(loaded.stdout, named, "{loaded:?}");
    done(&["rmi", "some/thing:1"]);
}

pub fn what_is_not_as_its_digest_says_is_refused(who: Who) {
    let scratch = Scratch::new();
    let layers = layers();
    let config = configuration(&json!({}), &layers);
    let other = configuration(&json!({}), &[layers[0].clone(), Layer::new().bytes()]);
    let short = configuration(&json!({}), &layers[..1]);
    let mut no_digest = config.clone();
    no_digest["rootfs"]["diff_ids"][0] = "sha256:../../etc".into();
    let blobs = oci_blobs(&config, &layers);
    let manifest = descriptor("manifest.v1+json", &blobs[0]);
    // The right bytes under a wrong name, and a layer that is not there.
    let wrong_name = {
        let index = index(&manifest, &[]).to_string();
        let path = format!("blobs/sha256/{}", sha256(&blobs[0]));
        tar(&[("index.json", index.as_bytes()), (&path, &blobs[1])])
    };
    let mut outside = manifest.clone();
    outside["digest"] = "sha256:../../../../etc/passwd".into();
    let whole = docker_archive("a", &json!({}), &layers);
    let damaged = {
        let mut bytes = whole.clone();
        let place = bytes.windows(2).position(|two| two == b"1\n").unwrap();
        bytes[place] = b'9';
        bytes
    };
    let manifest_of = |text: &str| tar(&[("manifest.json", text.as_bytes())]);
    let big = format!("[{}]", " ".repeat(5 << 20));
    let names =
        json!([{ "Config": "config.json", "RepoTags": ["../a"], "Layers": [] }]).to_string();
    let nameless = tar(&[("manifest.json", names.as_bytes()), ("config.json", b"{}")]);
    for (archive, named) in [
        (docker_archive_of("a", &other, &layers), "its digest is not sha256:"),
        (docker_archive_of("a", &short, &layers), "is for 1 layers, and it has 2"),
        (docker_archive_of("a", &no_digest, &layers), "no digest that is known here"),
        (damaged, "its digest is not sha256:"),
        (oci_archive(&index(&manifest, &[]), &blobs[..3]), "cannot take the layer"),
        (oci_archive(&index(&manifest, &[]), &blobs[..1]), "cannot read"),
        (oci_archive(&index(&outside, &[]), &blobs), "index.json"),
        (wrong_name, "is not there, or is another file"),
        (manifest_of("[]"), "there is no image in it"),
        (manifest_of("{"), "manifest.json"),
        (manifest_of(&big), "larger than it may be"),
        (
            manifest_of("[{\"Config\": \"../../../etc/passwd\", \"Layers\": []}]"),
            "which is not there",
        ),
        (nameless, "no name of an image"),
        (tar(&[("file", b"")]), "neither a manifest.json nor an index.json"),
        (whole[..whole.len() / 2].to_vec(), "cannot load"),
        (gzip(&whole)[..500].to_vec(), "cannot load"),
        (
            b"this is no archive, but a line of text that is a bit longer".repeat(20),
            "no tar archive",
        ),
        (b"\xfd7zXZ\0and more".to_vec(), "xz is not read here"),
        (Vec::new(), "neither a manifest.json nor an index.json"),
    ] {
        let file = scratch.write("archive", archive);
        let refused = final_(&["load", "-i", &file]);
        assert_eq!(refused.status, Some(1), "{named}: {refused:?}");
        assert!(refused.stderr.contains(named), "{named}: {refused:?}");
        assert_eq!(done(&["images", "-q"]), "", "{named}");
        assert_eq!(rest(who), [""; 0], "{named}");
    }
}

pub fn the_image_for_this_machine_is_taken(_: Who) {
    let scratch = Scratch::new();
    let mut blobs = Vec::new();
    let mut manifests = Vec::new();
    for (os, machine) in
        [("linux", "s390x"), ("windows", architecture()), ("linux", architecture())]
    {
        let layers = [Layer::base().file("for", &format!("{os}/{machine}\n")).bytes()];
        let image = oci_blobs(&configuration(&json!({}), &layers), &layers);
        let mut manifest = descriptor("manifest.v1+json", &image[0]);
        manifest["platform"] = json!({ "os": os, "architecture": machine });
        manifests.push(manifest);
        blobs.extend(image);
    }
    let archive = |manifests: &[Value]| {
        let inner = json!({ "schemaVersion": 2, "manifests": manifests }).to_string().into_bytes();
        let outer = descriptor("index.v1+json", &inner);
        let names = [("io.containerd.image.name", "docker.io/library/three:latest")];
        oci_archive(&index(&outer, &names), &[slice::from_ref(&inner), &blobs[..]].concat())
    };
    done(&["load", "-i", &scratch.write("archive", archive(&manifests))]);
    assert_eq!(script("three", &[], "cat /for").stdout, format!("linux/{}\n", architecture()));
    done(&["rmi", "three"]);
    let refused = final_(&["load", "-i", &scratch.write("archive", archive(&manifests[..2]))]);
    let named = format!("none for linux/{}, only for linux/s390x, windows/", architecture());
    assert!(refused.status == Some(1) && refused.stderr.contains(&named), "{refused:?}");
}
