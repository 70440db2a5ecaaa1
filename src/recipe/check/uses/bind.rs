//! Binds: files of this machine that steps see.

use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use super::{Uses, own_mount};
use crate::base::text::quoted;
use crate::recipe::check::path::Must;
use crate::recipe::check::steps::flag;
use crate::recipe::check::{Checker, Word};
use crate::recipe::diagnostic::{Finding, Place, Problem};
use crate::recipe::parse::{Is, Table};
use crate::recipe::{Bind, BindContent, words};

/// The size limit of a template, in bytes.
const MAX_TEMPLATE: u64 = 16 << 20;
/// The permission bits of a text.
const TEXT_MODE: u32 = 0o644;

impl Checker<'_> {
    /// Returns the binds of a step: its own, and those of a `sysroot` at other places. Adds its own to `mounts`.
    pub(super) fn binds(
        &mut self,
        table: &Table,
        uses: &Uses,
        mounts: &mut Vec<(Place, PathBuf)>,
    ) -> Option<Vec<Bind>> {
        let mut binds = Vec::new();
        let list = match table.get("binds").map(|item| &item.value.is) {
            Some(Is::List(list)) => list.clone(),
            _ => Vec::new(),
        };
        for value in list {
            let bind = match &value.is {
                Is::Table(table) => self.bind(&value.at, "", table),
                _ => Word::of(&value).and_then(|word| self.named_bind(&word, uses)),
            };
            let bind = bind?;
            mounts.push((value.at, bind.at.clone()));
            binds.push(bind);
        }
        if !table.contains_key("sysroot") || flag(table, "sysroot") {
            let others = uses.sysroot.iter().filter(|other| mounts.iter().all(|(_, at)| *at != other.at));
            binds.extend(others.cloned().collect::<Vec<_>>());
        }
        // A bind in a directory of another one comes after it.
        binds.sort_by(|one, other| one.at.cmp(&other.at));
        Some(binds)
    }

    /// Returns a declared bind. Notes an unknown name, and that of a `sysroot`, which every step has.
    fn named_bind(&mut self, word: &Word, uses: &Uses) -> Option<Bind> {
        if uses.sysroots.contains(&word.text) {
            let problem =
                Problem::new("every step has it").help("remove it from binds; sysroot = false in a step leaves it out");
            self.texts.problem(&word.at, format!("{} is a `sysroot`", quoted(&word.text)), problem);
            return None;
        }
        self.named(word, "bind", &uses.binds)
    }

    /// Returns a bind of one place.
    pub(super) fn bind(&mut self, place: &Place, name: &str, table: &Table) -> Option<Bind> {
        let given: Vec<(&str, Word)> =
            ["from", "file", "text"].into_iter().filter_map(|key| Some((key, Word::in_table(table, key)?))).collect();
        let [(key, word)] = &given[..] else {
            if !given.is_empty() || !self.misspelt {
                let problem = Problem::new("one of `from`, `file` and `text`").help("for example from = \"skel\"");
                self.texts.problem(place, "a bind has one origin", problem);
            }
            return None;
        };
        let at = self.needed(place, table, "a bind", "at");
        let at = at.and_then(|at| self.follow(&at, "mount point", words::mount_point));
        let template = flag(table, "template");
        let unused = if *key == "from" { "template" } else { "write" };
        if let Some(item) = table.get(unused).filter(|_| (template || *key != "file") && flag(table, unused)) {
            let finding = Finding::at(&item.key_at, format!("`{unused}` has no effect on `{key}`"), "remove this");
            self.texts.find(finding);
        }
        let content = match *key {
            "from" => self.path(word, Must::Exist).map(real),
            "text" => {
                let text = self.text(table, word);
                text.map(|text| BindContent::Text { bytes: text.into_bytes(), mode: TEXT_MODE })
            }
            _ => self.path(word, Must::File).and_then(|path| {
                if !template {
                    return Some(real(path));
                }
                let mode = fs_err::metadata(&path).map_or(TEXT_MODE, |metadata| metadata.permissions().mode() & 0o7777);
                let bytes = self.content(&path, &word.at, MAX_TEMPLATE)?;
                Some(BindContent::Text { bytes: self.filled(bytes, &word.at)?, mode })
            }),
        };
        let (at, content) = (at?, content?);
        debug_assert!(!own_mount(&at));
        Some(Bind { name: name.to_owned(), at, content, write: flag(table, "write") })
    }
}

/// Resolves symlinks before any step runs: a step may replace a file that another one sees.
fn real(path: PathBuf) -> BindContent {
    BindContent::From(fs_err::canonicalize(&path).unwrap_or(path))
}
