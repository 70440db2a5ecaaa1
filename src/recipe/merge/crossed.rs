//! Contradictions between two keys of `[portage]`: a package that one fragment masks and another one unmasks, and a flag that is in
//! `make-conf.USE` of one and in `use` of another.

use std::collections::HashSet;

use super::unite::{Union, Winner, are_contrary, label};
use crate::base::text::quoted;
use crate::recipe::diagnostic::Place;
use crate::recipe::parse::{Is, Item, Table};

/// The path of a key in `[portage]`.
type Path = &'static [&'static str];

/// Two keys that can contradict each other.
struct Pair {
    early: Path,
    /// The key whose words Portage reads later.
    late: Path,
    /// Returns true if a word of the late key undoes one of the early key.
    contrary: fn(&str, &str) -> bool,
    /// Returns the label of a word of a key in a message.
    label: fn(Path, &str) -> &'static str,
}

const PAIRS: [Pair; 2] = [
    Pair {
        early: &["package-mask"],
        late: &["package-unmask"],
        contrary: |early, late| early == late,
        label: |path, _| if path == ["package-mask"] { "masked here" } else { "unmasked here" },
    },
    Pair { early: &["make-conf", "USE"], late: &["use"], contrary: are_contrary, label: |_, word| label(word) },
];

impl Union<'_> {
    /// Compares the keys of a fragment with other keys of those before it. A fragment that wins takes the word of the other one.
    pub(super) fn cross(&mut self, below: &mut Table, above: &mut Table) {
        for pair in &PAIRS {
            for (of_below, of_above) in [(pair.early, pair.late), (pair.late, pair.early)] {
                let added = words(above, of_above);
                let known: HashSet<&str> = added.iter().map(|(word, _)| plain(word)).collect();
                for (old, old_at) in words(below, of_below) {
                    // Most words meet no other one.
                    if plain(&old) != "*" && !known.contains("*") && !known.contains(plain(&old)) {
                        continue;
                    }
                    for (new, new_at) in words(above, of_above) {
                        let (early, late) = if of_below == pair.early { (&old, &new) } else { (&new, &old) };
                        if !(pair.contrary)(early, late) {
                            continue;
                        }
                        let title = format!(
                            "fragments contradict each other: {} in {} and {} in {}",
                            quoted(&old),
                            shown(of_below),
                            quoted(&new),
                            shown(of_above)
                        );
                        let labels = ((pair.label)(of_below, &old), (pair.label)(of_above, &new));
                        match self.winner((&old_at, &new_at), &title, labels) {
                            Some(Winner::Above) => drop_word(below, of_below, &old),
                            Some(Winner::Below) => drop_word(above, of_above, &new),
                            None => {}
                        }
                    }
                }
            }
        }
    }
}

/// Returns a word without the sign that takes it away.
fn plain(word: &str) -> &str {
    word.strip_prefix('-').unwrap_or(word)
}

fn shown(path: Path) -> String {
    format!("portage.{}", path.join("."))
}

/// Returns the value of a key in `[portage]`.
fn item(table: &mut Table, path: Path) -> Option<&mut Item> {
    path.iter().try_fold(table.get_mut("portage")?, |item, name| match &mut item.value.is {
        Is::Table(table) => table.get_mut(*name),
        _ => None,
    })
}

/// Returns the words of a key, with their places: those of a list or of a text, or the keys of a table.
fn words(table: &mut Table, path: Path) -> Vec<(String, Place)> {
    let Some(item) = item(table, path) else { return Vec::new() };
    match &item.value.is {
        Is::List(list) => {
            list.iter().filter_map(|value| Some((value.as_str()?.trim().to_owned(), value.at.clone()))).collect()
        }
        Is::Str(text) => text.split_whitespace().map(|word| (word.to_owned(), item.value.at.clone())).collect(),
        Is::Table(table) => table.iter().map(|(name, item)| (name.clone(), item.key_at.clone())).collect(),
        _ => Vec::new(),
    }
}

/// Removes a word from the value of a key.
fn drop_word(table: &mut Table, path: Path, word: &str) {
    let Some(item) = item(table, path) else { return };
    match &mut item.value.is {
        Is::List(list) => list.retain(|value| value.as_str().is_none_or(|other| other.trim() != word)),
        Is::Str(text) => {
            let left: Vec<&str> = text.split_whitespace().filter(|other| *other != word).collect();
            *text = left.join(" ");
        }
        Is::Table(table) => table.retain(|name, _| name != word),
        _ => {}
    }
}
