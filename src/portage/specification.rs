//! Package dependency specifications: the values of RDEPEND and similar variables (PMS 8.2).

/// A specification that names a package. Its version does not matter: an installed tree satisfies it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Specification<'a> {
    /// `category/package`.
    pub name: &'a str,
    pub slot: Option<&'a str>,
}

/// Returns the packages that a text names, in its order. Groups behind a USE flag count if `enabled` says so, all members of an any-of
/// group count, and blockers do not.
pub fn packages<'a>(text: &'a str, enabled: impl Fn(&str) -> bool) -> Vec<Specification<'a>> {
    let mut found = Vec::new();
    // Whether each open group counts. The condition of the next group stands before its parenthesis.
    let (mut open, mut next) = (vec![true], true);
    for word in text.split_whitespace() {
        let counts = open.last().copied().unwrap_or(true);
        match (word, word.strip_suffix('?')) {
            ("(", _) => {
                open.push(counts && next);
                next = true;
            }
            (")", _) => _ = open.pop(),
            ("||" | "^^" | "??", _) => {}
            (_, Some(flag)) => {
                next = match flag.strip_prefix('!') {
                    Some(flag) => !enabled(flag),
                    None => enabled(flag),
                }
            }
            _ if counts => found.extend(specification(word)),
            _ => {}
        }
    }
    found
}

/// Parses one specification. `None` for a blocker and for a word without a category.
fn specification(word: &str) -> Option<Specification<'_>> {
    if word.starts_with('!') {
        return None;
    }
    let plain = word.trim_start_matches(['<', '>', '=', '~']);
    let head = plain.split('[').next().unwrap_or_default();
    let (name, slot) = head.split_once(':').map_or((head, None), |(name, slot)| (name, Some(slot)));
    let slot = slot.and_then(|slot| slot.split([':', '/', '=', '*']).next()).filter(|slot| !slot.is_empty());
    let name = match plain.len() == word.len() {
        true => name,
        false => {
            let (category, package) = name.split_once('/')?;
            let (package, _) = super::installed::split_version(package.trim_end_matches('*'))?;
            &name[..category.len() + 1 + package.len()]
        }
    };
    name.contains('/').then_some(Specification { name, slot })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn specifications_are_reduced_to_names_and_slots() {
        for (word, name, slot) in [
            ("a/b", "a/b", None),
            (">=a/b-1.2-r3:0/1=[x,-y]", "a/b", Some("0")),
            ("=a/b-2*", "a/b", None),
            ("~a/b-c-1:3::gentoo", "a/b-c", Some("3")),
            ("a/b:=", "a/b", None),
            ("a/b:*", "a/b", None),
            ("a/b::gentoo", "a/b", None),
        ] {
            assert_eq!(specification(word), Some(Specification { name, slot }), "{word}");
        }
        for word in ["!a/b", "!!<a/b-1", "b", ">=a/b", "=", ""] {
            assert_eq!(specification(word), None, "{word}");
        }
    }

    #[test]
    fn conditions_decide_about_groups() {
        let text =
            "a/one x? ( a/two !y? ( a/three ) ) z? ( a/four || ( a/five ) ) || ( a/six ( a/seven ) ) ) ) a/eight";
        let names: Vec<_> = packages(text, |flag| flag == "x").iter().map(|found| found.name).collect();
        assert_eq!(names, ["a/one", "a/two", "a/three", "a/six", "a/seven", "a/eight"]);
    }
}
