//! What an archive holds and the kernel refused to make: kept beside the tree, written back when the tree is packed.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::entry::{Time, Xattrs};

/// Device nodes and attributes that are missing from a tree, by their path relative to the root.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    #[serde(with = "list::nodes")]
    nodes: BTreeMap<PathBuf, Node>,
    #[serde(with = "list::xattrs")]
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

/// Both as lists in a file: paths need not be text, and keys of JSON must be.
mod list {
    use std::borrow::Cow;
    use std::ffi::OsStr;
    use std::os::unix::ffi::{OsStrExt, OsStringExt};
    use std::path::{Path, PathBuf};

    use serde::{Deserialize, Serialize};

    /// A path as text where it is text, and as bytes where not.
    #[derive(Serialize, Deserialize)]
    #[serde(untagged)]
    enum Form<'a> {
        Text(Cow<'a, str>),
        Bytes(Cow<'a, [u8]>),
    }

    impl<'a> From<&'a Path> for Form<'a> {
        fn from(path: &'a Path) -> Self {
            match path.to_str() {
                Some(text) => Self::Text(text.into()),
                None => Self::Bytes(path.as_os_str().as_bytes().into()),
            }
        }
    }

    impl From<Form<'_>> for PathBuf {
        fn from(form: Form<'_>) -> Self {
            match form {
                Form::Text(text) => OsStr::new(&*text).into(),
                Form::Bytes(bytes) => std::ffi::OsString::from_vec(bytes.into_owned()).into(),
            }
        }
    }

    pub(super) mod nodes {
        use std::collections::BTreeMap;
        use std::path::PathBuf;

        use serde::{Deserialize, Deserializer, Serialize, Serializer};

        use super::super::Node;
        use super::Form;

        #[derive(Serialize, Deserialize)]
        struct Named<'a, N> {
            path: Form<'a>,
            #[serde(flatten)]
            node: N,
        }

        pub(in super::super) fn serialize<S: Serializer>(
            nodes: &BTreeMap<PathBuf, Node>,
            to: S,
        ) -> Result<S::Ok, S::Error> {
            to.collect_seq(nodes.iter().map(|(path, node)| Named { path: path.as_path().into(), node }))
        }

        pub(in super::super) fn deserialize<'de, D: Deserializer<'de>>(
            from: D,
        ) -> Result<BTreeMap<PathBuf, Node>, D::Error> {
            let all = Vec::<Named<'static, Node>>::deserialize(from)?;
            Ok(all.into_iter().map(|named| (named.path.into(), named.node)).collect())
        }
    }

    pub(super) mod xattrs {
        use std::borrow::Cow;
        use std::collections::BTreeMap;
        use std::path::PathBuf;

        use serde::{Deserialize, Deserializer, Serialize, Serializer};

        use super::super::Xattrs;
        use super::Form;

        #[derive(Serialize, Deserialize)]
        struct Attribute<'a> {
            path: Form<'a>,
            name: Cow<'a, [u8]>,
            value: Cow<'a, [u8]>,
        }

        pub(in super::super) fn serialize<S: Serializer>(
            xattrs: &BTreeMap<PathBuf, Xattrs>,
            to: S,
        ) -> Result<S::Ok, S::Error> {
            to.collect_seq(xattrs.iter().flat_map(|(path, xattrs)| {
                xattrs.iter().map(|(name, value)| Attribute {
                    path: path.as_path().into(),
                    name: name.into(),
                    value: value.into(),
                })
            }))
        }

        pub(in super::super) fn deserialize<'de, D: Deserializer<'de>>(
            from: D,
        ) -> Result<BTreeMap<PathBuf, Xattrs>, D::Error> {
            let mut all = BTreeMap::<PathBuf, Xattrs>::new();
            for Attribute { path, name, value } in Vec::<Attribute<'static>>::deserialize(from)? {
                all.entry(path.into()).or_default().push((name.into_owned(), value.into_owned()));
            }
            Ok(all)
        }
    }
}
