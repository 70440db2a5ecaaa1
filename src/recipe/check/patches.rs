//! `portage.patches`, the user's own patches of packages. Portage ignores a patch that it does not find, so every place is checked.

use std::path::{Component, Path, PathBuf};

use super::Checker;
use super::path::Must;
use crate::base::text::quoted;
use crate::fs::contents::{self, Entry, Kind};
use crate::recipe::diagnostic::Problem;

/// The limit on the wrong files that are named.
const NAMED: usize = 10;
/// The number of names in `CATEGORY/PACKAGE/FILE`.
const DEPTH: usize = 3;

impl Checker<'_> {
    /// Returns the directory of patches. `config` is the directory `portage.config`.
    pub(super) fn patches(&mut self, config: Option<&Path>) -> Option<PathBuf> {
        let word = self.word("portage", "patches")?;
        let directory = self.path(&word, Must::Directory)?;
        if config.is_some_and(|config| fs_err::symlink_metadata(config.join("patches")).is_ok()) {
            let problem = Problem::new("a second directory of patches").help("keep all patches in one of the two");
            self.texts.problem(&word.at, "portage.config has a directory patches", problem);
        }
        let title = "cannot use the directory of patches";
        match contents::list(&directory, &|_| false) {
            Ok(entries) => {
                let wrong = entries.iter().filter_map(|entry| problem(&directory, entry)).take(NAMED);
                wrong.for_each(|problem| self.texts.problem(&word.at, title, problem));
            }
            Err(error) => self.texts.problem(&word.at, title, Problem::new(error.to_string())),
        }
        Some(directory)
    }
}

/// Returns the reason why an entry of the directory `top` would have no effect in the tree.
fn problem(top: &Path, entry: &Entry) -> Option<Problem> {
    let shown = quoted(&entry.path.to_string_lossy());
    if let Kind::Symlink(target) = &entry.kind
        && !stays(top, &entry.path, target)
    {
        let problem = Problem::new(format!("{shown} is a symlink to a file that is not in the directory"));
        return Some(problem.help("copy the file into the directory"));
    }
    let patch = entry.path.extension().is_some_and(|end| end == "patch" || end == "diff");
    if patch && !matches!(entry.kind, Kind::Directory) && entry.path.components().count() != DEPTH {
        let problem = Problem::new(format!("{shown} belongs to no package"));
        return Some(problem.help("Portage reads CATEGORY/PACKAGE/NAME.patch; PACKAGE may have a version and a slot"));
    }
    None
}

/// Returns true if the symlink at `path` leads to something below `top`, also in a copy of `top` elsewhere.
fn stays(top: &Path, path: &Path, target: &Path) -> bool {
    let mut depth = path.components().count().saturating_sub(1);
    for component in target.components() {
        depth = match (component, depth.checked_sub(1)) {
            (Component::Normal(_), _) => depth + 1,
            (Component::CurDir, _) => depth,
            (Component::ParentDir, Some(above)) => above,
            _ => return false,
        };
    }
    let real = |path: PathBuf| fs_err::canonicalize(path).ok();
    real(top.to_owned()).zip(real(top.join(path))).is_some_and(|(top, path)| path.starts_with(top))
}
