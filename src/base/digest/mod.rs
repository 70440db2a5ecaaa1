//! Digests: values that are parsed once ([`Sha256`], [`Sha512`], [`Blake2b`]), and the streams that compute them ([`Hasher`],
//! [`HashingReader`]).

mod hasher;
mod reader;

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use sha2::Digest as _;

pub use hasher::{Hasher, Sums};
pub use reader::HashingReader;

/// An algorithm of a signed list of digests or of an OCI descriptor.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Algorithm {
    /// SHA-256 (FIPS 180-4).
    Sha256,
    /// SHA-512 (FIPS 180-4).
    Sha512,
    /// BLAKE2b with 512 bits (RFC 7693).
    Blake2b,
}

impl Algorithm {
    /// Hex digits of a digest.
    pub fn digits(self) -> usize {
        match self {
            Self::Sha256 => 64,
            Self::Sha512 | Self::Blake2b => 128,
        }
    }
}

/// Bytes in lower-case hex.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        for half in [byte >> 4, byte & 15] {
            text.push(char::from_digit(half.into(), 16).unwrap_or('0'));
        }
        text
    })
}

/// Parses exactly `N` bytes of hex, in upper or lower case.
fn unhex<const N: usize>(text: &str) -> Option<[u8; N]> {
    let digits = text.as_bytes();
    let digit = |at: usize| char::from(digits[at]).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    if digits.len() != 2 * N {
        return None;
    }
    let mut bytes = [0; N];
    for (at, byte) in bytes.iter_mut().enumerate() {
        *byte = digit(2 * at)? << 4 | digit(2 * at + 1)?;
    }
    Some(bytes)
}

macro_rules! digest {
    ($(#[$doc:meta])* $name:ident, $length:literal, $hash:ty) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name([u8; $length]);

        impl $name {
            /// Parses hex digits in upper or lower case; `None` when they are not exactly a digest.
            pub fn parse(text: &str) -> Option<Self> {
                unhex(text).map(Self)
            }

            /// Computes the digest of `bytes`.
            pub fn of(bytes: &[u8]) -> Self {
                Self(<$hash>::digest(bytes).into())
            }

            /// The lower-case hex digits.
            pub fn hex(&self) -> String {
                hex(&self.0)
            }
        }

        impl From<[u8; $length]> for $name {
            fn from(bytes: [u8; $length]) -> Self {
                Self(bytes)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.hex())
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}({self})", stringify!($name))
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = String::deserialize(deserializer)?;
                Self::parse(&text).ok_or_else(|| {
                    serde::de::Error::custom(concat!("expected ", stringify!($length), " bytes of hex, a ", stringify!($name)))
                })
            }
        }
    };
}

digest! {
    /// A SHA-256 digest.
    Sha256, 32, sha2::Sha256
}

impl Sha256 {
    /// The bytes.
    pub fn bytes(&self) -> &[u8; 32] {
        &self.0
    }
}
digest! {
    /// A SHA-512 digest.
    Sha512, 64, sha2::Sha512
}
digest! {
    /// A BLAKE2b digest of 512 bits.
    Blake2b, 64, blake2::Blake2b512
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digests_are_parsed_in_either_case_and_shown_in_lower_case() {
        let empty = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        assert_eq!(Sha256::of(b"").hex(), empty);
        assert_eq!(Sha256::parse(&empty.to_uppercase()), Some(Sha256::of(b"")));
        assert_eq!(Sha512::of(b"").to_string().len(), Algorithm::Sha512.digits());
        for wrong in ["", "e3", &empty[1..], &format!("{empty}0"), &empty.replace('e', "g"), &empty.replace("e3", "é")]
        {
            assert_eq!(Sha256::parse(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn digests_are_hex_strings_in_documents() {
        let digest = Blake2b::of(b"x");
        let text = serde_json::to_string(&digest).unwrap();
        assert_eq!(text, format!("\"{digest}\""));
        assert_eq!(serde_json::from_str::<Blake2b>(&text).unwrap(), digest);
        assert!(serde_json::from_str::<Sha256>(&text).is_err());
        assert_eq!(hex(&[0, 0x9f, 0xff]), "009fff");
    }
}
