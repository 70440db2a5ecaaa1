//! What an archive holds and the kernel refused to make: kept beside the tree, written back when the tree is packed.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::entry::{MAX_MAJOR, MAX_MINOR, MAX_NAME, Time, Xattrs};

/// Device nodes and attributes that are missing from a tree, by the paths where they belong: relative to the root, through no link.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Lists", into = "Lists")]
pub struct Record {
    nodes: BTreeMap<PathBuf, Node>,
    xattrs: BTreeMap<PathBuf, Xattrs>,
}

impl Record {
    /// Whether the tree is complete without it.
    pub fn is_empty(&self) -> bool {
        self.nodes.is_empty() && self.xattrs.is_empty()
    }

    /// Device nodes, by their paths.
    pub fn nodes(&self) -> &BTreeMap<PathBuf, Node> {
        &self.nodes
    }

    /// Extended attributes of things that do exist, by their paths.
    pub fn xattrs(&self) -> &BTreeMap<PathBuf, Xattrs> {
        &self.xattrs
    }

    /// Adds a device node.
    pub fn add_node(&mut self, path: PathBuf, node: Node) {
        self.nodes.insert(path, node);
    }

    /// Adds `path` as another name of the device node `target`; false when there is none. `inode` is a number that no node has.
    pub fn link_node(&mut self, target: &Path, path: PathBuf, inode: u64) -> bool {
        let Some(node) = self.nodes.get_mut(target) else { return false };
        if node.inode == 0 {
            node.inode = inode;
        }
        let node = node.clone();
        self.nodes.insert(path, node);
        true
    }

    /// A number that is larger than [`Node::inode`] of any node.
    pub fn next_inode(&self) -> u64 {
        self.nodes.values().map(|node| node.inode).max().unwrap_or_default().saturating_add(1)
    }

    /// Adds an attribute.
    pub fn add_xattr(&mut self, path: &Path, name: Vec<u8>, value: Vec<u8>) {
        self.xattrs.entry(path.to_owned()).or_default().push((name, value));
    }

    /// Records the attributes of `target` of `path` too, which is another name of it: one may go and the other stay.
    pub fn link_xattrs(&mut self, target: &Path, path: PathBuf) {
        if let Some(xattrs) = self.xattrs.get(target).cloned() {
            self.xattrs.insert(path, xattrs);
        }
    }

    /// How many bytes of memory it takes.
    pub(super) fn weight(&self) -> usize {
        let nodes = self.nodes.iter().map(|(path, node)| weight(path, &node.xattrs));
        nodes.chain(self.xattrs.iter().map(|(path, xattrs)| weight(path, xattrs))).sum()
    }

    /// Forgets what it has of `path` itself.
    pub fn forget_one(&mut self, path: &Path) {
        self.nodes.remove(path);
        self.xattrs.remove(path);
    }

    /// Forgets what it has of `path`, and of what is below it.
    pub fn forget(&mut self, path: &Path) {
        self.forget_one(path);
        self.forget_below(path);
    }

    /// Forgets what it has below `dir`.
    pub fn forget_below(&mut self, dir: &Path) {
        forget_below(&mut self.nodes, dir);
        forget_below(&mut self.xattrs, dir);
    }
}

/// How many bytes of memory are taken by what is recorded of `path`.
pub(super) fn weight(path: &Path, xattrs: &[(Vec<u8>, Vec<u8>)]) -> usize {
    let xattrs = xattrs.iter().map(|(name, value)| 64 + name.len() + value.len()).sum::<usize>();
    2 * (size_of::<Node>() + path.as_os_str().len()) + xattrs
}

/// Paths are in the order of their components: what is below a directory stands right behind it.
fn forget_below<T>(map: &mut BTreeMap<PathBuf, T>, dir: &Path) {
    use std::ops::Bound::{Excluded, Unbounded};
    let below = map.range::<Path, _>((Excluded(dir), Unbounded)).take_while(|(path, _)| path.starts_with(dir));
    let below: Vec<PathBuf> = below.map(|(path, _)| path.clone()).collect();
    for path in below {
        map.remove(&path);
    }
}

/// A device node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Node {
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
    /// The same for all names of one node that has several; 0 for others.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub inode: u64,
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde gives a reference")]
fn is_zero(inode: &u64) -> bool {
    *inode == 0
}

/// A [`Record`] as it is written: paths need not be text, and keys of JSON must be.
#[derive(Serialize, Deserialize)]
struct Lists {
    nodes: Vec<Named>,
    xattrs: Vec<Attribute>,
}

#[derive(Serialize, Deserialize)]
struct Named {
    #[serde(with = "path")]
    path: PathBuf,
    #[serde(flatten)]
    node: Node,
}

#[derive(Serialize, Deserialize)]
struct Attribute {
    #[serde(with = "path")]
    path: PathBuf,
    name: Vec<u8>,
    value: Vec<u8>,
}

impl From<Record> for Lists {
    fn from(record: Record) -> Self {
        let attributes = record.xattrs.into_iter().flat_map(|(path, xattrs)| {
            xattrs.into_iter().map(move |(name, value)| Attribute { path: path.clone(), name, value })
        });
        let nodes = record.nodes.into_iter().map(|(path, node)| Named { path, node });
        Self { nodes: nodes.collect(), xattrs: attributes.collect() }
    }
}

impl TryFrom<Lists> for Record {
    type Error = &'static str;

    /// People may have edited it: what no archive can say is refused.
    fn try_from(lists: Lists) -> Result<Self, Self::Error> {
        let mut record = Self::default();
        for Named { path, node } in lists.nodes {
            if !is_plain(&path) || path.as_os_str().is_empty() {
                return Err("the path of a node is not one inside the tree");
            }
            if node.major > MAX_MAJOR
                || node.minor > MAX_MINOR
                || node.mode > 0o7777
                || node.mtime.nsec >= 1_000_000_000
            {
                return Err("a node has a number that is out of range");
            }
            if !node.xattrs.iter().all(|(name, _)| is_name(name)) {
                return Err("a node has an attribute with an impossible name");
            }
            record.add_node(path, node);
        }
        for Attribute { path, name, value } in lists.xattrs {
            if !is_plain(&path) {
                return Err("the path of an attribute is not one inside the tree");
            }
            if !is_name(&name) {
                return Err("an attribute has an impossible name");
            }
            record.add_xattr(&path, name, value);
        }
        Ok(record)
    }
}

fn is_plain(path: &Path) -> bool {
    use std::os::unix::ffi::OsStrExt as _;
    use std::path::Component;
    let plain =
        |part| matches!(part, Component::Normal(name) if name.len() <= MAX_NAME && !name.as_bytes().contains(&0));
    path.components().all(plain)
}

fn is_name(name: &[u8]) -> bool {
    !name.is_empty() && name.len() <= MAX_NAME && !name.contains(&0)
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

    fn node(path: &str, more: &str) -> String {
        format!(
            r#"{{"path":"{path}","block":false,"major":1,"minor":3,"mode":420,"uid":0,"gid":0,"mtime":{{"sec":-5,"nsec":1}}{more}}}"#
        )
    }

    fn read(nodes: &[String], xattrs: &str) -> Option<Record> {
        serde_json::from_str(&format!(r#"{{"nodes":[{}],"xattrs":[{xattrs}]}}"#, nodes.join(","))).ok()
    }

    #[test]
    fn what_no_archive_says_is_refused() {
        let good =
            read(&[node("d/x", ""), node("a", r#","xattrs":[[[97],[1]]]"#)], r#"{"path":"","name":[97],"value":[]}"#);
        let good = good.unwrap();
        assert_eq!(good.nodes().keys().map(|path| path.to_str().unwrap()).collect::<Vec<_>>(), ["a", "d/x"]);
        assert_eq!(serde_json::from_str::<Record>(&serde_json::to_string(&good).unwrap()).unwrap(), good);
        for path in ["", "/x", "../x", "a/../x", "a\\u0000b", &"x".repeat(256)] {
            assert!(read(&[node(path, "")], "").is_none(), "{path}");
        }
        for (from, to) in
            [(":1,", ":4096,"), (":3,", ":1048576,"), (":420,", ":4096,"), ("nsec\":1", "nsec\":1000000000")]
        {
            assert!(read(&[node("x", "").replacen(from, to, 1)], "").is_none(), "{to}");
        }
        assert!(read(&[node("x", r#","xattrs":[[[97,0],[1]]]"#)], "").is_none());
        for attribute in [r#"{"path":"..","name":[97],"value":[]}"#, r#"{"path":"x","name":[],"value":[]}"#] {
            assert!(read(&[], attribute).is_none(), "{attribute}");
        }
    }

    #[test]
    fn names_of_one_file_are_forgotten_one_by_one() {
        let mut record =
            read(&[], r#"{"path":"d/a","name":[97],"value":[1]},{"path":"d/a","name":[98],"value":[]}"#).unwrap();
        let xattrs = record.xattrs()[Path::new("d/a")].clone();
        record.link_xattrs(Path::new("d/a"), "b".into());
        record.link_xattrs(Path::new("b"), "d/c".into());
        record.link_xattrs(Path::new("none"), "e".into());
        assert_eq!(record.xattrs().len(), 3);
        record.forget(Path::new("d"));
        assert_eq!(record.xattrs().iter().collect::<Vec<_>>(), [(&"b".into(), &xattrs)]);
        record.forget(Path::new("b"));
        assert!(record.is_empty());
    }

    #[test]
    fn what_is_below_is_forgotten_and_nothing_beside_it() {
        let paths = ["a", "a b", "a/b", "a/b/c", "a.b", "ab", "b"];
        let record = || read(&paths.map(|path| node(path, "")), "").unwrap();
        let left =
            |record: Record| record.nodes().keys().map(|path| path.to_str().unwrap().to_owned()).collect::<Vec<_>>();
        let mut below = record();
        below.forget_below(Path::new("a"));
        assert_eq!(left(below), ["a", "a b", "a.b", "ab", "b"]);
        let mut all = record();
        all.forget(Path::new("a/b"));
        assert_eq!(left(all), ["a", "a b", "a.b", "ab", "b"]);
        let mut root = record();
        root.forget_below(Path::new(""));
        assert!(root.is_empty());
    }
}
