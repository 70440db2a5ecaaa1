//! Snapshots as squashfs images: `snapshots/squashfs/gentoo-….xz.sqfs` of a mirror, and a signed list of their digests.

use crate::base::digest::{Algorithm, Sha512};
use crate::base::text::printable;
use crate::base::time::now;
use sha2::{Digest, Sha256};

use super::snapshot::as_source;
use crate::base::digest::hex;
use crate::base::error::{Error, Kind, Result};
use crate::recipe::Snapshot;
use crate::source::digests;
use crate::source::fetch::{FailureKind, Http};
use crate::source::{Dated, Facts, Located, Place, Proof, Site, keyring};
use crate::store::Store;
use crate::verify::{self, Keyring, MAX_DOCUMENT, Signed, Signer};

const DIRECTORY: &str = "snapshots/squashfs";
/// Kind of the refs that hold [`Facts`] by what is asked for.
const REFS: &str = "squashfs";
/// What a signed list may be long to be remembered.
const REMEMBERED: usize = 16 << 10;

/// How the images' names end.
pub(super) const ENDING: &str = ".xz.sqfs";

/// The path of what is asked for, on every mirror.
pub(super) fn path(snapshot: &Snapshot) -> String {
    format!("{DIRECTORY}/gentoo-{}{ENDING}", snapshot.date.as_deref().unwrap_or("current"))
}

/// Names of the signed lists that may have it, the likeliest first.
fn lists(snapshot: &Snapshot) -> Vec<String> {
    let own = snapshot.date.as_ref().map(|date| format!("gentoo-{date}.sha512sum.txt"));
    own.into_iter().chain(["gentoo-current.sha512sum.txt".to_owned(), "sha512sum.txt".to_owned()]).collect()
}

pub(super) fn first_urls(snapshot: &Snapshot) -> Vec<String> {
    let list = &lists(snapshot)[0];
    snapshot.mirrors.iter().map(|root| format!("{root}/{DIRECTORY}/{list}")).collect()
}

/// An image that a signed list gives the digest of.
struct Listed {
    name: String,
    sha512: Sha512,
    signer: Signer,
}

pub(super) fn locate(snapshot: &Snapshot, at: &Site<'_>) -> Result<Located> {
    at.ui.stage(&format!("looking for {}", printable(&path(snapshot))));
    let keyring = keyring(&as_source(snapshot).0, at.store)?;
    let http = Http::default();
    let mut troubles: Vec<Error> = Vec::new();
    for (index, root) in snapshot.mirrors.iter().enumerate() {
        match ask(&http, root, snapshot, &keyring, at) {
            Ok((listed, signed)) => {
                let mut mirrors = snapshot.mirrors.clone();
                mirrors[..=index].rotate_right(1);
                at.ui.done();
                return located(snapshot, listed, signed, &mirrors, &keyring, at.store);
            }
            Err(error) if matches!(error.kind(), Kind::Refused | Kind::Network) => {
                if index + 1 < snapshot.mirrors.len() {
                    at.ui.warn(&format!("{error}; trying the next mirror"));
                }
                troubles.push(error);
            }
            Err(error) => return Err(error),
        }
    }
    // A refusal says more than silence: it may be an attack.
    let worst = troubles.iter().position(|error| error.kind() == Kind::Refused).unwrap_or(0);
    Err(match troubles.is_empty() {
        true => Error::network("there is no mirror to ask"),
        false => troubles.swap_remove(worst),
    })
}

/// The image, as a mirror's first list that has it gives it, and the list.
fn ask(http: &Http, root: &str, snapshot: &Snapshot, keyring: &Keyring, at: &Site<'_>) -> Result<(Listed, Vec<u8>)> {
    let mut missing = Vec::new();
    for list in lists(snapshot) {
        let url = format!("{root}/{DIRECTORY}/{list}");
        let bytes = match http.document(&url, MAX_DOCUMENT) {
            Ok(bytes) => bytes,
            Err(failure) if failure.kind == FailureKind::Missing => {
                missing.push(format!("{failure}\n"));
                continue;
            }
            Err(failure) => return Err(Error::network(failure.to_string())),
        };
        let url = printable(&url);
        let Some(listed) = listed(&url, &bytes, snapshot, keyring)? else {
            missing.push(format!("{url}: it does not list {}\n", path(snapshot)));
            continue;
        };
        // How old a day's is, is in its name.
        if snapshot.date.is_none() {
            let (of, max_age) = (ref_name(snapshot), snapshot.max_age);
            let dated = Dated { of, max_age };
            dated.check(keyring, &url, listed.signer.created, at)?;
        }
        return Ok((listed, bytes));
    }
    Err(Error::network(format!("no signed list of {} has {}", printable(root), path(snapshot)))
        .with_details(missing.concat()))
}

/// What a signed list says of the image that is asked for: of the latest, by the newest day that has a name of its own, so that
/// whoever locks it finds it again.
fn listed(what: &str, signed: &[u8], snapshot: &Snapshot, keyring: &Keyring) -> Result<Option<Listed>> {
    let Signed { text, signer } = verify::clearsigned(what, signed, keyring)?;
    // As `sha512sum` writes it: without a word on the algorithm.
    let digests = digests::parse(&format!("# SHA512 HASH\n{text}"))?;
    let asked = path(snapshot);
    let asked = asked.rsplit('/').next().unwrap_or_default();
    let latest = digests.files().filter(|name| snapshot.date.is_none() && day(name).is_some()).max();
    for name in latest.into_iter().chain([asked]) {
        if let Some(sha512) = digests.of(name, Algorithm::Sha512)? {
            return Ok(Some(Listed { name: name.to_owned(), sha512: digests::sha512(sha512)?, signer }));
        }
    }
    Ok(None)
}

/// The day in the name of an image.
fn day(name: &str) -> Option<&str> {
    let day = name.strip_prefix("gentoo-")?.strip_suffix(ENDING)?;
    (day.len() == 8 && day.bytes().all(|byte| byte.is_ascii_digit())).then_some(day)
}

fn located(
    snapshot: &Snapshot,
    listed: Listed,
    signed: Vec<u8>,
    mirrors: &[String],
    keyring: &Keyring,
    store: &Store,
) -> Result<Located> {
    let remembered = store
        .read_ref::<Facts>(REFS, &ref_name(snapshot))?
        .filter(|facts| facts.trust == keyring.id() && facts.sha512 == Some(listed.sha512) && facts.digests.is_some());
    let here = store.blob(&listed.sha512)?.is_some();
    let new = remembered.is_none();
    let facts = remembered.unwrap_or_else(|| Facts {
        size: None,
        sha512: Some(listed.sha512),
        blake2b: None,
        timestamp: None,
        how: by(&listed.signer),
        signer: Some(listed.signer),
        verified_at: now(),
        trust: keyring.id().to_owned(),
        signature: None,
        digests: String::from_utf8(signed).ok().filter(|signed| signed.len() <= REMEMBERED),
        fetched: here,
    });
    // What another name brought here is not fetched again, and is known by this one too.
    if new && here {
        store.write_ref(REFS, &ref_name(snapshot), &facts)?;
    }
    Ok(of_facts(snapshot, listed.name, facts, mirrors, false))
}

/// What the store remembers, its signed list judged again by who is trusted now.
pub(super) fn known(snapshot: &Snapshot, store: &Store) -> Result<Option<Located>> {
    let keyring = keyring(&as_source(snapshot).0, store)?;
    let Some(facts) = store.read_ref::<Facts>(REFS, &ref_name(snapshot))? else { return Ok(None) };
    let listed = facts
        .digests
        .as_ref()
        .and_then(|signed| listed(&path(snapshot), signed.as_bytes(), snapshot, &keyring).ok().flatten());
    Ok(listed.filter(|listed| facts.sha512 == Some(listed.sha512)).map(|listed| {
        let (how, signer) = (by(&listed.signer), Some(listed.signer));
        of_facts(snapshot, listed.name, Facts { how, signer, ..facts }, &snapshot.mirrors, true)
    }))
}

fn of_facts(snapshot: &Snapshot, name: String, facts: Facts, mirrors: &[String], offline: bool) -> Located {
    Located {
        place: Place::Urls(mirrors.iter().map(|root| format!("{root}/{DIRECTORY}/{name}")).collect()),
        name,
        proof: Proof::Digest,
        facts,
        offline,
        remember: (REFS, ref_name(snapshot)),
        dated: None,
        sha256: None,
    }
}

fn by(signer: &Signer) -> String {
    format!("clearsigned SHA-512 by {}", signer.primary)
}

fn ref_name(snapshot: &Snapshot) -> String {
    hex(&Sha256::digest(path(snapshot)))
}
