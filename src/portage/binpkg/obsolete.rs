//! The packages of a directory that no build needs any more. Pure.
//!
//! All packages of the directory have the same compiler flags: that is the task of its key.

use std::collections::{BTreeMap, BTreeSet};

use super::index::Stanza;

/// The keys that tell whether a newer package can replace an older one.
const SAME: [&str; 13] = [
    "CPV",
    "SLOT",
    "EAPI",
    "REPO",
    "CHOST",
    "USE",
    "BDEPEND",
    "DEPEND",
    "IDEPEND",
    "PDEPEND",
    "RDEPEND",
    "USER_PATCHES",
    "RESTRICT",
];

/// The packages that stay.
#[derive(Clone, Copy)]
pub struct Keep<'a> {
    /// Packages whose files were written at this time or later, in seconds since 1970.
    pub since: i64,
    /// `CPV` and `BUILD_TIME` of packages that the last build of a recipe installed.
    pub used: &'a BTreeSet<(String, String)>,
    /// Returns true if a repository has the ebuild of a package. `None`: packages without an ebuild stay.
    pub has_ebuild: Option<&'a dyn Fn(&Stanza) -> bool>,
}

impl std::fmt::Debug for Keep<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Keep").field("since", &self.since).field("used", &self.used).finish_non_exhaustive()
    }
}

/// Returns the indexes of the packages that can be removed: older instances of a package with the same USE flags and dependencies and,
/// if asked, packages without an ebuild.
pub fn obsolete(packages: &[Stanza], keep: &Keep<'_>) -> BTreeSet<usize> {
    let number = |package: &Stanza, key: &str| package.get(key).parse::<i64>().unwrap_or(0);
    let age = |at: &usize| (number(&packages[*at], "BUILD_TIME"), number(&packages[*at], "BUILD_ID"), *at);
    let mut newest: BTreeMap<Vec<&str>, usize> = BTreeMap::new();
    for (at, package) in packages.iter().enumerate() {
        let same = SAME.iter().map(|key| package.get(key)).collect();
        let entry = newest.entry(same).or_insert(at);
        if age(&at) > age(entry) {
            *entry = at;
        }
    }
    let newest: BTreeSet<usize> = newest.into_values().collect();
    let removable = |(at, package): &(usize, &Stanza)| {
        let young = number(package, "MTIME") >= keep.since;
        let used = keep.used.contains(&(package.cpv().to_owned(), package.get("BUILD_TIME").to_owned()));
        let gone = keep.has_ebuild.is_some_and(|has| !has(package));
        !young && !used && (gone || !newest.contains(at))
    };
    packages.iter().enumerate().filter(removable).map(|(at, _)| at).collect()
}

#[cfg(test)]
mod tests {
    use super::super::index::Index;
    use super::*;

    fn packages(lines: &[(&str, &str, i64)]) -> Vec<Stanza> {
        let stanza = |(at, (cpv, flags, time)): (usize, &(&str, &str, i64))| {
            format!("CPV: {cpv}\nUSE: {flags}\nBUILD_TIME: {time}\nMTIME: {time}\nBUILD_ID: {at}\nPATH: {at}\n\n")
        };
        let text: String = lines.iter().enumerate().map(stanza).collect();
        Index::parse(&format!("ARCH: amd64\n\n{text}")).unwrap().packages
    }

    fn removed(packages: &[Stanza], keep: &Keep<'_>) -> Vec<usize> {
        obsolete(packages, keep).into_iter().collect()
    }

    #[test]
    fn the_newest_of_equal_packages_stays() {
        let used = BTreeSet::new();
        let keep = Keep { since: i64::MAX, used: &used, has_ebuild: None };
        let all = packages(&[
            ("a/b-1", "x", 10),
            ("a/b-1", "x", 30),
            ("a/b-1", "x", 20),
            ("a/b-1", "y", 5),
            ("a/b-2", "x", 1),
            ("a/c-1", "x", 7),
            ("a/c-1", "x", 7),
        ]);
        assert_eq!(removed(&all, &keep), [0, 2, 5], "of equal times, the higher number stays");
    }

    #[test]
    fn young_and_used_packages_stay() {
        let used = BTreeSet::from([("a/b-1".to_owned(), "10".to_owned())]);
        let all = packages(&[("a/b-1", "x", 10), ("a/b-1", "x", 11), ("a/b-1", "x", 20), ("a/b-1", "x", 30)]);
        assert_eq!(removed(&all, &Keep { since: 20, used: &used, has_ebuild: None }), [1]);
        assert_eq!(removed(&all, &Keep { since: i64::MAX, used: &used, has_ebuild: None }), [1, 2]);
        assert_eq!(removed(&all, &Keep { since: 0, used: &used, has_ebuild: None }), [0usize; 0]);
    }

    #[test]
    fn packages_without_an_ebuild_go_if_asked() {
        let used = BTreeSet::from([("a/old-1".to_owned(), "2".to_owned())]);
        let all = packages(&[("a/b-1", "x", 10), ("a/gone-1", "x", 11), ("a/old-1", "x", 2)]);
        let has = |package: &Stanza| package.cpv() == "a/b-1";
        assert_eq!(removed(&all, &Keep { since: i64::MAX, used: &used, has_ebuild: None }), [0usize; 0]);
        assert_eq!(removed(&all, &Keep { since: i64::MAX, used: &used, has_ebuild: Some(&has) }), [1]);
    }
}
