//! A registry, as a client of the OCI distribution specification sees it.

use std::cell::RefCell;
use std::io::{self, Error, Read};
use std::net::IpAddr;
use std::thread::sleep;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use oci_spec::image::{Descriptor, MediaType};
use ureq::http::Response;
use ureq::tls::TlsConfig;
use ureq::{Agent, Body, BodyReader, Proxy};

use super::auth::Challenge;
use super::images::{MOST_JSON, digest_of};
use super::name::{DOCKER_HUB, Name, Version};
use super::trust::{authorities, explain, is_refused};

/// Where Docker Hub's registry is; its name is another.
const DOCKER_HUB_HOST: &str = "registry-1.docker.io";
/// What we can make an image of, as registries are asked for it.
const MANIFESTS: &str = "application/vnd.oci.image.index.v1+json, \
                         application/vnd.oci.image.manifest.v1+json, \
                         application/vnd.docker.distribution.manifest.list.v2+json, \
                         application/vnd.docker.distribution.manifest.v2+json";
/// How often a broken download goes on where it was.
const ATTEMPTS: u32 = 5;

/// One repository of a registry.
pub struct Registry {
    agent: Agent,
    name: Name,
    /// `https://HOST/v2/REPOSITORY`.
    base: String,
    /// What it wants to know of us; nobody whom it sends us to is told.
    challenge: Option<Challenge>,
    /// Our answer.
    authorization: RefCell<Option<String>>,
}

/// Whether this is the machine itself: docker asks only there without encryption.
pub(super) fn is_local(host: &str) -> bool {
    let host = host.trim_start_matches('[').trim_end_matches(']');
    host == "localhost" || host.parse().is_ok_and(|address: IpAddr| address.is_loopback())
}

impl Registry {
    /// Asks the registry of an image whether it is one, and shows it who we are if it wants that.
    pub fn open(name: &Name) -> Result<Self> {
        let host = if name.registry == DOCKER_HUB { DOCKER_HUB_HOST } else { &name.registry };
        let is_local = is_local(host.split(':').next().unwrap_or(host));
        // As for Go's programs, no proxy is between us and our own machine.
        let proxy = if is_local { None } else { Proxy::try_from_env() };
        let agent = agent(&name.registry, proxy)?;
        let ask = |scheme: &str| agent.get(format!("{scheme}://{host}/v2/")).call();
        let mut scheme = "https";
        let mut answer = ask(scheme);
        // Who speaks TLS is not asked without it.
        if is_local && answer.as_ref().is_err_and(|error| !is_refused(error)) {
            scheme = "http";
            answer = ask(scheme);
        }
        let answer = answer
            .map_err(|error| explain(error, &name.registry))
            .with_context(|| format!("cannot reach the registry {host}"))?;
        let base = format!("{scheme}://{host}/v2/{}", name.repository);
        let (name, authorization) = (name.clone(), RefCell::default());
        let mut registry = Self { agent, name, base, challenge: None, authorization };
        match answer.status().as_u16() {
            200 => {}
            401 => {
                let header = answer.headers().get("www-authenticate");
                let header = header.and_then(|header| header.to_str().ok()).unwrap_or_default();
                Challenge::parse(header)
                    .and_then(|challenge| {
                        registry.challenge = Some(challenge);
                        registry.introduce_us()
                    })
                    .with_context(|| format!("the registry {host} does not let us in"))?;
            }
            status => bail!("{host} is no registry: it answers /v2/ with {status}"),
        }
        Ok(registry)
    }

    /// Answers the challenge, if there is one.
    fn introduce_us(&self) -> Result<bool> {
        let Some(challenge) = &self.challenge else { return Ok(false) };
        let answer = challenge.answer(&self.agent, &self.name.registry, &self.name.repository)?;
        self.authorization.replace(Some(answer));
        Ok(true)
    }

    /// The manifest of a version, or the index of several: its bytes, and what it says that it is.
    pub fn manifest(&self, version: &Version) -> Result<(Vec<u8>, MediaType)> {
        let (Version::Tag(text) | Version::Digest(text)) = version;
        let response = self.get(&format!("manifests/{text}"), ("Accept", MANIFESTS), text)?;
        let kind = response.headers().get("content-type").and_then(|kind| kind.to_str().ok());
        let kind = MediaType::from(kind.unwrap_or_default().split(';').next().unwrap_or_default());
        Ok((read_body(response)?, kind))
    }

    /// A blob, in one piece, as far as the reader can see.
    pub fn blob(&self, descriptor: &Descriptor) -> Result<Download<'_>> {
        let path = format!("blobs/sha256:{}", digest_of(descriptor)?);
        let size = descriptor.size();
        let mut download =
            Download { registry: self, path, size, at: 0, body: None, attempts: ATTEMPTS };
        download.open()?; // what is not there is known now
        Ok(download)
    }

    fn get(&self, path: &str, header: (&str, &str), what: &str) -> Result<Response<Body>> {
        let ask = || {
            let request = self.agent.get(format!("{}/{path}", self.base));
            let request = request.header(header.0, header.1);
            let known = self.authorization.borrow();
            let request = known.iter().fold(request, |r, known| r.header("Authorization", known));
            request.call().with_context(|| format!("cannot get {what}"))
        };
        let mut response = ask()?;
        // A token is good for some minutes, and a large image may take more.
        if response.status() == 401 && self.introduce_us()? {
            response = ask()?;
        }
        match response.status().as_u16() {
            200 | 206 => Ok(response),
            404 => bail!("the registry has no {what} of that name"),
            401 | 403 => bail!("the registry refuses {what}: there is none, or it is not for us"),
            status => bail!("the registry answers {status} to {what}"),
        }
    }
}

fn agent(host: &str, proxy: Option<Proxy>) -> Result<Agent> {
    let config = Agent::config_builder()
        .http_status_as_error(false)
        .proxy(proxy)
        .user_agent(concat!("final/", env!("CARGO_PKG_VERSION")))
        .timeout_connect(Some(Duration::from_secs(30)))
        .timeout_per_read(Some(Duration::from_secs(60)))
        .tls_config(TlsConfig::builder().root_certs(authorities(host)?).build());
    Ok(config.build().into())
}

/// All of a short answer.
pub(super) fn read_body(response: Response<Body>) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    response.into_body().into_reader().take(MOST_JSON + 1).read_to_end(&mut bytes)?;
    ensure!(bytes.len() as u64 <= MOST_JSON, "the answer is larger than it may be");
    Ok(bytes)
}

/// A blob on its way. Where the connection breaks, another goes on (RFC 9110, 14).
pub struct Download<'r> {
    registry: &'r Registry,
    path: String,
    size: u64,
    at: u64,
    body: Option<BodyReader<'static>>,
    attempts: u32,
}

impl Download<'_> {
    fn open(&mut self) -> Result<()> {
        let range = format!("bytes={}-", self.at);
        let header = if self.at > 0 { ("Range", &*range) } else { ("Accept", "*/*") };
        let response = self.registry.get(&self.path, header, "blob")?;
        // Who does not know ranges sends all of it again.
        let again = if response.status().as_u16() == 206 { 0 } else { self.at };
        let mut body = response.into_body().into_reader();
        let skipped = io::copy(&mut (&mut body).take(again), &mut io::sink())?;
        ensure!(skipped == again, "the connection breaks again and again");
        self.body = Some(body);
        Ok(())
    }
}

impl Read for Download<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            let read = match &mut self.body {
                Some(body) => body.read(buffer),
                None => Err(Error::other("the connection is broken")),
            };
            match read {
                Ok(0) if self.at == self.size => return Ok(0),
                Ok(length) if length > 0 => {
                    self.at += length as u64;
                    if self.at > self.size {
                        return Err(Error::other("it is larger than its manifest says"));
                    }
                    return Ok(length);
                }
                broken => self.again(broken.err())?,
            }
        }
    }
}

impl Download<'_> {
    /// Goes on where it was, or gives up. Who answers with an error is asked again, too.
    fn again(&mut self, why: Option<Error>) -> io::Result<()> {
        let (at, size) = (self.at, self.size);
        self.body = None;
        self.attempts = self.attempts.checked_sub(1).ok_or_else(|| {
            let why = why.map_or_else(|| "it ended".to_owned(), |error| error.to_string());
            Error::other(format!("only {at} of {size} bytes came: {why}"))
        })?;
        sleep(Duration::from_millis(100 << (ATTEMPTS - self.attempts)));
        let _ = self.open(); // or else the next read tells
        Ok(())
    }
}
