//! The packages that an emerge command would merge.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::Text;
use crate::base::error::{Error, Result};

/// The program. Its arguments are those of emerge.
pub const PROGRAM: &str = include_str!("plan.py");

/// The limit on the packages of one answer.
const MAX_PACKAGES: usize = 20_000;

/// A package that would be merged.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
pub struct Package {
    /// `category/name`.
    #[serde(rename = "package")]
    pub name: Text,
    pub version: Text,
    pub slot: Text,
    pub subslot: Text,
    pub repository: Text,
    /// The root that it is merged into, with a slash at the end.
    pub root: Text,
    /// True if it is built from source.
    pub source: bool,
    /// The number of a binary package's build.
    pub build_id: Text,
    #[serde(rename = "use")]
    pub flags: Flags,
    /// False if other packages need it only while they are built.
    pub run: bool,
    /// The files to fetch, and the bytes that are missing of each.
    pub fetch: BTreeMap<Text, u64>,
    /// The installed versions in the same slot.
    pub replaces: Vec<Text>,
    /// The binary packages of other versions or settings, the nearest first.
    pub present: Vec<Present>,
    /// The settings that it is built with, by variable. Empty for a binary package.
    pub settings: BTreeMap<Text, Text>,
}

/// The USE flags of a package.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, Serialize)]
pub struct Flags {
    pub enabled: Vec<Text>,
    pub disabled: Vec<Text>,
}

/// A binary package that is not used.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
pub struct Present {
    pub version: Text,
    pub build_id: Text,
    /// The time of the build, in seconds since 1970.
    pub built: Text,
    pub repository: Text,
    pub chost: Text,
    /// Path in the sandbox; empty for one on a server.
    pub path: Text,
    #[serde(rename = "use")]
    pub flags: Flags,
    /// Portage's names for the reasons that mask it.
    pub masks: Vec<Text>,
}

#[derive(Deserialize)]
struct Answer {
    packages: Vec<Package>,
}

/// Reads the answer of [`PROGRAM`].
///
/// # Errors
/// [`Kind::Build`](crate::base::error::Kind::Build) if it is not an answer.
pub fn read(answer: &[u8]) -> Result<Vec<Package>> {
    let answer: Answer = serde_json::from_slice(answer)
        .map_err(|error| Error::build("reading the packages that emerge would merge").with_source(error))?;
    if answer.packages.len() > MAX_PACKAGES {
        return Err(Error::build(format!("emerge would merge more than {MAX_PACKAGES} packages")));
    }
    Ok(answer.packages)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_read_and_cleaned() {
        let answer = br#"{"packages": [{"package": "a/b", "version": "1\u001b[31m", "slot": "0", "subslot": "2",
            "repository": "gentoo", "root": "/", "source": true, "build_id": "", "use": {"enabled": ["x"], "disabled": []},
            "run": true, "fetch": {"b-1.tar": 7}, "replaces": [], "settings": {"CHOST": "c"}, "present": [{"version": "1",
            "build_id": "3", "built": "9", "repository": "gentoo", "chost": "c", "path": "/p", "masks": ["CHOST"],
            "use": {"enabled": [], "disabled": ["x"]}}]}]}"#;
        let [package] = &read(answer).unwrap()[..] else { panic!() };
        assert_eq!((package.name.as_str(), package.source), ("a/b", true));
        assert!(!package.version.as_str().contains('\x1b'));
        assert_eq!(package.fetch["b-1.tar"], 7);
        assert_eq!(package.present[0].build_id.as_str(), "3");
        for wrong in [&b""[..], b"{}", b"[]", br#"{"packages": [{"package": 1}]}"#, br#"{"packages": [{}]}"#] {
            assert!(read(wrong).is_err(), "{}", String::from_utf8_lossy(wrong));
        }
    }
}
