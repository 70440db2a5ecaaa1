//! Checks the keys and types of one layer of a recipe, before its values get a meaning. Reports every unknown key and every
//! wrong type, not only the first.

use super::diagnostic::{Finding, Place, TextKind, Texts};
use super::keys::{self, Entries, Key, SECTIONS, Type};
use super::parse::{Is, Item, Table, Value};
use crate::base::text::{nearest, quoted};

/// Returns a layer without its mistakes, and with the one spelling of each key.
pub(super) fn check(texts: &mut Texts, layer: Table) -> Table {
    let mut top = Table::new();
    let mut sections = Table::new();
    for (name, item) in layer {
        if SECTIONS.contains(&name.as_str()) {
            match item.value.is {
                Is::Table(table) => {
                    let at = item.value.at;
                    let is = Is::Table(section(texts, &name, table));
                    sections.insert(name, Item { key_at: item.key_at, value: Value { at, is } });
                }
                other => texts.find(
                    Finding::at(
                        &item.value.at,
                        format!("`{name}` must be a section"),
                        format!("found {}", other.found()),
                    )
                    .help(format!("write its keys after a line `[{name}]`")),
                ),
            }
        } else {
            top.insert(name, item);
        }
    }
    let mut checked = section(texts, "", top);
    checked.extend(sections);
    checked
}

/// Returns the valid items of a section.
fn section(texts: &mut Texts, section: &str, items: Table) -> Table {
    let mut checked: Table = Table::new();
    for (spelling, item) in items {
        let Some(key) = keys::find(section, &spelling) else {
            unknown(texts, section, &spelling, &item.key_at);
            continue;
        };
        if let Some(new) = keys::deprecated(section, &spelling) {
            texts.warn(&item.key_at, &format!("`{spelling}` is deprecated: write `{new}`"));
        }
        if let Some(first) = checked.get(key.name) {
            let finding = Finding::at(&item.key_at, format!("`{}` is given twice", key.name), "again here")
                .also(&first.key_at, "first here");
            texts.find(finding);
            continue;
        }
        if let Some(value) = typed(texts, section, key, item.value) {
            checked.insert(key.name.to_owned(), Item { key_at: item.key_at, value });
        }
    }
    checked
}

fn unknown(texts: &mut Texts, section: &str, spelling: &str, at: &Place) {
    let kind = texts.get(at.text).kind;
    let known = || keys::of_section(section).flat_map(|key| [key.name].into_iter().chain(key.aliases.iter().copied()));
    let shown = |name: &str| match kind {
        TextKind::Variable => keys::variable(section, name),
        TextKind::Option if !section.is_empty() => format!("{section}.{name}"),
        _ => name.to_owned(),
    };
    let place = if section.is_empty() { "at the top of a recipe".to_owned() } else { format!("in [{section}]") };
    let mut finding = Finding::at(at, format!("unknown key {} {place}", quoted(spelling)), "not a key");
    if let Some(moved) = keys::moved(section, spelling) {
        texts.find(finding.help(moved));
        return;
    }
    let top = section.is_empty().then_some(SECTIONS).into_iter().flatten();
    if let Some(meant) = nearest(spelling, known().chain(top)) {
        finding = finding.help(format!("did you mean `{}`?", shown(meant)));
    } else if let Some(key) = keys::KEYS.iter().find(|key| key.name == spelling || key.aliases.contains(&spelling)) {
        let home = if key.section.is_empty() { "at the top".to_owned() } else { format!("in [{}]", key.section) };
        finding = finding.help(format!("`{}` belongs {home}", key.name));
    }
    let mut names: Vec<String> = keys::of_section(section).map(|key| key.name.to_owned()).collect();
    if section.is_empty() {
        names.extend(SECTIONS.iter().map(|section| format!("[{section}]")));
    }
    texts.find(finding.help(format!("known keys {place}: {}", names.join(", "))));
}

/// Converts a value into the one form of its type in a tree. Notes a wrong type and returns `None`.
fn typed(texts: &mut Texts, section: &str, key: &Key, value: Value) -> Option<Value> {
    let wrong = Wrong { section, key };
    let Value { at, is } = value;
    let is = match (key.of, is) {
        (Type::Str, is @ Is::Str(_)) | (Type::Int, is @ Is::Int(_)) | (Type::Bool, is @ Is::Bool(_)) => is,
        (Type::Age | Type::Size | Type::Id, is @ (Is::Str(_) | Is::Int(_))) => text(Value { at: at.clone(), is }).is,
        (Type::Strs | Type::Words, Is::List(list)) => Is::List(wrong.strings(texts, list)?),
        (Type::Words, Is::Str(words)) => Is::List(split(&words, &at)),
        (Type::Ports, Is::List(list)) => {
            let list = list.into_iter().map(text).collect();
            Is::List(wrong.strings(texts, list)?)
        }
        (Type::Entries(entries), Is::List(list)) => Is::List(wrong.entries(texts, entries, list)?),
        (Type::Profile, is @ Is::Str(_)) => is,
        (Type::Profile, Is::List(list)) => Is::List(wrong.strings(texts, list)?),
        (Type::Profile, Is::Table(table)) => {
            Is::Table(inner(texts, table, keys::PROFILE, ("build.profile", "a profile")))
        }
        (Type::Map, Is::Table(table)) => Is::Table(wrong.map(texts, table, |value| value)?),
        (Type::Variables, Is::Table(table)) => Is::Table(wrong.map(texts, table, text)?),
        (Type::Lists, Is::Table(table)) => Is::Table(wrong.lists(texts, table)?),
        (Type::Tables, Is::Table(table)) => Is::Table(wrong.tables(texts, table)?),
        (Type::Tool(_), is @ Is::Bool(_)) | (Type::Choice, is @ (Is::Bool(_) | Is::Str(_) | Is::Int(_))) => is,
        (Type::Tool(keys) | Type::Keys(keys), Is::Table(table)) => {
            let (list, of) = (format!("{section}.{}", key.name), format!("`{}`", key.name));
            Is::Table(inner(texts, table, keys, (&list, &of)))
        }
        (Type::Lines(_), Is::List(list)) => Is::List(wrong.strings(texts, list)?),
        (Type::Lines(_), Is::Table(table)) => Is::Table(wrong.map(texts, table, |value| match value.is {
            Is::List(list) if list.iter().all(|word| matches!(word.is, Is::Str(_))) => {
                let words: Vec<&str> = list.iter().filter_map(Value::as_str).collect();
                Value { at: value.at, is: Is::Str(words.join(" ")) }
            }
            is => Value { at: value.at, is },
        })?),
        (Type::NameOr(_) | Type::StrOr(_), is @ Is::Str(_)) => is,
        (Type::StrOr(keys), Is::Table(table)) => {
            let (list, of) = (format!("{section}.{}", key.name), format!("`{}`", key.name));
            Is::Table(inner(texts, table, keys, (&list, &of)))
        }
        (Type::Named(entries) | Type::NameOr(entries), Is::Table(table)) => {
            Is::Table(wrong.named(texts, entries, table)?)
        }
        (Type::Tuples, Is::List(list)) => Is::List(wrong.tuples(texts, list)?),
        (Type::Steps, Is::List(list)) => Is::Steps(wrong.steps(texts, list)?),
        (of, is) => {
            wrong.note(texts, &at, of.expected(), &is);
            return None;
        }
    };
    Some(Value { at, is })
}

/// Returns the valid items of a table inside a section. `of` is the table's key and the noun for messages.
fn inner(texts: &mut Texts, table: Table, keys: &'static [Key], of: (&str, &str)) -> Table {
    let mut items = Table::new();
    for (name, item) in table {
        let Some(key) = keys.iter().find(|key| key.name == name) else {
            let known: Vec<&str> = keys.iter().map(|key| key.name).collect();
            let title = format!("unknown key {} of {}", quoted(&name), of.1);
            let meant = nearest(&name, known.iter().copied()).map(|meant| format!("did you mean `{meant}`?"));
            let finding = Finding::at(&item.key_at, title, "not a key").maybe_help(meant);
            texts.find(finding.help(format!("known keys of {}: {}", of.1, known.join(", "))));
            continue;
        };
        if let Some(value) = typed(texts, of.0, key, item.value) {
            items.insert(name, Item { key_at: item.key_at, value });
        }
    }
    items
}

/// The key of a value, for messages about the value.
struct Wrong<'a> {
    section: &'a str,
    key: &'a Key,
}

impl Wrong<'_> {
    fn note(&self, texts: &mut Texts, at: &Place, expected: &str, found: &Is) {
        let place = match self.section {
            "" => String::new(),
            "step" => " of a step".to_owned(),
            "tuple" => " of a tuple".to_owned(),
            section => format!(" in [{section}]"),
        };
        let example = match texts.get(at.text).kind {
            TextKind::Variable | TextKind::Option if self.key.section == self.section => in_words(self.key),
            _ => self.key.example.to_owned(),
        };
        texts.find(
            Finding::at(
                at,
                format!("wrong type for `{}`{place}", self.key.name),
                format!("expected {expected}, found {}", found.found()),
            )
            .help(format!("for example: {example}")),
        );
    }

    fn strings(&self, texts: &mut Texts, list: Vec<Value>) -> Option<Vec<Value>> {
        let bad = list.iter().find(|value| !matches!(value.is, Is::Str(_)));
        if let Some(bad) = bad {
            self.note(texts, &bad.at, "a string", &bad.is);
            return None;
        }
        Some(list)
    }

    fn map(&self, texts: &mut Texts, table: Table, convert: impl Fn(Value) -> Value) -> Option<Table> {
        let mut checked = Table::new();
        for (name, item) in table {
            let value = convert(item.value);
            if !matches!(value.is, Is::Str(_)) {
                self.note(texts, &value.at, "a string", &value.is);
                return None;
            }
            checked.insert(name, Item { key_at: item.key_at, value });
        }
        Some(checked)
    }

    fn lists(&self, texts: &mut Texts, table: Table) -> Option<Table> {
        let mut checked = Table::new();
        for (name, Item { key_at, value: Value { at, is } }) in table {
            let Is::List(list) = is else {
                self.note(texts, &at, "an array of strings", &is);
                return None;
            };
            let is = Is::List(self.strings(texts, list)?);
            checked.insert(name, Item { key_at, value: Value { at, is } });
        }
        Some(checked)
    }

    fn tables(&self, texts: &mut Texts, table: Table) -> Option<Table> {
        let mut checked = Table::new();
        for (name, Item { key_at, value: Value { at, is } }) in table {
            let Is::Table(table) = is else {
                self.note(texts, &at, "a table of strings", &is);
                return None;
            };
            let is = Is::Table(self.map(texts, table, text)?);
            checked.insert(name, Item { key_at, value: Value { at, is } });
        }
        Some(checked)
    }

    fn entries(&self, texts: &mut Texts, entries: &Entries, list: Vec<Value>) -> Option<Vec<Value>> {
        let mut checked = Vec::new();
        for Value { at, is } in list {
            let table = match is {
                Is::Str(_) if entries.strings => {
                    checked.push(Value { at, is });
                    continue;
                }
                Is::Table(table) => table,
                other => {
                    self.note(texts, &at, entries.entry, &other);
                    return None;
                }
            };
            let items = inner(texts, table, entries.keys, (entries.list, entries.of));
            checked.push(Value { at, is: Is::Table(items) });
        }
        Some(checked)
    }

    /// Returns the tables of a table by name.
    fn named(&self, texts: &mut Texts, entries: &Entries, table: Table) -> Option<Table> {
        let mut checked = Table::new();
        for (name, Item { key_at, value: Value { at, is } }) in table {
            let Is::Table(table) = is else {
                self.note(texts, &at, entries.entry, &is);
                return None;
            };
            let is = Is::Table(inner(texts, table, entries.keys, (entries.list, entries.of)));
            checked.insert(name, Item { key_at, value: Value { at, is } });
        }
        Some(checked)
    }

    /// Returns tables with the keys of a tuple and of axes. A value of an axis is a string or an array of strings.
    fn tuples(&self, texts: &mut Texts, list: Vec<Value>) -> Option<Vec<Value>> {
        let mut checked = Vec::new();
        for Value { at, is } in list {
            let Is::Table(table) = is else {
                self.note(texts, &at, "a table", &is);
                return None;
            };
            let (own, values): (Table, Table) =
                table.into_iter().partition(|(name, _)| keys::TUPLE.iter().any(|key| key.name == name));
            let mut table = inner(texts, own, keys::TUPLE, ("tuple", "a tuple"));
            for (name, item) in values {
                match item.value.is {
                    Is::Str(_) => _ = table.insert(name, item),
                    Is::List(list) => {
                        let is = Is::List(self.strings(texts, list)?);
                        table.insert(name, Item { key_at: item.key_at, value: Value { at: item.value.at, is } });
                    }
                    other => self.note(texts, &item.value.at, "a name, or an array of names", &other),
                }
            }
            checked.push(Value { at, is: Is::Table(table) });
        }
        Some(checked)
    }

    /// Returns the steps that have a name. The place of an item's key is that of its name.
    fn steps(&self, texts: &mut Texts, list: Vec<Value>) -> Option<Vec<Item>> {
        let mut checked: Vec<Item> = Vec::new();
        for Value { at, is } in list {
            let Is::Table(table) = is else {
                self.note(texts, &at, "a table", &is);
                return None;
            };
            let named = table.contains_key("name");
            let table = inner(texts, table, keys::STEP, ("step", "a step"));
            let Some(name) = table.get("name") else {
                if !named {
                    let finding = Finding::at(&at, "a step needs a name", "no `name`");
                    texts.find(finding.help("for example: name = \"configure\""));
                }
                continue;
            };
            let (key_at, word) = (name.value.at.clone(), name.value.as_str());
            if let Some(first) = checked.iter().find(|other| other.name() == word) {
                let title = format!("two steps are named {}", quoted(word.unwrap_or_default()));
                texts.find(Finding::at(&key_at, title, "again here").also(&first.key_at, "first here"));
                continue;
            }
            checked.push(Item { key_at, value: Value { at, is: Is::Table(table) } });
        }
        Some(checked)
    }
}

impl Item {
    /// Returns the string `name` of a table.
    pub(super) fn name(&self) -> Option<&str> {
        match &self.value.is {
            Is::Table(table) => table.get("name")?.value.as_str(),
            _ => None,
        }
    }
}

impl Value {
    /// Returns the string, if the value is a string.
    pub(super) fn as_str(&self) -> Option<&str> {
        match &self.is {
            Is::Str(string) => Some(string),
            _ => None,
        }
    }
}

/// Turns an integer into a string.
fn text(value: Value) -> Value {
    match value.is {
        Is::Int(number) => Value { at: value.at, is: Is::Str(number.to_string()) },
        is => Value { at: value.at, is },
    }
}

fn split(words: &str, at: &Place) -> Vec<Value> {
    words.split_whitespace().map(|word| Value { at: at.clone(), is: Is::Str(word.to_owned()) }).collect()
}

/// Writes the example of a key as `--set` and as a variable.
fn in_words(key: &Key) -> String {
    let value = key.example.split_once(" = ").map_or(key.example, |(_, value)| value);
    let value = if key.of == Type::Str { value.trim_matches('"') } else { value };
    let name = if key.section.is_empty() { key.name.to_owned() } else { format!("{}.{}", key.section, key.name) };
    format!("--set '{name}={value}', or {}='{value}'", keys::variable(key.section, key.name))
}
