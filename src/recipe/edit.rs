//! Lines added to the package files of a recipe's text. Comments and formatting stay.

use std::collections::BTreeMap;

use toml_edit::{Array, DocumentMut, Item, Table, TableLike, Value};

use super::keys::{self, Key, Type};
use crate::base::error::{Error, Result};

/// A line for one of Portage's package files.
#[derive(Debug, Clone, Copy)]
pub struct NewLine<'a> {
    /// Portage's name of the file.
    pub file: &'a str,
    /// The line, which is valid.
    pub line: &'a str,
    /// Comments above it, safe to write.
    pub notes: &'a [String],
}

/// Returns the text of a recipe with lines added. `present` are all lines that the recipe has, some of which may come from other files: a
/// key that the text lacks would replace them, so it gets them too.
///
/// # Errors
/// [`Kind::Usage`](crate::base::error::Kind::Usage) if the text is not a recipe.
pub fn with_lines(text: &str, present: &BTreeMap<String, Vec<String>>, lines: &[NewLine<'_>]) -> Result<String> {
    let refused = |why: &str| Error::usage(format!("adding lines to the recipe: {why}"));
    let mut document: DocumentMut = text.parse().map_err(|_| refused("it is not valid TOML"))?;
    let section = document.entry("portage").or_insert(Item::Table(Table::new()));
    let section = section.as_table_like_mut().ok_or_else(|| refused("`portage` is not a section"))?;
    for new in lines {
        let of_file = |key: &&Key| matches!(key.of, Type::Lines(file) if file == new.file);
        let key = keys::of_section("portage").find(of_file).ok_or_else(|| refused("no key has lines of this file"))?;
        let spelling = key.aliases.iter().chain([&key.name]).find(|spelling| section.contains_key(spelling));
        let name = spelling.copied().unwrap_or(key.name);
        if spelling.is_none() {
            let mut array = Array::new();
            present.get(new.file).into_iter().flatten().for_each(|line| push(&mut array, line, &[]));
            section.insert(name, Item::Value(Value::Array(array)));
        }
        match section.get_mut(name) {
            Some(Item::Value(Value::Array(array))) => push(array, new.line, new.notes),
            Some(item) => {
                let is_section = item.is_table();
                let table = item.as_table_like_mut().ok_or_else(|| refused("a key has another type than lines"))?;
                insert(table, new, is_section);
            }
            None => {}
        }
    }
    Ok(document.to_string())
}

/// Adds a line to an array, on a line of its own.
fn push(array: &mut Array, line: &str, notes: &[String]) {
    let mut value = Value::from(line);
    let notes: String = notes.iter().map(|note| format!("  # {note}\n")).collect();
    value.decor_mut().set_prefix(format!("\n{notes}  "));
    array.push_formatted(value);
    array.set_trailing("\n");
    array.set_trailing_comma(true);
}

/// Adds the words of a line to the entry of its atom. Only a section has room for comments.
fn insert(table: &mut dyn TableLike, new: &NewLine<'_>, is_section: bool) {
    let (atom, words) = new.line.split_once(' ').unwrap_or((new.line, ""));
    match table.get_mut(atom) {
        Some(Item::Value(Value::Array(array))) => words.split(' ').for_each(|word| array.push(word)),
        Some(item) => {
            let old = item.as_str().unwrap_or_default();
            *item = toml_edit::value(format!("{old} {words}").trim());
        }
        None => {
            table.insert(atom, toml_edit::value(words));
            if is_section && let Some(mut key) = table.key_mut(atom) {
                let notes: String = new.notes.iter().map(|note| format!("# {note}\n")).collect();
                key.leaf_decor_mut().set_prefix(notes);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn added(text: &str) -> String {
        let present = BTreeMap::from([("package.license".to_owned(), vec!["a/b X".to_owned()])]);
        let notes = ["required by a/c".to_owned()];
        let lines = [
            NewLine { file: "package.use", line: "=a/b-1 foo", notes: &notes },
            NewLine { file: "package.license", line: "a/b Y", notes: &[] },
        ];
        with_lines(text, &present, &lines).unwrap()
    }

    #[test]
    fn comments_and_formatting_stay() {
        let text = "# mine\n[portage]   # here\n\"package.use\" = [\"x/y z\"] # why\n\n[build]\nkind = 'image'\n";
        let expected = "# mine\n[portage]   # here\n\"package.use\" = [\"x/y z\",\n  # required by a/c\n  \"=a/b-1 foo\",\n] # why\n\
                        package-license = [\n  \"a/b X\",\n  \"a/b Y\",\n]\n\n[build]\nkind = 'image'\n";
        assert_eq!(added(text), expected);
    }

    #[test]
    fn a_recipe_without_the_section_gets_one() {
        let text = added("name = \"x\"\n");
        let expected = "name = \"x\"\n\n[portage]\npackage-use = [\n  # required by a/c\n  \"=a/b-1 foo\",\n]\n\
                        package-license = [\n  \"a/b X\",\n  \"a/b Y\",\n]\n";
        assert_eq!(text, expected);
    }

    #[test]
    fn tables_of_atoms_are_extended() {
        let text = "[portage]\npackage-license = { \"a/b\" = \"X\" }\n[portage.package-use]\n\"a/d\" = [\"q\"]\n";
        let expected = "[portage]\npackage-license = { \"a/b\" = \"X Y\" }\n[portage.package-use]\n\"a/d\" = [\"q\"]\n\
                        # required by a/c\n\"=a/b-1\" = \"foo\"\n";
        assert_eq!(added(text), expected);
    }

    #[test]
    fn other_texts_are_refused() {
        for text in ["portage = 1", "[portage]\npackage-use = 1", "["] {
            let line = NewLine { file: "package.use", line: "a/b c", notes: &[] };
            assert!(with_lines(text, &BTreeMap::new(), &[line]).is_err(), "{text}");
        }
    }
}
