//! [`Candidate`]: bytes with the evidence for them. [`Verified`]: bytes that passed; only this file makes it.

use std::fs::File;

use super::{Keyring, Signer, detached};
use crate::base::digest::Sha512;
use crate::base::error::{Context, Error, Result};
use crate::base::text::printable;
use crate::fs::rewound;

/// The evidence for the bytes of a file.
#[derive(Debug, Clone)]
pub enum Evidence {
    /// A SHA-512 from a verified document or from the recipe.
    Digest,
    /// A detached signature over bytes that nobody has judged yet.
    Detached {
        /// The signature.
        signature: Vec<u8>,
        /// The certificates that may have made it.
        keyring: Keyring,
    },
    /// A SHA-512 from a lock file.
    Locked,
    /// None: the recipe accepts the file unsigned. The SHA-512 names the bytes that it accepted.
    Unsigned,
}

/// A file in the store that was hashed and is not judged yet.
#[derive(Debug)]
pub struct Candidate {
    /// The file's name.
    pub name: String,
    /// The open file.
    pub file: File,
    /// The SHA-512 of its bytes, computed by this process.
    pub sha512: Sha512,
    /// Its size in bytes.
    pub size: u64,
    /// The size that it must have, if known.
    pub expected_size: Option<u64>,
    /// The SHA-512 that it must have. Only a detached signature can stand in for it.
    pub expected_sha512: Option<Sha512>,
    /// The evidence for it.
    pub evidence: Evidence,
    /// The signer of the digest.
    pub signer: Option<Signer>,
    /// The reason for trusting it, in words.
    pub trust_basis: String,
}

/// A file in the store that is proven to be the one asked for, or that the recipe accepted unsigned.
#[derive(Debug)]
pub struct Verified {
    file: File,
    name: String,
    sha512: Sha512,
    size: u64,
    signer: Option<Signer>,
    trust_basis: String,
}

/// Judges a candidate by its size, its SHA-512 and, if nothing else proves it, its detached signature.
///
/// # Errors
/// [`Kind::Refused`](crate::base::error::Kind::Refused) when one of them is wrong or nothing proves the bytes.
pub fn verify(candidate: Candidate) -> Result<Verified> {
    let Candidate { name, file, sha512, size, evidence, .. } = candidate;
    let refused = |why: String| Error::refused(format!("verifying {}: {why}", printable(&name)));
    if let Some(wanted) = candidate.expected_size
        && wanted != size
    {
        return Err(refused(format!("it has {size} bytes instead of {wanted}")));
    }
    match candidate.expected_sha512 {
        Some(wanted) if wanted != sha512 => {
            return Err(refused(format!("its SHA-512 is {sha512} instead of {wanted}")));
        }
        Some(_) => {}
        None if matches!(evidence, Evidence::Detached { .. }) => {}
        None => return Err(refused("no digest is known for it".to_owned())),
    }
    let signer = match &evidence {
        Evidence::Digest | Evidence::Locked | Evidence::Unsigned => candidate.signer,
        Evidence::Detached { signature, keyring } => {
            Some(detached(&printable(&name), signature, rewound(&file)?, keyring)?)
        }
    };
    Ok(Verified { file, name, sha512, size, signer, trust_basis: candidate.trust_basis })
}

impl std::fmt::Display for Verified {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (name, signer) = (printable(&self.name), self.signer().unwrap_or("nobody"));
        writeln!(f, "{name}: good\n  size     {}\n  sha512   {}", self.size, self.sha512)?;
        write!(f, "  signer   {signer}\n  verified {}", self.trust_basis)
    }
}

impl Verified {
    /// Opens the judged file at its beginning. All handles share one position, so read one at a time.
    ///
    /// # Errors
    /// [`Kind::System`](crate::base::error::Kind::System) when the descriptor cannot be duplicated.
    pub fn open(&self) -> Result<File> {
        let file = self.file.try_clone().system(|| format!("opening {}", printable(&self.name)))?;
        rewound(&file)?;
        Ok(file)
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    pub fn sha512(&self) -> Sha512 {
        self.sha512
    }

    /// Returns the size in bytes.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Returns the primary fingerprint of the signer.
    pub fn signer(&self) -> Option<&str> {
        self.signer.as_ref().map(|signer| signer.primary.as_str())
    }

    /// Returns the signature that proves the file.
    pub fn signature(&self) -> Option<&Signer> {
        self.signer.as_ref()
    }

    /// Returns the reason for trusting the file, in words.
    pub fn trust_basis(&self) -> &str {
        &self.trust_basis
    }
}
