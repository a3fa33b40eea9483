//! How an image wants to be run, and docker's rules for it.

use serde_json::json;
use workshop::lab::Who;

use crate::made::{Layer, docker_archive};
use crate::{Scratch, done, final_, script};

pub fn the_image_says_what_runs(_: Who) {
    let scratch = Scratch::new();
    let load = |name: &str, config: &serde_json::Value| {
        let layer = Layer::base().dir("srv/", 0o755).bytes();
        let file = scratch.write("archive", docker_archive(name, config, &[layer]));
        assert_eq!(done(&["load", "-i", &file]), format!("Loaded image: {name}:latest\n"));
    };
    load(
        "cmd",
        &json!({ "Cmd": ["echo", "from cmd"], "Env": ["A=image", "B=2", "PATH=/usr/bin"] }),
    );
    load("entry", &json!({ "Entrypoint": ["echo", "entry"], "Cmd": ["and", "cmd"] }));
    load("none", &json!({}));
    load(
        "place",
        &json!({ "WorkingDir": "/srv", "Cmd": ["pwd"], "Entrypoint": null, "Labels": null }),
    );
    load("odd", &json!({ "WorkingDir": "/srv/../..", "Cmd": ["pwd"] }));

    let run = |options: &[&str], words: &[&str]| {
        let common = ["run", "--rm", "--net", "none", "-v", "/usr:/usr:ro"];
        final_(&[&common, options, words].concat())
    };
    let says = |options: &[&str], words: &[&str]| run(options, words).stdout;
    assert_eq!(says(&[], &["cmd"]), "from cmd\n");
    assert_eq!(says(&[], &["cmd", "echo", "other"]), "other\n");
    assert_eq!(says(&[], &["entry"]), "entry and cmd\n");
    assert_eq!(says(&[], &["entry", "x"]), "entry x\n");
    assert_eq!(says(&[], &["place"]), "/srv\n");
    assert_eq!(says(&["-w", "/usr"], &["place"]), "/usr\n");
    assert_eq!(
        says(&["-e", "A=mine"], &["cmd", "sh", "-c", "echo $A $B $PATH"]),
        "mine 2 /usr/bin\n"
    );
    assert!(says(&[], &["none", "sh", "-c", "echo $PATH"]).starts_with("/usr/local/sbin:"));

    let refused = run(&[], &["none"]);
    assert_eq!(refused.status, Some(125), "{refused:?}");
    assert!(refused.stderr.contains("no command: the image none has none"), "{refused:?}");
    let refused = run(&[], &["odd"]);
    assert_eq!(refused.status, Some(125), "{refused:?}");
    assert!(refused.stderr.contains("contains .."), "{refused:?}");
    for image in ["cmd", "entry", "none", "place", "odd"] {
        done(&["rmi", image]);
    }
}

/// The user is one of the image's own files: there another name has the number.
pub fn the_image_says_as_whom(_: Who) {
    let scratch = Scratch::new();
    let layers = [
        Layer::base().file("etc/passwd", "root:x:0:0::/:/bin/sh\nweb:x:1234:1235::/srv:/bin/sh\n"),
        Layer::new().file("etc/group", "root:x:0:\nweb:x:1235:\nlogs:x:77:web\n"),
    ];
    let layers = layers.map(Layer::bytes);
    let archive = docker_archive("web", &json!({ "User": "web", "Cmd": ["id"] }), &layers);
    done(&["load", "-i", &scratch.write("archive", archive)]);
    let who = "echo $(id -u):$(id -g) $(id -G) $HOME";
    assert_eq!(script("web", &[], who).stdout, "1234:1235 1235 77 /srv\n");
    assert_eq!(script("web", &["-u", "0"], who).stdout, "0:0 0 /\n");
    done(&["rmi", "web"]);
}
