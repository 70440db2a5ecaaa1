//! Snapshots of Gentoo's ebuild repository: `snapshots/gentoo-latest.tar.xz` of a mirror, or a day's, with `.gpgsig` beside it.
//!
//! They are found, downloaded and remembered as every file with a detached signature is ([`direct`]); squashfs images as every file
//! with a signed digest is ([`squashfs`]).

use super::squashfs;
use crate::base::error::{Error, Kind, Result};
use crate::base::time::now;
use crate::recipe::{BaseSpec, SignedFile, Snapshot, SnapshotFormat, Source};
use crate::source::pin::{self, Pin};
use crate::source::{Located, Proof, Site, direct, fetch, keyring, warn_of_expiry};
use crate::store::Store;
use crate::verify::{self, GENTOO_SNAPSHOTS, Verified};

/// Finds out which snapshot it is. Asks the mirrors; offline, the store alone.
///
/// # Errors
/// As [`super::super::locate`].
pub fn locate(snapshot: &Snapshot, at: &Site<'_>) -> Result<Located> {
    if at.options.offline {
        return known(snapshot, at.store)?.ok_or_else(|| {
            Error::network(format!("the store knows no verified {}", path(snapshot)))
                .with_hint("run once without --offline")
        });
    }
    let located = match snapshot.format {
        SnapshotFormat::Tar => {
            let (source, direct) = as_source(snapshot);
            direct::locate(&source, &direct, at)
        }
        SnapshotFormat::Squashfs => squashfs::locate(snapshot, at),
    };
    located.map_err(|error| match error.kind() {
        Kind::Network => error.with_hint("check the snapshot's `mirrors` and its day: mirrors keep about a week"),
        _ => error,
    })
}

/// The snapshot that was locked, whatever is the latest now.
///
/// # Errors
/// As for a stage3 that was locked.
pub fn pinned(snapshot: &Snapshot, pin: &Pin, at: &Site<'_>) -> Result<Located> {
    pin::locate(&as_source(snapshot).0, pin, at)
}

/// What the recipe asks for, in words that stay the same for as long as it asks for the same.
pub fn asked(snapshot: &Snapshot) -> String {
    pin::asked(&as_source(snapshot).0)
}

/// The snapshot as the store remembers it, without asking anybody.
///
/// # Errors
/// Those of the keyring and the store.
pub fn known(snapshot: &Snapshot, store: &Store) -> Result<Option<Located>> {
    match snapshot.format {
        SnapshotFormat::Tar => {
            let (source, direct) = as_source(snapshot);
            direct::known(&source, &direct, store)
        }
        SnapshotFormat::Squashfs => squashfs::known(snapshot, store),
    }
}

/// Gets the snapshot that was located, and judges it.
///
/// # Errors
/// As [`fetch()`] and [`verify::verify()`].
pub fn verified(snapshot: &Snapshot, located: &Located, at: &Site<'_>) -> Result<Verified> {
    let verified = fetch(located, at).and_then(verify::verify).or_else(|error| {
        // A mirror may have changed to a newer one after the signature was read: then there is another one now.
        if error.kind() != Kind::Refused || snapshot.date.is_some() || at.options.offline || at.options.locked.is_some()
        {
            return Err(error);
        }
        let Ok(again) = locate(snapshot, at) else { return Err(error) };
        if (signature(&again), again.sha512()) == (signature(located), located.sha512()) {
            return Err(error);
        }
        at.ui.note("the latest snapshot was replaced meanwhile; fetching the new one");
        verify::verify(fetch(&again, at)?)
    })?;
    if let Some(signer) = verified.signer() {
        warn_of_expiry(&keyring(&as_source(snapshot).0, at.store)?, signer, now(), at.ui);
    }
    Ok(verified)
}

/// What [`locate`] asks for first, for a dry run.
pub fn first_urls(snapshot: &Snapshot) -> Vec<String> {
    match snapshot.format {
        SnapshotFormat::Tar => {
            snapshot.mirrors.iter().map(|root| format!("{root}/{}.gpgsig", path(snapshot))).collect()
        }
        SnapshotFormat::Squashfs => squashfs::first_urls(snapshot),
    }
}

/// The top directory that it must have: a day's has its name, so that no other day's good signature can stand in for it. Of an
/// image the signed list has the name, and the day's and the latest may be the same bytes.
pub fn top(snapshot: &Snapshot) -> Option<String> {
    match snapshot.format {
        SnapshotFormat::Tar => snapshot.date.as_ref().map(|date| format!("gentoo-{date}")),
        SnapshotFormat::Squashfs => None,
    }
}

/// The file's name on a mirror, of a snapshot that calls itself `name`.
pub fn file_name(snapshot: &Snapshot, name: &str) -> String {
    let ending = match snapshot.format {
        SnapshotFormat::Tar => ".tar.xz",
        SnapshotFormat::Squashfs => squashfs::ENDING,
    };
    format!("{name}{ending}")
}

/// What a snapshot calls itself: its `top` directory, or an image the name of its `file`.
pub fn called(snapshot: &Snapshot, top: String, file: &str) -> String {
    match snapshot.format {
        SnapshotFormat::Tar => top,
        SnapshotFormat::Squashfs => file.strip_suffix(squashfs::ENDING).unwrap_or(file).to_owned(),
    }
}

fn signature(located: &Located) -> Option<&[u8]> {
    match &located.proof {
        Proof::Detached { signature, .. } => Some(signature),
        Proof::Digest | Proof::Locked | Proof::Unsigned => None,
    }
}

fn path(snapshot: &Snapshot) -> String {
    match snapshot.format {
        SnapshotFormat::Tar => format!("snapshots/gentoo-{}.tar.xz", snapshot.date.as_deref().unwrap_or("latest")),
        SnapshotFormat::Squashfs => squashfs::path(snapshot),
    }
}

/// A snapshot is a file of a server without a signed list.
pub(super) fn as_source(snapshot: &Snapshot) -> (Source, SignedFile) {
    let direct = SignedFile {
        path: path(snapshot),
        signature: ".gpgsig".to_owned(),
        digest: String::new(),
        latest: snapshot.date.is_none(),
        arch: String::new(),
    };
    let mut fingerprints = snapshot.fingerprints.clone();
    if snapshot.keyring.is_none() && fingerprints.is_empty() {
        fingerprints.push(GENTOO_SNAPSHOTS.to_owned());
    }
    let source = Source {
        base: BaseSpec::SignedFile(direct.clone()),
        mirrors: snapshot.mirrors.clone(),
        keyring: snapshot.keyring.clone(),
        fingerprints,
        max_age: snapshot.max_age,
        bounds: snapshot.bounds,
    };
    (source, direct)
}
