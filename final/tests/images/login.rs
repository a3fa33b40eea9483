//! Registries that ask who we are: who is told, and who never.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::json;
use workshop::lab::Who;
use workshop::suite::{Outcome, command, run};

use crate::registry::{Answer, Request, find, image, is_large, is_there, ok, serve, serve_at};
use crate::{BINARY, Scratch, rest};

/// me:secret
const LOGIN: &str = "Basic bWU6c2VjcmV0";
const BASIC: &str = "Basic realm=\"x\"";

fn shows(request: &Request, wanted: &str) -> bool {
    request.headers.get("authorization").is_some_and(|given| given == wanted)
}

fn refusal(challenge: &str) -> Answer {
    let headers = vec![("WWW-Authenticate", challenge.to_owned())];
    Answer { status: 401, headers, ..Answer::default() }
}

/// What docker login would have written for this registry.
fn log_in(scratch: &Scratch, address: &str) {
    let login = json!({ "auths": { address: { "auth": LOGIN.strip_prefix("Basic ") } } });
    scratch.write("config.json", login.to_string());
}

/// With docker's config.json that is in `scratch`.
fn pull_with(
    scratch: &Scratch,
    address: &str,
    change: impl Fn(&mut Command) -> &mut Command,
) -> Outcome {
    let mut pull = command(BINARY, &["pull", &format!("{address}/some/thing")]);
    pull.env("DOCKER_CONFIG", &scratch.0);
    change(&mut pull);
    run(&mut pull, Duration::from_secs(60))
}

/// What somebody was asked for, and as whom.
type Log = Arc<Mutex<Vec<(String, Option<String>)>>>;

/// An answer that is noted down.
fn noted(answer: impl Fn(&Request) -> Answer) -> (Log, impl Fn(&Request) -> Answer) {
    let log = Log::default();
    let ours = Arc::clone(&log);
    (log, move |request: &Request| {
        let known = request.headers.get("authorization").cloned();
        ours.lock().unwrap().push((request.path.clone(), known));
        answer(request)
    })
}

pub fn a_registry_may_ask_who_we_are(who: Who) {
    let scratch = Scratch::new();
    let basic = image();
    let basic = serve(
        move |request| {
            if shows(request, LOGIN) { find(&basic, request) } else { refusal(BASIC) }
        },
    );
    // A token for everybody, or for those who have logged in.
    let bearer = |open: bool| {
        let image = image();
        let token = serve(move |request| {
            let scope = request.path.contains("scope=repository%3Asome%2Fthing%3Apull")
                || request.path.contains("scope=repository:some/thing:pull");
            let known = open || shows(request, LOGIN);
            if known && scope && request.path.contains("service=the") {
                return ok("application/json", b"{\"token\": \"abc\"}");
            }
            Answer { status: 401, ..Answer::default() }
        });
        serve(move |request| {
            if shows(request, "Bearer abc") {
                return find(&image, request);
            }
            refusal(&format!(
                "Bearer realm=\"http://{token}/token\",service=\"the registry\",scope=\"x\""
            ))
        })
    };
    let (open, closed) = (bearer(true), bearer(false));
    let login = json!({ "auths": { basic.clone(): { "auth": "bWU6c2VjcmV0" }, closed.clone(): { "auth": "bWU6c2VjcmV0" } } });
    let wrong = login.to_string().replace("bWU6c2VjcmV0", "d3Jvbmc=");
    let with = |config: &str, address: &str| {
        fs::write(scratch.path("config.json"), config).unwrap();
        pull_with(&scratch, address, |pull| pull)
    };
    for (config, address, named) in [
        ("{}", &basic, "docker login 127.0.0.1:"),
        (&wrong, &basic, "there is none, or it is not for us"),
        (&login.to_string(), &basic, ""),
        ("{}", &open, ""),
        ("{}", &closed, "cannot get a token"),
        (&wrong, &closed, "cannot get a token"),
        (&login.to_string(), &closed, ""),
        ("no JSON", &closed, "is not as docker writes it"),
    ] {
        let ended = with(config, address);
        if named.is_empty() {
            assert_eq!(ended.status, Some(0), "{config}: {ended:?}");
            is_there(address);
        } else {
            assert_eq!(ended.status, Some(1), "{config}: {ended:?}");
            assert!(ended.stderr.contains(named), "{config}: {ended:?}");
        }
        assert!(!ended.stderr.contains("bWU6c2VjcmV0") && !ended.stderr.contains("d3Jvbmc="));
        assert_eq!(rest(who), [""; 0]);
    }
}

pub fn who_we_are_is_told_to_nobody_else(who: Who) {
    let scratch = Scratch::new();
    // Somebody whom the registry sends us to for its layer: who has it, or who wants to know more.
    let (thief_log, thief) = noted(|_| ok("application/json", b"{\"token\": \"abc\"}"));
    let thief = serve(thief);
    let curious = format!("Bearer realm=\"http://{thief}/token\",service=\"x\"");
    for (challenge, status) in [(None, 0), (Some(curious), 1)] {
        let (layers, elsewhere) = (image(), image());
        let (store_log, store) = noted(move |request| match &challenge {
            None => find(&elsewhere, request),
            Some(challenge) => refusal(challenge),
        });
        let store = serve(store);
        let (log, registry) = noted(move |request| {
            if !shows(request, LOGIN) {
                return refusal(BASIC);
            }
            let answer = find(&layers, request);
            if !is_large(&answer) {
                return answer;
            }
            let to = format!("http://{store}{}", request.path);
            Answer { status: 307, headers: vec![("Location", to)], ..Answer::default() }
        });
        let registry = serve(registry);
        log_in(&scratch, &registry);
        // A proxy is for what is far away; here it would get the password in clear.
        let pulled = pull_with(&scratch, &registry, |pull| {
            let proxy = format!("http://{thief}");
            pull.env("ALL_PROXY", &proxy).env("http_proxy", &proxy);
            pull.env_remove("NO_PROXY").env_remove("no_proxy")
        });
        assert_eq!(pulled.status, Some(status), "{pulled:?}");
        let log = log.lock().unwrap();
        let told = log.iter().filter(|(_, known)| known.is_some());
        assert!(told.count() >= 3, "a manifest, its configuration, its layer: {log:?}");
        let store_log = store_log.lock().unwrap();
        assert!(!store_log.is_empty() && store_log.iter().all(|(_, known)| known.is_none()));
        assert_eq!(*thief_log.lock().unwrap(), []);
        if status == 0 {
            is_there(&registry);
        } else {
            assert!(pulled.stderr.contains("the registry refuses blob"), "{pulled:?}");
        }
        assert_eq!(rest(who), [""; 0]);
    }
    // Tokens from somewhere without TLS, which is not this machine; directly, or after a turn.
    let (far_log, far) = noted(|_| ok("application/json", b"{\"token\": \"abc\"}"));
    let far = serve_at("198.51.100.10", far);
    let to = format!("http://{far}/token");
    let (near_log, near) = noted(move |_| {
        let headers = vec![("Location", to.clone())];
        Answer { status: 307, headers, ..Answer::default() }
    });
    let near = serve(near);
    for (realm, named) in
        [(&far, "is not encrypted"), (&near, "there is none, or it is not for us")]
    {
        let challenge = format!("Bearer realm=\"http://{realm}/token\"");
        let registry = serve(move |_| refusal(&challenge));
        log_in(&scratch, &registry);
        let refused = pull_with(&scratch, &registry, |pull| pull);
        assert_eq!(refused.status, Some(1), "{refused:?}");
        assert!(refused.stderr.contains(named), "{refused:?}");
        let known: Vec<_> =
            far_log.lock().unwrap().iter().map(|(_, known)| known.clone()).collect();
        assert!(
            known.iter().all(Option::is_none) && known.is_empty() == (*realm == far),
            "{known:?}"
        );
        assert_eq!(rest(who), [""; 0]);
    }
    assert!(near_log.lock().unwrap().iter().all(|(_, known)| known.as_deref() == Some(LOGIN)));
}

/// Each is good for two requests only, as for Docker Hub it is for five minutes.
pub fn a_token_is_renewed(_: Who) {
    let scratch = Scratch::new();
    let given = Arc::new(Mutex::new((0, 0))); // how many tokens, and how often the last was used
    let ours = Arc::clone(&given);
    let tokens = serve(move |_| {
        let mut given = ours.lock().unwrap();
        *given = (given.0 + 1, 0);
        ok("application/json", format!("{{\"access_token\": \"t{}\"}}", given.0).as_bytes())
    });
    let (image, ours) = (image(), Arc::clone(&given));
    let registry = serve(move |request| {
        let mut given = ours.lock().unwrap();
        given.1 += 1;
        if given.1 <= 2 && shows(request, &format!("Bearer t{}", given.0)) {
            return find(&image, request);
        }
        refusal(&format!("Bearer realm=\"http://{tokens}/token\""))
    });
    let pulled = pull_with(&scratch, &registry, |pull| pull);
    assert_eq!(pulled.status, Some(0), "{pulled:?}");
    assert_eq!(given.lock().unwrap().0, 2);
    is_there(&registry);
}

/// docker's credential helpers: docker-credential-NAME.
pub fn another_program_may_know_our_password(who: Who) {
    let scratch = Scratch::new();
    let image = image();
    let closed = serve(
        move |request| {
            if shows(request, LOGIN) { find(&image, request) } else { refusal(BASIC) }
        },
    );
    let image = crate::registry::image();
    let tokens = serve(|request| match request.headers.get("authorization") {
        None => ok("application/json", b"{\"token\": \"abc\"}"),
        Some(_) => Answer { status: 401, ..Answer::default() },
    });
    let open = serve(move |request| {
        if shows(request, "Bearer abc") {
            return find(&image, request);
        }
        refusal(&format!("Bearer realm=\"http://{tokens}/token\""))
    });
    fs::create_dir(scratch.path("bin")).unwrap();
    let says = format!("[ \"$1\" = get ] && [ \"$(cat)\" = {closed} ] && echo");
    for (name, script) in [
        (
            "knows",
            format!("{says} '{{\"ServerURL\":\"x\",\"Username\":\"me\",\"Secret\":\"secret\"}}'"),
        ),
        ("token", format!("{says} '{{\"Username\":\"<token>\",\"Secret\":\"secret\"}}'")),
        ("empty", "echo credentials not found in native keychain; exit 1".to_owned()),
        ("broken", "echo secret; exit 1".to_owned()),
        ("strange", "echo secret".to_owned()),
    ] {
        let path = scratch
            .write(&format!("bin/docker-credential-{name}"), format!("#!/bin/sh\n{script}\n"));
        fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
    }
    let of_all = |name: &str| json!({ "auths": {}, "credsStore": name });
    let of_one = |name: &str| json!({ "credsStore": "missing", "credHelpers": { &closed: name } });
    for (config, address, status, named) in [
        (of_all("knows"), &closed, 0, ""),
        (of_one("knows"), &closed, 0, ""),
        (of_all("missing"), &closed, 1, "cannot run docker-credential-missing"),
        (of_all("broken"), &closed, 1, "docker-credential-broken does not answer: exit status: 1"),
        (of_all("strange"), &closed, 1, "docker-credential-strange does not answer"),
        (of_all("token"), &closed, 1, "an identity token"),
        (of_all("empty"), &closed, 1, "docker login 127.0.0.1:"),
        // Who needs no password needs nobody to ask for it.
        (of_all("empty"), &open, 0, ""),
        (of_all("missing"), &open, 0, "cannot run docker-credential-missing"),
        (json!("no table"), &open, 0, "config.json is not as docker writes it"),
    ] {
        scratch.write("config.json", config.to_string());
        let path = format!("{}:{}", scratch.path("bin"), std::env::var("PATH").unwrap());
        let pulled = pull_with(&scratch, address, |pull| pull.env("PATH", &path));
        assert_eq!(pulled.status, Some(status), "{config}: {pulled:?}");
        assert!(pulled.stderr.contains(named), "{config}: {pulled:?}");
        assert_eq!(pulled.stderr.is_empty(), named.is_empty(), "{config}: {pulled:?}");
        assert!(!pulled.stderr.contains("secret"), "{config}: {pulled:?}");
        if status == 0 {
            is_there(address);
        }
        assert_eq!(rest(who), [""; 0]);
    }
}
