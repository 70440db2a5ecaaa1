//! The paths of an image in memory: finds entries that no tree can hold, such as a hard link to a missing file. Pure.
//!
//! The rules are those by which [`crate::archive::unpack`] creates the entries of layers.

use std::collections::{BTreeSet, HashMap};
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use super::whiteout::Whiteout;
use crate::archive::unpack::entry::{Entry, NodeKind};
use crate::base::refusal::{Code, Reason};

/// Number of symlinks in a path that the kernel follows.
const MAX_LINKS: usize = 40;

/// An entry of a layer without its data, or a whiteout.
pub(super) enum Change {
    Entry(PathBuf, NodeKind),
    Whiteout(Whiteout),
}

impl Change {
    pub(super) fn new(entry: Entry, whiteout: Option<Whiteout>) -> Self {
        whiteout.map_or_else(|| Self::Entry(entry.path, entry.kind), Self::Whiteout)
    }

    /// Returns the approximate memory for the change and its node, in bytes.
    pub(super) fn weight(&self) -> usize {
        256 + match self {
            Self::Entry(path, NodeKind::Hardlink(target)) => path.as_os_str().len() + target.as_os_str().len(),
            Self::Entry(path, NodeKind::Symlink(target)) => path.as_os_str().len() + 2 * target.len(),
            Self::Entry(path, _) => 2 * path.as_os_str().len(),
            Self::Whiteout(Whiteout::Remove(path) | Whiteout::Opaque(path)) => path.as_os_str().len(),
        }
    }

    fn path(&self) -> &Path {
        match self {
            Self::Entry(path, _) | Self::Whiteout(Whiteout::Remove(path) | Whiteout::Opaque(path)) => path,
        }
    }
}

struct Node {
    kind: Kind,
    /// The parent of a directory.
    above: usize,
    /// The names in a directory.
    children: HashMap<OsString, usize>,
}

enum Kind {
    Dir,
    Symlink(PathBuf),
    Other,
}

/// The paths of an image. Hard links are names of the same node.
pub(super) struct Paths {
    nodes: Vec<Node>,
}

/// A name in a directory, given by the number of its node.
type Place = (usize, OsString);

impl Paths {
    const ROOT: usize = 0;

    pub(super) fn new() -> Self {
        Self { nodes: vec![Node { kind: Kind::Dir, above: Self::ROOT, children: HashMap::new() }] }
    }

    /// Applies the changes of a layer: the whiteouts first, then the entries. The error names the entry that cannot be created.
    pub(super) fn apply(&mut self, layer: &[Change]) -> Result<(), Reason> {
        self.remove(layer);
        for change in layer {
            let Change::Entry(path, kind) = change else { continue };
            self.add(path, kind).map_err(|(code, text)| {
                Reason::new(code, format!("entry {}: {text}", path.as_os_str().as_bytes().escape_ascii()))
            })?;
        }
        Ok(())
    }

    /// Removes the files of the whiteouts. A whiteout does not follow a symlink that an earlier entry of the layer replaced.
    fn remove(&mut self, layer: &[Change]) {
        if !layer.iter().any(|change| matches!(change, Change::Whiteout(_))) {
            return;
        }
        let mut replaced = BTreeSet::new();
        for change in layer {
            let path = change.path();
            let dir = match change {
                Change::Whiteout(Whiteout::Opaque(dir)) => dir,
                _ => path.parent().unwrap_or(Path::new("")),
            };
            let mut hidden = false;
            let Some((dir, linked)) = self.walk(dir, &mut |place| hidden |= replaced.contains(&place)) else {
                continue;
            };
            if hidden && linked {
                continue;
            }
            match (change, path.file_name()) {
                (Change::Whiteout(Whiteout::Opaque(_)), _) => self.nodes[dir].children.clear(),
                (Change::Whiteout(Whiteout::Remove(_)), Some(name)) => drop(self.nodes[dir].children.remove(name)),
                (Change::Entry(_, kind), Some(name)) if !self.stays(dir, name, kind) => {
                    replaced.insert((dir, name.to_owned()));
                }
                _ => {}
            }
        }
    }

    /// Returns true if an entry leaves the directory or symlink in its place as it is.
    fn stays(&self, dir: usize, name: &OsStr, kind: &NodeKind) -> bool {
        match (self.child(dir, name).map(|node| &self.nodes[node].kind), kind) {
            (Some(Kind::Dir), NodeKind::Dir) => true,
            (Some(Kind::Symlink(old)), NodeKind::Symlink(new)) => old.as_os_str().as_bytes() == new,
            _ => false,
        }
    }

    fn add(&mut self, path: &Path, kind: &NodeKind) -> Result<(), (Code, &'static str)> {
        let Some(name) = path.file_name() else { return Ok(()) };
        let parent = path.parent().unwrap_or(Path::new(""));
        let dir =
            self.make_dirs(parent).ok_or((Code::BadParent, "its parent is not a directory, or a dangling symlink"))?;
        let node = match kind {
            NodeKind::Dir if self.stays(dir, name, kind) => return Ok(()),
            NodeKind::Dir => self.push(Kind::Dir, dir),
            NodeKind::Symlink(target) => self.push(Kind::Symlink(OsStr::from_bytes(target).into()), dir),
            NodeKind::Hardlink(target) => {
                let missing = (Code::BadLink, "it is a hard link to a missing file or to a directory");
                let found = self.target(target).ok_or(missing)?;
                if self.child(dir, name) != Some(found) {
                    // The file in its place is removed first, and that may be a directory with the target.
                    self.nodes[dir].children.remove(name);
                }
                self.target(target).ok_or(missing)?
            }
            _ => self.push(Kind::Other, dir),
        };
        self.nodes[dir].children.insert(name.to_owned(), node);
        Ok(())
    }

    /// Returns the file that a hard link refers to.
    fn target(&self, path: &Path) -> Option<usize> {
        let (dir, _) = self.walk(path.parent()?, &mut |_| {})?;
        self.child(dir, path.file_name()?).filter(|node| !self.is_dir(*node))
    }

    /// Resolves the directory `path` and returns its node, and true if the way leads through a symlink. Calls `each` for every name.
    fn walk(&self, path: &Path, each: &mut dyn FnMut(Place)) -> Option<(usize, bool)> {
        let (mut here, mut links) = (Self::ROOT, 0);
        let mut rest: Vec<OsString> = path.iter().rev().map(OsStr::to_owned).collect();
        while let Some(name) = rest.pop() {
            match name.as_bytes() {
                b"." => {}
                b"/" => here = Self::ROOT,
                b".." => here = self.nodes[here].above,
                _ => {
                    let child = self.child(here, &name);
                    each((here, name));
                    match &self.nodes[child?].kind {
                        Kind::Dir => here = child?,
                        Kind::Symlink(target) if links < MAX_LINKS => {
                            links += 1;
                            rest.extend(target.iter().rev().map(OsStr::to_owned));
                        }
                        _ => return None,
                    }
                }
            }
        }
        Some((here, links > 0))
    }

    /// Resolves the directory `path` and creates its missing components; `None` if that is impossible.
    fn make_dirs(&mut self, path: &Path) -> Option<usize> {
        let mut here = Self::ROOT;
        for (number, name) in path.iter().enumerate() {
            here = match self.child(here, name) {
                Some(node) if self.is_dir(node) => node,
                // The whole path counts towards the limit of symlinks.
                Some(_) => self.walk(&path.iter().take(number + 1).collect::<PathBuf>(), &mut |_| {})?.0,
                None => {
                    let new = self.push(Kind::Dir, here);
                    self.nodes[here].children.insert(name.to_owned(), new);
                    new
                }
            };
        }
        Some(here)
    }

    fn push(&mut self, kind: Kind, above: usize) -> usize {
        self.nodes.push(Node { kind, above, children: HashMap::new() });
        self.nodes.len() - 1
    }

    fn child(&self, dir: usize, name: &OsStr) -> Option<usize> {
        self.nodes[dir].children.get(name).copied()
    }

    fn is_dir(&self, node: usize) -> bool {
        matches!(self.nodes[node].kind, Kind::Dir)
    }
}
