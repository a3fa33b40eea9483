//! Layers and archives that we make ourselves, byte by byte: also such as no tool would write.

use std::io::Write as _;
use std::path::Path;

use flate2::Compression;
use flate2::write::GzEncoder;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use tar::{Builder, EntryType, Header};

/// A layer's archive in the making.
pub struct Layer(Builder<Vec<u8>>);

impl Layer {
    pub fn new() -> Self {
        Self(Builder::new(Vec::new()))
    }

    /// The links that the host has beside /usr, and nothing in /usr: that comes as a volume.
    pub fn base() -> Self {
        let mut layer = Self::new().dir("usr/", 0o755).dir("etc/", 0o755);
        for link in ["bin", "sbin", "lib", "lib32", "lib64", "libx32"] {
            if let Ok(target) = std::fs::read_link(Path::new("/").join(link)) {
                layer = layer.symlink(link, target.to_str().unwrap());
            }
        }
        layer
    }

    /// An entry as it is given, whatever that means. Long names need [`Self::pax`].
    pub fn entry(
        mut self,
        kind: EntryType,
        path: &[u8],
        link: &[u8],
        data: &[u8],
        change: impl FnOnce(&mut Header),
    ) -> Self {
        let mut header = Header::new_gnu();
        header.set_entry_type(kind);
        header.set_mode(0o644);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(1_000_000_000);
        header.set_size(data.len() as u64);
        header.as_old_mut().name[..path.len()].copy_from_slice(path);
        header.as_old_mut().linkname[..link.len()].copy_from_slice(link);
        change(&mut header);
        header.set_cksum();
        self.0.append(&header, data).unwrap();
        self
    }

    pub fn file(self, path: &str, text: &str) -> Self {
        self.entry(EntryType::Regular, path.as_bytes(), b"", text.as_bytes(), |_| {})
    }

    pub fn dir(self, path: &str, mode: u32) -> Self {
        self.entry(EntryType::Directory, path.as_bytes(), b"", b"", |header| header.set_mode(mode))
    }

    pub fn symlink(self, path: &str, target: &str) -> Self {
        self.entry(EntryType::Symlink, path.as_bytes(), target.as_bytes(), b"", |_| {})
    }

    pub fn hard_link(self, path: &str, target: &str) -> Self {
        self.entry(EntryType::Link, path.as_bytes(), target.as_bytes(), b"", |_| {})
    }

    /// Extended headers for the next entry (pax(1)).
    pub fn pax(mut self, records: &[(&str, &[u8])]) -> Self {
        self.0.append_pax_extensions(records.iter().copied()).unwrap();
        self
    }

    pub fn bytes(self) -> Vec<u8> {
        self.0.into_inner().unwrap()
    }
}

pub fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

pub fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().fold(String::new(), |text, byte| text + &format!("{byte:02x}"))
}

/// A configuration for layers that are not compressed.
pub fn configuration(config: &Value, layers: &[Vec<u8>]) -> Value {
    let ids: Vec<_> = layers.iter().map(|layer| format!("sha256:{}", sha256(layer))).collect();
    json!({
        "architecture": architecture(), "os": "linux", "created": "2001-09-09T01:46:40Z", "config": config,
        "rootfs": { "type": "layers", "diff_ids": ids },
    })
}

/// As Go calls it.
pub fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

pub fn tar(files: &[(&str, &[u8])]) -> Vec<u8> {
    let mut archive = Builder::new(Vec::new());
    for (path, bytes) in files {
        let mut header = Header::new_ustar();
        header.set_mode(0o644);
        header.set_size(bytes.len() as u64);
        archive.append_data(&mut header, path, *bytes).unwrap();
    }
    archive.into_inner().unwrap()
}

/// What `docker save` wrote before version 25.
pub fn docker_archive(name: &str, config: &Value, layers: &[Vec<u8>]) -> Vec<u8> {
    docker_archive_of(name, &configuration(config, layers), layers)
}

pub fn docker_archive_of(name: &str, configuration: &Value, layers: &[Vec<u8>]) -> Vec<u8> {
    let paths: Vec<_> = (0..layers.len()).map(|number| format!("{number}/layer.tar")).collect();
    let config = configuration.to_string();
    let manifest =
        json!([{ "Config": "config.json", "RepoTags": [name], "Layers": paths }]).to_string();
    let mut files = vec![("config.json", config.as_bytes())];
    files.extend(paths.iter().zip(layers).map(|(path, layer)| (path.as_str(), layer.as_slice())));
    files.push(("manifest.json", manifest.as_bytes()));
    tar(&files)
}

/// A blob, as an index or a manifest names it.
pub fn descriptor(kind: &str, bytes: &[u8]) -> Value {
    json!({
        "mediaType": format!("application/vnd.oci.image.{kind}"),
        "digest": format!("sha256:{}", sha256(bytes)),
        "size": bytes.len(),
    })
}

/// The blobs of an OCI image: manifest, configuration, layers.
pub fn oci_blobs(configuration: &Value, layers: &[Vec<u8>]) -> Vec<Vec<u8>> {
    let config = configuration.to_string().into_bytes();
    let manifest = json!({
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": descriptor("config.v1+json", &config),
        "layers": layers.iter().map(|layer| descriptor("layer.v1.tar", layer)).collect::<Vec<_>>(),
    });
    [&[manifest.to_string().into_bytes(), config], layers].concat()
}

/// An OCI image layout in an archive, with these blobs and this index.
pub fn oci_archive(index: &Value, blobs: &[Vec<u8>]) -> Vec<u8> {
    let index = index.to_string();
    let paths: Vec<_> = blobs.iter().map(|b| format!("blobs/sha256/{}", sha256(b))).collect();
    let mut files = vec![("oci-layout", &br#"{"imageLayoutVersion":"1.0.0"}"#[..])];
    files.push(("index.json", index.as_bytes()));
    files.extend(paths.iter().zip(blobs).map(|(path, blob)| (path.as_str(), blob.as_slice())));
    tar(&files)
}
