//! What an archive holds and the kernel refused to make: kept beside the tree, written back when the tree is packed.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::entry::{Time, Xattrs};

/// Device nodes and attributes that are missing from a tree.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// Device nodes.
    pub nodes: Vec<Node>,
    /// Extended attributes of things that do exist.
    pub xattrs: Vec<Attribute>,
}

impl Record {
    /// Whether the tree is complete without it.
    pub fn is_empty(&self) -> bool {
        self.nodes.is_empty() && self.xattrs.is_empty()
    }
}

/// A [`Record`] that is being made: what it has of a path is found and forgotten quickly, however much it has.
#[derive(Debug, Default)]
pub struct Unmade {
    // In the order of paths, in which what is below a directory follows it.
    nodes: BTreeMap<PathBuf, Node>,
    xattrs: BTreeMap<PathBuf, Vec<Attribute>>,
}

impl Unmade {
    /// Whether there is nothing in it.
    pub fn is_empty(&self) -> bool {
        self.nodes.is_empty() && self.xattrs.is_empty()
    }

    /// The node at `path`.
    pub(super) fn node(&self, path: &Path) -> Option<&Node> {
        self.nodes.get(path)
    }

    /// Adds a node; returns how many bytes of memory it takes.
    pub(super) fn add_node(&mut self, node: Node) -> usize {
        let bytes = node.weight();
        self.nodes.insert(node.path.clone(), node);
        bytes
    }

    /// Adds an attribute; returns how many bytes of memory it takes.
    pub(super) fn add_attribute(&mut self, attribute: Attribute) -> usize {
        let bytes = attribute.weight();
        self.xattrs.entry(attribute.path.clone()).or_default().push(attribute);
        bytes
    }

    /// How many bytes of memory it takes.
    pub(super) fn weight(&self) -> usize {
        let xattrs = self.xattrs.values().flatten().map(Attribute::weight);
        self.nodes.values().map(Node::weight).chain(xattrs).sum()
    }

    /// Forgets what it has of `path` itself.
    pub(super) fn forget_only(&mut self, path: &Path) {
        self.nodes.remove(path);
        self.xattrs.remove(path);
    }

    /// Forgets what it has of `path`, and of what is below it.
    pub fn forget(&mut self, path: &Path) {
        self.forget_only(path);
        self.forget_below(path);
    }

    /// Forgets what it has below `dir`.
    pub fn forget_below(&mut self, dir: &Path) {
        forget_below(&mut self.nodes, dir);
        forget_below(&mut self.xattrs, dir);
    }
}

fn forget_below<T>(all: &mut BTreeMap<PathBuf, T>, dir: &Path) {
    let below = |path: &&PathBuf| path.starts_with(dir);
    let from = (std::ops::Bound::Excluded(dir), std::ops::Bound::Unbounded);
    let gone: Vec<PathBuf> = all.range::<Path, _>(from).map(|(path, _)| path).take_while(below).cloned().collect();
    for path in gone {
        all.remove(&path);
    }
}

impl From<Unmade> for Record {
    fn from(unmade: Unmade) -> Self {
        let nodes = unmade.nodes.into_values().collect();
        Self { nodes, xattrs: unmade.xattrs.into_values().flatten().collect() }
    }
}

/// A device node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Node {
    /// Where it belongs, relative to the root.
    #[serde(with = "path")]
    pub path: PathBuf,
    /// A block device rather than a character device.
    pub block: bool,
    /// Major number.
    pub major: u32,
    /// Minor number.
    pub minor: u32,
    /// Permission bits.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Time of modification.
    pub mtime: Time,
    /// Extended attributes.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub xattrs: Xattrs,
}

impl Node {
    fn weight(&self) -> usize {
        let xattrs = self.xattrs.iter().map(|(name, value)| 64 + name.len() + value.len()).sum::<usize>();
        2 * (size_of::<Self>() + self.path.as_os_str().len()) + xattrs
    }
}

/// An extended attribute that could not be set.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attribute {
    /// Whose it is, relative to the root.
    #[serde(with = "path")]
    pub path: PathBuf,
    /// Its name.
    pub name: Vec<u8>,
    /// Its value.
    pub value: Vec<u8>,
}

impl Attribute {
    fn weight(&self) -> usize {
        2 * (size_of::<Self>() + self.path.as_os_str().len()) + self.name.len() + self.value.len()
    }
}

/// A path as text where it is text, and as bytes where not.
mod path {
    use std::ffi::OsString;
    use std::os::unix::ffi::{OsStrExt, OsStringExt};
    use std::path::{Path, PathBuf};

    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    #[derive(Serialize, Deserialize)]
    #[serde(untagged)]
    enum Form {
        Text(String),
        Bytes(Vec<u8>),
    }

    pub(super) fn serialize<S: Serializer>(path: &Path, to: S) -> Result<S::Ok, S::Error> {
        match path.to_str() {
            Some(text) => Form::Text(text.to_owned()),
            None => Form::Bytes(path.as_os_str().as_bytes().to_vec()),
        }
        .serialize(to)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<PathBuf, D::Error> {
        Ok(match Form::deserialize(from)? {
            Form::Text(text) => PathBuf::from(text),
            Form::Bytes(bytes) => PathBuf::from(OsString::from_vec(bytes)),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn unmade(paths: &[&str]) -> Unmade {
        let mut unmade = Unmade::default();
        for path in paths {
            let (name, value) = (b"user.a".to_vec(), vec![1]);
            unmade.add_attribute(Attribute { path: path.into(), name, value });
        }
        unmade
    }

    fn left(unmade: Unmade) -> Vec<String> {
        Record::from(unmade).xattrs.into_iter().map(|left| left.path.to_str().unwrap().to_owned()).collect()
    }

    #[test]
    fn what_is_below_is_forgotten_and_what_only_begins_alike_is_not() {
        let paths = ["", "a", "a/b", "a/b/c", "a b", "a.b", "ab/c", "b"];
        let mut one = unmade(&paths);
        one.forget(Path::new("a"));
        assert_eq!(left(one), ["", "a b", "a.b", "ab/c", "b"]);
        let mut below = unmade(&paths);
        below.forget_below(Path::new("a"));
        assert_eq!(left(below), ["", "a", "a b", "a.b", "ab/c", "b"]);
        let mut only = unmade(&paths);
        only.forget_only(Path::new("a/b"));
        assert_eq!(left(only), ["", "a", "a/b/c", "a b", "a.b", "ab/c", "b"]);
        let mut all = unmade(&paths);
        all.forget_below(Path::new(""));
        assert_eq!(left(all), [""]);
    }

    #[test]
    fn what_is_held_has_a_weight() {
        let mut one = unmade(&[]);
        let value = vec![0; 1000];
        let added = one.add_attribute(Attribute { path: "p".into(), name: b"user.a".to_vec(), value });
        assert!(added > 1000 && one.weight() == added, "{added}");
    }
}
