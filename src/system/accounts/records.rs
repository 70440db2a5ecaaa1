//! The account files of a tree: passwd(5), group(5), shadow(5), gshadow(5). Lines that are not records keep their places and their bytes.

use crate::base::error::{Error, Result};
use crate::base::text::quoted;

/// A file of records, one a line, with fields between colons. The first field is a name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Records {
    path: &'static str,
    lines: Vec<Line>,
    /// The text when the file was read; `None` if it did not exist.
    before: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Line {
    /// A comment, an empty line, or a reference to another database (`+`, `-`).
    Other(String),
    Record(Vec<String>),
}

impl Records {
    /// Parses a file. Each record has `fields` fields, and numbers in those whose indices are `numbers`.
    ///
    /// # Errors
    /// [`Kind::Build`](crate::base::error::Kind::Build) with the line that is malformed.
    pub(super) fn parse(
        path: &'static str,
        content: Option<Vec<u8>>,
        fields: usize,
        numbers: &[usize],
    ) -> Result<Self> {
        let Some(content) = content else { return Ok(Self { path, lines: Vec::new(), before: None }) };
        let malformed = |number: usize, why: &str| {
            let error = Error::build(format!("reading {path} of the tree: line {number} {why}"));
            error.with_hint("an earlier step can repair the file; nothing was written")
        };
        let text = match String::from_utf8(content) {
            Ok(text) => text,
            Err(error) => {
                let valid = &error.as_bytes()[..error.utf8_error().valid_up_to()];
                let number = valid.iter().filter(|byte| **byte == b'\n').count() + 1;
                return Err(malformed(number, "is not UTF-8"));
            }
        };
        let mut lines: Vec<Line> = Vec::new();
        for (number, line) in (1..).zip(text.lines()) {
            if line.trim().is_empty() || line.starts_with(['#', '+', '-']) {
                lines.push(Line::Other(line.to_owned()));
                continue;
            }
            let record: Vec<String> = line.split(':').map(str::to_owned).collect();
            if record.len() != fields {
                return Err(malformed(number, &format!("has {} fields instead of {fields}", record.len())));
            }
            if let Some(field) = numbers.iter().find(|field| record[**field].parse::<u32>().is_err()) {
                return Err(malformed(number, &format!("has {} where a number belongs", quoted(&record[*field]))));
            }
            let name = &record[0];
            if name.is_empty() {
                return Err(malformed(number, "has no name"));
            }
            if lines.iter().any(|line| matches!(line, Line::Record(other) if other[0] == *name)) {
                return Err(malformed(number, &format!("has the name {} again", quoted(name))));
            }
            lines.push(Line::Record(record));
        }
        Ok(Self { path, lines, before: Some(text) })
    }

    /// Returns true if the tree has the file.
    pub(super) fn exists(&self) -> bool {
        self.before.is_some()
    }

    pub(super) fn path(&self) -> &'static str {
        self.path
    }

    pub(super) fn all(&self) -> impl Iterator<Item = &[String]> {
        self.lines.iter().filter_map(|line| match line {
            Line::Record(record) => Some(record.as_slice()),
            Line::Other(_) => None,
        })
    }

    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        self.all().map(|record| record[0].as_str())
    }

    pub(super) fn get(&self, name: &str) -> Option<&[String]> {
        self.all().find(|record| record[0] == name)
    }

    pub(super) fn get_mut(&mut self, name: &str) -> Option<&mut Vec<String>> {
        self.lines.iter_mut().find_map(|line| match line {
            Line::Record(record) if record[0] == name => Some(record),
            _ => None,
        })
    }

    /// Returns the number in a field of a record.
    pub(super) fn number(record: &[String], field: usize) -> u32 {
        record[field].parse().unwrap_or(u32::MAX)
    }

    /// Finds the record with this number in the third field.
    pub(super) fn by_id(&self, id: u32) -> Option<&[String]> {
        self.all().find(|record| Self::number(record, 2) == id)
    }

    /// Adds a record at the end, before references to other databases.
    pub(super) fn push(&mut self, record: Vec<String>) {
        let reference = |line: &Line| matches!(line, Line::Other(text) if text.starts_with(['+', '-']));
        let place = self.lines.iter().position(reference).unwrap_or(self.lines.len());
        self.lines.insert(place, Line::Record(record));
    }

    /// Returns the new text, if it differs from that of the tree.
    pub(super) fn changed(&self) -> Option<String> {
        let line = |line: &Line| match line {
            Line::Other(text) => format!("{text}\n"),
            Line::Record(record) => record.join(":") + "\n",
        };
        let text: String = self.lines.iter().map(line).collect();
        let before = self.before.as_deref().unwrap_or_default();
        (text.trim_end_matches('\n') != before.trim_end_matches('\n')).then_some(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "root:x:0:0::/root:/bin/sh\n\n# mine\nme:x:1000:100::/:/bin/sh\n+::::::\n";

    fn parse(text: &str) -> Result<Records> {
        Records::parse("/etc/passwd", Some(text.as_bytes().to_vec()), 7, &[2, 3])
    }

    #[test]
    fn lines_keep_their_places() {
        let mut records = parse(TEXT).unwrap();
        assert_eq!(records.changed(), None);
        assert_eq!(records.names().collect::<Vec<_>>(), ["root", "me"]);
        records.get_mut("root").unwrap()[6] = "/bin/bash".to_owned();
        records.push("you:x:1001:100::/:/bin/sh".split(':').map(str::to_owned).collect());
        let expected = TEXT.replace("/root:/bin/sh", "/root:/bin/bash").replace("+:", "you:x:1001:100::/:/bin/sh\n+:");
        assert_eq!(records.changed().unwrap(), expected);
        assert!(records.by_id(1000).is_some() && records.by_id(7).is_none());
    }

    #[test]
    fn a_malformed_line_is_named() {
        for (text, said) in [
            ("root:x:0:0::/root\n", "line 1 has 6 fields instead of 7"),
            ("#\nroot:x:O:0::/root:/bin/sh\n", "line 2 has `O` where a number belongs"),
            (":x:0:0::/root:/bin/sh\n", "line 1 has no name"),
            ("a:x:1:0::/:/bin/sh\na:x:2:0::/:/bin/sh\n", "line 2 has the name `a` again"),
            ("a:x:4294967296:0::/:/bin/sh\n", "where a number belongs"),
        ] {
            let error = parse(text).unwrap_err();
            assert!(error.to_string().contains(said), "{error}");
        }
        let latin = Records::parse("/etc/group", Some(b"a:x:1:\nb\xe9:x:2:\n".to_vec()), 4, &[2]).unwrap_err();
        assert!(latin.to_string().contains("/etc/group of the tree: line 2 is not UTF-8"), "{latin}");
    }
}
