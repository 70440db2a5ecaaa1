//! `sysroot`: a directory of this machine whose files every step sees at their own places.

use std::io;
use std::path::{Path, PathBuf};

use super::own_mount;
use crate::base::text::escaped;
use crate::recipe::check::path::Must;
use crate::recipe::check::{Checker, Word};
use crate::recipe::diagnostic::{Finding, Problem};
use crate::recipe::merge::reason;
use crate::recipe::parse::Table;
use crate::recipe::{Bind, BindContent};

/// The limit on the files of a sysroot.
const MAX_FILES: usize = 10_000;

impl Checker<'_> {
    /// Returns a bind for each file and each symlinked directory.
    pub(super) fn sysroot(&mut self, name: &Word, table: &Table) -> Vec<Bind> {
        for (key, item) in table.iter().filter(|(key, _)| *key != "sysroot") {
            let title = format!("`{key}` has no effect on `sysroot`");
            self.texts.find(Finding::at(&item.key_at, title, "remove this"));
        }
        let Some(word) = Word::in_table(table, "sysroot") else { return Vec::new() };
        let Some(directory) = self.path(&word, Must::Directory) else { return Vec::new() };
        let mut found = Vec::new();
        if let Err((path, why)) = collect(&directory, &directory, &mut found) {
            let title = format!("cannot use {}", escaped(&path.to_string_lossy()));
            self.texts.problem(&word.at, title, Problem::new(why));
            return Vec::new();
        }
        let bind = |(at, from)| Bind { name: name.text.clone(), at, content: BindContent::From(from), write: false };
        found.into_iter().map(bind).collect()
    }
}

/// Appends the places in the tree and the paths on this machine of the files below a directory, or returns a path with the reason why
/// it cannot be used.
fn collect(top: &Path, directory: &Path, found: &mut Vec<(PathBuf, PathBuf)>) -> Result<(), (PathBuf, String)> {
    let wrong = |path: &Path, error: &io::Error| (path.to_owned(), reason(error));
    let entries = fs_err::read_dir(directory).map_err(|error| wrong(directory, &error))?;
    let entries: io::Result<Vec<PathBuf>> = entries.map(|entry| entry.map(|entry| entry.path())).collect();
    let mut paths = entries.map_err(|error| wrong(directory, &error))?;
    paths.sort();
    for path in paths {
        let link = fs_err::symlink_metadata(&path).map_err(|error| wrong(&path, &error))?.is_symlink();
        let kind = fs_err::metadata(&path).map_err(|error| wrong(&path, &error))?;
        if kind.is_dir() && !link {
            collect(top, &path, found)?;
            continue;
        }
        if !kind.is_file() && !kind.is_dir() {
            return Err((path, "not a regular file or directory".to_owned()));
        }
        let at = Path::new("/").join(path.strip_prefix(top).unwrap_or(&path));
        if own_mount(&at) {
            return Err((path, "a step has its own file system there".to_owned()));
        }
        if found.len() >= MAX_FILES {
            return Err((top.to_owned(), format!("more than {MAX_FILES} files")));
        }
        let from = fs_err::canonicalize(&path).map_err(|error| wrong(&path, &error))?;
        found.push((at, from));
    }
    Ok(())
}
