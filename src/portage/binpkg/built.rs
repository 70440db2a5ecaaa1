//! The packages that a build compiled or took from elsewhere, as `emerge.log` tells. The build may write to that file, so this decides
//! only which of a build's own files are looked at.

use std::collections::{BTreeMap, BTreeSet};

use crate::portage::ROOT;

/// The packages of one build.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Built {
    /// Compiled for the image.
    pub image: BTreeSet<String>,
    /// Compiled for the builder.
    pub builder: BTreeSet<String>,
    /// Installed from a binary package.
    pub taken: BTreeSet<String>,
}

impl Built {
    /// Reads the log of all emerge commands of a build. In a stage4, the image is the builder.
    pub fn parse(log: &str, in_place: bool) -> Self {
        let mut built = Self::default();
        // The roots of the running emerge's packages, by number.
        let mut image: BTreeMap<&str, bool> = BTreeMap::new();
        for line in log.lines() {
            let Some((_, text)) = line.split_once(": ") else { continue };
            let text = text.trim();
            if text.starts_with("Started emerge on") {
                image.clear();
            } else if let Some((number, rest)) = numbered(text, ">>> emerge ") {
                let root = rest.split_once(" to ").map_or("/", |(_, root)| root.trim_end_matches('/'));
                image.insert(number, in_place || root == ROOT);
            } else if let Some((number, rest)) = numbered(text, "=== ") {
                let Some((doing, cpv)) = rest.split_once(" (") else { continue };
                let cpv = cpv.split("::").next().unwrap_or_default().to_owned();
                match doing {
                    "Compiling/Merging" | "Compiling/Packaging" if image.get(number) == Some(&true) => {
                        built.image.insert(cpv);
                    }
                    "Compiling/Merging" | "Compiling/Packaging" => {
                        built.builder.insert(cpv);
                    }
                    "Merging Binary" => {
                        built.taken.insert(cpv);
                    }
                    _ => {}
                }
            }
        }
        built
    }
}

/// Splits `PREFIX(3 of 7) REST` into `3 of 7` and the rest.
fn numbered<'a>(text: &'a str, prefix: &str) -> Option<(&'a str, &'a str)> {
    text.strip_prefix(prefix)?.strip_prefix('(')?.split_once(") ")
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOG: &str = "\
1: Started emerge on: Nov 28, 2026 00:06:14
1:  *** emerge --jobs=2 a/b
1:  >>> emerge (1 of 3) a/tool-1 to /
1:  >>> emerge (2 of 3) a/b-1 to /quern/image/
1:  === (1 of 3) Cleaning (a/tool-1::/var/db/repos/g/a/tool/tool-1.ebuild)
1:  === (1 of 3) Compiling/Merging (a/tool-1::/var/db/repos/g/a/tool/tool-1.ebuild)
1:  === (2 of 3) Compiling/Merging (a/b-1::/var/db/repos/g/a/b/b-1.ebuild)
1:  >>> emerge (3 of 3) a/c-1 to /quern/image/
1:  === (3 of 3) Merging Binary (a/c-1::/quern/shared/image/a/c/c-1-1.gpkg.tar)
2: Started emerge on: Nov 28, 2026 00:06:14
2:  === (2 of 3) Compiling/Packaging (a/late-1::/var/db/repos/g/a/late/late-1.ebuild)
garbage
";

    #[test]
    fn packages_are_told_apart_by_root_and_origin() {
        let set = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<BTreeSet<_>>();
        let built = Built::parse(LOG, false);
        assert_eq!(built.image, set(&["a/b-1"]));
        assert_eq!(built.builder, set(&["a/late-1", "a/tool-1"]));
        assert_eq!(built.taken, set(&["a/c-1"]));
        assert_eq!(Built::parse(LOG, true).image, set(&["a/b-1", "a/tool-1"]));
    }
}
