//! A part of a tree: a layer, or the directories that go to an archive of their own. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};

/// Some entries of a tree, with the directories above them, and the names that the tree lacks. All paths are relative to the root.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Part {
    paths: BTreeSet<PathBuf>,
    /// Directories of which the part has everything.
    whole: Vec<PathBuf>,
    /// Names that are gone, by their directory.
    gone: BTreeMap<PathBuf, BTreeSet<OsString>>,
}

impl Part {
    /// The files and directories `paths` with everything below them.
    pub fn below(paths: impl IntoIterator<Item = PathBuf>) -> Self {
        let mut part = Self::default();
        for path in paths {
            part.add(&path);
            part.whole.push(path);
        }
        part
    }

    /// Adds an entry, and the directories above it.
    pub(super) fn add(&mut self, path: &Path) {
        for path in path.ancestors() {
            if self.paths.contains(path) {
                break;
            }
            self.paths.insert(path.to_owned());
        }
    }

    /// Adds the removal of a path.
    pub(super) fn remove(&mut self, path: &Path) {
        if let (Some(directory), Some(name)) = (path.parent(), path.file_name()) {
            self.add(directory);
            self.gone.entry(directory.to_owned()).or_default().insert(name.to_owned());
        }
    }

    /// Returns true if the part has the entry `path`.
    pub(super) fn has(&self, path: &Path) -> bool {
        self.paths.contains(path) || self.whole.iter().any(|whole| path.starts_with(whole))
    }

    /// Returns the names in `directory` that are gone, sorted.
    pub(super) fn gone(&self, directory: &Path) -> impl Iterator<Item = &OsStr> {
        self.gone.get(directory).into_iter().flatten().map(OsString::as_os_str)
    }
}
