//! The settings of an image → changes of its files. Pure: the files of the tree are seen through [`Tree`], and nothing is written.
//! Everything is checked before the first [`Change`] is returned.
//!
//! Each setting has the file format that the programs of the image read, so a tree needs neither a shell nor its own programs, and all
//! machines write the same bytes. Only the locales of glibc are made by a program of the tree.

mod accounts;
mod home;
mod openrc;
pub mod password;
mod services;
mod systemd;
#[cfg(test)]
mod tests;
mod texts;

use std::collections::BTreeMap;

use crate::base::error::{Error, Result};
use crate::base::text::{escaped, nearest, quoted};
use crate::recipe::{CopySpec, FileSpec, System};
use accounts::Accounts;

/// The number of names that an error lists.
const LISTED: usize = 40;

/// A tree of files, of which settings need to know some. Paths are absolute, and symlinks in them are resolved inside the tree.
pub trait Tree {
    /// Returns the content of a regular file, or `None` if it does not exist.
    ///
    /// # Errors
    /// [`Kind::System`](crate::base::error::Kind::System) if it cannot be read.
    fn read(&self, path: &str) -> Result<Option<Vec<u8>>>;

    /// Lists the names in a directory, sorted. `None` if it is not one.
    ///
    /// # Errors
    /// [`Kind::System`](crate::base::error::Kind::System) if it cannot be read.
    fn list(&self, path: &str) -> Result<Option<Vec<String>>>;

    /// Looks at a file itself: a symlink in the last component is not followed.
    ///
    /// # Errors
    /// [`Kind::System`](crate::base::error::Kind::System) if it cannot be examined.
    fn look(&self, path: &str) -> Result<Option<Node>>;
}

/// A file of a tree.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Node {
    /// A regular file with its permission bits.
    File(u32),
    /// A directory with its permission bits.
    Directory(u32),
    /// A symlink with its target.
    Link(String),
    /// Any other file.
    Other,
}

/// The owner and the permission bits of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// These.
    Exactly(u32, (u32, u32)),
    /// Those of the file that is replaced, or these bits and root.
    Kept(u32),
}

/// A change of a tree. Later ones build on earlier ones.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// Writes a file in place of a file or symlink.
    File { path: String, bytes: Vec<u8>, access: Access },
    /// Writes a symlink in place of a file or symlink.
    Link { path: String, target: String, owner: (u32, u32) },
    /// Makes a directory, and gives it a mode and an owner if it is there already.
    Directory { path: String, mode: u32, owner: (u32, u32) },
    /// Copies files of this machine. The owner is a pair of numbers.
    Copy(CopySpec),
    /// Removes a file or symlink.
    Remove(String),
    /// Removes a directory if it is empty.
    RemoveEmpty(String),
}

impl Change {
    /// A file of root.
    fn file(path: impl Into<String>, text: impl Into<Vec<u8>>) -> Self {
        Self::File { path: path.into(), bytes: text.into(), access: Access::Kept(0o644) }
    }

    /// A symlink of root.
    fn link(path: impl Into<String>, target: impl Into<String>) -> Self {
        Self::Link { path: path.into(), target: target.into(), owner: (0, 0) }
    }
}

/// The values that do not come from the recipe or the tree.
#[derive(Debug, Clone, Default)]
pub struct Facts {
    /// The time of the build, in days since 1970.
    pub day: u64,
    /// The hashes of the passwords that are secrets, by user.
    pub hashes: BTreeMap<String, String>,
}

/// The outcome of settings.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    /// The changes, in order.
    pub changes: Vec<Change>,
    /// Facts that the user should know.
    pub warnings: Vec<String>,
    /// A command to run in the tree after the changes.
    pub command: Option<Vec<String>>,
}

/// Returns the changes that bring a tree into the state that `system` describes.
///
/// # Errors
/// [`Kind::Build`](crate::base::error::Kind::Build) if the tree lacks something that the settings name, with the names that it has, or if
/// a file of the tree is malformed, with its line. Those of the tree.
pub fn settings(system: &System, tree: &dyn Tree, facts: &Facts) -> Result<Outcome> {
    let mut outcome = Outcome::default();
    let init = services::init(system.init, tree)?;
    let mut accounts = Accounts::read(tree, facts.day)?;
    let homes = accounts.apply(system, facts, tree, &mut outcome)?;
    outcome.changes.extend(accounts.changes());
    for home in &homes {
        home::changes(home, tree, &mut outcome.changes)?;
    }
    texts::changes(system, init, tree, &mut outcome)?;
    services::changes(system, init, tree, &mut outcome)?;
    for file in &system.files {
        outcome.changes.push(own_file(file, &accounts, tree)?);
    }
    Ok(outcome)
}

/// Returns the change of an entry of `system.files`.
fn own_file(file: &FileSpec, accounts: &Accounts, tree: &dyn Tree) -> Result<Change> {
    let owner = |owner: &Option<String>| owner.as_deref().map_or(Ok((0, 0)), |owner| accounts.owner(owner));
    match file {
        FileSpec::Write(spec) => {
            let path = spec.to.display().to_string();
            if matches!(tree.look(&path)?, Some(Node::Directory(_))) {
                return Err(Error::build(format!("writing {path}: it is a directory in the tree")));
            }
            let access = Access::Exactly(spec.mode.unwrap_or(0o644), owner(&spec.owner)?);
            Ok(Change::File { path, bytes: spec.text.clone().into_bytes(), access })
        }
        FileSpec::Copy(spec) => {
            let (uid, gid) = owner(&spec.owner)?;
            Ok(Change::Copy(CopySpec { owner: Some(format!("{uid}:{gid}")), ..spec.clone() }))
        }
    }
}

/// Returns the error for a name that the tree does not have: the nearest of those that it has, or all of them.
fn unknown<'a>(kind: &str, name: &str, known: impl IntoIterator<Item = &'a str>) -> Error {
    let mut known: Vec<&str> = known.into_iter().collect();
    known.sort_unstable();
    let error = Error::build(format!("the tree has no {kind} {}", quoted(name)));
    let meant = nearest(name, known.iter().copied()).map(|meant| format!("did you mean {}? ", escaped(meant)));
    let more = known.len().saturating_sub(LISTED);
    known.truncate(LISTED);
    let list = escaped(&known.join(", "));
    let all = match (known.is_empty(), more) {
        (true, _) => format!("it has no {kind}"),
        (false, 0) => format!("it has {list}"),
        (false, more) => format!("it has {list} and {more} more"),
    };
    error.with_hint(format!("{}{all}", meant.unwrap_or_default()))
}

/// Returns the text of a file; empty if it does not exist.
fn text_of(tree: &dyn Tree, path: &str) -> Result<String> {
    let bytes = tree.read(path)?.unwrap_or_default();
    String::from_utf8(bytes)
        .map_err(|_| Error::build(format!("reading {} of the tree: it is not UTF-8", escaped(path))))
}

/// True if the tree has a regular file or directory at `path`, or a symlink.
fn exists(tree: &dyn Tree, path: &str) -> Result<bool> {
    Ok(tree.look(path)?.is_some())
}
