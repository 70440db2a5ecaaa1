//! Binary packages: their files ([`gpkg`]), the index of a directory of them ([`index`]), the key of a cache ([`key`]), and the present
//! state of their sources ([`source`]).
//!
//! Packages and indexes are foreign: a package may have been written by a hostile build, and an index by anyone. The readers bound every
//! size and fail closed.

use std::fmt;

use crate::base::text::plain;

pub mod built;
mod depend;
pub mod exclude;
pub mod gpkg;
pub mod index;
pub mod key;
pub mod obsolete;
pub mod settings;
pub mod source;

/// A reason for refusing a package or an index.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault(String);

impl Fault {
    /// A fault with this text, without control characters.
    pub fn new(text: impl AsRef<str>) -> Self {
        Self(plain(text.as_ref(), 300))
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Fault {}

/// A result with a [`Fault`].
pub type Result<T> = std::result::Result<T, Fault>;

#[cfg(test)]
pub mod fixture;
