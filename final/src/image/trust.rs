//! Whose certificates we take a registry's word for, and what is wrong where we do not.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Error, Result, ensure};
use nix::unistd::geteuid;
use ureq::tls::{Certificate, PemItem, RootCerts, parse_pem};

/// Where systems have their authorities in one file: Debian, Fedora, openSUSE, Alpine.
const SYSTEM: [&str; 4] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
];
/// Where docker has those of single registries: `HOST:PORT/*.crt`.
const REGISTRIES: &str = "/etc/docker/certs.d";

/// The authorities for a registry: the system's, or those in `SSL_CERT_FILE` (openssl-env(7)), and what
/// docker's users have put beside them for this one. Where there is nothing at all, Mozilla's.
pub(super) fn authorities(host: &str) -> Result<RootCerts> {
    let named = env::var_os("SSL_CERT_FILE").filter(|path| !path.is_empty()).map(PathBuf::from);
    let system = || SYSTEM.into_iter().map(PathBuf::from).find(|path| path.exists());
    let mut trusted = Vec::new();
    for path in named.or_else(system).into_iter().chain(of_registry(host)?) {
        let certificates = certificates(&path)
            .with_context(|| format!("cannot take {} for authorities", path.display()))?;
        trusted.extend(certificates);
    }
    Ok(if trusted.is_empty() { RootCerts::WebPki } else { RootCerts::from(trusted) })
}

/// The files for one registry. A user's own are where docker without root has them.
fn of_registry(host: &str) -> Result<Vec<PathBuf>> {
    let config = || match env::var_os("XDG_CONFIG_HOME") {
        Some(path) => Some(PathBuf::from(path)),
        None => Some(Path::new(&env::var_os("HOME")?).join(".config")),
    };
    let own = config().filter(|_| !geteuid().is_root()).map(|path| path.join("docker/certs.d"));
    let mut files = Vec::new();
    for directory in [REGISTRIES.into()].into_iter().chain(own) {
        // Most machines have none, and who is not root may not see root's.
        let Ok(entries) = fs::read_dir(directory.join(host)) else { continue };
        for entry in entries {
            files.push(entry?.path());
        }
    }
    files.retain(|path| path.extension().is_some_and(|extension| extension == "crt"));
    Ok(files)
}

fn certificates(path: &Path) -> Result<Vec<Certificate<'static>>> {
    let text = fs::read(path)?;
    let certificates: Vec<_> = parse_pem(&text)
        .filter_map(|item| match item {
            Ok(PemItem::Certificate(certificate)) => Some(certificate),
            _ => None,
        })
        .collect();
    ensure!(!certificates.is_empty(), "there is no certificate in it (PEM)");
    Ok(certificates)
}

/// Whether somebody answers in TLS, whom we do not believe.
pub(super) fn is_refused(error: &ureq::Error) -> bool {
    error.to_string().contains("invalid peer certificate")
}

/// The error, with what one does about it if the reason is how they speak.
pub(super) fn explain(error: ureq::Error, host: &str) -> Error {
    let text = error.to_string(); // the types in it are rustls's, and change with each of its versions
    let fix = if text.contains("UnknownIssuer") {
        format!(
            "nobody who is trusted here has signed its certificate: put that of its authority into \
             {REGISTRIES}/{host}/ca.crt, or among the system's"
        )
    } else if text.contains("CaUsedAsEndEntity") {
        "its certificate is an authority's, and not a server's: it takes one with \
         basicConstraints=CA:FALSE"
            .to_owned()
    } else if is_refused(&error) {
        "its certificate is refused: it takes one that is valid today, with this name among its \
         subjectAltName"
            .to_owned()
    } else if text.contains("InvalidContentType") {
        "it does not speak TLS, and without that only this machine itself is asked".to_owned()
    } else {
        return error.into();
    };
    Error::from(error).context(fix)
}
