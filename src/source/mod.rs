//! The inputs of a recipe: its stage3, its ebuild repositories and the downloads of its steps, located, fetched, verified and unpacked.
//!
//! [`Wanted`] names an input. [`Wanted::locate`] finds the file or the commit and the evidence for it; [`Wanted::tree`] and
//! [`Wanted::bytes`] also fetch it, have [`crate::verify`] judge it, and unpack it into the store. [`pointer`](mod@pointer) and [`digests`] are
//! pure text.

use std::collections::BTreeMap;

use crate::base::digest::Sha512;
use crate::base::error::Result;
use crate::recipe::Job;
use crate::store::Store;

pub mod binhost;
mod branches;
pub mod digests;
mod download;
pub mod fetched;
mod freshness;
mod gentoo;
mod hashing;
pub mod inputs;
mod local_file;
pub mod locked;
mod mirrors;
mod model;
mod obtain;
pub mod pointer;
pub mod repository;
mod rollback;
mod signed_file;
mod site;
mod trust;

pub use branches::LocalBranches;
pub use gentoo::offers;
pub use inputs::RepositoryVersion;
pub use model::SourceFile;
pub use obtain::{Located, Wanted};
pub use site::{ResolveOptions, Site};
use trust::Trust;

/// Size of a buffer for copying and hashing, in bytes.
const BUFFER: usize = 256 * 1024;

/// Returns the newest stage3 of the recipe that the store knows, without asking a server. `None` if none was verified with the present
/// keyring.
///
/// # Errors
/// Those of the keyring and the store.
pub fn known(job: &Job, store: &Store) -> Result<Option<SourceFile>> {
    match Wanted::base(job) {
        Ok(wanted) => Ok(wanted.known(store)?.and_then(Located::file)),
        Err(_) => Ok(None),
    }
}

/// Returns the names of stored files by their SHA-512, as far as they are known.
///
/// # Errors
/// Those of the store.
pub fn names(store: &Store) -> Result<BTreeMap<Sha512, String>> {
    let mut names: BTreeMap<Sha512, String> = store.tree_names()?.into_iter().collect();
    names.extend(gentoo::names(store)?);
    Ok(names)
}

/// Lists the addresses of the documents that [`Wanted::locate`] asks for first, for a dry run.
///
/// # Errors
/// [`Kind::Usage`](crate::base::error::Kind::Usage) for an unknown variant.
pub fn first_urls(job: &Job) -> Result<Vec<String>> {
    match Wanted::base(job) {
        Ok(wanted) => wanted.first_urls(),
        Err(_) => Ok(Vec::new()),
    }
}

/// Hint for an input that the store lacks, when no server may be asked.
fn without_network(options: &ResolveOptions<'_>) -> &'static str {
    if options.locked.is_some() {
        "run once without --offline, or copy it from another store with `quern-builder store export` and `import`"
    } else {
        "run once without --offline; if the recipe is locked and the store has the locked inputs, use --locked"
    }
}

#[cfg(test)]
mod tests;

#[cfg(test)]
pub(crate) mod server;
