//! Device nodes and attributes that the kernel refused to create. They are kept beside the tree and added when it is packed.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::entry::{MAX_MAJOR, MAX_MINOR, MAX_NAME, Time, Xattrs};

/// Device nodes and attributes that are missing in a tree, by path: relative to the root and without symlinks.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Lists", into = "Lists")]
pub struct Deferred {
    nodes: BTreeMap<PathBuf, Node>,
    xattrs: BTreeMap<PathBuf, Xattrs>,
}

impl Deferred {
    /// Returns true if the tree is complete.
    pub fn is_empty(&self) -> bool {
        self.nodes.is_empty() && self.xattrs.is_empty()
    }

    /// Returns the device nodes by path.
    pub fn nodes(&self) -> &BTreeMap<PathBuf, Node> {
        &self.nodes
    }

    /// Returns the missing attributes of existing files by path.
    pub fn xattrs(&self) -> &BTreeMap<PathBuf, Xattrs> {
        &self.xattrs
    }

    /// Adds a device node.
    pub fn add_node(&mut self, path: PathBuf, node: Node) {
        self.nodes.insert(path, node);
    }

    /// Adds `path` as a hard link to the device node `target`. Returns false if the node does not exist. `inode` is an unused number.
    pub fn link_node(&mut self, target: &Path, path: PathBuf, inode: u64) -> bool {
        let Some(node) = self.nodes.get_mut(target) else { return false };
        if node.inode == 0 {
            node.inode = inode;
        }
        let node = node.clone();
        self.nodes.insert(path, node);
        true
    }

    /// Returns a number that is larger than [`Node::inode`] of every node.
    pub fn next_inode(&self) -> u64 {
        self.nodes.values().map(|node| node.inode).max().unwrap_or_default().saturating_add(1)
    }

    /// Adds an attribute.
    pub fn add_xattr(&mut self, path: &Path, name: Vec<u8>, value: Vec<u8>) {
        self.xattrs.entry(path.to_owned()).or_default().push((name, value));
    }

    /// Copies the attributes of `target` to its hard link `path`: later, only one of the two may be removed.
    pub fn link_xattrs(&mut self, target: &Path, path: PathBuf) {
        if let Some(xattrs) = self.xattrs.get(target).cloned() {
            self.xattrs.insert(path, xattrs);
        }
    }

    /// Returns its size in memory.
    pub(super) fn weight(&self) -> usize {
        let nodes = self.nodes.iter().map(|(path, node)| weight(path, &node.xattrs));
        nodes.chain(self.xattrs.iter().map(|(path, xattrs)| weight(path, xattrs))).sum()
    }

    /// Removes `path` itself.
    pub fn remove_one(&mut self, path: &Path) {
        self.nodes.remove(path);
        self.xattrs.remove(path);
    }

    /// Removes `path` and everything below it.
    pub fn remove(&mut self, path: &Path) {
        self.remove_one(path);
        self.remove_below(path);
    }

    /// Removes everything below `dir`.
    pub fn remove_below(&mut self, dir: &Path) {
        remove_below(&mut self.nodes, dir);
        remove_below(&mut self.xattrs, dir);
    }
}

/// Returns the memory that a node or the attributes of `path` need.
pub(super) fn weight(path: &Path, xattrs: &[(Vec<u8>, Vec<u8>)]) -> usize {
    let xattrs = xattrs.iter().map(|(name, value)| 64 + name.len() + value.len()).sum::<usize>();
    2 * (size_of::<Node>() + path.as_os_str().len()) + xattrs
}

/// Removes everything below `dir`. Paths are sorted by component, so it directly follows `dir`.
fn remove_below<T>(map: &mut BTreeMap<PathBuf, T>, dir: &Path) {
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
    /// True for a block device, false for a character device.
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
    /// Modification time.
    pub mtime: Time,
    /// Extended attributes.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub xattrs: Xattrs,
    /// Number shared by all hard links of a node; 0 for a node with one name.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub inode: u64,
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde gives a reference")]
fn is_zero(inode: &u64) -> bool {
    *inode == 0
}

/// The JSON form of [`Deferred`]. It has no paths as keys because JSON keys must be text.
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

impl From<Deferred> for Lists {
    fn from(deferred: Deferred) -> Self {
        let attributes = deferred.xattrs.into_iter().flat_map(|(path, xattrs)| {
            xattrs.into_iter().map(move |(name, value)| Attribute { path: path.clone(), name, value })
        });
        let nodes = deferred.nodes.into_iter().map(|(path, node)| Named { path, node });
        Self { nodes: nodes.collect(), xattrs: attributes.collect() }
    }
}

impl TryFrom<Lists> for Deferred {
    type Error = &'static str;

    /// Checks the values: users may have edited the file.
    fn try_from(lists: Lists) -> Result<Self, Self::Error> {
        let mut deferred = Self::default();
        for Named { path, node } in lists.nodes {
            if !is_plain(&path) || path.as_os_str().is_empty() {
                return Err("the path of a node does not lead into the tree");
            }
            if node.major > MAX_MAJOR
                || node.minor > MAX_MINOR
                || node.mode > 0o7777
                || node.mtime.nsec >= 1_000_000_000
            {
                return Err("a node has a number that is out of range");
            }
            if !node.xattrs.iter().all(|(name, _)| is_name(name)) {
                return Err("a node has an attribute with an invalid name");
            }
            deferred.add_node(path, node);
        }
        for Attribute { path, name, value } in lists.xattrs {
            if !is_plain(&path) {
                return Err("the path of an attribute does not lead into the tree");
            }
            if !is_name(&name) {
                return Err("an attribute has an invalid name");
            }
            deferred.add_xattr(&path, name, value);
        }
        Ok(deferred)
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

/// Writes a path as text if it is UTF-8, and as an array of bytes otherwise.
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

    fn read(nodes: &[String], xattrs: &str) -> Option<Deferred> {
        serde_json::from_str(&format!(r#"{{"nodes":[{}],"xattrs":[{xattrs}]}}"#, nodes.join(","))).ok()
    }

    #[test]
    fn values_that_no_archive_can_have_are_refused() {
        let good =
            read(&[node("d/x", ""), node("a", r#","xattrs":[[[97],[1]]]"#)], r#"{"path":"","name":[97],"value":[]}"#);
        let good = good.unwrap();
        assert_eq!(good.nodes().keys().map(|path| path.to_str().unwrap()).collect::<Vec<_>>(), ["a", "d/x"]);
        assert_eq!(serde_json::from_str::<Deferred>(&serde_json::to_string(&good).unwrap()).unwrap(), good);
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
    fn hard_links_are_removed_one_by_one() {
        let mut deferred =
            read(&[], r#"{"path":"d/a","name":[97],"value":[1]},{"path":"d/a","name":[98],"value":[]}"#).unwrap();
        let xattrs = deferred.xattrs()[Path::new("d/a")].clone();
        deferred.link_xattrs(Path::new("d/a"), "b".into());
        deferred.link_xattrs(Path::new("b"), "d/c".into());
        deferred.link_xattrs(Path::new("none"), "e".into());
        assert_eq!(deferred.xattrs().len(), 3);
        deferred.remove(Path::new("d"));
        assert_eq!(deferred.xattrs().iter().collect::<Vec<_>>(), [(&"b".into(), &xattrs)]);
        deferred.remove(Path::new("b"));
        assert!(deferred.is_empty());
    }

    #[test]
    fn only_what_is_below_a_directory_is_removed() {
        let paths = ["a", "a b", "a/b", "a/b/c", "a.b", "ab", "b"];
        let deferred = || read(&paths.map(|path| node(path, "")), "").unwrap();
        let left = |deferred: Deferred| {
            deferred.nodes().keys().map(|path| path.to_str().unwrap().to_owned()).collect::<Vec<_>>()
        };
        let mut below = deferred();
        below.remove_below(Path::new("a"));
        assert_eq!(left(below), ["a", "a b", "a.b", "ab", "b"]);
        let mut all = deferred();
        all.remove(Path::new("a/b"));
        assert_eq!(left(all), ["a", "a b", "a.b", "ab", "b"]);
        let mut root = deferred();
        root.remove_below(Path::new(""));
        assert!(root.is_empty());
    }
}
