//! Registries: Debian's, and one of ours that lies, breaks off, and asks who we are.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::thread;

use serde_json::{Value, json};
use workshop::lab::Who;
use workshop::suite::{Outcome, command, eventually};

use crate::made::{Layer, configuration, descriptor, docker_archive, oci_blobs, sha256};
use crate::others::skopeo;
use crate::{BINARY, Scratch, done, final_, images, rest};

/// What somebody has asked a server for.
pub struct Request {
    pub path: String,
    pub headers: BTreeMap<String, String>,
}

/// What it gets.
#[derive(Default)]
pub struct Answer {
    pub status: u16,
    pub headers: Vec<(&'static str, String)>,
    pub body: Vec<u8>,
    /// Where the connection breaks.
    pub cut: Option<usize>,
    /// Instead of all that: what comes once, and then without end.
    pub endless: Option<(&'static str, &'static str)>,
}

pub fn ok(kind: &str, body: &[u8]) -> Answer {
    let headers = vec![("Content-Type", kind.to_owned())];
    Answer { status: 200, headers, body: body.to_vec(), ..Answer::default() }
}

/// A server on loopback; returns its address. It ends with the test.
pub fn serve(answer: impl Fn(&Request) -> Answer + Send + 'static) -> String {
    serve_at("127.0.0.1", answer)
}

/// The same elsewhere.
pub fn serve_at(ip: &str, answer: impl Fn(&Request) -> Answer + Send + 'static) -> String {
    let listener = TcpListener::bind((ip, 0)).unwrap();
    let address = listener.local_addr().unwrap().to_string();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let _ = talk(&stream.unwrap(), &answer); // who hangs up, or speaks TLS, gets none
        }
    });
    address
}

fn talk(mut stream: &TcpStream, answer: &impl Fn(&Request) -> Answer) -> std::io::Result<()> {
    let mut lines = BufReader::new(stream).lines();
    let first = lines.next().unwrap_or(Ok(String::new()))?;
    let path = first.split(' ').nth(1).unwrap_or_default().to_owned();
    let mut headers = BTreeMap::new();
    for line in lines {
        let line = line?;
        let Some((name, value)) = line.split_once(": ") else { break };
        headers.insert(name.to_ascii_lowercase(), value.to_owned());
    }
    let answer = answer(&Request { path, headers });
    if let Some((once, again)) = answer.endless {
        stream.write_all(once.as_bytes())?;
        loop {
            stream.write_all(again.repeat(100).as_bytes())?; // until nobody listens
            if again.is_empty() {
                stream.read_exact(&mut [0])?; // until nobody is there
            }
        }
    }
    let length = answer.body.len();
    write!(
        stream,
        "HTTP/1.1 {} x\r\nConnection: close\r\nContent-Length: {length}\r\n",
        answer.status
    )?;
    for (name, value) in &answer.headers {
        write!(stream, "{name}: {value}\r\n")?;
    }
    stream.write_all(b"\r\n")?;
    stream.write_all(&answer.body[..answer.cut.unwrap_or(length)])
}

/// An image as a registry has it: what is at which path below /v2/some/thing/.
pub fn image() -> BTreeMap<String, (String, Vec<u8>)> {
    let layer = Layer::base().file("hello", &"hello\n".repeat(50_000)).bytes();
    let layers = [layer];
    let blobs =
        oci_blobs(&configuration(&json!({ "Cmd": ["wc", "-c", "/hello"] }), &layers), &layers);
    let manifest = "application/vnd.oci.image.manifest.v1+json";
    let mut paths = BTreeMap::new();
    paths.insert("manifests/latest".to_owned(), (manifest.to_owned(), blobs[0].clone()));
    paths.insert(
        format!("manifests/sha256:{}", sha256(&blobs[0])),
        (manifest.to_owned(), blobs[0].clone()),
    );
    for blob in &blobs[1..] {
        paths.insert(format!("blobs/sha256:{}", sha256(blob)), (String::new(), blob.clone()));
    }
    paths
}

/// The same, served as a registry should.
pub fn find(image: &BTreeMap<String, (String, Vec<u8>)>, request: &Request) -> Answer {
    if request.path == "/v2/" {
        return ok("application/json", b"{}");
    }
    let path = request.path.strip_prefix("/v2/some/thing/").unwrap_or_default();
    match image.get(path) {
        Some((kind, bytes)) => ok(kind, bytes),
        None => Answer { status: 404, ..Answer::default() },
    }
}

/// Whether this is the layer: the only blob that is large.
pub fn is_large(answer: &Answer) -> bool {
    answer.body.len() > 100_000
}

fn pull(address: &str, version: &str) -> Outcome {
    final_(&["pull", &format!("{address}/some/thing{version}")])
}

pub fn is_there(address: &str) {
    let name = &format!("{address}/some/thing");
    let words = ["run", "--rm", "--net", "none", "-v", "/usr:/usr:ro", "--pull", "never", name];
    assert_eq!(done(&words), "300000 /hello\n");
    done(&["rmi", name]);
}

pub struct Server(Child);

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Debian's registry, with the data in `scratch`; returns when it listens.
pub fn debians(scratch: &Scratch, address: &str, tls: &Value) -> Server {
    let data = scratch.path("data");
    let config = json!({
        "version": "0.1", "storage": { "filesystem": { "rootdirectory": data } },
        "http": { "addr": address, "tls": tls },
    });
    let config = scratch.write("config.yml", config.to_string()); // JSON is YAML, too
    start(address, Command::new("docker-registry").args(["serve", &config]))
}

/// A server of somebody else's; returns when it listens.
pub fn start(address: &str, server: &mut Command) -> Server {
    let server = server.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let server = Server(server.spawn().unwrap());
    eventually("the server listens", || TcpStream::connect(address).is_ok());
    server
}

pub fn debians_registry_serves_us(who: Who) {
    let scratch = Scratch::new();
    let _registry = debians(&scratch, "127.0.0.1:5000", &json!({}));

    let push = |text: &str| {
        let layers = [Layer::base().bytes(), Layer::new().file("text", text).bytes()];
        let config = json!({ "Cmd": ["cat", "/text"] });
        scratch.write("archive", docker_archive("web", &config, &layers));
        for (format, tag) in [("oci", "1"), ("v2s2", "2")] {
            let to = format!("docker://127.0.0.1:5000/me/web:{tag}");
            let words = [
                "copy",
                "--format",
                format,
                "--dest-tls-verify=false",
                "docker-archive:archive",
                &to,
            ];
            skopeo(&scratch, &words);
        }
    };
    push("first\n");
    let name = "localhost:5000/me/web:1";
    let run = |options: &[&str]| {
        let common = ["run", "--rm", "--net", "none", "-v", "/usr:/usr:ro"];
        final_(&[&common, options, &[name]].concat())
    };
    let missing = run(&["--pull", "never"]);
    assert!(missing.status == Some(125) && missing.stderr.contains("no such image"), "{missing:?}");
    // A missing image is fetched, and the program's output is only its own.
    let first = run(&[]);
    assert_eq!((first.status, first.stdout.as_str()), (Some(0), "first\n"), "{first:?}");
    assert!(
        first.stderr.contains(&format!("Unable to find image '{name}' locally\n")),
        "{first:?}"
    );
    assert!(first.stderr.contains("Status: Downloaded newer image for"), "{first:?}");
    let id = done(&["images", "-q", "--no-trunc"]);

    let said = done(&["pull", name]);
    let lines: Vec<_> = said.lines().collect();
    assert_eq!(lines[0], "1: Pulling from me/web");
    assert!(
        lines[1].ends_with(": Already exists") && lines[2].ends_with(": Already exists"),
        "{said}"
    );
    let digest = lines[3].strip_prefix("Digest: ").unwrap();
    assert_eq!(lines[4], format!("Status: Image is up to date for {name}"));
    assert_eq!(lines[5], name);
    // docker's own form; the same by its digest; and what others say that the digest is.
    assert_eq!(done(&["pull", "-q", "localhost:5000/me/web:2"]), "localhost:5000/me/web:2\n");
    let by_digest = format!("localhost:5000/me/web@{digest}");
    assert_eq!(done(&["pull", "-q", &by_digest]).trim(), by_digest);
    let raw = skopeo(
        &scratch,
        &["inspect", "--tls-verify=false", "--raw", "docker://127.0.0.1:5000/me/web:1"],
    );
    assert_eq!(digest, format!("sha256:{}", sha256(raw.as_bytes())));
    assert_eq!(
        done(&["images", "-q", "--no-trunc", "localhost:5000/me/web"]).lines().next(),
        Some(id.trim())
    );

    // The name stands for another image by now.
    push("second\n");
    assert_eq!(run(&[]).stdout, "first\n");
    assert_eq!(run(&["--pull", "always"]).stdout, "second\n");
    for (text, named) in [
        ("localhost:5000/me/web:3", "has no 3 of that name"),
        ("localhost:5000/no/such", "has no latest of that name"),
        ("localhost:5001/me/web", "Connection refused"),
    ] {
        let refused = final_(&["pull", text]);
        assert_eq!(refused.status, Some(1), "{text}: {refused:?}");
        assert!(refused.stderr.contains(named), "{text}: {refused:?}");
        assert_eq!(final_(&["run", "--rm", text]).status, Some(125), "{text}");
    }
    done(&["rmi", name, "localhost:5000/me/web:2", &by_digest]);
    for unnamed in done(&["images", "-q"]).lines() {
        done(&["rmi", unnamed]);
    }
    assert_eq!(rest(who), [""; 0]);
}

pub fn what_breaks_off_goes_on(who: Who) {
    // Twice in the middle; then with ranges, or without.
    for ranges in [true, false] {
        let image = image();
        let log = Arc::new(Mutex::new(Vec::new()));
        let ours = Arc::clone(&log);
        let address = serve(move |request| {
            let mut answer = find(&image, request);
            if !is_large(&answer) {
                return answer;
            }
            let range = request.headers.get("range").cloned().unwrap_or_default();
            let mut log = ours.lock().unwrap();
            log.push(range.clone());
            let from = range
                .strip_prefix("bytes=")
                .and_then(|r| r.trim_end_matches('-').parse::<usize>().ok());
            if let Some(from) = from.filter(|_: &usize| ranges) {
                answer.status = 206;
                answer.body.drain(..from);
            }
            answer.cut = (log.len() < 3).then_some(100_000 * (if ranges { 1 } else { log.len() }));
            answer
        });
        let pulled = pull(&address, "");
        assert_eq!(pulled.status, Some(0), "{ranges}: {pulled:?}");
        assert_eq!(*log.lock().unwrap(), ["", "bytes=100000-", "bytes=200000-"], "{ranges}");
        is_there(&address);
    }
    // It never goes on: one clear line, and nothing is left.
    let image = image();
    let address = serve(move |request| {
        let mut answer = find(&image, request);
        answer.cut = is_large(&answer).then_some(1000);
        answer
    });
    let refused = pull(&address, "");
    assert_eq!(refused.status, Some(1), "{refused:?}");
    assert!(
        refused.stderr.contains("only ") && refused.stderr.contains("bytes came"),
        "{refused:?}"
    );
    assert_eq!(rest(who), [""; 0]);
}

pub fn what_a_registry_says_is_verified(who: Who) {
    type Change = fn(&Request, &mut Answer);
    let changes: [(&str, Change, &str); 7] = [
        (
            "another layer",
            |_, answer| {
                if is_large(answer) {
                    answer.body[100] ^= 1;
                }
            },
            "is not what came",
        ),
        (
            "a longer layer",
            |_, answer| {
                if is_large(answer) {
                    answer.body.push(0);
                }
            },
            "larger than its manifest says",
        ),
        (
            "a shorter layer",
            |_, answer| {
                if is_large(answer) {
                    answer.body.pop();
                }
            },
            "bytes came",
        ),
        (
            "another configuration",
            |request, answer| {
                if request.path.contains("/blobs/") && !is_large(answer) {
                    answer.body[1] ^= 1;
                }
            },
            "is not what came",
        ),
        (
            "no manifest",
            |request, answer| {
                if request.path.contains("/manifests/") {
                    answer.body = b"{}".to_vec();
                }
            },
            "cannot read",
        ),
        (
            "an endless manifest",
            |request, answer| {
                if request.path.contains("/manifests/") {
                    answer.body = vec![b' '; 5 << 20];
                }
            },
            "larger than it may be",
        ),
        (
            "something else",
            |request, answer| {
                if request.path.contains("/manifests/") {
                    answer.headers = vec![("Content-Type", "text/html".into())];
                }
            },
            "a manifest of the type text/html",
        ),
    ];
    for (what, change, named) in changes {
        let image = image();
        let address = serve(move |request| {
            let mut answer = find(&image, request);
            change(request, &mut answer);
            answer
        });
        let refused = pull(&address, "");
        assert_eq!(refused.status, Some(1), "{what}: {refused:?}");
        assert!(refused.stderr.contains(named), "{what}: {refused:?}");
        assert_eq!(rest(who), [""; 0], "{what}");
    }
    // Who is asked for a digest has to send just that.
    let image = image();
    let address = serve(move |request| {
        let wrong = request.path.contains("/manifests/sha256:");
        let path = if wrong { "/v2/some/thing/manifests/latest" } else { &request.path };
        let request = Request { path: path.to_owned(), headers: BTreeMap::new() };
        find(&image, &request)
    });
    let refused = pull(&address, &format!("@sha256:{}", "0".repeat(64)));
    assert!(
        refused.status == Some(1) && refused.stderr.contains("sends a manifest with the digest"),
        "{refused:?}"
    );
    assert_eq!(rest(who), [""; 0]);
}

pub fn a_registry_that_does_not_end(who: Who) {
    let headers = ("HTTP/1.1 200 x\r\n", "X-More: and more\r\n");
    let body =
        ("HTTP/1.1 200 x\r\nContent-Type: text/html\r\nConnection: close\r\n\r\n", "and more");
    let refusal =
        ("HTTP/1.1 401 x\r\nWWW-Authenticate: Basic\r\nConnection: close\r\n\r\n", "and more");
    for (place, endless, named) in [
        ("/v2/", headers, "cannot reach the registry"),
        ("/manifests/", headers, "cannot get latest"),
        ("/blobs/", headers, "cannot get sha256:"),
        ("/v2/", refusal, "docker login"),
        ("/manifests/", body, "larger than it may be"),
        ("/blobs/", body, "larger than its manifest says"),
    ] {
        let image = image();
        let address = serve(move |request| {
            let here = request.path.contains(place) && (place != "/v2/" || request.path == place);
            Answer { endless: here.then_some(endless), ..find(&image, request) }
        });
        let refused = pull(&address, "");
        assert_eq!(refused.status, Some(1), "{place}: {refused:?}");
        assert!(refused.stderr.contains(named), "{place}: {refused:?}");
        assert_eq!(rest(who), [""; 0], "{place}");
    }
}

/// It begins anew: what was there goes with the next command, which may be the next pull.
pub fn a_killed_pull_leaves_nothing(who: Who) {
    let image = image();
    let slow = Arc::new(AtomicBool::new(true));
    let ours = Arc::clone(&slow);
    let address = serve(move |request| {
        let answer = find(&image, request);
        let endless = Some(("HTTP/1.1 200 x\r\nContent-Length: 512000\r\n\r\na part", ""));
        let endless = endless.filter(|_| is_large(&answer) && ours.load(Relaxed));
        Answer { endless, ..answer }
    });
    for next in ["gc", "pull"] {
        slow.store(true, Relaxed);
        let mut pulling = command(BINARY, &["pull", &format!("{address}/some/thing")]);
        let mut pulling = pulling.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        eventually("it waits for the layer", || {
            let mut drafts = rest(who).into_iter().map(|name| images(who).join(&name[1..]));
            drafts.any(|draft| fs::read(draft.join("blobs/unnamed")).is_ok_and(|b| b == b"a part"))
        });
        pulling.kill().unwrap();
        pulling.wait().unwrap();
        assert_eq!(rest(who).len(), 1);
        slow.store(false, Relaxed);
        if next == "gc" {
            done(&["gc"]);
        } else {
            assert_eq!(pull(&address, "").status, Some(0));
            is_there(&address);
        }
        assert_eq!(rest(who), [""; 0], "{next}");
    }
}

/// The manifest of this machine is found behind an index, and the layer behind a redirection.
pub fn an_index_and_a_redirection_are_followed(_: Who) {
    let image = image();
    let elsewhere = image.clone();
    let store = serve(move |request| find(&elsewhere, request));
    let manifest = image["manifests/latest"].1.clone();
    let mut entry = descriptor("manifest.v1+json", &manifest);
    entry["platform"] = json!({ "os": "linux", "architecture": crate::made::architecture() });
    let other: Value = json!({
        "mediaType": "application/vnd.oci.image.manifest.v1+json", "size": 2,
        "digest": format!("sha256:{}", "0".repeat(64)),
        "platform": { "os": "linux", "architecture": "s390x" },
    });
    let index = json!({ "schemaVersion": 2, "manifests": [other, entry] }).to_string();
    let address = serve(move |request| {
        if request.path == "/v2/some/thing/manifests/latest" {
            return ok(
                "application/vnd.docker.distribution.manifest.list.v2+json",
                index.as_bytes(),
            );
        }
        let answer = find(&image, request);
        if !is_large(&answer) {
            return answer;
        }
        let to = format!("http://{store}{}", request.path);
        Answer { status: 307, headers: vec![("Location", to)], ..Answer::default() }
    });
    let pulled = pull(&address, "");
    assert_eq!(pulled.status, Some(0), "{pulled:?}");
    is_there(&address);
}
