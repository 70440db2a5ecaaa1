//! Environment variables and `--set`.

use std::ffi::OsStr;

use super::{Merger, lay};
use crate::base::text::{nearest, quoted};
use crate::recipe::diagnostic::{Finding, Place, Text, TextKind};
use crate::recipe::keys::{self, SECTIONS, Type};
use crate::recipe::parse::{self, Is, Item, Table, Value};
use crate::recipe::{Request, shape};

/// The rank of environment variables, above every file.
pub(in crate::recipe) const VARIABLES: usize = usize::MAX - 2;
/// The rank of `--set`, above the variables.
const OPTIONS: usize = usize::MAX - 1;

impl Merger<'_> {
    /// Lays every environment variable that names a section over the tree.
    pub(super) fn variables(&mut self, request: &Request) {
        for (name, value) in &request.env {
            let Some(name) = name.to_str() else { continue };
            let Some(rest) = name.strip_prefix("QUERN_") else { continue };
            if let Some(of_vars) = rest.strip_prefix("VARS_") {
                self.of_vars(name, of_vars, value, request);
                continue;
            }
            let Some((section, key)) = named_by(rest) else { continue };
            let text = self.texts.add(Text {
                label: String::new(),
                text: format!("{name}={}", value.to_string_lossy()),
                dir: request.cwd.clone(),
                kind: TextKind::Variable,
                rank: VARIABLES,
            });
            let key_at = Place { text, span: name.len() - key.len()..name.len() };
            if key.is_empty() {
                let whole = Place { text, span: 0..name.len() };
                let example = keys::of_section(section).next().map(|key| keys::variable(section, key.name));
                let finding = Finding::at(&whole, format!("{name} names a section, not a key"), "no key");
                self.texts.find(finding.maybe_help(example.map(|example| format!("for example: {example}=…"))));
                continue;
            }
            let start = name.len() + 1;
            if value.to_str().is_none() {
                let place = Place { text, span: start..self.texts.get(text).text.len() };
                self.texts.find(Finding::at(&place, format!("the value of {name} is not UTF-8"), "not UTF-8"));
                continue;
            }
            let known = spellings(section).find(|spelling| keys::variable(section, spelling) == name);
            let spelling = known.map_or_else(|| key.to_ascii_lowercase().replace('_', "-"), str::to_owned);
            self.argument(section, &spelling, None, key_at, start);
        }
    }

    /// Lays `QUERN_VARS_<NAME>` over the variable of that name, in upper or lower case.
    fn of_vars(&mut self, name: &str, of_vars: &str, value: &OsStr, request: &Request) {
        let text = self.texts.add(Text {
            label: String::new(),
            text: format!("{name}={}", value.to_string_lossy()),
            dir: request.cwd.clone(),
            kind: TextKind::Variable,
            rank: VARIABLES,
        });
        let place = |from: usize, to: usize| Place { text, span: from..to };
        let name_at = place(name.len() - of_vars.len(), name.len());
        let declared: Vec<String> = match self.tree.get("vars").map(|item| &item.value.is) {
            Some(Is::Table(table)) => table.keys().cloned().collect(),
            _ => Vec::new(),
        };
        let mut same = declared.iter().filter(|declared| declared.eq_ignore_ascii_case(of_vars));
        let finding = match (same.next(), same.next()) {
            (Some(one), None) if value.to_str().is_some() => {
                let item = Some((one.clone(), name_at.clone()));
                self.argument("", "vars", item, name_at, name.len() + 1);
                return;
            }
            (Some(_), None) => Finding::at(&name_at, format!("the value of {name} is not UTF-8"), "not UTF-8"),
            (Some(one), Some(other)) => {
                let title = format!("two variables have this name: {} and {}", quoted(one), quoted(other));
                Finding::at(&name_at, title, "means both").help("use --set for variables that differ in case only")
            }
            (None, _) => {
                let title = format!("the recipe has no variable {}", quoted(of_vars));
                let meant = nearest(of_vars, declared.iter().map(String::as_str));
                let meant = meant.map(|meant| format!("did you mean {}?", keys::variable("vars", meant)));
                Finding::at(&name_at, title, "not in [vars]").maybe_help(meant)
            }
        };
        self.texts.find(finding);
    }

    /// Lays one `--set` over the tree.
    pub(super) fn option(&mut self, option: &str, request: &Request) {
        const DASHES: &str = "--set ";
        let text = self.texts.add(Text {
            label: String::new(),
            text: format!("{DASHES}{option}"),
            dir: request.cwd.clone(),
            kind: TextKind::Option,
            rank: OPTIONS,
        });
        let place = |from: usize, to: usize| Place { text, span: DASHES.len() + from..DASHES.len() + to };
        if let Some(rest) = option.strip_prefix("step.") {
            self.step_option(rest, (text, DASHES.len() + option.len() - rest.len()), request.shared);
            return;
        }
        let dot = option.find(['.', '=']).filter(|at| option[*at..].starts_with('.'));
        let (section, from) = match dot {
            Some(dot) if keys::find("", &option[..dot]).is_none() => (&option[..dot], dot + 1),
            _ => ("", 0),
        };
        if !section.is_empty() && !SECTIONS.contains(&section) {
            let meant = nearest(section, SECTIONS).map(|meant| format!("did you mean `{meant}`?"));
            let finding =
                Finding::at(&place(0, section.len()), format!("unknown section {}", quoted(section)), "not a section");
            self.texts.find(finding.maybe_help(meant).help(format!("known sections: {}", SECTIONS.join(", "))));
            return;
        }
        // Some keys contain a dot (package.use), so the longest known key wins.
        let rest = &option[from..];
        let key = spellings(section)
            .filter(|name| rest.strip_prefix(name).is_some_and(|rest| rest.starts_with(['.', '='])))
            .max_by_key(|name| name.len())
            .unwrap_or(&rest[..rest.find(['.', '=']).unwrap_or(rest.len())]);
        let after = from + key.len();
        let item = option[after..].strip_prefix('.').and_then(|item| {
            let (name, length) = item_name(item)?;
            Some((name, after + 1, after + 1 + length))
        });
        let equals = item.as_ref().map_or_else(|| option[after..].find('=').map(|at| after + at), |item| Some(item.2));
        let Some(equals) = equals else {
            let finding = Finding::at(&place(0, option.len()), "`--set` takes section.key=value", "no `=`");
            self.texts.find(finding.help("for example: --set build.kind=stage4"));
            return;
        };
        let item = item.map(|(name, start, end)| (name, place(start, end)));
        self.argument(section, key, item, place(from, after), DASHES.len() + equals + 1);
    }

    /// Lays one value of a variable or `--set` over the tree: for a key, or for an item of the key's table. The value begins at
    /// byte `start` of its text.
    fn argument(&mut self, section: &str, key: &str, item: Option<(String, Place)>, key_at: Place, start: usize) {
        let text = key_at.text;
        if section.is_empty() && ["include", "from", "type", "override", "axis", "tuple", "tuples"].contains(&key) {
            self.texts.find(Finding::at(&key_at, format!("`{key}` is for recipe files"), "only in a file"));
            return;
        }
        let of = keys::find(section, key).map(|key| key.of);
        let Some(value) = self.value(of, key, item, (text, start)) else { return };
        let mut layer = Table::from([(key.to_owned(), Item { key_at: key_at.clone(), value })]);
        if !section.is_empty() {
            let value = Value { at: key_at.clone(), is: Is::Table(layer) };
            layer = Table::from([(section.to_owned(), Item { key_at, value })]);
        }
        let layer = shape::check(self.texts, layer);
        lay(&mut self.tree, layer);
    }

    /// Parses the value of a key, or of an item of the key's table. The value begins at byte `from.1` of text `from.0`.
    fn value(
        &mut self,
        of: Option<Type>,
        key: &str,
        item: Option<(String, Place)>,
        from: (usize, usize),
    ) -> Option<Value> {
        let (text, start) = from;
        let Some((name, name_at)) = item else {
            return parse::argument(self.texts, text, start, of.unwrap_or(Type::Str));
        };
        let is_table = matches!(
            of,
            Some(
                Type::Map
                    | Type::Variables
                    | Type::Tables
                    | Type::Lists
                    | Type::Lines(_)
                    | Type::Tool(_)
                    | Type::Named(_)
                    | Type::Keys(_)
            )
        );
        if of.is_some() && !is_table {
            self.texts.find(Finding::at(&name_at, format!("{} is not a table", quoted(key)), "has no items"));
            return None;
        }
        if let Some(Type::Named(entries)) = of
            && let Some((name, inner)) = name.rsplit_once('.')
        {
            let of = entries.keys.iter().find(|key| key.name == inner).map_or(Type::Str, |key| key.of);
            let value = parse::argument(self.texts, text, start, of)?;
            let (at, key_at) = (value.at.clone(), name_at.clone());
            let is = Is::Table(Table::from([(inner.to_owned(), Item { key_at: name_at, value })]));
            let item = Item { key_at, value: Value { at: at.clone(), is } };
            return Some(Value { at, is: Is::Table(Table::from([(name.to_owned(), item)])) });
        }
        let of_item = match of {
            Some(Type::Tables) => Type::Variables,
            Some(Type::Lists) => Type::Strs,
            Some(Type::Tool(keys) | Type::Keys(keys)) => {
                keys.iter().find(|key| key.name == name).map_or(Type::Str, |key| key.of)
            }
            _ => Type::Str,
        };
        let value = parse::argument(self.texts, text, start, of_item)?;
        let at = value.at.clone();
        Some(Value { at, is: Is::Table(Table::from([(name, Item { key_at: name_at, value })])) })
    }

    /// Lays `--set step.NAME.KEY=value` over the step of that name. `rest` is the part from NAME on, at byte `start` of the text. If
    /// the option is `shared` with other recipes, this one need not have the step.
    fn step_option(&mut self, rest: &str, (text, start): (usize, usize), shared: bool) {
        let place = |from: usize, to: usize| Place { text, span: start + from..start + to };
        let names = step_names(self.tree.get("step").map(|item| &item.value.is), "");
        // A name may contain a dot, so the longest one wins.
        let known =
            names.iter().filter(|name| rest.strip_prefix(name.as_str()).is_some_and(|rest| rest.starts_with('.')));
        let Some(name) = known.max_by_key(|name| name.len()) else {
            if shared {
                return;
            }
            let end = rest.find(['.', '=']).unwrap_or(rest.len());
            let title = format!("no step is named {}", quoted(&rest[..end]));
            let meant = nearest(&rest[..end], names.iter().map(String::as_str));
            let finding = Finding::at(&place(0, end), title, "not a step");
            self.texts.find(finding.maybe_help(meant.map(|meant| format!("did you mean {}?", quoted(meant)))));
            return;
        };
        let begin = name.len() + 1;
        let end = rest[begin..].find(['.', '=']).map_or(rest.len(), |at| begin + at);
        let key = &rest[begin..end];
        let item = rest[end..].strip_prefix('.').and_then(|item| {
            let (name, length) = item_name(item)?;
            Some((name, place(end + 1, end + 1 + length), end + 1 + length))
        });
        let equals = item.as_ref().map_or(end, |item| item.2);
        if !rest[equals..].starts_with('=') {
            let finding = Finding::at(&place(0, rest.len()), "`--set` takes step.NAME.KEY=value", "no `=`");
            self.texts.find(finding.help(format!("for example: --set step.{name}.skip=true")));
            return;
        }
        if key == "name" {
            let finding = Finding::at(&place(begin, end), "a step cannot be renamed", "its name is how it is found");
            self.texts.find(finding);
            return;
        }
        let of = keys::STEP.iter().find(|known| known.name == key).map(|known| known.of);
        let item = item.map(|(name, at, _)| (name, at));
        let Some(value) = self.value(of, key, item, (text, start + equals + 1)) else { return };
        let key_at = place(begin, end);
        let mut table = Table::from([(key.to_owned(), Item { key_at, value })]);
        for part in name.rsplit('/') {
            let at = place(0, name.len());
            let value = Value { at: at.clone(), is: Is::Str(part.to_owned()) };
            table.insert("name".to_owned(), Item { key_at: at.clone(), value });
            let step = Value { at: at.clone(), is: Is::Table(table) };
            let value = Value { at: at.clone(), is: Is::List(vec![step]) };
            table = Table::from([("step".to_owned(), Item { key_at: at, value })]);
        }
        let layer = shape::check(self.texts, table);
        lay(&mut self.tree, layer);
    }
}

/// Lists the names of all steps; a step of a group is `group/name`.
fn step_names(steps: Option<&Is>, group: &str) -> Vec<String> {
    let Some(Is::Steps(steps)) = steps else { return Vec::new() };
    let mut names = Vec::new();
    for step in steps {
        let (Some(name), Is::Table(table)) = (step.name(), &step.value.is) else { continue };
        let name = format!("{group}{name}");
        names.extend(step_names(table.get("step").map(|item| &item.value.is), &format!("{name}/")));
        names.push(name);
    }
    names
}

/// Splits the name of a variable, without `QUERN_`, into section and key. The key may be empty.
fn named_by(rest: &str) -> Option<(&'static str, &str)> {
    if ["NAME", "VARS"].contains(&rest) {
        return Some(("", rest));
    }
    SECTIONS.iter().find_map(|section| {
        let key = rest.strip_prefix(&section.to_ascii_uppercase())?;
        Some((*section, key.strip_prefix('_').or(key.is_empty().then_some(""))?))
    })
}

/// Lists every spelling of the keys of a section: names, aliases, deprecated spellings.
fn spellings(section: &str) -> impl Iterator<Item = &'static str> {
    let deprecated = keys::DEPRECATED.iter().filter(move |(of, ..)| *of == section).map(|(_, old, _)| *old);
    keys::of_section(section)
        .flat_map(|key| [key.name].into_iter().chain(key.aliases.iter().copied()))
        .chain(deprecated)
}

/// Splits the name of a table's item off `name=value`. Returns the name and the length of its spelling. The name may be
/// quoted as in TOML.
fn item_name(item: &str) -> Option<(String, usize)> {
    if let Some((name, length)) = parse::quoted_name(item).filter(|(_, length)| item[*length..].starts_with('=')) {
        return Some((name, length));
    }
    // The `=` of an atom such as `>=a/b-1` does not end the name.
    let sign = item.len() - item.trim_start_matches(['<', '>', '=', '~', '!']).len();
    let length = sign + item[sign..].find('=')?;
    Some((item[..length].to_owned(), length))
}
