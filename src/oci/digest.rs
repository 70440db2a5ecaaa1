//! Digests of descriptors: an algorithm and lower-case hex, such as `sha256:e3b0…`.

use std::fmt;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use crate::base::digest::{Algorithm, HashingReader, Sha256, Sha512, Sums};
use crate::base::refusal::{Code, Reason};

/// A digest of a blob.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Digest {
    /// A SHA-256.
    Sha256(Sha256),
    /// A SHA-512.
    Sha512(Sha512),
}

impl Digest {
    /// Parses a digest. Upper-case hex is refused, as the image specification demands.
    pub fn parse(text: &str) -> Result<Self, Reason> {
        let digest = match text.split_once(':') {
            Some(("sha256", hex)) => Sha256::parse(hex).map(Self::Sha256),
            Some(("sha512", hex)) => Sha512::parse(hex).map(Self::Sha512),
            _ => return Err(Reason::new(Code::BadDigest, "its digest is neither SHA-256 nor SHA-512")),
        };
        let digest = digest.filter(|digest| digest.to_string() == text);
        digest.ok_or_else(|| Reason::new(Code::BadDigest, "its digest is malformed"))
    }

    /// Computes the digest of everything that `input` gives.
    pub fn of(algorithm: Algorithm, input: impl Read) -> io::Result<Option<Self>> {
        let mut input = HashingReader::new(input, &[algorithm]);
        io::copy(&mut input, &mut io::sink())?;
        Ok(Self::from_sums(algorithm, &input.finish()))
    }

    /// Returns the digest of `algorithm` if it was computed and descriptors may use it.
    pub fn from_sums(algorithm: Algorithm, sums: &Sums) -> Option<Self> {
        match algorithm {
            Algorithm::Sha256 => sums.sha256().map(Self::Sha256),
            Algorithm::Sha512 => sums.sha512().map(Self::Sha512),
            Algorithm::Blake2b => None,
        }
    }

    pub fn algorithm(&self) -> Algorithm {
        match self {
            Self::Sha256(_) => Algorithm::Sha256,
            Self::Sha512(_) => Algorithm::Sha512,
        }
    }

    /// Returns the path of the blob in a layout.
    pub fn path(&self) -> PathBuf {
        match self {
            Self::Sha256(digest) => Path::new("blobs/sha256").join(digest.hex()),
            Self::Sha512(digest) => Path::new("blobs/sha512").join(digest.hex()),
        }
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Sha256(digest) => write!(f, "sha256:{digest}"),
            Self::Sha512(digest) => write!(f, "sha512:{digest}"),
        }
    }
}

/// Returns the reason for content that does not have the digest of its descriptor or file name.
pub(super) fn mismatch() -> Reason {
    Reason::new(Code::DigestMismatch, "its content has a different digest")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digests_are_lower_case_hex_of_a_known_algorithm() {
        let (sha256, sha512) = (Sha256::of(b"").hex(), Sha512::of(b"").hex());
        for good in [format!("sha256:{sha256}"), format!("sha512:{sha512}")] {
            assert_eq!(Digest::parse(&good).unwrap().to_string(), good);
        }
        let upper = sha256.to_uppercase();
        for bad in ["", &sha256, &format!("sha256:{upper}"), &format!("sha256:{sha512}"), &format!("md5:{sha256}")] {
            assert_eq!(Digest::parse(bad).unwrap_err().code, Code::BadDigest, "{bad}");
        }
        assert_eq!(Digest::of(Algorithm::Sha256, &b""[..]).unwrap(), Some(Digest::Sha256(Sha256::of(b""))));
    }
}
