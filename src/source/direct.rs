//! Servers without a signed list: a tarball at a path that the recipe's layout says, with a detached signature beside it. Funtoo's
//! are so, and a mirror of one's own may be.
//!
//! The signature covers the bytes and nothing else: neither the path nor which build is the latest. All the time there is, is when it
//! was made.

use crate::base::text::printable;
use crate::base::time::now;
use sha2::{Digest, Sha256};

use super::digests;
use super::fetch::{FailureKind, Http};
use super::{Dated, Facts, Located, Place, Proof, Site, keyring};
use crate::base::digest::hex;
use crate::base::error::{Error, Kind, Result};
use crate::recipe::{SignedFile, Source};
use crate::store::Store;
use crate::verify::MAX_DOCUMENT;

/// Kind of the refs that hold [`Facts`] by path.
pub(super) const REFS: &str = "direct";

pub(super) fn locate(source: &Source, direct: &SignedFile, at: &Site<'_>) -> Result<Located> {
    at.ui.stage(&format!("looking for {}", printable(&direct.path)));
    let keyring = keyring(source, at.store)?;
    let http = Http::default();
    let mut troubles: Vec<String> = Vec::new();
    let mut found = None;
    for (index, root) in source.mirrors.iter().enumerate() {
        let url = format!("{root}/{}{}", direct.path, direct.signature);
        match http.document(&url, MAX_DOCUMENT) {
            Ok(signature) => {
                found = Some((index, signature));
                break;
            }
            Err(failure) => {
                if index + 1 < source.mirrors.len() {
                    at.ui.warn(&format!("{failure}; trying the next mirror"));
                }
                troubles.push(format!("{failure}\n"));
            }
        }
    }
    let Some((index, signature)) = found else {
        let error = Error::network(format!("no mirror has the signature of {}", printable(&direct.path)))
            .with_details(troubles.concat());
        return Err(match known(source, direct, at.store) {
            Ok(Some(_)) => error.with_hint("with --offline the stored one is used"),
            _ => error.with_hint("check source.mirrors, and source.release, arch and subarch"),
        });
    };
    let mut mirrors: Vec<&String> = source.mirrors.iter().collect();
    mirrors[..=index].rotate_right(1);
    let urls = mirrors.iter().map(|root| format!("{root}/{}", direct.path)).collect();
    let sha256 = digest(&http, mirrors[0], direct)?;
    let signed = hex(&Sha256::digest(&signature));
    let remembered = at.store.read_ref::<Facts>(REFS, &ref_name(direct))?.filter(|facts| {
        facts.trust == keyring.id() && facts.signature.as_ref() == Some(&signed) && facts.sha512.is_some()
    });
    // Who asks for a build of a day wants it however old it is.
    let dated = direct.latest.then(|| Dated { of: ref_name(direct), max_age: source.max_age });
    let (facts, proof) = match remembered {
        Some(facts) => {
            // Good once, and perhaps too old by now.
            if let (Some(signer), Some(dated)) = (&facts.signer, &dated) {
                dated.check(&keyring, &direct.path, signer.created, at)?;
            }
            (facts, Proof::Digest)
        }
        None => {
            let facts = Facts {
                size: None,
                sha512: None,
                blake2b: None,
                timestamp: None,
                signer: None,
                how: "detached signature".to_owned(),
                verified_at: now(),
                trust: keyring.id().to_owned(),
                signature: Some(signed),
                digests: None,
                fetched: false,
            };
            (facts, Proof::Detached { signature, keyring })
        }
    };
    at.ui.done();
    Ok(Located {
        name: name(direct),
        place: Place::Urls(urls),
        proof,
        facts,
        offline: false,
        remember: (REFS, ref_name(direct)),
        dated,
        sha256,
    })
}

/// What the store remembers of this path.
pub(super) fn known(source: &Source, direct: &SignedFile, store: &Store) -> Result<Option<Located>> {
    let keyring = keyring(source, store)?;
    let facts = store.read_ref::<Facts>(REFS, &ref_name(direct))?;
    Ok(facts.filter(|facts| facts.trust == keyring.id() && facts.sha512.is_some()).map(|facts| Located {
        name: name(direct),
        place: Place::Urls(source.mirrors.iter().map(|root| format!("{root}/{}", direct.path)).collect()),
        proof: Proof::Digest,
        facts,
        offline: true,
        remember: (REFS, ref_name(direct)),
        dated: None,
        sha256: None,
    }))
}

/// The SHA-256 beside the file, where there is one: nobody signed it, so that it only tells damage from forgery.
fn digest(http: &Http, root: &str, direct: &SignedFile) -> Result<Option<String>> {
    if direct.digest.is_empty() {
        return Ok(None);
    }
    let url = format!("{root}/{}{}", direct.path, direct.digest);
    match http.document(&url, MAX_DOCUMENT) {
        Ok(bytes) => digests::line(&bytes).map(Some).ok_or_else(|| {
            Error::refused(format!("{}: it is not a line with a SHA-256", printable(&url)))
                .with_hint("another mirror (source.mirrors) may have the right one")
        }),
        Err(failure) if failure.kind == FailureKind::Missing => Ok(None),
        Err(failure) => Err(Error::new(Kind::Network, failure.to_string())),
    }
}

fn name(direct: &SignedFile) -> String {
    direct.path.rsplit('/').next().unwrap_or_default().to_owned()
}

fn ref_name(direct: &SignedFile) -> String {
    hex(&Sha256::digest(&direct.path))
}
