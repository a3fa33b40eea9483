//! Who we are for a registry: what `docker login` has written down, and what the registry makes of it.

use std::collections::BTreeMap;
use std::fs;
use std::io::{ErrorKind, Write as _};
use std::path::PathBuf;
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail, ensure};
use base64::prelude::{BASE64_STANDARD, Engine as _};
use serde::Deserialize;
use step01_namespaces::warn;
use ureq::http::Uri;

use super::name::DOCKER_HUB;
use super::registry::{is_local, read_body};
use super::trust::explain;

/// docker's ~/.docker/config.json, as far as we need it. Keys are registries.
#[derive(Deserialize, Default)]
struct DockerConfig {
    #[serde(default)]
    auths: BTreeMap<String, Login>,
    /// The NAME of docker-credential-NAME, a program that keeps the passwords.
    #[serde(rename = "credsStore")]
    helper: Option<String>,
    /// The same for single registries.
    #[serde(rename = "credHelpers", default)]
    helpers: BTreeMap<String, String>,
}

#[derive(Deserialize)]
struct Login {
    /// `USER:PASSWORD` in base64, as it goes into a header.
    auth: Option<String>,
}

/// What such a program prints.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Secret {
    username: String,
    secret: String,
}

/// What the header WWW-Authenticate of a refusal asks for (RFC 9110, 11.6.1).
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Challenge {
    /// A name and a password with each request (RFC 7617).
    Basic,
    /// A token, which is to be had from somebody else (distribution's token specification).
    Bearer {
        /// Where.
        realm: String,
        /// For whom.
        service: Option<String>,
    },
}

#[derive(Deserialize)]
struct Token {
    token: Option<String>,
    access_token: Option<String>,
}

impl Challenge {
    /// Reads `Bearer realm="https://...",service="..."`.
    pub fn parse(header: &str) -> Result<Self> {
        let (scheme, rest) = header.trim().split_once(' ').unwrap_or((header.trim(), ""));
        if scheme.eq_ignore_ascii_case("basic") {
            return Ok(Self::Basic);
        }
        ensure!(
            scheme.eq_ignore_ascii_case("bearer"),
            "it wants to be asked in the way {scheme:?}, which is not known here"
        );
        let parameter = |wanted: &str| {
            let mut rest = rest;
            while let Some((name, behind)) = rest.split_once("=\"") {
                let (value, behind) = behind.split_once('"')?;
                if name.trim_start_matches([',', ' ']).eq_ignore_ascii_case(wanted) {
                    return Some(value.to_owned());
                }
                rest = behind;
            }
            None
        };
        let realm = parameter("realm").context("it does not say where to get a token")?;
        Ok(Self::Bearer { realm, service: parameter("service") })
    }

    /// The value of the header Authorization that it wants, for pulling from `repository`.
    pub fn answer(&self, agent: &ureq::Agent, host: &str, repository: &str) -> Result<String> {
        // Many images are for everybody: then it does not matter who cannot tell.
        let login = login(host).unwrap_or_else(|error| {
            warn(&format!("going on without a password for {host}: {error:#}"));
            None
        });
        match (self, login) {
            (Self::Bearer { realm, service }, login) => {
                token(agent, host, realm, service.as_deref(), repository, login)
            }
            (Self::Basic, Some(login)) => Ok(format!("Basic {login}")),
            (Self::Basic, None) => {
                bail!("it wants a name and a password: docker login {host} writes them down")
            }
        }
    }
}

/// Gets a token. A name and a password go only where nobody else can read them.
fn token(
    agent: &ureq::Agent,
    host: &str,
    realm: &str,
    service: Option<&str>,
    repository: &str,
    login: Option<String>,
) -> Result<String> {
    let uri: Uri = realm.parse().with_context(|| format!("{realm:?} is no address"))?;
    ensure!(
        uri.scheme_str() == Some("https") || uri.host().is_some_and(is_local),
        "its tokens are at {realm}, which is not encrypted"
    );
    let mut request = agent.get(realm).query("scope", format!("repository:{repository}:pull"));
    if let Some(service) = service {
        request = request.query("service", service);
    }
    if let Some(login) = login {
        request = request.header("Authorization", format!("Basic {login}"));
    }
    let response = request
        .call()
        .map_err(|error| explain(error, host))
        .with_context(|| format!("cannot get a token from {realm}"))?;
    let status = response.status();
    ensure!(status.is_success(), "cannot get a token from {realm}: {status}");
    let token: Token = serde_json::from_slice(&read_body(response)?)
        .with_context(|| format!("what {realm} sends is no token"))?;
    let token = token.token.or(token.access_token).context("an answer without a token")?;
    Ok(format!("Bearer {token}"))
}

/// What docker has written down for a registry.
fn login(host: &str) -> Result<Option<String>> {
    let home = || Some(PathBuf::from(std::env::var_os("HOME")?).join(".docker"));
    let Some(directory) = std::env::var_os("DOCKER_CONFIG").map(PathBuf::from).or_else(home) else {
        return Ok(None);
    };
    let path = directory.join("config.json");
    let text = match fs::read(&path) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        text => text.with_context(|| format!("cannot read {}", path.display()))?,
    };
    let config: DockerConfig = serde_json::from_slice(&text)
        .with_context(|| format!("{} is not as docker writes it", path.display()))?;
    let helper = of(host, &config.helpers).or(config.helper.as_ref());
    let told = helper.map_or(Ok(None), |name| ask_helper(name, host))?;
    Ok(told.or_else(|| find_login(&config, host)))
}

/// Asks a program for a login: the registry goes in, JSON comes out (docker-credential-helpers).
fn ask_helper(name: &str, host: &str) -> Result<Option<String>> {
    let program = format!("docker-credential-{name}");
    let mut command = Command::new(&program);
    let piped = command.arg("get").stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = piped.spawn().with_context(|| {
        format!("cannot run {program}, which is in docker's config.json, and should be in PATH")
    })?;
    let key = if host == DOCKER_HUB { "https://index.docker.io/v1/" } else { host };
    if let Some(mut input) = child.stdin.take() {
        let _ = input.write_all(key.as_bytes()); // who does not want it has another answer
    }
    let said = child.wait_with_output()?;
    if said.stdout.starts_with(b"credentials not found") {
        return Ok(None);
    }
    // What it says instead may be a secret.
    ensure!(said.status.success(), "{program} does not answer: {}", said.status);
    let Ok(Secret { username, secret }) = serde_json::from_slice(&said.stdout) else {
        bail!("{program} does not answer as such programs do");
    };
    ensure!(username != "<token>", "{program} has an identity token, which is not known here");
    Ok(Some(BASE64_STANDARD.encode(format!("{username}:{secret}"))))
}

/// What a table has for a registry. Keys are hosts; older ones are addresses, and Docker Hub's still is.
fn of<'t, T>(host: &str, table: &'t BTreeMap<String, T>) -> Option<&'t T> {
    let is = |key: &str| {
        let key = key.strip_prefix("https://").or(key.strip_prefix("http://")).unwrap_or(key);
        let key = key.split('/').next().unwrap_or_default();
        key == host || (host == DOCKER_HUB && key == "index.docker.io")
    };
    Some(table.iter().find(|(key, _)| is(key))?.1)
}

fn find_login(config: &DockerConfig, host: &str) -> Option<String> {
    of(host, &config.auths)?.auth.clone().filter(|auth| !auth.is_empty())
}

#[cfg(test)]
mod tests {
    use super::{Challenge, find_login};

    #[test]
    fn challenges_are_read() {
        let bearer = |realm: &str, service: Option<&str>| Challenge::Bearer {
            realm: realm.to_owned(),
            service: service.map(str::to_owned),
        };
        for (header, challenge) in [
            ("Basic realm=\"x\"", Some(Challenge::Basic)),
            ("basic", Some(Challenge::Basic)),
            (
                "Bearer realm=\"https://a/t\",service=\"a, b\",scope=\"x\"",
                Some(bearer("https://a/t", Some("a, b"))),
            ),
            ("bearer service=\"s\", realm=\"r\"", Some(bearer("r", Some("s")))),
            ("Bearer realm=\"r\"", Some(bearer("r", None))),
            ("Bearer service=\"s\"", None),
            ("Bearer realm=\"r", None),
            ("Negotiate", None),
            ("", None),
        ] {
            assert_eq!(Challenge::parse(header).ok(), challenge, "{header}");
        }
    }

    #[test]
    fn logins_are_found() {
        let text = r#"{"auths": {"https://index.docker.io/v1/": {"auth": "aHVi"}, "r.example:5000": {"auth": "cg=="},
            "http://old.example/v2": {"auth": "b2xk"}, "none.example": {}}, "credsStore": "x"}"#;
        for (host, login) in [
            ("docker.io", Some("aHVi")),
            ("r.example:5000", Some("cg==")),
            ("old.example", Some("b2xk")),
            ("none.example", None),
            ("r.example", None),
        ] {
            let config = serde_json::from_str(text).unwrap();
            assert_eq!(find_login(&config, host).as_deref(), login, "{host}");
        }
    }
}
