//! [`Verified`]: bytes that passed, and the only door to it.

use crate::base::text::printable;
use std::fs::File;

use crate::base::digest::Sha512;
use crate::base::error::{Context, Error, Result};
use crate::source::{Fetched, Proof, rewound};
use crate::verify::{Signer, detached};

/// A file in the store whose bytes are proven to be what was asked for (or accepted unsigned by the recipe's own word).
#[derive(Debug)]
pub struct Verified {
    file: File,
    name: String,
    sha512: Sha512,
    size: u64,
    timestamp: Option<String>,
    signer: Option<Signer>,
    how: String,
}

/// Judges fetched bytes: their size, their SHA-512 and, where nothing else proves them, their detached signature.
pub fn verify(fetched: Fetched) -> Result<Verified> {
    let Fetched { name, proof, facts, file, sha512, size } = fetched;
    let refused = |why: String| Error::refused(format!("verifying {}: {why}", printable(&name)));
    if let Some(wanted) = facts.size
        && wanted != size
    {
        return Err(refused(format!("it has {size} bytes where the signed size is {wanted}")));
    }
    match &facts.sha512 {
        Some(wanted) if *wanted != sha512 => {
            return Err(refused(format!("its SHA-512 is {sha512} and should be {wanted}")));
        }
        Some(_) => {}
        None if matches!(proof, Proof::Detached { .. }) => {}
        None => return Err(refused("nothing says what its digest should be".to_owned())),
    }
    let signer = match &proof {
        Proof::Digest | Proof::Locked | Proof::Unsigned => facts.signer,
        Proof::Detached { signature, keyring } => {
            Some(detached(&printable(&name), signature, rewound(&file)?, keyring)?)
        }
    };
    Ok(Verified { file, name, sha512, size, timestamp: facts.timestamp, signer, how: facts.how })
}

impl std::fmt::Display for Verified {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (name, signer) = (printable(&self.name), self.signer().unwrap_or("nobody"));
        writeln!(f, "{name}: good\n  size     {}\n  sha512   {}", self.size, self.sha512)?;
        write!(f, "  signer   {signer}\n  verified {}", self.how)
    }
}

impl Verified {
    /// The judged file itself, at its beginning. All handles share one position: read one at a time.
    pub fn open(&self) -> Result<File> {
        let file = self.file.try_clone().system(|| format!("opening {}", printable(&self.name)))?;
        rewound(&file)?;
        Ok(file)
    }

    /// The file's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its SHA-512.
    pub fn sha512(&self) -> Sha512 {
        self.sha512
    }

    /// Its size in bytes.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// When it was built, `YYYYMMDDTHHMMSSZ`, where that is known.
    pub fn timestamp(&self) -> Option<&str> {
        self.timestamp.as_deref()
    }

    /// Primary fingerprint of who signed for it.
    pub fn signer(&self) -> Option<&str> {
        self.signer.as_ref().map(|signer| signer.primary.as_str())
    }

    /// The signature that it rests on.
    pub(crate) fn signature(&self) -> Option<&Signer> {
        self.signer.as_ref()
    }

    /// What the trust rests on, for the provenance.
    pub fn how(&self) -> &str {
        &self.how
    }
}
