//! The documents of a layout as types: indexes, manifests and configurations. Pure.

use std::collections::BTreeMap;
use std::fmt;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer};
use serde_json::Value;

use super::digest::{self, Digest};
use super::shape::{self, Shape};
use crate::archive::unpack::decode::Format;
use crate::base::arch;
use crate::base::refusal::{Code, Reason};
use crate::base::text::printable;

/// Media type of an index.
pub const INDEX: &str = "application/vnd.oci.image.index.v1+json";
/// Media type of a manifest.
pub const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
/// Media type of an image configuration.
pub const CONFIG: &str = "application/vnd.oci.image.config.v1+json";

/// A reference to a blob.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Descriptor {
    pub media_type: String,
    /// The digest as it stands in the document; [`Digest::parse`] reads it.
    pub digest: String,
    /// Size of the blob in bytes.
    pub size: u64,
    /// Annotations. One of them is the tag of an image.
    #[serde(default, deserialize_with = "or_null")]
    pub annotations: BTreeMap<String, String>,
    /// Platform of an image.
    pub platform: Option<Platform>,
    /// A copy of the blob in base64.
    data: Option<String>,
}

impl Descriptor {
    /// Describes a blob.
    pub fn new(media_type: &str, digest: &Digest, size: u64) -> Self {
        let (media_type, digest) = (media_type.to_owned(), digest.to_string());
        Self { media_type, digest, size, annotations: BTreeMap::new(), platform: None, data: None }
    }

    /// Returns the tag of an image in `index.json`.
    pub fn name(&self) -> Option<&str> {
        self.annotations.get("org.opencontainers.image.ref.name").map(String::as_str)
    }

    /// Returns true if both descriptors refer to the same blob, under any tag.
    pub fn is_same(&self, other: &Self) -> bool {
        (&self.digest, self.size, &self.media_type) == (&other.digest, other.size, &other.media_type)
    }

    /// Compares the embedded copy of the blob with size and digest. The blob itself is compared with them when it is read.
    fn check_data(&self) -> Result<(), Reason> {
        let Some(data) = &self.data else { return Ok(()) };
        let of = printable(&self.digest);
        let wrong = |code, text: &str| Err(Reason::new(code, format!("the data in the descriptor of {of} {text}")));
        let Ok(bytes) = BASE64_STANDARD.decode(data) else { return wrong(Code::BadJson, "is not base64") };
        if bytes.len() as u64 != self.size {
            return wrong(Code::SizeMismatch, &format!("has {} bytes, its size is {}", bytes.len(), self.size));
        }
        // A malformed digest is a fault of its own, found when the blob is read.
        let Ok(expected) = Digest::parse(&self.digest) else { return Ok(()) };
        match Digest::of(expected.algorithm(), &bytes[..]) {
            Ok(found) if found == Some(expected) => Ok(()),
            _ => wrong(Code::DigestMismatch, "has a different digest"),
        }
    }
}

/// The platform of an image, in the words of Go.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Platform {
    /// Operating system, such as `linux`.
    pub os: String,
    /// Architecture, such as `amd64`.
    pub architecture: String,
    /// Variant of the architecture, such as `v7`.
    #[serde(default)]
    pub variant: Option<String>,
}

impl Platform {
    /// Parses `OS/ARCHITECTURE[/VARIANT]`.
    pub fn parse(text: &str) -> Option<Self> {
        let mut parts = text.split('/').map(str::to_owned);
        let platform = Self { os: parts.next()?, architecture: parts.next()?, variant: parts.next() };
        let is_whole = parts.next().is_none() && !text.split('/').any(str::is_empty);
        is_whole.then_some(platform)
    }

    /// Returns true if `other` is this platform, or a variant of it if this one has none.
    pub fn includes(&self, other: &Self) -> bool {
        (&self.os, &self.architecture) == (&other.os, &other.architecture)
            && (self.variant.is_none() || self.variant == other.variant)
    }

    /// Returns true if this machine runs the platform. The variant is ignored.
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

/// Reads a list or a map. Go writes `null` for an empty one.
fn or_null<'de, D: Deserializer<'de>, T: Deserialize<'de> + Default>(from: D) -> Result<T, D::Error> {
    Option::deserialize(from).map(Option::unwrap_or_default)
}

/// A JSON document of a layout.
pub trait Document: DeserializeOwned {
    /// Keys with a meaning, here or in the descriptors of the document.
    const KEYS: &'static [&'static str] = KEYS;
    /// Keys that only another kind of document has.
    const FOREIGN: &'static [&'static str];
    /// The required form.
    const SHAPE: Shape;

    /// Returns every descriptor of the document.
    fn descriptors(&self) -> Vec<&Descriptor> {
        Vec::new()
    }

    /// Checks version and media type.
    fn check(&self) -> Result<(), Reason> {
        Ok(())
    }
}

/// Keys of descriptors, indexes and manifests.
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
    "data",
];

impl Document for Index {
    const FOREIGN: &'static [&'static str] = &["layers", "config"];
    const SHAPE: Shape = shape::INDEX;

    fn descriptors(&self) -> Vec<&Descriptor> {
        self.manifests.iter().collect()
    }

    fn check(&self) -> Result<(), Reason> {
        check(self.schema_version, self.media_type.as_deref(), INDEX)
    }
}

impl Document for Manifest {
    const FOREIGN: &'static [&'static str] = &["manifests"];
    const SHAPE: Shape = shape::MANIFEST;

    fn descriptors(&self) -> Vec<&Descriptor> {
        self.layers.iter().chain([&self.config]).collect()
    }

    fn check(&self) -> Result<(), Reason> {
        check(self.schema_version, self.media_type.as_deref(), MANIFEST)
    }
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

    fn check(&self) -> Result<(), Reason> {
        match &self.image_layout_version[..] {
            "1.0.0" => Ok(()),
            _ => Err(Reason::new(Code::BadLayout, "oci-layout does not name version 1.0.0")),
        }
    }
}

/// An index: `index.json`, or a blob that an index refers to.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Index {
    /// Must be 2.
    schema_version: u32,
    /// Must be [`INDEX`], if present.
    media_type: Option<String>,
    /// Images and further indexes.
    #[serde(deserialize_with = "or_null")]
    pub manifests: Vec<Descriptor>,
}

/// A manifest: one image.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Manifest {
    /// Must be 2.
    schema_version: u32,
    /// Must be [`MANIFEST`], if present.
    media_type: Option<String>,
    /// Image configuration.
    pub config: Descriptor,
    /// Layers, the lowest first.
    #[serde(deserialize_with = "or_null")]
    pub layers: Vec<Descriptor>,
}

impl Manifest {
    /// Refuses a configuration that does not have one diff ID for each layer.
    pub fn check_count(&self, diff_ids: &[String]) -> Result<(), Reason> {
        if diff_ids.len() == self.layers.len() {
            return Ok(());
        }
        let text = format!("it has {} layers and {} diff IDs", self.layers.len(), diff_ids.len());
        Err(Reason::new(Code::LayerCount, text))
    }
}

/// An image configuration, as far as it describes the layers.
#[derive(Debug, Deserialize)]
pub struct Config {
    rootfs: RootFs,
}

impl Config {
    /// Returns the digests of the plain layers.
    pub fn diff_ids(self) -> Result<Vec<String>, Reason> {
        match &self.rootfs.kind[..] {
            "layers" => Ok(self.rootfs.diff_ids),
            _ => Err(Reason::new(Code::BadConfig, "its rootfs does not consist of layers")),
        }
    }
}

/// The layers of a configuration.
#[derive(Debug, Deserialize)]
struct RootFs {
    /// Must be `layers`.
    #[serde(rename = "type")]
    kind: String,
    /// Digests of the plain layers.
    #[serde(deserialize_with = "or_null")]
    diff_ids: Vec<String>,
}

/// The file `oci-layout`.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Marker {
    image_layout_version: String,
}

/// Returns the compression of a layer with this media type, or `None` if it is not that of a layer.
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

/// Parses a document. It is refused if programs could read it differently: those in Go accept keys in any case, and use the last one.
pub(super) fn parse<T: Document>(bytes: &[u8]) -> Result<T, Reason> {
    let bad = |text: &str| {
        Reason::new(Code::BadJson, format!("it does not have the required form: {}", text.as_bytes().escape_ascii()))
    };
    let document: T = serde_json::from_slice(bytes).map_err(|error| bad(&error.to_string()))?;
    let value: Value = serde_json::from_slice(bytes).map_err(|error| bad(&error.to_string()))?;
    T::SHAPE.check(&value).map_err(|fault| bad(fault.trim_start_matches('.')))?;
    let foreign = value.as_object().is_some_and(|object| T::FOREIGN.iter().any(|key| object.contains_key(*key)));
    if foreign || is_ambiguous(&value, T::KEYS) {
        let text = "programs may read it as another kind of document, or with other values";
        return Err(Reason::new(Code::AmbiguousDocument, text));
    }
    document.descriptors().into_iter().try_for_each(Descriptor::check_data)?;
    Ok(document)
}

/// Returns true if a known key is written in another case, here or in a descriptor.
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

/// Returns the digest that a blob must have, checked against the bytes of a document.
pub(super) fn has_digest(bytes: &[u8], expected: &Digest) -> Result<(), Reason> {
    match Digest::of(expected.algorithm(), bytes) {
        Ok(found) if found == Some(*expected) => Ok(()),
        _ => Err(digest::mismatch()),
    }
}
