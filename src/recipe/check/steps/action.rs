//! The action of a step: a script, packages, or files.

use std::io::Read;
use std::path::{Path, PathBuf};

use super::{Checker, Word, flag, unchanged};
use crate::recipe::check::path::Must;
use crate::recipe::diagnostic::{Finding, Place, Problem};
use crate::recipe::merge::reason;
use crate::recipe::parse::{Is, Table};
use crate::recipe::{Action, CopySpec, Rebuild, Script, WriteSpec, atom, words};

/// The keys that are actions, in the order of messages.
const ACTIONS: [&str; 9] = ["run", "script", "emerge", "unmerge", "depclean", "rebuild", "copy", "write", "delete"];
/// Keys with an effect on scripts only.
const OF_SCRIPTS: [&str; 8] = ["shell", "args", "user", "workdir", "tty", "template", "secrets", "leak"];
/// Keys with an effect on scripts and emerge only.
const OF_PROGRAMS: [&str; 11] =
    ["vars", "env", "network", "timeout", "tmpfs", "binds", "sysroot", "fetch", "caches", "volumes", "daemons"];
/// The size limit of a script, in bytes.
const MAX_SCRIPT: u64 = 16 << 20;

impl Action {
    /// Returns true if a step with this action uses the network by default.
    pub(super) fn has_network(&self) -> bool {
        matches!(self, Self::Emerge(_) | Self::Rebuild(_))
    }

    /// Returns true if a step with this action runs a program.
    pub(super) fn is_program(&self) -> bool {
        !matches!(self, Self::Copy(_) | Self::Write(_) | Self::Delete(_) | Self::Settings(_))
    }
}

impl Checker<'_> {
    /// Returns the action of a step, or `None` if it is a group alone or has mistakes. Of several layers, the last one with an action
    /// decides.
    pub(super) fn action(&mut self, table: &Table, at: &Place, group: bool) -> Option<Action> {
        let given: Vec<(&str, Place)> = ACTIONS
            .iter()
            .filter_map(|key| Some((*key, table.get(*key)?)))
            .filter(|(key, _)| *key != "depclean" || flag(table, key))
            .map(|(key, item)| (key, item.key_at.clone()))
            .collect();
        let last = given.iter().map(|(_, at)| self.texts.rank(at)).max();
        let mut given = given.into_iter().filter(|(_, at)| Some(self.texts.rank(at)) == last);
        let Some((key, first)) = given.next() else {
            self.needs_an_action(table, at, group);
            return None;
        };
        if let Some((other, second)) = given.next() {
            let title = format!("a step has only one action: `{key}` or `{other}`");
            let finding =
                Finding::at(&second, title, "remove one of the two").also(&first, format!("because of `{key}`"));
            self.texts.find(finding.help("write a step for each; they run in the order of the file"));
            return None;
        }
        self.without_effect(table, key, &first);
        match key {
            "run" | "script" => self.script(table, key).map(Action::Run),
            "emerge" => self.atoms(table, key).map(Action::Emerge),
            "unmerge" => self.atoms(table, key).map(Action::Unmerge),
            "depclean" => Some(Action::Depclean),
            "rebuild" => {
                self.not_empty(table, key)?;
                self.rebuild(table, key).map(Action::Rebuild)
            }
            "copy" => self.copies(table).map(Action::Copy),
            "write" => self.writes(table).map(Action::Write),
            _ => {
                self.not_empty(table, key)?;
                let paths = self.words_in(table, key, "path to delete", words::strip_path)?;
                Some(Action::Delete(paths.into_iter().map(|(_, path)| path).collect()))
            }
        }
    }

    fn needs_an_action(&mut self, table: &Table, at: &Place, group: bool) {
        if group {
            self.without_effect(table, "step", at);
            return;
        }
        // The action may be there under a misspelt key.
        if self.misspelt {
            return;
        }
        let finding = Finding::at(at, "a step needs an action", "nothing to do");
        self.texts
            .find(finding.help(format!("write one of {}, or steps of a group in [[step.step]]", ACTIONS.join(", "))));
    }

    /// Refuses keys that have no effect on an action.
    fn without_effect(&mut self, table: &Table, action: &str, because: &Place) {
        let (of_scripts, of_programs): (&[&str], &[&str]) = match action {
            "run" | "script" => (&[], &[]),
            "emerge" | "unmerge" | "depclean" | "rebuild" => (&OF_SCRIPTS, &[]),
            _ => (&OF_SCRIPTS, &OF_PROGRAMS),
        };
        let of_groups: &[&str] = if action == "step" { &["in", "creates", "refresh"] } else { &[] };
        let unused = of_scripts.iter().chain(of_programs).chain(of_groups);
        for (key, item) in unused.filter_map(|key| Some((*key, table.get(*key)?))) {
            let what = if action == "step" { "a group without an action".to_owned() } else { format!("`{action}`") };
            let finding = Finding::at(&item.key_at, format!("`{key}` has no effect on {what}"), "remove this");
            self.texts.find(finding.also(because, "because of this"));
        }
    }

    /// Refuses an empty list or script.
    fn not_empty(&mut self, table: &Table, key: &str) -> Option<()> {
        let value = &table.get(key)?.value;
        let empty = match &value.is {
            Is::List(list) => list.is_empty(),
            Is::Str(text) => text.trim().is_empty(),
            _ => false,
        };
        if empty {
            self.texts.problem(&value.at, format!("`{key}` has nothing to do"), Problem::new("empty"));
        }
        (!empty).then_some(())
    }

    fn script(&mut self, table: &Table, key: &str) -> Option<Script> {
        let word = Word::in_table(table, key)?;
        if key == "run" {
            self.not_empty(table, key)?;
            let text = self.text(table, &word)?;
            return Some(Script { bytes: text.into_bytes(), file: None });
        }
        let path = self.path(&word, Must::File)?;
        let bytes = self.content(&path, &word.at, MAX_SCRIPT)?;
        if !flag(table, "template") {
            return Some(Script { bytes, file: Some(path) });
        }
        let bytes = self.filled(bytes, &word.at)?;
        Some(Script { bytes, file: Some(path) })
    }

    /// Returns a text of the recipe, with its variables if `table` says that it is a template.
    pub(in crate::recipe::check) fn text(&mut self, table: &Table, word: &Word) -> Option<String> {
        if flag(table, "template") {
            return self.variables.fill(self.texts, &word.text, &word.at, "step");
        }
        if let Some(name) = self.variables.mentioned(&word.text) {
            let advice = format!("write ${name} and vars = [\"{name}\"], or template = true");
            let advice = if table.contains_key("run") { advice } else { "write template = true".to_owned() };
            self.texts.warn(&word.at, &format!("`{{{{{name}}}}}` is not replaced in a text: {advice}"));
        }
        Some(word.text.clone())
    }

    /// Returns the content of a file with its variables.
    pub(in crate::recipe::check) fn filled(&mut self, bytes: Vec<u8>, at: &Place) -> Option<Vec<u8>> {
        let Ok(text) = String::from_utf8(bytes) else {
            self.texts.problem(at, "a template must be UTF-8", Problem::new("not UTF-8"));
            return None;
        };
        self.variables.fill(self.texts, &text, at, "step").map(String::into_bytes)
    }

    /// Reads a file of limited size, in bytes.
    pub(in crate::recipe::check) fn content(&mut self, path: &Path, at: &Place, limit: u64) -> Option<Vec<u8>> {
        match content(path, limit) {
            Ok(bytes) => Some(bytes),
            Err(error) => {
                self.texts.problem(at, "cannot read the file", Problem::new(reason(&error)));
                None
            }
        }
    }

    fn atoms(&mut self, table: &Table, key: &str) -> Option<Vec<String>> {
        self.not_empty(table, key)?;
        let atoms = self.words_in(table, key, "package", unchanged(atom::package))?;
        Some(atoms.into_iter().map(|(_, atom)| atom).collect())
    }

    /// Returns the kinds of packages to rebuild, each once.
    pub(super) fn rebuild(&mut self, table: &Table, key: &str) -> Option<Vec<Rebuild>> {
        let Is::List(list) = &table.get(key)?.value.is else { return None };
        let words: Vec<Word> = list.iter().filter_map(Word::of).collect();
        let kinds = [Rebuild::Preserved, Rebuild::Modules, Rebuild::Links];
        let mut found = Vec::new();
        for word in words {
            let kind = kinds[self.one_of(&word, "kind of packages to rebuild", &["preserved", "modules", "links"])?];
            if !found.contains(&kind) {
                found.push(kind);
            }
        }
        Some(found)
    }

    fn copies(&mut self, table: &Table) -> Option<Vec<CopySpec>> {
        let entries = entries(table, "copy");
        self.not_empty(table, "copy")?;
        let copies: Vec<CopySpec> = entries.iter().filter_map(|(at, entry)| self.copy(at, entry)).collect();
        (copies.len() == entries.len()).then_some(copies)
    }

    fn copy(&mut self, at: &Place, entry: &Table) -> Option<CopySpec> {
        let from = self.needed(at, entry, "a copy", "from");
        let to = self.needed(at, entry, "a copy", "to");
        let from = self.path(&from?, Must::Exist);
        let to = self.follow(&to?, "path in the image", words::image_path);
        let (mode, owner) = self.mode_and_owner(entry)?;
        let exclude = self.words_in(entry, "exclude", "path to leave out", words::exclude).unwrap_or_default();
        let exclude = exclude.into_iter().map(|(_, path)| path).collect();
        Some(CopySpec { from: from?, to: PathBuf::from(to?), mode, owner, exclude })
    }

    fn writes(&mut self, table: &Table) -> Option<Vec<WriteSpec>> {
        let entries = entries(table, "write");
        self.not_empty(table, "write")?;
        let writes: Vec<WriteSpec> = entries.iter().filter_map(|(at, entry)| self.write(at, entry)).collect();
        (writes.len() == entries.len()).then_some(writes)
    }

    fn write(&mut self, at: &Place, entry: &Table) -> Option<WriteSpec> {
        let to = self.needed(at, entry, "a file to write", "to");
        let text = self.needed(at, entry, "a file to write", "text");
        let to = self.follow(&to?, "path of a file in the image", |path| match words::image_path(path)?.as_str() {
            "/" => Err(Problem::new("this is the whole tree")),
            path => Ok(PathBuf::from(path)),
        });
        let text = self.text(entry, &text?);
        let (mode, owner) = self.mode_and_owner(entry)?;
        Some(WriteSpec { to: to?, text: text?, mode, owner })
    }

    /// Returns the word of a key that a table must have.
    pub(in crate::recipe::check) fn needed(
        &mut self,
        at: &Place,
        table: &Table,
        what: &str,
        key: &str,
    ) -> Option<Word> {
        let word = Word::in_table(table, key);
        // The key may be there under a misspelt name.
        if word.is_none() && !self.misspelt {
            self.texts.problem(at, format!("{what} needs `{key}`"), Problem::new(format!("no `{key}`")));
        }
        word
    }

    /// Returns the keys `mode` and `owner` of a file.
    pub(in crate::recipe::check) fn mode_and_owner(&mut self, table: &Table) -> Option<(Option<u32>, Option<String>)> {
        let mode = Word::in_table(table, "mode").map(|word| self.follow(&word, "mode", words::mode));
        let owner = Word::in_table(table, "owner").map(|word| self.follow(&word, "owner", unchanged(words::user)));
        Some((mode.map_or(Some(None), |mode| mode.map(Some))?, owner.map_or(Some(None), |owner| owner.map(Some))?))
    }
}

/// Returns the tables of a list, with their places.
pub(in crate::recipe::check) fn entries(table: &Table, key: &str) -> Vec<(Place, Table)> {
    let Some(Is::List(list)) = table.get(key).map(|item| &item.value.is) else { return Vec::new() };
    list.iter()
        .filter_map(|value| match &value.is {
            Is::Table(table) => Some((value.at.clone(), table.clone())),
            _ => None,
        })
        .collect()
}

fn content(path: &Path, limit: u64) -> std::io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    fs_err::File::open(path)?.take(limit + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > limit {
        return Err(std::io::Error::other(format!("it is larger than {} MiB", limit >> 20)));
    }
    Ok(bytes)
}
