//! `system.files`: texts of the recipe and files of this machine.

use std::path::PathBuf;

use super::super::Checker;
use crate::recipe::check::Word;
use crate::recipe::check::path::Must;
use crate::recipe::check::steps::{entries, flag};
use crate::recipe::diagnostic::{Place, Problem};
use crate::recipe::parse::Table;
use crate::recipe::{CopySpec, FileSpec, WriteSpec, words};

/// The size limit of a template, in bytes.
const MAX_TEMPLATE: u64 = 16 << 20;

impl Checker<'_> {
    /// Returns the files, in order.
    pub(super) fn system_files(&mut self) -> Vec<FileSpec> {
        let table = self.section("system");
        entries(&table, "files").iter().filter_map(|(at, entry)| self.system_file(at, entry)).collect()
    }

    fn system_file(&mut self, at: &Place, entry: &Table) -> Option<FileSpec> {
        let to = self.needed(at, entry, "a file", "to");
        let (text, from) = (Word::in_table(entry, "text"), Word::in_table(entry, "from"));
        let (mode, owner) = self.mode_and_owner(entry)?;
        let to = self.follow(&to?, "path of a file in the image", |path| match words::image_path(path)?.as_str() {
            "/" if entry.contains_key("text") => Err(Problem::new("this is the whole tree")),
            path => Ok(PathBuf::from(path)),
        });
        match (text, from) {
            (Some(text), None) => {
                let text = self.text(entry, &text)?;
                Some(FileSpec::Write(WriteSpec { to: to?, text, mode, owner }))
            }
            (None, Some(word)) if flag(entry, "template") => {
                let path = self.path(&word, Must::File)?;
                let bytes = self.content(&path, &word.at, MAX_TEMPLATE)?;
                let text = String::from_utf8(self.filled(bytes, &word.at)?).ok()?;
                Some(FileSpec::Write(WriteSpec { to: to?, text, mode, owner }))
            }
            (None, Some(word)) => {
                let from = self.path(&word, Must::Exist)?;
                Some(FileSpec::Copy(CopySpec { from, to: to?, mode, owner, exclude: Vec::new() }))
            }
            _ => {
                let problem = Problem::new("one of `text` and `from`");
                self.texts.problem(at, "a file has one origin", problem);
                None
            }
        }
    }
}
