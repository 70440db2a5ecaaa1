//! `quern.lock`: the inputs that each recipe of a directory is locked to. The text is made for `git diff`: sorted, and the same bytes
//! until an input changes.
//!
//! People merge and edit the file, so every value is checked before use, and a mistake is shown with its line. The file is replaced
//! as a whole, by one process at a time.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{ErrorKind, Read};
use std::os::fd::AsFd as _;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::base::error::{Context, Error, Kind, Result};
use crate::base::text::printable;
use crate::fs::{atomic, directory_of, lock};
use crate::os::probe;

mod entry;
mod fields;

pub use entry::{Locked, LockedCommit, LockedFetch, LockedFile, LockedIndex, LockedRepository};

/// The name of a lock file, in the directory of its recipes.
pub const NAME: &str = "quern.lock";

/// Largest lock file that is read, in bytes.
const MAX: u64 = 1 << 20;
/// The version of the format.
const VERSION: u64 = 1;
const HEADER: &str =
    "# Written by `quern-builder lock`, used by `build --locked`. Keep it with the recipes; lock again to change it.\n";

/// The contents of a lock file: an entry for each recipe, by name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Lockfile {
    version: u64,
    #[serde(default)]
    recipe: BTreeMap<String, Locked>,
}

/// The effect of an update on a lock file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Update {
    /// The recipe was not locked before.
    Added,
    /// The recipe was locked to something else. Holds the differences, a line each.
    Moved(Vec<String>),
    /// Nothing changed, and the file was not written.
    Same,
}

impl Default for Lockfile {
    fn default() -> Self {
        Self { version: VERSION, recipe: BTreeMap::new() }
    }
}

impl Lockfile {
    /// Parses the text of a lock file; `what` names it in messages.
    ///
    /// # Errors
    /// [`Kind::Usage`], with the line, when it is not a lock file of this version.
    pub fn parse(what: &str, text: &str) -> Result<Self> {
        #[derive(Deserialize)]
        struct Version {
            version: u64,
        }
        let wrong = |error: toml::de::Error| {
            // The parser quotes the line, which may hold escape sequences.
            let place: Vec<String> = error.to_string().lines().map(printable).collect();
            Error::usage(format!("reading {what}: it is not a lock file")).with_details(place.join("\n")).with_hint(
                "restore it from version control, or remove it and lock the recipes again with `quern-builder lock`",
            )
        };
        let Version { version } = toml::from_str(text).map_err(wrong)?;
        if version != VERSION {
            return Err(Error::usage(format!(
                "reading {what}: its format is version {version}, and this program reads version {VERSION}"
            ))
            .with_hint("a newer quern-builder wrote it"));
        }
        toml::from_str(text).map_err(wrong)
    }

    /// Reads a lock file. Returns `None` when it does not exist.
    ///
    /// # Errors
    /// Those of [`Lockfile::parse`], and [`Kind::System`] when it cannot be read.
    pub fn read(path: &Path) -> Result<Option<Self>> {
        let what = path.display().to_string();
        let file = match fs_err::File::open(path) {
            Ok(file) => file,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error).system(|| "reading the lock file"),
        };
        let mut text = String::new();
        file.take(MAX + 1).read_to_string(&mut text).context(Kind::Usage, || "reading the lock file")?;
        if text.len() as u64 > MAX {
            return Err(Error::usage(format!("reading {what}: it is larger than {} MiB", MAX >> 20)));
        }
        Self::parse(&what, &text).map(Some)
    }

    /// Returns the entry of a recipe in the file at `path`.
    ///
    /// # Errors
    /// Those of [`Lockfile::read`], and [`Kind::Usage`] when the recipe is not locked there.
    pub fn entry(path: &Path, recipe: &str) -> Result<Locked> {
        let hint =
            format!("write it with `quern-builder lock` and the arguments of this command, without {}", "--locked");
        let Some(mut lockfile) = Self::read(path)? else {
            return Err(Error::usage(format!("{} not found", path.display())).with_hint(hint));
        };
        lockfile.recipe.remove(recipe).ok_or_else(|| {
            let known: Vec<&str> = lockfile.recipes().collect();
            let known = if known.is_empty() { "nothing".to_owned() } else { known.join(", ") };
            Error::usage(format!("{recipe} is not locked in {} (it locks {known})", path.display())).with_hint(hint)
        })
    }

    pub fn get(&self, recipe: &str) -> Option<&Locked> {
        self.recipe.get(recipe)
    }

    /// Lists the names of its recipes, sorted.
    pub fn recipes(&self) -> impl Iterator<Item = &str> {
        self.recipe.keys().map(String::as_str)
    }

    /// Lists the entries of all recipes.
    pub fn entries(&self) -> impl Iterator<Item = &Locked> {
        self.recipe.values()
    }

    /// Adds or replaces an entry. An entry whose inputs are the same stays as it was.
    fn set(&mut self, recipe: &str, new: Locked) -> Update {
        let Some(old) = self.recipe.get(recipe) else {
            self.recipe.insert(recipe.to_owned(), new);
            return Update::Added;
        };
        let changes = old.changes(&new);
        if changes.is_empty() {
            return Update::Same;
        }
        let new = new.settled(old);
        self.recipe.insert(recipe.to_owned(), new);
        Update::Moved(changes)
    }

    /// Formats it as TOML.
    ///
    /// # Errors
    /// [`Kind::System`] when a value cannot be written as TOML.
    pub fn text(&self) -> Result<String> {
        let body = toml::to_string(self).system(|| "writing the lock file")?;
        Ok(format!("{HEADER}{body}"))
    }

    /// Reads the file at `path`, sets the entry of a recipe and replaces the file, while no other process does.
    ///
    /// # Errors
    /// Those of [`Lockfile::read`], and [`Kind::System`] when it cannot be written.
    pub fn update(path: &Path, recipe: &str, new: Locked) -> Result<Update> {
        // A symlink stays, and its target is replaced.
        let path = fs_err::canonicalize(path).unwrap_or_else(|_| path.to_owned());
        let directory = directory(&path)?;
        let mut lockfile = Self::read(&path)?.unwrap_or_default();
        let update = lockfile.set(recipe, new);
        if update != Update::Same {
            replace(&directory, &path, lockfile.text()?.as_bytes())?;
        }
        Ok(update)
    }
}

/// Returns the path of the lock file beside a recipe. `None` for a recipe on standard input.
pub fn beside(recipe: &Path) -> Option<PathBuf> {
    if recipe == Path::new("-") {
        return None;
    }
    let recipe = std::path::absolute(recipe).ok()?;
    Some(recipe.parent()?.join(NAME))
}

/// Opens and locks the directory of a file, so that no other process updates a lock file in it.
fn directory(path: &Path) -> Result<File> {
    let parent = directory_of(path);
    let doing = || format!("locking {}", parent.display());
    let directory = fs_err::File::open(parent).system(doing)?.into_file();
    lock::lock_if_supported(&directory, lock::Mode::Exclusive).system(doing)?;
    Ok(directory)
}

/// Replaces the lock file in its directory.
fn replace(directory: &File, path: &Path, bytes: &[u8]) -> Result<()> {
    let doing = || format!("writing {}", path.display());
    let name = path.file_name().ok_or_else(|| Error::usage(format!("{}: the path has no file name", doing())))?;
    let mode = 0o644 & !probe::umask();
    atomic::replace_at(directory.as_fd(), name, mode, &mut &bytes[..]).system(doing)
}

#[cfg(test)]
mod tests;
