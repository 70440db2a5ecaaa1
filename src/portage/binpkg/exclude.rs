//! Packages whose content some files of `/etc/portage` decide: those that have lines in `package.env`, user patches, or scripts in `env`.
//!
//! A match is conservative: a package is excluded if any version of it might be meant.

use serde::{Deserialize, Serialize};

use crate::portage::installed::split_version;

/// Packages that are left out.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Exclusion {
    /// Patterns of categories and names.
    patterns: Vec<(String, String)>,
}

impl Exclusion {
    /// Adds the packages of an atom, whatever its version, slot, repository and USE flags are. A word that is not an atom excludes all
    /// packages.
    pub fn add_atom(&mut self, atom: &str) {
        let bare = atom.trim_start_matches(['-', '!', '>', '<', '=', '~']);
        let bare = bare.split([':', '[']).next().unwrap_or_default();
        let plain = |c: char| c.is_ascii_alphanumeric() || "+_.-*".contains(c);
        match bare.split_once('/') {
            Some((category, name)) if category.chars().chain(name.chars()).all(plain) && !name.is_empty() => {
                self.add(category, name);
            }
            _ => self.add("*", "*"),
        }
    }

    /// Adds the packages of a directory of patches, such as `sys-apps/sed-4.9:0`.
    pub fn add_directory(&mut self, category: &str, name: &str) {
        self.add(category, name.split(':').next().unwrap_or_default());
    }

    fn add(&mut self, category: &str, name: &str) {
        // Where the name ends and the version begins need not be known.
        let ends = name.match_indices('-').map(|(at, _)| at).chain([name.len()]);
        for end in ends {
            let pattern = (category.to_owned(), name[..end].to_owned());
            if !self.patterns.contains(&pattern) {
                self.patterns.push(pattern);
            }
        }
    }

    /// Returns true for a package `category/name-version` that is left out.
    pub fn has(&self, cpv: &str) -> bool {
        let Some((category, pf)) = cpv.split_once('/').filter(|(_, pf)| !pf.contains('/')) else { return true };
        let Some((name, _)) = split_version(pf) else { return true };
        self.patterns.iter().any(|(of_category, of_name)| matches(of_category, category) && matches(of_name, name))
    }
}

/// Returns true if `text` has the form of `pattern`, in which `*` stands for any text.
fn matches(pattern: &str, text: &str) -> bool {
    let Some((head, rest)) = pattern.split_once('*') else { return pattern == text };
    let Some(mut text) = text.strip_prefix(head) else { return false };
    let mut parts: Vec<&str> = rest.split('*').collect();
    let last = parts.pop().unwrap_or_default();
    for part in parts {
        // The first place leaves the most text for the rest.
        let Some(at) = text.find(part) else { return false };
        text = &text[at + part.len()..];
    }
    text.ends_with(last)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn excluded(atom: &str) -> Vec<&'static str> {
        let mut exclusion = Exclusion::default();
        exclusion.add_atom(atom);
        let all = ["a/b-1", "a/b-2.1-r3", "a/b-c-1", "a/d-1", "x-y/b-1"];
        all.into_iter().filter(|cpv| exclusion.has(cpv)).collect()
    }

    #[test]
    fn every_version_that_may_be_meant_is_excluded() {
        for atom in [
            "a/b",
            "=a/b-1",
            ">=a/b-2.1-r3:0/4",
            "=a/b-2.1-r*",
            "~a/b-7",
            "=a/b-2*::own",
            "a/b[x,-y]",
            "=a/b-*99*",
            "-a/b",
        ] {
            assert_eq!(excluded(atom), ["a/b-1", "a/b-2.1-r3"], "{atom}");
        }
        assert_eq!(excluded("=a/b-c-1"), ["a/b-1", "a/b-2.1-r3", "a/b-c-1"]);
        assert_eq!(excluded("*/b").len(), 3);
        assert_eq!(excluded("a/*"), ["a/b-1", "a/b-2.1-r3", "a/b-c-1", "a/d-1"]);
        assert_eq!(excluded("*/*::own").len(), 5);
        for wrong in ["", "b", "a/", "a/$(x)", "\u{e9}/b"] {
            assert_eq!(excluded(wrong).len(), 5, "{wrong}");
        }
        let mut patches = Exclusion::default();
        assert!(!patches.has("a/b-1") && patches.has("b-1") && patches.has("a/b"));
        patches.add_directory("a", "b-c-1.2-r1:3");
        assert!(patches.has("a/b-c-9") && !patches.has("a/d-1"));
    }

    #[test]
    fn a_star_stands_for_any_text() {
        for (pattern, text, expected) in [
            ("*", "", true),
            ("a*c", "abc", true),
            ("a*c", "ac", true),
            ("a*c", "acd", false),
            ("*b*b*", "abb", true),
            ("*b*b*", "ab", false),
            ("ab*b", "ab", false),
        ] {
            assert_eq!(matches(pattern, text), expected, "{pattern} {text}");
        }
    }
}
