//! A registry, as a client of the OCI distribution specification sees it.

use std::io::{self, Error, Read};
use std::net::IpAddr;
use std::thread::sleep;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use oci_spec::image::{Descriptor, MediaType};
use ureq::http::Response;
use ureq::tls::TlsConfig;
use ureq::{Agent, Body, BodyReader};

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
    /// `https://HOST/v2/REPOSITORY`.
    base: String,
    authorization: Option<String>,
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
        let agent = agent(&name.registry)?;
        let without_port = host.rsplit_once(':').map_or(host, |(host, _)| host);
        let ask = |scheme: &str| agent.get(format!("{scheme}://{host}/v2/")).call();
        let mut scheme = "https";
        let mut answer = ask(scheme);
        // Who speaks TLS is not asked without it.
        if is_local(without_port) && answer.as_ref().is_err_and(|error| !is_refused(error)) {
            scheme = "http";
            answer = ask(scheme);
        }
        let answer = answer
            .map_err(|error| explain(error, &name.registry))
            .with_context(|| format!("cannot reach the registry {host}"))?;
        let base = format!("{scheme}://{host}/v2/{}", name.repository);
        let mut registry = Self { agent, base, authorization: None };
        match answer.status().as_u16() {
            200 => {}
            401 => {
                let header = answer.headers().get("www-authenticate");
                let header = header.and_then(|header| header.to_str().ok()).unwrap_or_default();
                let answer = Challenge::parse(header)
                    .and_then(|c| c.answer(&registry.agent, &name.registry, &name.repository))
                    .with_context(|| format!("the registry {host} does not let us in"))?;
                registry.authorization = Some(answer);
            }
            status => bail!("{host} is no registry: it answers /v2/ with {status}"),
        }
        Ok(registry)
    }

    /// The manifest of a version, or the index of several: its bytes, and what it says that it is.
    pub fn manifest(&self, version: &Version) -> Result<(Vec<u8>, MediaType)> {
        let (Version::Tag(text) | Version::Digest(text)) = version;
        let request = self.agent.get(format!("{}/manifests/{text}", self.base));
        let response = self.send(request.header("Accept", MANIFESTS), text)?;
        let kind = response.headers().get("content-type").and_then(|kind| kind.to_str().ok());
        let kind = MediaType::from(kind.unwrap_or_default().split(';').next().unwrap_or_default());
        Ok((read_body(response)?, kind))
    }

    /// A blob, in one piece, as far as the reader can see.
    pub fn blob(&self, descriptor: &Descriptor) -> Result<Download<'_>> {
        let url = format!("{}/blobs/sha256:{}", self.base, digest_of(descriptor)?);
        let size = descriptor.size();
        let mut download =
            Download { registry: self, url, size, at: 0, body: None, attempts: ATTEMPTS };
        download.open()?; // what is not there is known now
        Ok(download)
    }

    fn send(
        &self,
        mut request: ureq::RequestBuilder<ureq::typestate::WithoutBody>,
        what: &str,
    ) -> Result<Response<Body>> {
        if let Some(authorization) = &self.authorization {
            request = request.header("Authorization", authorization);
        }
        let response = request.call().with_context(|| format!("cannot get {what}"))?;
        match response.status().as_u16() {
            200 | 206 => Ok(response),
            404 => bail!("the registry has no {what} of that name"),
            401 | 403 => bail!("the registry refuses {what}: there is none, or it is not for us"),
            status => bail!("the registry answers {status} to {what}"),
        }
    }
}

fn agent(host: &str) -> Result<Agent> {
    let config = Agent::config_builder()
        .http_status_as_error(false)
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
    url: String,
    size: u64,
    at: u64,
    body: Option<BodyReader<'static>>,
    attempts: u32,
}

impl Download<'_> {
    fn open(&mut self) -> Result<()> {
        let mut request = self.registry.agent.get(&self.url);
        if self.at > 0 {
            request = request.header("Range", format!("bytes={}-", self.at));
        }
        let response = self.registry.send(request, "blob")?;
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
