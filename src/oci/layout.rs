//! A layout's documents, read from `blobs` by digest.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Read, Seek as _};
use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde::de::DeserializeOwned;
use sha2::{Digest as _, Sha256, Sha512};

use crate::error::{Context, Result};
use crate::pack::digest::hex;
use crate::rootfs::Rootfs;
use crate::unpack::decode::Format;
use crate::unpack::refusal::Reason;

/// Largest document that is read, as the distribution specification recommends.
pub const MAX_DOCUMENT: u64 = 4 << 20;

/// Media type of an index.
pub const INDEX: &str = "application/vnd.oci.image.index.v1+json";
/// Media type of a manifest.
pub const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
/// Media type of an image's configuration.
pub const CONFIG: &str = "application/vnd.oci.image.config.v1+json";

/// Points at a blob.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Descriptor {
    /// What the blob is.
    pub media_type: String,
    /// Algorithm and hex.
    pub digest: String,
    /// Bytes.
    pub size: u64,
    /// Notes; the name of an image is one.
    #[serde(default)]
    pub annotations: BTreeMap<String, String>,
}

impl Descriptor {
    /// The image's name, of a descriptor in `index.json`.
    pub fn name(&self) -> Option<&str> {
        self.annotations.get("org.opencontainers.image.ref.name").map(String::as_str)
    }
}

/// `index.json`, and what it may point at.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Index {
    /// Is 2.
    pub schema_version: u32,
    /// Is [`INDEX`], when it is said.
    pub media_type: Option<String>,
    /// Images.
    pub manifests: Vec<Descriptor>,
}

/// An image.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Manifest {
    /// Is 2.
    pub schema_version: u32,
    /// Is [`MANIFEST`], when it is said.
    pub media_type: Option<String>,
    /// Its configuration.
    pub config: Descriptor,
    /// Its layers, the lowest first.
    pub layers: Vec<Descriptor>,
}

/// The part of a configuration that speaks of layers.
#[derive(Debug, Deserialize)]
pub struct Config {
    /// The layers.
    pub rootfs: RootFs,
    /// `linux`, mostly.
    pub os: String,
    /// As Go calls it.
    pub architecture: String,
}

/// The layers of a configuration.
#[derive(Debug, Deserialize)]
pub struct RootFs {
    /// Is `layers`.
    #[serde(rename = "type")]
    pub kind: String,
    /// Digests of the plain layers.
    pub diff_ids: Vec<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Marker {
    image_layout_version: String,
}

/// An algorithm that digests are made with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Algorithm {
    /// SHA-256
    Sha256,
    /// SHA-512
    Sha512,
}

impl Algorithm {
    /// Algorithm and hex of a digest.
    pub fn parse(digest: &str) -> Result<(Self, &str), Reason> {
        let (algorithm, length, rest) = match digest.split_once(':') {
            Some(("sha256", rest)) => (Self::Sha256, 64, rest),
            Some(("sha512", rest)) => (Self::Sha512, 128, rest),
            _ => return Err(Reason::new("bad-digest", "its digest is neither SHA-256 nor SHA-512")),
        };
        let lower = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
        if rest.len() != length || !rest.bytes().all(lower) {
            return Err(Reason::new("bad-digest", "its digest is malformed"));
        }
        Ok((algorithm, rest))
    }

    /// Hex of what is read.
    pub fn of(self, input: &mut dyn Read) -> std::io::Result<String> {
        let (mut small, mut large) = (Sha256::new(), Sha512::new());
        let mut buffer = vec![0; 256 << 10];
        loop {
            let count = match input.read(&mut buffer) {
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
                other => other?,
            };
            match self {
                _ if count == 0 => break,
                Self::Sha256 => small.update(&buffer[..count]),
                Self::Sha512 => large.update(&buffer[..count]),
            }
        }
        Ok(match self {
            Self::Sha256 => hex(&small.finalize()),
            Self::Sha512 => hex(&large.finalize()),
        })
    }
}

/// A layout in a directory.
#[derive(Debug)]
pub struct Layout {
    root: Rootfs,
}

impl Layout {
    /// Opens the directory; looks at nothing in it.
    pub fn open(dir: &Path) -> Result<Self> {
        Rootfs::open(dir).map(|root| Self { root })
    }

    /// The directory.
    pub fn path(&self) -> &Path {
        self.root.path()
    }

    /// Checks `oci-layout` and reads `index.json`.
    pub fn index(&self) -> Result<Result<Index, Reason>> {
        let Some(marker) = self.root.read(Path::new("oci-layout"), MAX_DOCUMENT)? else {
            return Ok(Err(Reason::new("no-layout", "there is no oci-layout")));
        };
        match json::<Marker>(&marker) {
            Ok(marker) if marker.image_layout_version == "1.0.0" => {}
            Ok(_) => return Ok(Err(Reason::new("bad-layout", "oci-layout does not say version 1.0.0"))),
            Err(reason) => return Ok(Err(reason)),
        }
        let Some(index) = self.root.read(Path::new("index.json"), MAX_DOCUMENT)? else {
            return Ok(Err(Reason::new("no-index", "there is no index.json")));
        };
        Ok(json::<Index>(&index).and_then(|index| index.check().map(|()| index)))
    }

    /// A blob whose size and digest are what its descriptor says, at its beginning.
    pub fn blob(&self, descriptor: &Descriptor) -> Result<Result<File, Reason>> {
        let (algorithm, name) = match Algorithm::parse(&descriptor.digest) {
            Ok(parsed) => parsed,
            Err(reason) => return Ok(Err(reason)),
        };
        let path = path(algorithm, name);
        let doing = || self.root.doing("reading", &path);
        let Some(mut file) = self.root.open_file(&path)? else {
            return Ok(Err(Reason::new("missing-blob", "there is no such blob")));
        };
        let size = file.metadata().system(doing)?.len();
        if size != descriptor.size {
            let text = format!("it has {size} bytes and should have {}", descriptor.size);
            return Ok(Err(Reason::new("size-mismatch", text)));
        }
        if algorithm.of(&mut file).system(doing)? != name {
            return Ok(Err(Reason::new("digest-mismatch", "its content has another digest")));
        }
        file.rewind().system(doing)?;
        Ok(Ok(file))
    }

    /// A document.
    pub fn document<T: DeserializeOwned>(&self, descriptor: &Descriptor) -> Result<Result<T, Reason>> {
        if descriptor.size > MAX_DOCUMENT {
            return Ok(Err(Reason::new("too-large", format!("it has more than {MAX_DOCUMENT} bytes"))));
        }
        let file = match self.blob(descriptor)? {
            Ok(file) => file,
            Err(reason) => return Ok(Err(reason)),
        };
        let mut bytes = Vec::new();
        let doing = || format!("reading {} in {}", descriptor.digest, self.path().display());
        file.take(MAX_DOCUMENT).read_to_end(&mut bytes).system(doing)?;
        // What was judged may have been changed since.
        let digest = Algorithm::parse(&descriptor.digest);
        if digest.is_ok_and(|(algorithm, name)| algorithm.of(&mut &bytes[..]).is_ok_and(|digest| digest != name)) {
            return Ok(Err(Reason::new("digest-mismatch", "its content has another digest")));
        }
        Ok(json(&bytes))
    }

    /// Everything under `blobs`: path, and digest if its name is one.
    pub fn blobs(&self) -> Result<Vec<(PathBuf, Option<String>)>> {
        let mut all = Vec::new();
        for algorithm in ["sha256", "sha512"] {
            let dir = Path::new("blobs").join(algorithm);
            if self.root.stat(&dir)?.is_none() {
                continue;
            }
            for (name, _) in self.root.read_dir(&dir)? {
                let digest = name.to_str().map(|name| format!("{algorithm}:{name}"));
                all.push((dir.join(&name), digest.filter(|digest| Algorithm::parse(digest).is_ok())));
            }
        }
        Ok(all)
    }

    /// Whether a blob's content is what its name says.
    pub fn is_whole(&self, digest: &str) -> Result<bool> {
        let Ok((algorithm, name)) = Algorithm::parse(digest) else { return Ok(false) };
        let path = path(algorithm, name);
        let Some(mut file) = self.root.open_file(&path)? else { return Ok(false) };
        Ok(algorithm.of(&mut file).system(|| self.root.doing("reading", &path))? == name)
    }
}

impl Index {
    /// Its version and its type.
    pub fn check(&self) -> Result<(), Reason> {
        check(self.schema_version, self.media_type.as_deref(), INDEX)
    }
}

impl Manifest {
    /// Its version and its type.
    pub fn check(&self) -> Result<(), Reason> {
        check(self.schema_version, self.media_type.as_deref(), MANIFEST)
    }
}

/// How a layer of this media type is compressed; none for what is no layer.
pub fn layer_format(media_type: &str) -> Option<Format> {
    let rest = media_type.strip_prefix("application/vnd.oci.image.layer.")?;
    match rest.strip_prefix("nondistributable.").unwrap_or(rest) {
        "v1.tar" => Some(Format::Plain),
        "v1.tar+gzip" => Some(Format::Gzip),
        "v1.tar+zstd" => Some(Format::Zstd),
        _ => None,
    }
}

fn check(version: u32, media_type: Option<&str>, expected: &str) -> Result<(), Reason> {
    if version != 2 {
        return Err(Reason::new("bad-version", "its schemaVersion is not 2"));
    }
    if media_type.is_some_and(|media_type| media_type != expected) {
        return Err(Reason::new("bad-media-type", format!("its mediaType is not {expected}")));
    }
    Ok(())
}

fn json<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Reason> {
    serde_json::from_slice(bytes).map_err(|error| {
        let text = error.to_string();
        Reason::new("bad-json", format!("it is not what it should be: {}", text.as_bytes().escape_ascii()))
    })
}

fn path(algorithm: Algorithm, name: &str) -> PathBuf {
    let dir = if algorithm == Algorithm::Sha256 { "blobs/sha256" } else { "blobs/sha512" };
    Path::new(dir).join(name)
}
