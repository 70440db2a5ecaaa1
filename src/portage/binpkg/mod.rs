//! Binary packages: their files ([`gpkg`]) and the index of a directory of them ([`index`]).
//!
//! Both formats are foreign: a package may have been written by a hostile build, and an index by anyone. The readers bound every size
//! and fail closed.

use std::fmt;

use crate::base::text::plain;

mod depend;
pub mod gpkg;
pub mod index;

/// A reason for refusing a package or an index.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault(String);

impl Fault {
    fn new(text: impl AsRef<str>) -> Self {
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
