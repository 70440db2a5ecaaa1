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
    /// The USE_EXPAND variables of its flags, such as `PYTHON_TARGETS`.
    #[serde(default)]
    pub expand: Vec<Text>,
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

impl Flags {
    /// Returns all flags: the enabled ones, with true, and then the disabled ones.
    pub fn each(&self) -> impl Iterator<Item = (&Text, bool)> {
        let enabled = self.enabled.iter().map(|flag| (flag, true));
        enabled.chain(self.disabled.iter().map(|flag| (flag, false)))
    }

    /// Writes the flags as Portage does: `USE="nls -doc" PYTHON_TARGETS="python3_13"`.
    pub fn assignments(&self, expand: &[Text]) -> Vec<String> {
        let groups = by_variable(self.each(), expand);
        groups.into_iter().map(|(name, words)| format!("{name}=\"{}\"", words.join(" "))).collect()
    }
}

/// Groups flags by their variables: `USE`, and those of `expand` in their order. The words are those of a make.conf.
pub fn by_variable<'a>(
    flags: impl Iterator<Item = (&'a Text, bool)>,
    expand: &'a [Text],
) -> Vec<(&'a str, Vec<String>)> {
    let mut groups: Vec<(&str, Vec<String>)> = vec![("USE", Vec::new())];
    groups.extend(expand.iter().map(|name| (name.as_str(), Vec::new())));
    for (flag, enabled) in flags {
        let value = |name: &str| flag.as_str().strip_prefix(&name.to_ascii_lowercase())?.strip_prefix('_');
        let longest =
            (1..groups.len()).filter(|at| value(groups[*at].0).is_some()).max_by_key(|at| groups[*at].0.len());
        let at = longest.unwrap_or(0);
        let word = if at == 0 { flag.as_str() } else { value(groups[at].0).unwrap_or_default() };
        let word = if enabled { word.to_owned() } else { format!("-{word}") };
        groups[at].1.push(word);
    }
    groups.retain(|(_, words)| !words.is_empty());
    groups
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
    fn flags_are_grouped_by_their_variables() {
        let texts = |words: &[&str]| words.iter().map(|word| Text::from((*word).to_owned())).collect::<Vec<_>>();
        let flags = Flags {
            enabled: texts(&["nls", "python_targets_python3_13", "python_single_target_python3_13"]),
            disabled: texts(&["doc", "python_targets_python3_12", "python_targets"]),
        };
        let expand = texts(&["PYTHON", "PYTHON_SINGLE_TARGET", "PYTHON_TARGETS", "VIDEO_CARDS"]);
        let expected = [
            "USE=\"nls -doc\"",
            "PYTHON=\"-targets\"",
            "PYTHON_SINGLE_TARGET=\"python3_13\"",
            "PYTHON_TARGETS=\"python3_13 -python3_12\"",
        ];
        assert_eq!(flags.assignments(&expand), expected);
        assert!(Flags::default().assignments(&expand).is_empty());
    }

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
