//! The union of fragments, which must not contradict each other.

use std::collections::BTreeSet;

use crate::base::text::quoted;
use crate::recipe::diagnostic::{Finding, Place, Texts};
use crate::recipe::keys::{self, Type};
use crate::recipe::parse::{Is, Item, Table, Value};

/// Keys whose arrays are sets: their values can be united.
const SETS: [&str; 10] = [
    "portage.use",
    "emerge.packages",
    "emerge.unmerge",
    "emerge.rebuild",
    "strip.paths",
    "strip.empty",
    "build.profile-packages",
    "oci.ports",
    "oci.volumes",
    "oci.cuts",
];
/// Tables in which every array is a set.
const OF_SETS: [&str; 3] = ["system.", "sets.", "split."];

/// Unites fragments.
pub(super) struct Union<'a> {
    pub(super) texts: &'a mut Texts,
    /// The texts of fragments that win over others.
    pub(super) overriding: BTreeSet<usize>,
}

/// The winner of a contradiction.
pub(super) enum Winner {
    Below,
    Above,
}

impl Union<'_> {
    /// Unites a fragment with those before it.
    pub(super) fn unite(&mut self, below: &mut Table, mut above: Table) {
        self.cross(below, &mut above);
        self.tables("", below, above);
    }

    fn tables(&mut self, path: &str, below: &mut Table, above: Table) {
        for (key, item) in above {
            let path = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
            let mut item = if is_lines(&path) { in_lines(item) } else { item };
            match below.get_mut(&key) {
                Some(old) => self.items(&path, old, item),
                None => {
                    if let Is::Table(above) = &mut item.value.is {
                        let mut table = Table::new();
                        self.tables(&path, &mut table, std::mem::take(above));
                        *above = table;
                    }
                    below.insert(key, item);
                }
            }
        }
    }

    fn items(&mut self, path: &str, below: &mut Item, above: Item) {
        match (&mut below.value.is, above.value.is) {
            (Is::Table(below), Is::Table(above)) => self.tables(path, below, above),
            (Is::Steps(below), Is::Steps(above)) => self.steps(path, below, above),
            (Is::List(below), Is::List(above)) if is_lines(path) => self.lines(path, below, above),
            (Is::List(below), Is::List(above)) if is_set(path) => self.sets(path, below, above),
            (old, new) if same(old, &new) => {}
            (_, is) => {
                let places = (&below.value.at.clone(), &above.value.at.clone());
                let title = format!("fragments contradict each other: two values of {}", quoted(path));
                if let Some(Winner::Above) = self.winner(places, &title, ("one value", "another value")) {
                    *below = Item { key_at: above.key_at, value: Value { at: above.value.at, is } };
                }
            }
        }
    }

    /// Unites steps by name.
    fn steps(&mut self, path: &str, below: &mut Vec<Item>, above: Vec<Item>) {
        for item in above {
            match below.iter_mut().find(|old| old.name() == item.name()) {
                Some(old) => {
                    let path = format!("{path}.{}", item.name().unwrap_or_default());
                    self.items(&path, old, item);
                }
                None => below.push(item),
            }
        }
    }

    /// Unites words. A word with `-` contradicts the same word without.
    fn sets(&mut self, path: &str, below: &mut Vec<Value>, above: Vec<Value>) {
        for value in above {
            let Some(word) = value.as_str() else { continue };
            let mut stays = !below.iter().any(|old| old.as_str() == Some(word));
            let contrary = |old: &Value| old.as_str().is_some_and(|old| are_contrary(old, word));
            while let Some(index) = below.iter().position(contrary).filter(|_| stays) {
                let old = below[index].as_str().unwrap_or_default();
                let (title, labels) = (contrary_title(path, old, word), (label(old), label(word)));
                let at = below[index].at.clone();
                match self.winner((&at, &value.at), &title, labels) {
                    Some(Winner::Above) => _ = below.remove(index),
                    _ => stays = false,
                }
            }
            if stays {
                below.push(value);
            }
        }
    }

    /// Unites lines of a package file by package. A flag with `-` contradicts the same flag without.
    fn lines(&mut self, path: &str, below: &mut Vec<Value>, above: Vec<Value>) {
        for mut value in above {
            if below.iter().any(|old| old.as_str() == value.as_str()) {
                continue;
            }
            let mut line = Line::of(&value);
            for old_value in below.iter_mut() {
                let mut old = Line::of(old_value);
                let flags = if old.atom == line.atom { line.flags.clone() } else { Vec::new() };
                for flag in flags {
                    let contrary = old.flags.iter().filter(|old| are_contrary(old, &flag));
                    for contrary in contrary.cloned().collect::<Vec<_>>() {
                        let title = contrary_title(&format!("{path} of {}", line.atom), &contrary, &flag);
                        let places = (&old_value.at.clone(), &value.at.clone());
                        match self.winner(places, &title, (label(&contrary), label(&flag))) {
                            Some(Winner::Above) => old.drop(&contrary, old_value),
                            Some(Winner::Below) => line.drop(&flag, &mut value),
                            None => {}
                        }
                    }
                }
            }
            below.push(value);
        }
        // A line that lost all its flags means another thing.
        below.retain(|value| value.as_str().is_some_and(|line| !line.is_empty()));
    }

    /// Returns the winner of a contradiction, or notes that there is none.
    pub(super) fn winner(
        &mut self,
        (below, above): (&Place, &Place),
        title: &str,
        labels: (&str, &str),
    ) -> Option<Winner> {
        match (self.overriding.contains(&below.text), self.overriding.contains(&above.text)) {
            (true, false) => Some(Winner::Below),
            (false, true) => Some(Winner::Above),
            _ => {
                let finding = Finding::at(above, title, labels.1).also(below, labels.0);
                self.texts.find(finding.help("the fragment that shall win needs the line `override = true`"));
                None
            }
        }
    }
}

/// A line of a package file.
struct Line {
    atom: String,
    /// Its flags in the form `flag`, `-flag`, `GROUP:flag` or `-GROUP:flag`.
    flags: Vec<String>,
}

impl Line {
    fn of(value: &Value) -> Self {
        let mut words = value.as_str().unwrap_or_default().split_whitespace();
        let atom = words.next().unwrap_or_default().to_owned();
        let (mut flags, mut group) = (Vec::new(), "");
        for word in words {
            match word.strip_suffix(':') {
                Some(_) => group = word,
                None => flags.push(match word.strip_prefix('-') {
                    Some(flag) => format!("-{group}{flag}"),
                    None => format!("{group}{word}"),
                }),
            }
        }
        Self { atom, flags }
    }

    /// Removes a flag from the line and from its value.
    fn drop(&mut self, flag: &str, value: &mut Value) {
        self.flags.retain(|other| other != flag);
        let mut line = String::new();
        for flag in &self.flags {
            let (sign, flag) = flag.strip_prefix('-').map_or(("", flag.as_str()), |flag| ("-", flag));
            let (group, flag) =
                flag.split_once(':').map_or((String::new(), flag), |(group, flag)| (format!("{group}: "), flag));
            line += &format!("{} {group}{sign}{flag}\n", self.atom);
        }
        value.is = Is::Str(line.trim_end().to_owned());
    }
}

/// Returns true if the key is that of a package file.
fn is_lines(path: &str) -> bool {
    let key = path.strip_prefix("portage.").and_then(|name| keys::find("portage", name));
    key.is_some_and(|key| matches!(key.of, Type::Lines(_)))
}

fn is_set(path: &str) -> bool {
    SETS.contains(&path) || OF_SETS.iter().any(|tables| path.starts_with(tables))
}

/// Turns a table of packages into lines.
fn in_lines(item: Item) -> Item {
    let Item { key_at, value: Value { at, is } } = item;
    let is = match is {
        Is::Table(table) => {
            let mut lines: Vec<Value> = table
                .iter()
                .map(|(atom, item)| {
                    let line = format!("{atom} {}", item.value.as_str().unwrap_or_default());
                    Value { at: item.key_at.clone(), is: Is::Str(line.trim_end().to_owned()) }
                })
                .collect();
            lines.sort_by_key(|line| (line.at.text, line.at.span.start));
            Is::List(lines)
        }
        is => is,
    };
    Item { key_at, value: Value { at, is } }
}

/// Returns true if a later word undoes an earlier one. `-*` undoes every word before it.
pub(super) fn are_contrary(earlier: &str, later: &str) -> bool {
    match (earlier.strip_prefix('-'), later.strip_prefix('-')) {
        (None, Some("*")) => true,
        (None, Some(later)) => earlier == later,
        (Some(earlier), None) => earlier == later,
        _ => false,
    }
}

fn contrary_title(path: &str, earlier: &str, later: &str) -> String {
    format!("fragments contradict each other: {} and {} in {path}", quoted(earlier), quoted(later))
}

pub(super) fn label(word: &str) -> &'static str {
    if word.starts_with('-') { "unset here" } else { "set here" }
}

/// Compares two values, but not their places.
fn same(one: &Is, other: &Is) -> bool {
    let items = |one: &Table, other: &Table| {
        one.len() == other.len()
            && one.iter().zip(other).all(|((a, x), (b, y))| a == b && same(&x.value.is, &y.value.is))
    };
    match (one, other) {
        (Is::List(one), Is::List(other)) => {
            one.len() == other.len() && one.iter().zip(other).all(|(a, b)| same(&a.is, &b.is))
        }
        (Is::Table(one), Is::Table(other)) => items(one, other),
        (Is::Steps(one), Is::Steps(other)) => {
            one.len() == other.len() && one.iter().zip(other).all(|(a, b)| same(&a.value.is, &b.value.is))
        }
        (one, other) => one == other,
    }
}
