//! `[split]`: directories of the image whose content goes to an archive of its own.

use std::collections::BTreeMap;
use std::path::Path;

use super::{Checker, Word, unchanged};
use crate::base::text::quoted;
use crate::recipe::diagnostic::{Finding, Problem};
use crate::recipe::parse::Is;
use crate::recipe::words;

impl Checker<'_> {
    /// Returns the directories of each archive. No directory lies in another one.
    pub(super) fn split(&mut self) -> BTreeMap<String, Vec<String>> {
        let Some(Is::Table(table)) = self.tree.get("split").map(|item| item.value.is.clone()) else {
            return BTreeMap::new();
        };
        let mut split = BTreeMap::new();
        let mut seen: Vec<(Word, String)> = Vec::new();
        for (name, item) in table {
            let word = Word { text: name.clone(), at: item.key_at.clone() };
            let named = self.follow(&word, "name of an archive", unchanged(words::item_name)).is_some();
            let Is::List(list) = &item.value.is else { continue };
            if list.is_empty() {
                let title = format!("the archive {} has no directory", quoted(&name));
                self.texts.problem(&item.value.at, title, Problem::new("empty").help("for example [\"/boot\"]"));
            }
            let mut paths = Vec::new();
            for word in list.iter().filter_map(Word::of) {
                let Some(path) = self.follow(&word, "directory to split off", words::image_directory) else { continue };
                let inside = |one: &str, other: &str| Path::new(one).starts_with(other);
                let twice = |(_, known): &&(Word, String)| inside(known, &path) || inside(&path, known);
                if let Some((first, _)) = seen.iter().find(twice) {
                    let title = "a directory to split off lies in another";
                    let finding = Finding::at(&word.at, title, "one of these lies in the other");
                    self.texts.find(finding.also(&first.at, "first here"));
                }
                paths.push(path.clone());
                seen.push((word, path));
            }
            if named {
                split.insert(name, paths);
            }
        }
        split
    }
}
