//! Which bytes the builder tree is made of, and getting them.
//!
//! [`locate`] finds out which file that is and what proves it (a signed digest, a detached signature), [`fetch()`] brings it into the
//! store, and [`crate::verify::verify`] judges it. `pointer` and `digests` are pure text; only `fetch` speaks HTTP.

use crate::base::text::printable;
use crate::base::time::{now, readable};
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Seek, SeekFrom};
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::base::digest::Sha512;
use crate::base::error::{Context, Error, Kind, Result};
use crate::base::progress::Progress;
use crate::recipe::{BaseSpec, Job, Source};
use crate::store::Store;
use crate::verify::{self, Keyring, Signer};

pub mod digests;
mod direct;
mod download;
mod fetch;
mod file;
mod gentoo;
pub mod hashing;
pub mod locked;
mod memory;
pub mod pin;
pub mod pointer;
pub mod repository;
mod site;

pub use gentoo::offers;
pub use locked::Locked;
pub use pin::Pin;
pub use site::{ResolveOptions, Site};

/// A file that is known but perhaps not here yet: its name, what it must be, and what proves it.
#[derive(Debug, Clone)]
pub struct Located {
    name: String,
    place: Place,
    proof: Proof,
    facts: Facts,
    /// Do not ask any server.
    offline: bool,
    /// Kind and name of the ref that remembers what was found out.
    remember: (&'static str, String),
    /// How old it may be, where nothing but its detached signature has a date.
    dated: Option<Dated>,
    /// A SHA-256 that nobody signed.
    sha256: Option<String>,
}

/// Judges the date of a detached signature as that of a signed list is judged.
#[derive(Debug, Clone)]
struct Dated {
    /// What it is remembered under.
    of: String,
    max_age: u64,
}

impl Dated {
    fn check(&self, keyring: &Keyring, what: &str, created: u64, at: &Site<'_>) -> Result<()> {
        gentoo::fresh(what, created, now(), self.max_age)?;
        let sighting = memory::Sighting {
            of: self.of.clone(),
            list: "signature".to_owned(),
            published: created,
            build: String::new(),
        };
        memory::check(keyring, &printable(what), &sighting, at)
    }
}

/// Where the bytes are.
#[derive(Debug, Clone)]
enum Place {
    /// The same file on several servers, the best first.
    Urls(Vec<String>),
    /// A file of this machine.
    File(PathBuf),
}

/// What proves the bytes.
#[derive(Debug, Clone)]
pub(crate) enum Proof {
    /// `facts.sha512`, from something verified (or from the recipe).
    Digest,
    /// A detached signature, over bytes not seen yet.
    Detached {
        /// The signature.
        signature: Vec<u8>,
        /// Who may have made it.
        keyring: Keyring,
    },
    /// `facts.sha512`, from a lock file.
    Locked,
    /// Nothing: the recipe allows it. `facts.sha512` says which bytes it was decided for.
    Unsigned,
}

/// What is known of a file, as the store remembers it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Facts {
    /// Exact size, where it is known beforehand.
    pub(crate) size: Option<u64>,
    pub(crate) sha512: Option<Sha512>,
    pub(crate) blake2b: Option<String>,
    /// `YYYYMMDDTHHMMSSZ`, of the build.
    pub(crate) timestamp: Option<String>,
    pub(crate) signer: Option<Signer>,
    /// What the trust rests on, in words.
    pub(crate) how: String,
    /// Seconds since 1970 when it was verified.
    pub(crate) verified_at: u64,
    /// [`Keyring::id`] it was verified with; under another keyring it must be verified again.
    pub(crate) trust: String,
    /// SHA-256 of the detached signature that proved it, where one did.
    #[serde(default)]
    pub(crate) signature: Option<String>,
    /// The signed digests that proved it, where they did: whoever is trusted now can judge them again without a network.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) digests: Option<String>,
    /// Whether the bytes were ever in the store: without a network, only those are of use.
    #[serde(default)]
    pub(crate) fetched: bool,
}

/// A file whose bytes are in the store, hashed, and not judged yet.
#[derive(Debug)]
pub struct Fetched {
    pub(crate) name: String,
    pub(crate) proof: Proof,
    pub(crate) facts: Facts,
    pub(crate) file: File,
    /// Of the bytes of `file`, computed by this process.
    pub(crate) sha512: Sha512,
    pub(crate) size: u64,
}

impl Located {
    /// The file's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its exact size, where it is known beforehand.
    pub fn size(&self) -> Option<u64> {
        self.facts.size
    }

    /// The SHA-512 it must have; none when only a detached signature proves it and it was never fetched.
    pub fn sha512(&self) -> Option<Sha512> {
        self.facts.sha512
    }

    /// When it was built, `YYYYMMDDTHHMMSSZ`.
    pub fn timestamp(&self) -> Option<&str> {
        self.facts.timestamp.as_deref()
    }

    /// Primary fingerprint of who signed for it.
    pub fn signer(&self) -> Option<&str> {
        self.facts.signer.as_ref().map(|signer| signer.primary.as_str())
    }

    /// What the trust in it rests on, for the provenance.
    pub fn how(&self) -> &str {
        &self.facts.how
    }

    /// With what only its bytes could tell: who signed them, where a detached signature proves it.
    pub(crate) fn with(mut self, verified: &verify::Verified) -> Self {
        self.facts.sha512 = Some(verified.sha512());
        self.facts.size = Some(verified.size());
        self.facts.signer = verified.signature().cloned();
        self.facts.how = verified.how().to_owned();
        self
    }

    /// Where it can be downloaded, the first to be tried first; empty for a local file.
    pub fn urls(&self) -> &[String] {
        match &self.place {
            Place::Urls(urls) => urls,
            Place::File(_) => &[],
        }
    }
}

/// Finds out which file the recipe's base is. Asks the mirrors, and refuses what is not signed by a trusted key; offline it
/// answers from the store alone.
pub fn locate(job: &Job, at: &Site<'_>) -> Result<Located> {
    if let Some(locked) = at.options.locked {
        return match &locked.stage3 {
            Some(pin) => pin::locate(&job.source, pin, at),
            None => Err(pin::changed("a stage3", "nothing")),
        };
    }
    if at.options.offline {
        return match known(job, at.store)? {
            Some(located) => Ok(located),
            // A file of this machine needs no network.
            None if matches!(job.source.base, BaseSpec::File { .. }) => {
                let options = ResolveOptions { offline: false, ..at.options };
                locate(job, &Site { options, ..*at })
            }
            None if matches!(job.source.base, BaseSpec::Host { .. }) => Err(no_stage3(job)),
            None => Err(Error::network(format!("the store knows no verified {}", base_name(&job.source)))
                .with_hint("run once without --offline")),
        };
    }
    let located = match &job.source.base {
        BaseSpec::Gentoo { stage3, version } => gentoo::locate(&job.source, stage3, version, at)?,
        BaseSpec::SignedFile(direct) => direct::locate(&job.source, direct, at)?,
        BaseSpec::File { path, signature, sha512, allow_unsigned } => {
            let asked = file::Asked {
                path,
                signature: signature.as_deref(),
                sha512: sha512.as_deref(),
                allow_unsigned: *allow_unsigned,
            };
            file::locate(&job.source, &asked, at)?
        }
        BaseSpec::Host { .. } => return Err(no_stage3(job)),
    };
    if let Some(signer) = located.signer() {
        warn_of_expiry(&keyring(&job.source, at.store)?, signer, now(), at.ui);
    }
    Ok(located)
}

/// The newest file the store knows to be the recipe's base, without asking anybody: for `shell` and `--offline`. None when there is
/// none that was verified with the present keyring.
pub fn known(job: &Job, store: &Store) -> Result<Option<Located>> {
    match &job.source.base {
        BaseSpec::Gentoo { stage3, version } => gentoo::known(&job.source, stage3, version, store),
        BaseSpec::SignedFile(direct) => direct::known(&job.source, direct, store),
        BaseSpec::File { path, signature, sha512, allow_unsigned } => {
            let asked = file::Asked {
                path,
                signature: signature.as_deref(),
                sha512: sha512.as_deref(),
                allow_unsigned: *allow_unsigned,
            };
            file::known(&job.source, &asked, store)
        }
        BaseSpec::Host { .. } => Ok(None),
    }
}

/// Names of stored files by their SHA-512, as far as they are known.
pub fn names(store: &Store) -> Result<BTreeMap<Sha512, String>> {
    let mut names: BTreeMap<Sha512, String> = store.tree_names()?.into_iter().collect();
    names.extend(gentoo::names(store)?);
    Ok(names)
}

/// The documents [`locate`] begins with, for a dry run.
pub fn first_urls(job: &Job) -> Result<Vec<String>> {
    match &job.source.base {
        BaseSpec::Gentoo { stage3, version } => gentoo::first_urls(&job.source, stage3, version),
        BaseSpec::SignedFile(direct) => {
            let mirrors = job.source.mirrors.iter();
            Ok(mirrors.map(|root| format!("{root}/{}{}", direct.path, direct.signature)).collect())
        }
        BaseSpec::File { .. } | BaseSpec::Host { .. } => Ok(Vec::new()),
    }
}

/// Brings the bytes into the store, where they are not there yet: over HTTP resumed, mirror after mirror, hashed on the way; a local
/// file is copied, so that what is judged cannot change afterwards.
pub fn fetch(located: &Located, at: &Site<'_>) -> Result<Fetched> {
    at.ui.stage(&format!("fetching {}", printable(&located.name)));
    let mut facts = located.facts.clone();
    let got = match &located.place {
        Place::File(path) => file::copy(located, path, at)?,
        Place::Urls(urls) => {
            let mut signer = None;
            let mut accept = |file: &File| match &located.proof {
                Proof::Detached { signature, keyring } => {
                    let good = verify::detached(&located.name, signature, rewound(file)?, keyring)?;
                    if let Some(dated) = &located.dated {
                        dated.check(keyring, &located.name, good.created, at)?;
                    }
                    signer = Some(good);
                    Ok(())
                }
                Proof::Digest | Proof::Locked | Proof::Unsigned => Ok(()),
            };
            let wanted = download::Wanted {
                name: &located.name,
                urls,
                size: facts.size,
                sha512: facts.sha512.as_ref(),
                blake2b: facts.blake2b.as_deref(),
                sha256: located.sha256.as_deref(),
                offline: located.offline,
            };
            let got = download::download(&fetch::Http::default(), &wanted, at.store, &mut accept, at.ui);
            let got = got.map_err(|error| match (&located.proof, error.kind()) {
                (Proof::Locked, Kind::Network) => error.with_hint(pin::GONE),
                (Proof::Locked, Kind::Refused) => error.with_hint(pin::OTHER),
                _ => error,
            })?;
            if let Some(signer) = signer {
                facts.how = format!("detached signature by {}", signer.primary);
                facts.signer = Some(signer);
            }
            if !facts.fetched {
                (facts.fetched, facts.size, facts.sha512) = (true, Some(got.size), Some(got.sha512));
                at.store.write_ref(located.remember.0, &located.remember.1, &facts)?;
            }
            got
        }
    };
    at.ui.done();
    let (name, proof) = (located.name.clone(), located.proof.clone());
    Ok(Fetched { name, proof, facts, file: got.file, sha512: got.sha512, size: got.size })
}

/// The keyring a recipe asks for: its own file, or the built-in and imported certificates, of which only the release key may sign
/// unless the recipe names others. An import alone makes nobody trusted.
pub fn keyring(source: &Source, store: &Store) -> Result<Keyring> {
    match &source.keyring {
        Some(path) => Keyring::load(path, &source.fingerprints),
        None if source.fingerprints.is_empty() && matches!(source.base, BaseSpec::SignedFile(_)) => {
            let mut trusted = store.certificate_names()?;
            trusted.retain(|name| crate::recipe::FUNTOO_SIGNERS.contains(&name.as_str()));
            if trusted.is_empty() {
                return Err(Error::usage("no certificate that signs Funtoo's stage3s is known").with_hint(
                    "none is built in: add it with `quern-builder keys import`, or name it as source.keyring; for a server of \
                     your own say with source.fingerprints who may sign",
                ));
            }
            Keyring::known(&store.certificates()?, &trusted)
        }
        None if source.fingerprints.is_empty() => {
            Keyring::known(&store.certificates()?, &[verify::GENTOO_RELEASE.to_owned()])
        }
        None => Keyring::known(&store.certificates()?, &source.fingerprints),
    }
}

/// Says so when who signed will not be able to for much longer: afterwards every new list is refused.
fn warn_of_expiry(keyring: &Keyring, primary: &str, now: u64, ui: &dyn Progress) {
    const AHEAD: u64 = 60 * 86_400;
    let end = keyring.certificate(primary).and_then(|certificate| certificate.signs_until());
    if let Some(end) = end.filter(|end| *end < now + AHEAD) {
        let expires = if end <= now { "expired" } else { "expires" };
        ui.warn(&format!(
            "the certificate {primary} {expires} on {}; get a newer copy of it: `quern-builder keys refresh --from FILE`, or \
             source.keyring",
            &readable(end)[..10]
        ));
    }
}

/// Bytes in the store, with what was measured on them.
#[derive(Debug)]
struct Got {
    file: File,
    sha512: Sha512,
    size: u64,
}

const BUFFER: usize = 256 * 1024;

/// The file at its beginning.
pub(crate) fn rewound(file: &File) -> Result<&File> {
    let mut at = file;
    at.seek(SeekFrom::Start(0)).system(|| "reading a file from its beginning")?;
    Ok(file)
}

fn no_stage3(job: &Job) -> Error {
    Error::usage(format!("{} is built from this host: there is no stage3 to fetch or verify", job.name))
}

fn base_name(source: &Source) -> String {
    match &source.base {
        BaseSpec::Gentoo { stage3, version: crate::recipe::Version::Latest } => format!("stage3 {stage3}"),
        BaseSpec::Gentoo { stage3, version: crate::recipe::Version::Timestamp(timestamp) } => {
            format!("stage3 {stage3} of {timestamp}")
        }
        BaseSpec::SignedFile(direct) => direct.path.clone(),
        BaseSpec::File { path, .. } => path.display().to_string(),
        BaseSpec::Host { .. } => "stage3".to_owned(),
    }
}

#[cfg(test)]
mod tests;

#[cfg(test)]
pub(crate) mod server;
