//! What a lock file keeps of a base, and a base looked for by it: no pointer is asked, the digest says which bytes.
//!
//! A lock file is the user's own, as a digest in the recipe is: what it names is trusted because the user keeps it. It is not
//! trusted further than the recipe: who signed when it was locked must still be one who may.

use crate::base::text::printable;
use crate::base::time::now;
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize};

use super::pointer::{self, MAX_SIZE};
use super::{Facts, Located, Place, Proof, Site, file, gentoo, keyring};
use crate::base::digest::Sha512;
use crate::base::error::{Error, Result};
use crate::recipe::{BaseSpec, Source, Version};
use crate::store::Store;
use crate::verify::{Signer, Verified};

const AGAIN: &str = "`quern-builder lock` with the recipe locks what it asks for now";
/// What may help when the servers have no longer what was locked.
pub(super) const GONE: &str = "mirrors keep a build for about five weeks: where another store still has it, bring it over with \
                               `quern-builder store export` and `quern-builder store import`; `quern-builder lock` locks what the \
                               mirrors offer now";
/// What may help when the servers have something else.
pub(super) const OTHER: &str = "the servers have another file than the one that was locked, or the lock file was changed since: \
                                nothing was kept; where another store has it, `quern-builder store export` and `import` bring it \
                                over";

/// A base as it was verified when it was locked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Pin {
    /// What the recipe asked for, in words.
    #[serde(deserialize_with = "plain")]
    pub asked: String,
    /// The file's name.
    #[serde(deserialize_with = "file_name")]
    pub name: String,
    /// Where it was; none for a file of this machine. Tried after the recipe's own mirrors.
    #[serde(default, deserialize_with = "url", skip_serializing_if = "Option::is_none")]
    pub url: Option<String>,
    /// Its size in bytes.
    #[serde(deserialize_with = "size")]
    pub size: u64,
    /// Its SHA-512.
    #[serde(deserialize_with = "sha512")]
    pub sha512: Sha512,
    /// Its BLAKE2b, lower-case hex, where signed digests gave it.
    #[serde(default, deserialize_with = "some_digest", skip_serializing_if = "Option::is_none")]
    pub blake2b: Option<String>,
    /// When it was built, `YYYYMMDDTHHMMSSZ`.
    #[serde(default, deserialize_with = "timestamp", skip_serializing_if = "Option::is_none")]
    pub timestamp: Option<String>,
    /// Primary fingerprint of who signed for it.
    #[serde(default, deserialize_with = "fingerprint", skip_serializing_if = "Option::is_none")]
    pub signer: Option<String>,
    /// Fingerprint of the key that signed, where it is not the primary.
    #[serde(default, deserialize_with = "fingerprint", skip_serializing_if = "Option::is_none")]
    pub subkey: Option<String>,
    /// When it was signed, in seconds since 1970.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signed: Option<u64>,
    /// What the trust in it rested on, in words.
    #[serde(deserialize_with = "plain")]
    pub verified: String,
}

impl Pin {
    /// What is to be kept of a located base; none while something is not known that only the bytes tell, or an `old` one of the
    /// same bytes.
    pub fn of(source: &Source, located: &Located, old: Option<&Self>) -> Option<Self> {
        let facts = &located.facts;
        let sha512 = facts.sha512?;
        let size = facts.size.or(old.filter(|old| old.sha512 == sha512).map(|old| old.size))?;
        Some(Self::new(source, located, sha512, size, facts.signer.as_ref(), &facts.how))
    }

    /// What is to be kept of a base whose bytes were verified.
    pub fn of_verified(source: &Source, located: &Located, verified: &Verified) -> Self {
        Self::new(source, located, verified.sha512(), verified.size(), verified.signature(), verified.how())
    }

    fn new(source: &Source, located: &Located, sha512: Sha512, size: u64, signer: Option<&Signer>, how: &str) -> Self {
        Self {
            asked: asked(source),
            name: located.name.clone(),
            url: located.urls().first().cloned(),
            size,
            sha512,
            blake2b: located.facts.blake2b.clone(),
            timestamp: located.facts.timestamp.clone(),
            signer: signer.map(|signer| signer.primary.clone()),
            subkey: signer.filter(|signer| signer.key != signer.primary).map(|signer| signer.key.clone()),
            signed: signer.map(|signer| signer.created),
            verified: how.to_owned(),
        }
    }

    /// What is another in `new`, a line each; nothing where both are the same bytes with the same person's word for them.
    pub fn changes(&self, new: &Self) -> Vec<String> {
        let mut changes = Vec::new();
        let mut compare = |what: &str, old: &str, new: &str| {
            if old != new {
                changes.push(format!("{what} {} → {}", printable(old), printable(new)));
            }
        };
        compare("asked for", &self.asked, &new.asked);
        compare("stage3", &self.name, &new.name);
        if self.name == new.name {
            compare("SHA-512", &self.sha512.hex(), &new.sha512.hex());
        }
        let signer = |pin: &Self| pin.signer.clone().unwrap_or_else(|| "nobody".to_owned());
        compare("signer", &signer(self), &signer(new));
        if changes.is_empty() && self.sha512 != new.sha512 {
            changes.push(format!("SHA-512 {} → {}", self.sha512, new.sha512));
        }
        changes
    }

    /// Refuses a `new` one that was built before this one: who can hold back the truth could take us back to a build whose holes
    /// are known.
    pub fn not_older(&self, new: &Self) -> Result<()> {
        match (&self.timestamp, &new.timestamp) {
            (Some(locked), Some(found)) if self.asked == new.asked && found < locked => Err(Error::refused(format!(
                "{} is older than the locked {}",
                printable(&new.name),
                printable(&self.name)
            ))
            .with_hint(
                "a mirror that lags behind, or an attempt to bring back an old build; name another mirror, or wait; \
                         --allow-rollback accepts it once",
            )),
            _ => Ok(()),
        }
    }

    /// Where it may be downloaded: the recipe's mirrors, and where it was when it was locked.
    pub fn urls(&self, source: &Source) -> Result<Vec<String>> {
        let mut urls = match (&source.base, &self.timestamp) {
            (BaseSpec::Gentoo { stage3, .. }, Some(timestamp)) => gentoo::urls(source, stage3, timestamp, &self.name)?,
            // The path of the latest may lead to another one by now; where there is a better name, it is the file's own.
            (BaseSpec::SignedFile(direct), _) => {
                let directory = direct.path.rsplit_once('/').map_or("", |(directory, _)| directory);
                source.mirrors.iter().map(|root| format!("{root}/{directory}/{}", self.name)).collect()
            }
            _ => Vec::new(),
        };
        urls.extend(self.url.clone().filter(|url| !urls.contains(url)));
        Ok(urls)
    }

    /// Refuses a lock that is of something else than the recipe asks for.
    fn fits(&self, source: &Source) -> Result<()> {
        let asks = asked(source);
        if self.asked != asks {
            return Err(changed(&asks, &self.asked));
        }
        let fits = match &source.base {
            BaseSpec::Gentoo { stage3, version } => {
                let named = pointer::split_name(&self.name).map(|(variant, timestamp, _)| (variant, timestamp));
                let timestamp = self.timestamp.as_deref();
                named.is_some_and(|(variant, built)| {
                    variant == stage3
                        && Some(built) == timestamp
                        && !matches!(version, Version::Timestamp(wanted) if wanted != built)
                })
            }
            BaseSpec::SignedFile(_) => true,
            BaseSpec::File { sha512, .. } => {
                sha512.as_ref().is_none_or(|sha512| Sha512::parse(sha512) == Some(self.sha512))
            }
            BaseSpec::Host { .. } => false,
        };
        if fits {
            return Ok(());
        }
        Err(Error::usage(format!("the locked {} is not what the recipe asks for", printable(&self.name)))
            .with_hint(format!("the recipe, or the lock file, was changed by hand: {AGAIN}")))
    }

    /// Refuses a lock whose word is that of somebody who may no longer give it.
    fn trusted(&self, source: &Source, store: &Store) -> Result<()> {
        let refused = |why: String| {
            Err(Error::refused(format!("the locked {}: {why}", printable(&self.name)))
                .with_hint(format!("whom the recipe trusts changed since it was locked: {AGAIN}")))
        };
        let Some(signer) = &self.signer else {
            return match &source.base {
                BaseSpec::File { allow_unsigned: true, .. } | BaseSpec::File { sha512: Some(_), .. } => Ok(()),
                _ => refused("nobody signed it, and the recipe does not accept that".to_owned()),
            };
        };
        let keyring = keyring(source, store)?;
        if !keyring.trusted().any(|trusted| trusted == signer) {
            return refused(format!("it was signed by {signer}, which is not trusted here"));
        }
        let Some(certificate) = keyring.certificate(signer) else { return Ok(()) };
        let revoked =
            certificate.signing.iter().find(|key| key.revoked && Some(&key.fingerprint) == self.subkey.as_ref());
        match revoked {
            _ if certificate.revoked => refused(format!("its signer {signer} is revoked")),
            Some(key) => refused(format!("the key {} that signed it is revoked", key.fingerprint)),
            None => Ok(()),
        }
    }
}

/// What was locked is something else than what the recipe asks for.
pub fn changed(asks: &str, locked: &str) -> Error {
    Error::usage(format!("the recipe asks for {asks}, and {} was locked", printable(locked)))
        .with_hint(format!("the recipe changed since it was locked: {AGAIN}"))
}

/// The base that was locked, whatever is the latest now.
pub(in crate::source) fn locate(source: &Source, pin: &Pin, at: &Site<'_>) -> Result<Located> {
    pin.fits(source)?;
    pin.trusted(source, at.store)?;
    if let Some(asked) = file::Asked::of(&source.base)
        && at.store.blob(&pin.sha512)?.is_none()
    {
        let found = file::locate(source, &asked, at)?;
        return match found.sha512() == Some(pin.sha512) {
            true => Ok(found),
            false => Err(Error::refused(format!("{} is another file than was locked", printable(&pin.name)))
                .with_details(format!(
                    "it is          {}\nand locked is  {}",
                    found.sha512().map_or_else(|| "unknown".to_owned(), |sha512| sha512.hex()),
                    pin.sha512
                ))
                .with_hint(AGAIN)),
        };
    }
    let signer = pin.signer.as_ref().map(|primary| Signer {
        primary: primary.clone(),
        key: pin.subkey.as_ref().unwrap_or(primary).clone(),
        created: pin.signed.unwrap_or_default(),
    });
    Ok(Located {
        name: pin.name.clone(),
        place: Place::Urls(pin.urls(source)?),
        proof: Proof::Locked,
        facts: Facts {
            size: Some(pin.size),
            sha512: Some(pin.sha512),
            blake2b: pin.blake2b.clone(),
            timestamp: pin.timestamp.clone(),
            signer,
            how: format!("locked: SHA-512 in the lock file; when it was locked: {}", pin.verified),
            verified_at: now(),
            trust: String::new(),
            signature: None,
            // Nothing of it is remembered: a lock is no reason to trust a file without it.
            digests: None,
            fetched: true,
        },
        offline: at.options.offline,
        remember: ("lock", String::new()),
        dated: None,
        sha256: None,
    })
}

/// What a recipe asks for, in words that stay the same for as long as it asks for the same.
pub(in crate::source) fn asked(source: &Source) -> String {
    let version = |latest| if latest { " (latest)" } else { "" };
    match &source.base {
        BaseSpec::Gentoo { stage3, version: Version::Latest } => format!("stage3 {stage3} (latest)"),
        BaseSpec::Gentoo { stage3, version: Version::Timestamp(timestamp) } => {
            format!("stage3 {stage3} of {timestamp}")
        }
        BaseSpec::SignedFile(direct) => format!("{}{}", direct.path, version(direct.latest)),
        BaseSpec::File { path, .. } => {
            format!("file {}", printable(&path.file_name().unwrap_or(path.as_os_str()).to_string_lossy()))
        }
        BaseSpec::Host { .. } => "this host".to_owned(),
    }
}

fn checked<'de, D: Deserializer<'de>>(deserializer: D, what: &str, fits: fn(&str) -> bool) -> Result<String, D::Error> {
    let text = String::deserialize(deserializer)?;
    if fits(&text) { Ok(text) } else { Err(D::Error::custom(format!("expected {what}"))) }
}

pub(super) fn plain<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    checked(deserializer, "a line of text", |text| text.len() <= 1000 && !text.chars().any(char::is_control))
}

fn file_name<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    checked(deserializer, "the name of a file", |text| {
        let fit = |char: char| !char.is_control() && char != '/';
        !text.is_empty() && text.len() <= 200 && !text.starts_with('.') && text.chars().all(fit)
    })
}

fn url<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
    let url = checked(deserializer, "an address that begins with http:// or https://", |text| {
        let schemes = ["https://", "http://"];
        text.len() <= 2000 && schemes.iter().any(|s| text.starts_with(s)) && text.bytes().all(|b| b.is_ascii_graphic())
    });
    url.map(Some)
}

fn size<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u64, D::Error> {
    let size = u64::deserialize(deserializer)?;
    if (1..=MAX_SIZE).contains(&size) { Ok(size) } else { Err(D::Error::custom("no stage3 has this size")) }
}

fn digest<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    checked(deserializer, "128 lower-case hex digits", |text| {
        text.len() == 128 && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
    })
}

fn sha512<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Sha512, D::Error> {
    Sha512::parse(&digest(deserializer)?).ok_or_else(|| D::Error::custom("it is not a SHA-512"))
}

fn some_digest<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
    digest(deserializer).map(Some)
}

pub(super) fn some_plain<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
    plain(deserializer).map(Some)
}

pub(super) fn commit<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
    one_commit(deserializer).map(Some)
}

pub(super) fn one_commit<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    checked(deserializer, "a commit of 40 or 64 lower-case hex digits", |text| {
        matches!(text.len(), 40 | 64) && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
    })
}

fn timestamp<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
    checked(deserializer, "a timestamp, YYYYMMDDTHHMMSSZ", pointer::is_timestamp).map(Some)
}

pub(super) fn fingerprint<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
    let fingerprint = checked(deserializer, "a fingerprint of 40 or 64 upper-case hex digits", |text| {
        matches!(text.len(), 40 | 64) && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'A'..=b'F'))
    });
    fingerprint.map(Some)
}
