//! A layout's documents, read from `blobs` by digest.

use crate::base::arch;
use std::collections::BTreeMap;
use std::fmt;
use std::fs::File;
use std::io::{Read, Seek as _};
use std::path::{Path, PathBuf};

use rustix::fs::{FileType, Mode, OFlags};
use rustix::io::Errno;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer};
use serde_json::Value;
use sha2::{Digest as _, Sha256, Sha512};

use super::shape::{self, Shape};
use crate::archive::unpack::decode::Format;
use crate::base::digest::hex;
use crate::base::error::{Context, Result};
use crate::base::refusal::{Code, Reason};
use crate::fs::rootfs::Rootfs;

/// Largest document that is read, as the distribution specification recommends.
pub const MAX_DOCUMENT: u64 = 4 << 20;

/// Indexes in indexes.
pub const MAX_DEPTH: usize = 8;

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
    #[serde(default, deserialize_with = "or_null")]
    pub annotations: BTreeMap<String, String>,
    /// What the image runs on.
    pub platform: Option<Platform>,
}

impl Descriptor {
    /// The image's name, of a descriptor in `index.json`.
    pub fn name(&self) -> Option<&str> {
        self.annotations.get("org.opencontainers.image.ref.name").map(String::as_str)
    }

    /// Whether it points at the same, under whatever name.
    pub fn is_same(&self, other: &Self) -> bool {
        (&self.digest, self.size, &self.media_type) == (&other.digest, other.size, &other.media_type)
    }
}

/// What an image runs on, in Go's words.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Platform {
    /// `linux`, mostly.
    pub os: String,
    /// As Go calls it.
    pub architecture: String,
    /// A kind of the architecture.
    #[serde(default)]
    pub variant: Option<String>,
}

impl Platform {
    /// Whether this machine runs it, of whatever variant.
    pub fn is_of_this_machine(&self) -> bool {
        self.os == "linux" && self.architecture == arch::host().architecture
    }
}

impl fmt::Display for Platform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.os, self.architecture)?;
        self.variant.iter().try_for_each(|variant| write!(f, "/{variant}"))
    }
}

/// A list or a map that Go has none of is written as `null`.
fn or_null<'de, D: Deserializer<'de>, T: Deserialize<'de> + Default>(from: D) -> Result<T, D::Error> {
    Option::deserialize(from).map(Option::unwrap_or_default)
}

/// A document that is read.
pub trait Document: DeserializeOwned {
    /// Keys that mean something in it, or in the descriptors in it.
    const KEYS: &'static [&'static str];
    /// Keys that only another kind of document has.
    const FOREIGN: &'static [&'static str];
    /// What it looks like.
    const SHAPE: Shape;
}

/// What descriptors, indexes and manifests have.
const KEYS: &[&str] = &[
    "schemaVersion",
    "mediaType",
    "manifests",
    "layers",
    "config",
    "digest",
    "size",
    "annotations",
    "platform",
    "os",
    "architecture",
    "variant",
];

impl Document for Index {
    const KEYS: &'static [&'static str] = KEYS;
    const FOREIGN: &'static [&'static str] = &["layers", "config"];
    const SHAPE: Shape = shape::INDEX;
}

impl Document for Manifest {
    const KEYS: &'static [&'static str] = KEYS;
    const FOREIGN: &'static [&'static str] = &["manifests"];
    const SHAPE: Shape = shape::MANIFEST;
}

impl Document for Config {
    const KEYS: &'static [&'static str] = &["rootfs", "diff_ids", "os", "architecture"];
    const FOREIGN: &'static [&'static str] = &["layers", "manifests"];
    const SHAPE: Shape = shape::CONFIG;
}

impl Document for Marker {
    const KEYS: &'static [&'static str] = &["imageLayoutVersion"];
    const FOREIGN: &'static [&'static str] = &[];
    const SHAPE: Shape = Shape::Object(&[]);
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
    #[serde(deserialize_with = "or_null")]
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
    #[serde(deserialize_with = "or_null")]
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
    #[serde(deserialize_with = "or_null")]
    pub diff_ids: Vec<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Marker {
    image_layout_version: String,
}

/// An algorithm that digests are made with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
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
            _ => return Err(Reason::new(Code::BadDigest, "its digest is neither SHA-256 nor SHA-512")),
        };
        let lower = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
        if rest.len() != length || !rest.bytes().all(lower) {
            return Err(Reason::new(Code::BadDigest, "its digest is malformed"));
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

/// Paths of blobs, with their digests if their names are such.
pub type Names = Vec<(PathBuf, Option<String>)>;

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
        match self.file_of("oci-layout")?.and_then(|text| json::<Marker>(&text)) {
            Ok(marker) if marker.image_layout_version == "1.0.0" => {}
            Ok(_) => return Ok(Err(Reason::new(Code::BadLayout, "oci-layout does not say version 1.0.0"))),
            Err(reason) => return Ok(Err(reason)),
        }
        let index = self.file_of("index.json")?.and_then(|text| json::<Index>(&text));
        Ok(index.and_then(|index| index.check().map(|()| index)))
    }

    /// The content of one of the two files that have names.
    fn file_of(&self, name: &'static str) -> Result<Result<Vec<u8>, Reason>> {
        let code = if name == "oci-layout" { Code::NoLayout } else { Code::NoIndex };
        let missing = Reason::new(code, format!("there is no {name}"));
        let file = match self.open_file(Path::new(name), missing)? {
            Ok(file) => file,
            Err(reason) => return Ok(Err(reason)),
        };
        let mut bytes = Vec::new();
        file.take(MAX_DOCUMENT + 1).read_to_end(&mut bytes).system(|| self.root.doing("reading", Path::new(name)))?;
        match bytes.len() as u64 > MAX_DOCUMENT {
            true => Ok(Err(too_large())),
            false => Ok(Ok(bytes)),
        }
    }

    /// A regular file, links followed inside the layout; else the reason `missing`, or that it is something else.
    fn open_file(&self, path: &Path, missing: Reason) -> Result<Result<File, Reason>> {
        let handle = match self.root.openat2(path, OFlags::PATH, Mode::empty()) {
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => return Ok(Err(missing)),
            other => other.system(|| self.root.doing("opening", path))?,
        };
        let stat = rustix::fs::fstat(&handle).system(|| self.root.doing("looking at", path))?;
        if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
            return Ok(Err(Reason::new(Code::BadFile, "it is no regular file")));
        }
        Ok(self.root.open_file(path)?.ok_or(missing))
    }

    /// A blob whose size and digest are what its descriptor says, at its beginning.
    pub fn blob(&self, descriptor: &Descriptor) -> Result<Result<File, Reason>> {
        let mut file = match self.open_blob(descriptor)? {
            Ok(file) => file,
            Err(reason) => return Ok(Err(reason)),
        };
        let doing = || format!("reading {} in {}", descriptor.digest, self.path().display());
        let Ok((algorithm, name)) = Algorithm::parse(&descriptor.digest) else { return Ok(Err(other_digest())) };
        if algorithm.of(&mut file).system(doing)? != name {
            return Ok(Err(other_digest()));
        }
        file.rewind().system(doing)?;
        Ok(Ok(file))
    }

    /// As [`Layout::blob`], its content not looked at.
    pub fn open_blob(&self, descriptor: &Descriptor) -> Result<Result<File, Reason>> {
        let path = match Algorithm::parse(&descriptor.digest) {
            Ok((algorithm, name)) => path(algorithm, name),
            Err(reason) => return Ok(Err(reason)),
        };
        let file = match self.open_file(&path, Reason::new(Code::MissingBlob, "there is no such blob"))? {
            Ok(file) => file,
            Err(reason) => return Ok(Err(reason)),
        };
        let size = file.metadata().system(|| self.root.doing("looking at", &path))?.len();
        if size != descriptor.size {
            let text = format!("it has {size} bytes and should have {}", descriptor.size);
            return Ok(Err(Reason::new(Code::SizeMismatch, text)));
        }
        Ok(Ok(file))
    }

    /// A document.
    pub fn document<T: Document>(&self, descriptor: &Descriptor) -> Result<Result<T, Reason>> {
        if descriptor.size > MAX_DOCUMENT {
            return Ok(Err(too_large()));
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
            return Ok(Err(other_digest()));
        }
        Ok(json(&bytes))
    }

    /// The directories of blobs, and what is in them; none when one is no directory.
    pub fn blobs(&self) -> Result<Vec<(PathBuf, Option<Names>)>> {
        let mut all = Vec::new();
        for algorithm in ["sha256", "sha512"] {
            let dir = Path::new("blobs").join(algorithm);
            match self.root.openat2(&dir, OFlags::PATH | OFlags::DIRECTORY, Mode::empty()) {
                Err(Errno::NOENT) => continue,
                Err(Errno::NOTDIR | Errno::LOOP) => {
                    all.push((dir, None));
                    continue;
                }
                other => drop(other.system(|| self.root.doing("opening", &dir))?),
            }
            let named = |(name, _): (std::ffi::OsString, FileType)| {
                let digest = name.to_str().map(|name| format!("{algorithm}:{name}"));
                (dir.join(&name), digest.filter(|digest| Algorithm::parse(digest).is_ok()))
            };
            let names = self.root.read_dir(&dir)?.into_iter().map(named).collect();
            all.push((dir, Some(names)));
        }
        Ok(all)
    }

    /// What is wrong with a blob whose content should be what its name says.
    pub fn fault(&self, digest: &str) -> Result<Option<Reason>> {
        let (algorithm, name) = match Algorithm::parse(digest) {
            Ok(parsed) => parsed,
            Err(reason) => return Ok(Some(reason)),
        };
        let path = path(algorithm, name);
        let mut file = match self.open_file(&path, Reason::new(Code::MissingBlob, "there is no such blob"))? {
            Ok(file) => file,
            Err(reason) => return Ok(Some(reason)),
        };
        let whole = algorithm.of(&mut file).system(|| self.root.doing("reading", &path))? == name;
        Ok((!whole).then(other_digest))
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
        return Err(Reason::new(Code::BadVersion, "its schemaVersion is not 2"));
    }
    if media_type.is_some_and(|media_type| media_type != expected) {
        return Err(Reason::new(Code::BadMediaType, format!("its mediaType is not {expected}")));
    }
    Ok(())
}

/// A document that every reader takes for the same. Go's takes keys in any case, and the last of several.
fn json<T: Document>(bytes: &[u8]) -> Result<T, Reason> {
    let not_so = |text: &str| {
        Reason::new(Code::BadJson, format!("it is not what it should be: {}", text.as_bytes().escape_ascii()))
    };
    let bad = |error: serde_json::Error| not_so(&error.to_string());
    let document = serde_json::from_slice(bytes).map_err(bad)?;
    let value: Value = serde_json::from_slice(bytes).map_err(bad)?;
    T::SHAPE.check(&value).map_err(|what| not_so(what.trim_start_matches('.')))?;
    let foreign = value.as_object().is_some_and(|object| T::FOREIGN.iter().any(|key| object.contains_key(*key)));
    match foreign || is_ambiguous(&value, T::KEYS) {
        true => Err(Reason::new(
            Code::AmbiguousDocument,
            "it may be read as another kind of document, or with other values",
        )),
        false => Ok(document),
    }
}

/// Whether a key has another case than it should, also in what is pointed at.
fn is_ambiguous(value: &Value, keys: &[&str]) -> bool {
    match value {
        Value::Object(object) => object.iter().any(|(key, value)| {
            let folded = keys.iter().any(|known| key != known && key.eq_ignore_ascii_case(known));
            let inside = matches!(&key[..], "manifests" | "layers" | "config" | "rootfs" | "platform")
                && keys.contains(&&key[..]);
            folded || (inside && is_ambiguous(value, keys))
        }),
        Value::Array(values) => values.iter().any(|value| is_ambiguous(value, keys)),
        _ => false,
    }
}

fn too_large() -> Reason {
    Reason::new(Code::TooLarge, format!("it has more than {MAX_DOCUMENT} bytes"))
}

/// Its bytes are not those that its name promises.
pub(super) fn other_digest() -> Reason {
    Reason::new(Code::DigestMismatch, "its content has another digest")
}

fn path(algorithm: Algorithm, name: &str) -> PathBuf {
    let dir = if algorithm == Algorithm::Sha256 { "blobs/sha256" } else { "blobs/sha512" };
    Path::new(dir).join(name)
}
