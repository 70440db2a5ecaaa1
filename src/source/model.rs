//! [`SourceFile`]: a file that is known by name, and perhaps not fetched yet.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::freshness::SignatureAge;
use crate::base::digest::{Blake2b, Sha256, Sha512};
use crate::base::time::now;
use crate::verify::{Evidence, Keyring, Signer, Verified};

/// A stage3 or a snapshot: its name, its digests and the evidence for them. Its bytes may not be here yet.
#[derive(Debug, Clone)]
pub struct SourceFile {
    pub(super) name: String,
    pub(super) location: Location,
    pub(super) evidence: Evidence,
    pub(super) meta: FileMeta,
    /// Ask no server.
    pub(super) offline: bool,
    /// Kind and name of the ref that remembers `meta`.
    pub(super) remember: (&'static str, String),
    /// Rules for the date of its detached signature, if no list has a date.
    pub(super) signature_age: Option<SignatureAge>,
    /// A SHA-256 that nobody signed. It finds damage, and proves nothing.
    pub(super) unsigned_sha256: Option<Sha256>,
}

/// The location of a file.
#[derive(Debug, Clone)]
pub(super) enum Location {
    /// Addresses of the same file on several servers, the preferred one first.
    Urls(Vec<String>),
    /// A path on this machine.
    Path(PathBuf),
}

/// Facts about a file, as the store remembers them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct FileMeta {
    /// Exact size in bytes, if known.
    pub(super) size: Option<u64>,
    pub(super) sha512: Option<Sha512>,
    pub(super) blake2b: Option<Blake2b>,
    /// Build time, `YYYYMMDDTHHMMSSZ`.
    pub(super) timestamp: Option<String>,
    pub(super) signer: Option<Signer>,
    /// The reason for trusting it, in words.
    #[serde(rename = "how")]
    pub(super) trust_basis: String,
    /// Time of the verification in seconds since 1970.
    pub(super) verified_at: u64,
    /// [`Keyring::id`] of the verification. Under another keyring the file must be verified again.
    pub(super) trust: String,
    /// SHA-256 of the detached signature that proved it.
    #[serde(default)]
    pub(super) signature: Option<Sha256>,
    /// The signed digests that proved it, so that another keyring can judge them without a network.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) digests: Option<String>,
    /// True if the bytes were ever in the store. Only such files are useful without a network.
    #[serde(default)]
    pub(super) fetched: bool,
}

impl FileMeta {
    /// Starts with nothing known, to be verified now under the keyring `trust`.
    pub(super) fn new(trust: &str) -> Self {
        Self {
            size: None,
            sha512: None,
            blake2b: None,
            timestamp: None,
            signer: None,
            trust_basis: String::new(),
            verified_at: now(),
            trust: trust.to_owned(),
            signature: None,
            digests: None,
            fetched: false,
        }
    }

    /// Returns true if the facts were verified with this keyring and name a digest.
    pub(super) fn is_good(&self, keyring: &Keyring) -> bool {
        self.trust == keyring.id() && self.sha512.is_some()
    }
}

impl SourceFile {
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Returns the exact size in bytes, if known.
    pub fn size(&self) -> Option<u64> {
        self.meta.size
    }

    /// Returns the SHA-512 that the file must have. `None` if only a detached signature proves it and it was never fetched.
    pub fn sha512(&self) -> Option<Sha512> {
        self.meta.sha512
    }

    /// Returns the build time, `YYYYMMDDTHHMMSSZ`.
    #[cfg(test)]
    pub fn timestamp(&self) -> Option<&str> {
        self.meta.timestamp.as_deref()
    }

    /// Returns the primary fingerprint of the signer.
    pub fn signer(&self) -> Option<&str> {
        self.meta.signer.as_ref().map(|signer| signer.primary.as_str())
    }

    /// Returns the reason for trusting the file, in words.
    pub fn trust_basis(&self) -> &str {
        &self.meta.trust_basis
    }

    /// Returns the addresses, the preferred one first; none for a local file.
    pub fn urls(&self) -> &[String] {
        match &self.location {
            Location::Urls(urls) => urls,
            Location::Path(_) => &[],
        }
    }

    /// Adds the facts that only the bytes could tell: their digest, their size and the maker of a detached signature.
    pub(super) fn with(mut self, verified: &Verified) -> Self {
        verified.name().clone_into(&mut self.name);
        self.meta.sha512 = Some(verified.sha512());
        self.meta.size = Some(verified.size());
        self.meta.signer = verified.signature().cloned();
        verified.trust_basis().clone_into(&mut self.meta.trust_basis);
        self
    }

    /// Returns the detached signature that must prove the file.
    pub(super) fn detached_signature(&self) -> Option<&[u8]> {
        match &self.evidence {
            Evidence::Detached { signature, .. } => Some(signature),
            Evidence::Digest | Evidence::Locked | Evidence::Unsigned => None,
        }
    }
}
