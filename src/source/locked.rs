//! Inputs as a lock file names them. No list is asked: the digest says which bytes.
//!
//! A lock file belongs to the user, as a digest in the recipe does, so its digests are trusted. Signers are not trusted further than
//! the recipe allows: a lock is invalid once its signer is not trusted any more.

use super::local_file::LocalFile;
use super::model::{FileMeta, Location, SourceFile};
use super::repository::snapshot;
use super::{Site, Trust, gentoo, pointer};
use crate::base::digest::Sha512;
use crate::base::error::{Error, Result};
use crate::base::text::printable;
use crate::lockfile::{LockedCommit, LockedFile};
use crate::recipe::{BaseSpec, Git, Snapshot, Source, Version};
use crate::store::Store;
use crate::verify::{Evidence, Signer};

const AGAIN: &str = "`quern-builder lock` with the recipe locks what it asks for now";
/// Hint for a locked file that the servers no longer have.
pub(super) const GONE: &str = "mirrors keep a build for about five weeks: if another store still has it, copy it with \
                               `quern-builder store export` and `quern-builder store import`; `quern-builder lock` locks what the \
                               mirrors offer now";
/// Hint for a locked file that the servers have replaced.
pub(super) const OTHER: &str = "the servers have another file than the locked one, or the lock file was changed: nothing was \
                                kept; if another store has the file, copy it with `quern-builder store export` and `import`";

/// Returns the error for a lock of another request than the recipe's.
pub(super) fn changed(asks: &str, locked: &str) -> Error {
    Error::usage(format!("the recipe asks for {asks}, and {} was locked", printable(locked)))
        .with_hint(format!("the recipe changed since it was locked: {AGAIN}"))
}

/// Returns the locked stage3, whatever the latest is now.
pub(super) fn stage3(source: &Source, locked: &LockedFile, at: &Site<'_>) -> Result<SourceFile> {
    check_request(source, locked)?;
    let may_be_unsigned =
        matches!(&source.base, BaseSpec::File { allow_unsigned: true, .. } | BaseSpec::File { sha512: Some(_), .. });
    check_signer(locked, Trust::of_source(source), may_be_unsigned, at.store)?;
    if let Some(local) = LocalFile::of_source(source)
        && at.store.blob(&locked.sha512)?.is_none()
    {
        let found = local.locate(at)?;
        if found.sha512() == Some(locked.sha512) {
            return Ok(found);
        }
        let is = found.sha512().map_or_else(|| "unknown".to_owned(), |sha512| sha512.hex());
        return Err(Error::refused(format!("{} is not the locked file", printable(&locked.name)))
            .with_details(format!("file    {is}\nlocked  {}", locked.sha512))
            .with_hint(AGAIN));
    }
    Ok(file(locked, urls(source, locked)?, at.options.offline))
}

/// Returns the locked snapshot, whatever the latest is now.
pub(super) fn snapshot(snapshot: &Snapshot, locked: &LockedFile, at: &Site<'_>) -> Result<SourceFile> {
    let asks = snapshot::asked(snapshot);
    if locked.asked != asks {
        return Err(changed(&asks, &locked.asked));
    }
    check_signer(locked, Trust::of_snapshot(snapshot), false, at.store)?;
    let urls = beside(&snapshot.mirrors, &snapshot::path(snapshot), locked);
    Ok(file(locked, urls, at.options.offline))
}

/// Returns the recipe's request with the locked commit in place of its branch's newest.
///
/// # Errors
/// [`Kind::Usage`](crate::base::error::Kind::Usage) when the recipe asks for another repository, branch or commit.
pub(super) fn commit(locked: &LockedCommit, git: &Git) -> Result<Git> {
    let branch = git.branch.as_ref().filter(|_| git.commit.is_none());
    let asks = (&git.url, branch, git.commit.as_ref().unwrap_or(&locked.commit));
    if asks != (&locked.url, locked.branch.as_ref(), &locked.commit) {
        let words = |url: &str, branch: Option<&String>, commit: &str| {
            format!("{url}, {}", branch.map_or_else(|| format!("commit {commit}"), |branch| format!("branch {branch}")))
        };
        let was = words(&locked.url, locked.branch.as_ref(), &locked.commit);
        return Err(changed(&words(asks.0, asks.1, asks.2), &was));
    }
    Ok(Git { commit: Some(locked.commit.clone()), ..git.clone() })
}

/// Lists the addresses of a locked stage3: on the recipe's mirrors, and the one where it was when it was locked.
///
/// # Errors
/// [`Kind::Usage`](crate::base::error::Kind::Usage) for an unknown variant.
pub fn urls(source: &Source, locked: &LockedFile) -> Result<Vec<String>> {
    let urls = match (&source.base, &locked.timestamp) {
        (BaseSpec::Gentoo { stage3, .. }, Some(timestamp)) => gentoo::urls(source, stage3, timestamp, &locked.name)?,
        (BaseSpec::SignedFile(file), _) => return Ok(beside(&source.mirrors, &file.path, locked)),
        _ => Vec::new(),
    };
    Ok(and_its_own(urls, locked))
}

/// Lists the addresses of a locked file in the directory of `path`. The path of the latest file may lead to another one by now.
fn beside(mirrors: &[String], path: &str, locked: &LockedFile) -> Vec<String> {
    let directory = path.rsplit_once('/').map_or("", |(directory, _)| directory);
    let urls = mirrors.iter().map(|root| format!("{root}/{directory}/{}", locked.name));
    and_its_own(urls.collect(), locked)
}

fn and_its_own(mut urls: Vec<String>, locked: &LockedFile) -> Vec<String> {
    urls.extend(locked.url.clone().filter(|url| !urls.contains(url)));
    urls
}

/// Describes a recipe's request. The text stays the same while the request does.
pub(super) fn asked(source: &Source) -> String {
    match &source.base {
        BaseSpec::Gentoo { stage3, version: Version::Latest } => format!("stage3 {stage3} (latest)"),
        BaseSpec::Gentoo { stage3, version: Version::Timestamp(timestamp) } => {
            format!("stage3 {stage3} of {timestamp}")
        }
        BaseSpec::SignedFile(file) => path_asked(&file.path, file.latest),
        BaseSpec::File { path, .. } => {
            format!("file {}", printable(&path.file_name().unwrap_or(path.as_os_str()).to_string_lossy()))
        }
        BaseSpec::Host { .. } => "this host".to_owned(),
    }
}

/// Describes a request for a path of a mirror.
pub(super) fn path_asked(path: &str, latest: bool) -> String {
    format!("{path}{}", if latest { " (latest)" } else { "" })
}

/// Returns the lock entry of a file. `None` while its digest or size is unknown; an `old` entry of the same bytes knows the size.
pub(super) fn entry(asked: String, file: &SourceFile, old: Option<&LockedFile>) -> Option<LockedFile> {
    let meta = &file.meta;
    let sha512 = meta.sha512?;
    let size = meta.size.or(old.filter(|old| old.sha512 == sha512).map(|old| old.size))?;
    let signer = meta.signer.as_ref();
    Some(LockedFile {
        asked,
        name: file.name.clone(),
        url: file.urls().first().cloned(),
        size,
        sha512,
        blake2b: meta.blake2b,
        timestamp: meta.timestamp.clone(),
        signer: signer.map(|signer| signer.primary.clone()),
        subkey: signer.filter(|signer| signer.key != signer.primary).map(|signer| signer.key.clone()),
        signed: signer.map(|signer| signer.created),
        trust_basis: meta.trust_basis.clone(),
    })
}

fn file(locked: &LockedFile, urls: Vec<String>, offline: bool) -> SourceFile {
    let signer = locked.signer.as_ref().map(|primary| Signer {
        primary: primary.clone(),
        key: locked.subkey.as_ref().unwrap_or(primary).clone(),
        created: locked.signed.unwrap_or_default(),
    });
    SourceFile {
        name: locked.name.clone(),
        location: Location::Urls(urls),
        evidence: Evidence::Locked,
        meta: FileMeta {
            size: Some(locked.size),
            sha512: Some(locked.sha512),
            blake2b: locked.blake2b,
            timestamp: locked.timestamp.clone(),
            signer,
            trust_basis: format!("locked: SHA-512 in the lock file; when it was locked: {}", locked.trust_basis),
            // The store remembers nothing of it: a file in a lock is not trusted without the lock.
            fetched: true,
            ..FileMeta::new("")
        },
        offline,
        remember: ("lock", String::new()),
        signature_age: None,
        unsigned_sha256: None,
    }
}

/// Refuses a lock of another stage3 than the recipe asks for.
fn check_request(source: &Source, locked: &LockedFile) -> Result<()> {
    let asks = asked(source);
    if locked.asked != asks {
        return Err(changed(&asks, &locked.asked));
    }
    let fits = match &source.base {
        BaseSpec::Gentoo { stage3, version } => {
            let named = pointer::split_name(&locked.name).map(|(variant, timestamp, _)| (variant, timestamp));
            named.is_some_and(|(variant, built)| {
                variant == stage3
                    && Some(built) == locked.timestamp.as_deref()
                    && !matches!(version, Version::Timestamp(wanted) if wanted != built)
            })
        }
        BaseSpec::SignedFile(_) => true,
        BaseSpec::File { sha512, .. } => {
            sha512.as_ref().is_none_or(|sha512| Sha512::parse(sha512) == Some(locked.sha512))
        }
        BaseSpec::Host { .. } => false,
    };
    if fits {
        return Ok(());
    }
    Err(Error::usage(format!("the locked {} is not what the recipe asks for", printable(&locked.name)))
        .with_hint(format!("the recipe, or the lock file, was changed by hand: {AGAIN}")))
}

/// Refuses a lock whose signer may no longer sign.
fn check_signer(locked: &LockedFile, trust: Trust<'_>, may_be_unsigned: bool, store: &Store) -> Result<()> {
    let refused = |why: String| {
        Err(Error::refused(format!("the locked {}: {why}", printable(&locked.name)))
            .with_hint(format!("the recipe's signers changed since it was locked: {AGAIN}")))
    };
    let Some(signer) = &locked.signer else {
        if may_be_unsigned {
            return Ok(());
        }
        return refused("it is unsigned, and the recipe does not accept that".to_owned());
    };
    let keyring = trust.keyring(store)?;
    if !keyring.trusted().any(|trusted| trusted == signer) {
        return refused(format!("it was signed by {signer}, which is not trusted here"));
    }
    let Some(certificate) = keyring.certificate(signer) else { return Ok(()) };
    if certificate.revoked {
        return refused(format!("its signer {signer} is revoked"));
    }
    match certificate.signing.iter().find(|key| key.revoked && Some(&key.fingerprint) == locked.subkey.as_ref()) {
        Some(key) => refused(format!("the key {} that signed it is revoked", key.fingerprint)),
        None => Ok(()),
    }
}
