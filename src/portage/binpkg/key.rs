//! The key of a cache of binary packages: the settings that decide the content of a package and that Portage does not compare before it
//! takes one.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::settings::Settings;
use crate::base::digest::Sha256;
use crate::base::text::plain;

/// Variables of Portage that decide the content of packages. Those for one ABI (`CFLAGS_amd64`) count too.
const VARIABLES: [&str; 15] = [
    "ASFLAGS",
    "BINPKG_FORMAT",
    "CBUILD",
    "CFLAGS",
    "CHOST",
    "CPPFLAGS",
    "CTARGET",
    "CXXFLAGS",
    "EXTRA_ECONF",
    "FCFLAGS",
    "FFLAGS",
    "GOFLAGS",
    "LDFLAGS",
    "PKG_INSTALL_MASK",
    "RUSTFLAGS",
];
/// Variables of make.conf that do not decide the content of packages, or that Portage compares itself. `USE_EXPAND` is left out too.
const NEUTRAL: [&str; 27] = [
    "AUTOCLEAN",
    "CLEAN_DELAY",
    "COLLISION_IGNORE",
    "COMMON_FLAGS",
    "CONFIG_PROTECT",
    "CONFIG_PROTECT_MASK",
    "DISTDIR",
    "FEATURES",
    "FETCHCOMMAND",
    "GENTOO_MIRRORS",
    "GNUMAKEFLAGS",
    "INSTALL_MASK",
    "LANG",
    "LANGUAGE",
    "LINGUAS",
    "MAKEFLAGS",
    "MAKEOPTS",
    "NINJAOPTS",
    "NOCOLOR",
    "PKGDIR",
    "PORTDIR",
    "RESUMECOMMAND",
    "ROOT",
    "SOURCE_DATE_EPOCH",
    "SYNC",
    "USE",
    "USE_ORDER",
];
/// Beginnings of such variables.
const NEUTRAL_PREFIXES: [&str; 16] = [
    "ACCEPT_",
    "BINPKG_",
    "CCACHE_",
    "DISTCC_",
    "EMERGE_",
    "FETCHCOMMAND_",
    "ICECREAM_",
    "LC_",
    "PORTAGE_",
    "PORTDIR_",
    "PORT_LOG",
    "QUICKPKG_",
    "RESUMECOMMAND_",
    "UNINSTALL_",
    "USE_EXPAND",
    "VIDEO_CARDS",
];
/// The longest label.
const MAX_LABEL: usize = 60;

/// The key of a cache.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Key {
    /// Values by name, such as `CFLAGS` or `profile`. A part without a value is left out.
    parts: BTreeMap<String, String>,
}

impl Key {
    /// The key of packages that a configuration with these settings builds. `others` are the parts that Portage does not report, such as
    /// `stage3` and the files in `/etc/portage`.
    pub fn new(settings: &Settings, others: impl IntoIterator<Item = (String, String)>) -> Self {
        let mut parts: BTreeMap<String, String> = others.into_iter().collect();
        parts.insert("profile".to_owned(), settings.profile.clone());
        for (name, value) in &settings.variables {
            if decides(name) || settings.configured.contains(name) && !is_neutral(name, settings) {
                parts.insert(name.clone(), normal(value));
            }
        }
        parts.retain(|_, value| !value.is_empty());
        Self { parts }
    }

    /// Returns a part; empty if it has no value.
    pub fn get(&self, name: &str) -> &str {
        self.parts.get(name).map_or("", String::as_str)
    }

    /// Sets a part.
    pub fn set(&mut self, name: &str, value: String) {
        self.parts.insert(name.to_owned(), value);
    }

    /// Returns the key without the parts for whose names `unwanted` returns true.
    #[must_use]
    pub fn without(&self, unwanted: impl Fn(&str) -> bool) -> Self {
        let parts = self.parts.iter().filter(|(name, _)| !unwanted(name));
        Self { parts: parts.map(|(name, value)| (name.clone(), value.clone())).collect() }
    }

    /// Returns the names of its parts.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.parts.keys().map(String::as_str)
    }

    /// Parses the text of a `key.json`.
    pub fn parse(text: &[u8]) -> Option<Self> {
        serde_json::from_slice(text).ok()
    }

    /// Returns the text for a `key.json`. Equal keys have equal texts.
    pub fn text(&self) -> String {
        // Maps of strings can be written.
        serde_json::to_string_pretty(self).unwrap_or_default() + "\n"
    }

    /// Returns the options in it whose meaning depends on the machine, such as `-march=native`.
    pub fn native(&self) -> Option<String> {
        let flags = self.parts.iter().filter(|(name, _)| decides(name)).flat_map(|(_, value)| value.split(' '));
        let native: std::collections::BTreeSet<&str> = flags.filter(|flag| flag.ends_with("=native")).collect();
        let known = native
            .into_iter()
            .filter(|flag| ["-march=", "-mtune=", "-mcpu="].iter().any(|name| flag.starts_with(name)));
        let options: Vec<&str> = known.collect();
        (!options.is_empty()).then(|| options.join(" "))
    }

    /// Returns the name of its directory: a label for people, and the beginning of a digest of all parts.
    pub fn name(&self) -> String {
        format!("{}-{}", self.label(), &Sha256::of(self.text().as_bytes()).hex()[..12])
    }

    /// Names the profile and the processor: `amd64-23.0-x86-64-v3`.
    fn label(&self) -> String {
        let profile = self.get("profile").rsplit(':').next().unwrap_or_default();
        let mut names: Vec<&str> = profile.rsplit('/').take(2).collect();
        names.reverse();
        let flags = self.get("CFLAGS").split(' ').rev();
        let named = |option: &'static str| flags.clone().find_map(|flag| flag.strip_prefix(option));
        let cpu = named("-march=").or_else(|| named("-mcpu=")).or(self.get("CHOST").split('-').next());
        names.extend(cpu);
        let label = names.join("-").to_ascii_lowercase();
        let safe = |c: char| if c.is_ascii_alphanumeric() || "._-".contains(c) { c } else { '-' };
        let label: String = label.chars().map(safe).take(MAX_LABEL).collect();
        label.trim_start_matches(['.', '-']).to_owned()
    }

    /// Describes the differences to another key, a line for each part.
    pub fn differences(&self, other: &Self) -> Vec<String> {
        let names: std::collections::BTreeSet<&String> = self.parts.keys().chain(other.parts.keys()).collect();
        let shown = |key: &Self, name: &str| match key.get(name) {
            "" => "nothing".to_owned(),
            value => plain(value, 200),
        };
        let different = names.into_iter().filter(|name| self.get(name) != other.get(name));
        different
            .map(|name| format!("{}: {}, not {}", plain(name, 60), shown(self, name), shown(other, name)))
            .collect()
    }
}

/// Returns true for a variable that decides the content of packages.
fn decides(name: &str) -> bool {
    let of_abi =
        |known: &str| known.ends_with("FLAGS") && name.strip_prefix(known).is_some_and(|rest| rest.starts_with('_'));
    name.starts_with("CGO_") || VARIABLES.iter().any(|known| *known == name || of_abi(known))
}

/// Returns true for a variable of make.conf that makes no difference for the content of packages.
fn is_neutral(name: &str, settings: &Settings) -> bool {
    let expanded = ["USE_EXPAND", "USE_EXPAND_UNPREFIXED"].iter().filter_map(|list| settings.variables.get(*list));
    NEUTRAL.contains(&name)
        || NEUTRAL_PREFIXES.iter().any(|prefix| name.starts_with(prefix))
        || name.ends_with("_proxy")
        || expanded.flat_map(|list| list.split_whitespace()).any(|flag| flag == name)
}

/// Puts one space between the words. `-pipe` makes no difference for the result of a compiler.
fn normal(value: &str) -> String {
    value.split_whitespace().filter(|word| *word != "-pipe").collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(variables: &[(&str, &str)]) -> Settings {
        let fixed =
            [("CHOST", "x86_64-pc-linux-gnu"), ("CFLAGS", "-O2 -pipe"), ("USE_EXPAND", "ABI_X86 PYTHON_TARGETS")];
        let all = fixed.iter().chain(variables).map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        Settings {
            variables: all.collect(),
            configured: variables.iter().map(|(name, _)| (*name).to_owned()).collect(),
            profile: "gentoo:default/linux/amd64/23.0".to_owned(),
        }
    }

    fn key(variables: &[(&str, &str)]) -> Key {
        Key::new(&settings(variables), [("stage3".to_owned(), "amd64-openrc".to_owned())])
    }

    #[test]
    fn the_key_depends_on_flags_and_not_on_anything_that_portage_compares() {
        let own = key(&[]);
        for same in [
            ("USE", "x"),
            ("MAKEOPTS", "-j9"),
            ("FEATURES", "ccache"),
            ("ACCEPT_KEYWORDS", "~amd64"),
            ("PYTHON_TARGETS", "x"),
            ("COMMON_FLAGS", "-O2"),
            ("CFLAGS", " -pipe  -O2\t"),
            ("SOURCE_DATE_EPOCH", "1"),
            ("https_proxy", "x"),
        ] {
            assert_eq!(key(&[same]), own, "{same:?}");
        }
        for other in [
            ("CFLAGS", "-O3"),
            ("CFLAGS_amd64", "-m64"),
            ("RUSTFLAGS", "-C opt-level=3"),
            ("CGO_CFLAGS", "-O1"),
            ("GOAMD64", "v3"),
            ("EXTRA_ECONF", "--x"),
            ("CHOST", "x86_64-gentoo-linux-musl"),
        ] {
            assert_ne!(key(&[other]).name(), own.name(), "{other:?}");
        }
        assert_eq!(Key::parse(own.text().as_bytes()), Some(own));
    }

    #[test]
    fn the_name_of_a_key_is_for_people() {
        let named = |variables: &[(&str, &str)]| key(variables).name();
        assert!(named(&[]).starts_with("amd64-23.0-x86_64-"), "{}", named(&[]));
        let native = named(&[("CFLAGS", "-O2 -march=x86-64 -march=x86-64-v3")]);
        assert!(native.starts_with("amd64-23.0-x86-64-v3-"), "{native}");
        let hostile = named(&[("CFLAGS", "-march=../..\u{1b}[0m/x")]);
        assert!(hostile.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b)), "{hostile}");
    }

    #[test]
    fn a_difference_names_the_part_and_both_values() {
        let other = key(&[("CFLAGS", "-O3"), ("RUSTFLAGS", "-g")]);
        assert_eq!(key(&[]).differences(&other), ["CFLAGS: -O2, not -O3", "RUSTFLAGS: nothing, not -g"]);
    }
}
