//! Installed packages, as Portage records them in `/var/db/pkg` (portage(5)). Values only: the caller reads the files.

use std::collections::BTreeSet;

use super::specification::{self, Specification};
use crate::base::error::Result;

/// An installed package.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Installed {
    /// `category/package`.
    pub name: String,
    /// With the revision.
    pub version: String,
    /// With the subslot, if it has one: `0/3`.
    pub slot: String,
    /// The repository of its ebuild. Empty if it is not known.
    pub repository: String,
    /// Its licences in the form of the ebuild's LICENSE.
    pub licence: String,
    pub homepages: Vec<String>,
    pub description: String,
    /// The USE flags of the ebuild, sorted, each with whether it was enabled.
    pub flags: Vec<(String, bool)>,
    /// All enabled USE flags, those of the profile included.
    enabled: BTreeSet<String>,
    pub eapi: String,
    pub chost: String,
    /// The size of its files in bytes.
    pub size: Option<u64>,
    /// The specifications of the packages that it needs at run time.
    runtime: String,
    /// Those of the packages that it needed while it was built, on the machine that built it.
    build: String,
}

impl Installed {
    /// Takes the record of the package `pf` (name, version and revision) of `category`. `field` returns a file of the record with single blanks
    /// between the words, or an empty text if it does not exist. Returns `None` if `pf` has no version.
    ///
    /// # Errors
    /// Those of `field`.
    pub fn new(category: &str, pf: &str, field: impl Fn(&str) -> Result<String>) -> Result<Option<Self>> {
        let Some((name, version)) = split_version(pf) else { return Ok(None) };
        let words = |text: String| text.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
        let (enabled, known) = (BTreeSet::from_iter(words(field("USE")?)), words(field("IUSE")?));
        let flags: BTreeSet<&str> = known.iter().map(|flag| flag.trim_start_matches(['+', '-'])).collect();
        let flags = flags.into_iter().map(|flag| (flag.to_owned(), enabled.contains(flag))).collect();
        Ok(Some(Self {
            name: format!("{category}/{name}"),
            version: version.to_owned(),
            slot: field("SLOT")?,
            repository: field("repository")?,
            licence: field("LICENSE")?,
            homepages: words(field("HOMEPAGE")?),
            description: field("DESCRIPTION")?,
            flags,
            enabled,
            eapi: field("EAPI")?,
            chost: field("CHOST")?,
            size: field("SIZE")?.parse().ok(),
            runtime: [field("RDEPEND")?, field("PDEPEND")?, field("IDEPEND")?].join(" "),
            build: field("BDEPEND")?,
        }))
    }

    /// Returns true if the USE flag was enabled.
    pub fn has_enabled(&self, flag: &str) -> bool {
        self.enabled.contains(flag)
    }

    /// Returns the packages among `all` that it needs at run time, by their places in `all`.
    pub fn needs(&self, all: &[Self]) -> BTreeSet<usize> {
        self.found(&self.runtime, all)
    }

    /// Returns the packages among `all` that it needed while it was built.
    pub fn was_built_with(&self, all: &[Self]) -> BTreeSet<usize> {
        self.found(&self.build, all)
    }

    fn found(&self, text: &str, all: &[Self]) -> BTreeSet<usize> {
        let wanted = specification::packages(text, |flag| self.has_enabled(flag));
        let fits = |package: &Self| wanted.iter().any(|wanted| package.fits(wanted));
        let others = all.iter().enumerate().filter(|(_, package)| *package != self && fits(package));
        others.map(|(place, _)| place).collect()
    }

    fn fits(&self, wanted: &Specification<'_>) -> bool {
        let slot = self.slot.split('/').next().unwrap_or_default();
        self.name == wanted.name && wanted.slot.is_none_or(|wanted| wanted == slot)
    }
}

/// Splits `name-version` or `name-version-revision` at the version (PMS 3.1.2).
pub fn split_version(pf: &str) -> Option<(&str, &str)> {
    let (rest, last) = pf.rsplit_once('-')?;
    let digits = last.strip_prefix('r').is_some_and(|digits| !digits.is_empty() && is_digits(digits));
    let name = if digits { rest.rsplit_once('-')?.0 } else { rest };
    let version = &pf[name.len() + 1..];
    (!name.is_empty() && version.starts_with(|first: char| first.is_ascii_digit())).then_some((name, version))
}

fn is_digits(text: &str) -> bool {
    text.bytes().all(|byte| byte.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn package(pf: &str, files: &[(&str, &str)]) -> Installed {
        let text = |name: &str| files.iter().find(|(file, _)| *file == name).map_or("", |(_, text)| text).to_owned();
        Installed::new("c", pf, |name| Ok(text(name).trim_end().to_owned())).unwrap().unwrap()
    }

    #[test]
    fn a_record_has_its_flags_and_words() {
        let files = [("SLOT", "0/3\n"), ("USE", "amd64 ssl\n"), ("IUSE", "+ssl -doc test\n"), ("SIZE", "12\n")];
        let one = package("openssl-3.0.13-r2", &files);
        assert_eq!((one.name.as_str(), one.version.as_str(), one.slot.as_str()), ("c/openssl", "3.0.13-r2", "0/3"));
        assert_eq!(one.flags, [("doc".to_owned(), false), ("ssl".to_owned(), true), ("test".to_owned(), false)]);
        assert!(one.has_enabled("amd64") && !one.has_enabled("doc") && one.size == Some(12));
    }

    #[test]
    fn versions_are_split_off() {
        for (pf, parts) in [
            ("a-b-1.2_p3-r4", Some(("a-b", "1.2_p3-r4"))),
            ("font-r-9999", Some(("font-r", "9999"))),
            ("x-1-r", None),
            ("x-r1", None),
            ("no", None),
            ("-1", None),
            ("é-1", Some(("é", "1"))),
            ("gtk+-2.24", Some(("gtk+", "2.24"))),
            ("r2-1-r2", Some(("r2", "1-r2"))),
            ("a-r1", None),
            ("dev-lang/python-exec-2", Some(("dev-lang/python-exec", "2"))),
        ] {
            assert_eq!(split_version(pf), parts, "{pf}");
        }
    }

    #[test]
    fn needs_are_found_by_name_and_slot() {
        let rdepend = "ssl? ( >=c/openssl-3:0/3=[static-libs(-)] ) doc? ( c/doc ) || ( c/none c/two:2 ) !c/old c/self";
        let all = [
            package("self-1", &[("USE", "ssl"), ("RDEPEND", rdepend), ("PDEPEND", "c/later"), ("BDEPEND", "c/doc")]),
            package("openssl-3", &[("SLOT", "0/3")]),
            package("doc-1", &[("SLOT", "0")]),
            package("two-1", &[("SLOT", "1")]),
            package("two-2", &[("SLOT", "2")]),
            package("old-1", &[("SLOT", "0")]),
            package("later-1", &[("SLOT", "0")]),
        ];
        assert_eq!(all[0].needs(&all), BTreeSet::from([1, 4, 6]));
        assert_eq!(all[0].was_built_with(&all), BTreeSet::from([2]));
    }
}
