//! Rollback protection: the newest signed list that was seen of each variant.
//!
//! An older list still has a good signature, but it leads back to a build with known vulnerabilities. The record belongs to the
//! signers and the variant, not to a mirror, because the mirror is the one that may lie.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::Site;
use crate::base::digest::hex;
use crate::base::error::{Error, Result};
use crate::base::text::printable;
use crate::base::time::{now, readable};
use crate::store::Store;
use crate::store::lock::{self, Mode};
use crate::verify::Keyring;

const REFS: &str = "seen";

/// A verified list that names a build.
#[derive(Debug)]
pub(super) struct SeenVersion {
    /// The subject of the list: `stage3-amd64-musl`.
    pub(super) of: String,
    /// The list's name. Two lists with the same build may be written some seconds apart.
    pub(super) list: String,
    /// Time of the list in seconds since 1970.
    pub(super) published: u64,
    /// Timestamp of the build that it names. Later builds sort after earlier ones.
    pub(super) build: String,
}

/// The newest versions that were seen of a subject.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Newest {
    /// Time of the newest copy of each list.
    lists: BTreeMap<String, u64>,
    /// Timestamp of the newest build.
    build: String,
    /// Time of this record in seconds since 1970, for people.
    at: u64,
}

/// Refuses a version older than one seen before, and remembers a newer one. With `allow_rollback` an older version is accepted, and
/// the record stays, so that the next run refuses it again.
pub(super) fn check(keyring: &Keyring, what: &str, version: &SeenVersion, at: &Site<'_>) -> Result<()> {
    let name = name(keyring, version);
    // Without the lock, two runs at once could undo each other's record.
    let _lock = lock::take(&at.store.root().join("refs/seen.lock"), Mode::Exclusive, || {})?;
    let mut newest: Newest = at.store.read_ref(REFS, &name)?.unwrap_or_default();
    match newest.newer_than(version) {
        Some(why) if at.options.allow_rollback => {
            at.ui.warn(&format!(
                "{what}: the signed version is older than one seen before ({why}); accepted for this run"
            ));
            Ok(())
        }
        Some(why) => Err(refused(what, &why)),
        None => {
            if version.build == newest.build && newest.lists.get(&version.list) == Some(&version.published) {
                return Ok(());
            }
            newest.lists.insert(version.list.clone(), version.published);
            (newest.build, newest.at) = (version.build.clone(), now());
            at.store.write_ref(REFS, &name, &newest)
        }
    }
}

/// Refuses a version older than one seen before, and remembers nothing: for a list that is only shown.
pub(super) fn look(store: &Store, keyring: &Keyring, what: &str, version: &SeenVersion) -> Result<()> {
    let newest: Option<Newest> = store.read_ref(REFS, &name(keyring, version))?;
    match newest.and_then(|newest| newest.newer_than(version)) {
        Some(why) => Err(refused(what, &why)),
        None => Ok(()),
    }
}

impl Newest {
    /// Explains why `version` is older than this record; `None` when it is not.
    fn newer_than(&self, version: &SeenVersion) -> Option<String> {
        let list = self.lists.get(&version.list).copied().unwrap_or_default();
        if version.build < self.build {
            let (of, build, seen) = (&version.of, &version.build, printable(&self.build));
            Some(format!("it names {of} of {build}, and {seen} was seen before"))
        } else if version.published < list {
            Some(format!("it was made {}, and one of {} was seen before", readable(version.published), readable(list)))
        } else {
            None
        }
    }
}

fn refused(what: &str, why: &str) -> Error {
    Error::refused(format!("{what}: the signed version is older than one seen before: {why}")).with_hint(
        "the mirror lags behind, or somebody tries to bring back an old build; name another mirror, or wait; \
         --allow-rollback accepts it for one run",
    )
}

fn name(keyring: &Keyring, version: &SeenVersion) -> String {
    format!("{}-{}", version.of, signers(keyring))
}

/// Returns an identifier of the trusted signers. A keyring with renewed certificates keeps its identifier.
fn signers(keyring: &Keyring) -> String {
    let mut digest = Sha256::new();
    keyring.trusted().for_each(|fingerprint| digest.update(fingerprint));
    hex(&digest.finalize()[..8])
}
