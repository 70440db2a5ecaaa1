//! Snapshots of Gentoo's ebuild repository: `snapshots/gentoo-latest.tar.xz` of a mirror, or a day's, with `.gpgsig` beside it; or a
//! squashfs image with a signed digest ([`squashfs`]).

use super::squashfs;
use crate::base::error::{Error, Kind, Result};
use crate::recipe::{Snapshot, SnapshotFormat};
use crate::source::obtain::fetch;
use crate::source::signed_file::Request;
use crate::source::trust::warn_of_expiry;
use crate::source::{Site, SourceFile, Trust, locked, without_network};
use crate::store::Store;
use crate::verify::{self, Verified};

const HINT: &str = "check the snapshot's `mirrors` and its day: mirrors keep about a week";

/// Finds the snapshot: on the mirrors, or in the store if no server may be asked.
pub(in crate::source) fn locate(snapshot: &Snapshot, at: &Site<'_>) -> Result<SourceFile> {
    if at.options.offline {
        return known(snapshot, at.store)?.ok_or_else(|| {
            Error::network(format!("the store has no verified {}", path(snapshot)))
                .with_hint(without_network(&at.options))
        });
    }
    let file = match snapshot.format {
        SnapshotFormat::Tar => request(snapshot).locate(at),
        SnapshotFormat::Squashfs => squashfs::locate(snapshot, at),
    };
    file.map_err(|error| match error.kind() {
        Kind::Network => error.with_hint(HINT),
        _ => error,
    })
}

/// Describes the recipe's request. The text stays the same while the request does.
pub(in crate::source) fn asked(snapshot: &Snapshot) -> String {
    locked::path_asked(&path(snapshot), snapshot.date.is_none())
}

/// Returns the snapshot that the store remembers, without asking a server.
pub(in crate::source) fn known(snapshot: &Snapshot, store: &Store) -> Result<Option<SourceFile>> {
    match snapshot.format {
        SnapshotFormat::Tar => request(snapshot).known(store),
        SnapshotFormat::Squashfs => squashfs::known(snapshot, store),
    }
}

/// Fetches and judges the located snapshot.
pub(in crate::source) fn verified(snapshot: &Snapshot, file: &SourceFile, at: &Site<'_>) -> Result<Verified> {
    let verified = fetch(file, at).and_then(verify::verify).or_else(|error| {
        // A mirror may have replaced the latest snapshot after its signature was read. Then there is a new signature.
        let fixed = snapshot.date.is_some() || at.options.offline || at.options.locked.is_some();
        if error.kind() != Kind::Refused || fixed {
            return Err(error);
        }
        let Ok(again) = locate(snapshot, at) else { return Err(error) };
        if (again.detached_signature(), again.sha512()) == (file.detached_signature(), file.sha512()) {
            return Err(error);
        }
        at.ui.note("the mirror replaced the latest snapshot meanwhile; fetching the new one");
        verify::verify(fetch(&again, at)?)
    })?;
    if let Some(signer) = verified.signer() {
        warn_of_expiry(&Trust::of_snapshot(snapshot).keyring(at.store)?, signer, at.ui);
    }
    Ok(verified)
}

/// Lists the addresses that [`locate`] asks for first.
pub(in crate::source) fn first_urls(snapshot: &Snapshot) -> Vec<String> {
    match snapshot.format {
        SnapshotFormat::Tar => request(snapshot).first_urls(),
        SnapshotFormat::Squashfs => squashfs::first_urls(snapshot),
    }
}

/// Returns the name that the top directory must have. A day's tarball must have its own, so that a good signature of another day
/// does not suffice. An image has no such name: the signed list names it, and a day's and the latest image may be the same bytes.
pub(in crate::source) fn top(snapshot: &Snapshot) -> Option<String> {
    match snapshot.format {
        SnapshotFormat::Tar => snapshot.date.as_ref().map(|date| format!("gentoo-{date}")),
        SnapshotFormat::Squashfs => None,
    }
}

/// Returns the file name on a mirror of the snapshot that calls itself `name`.
pub(in crate::source) fn file_name(snapshot: &Snapshot, name: &str) -> String {
    let ending = match snapshot.format {
        SnapshotFormat::Tar => ".tar.xz",
        SnapshotFormat::Squashfs => squashfs::ENDING,
    };
    format!("{name}{ending}")
}

/// Returns the name that a snapshot gives itself: its `top` directory, or the name of an image `file`.
pub(in crate::source) fn called(snapshot: &Snapshot, top: String, file: &str) -> String {
    match snapshot.format {
        SnapshotFormat::Tar => top,
        SnapshotFormat::Squashfs => file.strip_suffix(squashfs::ENDING).unwrap_or(file).to_owned(),
    }
}

/// Returns the path of the file below the root of each mirror.
pub(in crate::source) fn path(snapshot: &Snapshot) -> String {
    match snapshot.format {
        SnapshotFormat::Tar => format!("snapshots/gentoo-{}.tar.xz", snapshot.date.as_deref().unwrap_or("latest")),
        SnapshotFormat::Squashfs => squashfs::path(snapshot),
    }
}

fn request(snapshot: &Snapshot) -> Request<'_> {
    Request {
        path: path(snapshot),
        signature: ".gpgsig",
        digest: "",
        latest: snapshot.date.is_none(),
        mirrors: &snapshot.mirrors,
        trust: Trust::of_snapshot(snapshot),
        max_age: snapshot.max_age,
        hint: HINT,
    }
}
