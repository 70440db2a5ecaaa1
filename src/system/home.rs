//! The home directory of a user.

use std::path::PathBuf;

use super::{Access, Change, Node, Tree, text_of};
use crate::base::error::{Error, Result};
use crate::base::text::escaped;
use crate::recipe::CopySpec;

/// The files that a new home has.
const SKEL: &str = "/etc/skel";
/// The limit on directories in directories of it.
const MAX_DEPTH: usize = 16;

/// A home directory and the files that a recipe wants in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Home {
    pub(super) path: String,
    pub(super) owner: (u32, u32),
    /// Lines of `authorized_keys`.
    pub(super) keys: Vec<String>,
    /// A directory of this machine whose content is copied.
    pub(super) files: Option<PathBuf>,
}

/// Appends the changes that make a home, with the files of a new one, its keys and its own files.
///
/// # Errors
/// [`Kind::Build`](crate::base::error::Kind::Build) if another file is in the way, and those of the tree.
pub(super) fn changes(home: &Home, tree: &dyn Tree, changes: &mut Vec<Change>) -> Result<()> {
    let Home { path, owner, .. } = home;
    if tree.look(path)?.is_none() {
        changes.push(Change::Directory { path: path.clone(), mode: 0o700, owner: *owner });
        skeleton(SKEL, home, 0, tree, changes)?;
    } else if tree.list(path)?.is_none() && (!home.keys.is_empty() || home.files.is_some()) {
        return Err(Error::build(format!("the home {} is not a directory in the tree", escaped(path))));
    }
    if !home.keys.is_empty() {
        let directory = format!("{}/.ssh", path.trim_end_matches('/'));
        if tree.look(&directory)?.is_some_and(|node| !matches!(node, Node::Directory(_))) {
            return Err(Error::build(format!("{} is not a directory in the tree", escaped(&directory))));
        }
        let file = format!("{directory}/authorized_keys");
        let mut text = text_of(tree, &file)?;
        if !text.is_empty() && !text.ends_with('\n') {
            text.push('\n');
        }
        let known: Vec<String> = text.lines().map(|line| line.trim().to_owned()).collect();
        home.keys.iter().filter(|key| !known.contains(key)).for_each(|key| text.push_str(&format!("{key}\n")));
        changes.push(Change::Directory { path: directory, mode: 0o700, owner: *owner });
        changes.push(Change::File { path: file, bytes: text.into_bytes(), access: Access::Exactly(0o600, *owner) });
    }
    if let Some(from) = &home.files {
        let owner = Some(format!("{}:{}", owner.0, owner.1));
        let (from, to) = (from.clone(), PathBuf::from(path));
        changes.push(Change::Copy(CopySpec { from, to, mode: None, owner, exclude: Vec::new() }));
    }
    Ok(())
}

/// Appends the changes that copy a directory of the skeleton.
fn skeleton(from: &str, home: &Home, depth: usize, tree: &dyn Tree, changes: &mut Vec<Change>) -> Result<()> {
    if depth > MAX_DEPTH {
        return Err(Error::build(format!("{SKEL} of the tree is deeper than {MAX_DEPTH} directories")));
    }
    for name in tree.list(from)?.unwrap_or_default() {
        let source = format!("{from}/{name}");
        let below = source.strip_prefix(SKEL).unwrap_or(&source);
        let path = format!("{}{below}", home.path.trim_end_matches('/'));
        match tree.look(&source)? {
            Some(Node::File(mode)) => {
                let bytes = tree.read(&source)?.unwrap_or_default();
                changes.push(Change::File { path, bytes, access: Access::Exactly(mode, home.owner) });
            }
            Some(Node::Directory(mode)) => {
                changes.push(Change::Directory { path, mode, owner: home.owner });
                skeleton(&source, home, depth + 1, tree, changes)?;
            }
            Some(Node::Link(target)) => changes.push(Change::Link { path, target, owner: home.owner }),
            Some(Node::Other) | None => {}
        }
    }
    Ok(())
}
