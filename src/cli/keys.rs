//! `keys`: manages the certificates that verify signatures.

use crate::base::time::readable;
use std::fmt::Write as _;
use std::path::PathBuf;
use std::time::{SystemTime, UNIX_EPOCH};

use clap::Subcommand;

use super::session;
use crate::base::error::{Error, Result};
use crate::base::progress::Progress;
use crate::store::Store;
use crate::ui::Terminal;
use crate::verify::{Certificate, GENTOO_RELEASE, GENTOO_SNAPSHOTS, Keyring};

/// List, import and refresh the certificates that verify signatures
///
/// Gentoo's certificates are built in. Importing a certificate does not make its owner trusted: source.fingerprints in a recipe names
/// the trusted signers. Without it, only Gentoo's release key is trusted.
#[derive(Debug, clap::Args)]
#[command(after_long_help = "\
Examples:
  quern-builder keys list
  quern-builder keys import ours.asc --fingerprint D3B948F82EE8B4020A0410789A658306E986E8EE
  quern-builder keys refresh --from /usr/share/openpgp-keys/gentoo-release.asc")]
pub struct Args {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// List the certificates with their user IDs, signing keys and expiry dates
    List,
    /// Import the certificates in a file
    Import {
        /// OpenPGP certificates, armored or binary
        file: PathBuf,
        /// Import only the certificate with this primary fingerprint, and fail if the file does not hold it
        #[arg(long, value_name = "FINGERPRINT")]
        fingerprint: Vec<String>,
    },
    /// Update known certificates from a file: expiry dates, signing keys, revocations
    ///
    /// Unknown certificates in the file are ignored.
    Refresh {
        /// OpenPGP certificates, armored or binary
        #[arg(long, value_name = "FILE")]
        from: PathBuf,
    },
    /// Remove an imported certificate, or the update of a built-in one
    Remove {
        /// Primary fingerprint of the certificate
        fingerprint: String,
    },
}

impl Args {
    pub(super) fn run(self, ui: &Terminal) -> Result<i32> {
        let store = session::store()?;
        match self.verb {
            Verb::List => list(&store, ui),
            Verb::Import { file, fingerprint } => import(&store, &Keyring::load(&file, &tidy(&fingerprint))?, ui),
            Verb::Refresh { from } => refresh(&store, &Keyring::load(&from, &[])?, ui),
            Verb::Remove { fingerprint } => remove(&store, &tidy(&[fingerprint])[0], ui),
        }?;
        Ok(0)
    }
}

/// Normalises fingerprints, which are often printed in groups of digits.
fn tidy(fingerprints: &[String]) -> Vec<String> {
    fingerprints.iter().map(|text| text.split_whitespace().collect::<String>().to_ascii_uppercase()).collect()
}

fn list(store: &Store, ui: &Terminal) -> Result<()> {
    let imported = store.certificate_names()?;
    let mut text = String::new();
    for certificate in Keyring::known(&store.certificates()?, &[])?.certificates() {
        let built_in = match certificate.primary.as_str() {
            GENTOO_RELEASE => Some("built in: signs Gentoo's stage3s, their lists and digests"),
            GENTOO_SNAPSHOTS => Some("built in: signs snapshots of Gentoo's ebuild repository"),
            _ => None,
        };
        let origin = match (built_in, imported.contains(&certificate.primary)) {
            (Some(built_in), true) => format!("{built_in} (renewed)"),
            (Some(built_in), false) => built_in.to_owned(),
            (None, _) => "imported".to_owned(),
        };
        let _ = writeln!(text, "{}  {origin}", certificate.primary);
        certificate.users.iter().for_each(|user| _ = writeln!(text, "  {user}"));
        for key in &certificate.signing {
            let until = if key.revoked { "revoked".to_owned() } else { until(key.expires) };
            let _ = writeln!(text, "  signs with {} {until}", key.fingerprint);
        }
        let _ = writeln!(text, "  {}", validity(&certificate));
    }
    ui.plan(&text);
    Ok(())
}

fn import(store: &Store, file: &Keyring, ui: &Terminal) -> Result<()> {
    let before = Keyring::known(&store.certificates()?, &[])?;
    for primary in file.trusted() {
        let Some(mut certificate) = file.export(primary)? else { continue };
        // A copy of a known certificate must not remove its newer keys and revocations.
        if before.certificate(primary).is_some() {
            certificate = before.refreshed(file)?.export(primary)?.unwrap_or(certificate);
        }
        store.write_certificate(primary, &certificate)?;
        let known = Keyring::known(&store.certificates()?, &[])?.certificate(primary);
        let known = known.ok_or_else(|| Error::system(format!("{primary} was removed by another process")))?;
        ui.plan(&format!("{primary}\n  {}\n  {}", known.users.join("\n  "), validity(&known)));
        if before.certificate(primary).is_none() {
            ui.note(&format!(
                "compare the fingerprint with the one that its owner publishes; to trust it, set source.fingerprints = [\"{primary}\"] in a recipe"
            ));
        }
    }
    Ok(())
}

fn refresh(store: &Store, newer: &Keyring, ui: &Terminal) -> Result<()> {
    let before = Keyring::known(&store.certificates()?, &[])?;
    let after = before.refreshed(newer)?;
    let mut found = false;
    for was in before.certificates() {
        let Some(is) = after.certificate(&was.primary).filter(|_| newer.certificate(&was.primary).is_some()) else {
            continue;
        };
        found = true;
        let (old, new) = (before.export(&was.primary)?, after.export(&was.primary)?);
        if old == new {
            ui.plan(&format!("{}: unchanged, {}", was.primary, validity(&is)));
            continue;
        }
        store.write_certificate(&was.primary, &new.unwrap_or_default())?;
        ui.plan(&format!("{}: {} (before: {})", was.primary, validity(&is), validity(&was)));
    }
    if found {
        return Ok(());
    }
    Err(Error::usage("the file does not contain a newer copy of a known certificate").with_hint(
        "`quern-builder keys import` imports a new certificate; `quern-builder keys list` shows the known ones",
    ))
}

fn remove(store: &Store, fingerprint: &str, ui: &Terminal) -> Result<()> {
    if !store.remove_certificate(fingerprint)? {
        return Err(Error::usage(format!("certificate {fingerprint} not found among the imported ones")).with_hint(
            "`quern-builder keys list` shows the known certificates; built-in certificates cannot be removed",
        ));
    }
    ui.plan(&format!("{fingerprint}: removed"));
    Ok(())
}

/// Describes the validity of the signing keys of a certificate.
fn validity(certificate: &Certificate) -> String {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    match certificate.signs_until() {
        _ if certificate.revoked => "revoked".to_owned(),
        _ if certificate.signing.is_empty() => "has no signing key".to_owned(),
        Some(0) => "all signing keys are revoked".to_owned(),
        Some(end) if end <= now => format!("expired on {}", &readable(end)[..10]),
        Some(end) if end < now + 60 * 86_400 => {
            format!("valid until {}: {} days left", &readable(end)[..10], (end - now) / 86_400)
        }
        end => format!("valid {}", until(end)),
    }
}

fn until(end: Option<u64>) -> String {
    end.map_or_else(|| "without expiry".to_owned(), |end| format!("until {}", &readable(end)[..10]))
}
