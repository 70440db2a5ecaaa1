//! Text → tree of values, each with the bytes it came from. Knows TOML and how a variable or `--set` spells a value; knows
//! keys only by their [`Type`].

use crate::base::text::quoted;
use std::collections::BTreeMap;

use toml::de::{DeTable, DeValue};

use super::diagnostic::{Finding, Place, Texts};
use super::keys::Type;

/// A value and where it stands.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Value {
    pub(super) at: Place,
    pub(super) is: Is,
}

/// What a value is.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Is {
    Str(String),
    Int(i64),
    Bool(bool),
    List(Vec<Value>),
    Table(Table),
    /// Something that no key takes, by the name to show.
    Other(&'static str),
}

impl Is {
    /// What a message says was found.
    pub(super) fn found(&self) -> &'static str {
        match self {
            Self::Str(_) => "a string",
            Self::Int(_) => "an integer",
            Self::Bool(_) => "a boolean",
            Self::List(_) => "an array",
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

/// The tree of a TOML document; what the document's grammar says is wrong is noted in `texts`.
pub(super) fn document(texts: &mut Texts, text: usize) -> Option<Table> {
    let source = texts.get(text).text.clone();
    match DeTable::parse(&source) {
        Ok(table) => Some(from_table(table.into_inner(), text, 0)),
        Err(error) => {
            syntax(texts, text, 0, source.len(), &error);
            None
        }
    }
}

/// The value that a variable or `--set` gives to a key of a type; `start` is where it begins in its text.
pub(super) fn argument(texts: &mut Texts, text: usize, start: usize, of: Type) -> Option<Value> {
    let source = texts.get(text).text.clone();
    let raw = &source[start..];
    let at = Place { text, span: start..source.len() };
    let literal = match of {
        Type::Strs | Type::Words | Type::Ports | Type::Repositories => raw.starts_with('['),
        Type::Map | Type::Variables => raw.starts_with('{'),
        Type::Lines(_) => raw.starts_with(['[', '{']),
        Type::Str | Type::Int | Type::Age | Type::Size | Type::Bool => false,
    };
    if literal {
        return match DeValue::parse(raw) {
            Ok(value) => Some(from_value(value.into_inner(), at, start)),
            Err(error) => {
                syntax(texts, text, start, source.len(), &error);
                None
            }
        };
    }
    let is = match of {
        Type::Int => raw.trim().parse().map_or_else(|_| Is::Str(raw.to_owned()), Is::Int),
        Type::Bool => match raw.trim().to_ascii_lowercase().as_str() {
            "true" | "1" | "yes" | "on" => Is::Bool(true),
            "false" | "0" | "no" | "off" => Is::Bool(false),
            _ => Is::Str(raw.to_owned()),
        },
        Type::Strs | Type::Words | Type::Ports | Type::Repositories => {
            Is::List(pieces(raw, char::is_whitespace, text, start))
        }
        Type::Lines(_) => Is::List(pieces(raw, |c| c == '\n', text, start)),
        Type::Str | Type::Age | Type::Size | Type::Map | Type::Variables => Is::Str(raw.to_owned()),
    };
    Some(Value { at, is })
}

/// The non-empty pieces of a text between separators, as strings with their places.
fn pieces(raw: &str, separator: impl Fn(char) -> bool, text: usize, start: usize) -> Vec<Value> {
    let mut values = Vec::new();
    let mut begin = 0;
    for (end, c) in raw.char_indices().map(|(at, c)| (at, Some(c))).chain([(raw.len(), None)]) {
        if c.is_some_and(|c| !separator(c)) {
            continue;
        }
        let piece = raw[begin..end].trim();
        if !piece.is_empty() {
            values.push(Value { at: Place { text, span: start + begin..start + end }, is: Is::Str(piece.to_owned()) });
        }
        begin = end + c.map_or(0, char::len_utf8);
    }
    values
}

fn syntax(texts: &mut Texts, text: usize, start: usize, end: usize, error: &toml::de::Error) {
    let span = error.span().map_or(end..end, |span| start + span.start..start + span.end);
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
