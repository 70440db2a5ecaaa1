//! Software bills of materials: the packages of an image, in the forms that scanners read. Pure.
//!
//! The documents depend on the inputs and on Portage's records alone. They have neither times of single packages nor anything that
//! differs between builds as root and as an ordinary user.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::oci;
use super::provenance::{BaseOrigin, RepositoryOrigin};
use crate::archive::pack::Packed;
use crate::base::digest::Sha256;
use crate::base::error::{Context as _, Kind, Result};
use crate::base::time::SourceDate;
use crate::portage::installed::Installed;
use crate::recipe::{SbomFormat, TreeKind};

mod cyclonedx;
mod licence;
mod spdx;

/// The program that makes the documents.
const TOOL: (&str, &str) = ("quern-builder", env!("CARGO_PKG_VERSION"));

/// Everything that a bill of materials tells about an image.
#[derive(Debug)]
pub struct Materials<'a> {
    /// The name of the recipe.
    pub title: &'a str,
    pub date: SourceDate,
    /// The name of the tarball, and its digests.
    pub tarball: (&'a str, &'a Packed),
    pub kind: TreeKind,
    pub base: &'a BaseOrigin<'a>,
    pub repositories: &'a [RepositoryOrigin<'a>],
    /// The installed packages, sorted by name and version.
    pub packages: &'a [Installed],
}

impl Materials<'_> {
    /// Composes the document as indented JSON.
    ///
    /// # Errors
    /// [`Kind::Build`] if it cannot be serialized.
    pub fn document(&self, format: SbomFormat) -> Result<Vec<u8>> {
        let document = match format {
            SbomFormat::Spdx => spdx::document(self),
            SbomFormat::CycloneDx => cyclonedx::document(self),
        };
        let writing = || format!("writing the bill of materials of {}", self.title);
        let mut bytes = serde_json::to_vec_pretty(&oci::sorted(document)).context(Kind::Build, writing)?;
        bytes.push(b'\n');
        Ok(bytes)
    }

    /// Returns an identifier that only documents of this kind about this tarball have: a UUID of version 8 (RFC 9562), made of the SHA-256 of
    /// its SHA-256.
    fn uuid(&self, form: &str) -> String {
        let digest = Sha256::of(format!("quern-builder {form} {}", self.tarball.1.sha256).as_bytes()).hex();
        let (variant, rest) = (8 + u8::from_str_radix(&digest[16..17], 16).unwrap_or(0) % 4, &digest[17..20]);
        format!("{}-{}-8{}-{variant:x}{rest}-{}", &digest[..8], &digest[8..12], &digest[13..16], &digest[20..32])
    }

    /// Returns the expressions of the licences of all packages, and the names that SPDX does not list.
    fn licences(&self) -> (Vec<Option<String>>, BTreeSet<String>) {
        let mut references = BTreeSet::new();
        let expression = |package: &Installed| {
            licence::expression(&package.licence, |flag| package.has_enabled(flag), &mut references)
        };
        (self.packages.iter().map(expression).collect(), references)
    }
}

/// Returns the package URL of a package. The type `ebuild` is not registered, but in use (syft, mondoo).
fn purl(package: &Installed) -> String {
    let name = package.name.split('/').map(percent).collect::<Vec<_>>().join("/");
    let qualifiers = [("repository", &package.repository), ("slot", &package.slot)];
    let qualifiers = qualifiers.into_iter().filter(|(_, value)| !value.is_empty());
    let qualifiers: Vec<_> = qualifiers.map(|(key, value)| format!("{key}={}", percent(value))).collect();
    let mark = if qualifiers.is_empty() { "" } else { "?" };
    format!("pkg:ebuild/{name}@{}{mark}{}", percent(&package.version), qualifiers.join("&"))
}

/// Encodes a text for a package URL.
fn percent(text: &str) -> String {
    let byte = |byte: u8| match byte {
        b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'.' | b'-' | b'_' | b'~' => char::from(byte).to_string(),
        _ => format!("%{byte:02X}"),
    };
    text.bytes().map(byte).collect()
}

/// Returns the homepages that are addresses.
fn addresses(package: &Installed) -> impl Iterator<Item = &str> {
    let good = |word: &&str| {
        (word.starts_with("https://") || word.starts_with("http://"))
            && word.len() > 8
            && word.bytes().all(|byte| byte.is_ascii_graphic() && !b"\"<>\\^`{|}".contains(&byte))
    };
    package.homepages.iter().map(String::as_str).filter(good)
}

/// Returns the USE flags in the form of emerge: `ssl -doc`.
fn flags(package: &Installed) -> String {
    let flag = |(flag, on): &(String, bool)| if *on { flag.clone() } else { format!("-{flag}") };
    package.flags.iter().map(flag).collect::<Vec<_>>().join(" ")
}

/// Returns the name and the digests of the base, each with the name of the algorithm in SPDX.
fn base<'a>(origin: &'a BaseOrigin<'_>) -> (&'a str, Vec<(&'static str, String)>) {
    match origin {
        BaseOrigin::Stage3 { name, sha512, .. } => (name, vec![("SHA512", sha512.hex())]),
        BaseOrigin::Host { name } => (name, Vec::new()),
    }
}

/// Returns facts that have no field of their own: names and values, without empty ones.
fn facts(package: &Installed) -> Vec<(&'static str, String)> {
    let facts = [
        ("slot", package.slot.clone()),
        ("repository", package.repository.clone()),
        ("use", flags(package)),
        ("eapi", package.eapi.clone()),
        ("chost", package.chost.clone()),
        ("license", package.licence.clone()),
        ("size", package.size.map(|size| size.to_string()).unwrap_or_default()),
    ];
    facts.into_iter().filter(|(_, value)| !value.is_empty()).collect()
}

/// Removes the fields of an object that are null or empty.
fn without_empty(value: Value) -> Value {
    match value {
        Value::Object(mut fields) => {
            fields.retain(|_, value| *value != Value::Null && *value != json!("") && *value != json!([]));
            Value::Object(fields)
        }
        other => other,
    }
}

#[cfg(test)]
mod tests;
