//! Licences: from the names of an ebuild's LICENSE (PMS 7.2) to an expression of SPDX.

use std::collections::BTreeSet;

/// Deepest nesting of groups. Ebuilds have three.
const DEPTH: usize = 20;

/// Names of licences of ::gentoo, and the SPDX identifiers of the same text. Other names become references.
const SAME: &[(&str, &str)] = &[
    ("0BSD", "0BSD"),
    ("AGPL-3", "AGPL-3.0-only"),
    ("AGPL-3+", "AGPL-3.0-or-later"),
    ("Apache-1.1", "Apache-1.1"),
    ("Apache-2.0", "Apache-2.0"),
    ("Artistic-2", "Artistic-2.0"),
    ("BSD", "BSD-3-Clause"),
    ("BSD-1", "BSD-1-Clause"),
    ("BSD-2", "BSD-2-Clause"),
    ("BSD-4", "BSD-4-Clause"),
    ("Boost-1.0", "BSL-1.0"),
    ("CC-BY-3.0", "CC-BY-3.0"),
    ("CC-BY-4.0", "CC-BY-4.0"),
    ("CC-BY-SA-3.0", "CC-BY-SA-3.0"),
    ("CC-BY-SA-4.0", "CC-BY-SA-4.0"),
    ("CC0-1.0", "CC0-1.0"),
    ("CDDL", "CDDL-1.0"),
    ("EPL-1.0", "EPL-1.0"),
    ("EPL-2.0", "EPL-2.0"),
    ("EUPL-1.2", "EUPL-1.2"),
    ("FDL-1.1", "GFDL-1.1-only"),
    ("FDL-1.1+", "GFDL-1.1-or-later"),
    ("FDL-1.2", "GFDL-1.2-only"),
    ("FDL-1.2+", "GFDL-1.2-or-later"),
    ("FDL-1.3", "GFDL-1.3-only"),
    ("FDL-1.3+", "GFDL-1.3-or-later"),
    ("FTL", "FTL"),
    ("GPL-1", "GPL-1.0-only"),
    ("GPL-1+", "GPL-1.0-or-later"),
    ("GPL-2", "GPL-2.0-only"),
    ("GPL-2+", "GPL-2.0-or-later"),
    ("GPL-3", "GPL-3.0-only"),
    ("GPL-3+", "GPL-3.0-or-later"),
    ("ISC", "ISC"),
    ("LGPL-2", "LGPL-2.0-only"),
    ("LGPL-2+", "LGPL-2.0-or-later"),
    ("LGPL-2.1", "LGPL-2.1-only"),
    ("LGPL-2.1+", "LGPL-2.1-or-later"),
    ("LGPL-3", "LGPL-3.0-only"),
    ("LGPL-3+", "LGPL-3.0-or-later"),
    ("MIT", "MIT"),
    ("MPL-1.1", "MPL-1.1"),
    ("MPL-2.0", "MPL-2.0"),
    ("OFL-1.1", "OFL-1.1"),
    ("POSTGRESQL", "PostgreSQL"),
    ("PSF-2", "PSF-2.0"),
    ("Unicode-3.0", "Unicode-3.0"),
    ("Unlicense", "Unlicense"),
    ("WTFPL-2", "WTFPL"),
    ("ZLIB", "Zlib"),
    ("curl", "curl"),
];

/// Returns the SPDX expression of a LICENSE, whose groups behind a USE flag count if `enabled` says so. `None` if it names no licence or
/// is malformed. Adds the names without an identifier to `references`.
pub(super) fn expression(
    text: &str,
    enabled: impl Fn(&str) -> bool,
    references: &mut BTreeSet<String>,
) -> Option<String> {
    let mut parser = Parser { words: text.split_whitespace(), enabled: &enabled, names: BTreeSet::new() };
    let parsed = parser.group(0, true)?;
    references.extend(parser.names);
    parsed.joined(" AND ").map(|(text, _)| text)
}

/// Returns the identifier of a licence that SPDX does not list.
pub(super) fn reference(name: &str) -> String {
    let part = |c: char| match c {
        c if c.is_ascii_alphanumeric() || c == '.' || c == '-' => c.to_string(),
        '+' => "-or-later".to_owned(),
        _ => "-".to_owned(),
    };
    format!("LicenseRef-gentoo-{}", name.chars().map(part).collect::<String>())
}

struct Parser<'a, F> {
    words: std::str::SplitWhitespace<'a>,
    enabled: &'a F,
    /// The names without an identifier.
    names: BTreeSet<String>,
}

/// The parts of a group, each with whether it is an expression of several licences.
struct Group(Vec<(String, bool)>);

impl Group {
    /// Joins the parts. `None` if there are none.
    fn joined(mut self, operator: &str) -> Option<(String, bool)> {
        let mut seen = BTreeSet::new();
        self.0.retain(|(text, _)| seen.insert(text.clone()));
        match self.0.len() {
            0 => None,
            1 => self.0.pop(),
            _ => {
                let part = |(text, compound): (String, bool)| if compound { format!("({text})") } else { text };
                Some((self.0.into_iter().map(part).collect::<Vec<_>>().join(operator), true))
            }
        }
    }
}

impl<F: Fn(&str) -> bool> Parser<'_, F> {
    /// Parses to the end of the group, or of the text if it is the `outer` group.
    fn group(&mut self, depth: usize, outer: bool) -> Option<Group> {
        if depth == DEPTH {
            return None;
        }
        let mut parts = Vec::new();
        loop {
            let Some(word) = self.words.next() else { return outer.then_some(Group(parts)) };
            let flag = word.strip_suffix('?');
            match word {
                ")" => return (!outer).then_some(Group(parts)),
                "(" => parts.extend(self.group(depth + 1, false)?.joined(" AND ")),
                "||" => {
                    let _parenthesis = self.words.next().filter(|word| *word == "(")?;
                    parts.extend(self.group(depth + 1, false)?.joined(" OR "));
                }
                _ if flag.is_some() => {
                    let _parenthesis = self.words.next().filter(|word| *word == "(")?;
                    let flag = flag.unwrap_or_default();
                    let counts =
                        flag.strip_prefix('!').map_or_else(|| (self.enabled)(flag), |flag| !(self.enabled)(flag));
                    let names = self.names.clone();
                    let group = self.group(depth + 1, false)?.joined(" AND ");
                    match counts {
                        true => parts.extend(group),
                        false => self.names = names,
                    }
                }
                name => parts.push((self.licence(name), false)),
            }
        }
    }

    fn licence(&mut self, name: &str) -> String {
        if let Some((_, identifier)) = SAME.iter().find(|(gentoo, _)| *gentoo == name) {
            return (*identifier).to_owned();
        }
        self.names.insert(name.to_owned());
        reference(name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> (Option<String>, Vec<String>) {
        let mut references = BTreeSet::new();
        let expression = expression(text, |flag| flag == "on", &mut references);
        (expression, references.into_iter().collect())
    }

    #[test]
    fn groups_become_and_or_or() {
        for (text, expected) in [
            ("MIT", "MIT"),
            ("GPL-2+ MIT", "GPL-2.0-or-later AND MIT"),
            ("|| ( MIT GPL-2 ) BSD", "(MIT OR GPL-2.0-only) AND BSD-3-Clause"),
            ("|| ( MIT ( GPL-2 BSD ) )", "MIT OR (GPL-2.0-only AND BSD-3-Clause)"),
            ("on? ( MIT ) off? ( GPL-3 ) !off? ( ISC )", "MIT AND ISC"),
            ("MIT MIT", "MIT"),
            ("( ( MIT ) )", "MIT"),
        ] {
            assert_eq!(parse(text), (Some(expected.to_owned()), Vec::new()), "{text}");
        }
    }

    #[test]
    fn other_names_become_references() {
        let (expression, names) = parse("vim public-domain off? ( hidden ) W3C+");
        assert_eq!(
            expression.unwrap(),
            "LicenseRef-gentoo-vim AND LicenseRef-gentoo-public-domain AND LicenseRef-gentoo-W3C-or-later"
        );
        assert_eq!(names, ["W3C+", "public-domain", "vim"]);
        assert_eq!(reference("a_b<\u{1b}é"), "LicenseRef-gentoo-a-b---");
    }

    #[test]
    fn malformed_licences_are_none() {
        for text in ["", "off? ( MIT )", "( MIT", "MIT )", "|| MIT", "on? MIT", &"( ".repeat(100_000)] {
            assert_eq!(parse(text).0, None, "{}", &text[..text.len().min(20)]);
        }
    }

    #[test]
    fn the_table_is_sorted_and_has_no_name_twice() {
        assert!(SAME.windows(2).all(|pair| pair[0].0 < pair[1].0));
    }
}
