//! Files of servers without a signed list: a file at a known path, with a detached signature beside it. Funtoo's stage3s and
//! Gentoo's snapshots are such files, and a private mirror may have some.
//!
//! The signature covers the bytes only, not the path. The only known time is the time of the signature.

use sha2::{Digest, Sha256 as Hash};

use super::digests;
use super::freshness::SignatureAge;
use super::mirrors::{self, Answer};
use super::model::{FileMeta, Location, SourceFile};
use super::{Site, Trust};
use crate::base::digest::{Sha256, hex};
use crate::base::error::{Error, Result};
use crate::base::text::printable;
use crate::net::http::Http;
use crate::recipe::{SignedFile, Source};
use crate::store::Store;
use crate::verify::Evidence;

/// Kind of the refs that hold [`FileMeta`] by path.
pub(super) const REFS: &str = "direct";

/// A file on mirrors with a detached signature beside it.
#[derive(Debug, Clone)]
pub(super) struct Request<'a> {
    /// Below the root of each mirror.
    pub(super) path: String,
    /// Suffix of the signature's name.
    pub(super) signature: &'a str,
    /// Suffix of the name of an unsigned digest; empty if there is none.
    pub(super) digest: &'a str,
    /// The path leads to the latest build, so that the age of its signature matters.
    pub(super) latest: bool,
    pub(super) mirrors: &'a [String],
    pub(super) trust: Trust<'a>,
    /// Greatest age of the signature of the latest build, in seconds.
    pub(super) max_age: u64,
    /// Hint for a file that no mirror has.
    pub(super) hint: &'static str,
}

impl<'a> Request<'a> {
    pub(super) fn of_stage3(source: &'a Source, file: &'a SignedFile) -> Self {
        Self {
            path: file.path.clone(),
            signature: &file.signature,
            digest: &file.digest,
            latest: file.latest,
            mirrors: &source.mirrors,
            trust: Trust::of_source(source),
            max_age: source.max_age,
            hint: "check source.mirrors, and source.release, arch and subarch",
        }
    }

    /// Lists the addresses of the signature.
    pub(super) fn first_urls(&self) -> Vec<String> {
        self.mirrors.iter().map(|root| format!("{root}/{}{}", self.path, self.signature)).collect()
    }

    /// Asks the mirrors for the signature. The bytes are fetched and judged later.
    pub(super) fn locate(&self, at: &Site<'_>) -> Result<SourceFile> {
        at.ui.stage(&format!("looking for {}", printable(&self.path)));
        let keyring = self.trust.keyring(at.store)?;
        let http = Http::default();
        let roots: Vec<&str> = self.mirrors.iter().map(String::as_str).collect();
        let what = format!("signature of {}", printable(&self.path));
        let found = mirrors::each(&roots, &what, at.ui, |root| {
            mirrors::document(&http, &format!("{root}/{}{}", self.path, self.signature))
        });
        let (index, signature) = match found {
            Ok(Answer::Found(found)) => found,
            Ok(Answer::Missing(details)) => {
                let error = Error::network(format!("no mirror has the signature of {}", printable(&self.path)));
                return Err(self.hinted(error.with_details(details), at.store));
            }
            Err(error) => return Err(self.hinted(error, at.store)),
        };
        let roots = mirrors::preferring(&roots, index);
        let unsigned_sha256 = self.unsigned_digest(&http, roots[0])?;
        let signed = Sha256::of(&signature);
        let remembered = at
            .store
            .read_ref::<FileMeta>(REFS, &self.ref_name())?
            .filter(|meta| meta.is_good(&keyring) && meta.signature == Some(signed));
        // A recipe that pins a date accepts any age.
        let signature_age = self.latest.then(|| SignatureAge { of: self.ref_name(), max_age: self.max_age });
        let (meta, evidence) = match remembered {
            Some(meta) => {
                // It was fresh when it was remembered, and may be too old by now.
                if let (Some(signer), Some(age)) = (&meta.signer, &signature_age) {
                    age.check(&keyring, &self.path, signer.created, at)?;
                }
                (meta, Evidence::Digest)
            }
            None => {
                let trust_basis = "detached signature".to_owned();
                let meta = FileMeta { trust_basis, signature: Some(signed), ..FileMeta::new(keyring.id()) };
                (meta, Evidence::Detached { signature, keyring })
            }
        };
        at.ui.done();
        let file = self.file(&roots, meta);
        Ok(SourceFile { evidence, signature_age, unsigned_sha256, ..file })
    }

    /// Returns the file that the store remembers for this path.
    pub(super) fn known(&self, store: &Store) -> Result<Option<SourceFile>> {
        let keyring = self.trust.keyring(store)?;
        let meta = store.read_ref::<FileMeta>(REFS, &self.ref_name())?.filter(|meta| meta.is_good(&keyring));
        let roots: Vec<&str> = self.mirrors.iter().map(String::as_str).collect();
        Ok(meta.map(|meta| SourceFile { offline: true, ..self.file(&roots, meta) }))
    }

    fn file(&self, roots: &[&str], meta: FileMeta) -> SourceFile {
        SourceFile {
            name: self.path.rsplit('/').next().unwrap_or_default().to_owned(),
            location: Location::Urls(roots.iter().map(|root| format!("{root}/{}", self.path)).collect()),
            evidence: Evidence::Digest,
            meta,
            offline: false,
            remember: (REFS, self.ref_name()),
            signature_age: None,
            unsigned_sha256: None,
        }
    }

    /// Downloads the SHA-256 beside the file, if there is one. Nobody signed it, so it only finds damage early.
    fn unsigned_digest(&self, http: &Http, root: &str) -> Result<Option<Sha256>> {
        if self.digest.is_empty() {
            return Ok(None);
        }
        let url = format!("{root}/{}{}", self.path, self.digest);
        match mirrors::document(http, &url)? {
            Answer::Found(bytes) => digests::line(&bytes).map(Some).ok_or_else(|| {
                Error::refused(format!("{}: it is not a line with a SHA-256", printable(&url)))
                    .with_hint("another mirror (source.mirrors) may have the right one")
            }),
            Answer::Missing(_) => Ok(None),
        }
    }

    fn hinted(&self, error: Error, store: &Store) -> Error {
        match self.known(store) {
            Ok(Some(_)) => error.with_hint("with --offline the stored one is used"),
            _ => error.with_hint(self.hint),
        }
    }

    fn ref_name(&self) -> String {
        hex(&Hash::digest(&self.path))
    }
}
