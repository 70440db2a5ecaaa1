//! Types of images: the types of the images that they may start from, and the keys that they must or must not have.

use super::{Merger, Part, lay};
use crate::base::error::Result;
use crate::base::text::{nearest, quoted};
use crate::recipe::diagnostic::{Finding, Place, Problem, Text, TextKind, Texts};
use crate::recipe::keys;
use crate::recipe::lineage::TreePlace;
use crate::recipe::parse::{self, Is, Item, Table, Value};
use crate::recipe::{shape, words};

/// The types that every tree has.
const BUILT_IN: &str = include_str!("types.toml");
/// The word for no image, among the types that an image may start from.
const NOTHING: &str = "/";

/// An image that another one starts from: its text, and its type.
#[derive(Debug)]
pub(super) struct Above {
    text: usize,
    named: Option<Item>,
}

/// The type of the image itself.
#[derive(Debug)]
pub(super) struct Followed {
    named: Item,
    definition: Table,
}

impl Merger<'_> {
    /// Follows the type of an image: checks the image that it starts from, and lays the files of the type over the tree. `text` is the
    /// text of the image.
    pub(super) fn follow(&mut self, place: Option<&TreePlace>, named: Option<Item>, text: usize) -> Result<()> {
        let above = self.above.take();
        if let Some((named, name)) = named.as_ref().and_then(|named| Some((named, named.value.as_str()?))) {
            let types = self.types(place);
            let Some(definition) = types.get(name).and_then(|item| table(&item.value)) else {
                let known: Vec<&str> = types.keys().map(String::as_str).collect();
                let meant = nearest(name, known.iter().copied()).map(|meant| format!("did you mean `{meant}`?"));
                let finding = Finding::at(&named.value.at, format!("unknown type {}", quoted(name)), "not a type");
                let known = format!("known types: {}; a tree defines its own in [type.NAME]", known.join(", "));
                self.texts.find(finding.maybe_help(meant).help(known));
                return Ok(());
            };
            self.check_above(named, definition.get("parents"), above.as_ref());
            if let Some(include) = definition.get("include") {
                self.include(include.value.clone(), include.value.at.text)?;
            }
            if let Some(kind) = definition.get("kind") {
                let build = Table::from([("kind".to_owned(), kind.clone())]);
                let value = Value { at: kind.value.at.clone(), is: Is::Table(build) };
                lay(&mut self.tree, Table::from([("build".to_owned(), Item { key_at: kind.key_at.clone(), value })]));
            }
            if self.part == Part::Own {
                self.followed = Some(Followed { named: named.clone(), definition: definition.clone() });
            }
        }
        self.above = Some(Above { text, named });
        Ok(())
    }

    /// Returns the types that an image can have: those of its tree over the built-in ones.
    fn types(&mut self, place: Option<&TreePlace>) -> Table {
        let mut types = self.built_in();
        let definitions = place.and_then(|place| self.trees.iter().find(|tree| tree.root == place.root));
        lay(&mut types, definitions.map(|tree| tree.types.clone()).unwrap_or_default());
        types
    }

    /// Returns the types that every tree has.
    fn built_in(&mut self) -> Table {
        let texts = &mut *self.texts;
        self.built_in.get_or_insert_with(|| built_in(texts)).clone()
    }

    /// Notes mistakes in the types of the tree that was read last.
    pub(super) fn check_types(&mut self) {
        let Some(own) = self.trees.last().map(|tree| tree.types.clone()).filter(|own| !own.is_empty()) else { return };
        let mut known = self.built_in();
        lay(&mut known, own.clone());
        for (name, item) in own {
            if let Err(problem) = words::item_name(&name) {
                self.texts.problem(&item.key_at, format!("not a valid name of a type: {}", quoted(&name)), problem);
            }
            let Some(definition) = table(&item.value) else { continue };
            for parent in strings(definition.get("parents")) {
                let Some(word) = parent.as_str().filter(|word| *word != NOTHING && !known.contains_key(*word)) else {
                    continue;
                };
                let meant = nearest(word, known.keys().map(String::as_str));
                let problem = Problem {
                    label: "not a type".to_owned(),
                    help: meant.map(|meant| format!("did you mean `{meant}`?")),
                };
                self.texts.problem(&parent.at, format!("unknown type {}", quoted(word)), problem);
            }
            for key in strings(definition.get("requires")).iter().chain(strings(definition.get("forbids"))) {
                let first = key.as_str().unwrap_or_default().split('.').next().unwrap_or_default();
                let sections = || keys::SECTIONS.into_iter().chain(keys::of_section("").map(|key| key.name));
                if !sections().any(|known| known == first) {
                    let help = nearest(first, sections()).map(|meant| format!("did you mean `{meant}`?"));
                    let problem = Problem { label: "not a key".to_owned(), help };
                    self.texts.problem(&key.at, format!("no recipe has the key {}", quoted(first)), problem);
                }
            }
        }
    }

    /// Notes an image that starts from one of a type that its own type does not allow.
    fn check_above(&mut self, named: &Item, parents: Option<&Item>, above: Option<&Above>) {
        let Some(parents) = parents else { return };
        let allowed: Vec<&str> = strings(Some(parents)).iter().filter_map(Value::as_str).collect();
        let name = quoted(named.value.as_str().unwrap_or_default());
        let of_above = above.map(|above| (above, above.named.as_ref().and_then(|named| named.value.as_str())));
        let fits = match of_above {
            None => allowed.is_empty() || allowed.contains(&NOTHING),
            Some((_, word)) => word.is_some_and(|word| allowed.contains(&word)),
        };
        if fits {
            return;
        }
        let at = |title: String| Finding::at(&named.value.at, title, "this type");
        let finding = match of_above {
            None => at(format!("an image of the type {name} must start from another image"))
                .also(&parents.value.at, "from one of these types"),
            Some((Above { named: Some(other), .. }, Some(word))) => {
                let word = quoted(word);
                at(format!("an image of the type {name} cannot start from one of the type {word}"))
                    .also(&other.value.at, "the type of the image that it starts from")
            }
            Some((above, _)) => at(format!("an image of the type {name} cannot start from one without a type"))
                .also(&Place { text: above.text, span: 0..0 }, "the image that it starts from"),
        };
        let shown: Vec<&str> = allowed.iter().map(|word| if *word == NOTHING { "no image" } else { *word }).collect();
        let help = match shown.is_empty() {
            true => format!("an image of the type {name} starts from no other image"),
            false => format!("an image of the type {name} may start from: {}", shown.join(", ")),
        };
        self.texts.find(finding.help(help));
    }

    /// Notes keys of the whole recipe that its type requires or forbids.
    pub(super) fn check_followed(&mut self) {
        let Some(Followed { named, definition }) = self.followed.take() else { return };
        let name = quoted(named.value.as_str().unwrap_or_default());
        for key in strings(definition.get("requires")) {
            let Some(word) = key.as_str().filter(|word| find(&self.tree, word).is_none()) else { continue };
            let title = format!("an image of the type {name} must have the key {}", quoted(word));
            let (section, inner) = word.split_once('.').unwrap_or(("", word));
            let example = keys::find(section, inner).map(|key| format!("for example: {}", key.example));
            let example = example.map(|line| if section.is_empty() { line } else { format!("in [{section}], {line}") });
            let finding = Finding::at(&named.value.at, title, "this type").also(&key.at, "required here");
            self.texts.find(finding.maybe_help(example));
        }
        for key in strings(definition.get("forbids")) {
            let Some((word, item)) = key.as_str().and_then(|word| Some((word, find(&self.tree, word)?))) else {
                continue;
            };
            let title = format!("an image of the type {name} cannot have the key {}", quoted(word));
            self.texts.find(Finding::at(&item.key_at, title, "given here").also(&key.at, "forbidden here"));
        }
        let kind = find(&self.tree, "build.kind").map(|item| &item.value);
        if let (Some(given), Some(wanted)) = (kind, definition.get("kind"))
            && given.as_str() != wanted.value.as_str()
        {
            let word = quoted(wanted.value.as_str().unwrap_or_default());
            let title = format!("an image of the type {name} has the kind {word}");
            let finding = Finding::at(&given.at, title, "another kind").also(&wanted.value.at, "the kind of the type");
            self.texts.find(finding.help("leave build.kind out"));
        }
    }
}

/// Reads the types that every tree has.
fn built_in(texts: &mut Texts) -> Table {
    let text = Text {
        label: "(built-in types)".to_owned(),
        text: BUILT_IN.to_owned(),
        dir: "/".into(),
        kind: TextKind::File,
        rank: 0,
    };
    let text = texts.add(text);
    let mut layer = parse::document(texts, text).map(|layer| shape::check(texts, layer)).unwrap_or_default();
    match layer.remove("type").map(|item| item.value.is) {
        Some(Is::Table(types)) => types,
        _ => Table::new(),
    }
}

/// Returns the item of a key in the form `section.key` or `key.name`. An empty table counts as absent.
fn find<'a>(tree: &'a Table, key: &str) -> Option<&'a Item> {
    let (first, rest) = key.split_once('.').map_or((key, None), |(first, rest)| (first, Some(rest)));
    let name = |section: &str| keys::find(section, rest?).map(|key| key.name);
    let item = tree.get(first)?;
    match (&item.value.is, rest) {
        (Is::Table(table), Some(rest)) => {
            match name(first).and_then(|name| table.get(name)).or_else(|| table.get(rest)) {
                Some(item) => Some(item),
                None => find(table, rest),
            }
        }
        (_, Some(_)) => None,
        (Is::Table(table), None) => (!table.is_empty()).then_some(item),
        (_, None) => Some(item),
    }
}

fn table(value: &Value) -> Option<&Table> {
    match &value.is {
        Is::Table(table) => Some(table),
        _ => None,
    }
}

/// Returns the values of an array; none if the key is absent.
fn strings(item: Option<&Item>) -> &[Value] {
    match item.map(|item| &item.value.is) {
        Some(Is::List(list)) => list,
        _ => &[],
    }
}
