//! The newest signed list that was seen of each variant: an older one is good by its signature, and still somebody's attempt (or a
//! mirror's misfortune) to take us back to a build whose holes are known.
//!
//! What is remembered belongs to the signers and the variant, not to a mirror: the mirror is who may lie.

use crate::base::text::printable;
use crate::base::time::{now, readable};
use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::Site;
use crate::base::digest::hex;
use crate::base::error::{Error, Result};
use crate::store::Store;
use crate::store::lock::{self, Mode};
use crate::verify::Keyring;

const REFS: &str = "seen";

/// A verified list that names a build.
#[derive(Debug)]
pub(super) struct Sighting {
    /// What it is a list of: `stage3-amd64-musl`.
    pub(super) of: String,
    /// The list's name: two lists with the same build may be written some seconds apart.
    pub(super) list: String,
    /// When it was made, in seconds since 1970.
    pub(super) published: u64,
    /// The timestamp of the build it names; later ones sort after earlier ones.
    pub(super) build: String,
}

#[derive(Debug, Default, Serialize, Deserialize)]
struct Seen {
    /// The newest of each list.
    lists: BTreeMap<String, u64>,
    /// The newest build.
    build: String,
    /// When, in seconds since 1970, for people.
    at: u64,
}

/// Refuses what is older than what was seen before, and remembers what is newer. With `allow_rollback` an older one is accepted; what is
/// remembered stays, so that the next run asks again.
pub(super) fn check(keyring: &Keyring, what: &str, sighting: &Sighting, at: &Site<'_>) -> Result<()> {
    let name = name(keyring, sighting);
    // Two runs that remember at once must not take each other back.
    let _lock = lock::take(&at.store.root().join("refs/seen.lock"), Mode::Exclusive, || {})?;
    let mut seen: Seen = at.store.read_ref(REFS, &name)?.unwrap_or_default();
    match seen.newer_than(sighting) {
        Some(why) if at.options.allow_rollback => {
            at.ui.warn(&format!("{what}: what is signed is older than it was ({why}); it is accepted this once"));
            Ok(())
        }
        Some(why) => Err(refused(what, &why)),
        None => {
            if sighting.build == seen.build && seen.lists.get(&sighting.list) == Some(&sighting.published) {
                return Ok(());
            }
            seen.lists.insert(sighting.list.clone(), sighting.published);
            (seen.build, seen.at) = (sighting.build.clone(), now());
            at.store.write_ref(REFS, &name, &seen)
        }
    }
}

/// Refuses what is older than what was seen before, and remembers nothing: for a list that is only shown.
pub(super) fn look(store: &Store, keyring: &Keyring, what: &str, sighting: &Sighting) -> Result<()> {
    let seen: Option<Seen> = store.read_ref(REFS, &name(keyring, sighting))?;
    match seen.and_then(|seen| seen.newer_than(sighting)) {
        Some(why) => Err(refused(what, &why)),
        None => Ok(()),
    }
}

impl Seen {
    /// How it shows that the sighting is of something old.
    fn newer_than(&self, sighting: &Sighting) -> Option<String> {
        let list = self.lists.get(&sighting.list).copied().unwrap_or_default();
        if sighting.build < self.build {
            let (of, build, seen) = (&sighting.of, &sighting.build, printable(&self.build));
            Some(format!("it names the {of} of {build}, and that of {seen} was seen before"))
        } else if sighting.published < list {
            Some(format!("it was made {}, and one of {} was seen before", readable(sighting.published), readable(list)))
        } else {
            None
        }
    }
}

fn refused(what: &str, why: &str) -> Error {
    Error::refused(format!("{what}: what is signed is older than it was: {why}")).with_hint(
        "a mirror that lags behind, or an attempt to bring back an old build; name another mirror, or wait; \
         --allow-rollback accepts it once",
    )
}

fn name(keyring: &Keyring, sighting: &Sighting) -> String {
    format!("{}-{}", sighting.of, signers(keyring))
}

/// Names who may sign: a keyring that was renewed is still theirs.
fn signers(keyring: &Keyring) -> String {
    let mut digest = Sha256::new();
    keyring.trusted().for_each(|fingerprint| digest.update(fingerprint));
    hex(&digest.finalize()[..8])
}
