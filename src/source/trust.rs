//! Trust policy: the certificates that may sign an input.

use std::path::Path;

use crate::base::error::{Error, Result};
use crate::base::progress::Progress;
use crate::base::time::{now, readable};
use crate::recipe::{BaseSpec, Binhost, FUNTOO_SIGNERS, Git, Snapshot, Source};
use crate::store::Store;
use crate::verify::{GENTOO_RELEASE, GENTOO_SNAPSHOTS, Keyring};

use super::freshness::DAY;

/// Primary key that signs the commits of Gentoo's own repository. It is trusted only if it was imported.
const GENTOO_COMMITS: &str = "EF9538C9E8E64311A52CDEDFA13D0EF1914E7A72";

/// The certificates that may sign an input: those of a file, or some of the built-in and imported ones. An import alone makes nobody
/// trusted.
#[derive(Debug, Clone, Copy)]
pub struct Trust<'a> {
    /// A file of certificates that replaces the built-in and imported ones.
    keyring: Option<&'a Path>,
    /// Primary fingerprints that may sign. Empty: all of the file, or the default.
    fingerprints: &'a [String],
    default: Signers,
}

/// The signers that are trusted if a recipe names none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Signers {
    GentooReleases,
    GentooSnapshots,
    GentooCommits,
    Funtoo,
}

impl<'a> Trust<'a> {
    pub fn of_source(source: &'a Source) -> Self {
        let funtoo = matches!(source.base, BaseSpec::SignedFile(_));
        let default = if funtoo { Signers::Funtoo } else { Signers::GentooReleases };
        Self { keyring: source.keyring.as_deref(), fingerprints: &source.fingerprints, default }
    }

    pub fn of_snapshot(snapshot: &'a Snapshot) -> Self {
        let (keyring, fingerprints) = (snapshot.keyring.as_deref(), snapshot.fingerprints.as_slice());
        Self { keyring, fingerprints, default: Signers::GentooSnapshots }
    }

    pub fn of_binhost(host: &'a Binhost) -> Self {
        let (keyring, fingerprints) = (host.keyring.as_deref(), host.fingerprints.as_slice());
        Self { keyring, fingerprints, default: Signers::GentooReleases }
    }

    pub fn of_git(git: &'a Git) -> Self {
        let (keyring, fingerprints) = (git.keyring.as_deref(), git.fingerprints.as_slice());
        Self { keyring, fingerprints, default: Signers::GentooCommits }
    }

    /// Loads the certificates.
    ///
    /// # Errors
    /// [`Kind::Usage`](crate::base::error::Kind::Usage) when one that is named is not known.
    pub fn keyring(self, store: &Store) -> Result<Keyring> {
        if let Some(path) = self.keyring {
            return Keyring::load(path, self.fingerprints);
        }
        if !self.fingerprints.is_empty() {
            return Keyring::known(&store.certificates()?, self.fingerprints);
        }
        let imported = |among: &[&str]| -> Result<Vec<String>> {
            Ok(store.certificate_names()?.into_iter().filter(|name| among.contains(&name.as_str())).collect())
        };
        let trusted = match self.default {
            Signers::GentooReleases => vec![GENTOO_RELEASE.to_owned()],
            Signers::GentooSnapshots => vec![GENTOO_SNAPSHOTS.to_owned()],
            Signers::GentooCommits => [vec![GENTOO_SNAPSHOTS.to_owned()], imported(&[GENTOO_COMMITS])?].concat(),
            Signers::Funtoo => imported(&FUNTOO_SIGNERS)?,
        };
        if trusted.is_empty() {
            return Err(Error::usage("no certificate that signs Funtoo's stage3s is known").with_hint(
                "none is built in: add it with `quern-builder keys import`, or name it as source.keyring; for a server of \
                 your own, name its signers in source.fingerprints",
            ));
        }
        Keyring::known(&store.certificates()?, &trusted)
    }
}

/// Warns when the certificate `primary` expires soon: afterwards every new list is refused.
pub(super) fn warn_of_expiry(keyring: &Keyring, primary: &str, ui: &dyn Progress) {
    const AHEAD: u64 = 60 * DAY;
    let now = now();
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
