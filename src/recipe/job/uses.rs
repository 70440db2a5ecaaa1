//! The things that steps use, resolved.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use serde::{Serialize, Serializer};
use zeroize::Zeroizing;

use super::Git;
use crate::archive::leak;
use crate::base::digest::Sha256;

/// The places of emerge's own mounts besides those of every step.
pub const EMERGE_MOUNTS: [&str; 10] = [
    "/run",
    "/var/cache/binhost",
    "/var/cache/binpkgs",
    "/var/cache/binpkgs-builder",
    "/var/cache/ccache",
    "/var/cache/distfiles",
    "/var/db/repos",
    "/var/git/meta-repo/kits",
    "/var/log/portage",
    "/var/tmp",
];

/// `[bind.NAME]`: files of this machine that a step sees.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Bind {
    /// The name; empty for a bind that only one step has.
    pub name: String,
    /// The absolute mount point.
    pub at: PathBuf,
    /// The content.
    #[serde(flatten)]
    pub content: BindContent,
    /// True if writes reach this machine.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub write: bool,
}

/// The content of a bind.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum BindContent {
    /// A file or directory of this machine.
    From(PathBuf),
    /// A file that the build writes.
    Text {
        /// The content. Serialised as its SHA-256.
        #[serde(rename = "sha256", serialize_with = "digest")]
        bytes: Vec<u8>,
        /// The permission bits.
        mode: u32,
    },
}

#[expect(clippy::ptr_arg, reason = "serde passes the type of the field")]
fn digest<S: Serializer>(bytes: &Vec<u8>, serializer: S) -> Result<S::Ok, S::Error> {
    Sha256::of(bytes).serialize(serializer)
}

/// `[cache.NAME]`: a directory that is kept from build to build and is not in any layer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct StepCache {
    /// The name. `binpkgs`, `distfiles` and `ccache` are those of the build, which steps can read only.
    pub name: String,
    /// The absolute mount point.
    pub at: PathBuf,
    /// Its use by several builds at once.
    pub sharing: Sharing,
    /// The permission bits of the directory; by default those of the directory in the tree.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mode: Option<u32>,
    /// Its owner; by default that of the directory in the tree.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub uid: Option<u32>,
    /// Its group; by default that of the directory in the tree.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gid: Option<u32>,
}

impl StepCache {
    /// Returns true for a cache of the build.
    pub fn is_built_in(&self) -> bool {
        matches!(self.name.as_str(), "binpkgs" | "distfiles" | "ccache")
    }
}

/// The use of a cache by several builds at once.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Sharing {
    /// All builds use it.
    #[default]
    Shared,
    /// One build uses it, and others wait.
    Locked,
    /// A build gets one that no other build uses.
    Private,
}

/// `[volume.NAME]`: a directory that is kept with the layers and is not shipped.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Volume {
    /// The name.
    pub name: String,
    /// The absolute mount point.
    pub at: PathBuf,
    /// The recipe of the image whose volume of this name it begins with.
    #[serde(skip)]
    pub of: Option<PathBuf>,
}

/// `[fetch.NAME]`: a verified download, which steps see at `/quern/fetch/NAME`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Fetch {
    /// The name.
    pub name: String,
    /// The origin and the proof.
    #[serde(flatten)]
    pub from: FetchFrom,
    /// True to unpack an archive.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub unpack: bool,
}

/// The origin of a download.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum FetchFrom {
    /// A file on a server, with at least one digest.
    File {
        /// Its address.
        url: String,
        /// Its SHA-256, 64 lower-case hex digits.
        sha256: Option<String>,
        /// Its SHA-512, 128 lower-case hex digits.
        sha512: Option<String>,
    },
    /// A commit of a git repository.
    Git(Git),
}

/// `[daemon.NAME]`: a process that lives while the steps that name it run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Daemon {
    /// The name.
    pub name: String,
    /// The command, in exec form.
    pub run: Vec<String>,
    /// The sign that it is ready; `None`: at once.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ready: Option<Ready>,
    /// The longest time until it is ready, in seconds.
    pub timeout: u64,
    /// True to use the host's network.
    pub network: bool,
}

/// The sign that a daemon is ready.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Ready {
    /// A TCP port accepts connections, as `host:port`.
    Tcp(String),
    /// An absolute path exists.
    Path(PathBuf),
    /// A command, in exec form, ends with 0.
    Command(Vec<String>),
}

/// `[secret.NAME]`: a value that no layer holds. Steps see it as the file `/run/secrets/NAME`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Secret {
    /// The name.
    pub name: String,
    /// True if another value makes the steps run again that name it.
    pub rebuild: bool,
    /// The value.
    pub value: SecretValue,
}

/// Only the name: a provenance must not contain the value.
impl Serialize for Secret {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.name.serialize(serializer)
    }
}

/// The value of a secret. It is overwritten when it is dropped, and neither shown nor serialised.
#[derive(Clone, PartialEq, Eq)]
pub struct SecretValue(Option<Arc<Zeroizing<Vec<u8>>>>);

impl SecretValue {
    /// Wraps a value.
    pub fn new(bytes: Vec<u8>) -> Self {
        Self(Some(Arc::new(Zeroizing::new(bytes))))
    }

    /// A value that was not read.
    pub fn absent() -> Self {
        Self(None)
    }

    /// Returns true for a value that was not read.
    pub fn is_absent(&self) -> bool {
        self.0.is_none()
    }

    /// Returns the bytes; none if they were not read.
    pub fn expose(&self) -> &[u8] {
        self.0.as_deref().map_or(&[], |bytes| bytes)
    }

    /// Returns true if the value is long enough to be looked for in files.
    pub fn is_searched(&self) -> bool {
        leak::trimmed(self.expose()).len() >= leak::SHORTEST
    }
}

impl fmt::Debug for SecretValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SecretValue(…)")
    }
}
