//! Certificates: built-in ones, those that a recipe names and those that the user imported, with their expiry dates.

use crate::base::text::printable;
use std::collections::BTreeSet;
use std::io::Read;
use std::path::Path;
use std::time::SystemTime;

use openpgp::Cert;
use openpgp::cert::CertParser;
use openpgp::cert::amalgamation::ValidAmalgamation;
use openpgp::parse::Parse;
use openpgp::policy::StandardPolicy;
use openpgp::serialize::SerializeInto;
use openpgp::types::RevocationStatus;
use sequoia_openpgp as openpgp;
use sha2::{Digest, Sha256};

use super::{cause, list, seconds};
use crate::base::digest::hex;
use crate::base::error::{Context, Error, Kind, Result};

/// Largest keyring in bytes.
const MAX_KEYRING: u64 = 16 << 20;
const RELEASE: &[u8] = include_bytes!("keys/gentoo-release.asc");
const SNAPSHOTS: &[u8] = include_bytes!("keys/gentoo-snapshots.asc");
const EXPORT: &str = "it must hold OpenPGP certificates as `gpg --export --armor` writes them";

/// Certificates, some of which may sign.
#[derive(Debug, Clone)]
pub struct Keyring {
    pub(super) certs: Vec<Cert>,
    pub(super) trusted: BTreeSet<String>,
    id: String,
}

/// A description of a certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Certificate {
    /// Fingerprint of its primary key, upper-case hex.
    pub primary: String,
    /// User IDs, printable.
    pub users: Vec<String>,
    /// Expiry in seconds since 1970. `None`: never.
    pub expires: Option<u64>,
    /// True if its owner has revoked it.
    pub revoked: bool,
    /// Its present and former signing keys.
    pub signing: Vec<SigningKey>,
}

/// A signing key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SigningKey {
    /// Fingerprint in upper-case hex.
    pub fingerprint: String,
    /// Expiry in seconds since 1970. `None`: never.
    pub expires: Option<u64>,
    /// True if it was revoked.
    pub revoked: bool,
}

impl Certificate {
    /// Returns the last second at which a key of this certificate may sign. `None` if it never ends; zero if no key may sign.
    pub fn signs_until(&self) -> Option<u64> {
        if self.revoked {
            return Some(0);
        }
        let last = self.signing.iter().filter(|key| !key.revoked).map(|key| key.expires.unwrap_or(u64::MAX)).max();
        let end = last.unwrap_or(0).min(self.expires.unwrap_or(u64::MAX));
        (end != u64::MAX).then_some(end)
    }
}

impl Keyring {
    /// Returns the built-in certificate of Gentoo's release engineering.
    #[cfg(any(test, fuzzing))]
    pub fn embedded() -> Result<Self> {
        Self::from_bytes("the built-in release certificate", RELEASE, &[super::GENTOO_RELEASE.to_owned()])
    }

    /// Returns the built-in and the imported certificates, of which `trusted` (primary fingerprints) may sign. Copies of a certificate
    /// are merged, so that no copy can hide a revocation that another one has.
    pub fn known(imported: &[(String, Vec<u8>)], trusted: &[String]) -> Result<Self> {
        let certs = pool(imported)?;
        let all: BTreeSet<String> = certs.iter().map(|cert| cert.fingerprint().to_hex()).collect();
        let trusted: BTreeSet<String> = trusted.iter().map(|text| text.to_ascii_uppercase()).collect();
        if let Some(missing) = trusted.iter().find(|fingerprint| !all.contains(*fingerprint)) {
            return Err(Error::usage(format!("the certificate {} is not known", printable(missing))).with_hint(
                format!(
                    "add it with `quern-builder keys import`, or name its file as source.keyring; known are {}",
                    list(&all)
                ),
            ));
        }
        let mut id = Sha256::new();
        for cert in certs.iter().filter(|cert| trusted.contains(&cert.fingerprint().to_hex())) {
            id.update(cert.fingerprint().to_hex());
            id.update(bytes_of(cert)?);
        }
        Ok(Self { certs, trusted, id: hex(&id.finalize()) })
    }

    /// Describes all certificates, sorted by fingerprint.
    pub fn certificates(&self) -> Vec<Certificate> {
        let mut all: Vec<Certificate> = self.certs.iter().map(describe).collect();
        all.sort_by(|a, b| a.primary.cmp(&b.primary));
        all
    }

    /// Describes the certificate with this primary fingerprint.
    pub fn certificate(&self, primary: &str) -> Option<Certificate> {
        self.certs.iter().find(|cert| cert.fingerprint().to_hex() == primary).map(describe)
    }

    /// The certificate with this primary fingerprint, armored, without secrets.
    pub fn export(&self, primary: &str) -> Result<Option<Vec<u8>>> {
        let Some(cert) = self.certs.iter().find(|cert| cert.fingerprint().to_hex() == primary) else { return Ok(None) };
        let armored = cert.armored().to_vec();
        armored.map(Some).map_err(|error| Error::system(format!("writing {primary}")).with_source(cause(&error)))
    }

    /// Takes over what `newer` knows of the certificates that this keyring has already: later expiries, new signing keys,
    /// revocations. Nothing is forgotten, and no certificate is added.
    pub fn refreshed(&self, newer: &Self) -> Result<Self> {
        let certs = self.certs.iter().map(|cert| {
            let copies = newer.certs.iter().filter(|other| other.fingerprint() == cert.fingerprint());
            copies.cloned().try_fold(cert.clone(), merge)
        });
        Ok(Self { certs: certs.collect::<Result<_>>()?, ..self.clone() })
    }

    /// Returns the built-in certificate that signs snapshots of Gentoo's ebuild repository.
    #[cfg(test)]
    pub fn embedded_snapshots() -> Result<Self> {
        Self::from_bytes("the built-in snapshot certificate", SNAPSHOTS, &[super::GENTOO_SNAPSHOTS.to_owned()])
    }

    /// Loads the certificates of a file, armored or binary. `fingerprints` names the primary keys that may sign; if it is empty, all of
    /// the file may.
    pub fn load(path: &Path, fingerprints: &[String]) -> Result<Self> {
        let what = format!("the keyring {}", path.display());
        let mut bytes = Vec::new();
        let file = fs_err::File::open(path).context(Kind::Usage, || format!("reading {what}"))?;
        file.take(MAX_KEYRING + 1).read_to_end(&mut bytes).system(|| format!("reading {what}"))?;
        if bytes.len() as u64 > MAX_KEYRING {
            return Err(Error::usage(format!("reading {what}: it is larger than {} MiB", MAX_KEYRING >> 20)));
        }
        Self::from_bytes(&what, &bytes, fingerprints)
    }

    /// Works like [`Keyring::load`] on bytes. `what` names them in messages.
    pub fn from_bytes(what: &str, bytes: &[u8], fingerprints: &[String]) -> Result<Self> {
        let certs = certificates(what, bytes)?;
        let all: BTreeSet<String> = certs.iter().map(|cert| cert.fingerprint().to_hex()).collect();
        let trusted = if fingerprints.is_empty() {
            all
        } else {
            let wanted: BTreeSet<String> = fingerprints.iter().map(|text| text.to_ascii_uppercase()).collect();
            if let Some(missing) = wanted.iter().find(|fingerprint| !all.contains(*fingerprint)) {
                return Err(Error::usage(format!("{what} does not hold the certificate {}", printable(missing)))
                    .with_hint(format!(
                        "source.fingerprints must name primary keys of the keyring; it holds {}",
                        list(&all)
                    )));
            }
            wanted
        };
        let mut id = Sha256::new();
        trusted.iter().for_each(|fingerprint| id.update(fingerprint));
        id.update(bytes);
        Ok(Self { certs, trusted, id: hex(&id.finalize()) })
    }

    /// Lists the primary fingerprints that may sign, in upper-case hex, sorted.
    pub fn trusted(&self) -> impl Iterator<Item = &str> {
        self.trusted.iter().map(String::as_str)
    }

    /// Returns an identifier of the certificates and the trusted signers. A file verified under one id was not verified under another.
    pub fn id(&self) -> &str {
        &self.id
    }
}

/// Merges the built-in and imported certificates, one for each primary fingerprint.
fn pool(imported: &[(String, Vec<u8>)]) -> Result<Vec<Cert>> {
    let mut certs = certificates("the built-in certificates", &[RELEASE, SNAPSHOTS].concat())?;
    for (what, bytes) in imported {
        for cert in certificates(what, bytes)? {
            match certs.iter_mut().find(|known| known.fingerprint() == cert.fingerprint()) {
                Some(known) => *known = merge(known.clone(), cert)?,
                None => certs.push(cert),
            }
        }
    }
    Ok(certs)
}

/// Parses the certificates of a file, which must have at least one.
fn certificates(what: &str, bytes: &[u8]) -> Result<Vec<Cert>> {
    let unusable = |error: openpgp::anyhow::Error| {
        Error::usage(format!("reading {what}")).with_source(cause(&error)).with_hint(EXPORT)
    };
    let mut certs: Vec<Cert> = Vec::new();
    for block in armored_blocks(bytes) {
        for cert in CertParser::from_bytes(block).map_err(unusable)? {
            certs.push(cert.map_err(unusable)?.strip_secret_key_material());
        }
    }
    if certs.is_empty() {
        return Err(Error::usage(format!("reading {what}: it contains no certificate")).with_hint(EXPORT));
    }
    Ok(certs)
}

fn merge(known: Cert, copy: Cert) -> Result<Cert> {
    let primary = known.fingerprint().to_hex();
    known
        .merge_public(copy)
        .map_err(|error| Error::usage(format!("merging two copies of {primary}")).with_source(cause(&error)))
}

fn bytes_of(cert: &Cert) -> Result<Vec<u8>> {
    cert.to_vec().map_err(|error| {
        Error::system(format!("reading the certificate {}", cert.fingerprint().to_hex())).with_source(cause(&error))
    })
}

fn describe(cert: &Cert) -> Certificate {
    let policy = StandardPolicy::new();
    let end = |time: Option<SystemTime>| time.map(seconds);
    let revoked = |status: RevocationStatus<'_>| matches!(status, RevocationStatus::Revoked(_));
    let users = cert.userids().map(|user| printable(&String::from_utf8_lossy(user.userid().value()))).collect();
    let valid = cert.with_policy(&policy, None).ok();
    let signing = cert.keys().with_policy(&policy, None).for_signing().map(|key| SigningKey {
        fingerprint: key.key().fingerprint().to_hex(),
        expires: end(key.key_expiration_time()),
        revoked: revoked(key.revocation_status()),
    });
    Certificate {
        primary: cert.fingerprint().to_hex(),
        users,
        expires: valid.as_ref().and_then(|cert| end(cert.primary_key().key_expiration_time())),
        revoked: revoked(cert.revocation_status(&policy, None)),
        signing: signing.collect(),
    }
}

/// Splits a file into armored blocks. The parser stops after the first one, and `cat a.asc b.asc` makes two.
fn armored_blocks(bytes: &[u8]) -> Vec<&[u8]> {
    const BEGIN: &[u8] = b"-----BEGIN PGP PUBLIC KEY BLOCK-----";
    let starts: Vec<usize> =
        bytes.windows(BEGIN.len()).enumerate().filter(|(_, window)| *window == BEGIN).map(|(at, _)| at).collect();
    // A binary keyring may hold that text by chance. An armored file begins with ASCII.
    if starts.is_empty() || bytes[0] & 0x80 != 0 {
        return vec![bytes];
    }
    let ends = starts.iter().skip(1).copied().chain([bytes.len()]);
    starts.iter().zip(ends).map(|(&start, end)| &bytes[start..end]).collect()
}
