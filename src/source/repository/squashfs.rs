//! Snapshots as squashfs images: `snapshots/squashfs/gentoo-….xz.sqfs` of a mirror, and a signed list of their digests.

use sha2::{Digest as _, Sha256};

use crate::base::digest::{Sha512, hex};
use crate::base::error::{Error, Result};
use crate::base::text::printable;
use crate::net::http::Http;
use crate::recipe::Snapshot;
use crate::source::digests;
use crate::source::freshness::SignatureAge;
use crate::source::mirrors::{self, Answer};
use crate::source::model::{FileMeta, Location, SourceFile};
use crate::source::{Site, Trust};
use crate::store::Store;
use crate::verify::{self, Evidence, Keyring, Signed, Signer};

const DIRECTORY: &str = "snapshots/squashfs";
/// Kind of the refs that hold [`FileMeta`] by path.
const REFS: &str = "squashfs";
/// Longest signed list that is remembered, in bytes.
const REMEMBERED: usize = 16 << 10;

/// Suffix of the images' names.
pub(super) const ENDING: &str = ".xz.sqfs";

/// Returns the path of the requested image below the root of each mirror.
pub(super) fn path(snapshot: &Snapshot) -> String {
    format!("{DIRECTORY}/gentoo-{}{ENDING}", snapshot.date.as_deref().unwrap_or("current"))
}

/// Names the signed lists that may have the image, the likeliest first.
fn lists(snapshot: &Snapshot) -> Vec<String> {
    let own = snapshot.date.as_ref().map(|date| format!("gentoo-{date}.sha512sum.txt"));
    own.into_iter().chain(["gentoo-current.sha512sum.txt".to_owned(), "sha512sum.txt".to_owned()]).collect()
}

pub(super) fn first_urls(snapshot: &Snapshot) -> Vec<String> {
    let list = &lists(snapshot)[0];
    snapshot.mirrors.iter().map(|root| format!("{root}/{DIRECTORY}/{list}")).collect()
}

/// An image and its digest from a signed list.
struct Listed {
    name: String,
    sha512: Sha512,
    signer: Signer,
    /// The signed list.
    document: Vec<u8>,
}

/// Asks the mirrors for a signed list that has the image.
pub(super) fn locate(snapshot: &Snapshot, at: &Site<'_>) -> Result<SourceFile> {
    at.ui.stage(&format!("looking for {}", printable(&path(snapshot))));
    let keyring = Trust::of_snapshot(snapshot).keyring(at.store)?;
    let http = Http::default();
    let roots: Vec<&str> = snapshot.mirrors.iter().map(String::as_str).collect();
    let asked = path(snapshot);
    let found = mirrors::each(&roots, &format!("list of {asked}"), at.ui, |root| {
        let mut missing = format!("no signed list of {} has {asked}\n", printable(root));
        for list in lists(snapshot) {
            let url = format!("{root}/{DIRECTORY}/{list}");
            match mirrors::document(&http, &url)? {
                Answer::Missing(why) => missing.push_str(&why),
                Answer::Found(bytes) => match listed(&printable(&url), bytes, snapshot, &keyring)? {
                    Some(listed) => {
                        check_age(&listed, &printable(&url), snapshot, &keyring, at)?;
                        return Ok(Answer::Found(listed));
                    }
                    None => missing.push_str(&format!("{}: it does not list {asked}\n", printable(&url))),
                },
            }
        }
        Ok(Answer::Missing(missing))
    })?;
    at.ui.done();
    match found {
        Answer::Found((index, listed)) => {
            remembered(snapshot, listed, &mirrors::preferring(&roots, index), &keyring, at.store)
        }
        Answer::Missing(details) => Err(Error::network(format!("no signed list has {asked}")).with_details(details)),
    }
}

/// Checks the age of the list that names the latest image. The name of a day's image tells its age.
fn check_age(listed: &Listed, url: &str, snapshot: &Snapshot, keyring: &Keyring, at: &Site<'_>) -> Result<()> {
    if snapshot.date.is_some() {
        return Ok(());
    }
    let age = SignatureAge { of: ref_name(snapshot), max_age: snapshot.max_age };
    age.check(keyring, url, listed.signer.created, at)
}

/// Finds the requested image in a signed list. The latest image is named by the newest day in the list, so that a lock can name it
/// again.
fn listed(what: &str, document: Vec<u8>, snapshot: &Snapshot, keyring: &Keyring) -> Result<Option<Listed>> {
    let Signed { text, signer } = verify::clearsigned(what, &document, keyring)?;
    // The list has the form of `sha512sum`, which does not name the algorithm.
    let digests = digests::parse(&format!("# SHA512 HASH\n{text}"))?;
    let asked = path(snapshot);
    let asked = asked.rsplit('/').next().unwrap_or_default();
    let latest = digests.files().filter(|name| snapshot.date.is_none() && day(name).is_some()).max();
    for name in latest.into_iter().chain([asked]) {
        if let Some(sha512) = digests.sha512(name)? {
            return Ok(Some(Listed { name: name.to_owned(), sha512, signer, document }));
        }
    }
    Ok(None)
}

/// Returns the day in the name of an image.
fn day(name: &str) -> Option<&str> {
    let day = name.strip_prefix("gentoo-")?.strip_suffix(ENDING)?;
    (day.len() == 8 && day.bytes().all(|byte| byte.is_ascii_digit())).then_some(day)
}

/// Returns the listed image, with the facts that the store remembers of it.
fn remembered(
    snapshot: &Snapshot,
    listed: Listed,
    roots: &[&str],
    keyring: &Keyring,
    store: &Store,
) -> Result<SourceFile> {
    let meta = store
        .read_ref::<FileMeta>(REFS, &ref_name(snapshot))?
        .filter(|meta| meta.is_good(keyring) && meta.sha512 == Some(listed.sha512) && meta.digests.is_some());
    if let Some(meta) = meta {
        return Ok(file(snapshot, listed.name, meta, roots));
    }
    let here = store.blob(&listed.sha512)?.is_some();
    let meta = FileMeta {
        sha512: Some(listed.sha512),
        trust_basis: by(&listed.signer),
        signer: Some(listed.signer),
        digests: String::from_utf8(listed.document).ok().filter(|signed| signed.len() <= REMEMBERED),
        fetched: here,
        ..FileMeta::new(keyring.id())
    };
    // An image that was fetched under another name is not fetched again, and is known by this name too.
    if here {
        store.write_ref(REFS, &ref_name(snapshot), &meta)?;
    }
    Ok(file(snapshot, listed.name, meta, roots))
}

/// Returns the image that the store remembers. The present keyring judges its signed list again.
pub(super) fn known(snapshot: &Snapshot, store: &Store) -> Result<Option<SourceFile>> {
    let keyring = Trust::of_snapshot(snapshot).keyring(store)?;
    let Some(meta) = store.read_ref::<FileMeta>(REFS, &ref_name(snapshot))? else { return Ok(None) };
    let document = meta.digests.clone().map(String::into_bytes);
    let listed = document.and_then(|document| listed(&path(snapshot), document, snapshot, &keyring).ok().flatten());
    let roots: Vec<&str> = snapshot.mirrors.iter().map(String::as_str).collect();
    Ok(listed.filter(|listed| meta.sha512 == Some(listed.sha512)).map(|listed| {
        let (trust_basis, signer) = (by(&listed.signer), Some(listed.signer));
        let file = file(snapshot, listed.name, FileMeta { trust_basis, signer, ..meta }, &roots);
        SourceFile { offline: true, ..file }
    }))
}

fn file(snapshot: &Snapshot, name: String, meta: FileMeta, roots: &[&str]) -> SourceFile {
    SourceFile {
        location: Location::Urls(roots.iter().map(|root| format!("{root}/{DIRECTORY}/{name}")).collect()),
        name,
        evidence: Evidence::Digest,
        meta,
        offline: false,
        remember: (REFS, ref_name(snapshot)),
        signature_age: None,
        unsigned_sha256: None,
    }
}

fn by(signer: &Signer) -> String {
    format!("clearsigned SHA-512 by {}", signer.primary)
}

fn ref_name(snapshot: &Snapshot) -> String {
    hex(&Sha256::digest(path(snapshot)))
}
