//! The security advisories (GLSAs) that affect packages.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::Text;
use super::plan::Package;
use crate::base::error::{Error, Result};

/// The program. Each argument names a package; without arguments, the packages are those installed in ROOT.
pub const PROGRAM: &str = include_str!("audit.py");

/// The argument of [`PROGRAM`] that adds the packages installed in ROOT to the others, unless one of those is of the same name and slot.
pub const INSTALLED: &str = "--installed";

/// The advisories that affect the packages of an image.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, Serialize)]
pub struct Audit {
    /// The number of packages that were looked at.
    pub packages: usize,
    /// The repositories that have advisories.
    pub repositories: Vec<Text>,
    pub advisories: Vec<Advisory>,
}

/// An advisory that affects packages, or one that cannot be read.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default)]
pub struct Advisory {
    pub id: Text,
    pub title: Text,
    pub severity: Text,
    pub affected: Vec<Affected>,
    /// The reason why it cannot be read.
    #[serde(skip_serializing_if = "Text::is_empty")]
    pub error: Text,
}

/// A package that an advisory affects.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, Serialize)]
pub struct Affected {
    pub package: Text,
    pub version: Text,
    /// Atoms of versions that are not affected.
    pub fixed: Vec<Text>,
}

/// Returns the argument of [`PROGRAM`] for a package.
pub fn argument(package: &Package) -> String {
    format!("{}-{} {} {}", package.name, package.version, package.slot, package.repository)
}

/// Reads the answer of [`PROGRAM`].
///
/// # Errors
/// [`Kind::Build`](crate::base::error::Kind::Build) if it is not an answer, [`Kind::Usage`](crate::base::error::Kind::Usage) if no
/// repository has advisories.
pub fn read(answer: &[u8]) -> Result<Audit> {
    let audit: Audit = serde_json::from_slice(answer)
        .map_err(|error| Error::build("reading the advisories that affect the image").with_source(error))?;
    if audit.repositories.is_empty() {
        return Err(Error::usage("no repository of the recipe has security advisories").with_hint(
            "use a snapshot of ::gentoo, which has the directory metadata/glsa; its git repository does not have it",
        ));
    }
    Ok(audit)
}

impl Audit {
    /// Returns the number of affected packages.
    pub fn affected(&self) -> usize {
        let all = self.advisories.iter().flat_map(|advisory| &advisory.affected);
        all.map(|affected| (&affected.package, &affected.version)).collect::<std::collections::BTreeSet<_>>().len()
    }

    /// Returns sentences about the advisories that cannot be read.
    pub fn warnings(&self) -> impl Iterator<Item = String> {
        let unread = self.advisories.iter().filter(|advisory| !advisory.error.is_empty());
        unread.map(|advisory| format!("the advisory {} cannot be read: {}", advisory.id, advisory.error))
    }
}

impl fmt::Display for Audit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for advisory in self.advisories.iter().filter(|advisory| !advisory.affected.is_empty()) {
            let Advisory { id, title, severity, affected, .. } = advisory;
            writeln!(f, "GLSA {id} ({severity}): {title}")?;
            for Affected { package, version, fixed } in affected {
                let fixed: Vec<&str> = fixed.iter().map(Text::as_str).collect();
                let fixed = if fixed.is_empty() { "no fixed version".to_owned() } else { fixed.join(", ") };
                writeln!(f, "  {package}-{version}, fixed in {fixed}")?;
            }
        }
        writeln!(f, "{} of {} packages are affected", self.affected(), self.packages)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_audit_lists_the_affected_packages() {
        let answer = br#"{"packages": 9, "repositories": ["gentoo"], "advisories": [{"id": "202601-01", "title": "a/b: \u001b[31mholes",
            "severity": "high", "affected": [{"package": "a/b", "version": "1", "fixed": [">=a/b-2"]}, {"package": "c/d",
            "version": "3", "fixed": []}]}, {"id": "202601-02", "error": "GlsaTypeException: None"}]}"#;
        let audit = read(answer).unwrap();
        let expected = "\
GLSA 202601-01 (high): a/b: holes
  a/b-1, fixed in >=a/b-2
  c/d-3, fixed in no fixed version
2 of 9 packages are affected
";
        assert_eq!(audit.to_string(), expected);
        let warnings: Vec<String> = audit.warnings().collect();
        assert_eq!(warnings, ["the advisory 202601-02 cannot be read: GlsaTypeException: None"]);
        let none = read(br#"{"packages": 9, "repositories": [], "advisories": []}"#).unwrap_err();
        assert!(none.to_string().contains("no repository"), "{none}");
        assert!(read(b"{}").is_err());
    }
}
