//! `[sets]`: named lists of packages.

use std::collections::BTreeMap;
use std::path::Path;

use super::{Checker, Word, unchanged};
use crate::base::text::quoted;
use crate::recipe::atom;
use crate::recipe::diagnostic::{Finding, Problem};
use crate::recipe::parse::Is;

/// Sets of Portage itself and of the profile, whose names a recipe cannot give to others.
const OWN: [&str; 7] = ["profile", "selected", "system", "world", "installed", "preserved-rebuild", "module-rebuild"];

impl Checker<'_> {
    /// Returns the packages of each set.
    pub(super) fn sets(&mut self) -> BTreeMap<String, Vec<String>> {
        let Some(Is::Table(table)) = self.tree.get("sets").map(|item| item.value.is.clone()) else {
            return BTreeMap::new();
        };
        let mut sets: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for (name, item) in &table {
            let word = Word { text: name.clone(), at: item.key_at.clone() };
            let mut named = self.follow(&word, "name of a set", unchanged(atom::set)).is_some();
            if OWN.contains(&name.as_str()) {
                let problem = Problem::new("Portage has a set of this name");
                self.texts.problem(&word.at, format!("not a valid name of a set: {}", quoted(name)), problem);
                named = false;
            }
            // A file cannot have the name of a directory.
            if let Some(inner) = table.keys().find(|other| *other != name && Path::new(other).starts_with(name)) {
                let title = format!("the set {} cannot lie in the set {}", quoted(inner), quoted(name));
                self.texts.find(Finding::at(&word.at, title, "a set with packages of its own"));
            }
            let Is::List(list) = &item.value.is else { continue };
            let words: Vec<Word> = list.iter().filter_map(Word::of).collect();
            let packages = words.iter().filter_map(|word| self.follow(word, "package", unchanged(atom::package)));
            let packages = packages.collect();
            if named {
                sets.insert(name.clone(), packages);
            }
        }
        sets
    }
}

#[cfg(test)]
mod tests {
    use crate::recipe::tests::{Place, job, refusal};

    #[test]
    fn sets_have_packages_and_names_of_their_own() {
        let place = Place::new();
        let of = |sets: &str| place.with(&[], &[&format!("sets={sets}"), "emerge.packages=['@site/web']"]);
        let sets = job(&of("{ 'site/web' = ['a/b', '@base'], base = ['>=c/d-1'] }")).portage.sets;
        assert_eq!(sets["site/web"], ["a/b", "@base"]);
        for (sets, said) in [
            ("{ world = ['a/b'] }", "Portage has a set of this name"),
            ("{ '../x' = ['a/b'] }", "the name of a set"),
            ("{ a = ['x/y'], 'a/b' = ['x/y'] }", "cannot lie in the set"),
            ("{ a = ['not an atom'] }", "not a valid package"),
            ("{ a = 'x/y' }", "wrong type for `sets`"),
        ] {
            let refused = refusal(&of(sets));
            assert!(refused.contains(said), "{sets}: {refused}");
        }
    }
}
