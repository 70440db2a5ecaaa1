//! The existing files of an `/etc/portage`.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use super::{
    BASHRC, BINREPOS_CONF, MAKE_CONF, MAKE_PROFILE, OURS, PACKAGE_FILES, PROFILE_PACKAGES, REPOS_CONF, USER_PROFILE,
    package_path,
};
use crate::base::error::{Error, Result};
use crate::portage::ConfigTree;

/// The size limit of an existing file, in bytes.
const MAX_FILE: usize = 1 << 20;
/// The limit on the files of an existing directory.
const MAX_FILES: usize = 1_000;

/// The content of a path in a tree.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Seen {
    /// A regular file and its content.
    File(Vec<u8>),
    /// A directory and the names in it.
    Directory(Vec<String>),
    /// A symbolic link and its target.
    Symlink(PathBuf),
}

/// The files of an `/etc/portage` that the generated files must be combined with.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Existing {
    files: BTreeMap<PathBuf, String>,
    links: BTreeMap<PathBuf, PathBuf>,
    directories: BTreeSet<PathBuf>,
}

impl Existing {
    /// Collects the files with `look`, which returns the content of a path relative to the tree's root, or `None` if there is
    /// nothing. It must not follow a symlink in the last component.
    ///
    /// # Errors
    /// Those of `look`, and an error for a file that is not text or is too large.
    pub fn gather(mut look: impl FnMut(&Path) -> Result<Option<Seen>>) -> Result<Self> {
        let mut existing = Self::default();
        let paths = [MAKE_CONF, MAKE_PROFILE, REPOS_CONF, BINREPOS_CONF, USER_PROFILE, BASHRC, PROFILE_PACKAGES]
            .map(PathBuf::from);
        let packages = PACKAGE_FILES.iter().map(|name| package_path(name));
        for path in paths.into_iter().chain(packages) {
            let Some(seen) = look(&path)? else { continue };
            let Seen::Directory(names) = &seen else {
                existing.take(path, seen)?;
                continue;
            };
            existing.directories.insert(path.clone());
            let kept = path == Path::new(REPOS_CONF) || path == Path::new(BINREPOS_CONF);
            for name in names.iter().filter(|_| kept).take(MAX_FILES) {
                let path = path.join(name);
                if let Some(seen) = look(&path)? {
                    existing.take(path, seen)?;
                }
            }
        }
        Ok(existing)
    }

    fn take(&mut self, path: PathBuf, seen: Seen) -> Result<()> {
        match seen {
            Seen::File(bytes) => {
                let text = String::from_utf8(bytes).ok().filter(|text| text.len() <= MAX_FILE).ok_or_else(|| {
                    Error::build(format!("the tree's /{} is not text or is too large", path.display()))
                })?;
                self.files.insert(path, text);
            }
            Seen::Symlink(target) => {
                self.links.insert(path, target);
            }
            Seen::Directory(_) => {
                self.directories.insert(path);
            }
        }
        Ok(())
    }

    /// Adds `text` to the file or directory at `path` of `tree`, and keeps the existing content.
    pub(super) fn add(&self, tree: &mut ConfigTree, path: &Path, text: &str) {
        if self.directories.contains(path) {
            tree.file(path.join(OURS), text);
        } else if let Some(present) = self.files.get(path) {
            let separator = if present.is_empty() || present.ends_with('\n') { "" } else { "\n" };
            tree.file(path, format!("{present}{separator}\n{text}"));
        } else {
            tree.file(path, text);
        }
    }

    /// Writes the existing files and symlinks at and below `path` back.
    pub(super) fn restore(&self, tree: &mut ConfigTree, path: &Path) {
        let below = |found: &&PathBuf| found.starts_with(path);
        for found in self.files.keys().filter(below) {
            tree.file(found, self.files[found].clone());
        }
        for found in self.links.keys().filter(below) {
            tree.symlink(found, self.links[found].clone());
        }
    }

    pub(super) fn has_file(&self, path: &Path) -> bool {
        self.files.contains_key(path)
    }

    pub(super) fn has_directory(&self, path: &Path) -> bool {
        self.directories.contains(path)
    }

    /// Returns the target of a symlink.
    pub(super) fn link(&self, path: &Path) -> Option<&PathBuf> {
        self.links.get(path)
    }

    /// Returns true if there is neither a file nor a symlink.
    pub(super) fn is_empty(&self) -> bool {
        self.links.is_empty() && self.files.is_empty()
    }
}
