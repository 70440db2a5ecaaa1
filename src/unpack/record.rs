//! What an archive holds and the kernel refused to make: kept beside the tree, written back when the tree is packed.

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

    /// Forgets what it has of `path`, and of what is below it.
    pub fn forget(&mut self, path: &Path) {
        self.nodes.retain(|node| !node.path.starts_with(path));
        self.xattrs.retain(|attribute| !attribute.path.starts_with(path));
    }

    /// Forgets what it has below `dir`.
    pub fn forget_below(&mut self, dir: &Path) {
        let below = |path: &Path| path != dir && path.starts_with(dir);
        self.nodes.retain(|node| !below(&node.path));
        self.xattrs.retain(|attribute| !below(&attribute.path));
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
