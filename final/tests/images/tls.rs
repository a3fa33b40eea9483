//! Registries that speak TLS: whose certificates we believe, and whose not.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use nix::mount::{MsFlags, mount, umount};
use serde_json::json;
use workshop::lab::Who;
use workshop::suite::{Outcome, command, run};

use crate::made::{Layer, docker_archive};
use crate::others::{skopeo, tool};
use crate::registry::{debians, start};
use crate::{BINARY, Scratch, done, rest};

/// What no registry on loopback can be taken for: the lab's own address on its way to the internet.
const HOST: &str = "198.51.100.10:5443";

fn pull(host: &str, authorities: Option<&str>) -> Outcome {
    let mut pull = command(BINARY, &["pull", &format!("{host}/me/web")]);
    for variable in ["SSL_CERT_FILE", "ALL_PROXY", "HTTPS_PROXY", "https_proxy", "HTTP_PROXY"] {
        pull.env_remove(variable);
    }
    if let Some(file) = authorities {
        pull.env("SSL_CERT_FILE", file);
    }
    pull.env("XDG_CONFIG_HOME", format!("{}/scratch", std::env::var("XDG_RUNTIME_DIR").unwrap()));
    run(&mut pull, Duration::from_secs(60))
}

/// A certificate and its key, `NAME.crt` and `NAME.key`.
fn certificate(scratch: &Scratch, name: &str, options: &[&str]) {
    let common =
        "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj";
    let words: Vec<_> = common.split(' ').collect();
    let (subject, crt, key) = (format!("/CN={name}"), format!("{name}.crt"), format!("{name}.key"));
    let of = [subject.as_str(), "-out", &crt, "-keyout", &key];
    tool(scratch, &[&words[..], &of, options].concat());
}

/// With ca.crt where docker looks for the authorities of one registry: for root that is in /etc, and the
/// machine's own lies below, unchanged.
fn beside(scratch: &Scratch, who: Who, host: &str, then: impl FnOnce()) {
    if who == Who::Root {
        for directory in ["upper", "work"] {
            fs::create_dir_all(scratch.path(directory)).unwrap();
        }
        let (upper, work) = (scratch.path("upper"), scratch.path("work"));
        let options = format!("lowerdir=/etc,upperdir={upper},workdir={work}");
        let (kind, none) = (Some("overlay"), MsFlags::empty());
        mount(kind, "/etc", kind, none, Some(options.as_str())).unwrap();
    }
    let base = if who == Who::Root { "/etc".to_owned() } else { scratch.path("") };
    let place = Path::new(&base).join("docker/certs.d").join(host);
    fs::create_dir_all(&place).unwrap();
    fs::copy(scratch.path("ca.crt"), place.join("ca.crt")).unwrap();
    then();
    fs::remove_dir_all(place).unwrap();
    if who == Who::Root {
        umount("/etc").unwrap();
    }
}

pub fn a_registry_shows_a_certificate(who: Who) {
    let scratch = Scratch::new();
    certificate(&scratch, "ca", &[]);
    let names = "subjectAltName=IP:198.51.100.10,DNS:localhost";
    let signed = ["-CA", "ca.crt", "-CAkey", "ca.key", "-addext", "basicConstraints=CA:FALSE"];
    certificate(&scratch, "server", &[&signed[..], &["-addext", names]].concat());
    certificate(&scratch, "authority", &["-addext", names]);
    certificate(&scratch, "alone", &["-addext", names, "-addext", "basicConstraints=CA:FALSE"]);
    let _http = debians(&scratch, "0.0.0.0:5000", &json!({}));
    let tls =
        json!({ "certificate": scratch.path("server.crt"), "key": scratch.path("server.key") });
    let _https = debians(&scratch, "0.0.0.0:5443", &tls);
    let _others = [("5444", "authority"), ("5445", "alone")].map(|(port, name)| {
        let files = [scratch.path(&format!("{name}.crt")), scratch.path(&format!("{name}.key"))];
        let words = ["s_server", "-www", "-accept", port, "-cert", &files[0], "-key", &files[1]];
        start(&format!("0.0.0.0:{port}"), Command::new("openssl").args(words))
    });

    let layers = [Layer::base().file("text", "text\n").bytes()];
    scratch.write("archive", docker_archive("web", &json!({ "Cmd": ["cat", "/text"] }), &layers));
    let to = "docker://127.0.0.1:5000/me/web:latest";
    skopeo(&scratch, &["copy", "--dest-tls-verify=false", "docker-archive:archive", to]);
    let there = |said: &str, host: &str| {
        let words = ["run", "--rm", "--net", "none", "-v", "/usr:/usr:ro", "--pull", "never"];
        let name = format!("{host}/me/web");
        assert_eq!(done(&[&words[..], &[&name]].concat()), "text\n");
        done(&["rmi", &name]);
        said.lines().find_map(|line| line.strip_prefix("Digest: ")).expect("a digest").to_owned()
    };
    let over_http = pull("localhost:5000", None);
    let digest = there(&over_http.stdout, "localhost:5000");

    // Who is believed, wherever that is written down. The machine itself is no exception.
    let ca = scratch.path("ca.crt");
    for host in [HOST, "localhost:5443"] {
        let pulled = pull(host, Some(&ca));
        assert_eq!(pulled.status, Some(0), "{host}: {pulled:?}");
        assert_eq!(there(&pulled.stdout, host), digest, "{host}");
    }
    beside(&scratch, who, HOST, || {
        let pulled = pull(HOST, None);
        assert_eq!(pulled.status, Some(0), "{pulled:?}");
        assert_eq!(there(&pulled.stdout, HOST), digest);
        let other = pull("localhost:5443", None);
        assert!(other.stderr.contains("nobody who is trusted here"), "{other:?}");
    });
    for (host, authorities, named) in [
        (HOST, "", ["nobody who is trusted here", "/etc/docker/certs.d/198.51.100.10:5443/ca.crt"]),
        ("localhost:5443", "", ["nobody who is trusted here", "localhost:5443/ca.crt"]),
        ("127.0.0.1:5443", "ca.crt", ["subjectAltName", "\"127.0.0.1\""]),
        // Its own authority: docker takes it as a server's, TLS in Rust only if it says that it is one.
        ("198.51.100.10:5444", "authority.crt", ["basicConstraints=CA:FALSE", "CaUsedAsEndEntity"]),
        ("198.51.100.10:5445", "alone.crt", ["a manifest of the type text/html", ""]),
        ("198.51.100.10:5000", "ca.crt", ["does not speak TLS", "only this machine itself"]),
        (HOST, "missing", ["scratch/missing for authorities", "No such file"]),
        (HOST, "ca.key", ["ca.key for authorities", "no certificate in it"]),
    ] {
        let authorities = scratch.path(authorities);
        let refused = pull(host, Some(&*authorities).filter(|path| !path.ends_with('/')));
        assert_eq!(refused.status, Some(1), "{host}: {refused:?}");
        assert!(named.iter().all(|reason| refused.stderr.contains(reason)), "{refused:?}");
        assert!(refused.stderr.contains(&format!("cannot pull {host}")), "{refused:?}");
        assert_eq!(refused.stderr.lines().count(), 1, "{refused:?}");
        assert_eq!(rest(who), [""; 0], "{host}");
    }
}
