//! Ebuild repositories that are fetched: signed snapshots and commits of git repositories.
//!
//! [`snapshot`] (`squashfs` where it is an image) and [`git`] find out which bytes a repository is, and get them; [`tree`] says what of
//! them may become a tree. [`checkout`] is for those that are directories of this machine.

pub mod checkout;
pub mod git;
pub mod snapshot;
mod squashfs;
pub mod tree;

use crate::base::digest::Sha512;

/// What an ebuild repository is made from: enough to get the same one again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fact {
    /// A directory of this machine.
    Directory {
        /// The commit that it has checked out, where it is a git repository.
        commit: Option<String>,
    },
    /// A snapshot.
    Snapshot {
        /// Its top directory, such as `gentoo-20261121`: what it calls itself.
        name: String,
        /// Where it can be downloaded, the first to be tried first.
        urls: Vec<String>,
        /// Its size in bytes, where known.
        size: Option<u64>,
        /// SHA-512 of the tarball or image.
        sha512: Sha512,
        /// Primary fingerprint of the certificate that signed it.
        signer: Option<String>,
        /// What the trust in it rests on, in words.
        how: String,
    },
    /// A commit of a git repository.
    Git {
        /// Its address.
        url: String,
        /// The commit's id, 40 or 64 lower-case hex digits.
        commit: String,
        /// Primary fingerprint of the certificate that signed it; none: the recipe allows that nobody did.
        signer: Option<String>,
        /// What the trust in it rests on, in words.
        how: String,
    },
}
