//! Text → tree of values, each with the bytes it came from. Knows TOML and how a variable or `--set` spells a value; knows
//! keys only by their [`Type`].

use std::collections::BTreeMap;
use std::ops::Range;

use toml::de::{DeTable, DeValue};

use super::diagnostic::{Finding, Place, Texts};
use super::keys::Type;
use crate::base::text::quoted;

/// A value and its place.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Value {
    pub(super) at: Place,
    pub(super) is: Is,
}

/// The content of a [`Value`].
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Is {
    Str(String),
    Int(i64),
    Bool(bool),
    List(Vec<Value>),
    Table(Table),
    /// Tables with a name, in order. A later layer's table of the same name is laid over an earlier one.
    Steps(Vec<Item>),
    /// A value that no key takes, by the name that messages show.
    Other(&'static str),
}

impl Is {
    /// Names the kind of value for a message ("found …").
    pub(super) fn found(&self) -> &'static str {
        match self {
            Self::Str(_) => "a string",
            Self::Int(_) => "an integer",
            Self::Bool(_) => "a boolean",
            Self::List(_) | Self::Steps(_) => "an array",
            Self::Table(_) => "a table",
            Self::Other(what) => what,
        }
    }
}

/// A value under its key.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Item {
    pub(super) key_at: Place,
    pub(super) value: Value,
}

/// Items by key.
pub(super) type Table = BTreeMap<String, Item>;

/// Parses a TOML document. Notes a syntax error in `texts` and returns `None`.
pub(super) fn document(texts: &mut Texts, text: usize) -> Option<Table> {
    let source = texts.get(text).text.clone();
    match DeTable::parse(&source) {
        Ok(table) => Some(from_table(table.into_inner(), text, 0)),
        Err(error) => {
            syntax(texts, text, 0..source.len(), &error);
            None
        }
    }
}

/// Returns a copy of a table with its places in the text `text`.
pub(super) fn moved(table: &Table, text: usize) -> Table {
    table.iter().map(|(key, item)| (key.clone(), moved_item(item, text))).collect()
}

fn moved_item(item: &Item, text: usize) -> Item {
    Item { key_at: Place { text, ..item.key_at.clone() }, value: moved_value(&item.value, text) }
}

fn moved_value(value: &Value, text: usize) -> Value {
    let is = match &value.is {
        Is::List(list) => Is::List(list.iter().map(|value| moved_value(value, text)).collect()),
        Is::Table(table) => Is::Table(moved(table, text)),
        Is::Steps(steps) => Is::Steps(steps.iter().map(|step| moved_item(step, text)).collect()),
        other => other.clone(),
    };
    Value { at: Place { text, ..value.at.clone() }, is }
}

/// Parses the value that a variable or `--set` gives to a key of type `of`. The value begins at byte `start` of its text.
///
/// A value in quotes is a TOML string. A list or table may be written as in TOML. Anything else stands for itself.
pub(super) fn argument(texts: &mut Texts, text: usize, start: usize, of: Type) -> Option<Value> {
    let source = texts.get(text).text.clone();
    let raw = &source[start..];
    let at = Place { text, span: start..source.len() };
    let literal = match of {
        Type::Strs | Type::Words | Type::Ports | Type::Entries(_) | Type::Steps | Type::Tuples => raw.starts_with('['),
        Type::Map | Type::Variables | Type::Tables | Type::Lists | Type::Tool(_) | Type::Named(_) | Type::Keys(_) => {
            raw.starts_with('{')
        }
        Type::Lines(_) | Type::Profile => raw.starts_with(['[', '{']),
        Type::Str
        | Type::Int
        | Type::Age
        | Type::Size
        | Type::Id
        | Type::Bool
        | Type::Choice
        | Type::NameOr(_)
        | Type::StrOr(_) => false,
    };
    if literal || is_enclosed(raw.trim()) {
        let begin = source.len() - raw.trim_start().len();
        return match DeValue::parse(raw.trim()) {
            Ok(value) => Some(from_value(value.into_inner(), at, begin)),
            Err(error) => {
                syntax(texts, text, begin..source.len(), &error);
                None
            }
        };
    }
    let is = match of {
        Type::Int => raw.trim().parse().map_or_else(|_| Is::Str(raw.to_owned()), Is::Int),
        Type::Choice => match raw.trim() {
            "false" => Is::Bool(false),
            word => word.parse().map_or_else(|_| Is::Str(word.to_owned()), Is::Int),
        },
        Type::Bool | Type::Tool(_) => match raw.trim().to_ascii_lowercase().as_str() {
            "true" | "1" | "yes" | "on" => Is::Bool(true),
            "false" | "0" | "no" | "off" => Is::Bool(false),
            _ => Is::Str(raw.to_owned()),
        },
        Type::Strs | Type::Words | Type::Ports | Type::Entries(_) => {
            let words = split(raw, char::is_whitespace, text, start);
            if let Some(word) = quoted_in_part(raw, &words) {
                let finding = Finding::at(&word.at, "quotes do not group words here", "a part of a quoted text");
                texts.find(finding.help("write an array, for example [\"sh\", \"-c\", \"echo hello\"]"));
                return None;
            }
            Is::List(words)
        }
        Type::Lines(_) => Is::List(split(raw, |c| c == '\n', text, start)),
        Type::Str
        | Type::Age
        | Type::Size
        | Type::Id
        | Type::Map
        | Type::Variables
        | Type::Tables
        | Type::Lists
        | Type::Profile
        | Type::Named(_)
        | Type::NameOr(_)
        | Type::Keys(_)
        | Type::StrOr(_)
        | Type::Steps
        | Type::Tuples => Is::Str(raw.to_owned()),
    };
    Some(Value { at, is })
}

/// Splits `"name"` or `'name'` off the front of the item of a table in `--set`. Returns the name and the length of its
/// spelling; `None` when the item does not begin with a quoted TOML key.
pub(super) fn quoted_name(item: &str) -> Option<(String, usize)> {
    let quote = item.chars().next().filter(|c| matches!(c, '"' | '\''))?;
    let ends = item.match_indices(quote).skip(1).map(|(at, _)| at + 1);
    ends.into_iter().find_map(|end| match DeValue::parse(&item[..end]).ok()?.into_inner() {
        DeValue::String(name) => Some((name.into_owned(), end)),
        _ => None,
    })
}

/// Returns a value as `--set` takes it: quoted only where its own quotes would be taken off.
pub(super) fn spelled(value: &str) -> String {
    if is_enclosed(value.trim()) { toml::Value::from(value).to_string() } else { value.to_owned() }
}

/// Returns true for a text that one pair of quotes encloses. Text such as `"Jo" <jo@example.org>` or `"a" "b"` only contains
/// quotes.
fn is_enclosed(text: &str) -> bool {
    let Some(quote) = text.chars().next().filter(|c| matches!(c, '"' | '\'')) else { return false };
    if matches!(DeValue::parse(text).map(toml::Spanned::into_inner), Ok(DeValue::String(_))) {
        return true;
    }
    let Some(inner) = text[1..].strip_suffix(quote) else { return false };
    let mut escaped = false;
    !inner.chars().any(|c| {
        let ends = c == quote && !escaped;
        escaped = quote == '"' && c == '\\' && !escaped;
        ends
    })
}

/// Finds a word that is part of a quoted text, which splitting at blanks tore apart or left in its quotes.
fn quoted_in_part<'a>(raw: &str, words: &'a [Value]) -> Option<&'a Value> {
    words.iter().find(|word| {
        let word = word.as_str().unwrap_or_default();
        word.starts_with(['"', '\''])
            || ['"', '\''].iter().any(|quote| {
                let odd = |text: &str| text.matches(*quote).count() % 2 == 1;
                odd(word) && !odd(raw)
            })
    })
}

/// Splits a text at separators into its non-empty parts, as strings with their places.
fn split(raw: &str, separator: impl Fn(char) -> bool, text: usize, start: usize) -> Vec<Value> {
    let mut values = Vec::new();
    let mut begin = 0;
    for (end, c) in raw.char_indices().map(|(at, c)| (at, Some(c))).chain([(raw.len(), None)]) {
        if c.is_some_and(|c| !separator(c)) {
            continue;
        }
        let part = raw[begin..end].trim();
        if !part.is_empty() {
            values.push(Value { at: Place { text, span: start + begin..start + end }, is: Is::Str(part.to_owned()) });
        }
        begin = end + c.map_or(0, char::len_utf8);
    }
    values
}

fn syntax(texts: &mut Texts, text: usize, parsed: Range<usize>, error: &toml::de::Error) {
    let span = error.span().map_or(parsed.end..parsed.end, |span| parsed.start + span.start..parsed.start + span.end);
    let found = match texts.get(text).text.get(span.clone()).filter(|found| !found.is_empty() && !found.contains('\n'))
    {
        Some(found) => format!("at {}", quoted(found)),
        None => "here".to_owned(),
    };
    texts.find(Finding::at(&Place { text, span }, format!("not valid TOML: {}", error.message()), found));
}

fn from_table(table: DeTable<'_>, text: usize, start: usize) -> Table {
    table
        .into_iter()
        .map(|(key, value)| {
            let key_at = Place { text, span: start + key.span().start..start + key.span().end };
            let at = Place { text, span: start + value.span().start..start + value.span().end };
            (key.into_inner().into_owned(), Item { key_at, value: from_value(value.into_inner(), at, start) })
        })
        .collect()
}

fn from_value(value: DeValue<'_>, at: Place, start: usize) -> Value {
    let is = match value {
        DeValue::String(string) => Is::Str(string.into_owned()),
        DeValue::Integer(number) => {
            i64::from_str_radix(number.as_str(), number.radix()).map_or(Is::Other("an integer beyond 64 bits"), Is::Int)
        }
        DeValue::Float(_) => Is::Other("a float"),
        DeValue::Boolean(boolean) => Is::Bool(boolean),
        DeValue::Datetime(_) => Is::Other("a date"),
        DeValue::Array(array) => Is::List(
            array
                .into_iter()
                .map(|value| {
                    let place = Place { text: at.text, span: start + value.span().start..start + value.span().end };
                    from_value(value.into_inner(), place, start)
                })
                .collect(),
        ),
        DeValue::Table(table) => Is::Table(from_table(table, at.text, start)),
    };
    Value { at, is }
}
