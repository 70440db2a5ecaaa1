//! The content of an overlay's upper directory, as a sorted list: what a command changed in the tree below.
//!
//! The list has everything that a later command or an archive can see, and nothing that depends on the machine: no inode facts, no sizes
//! of directories, no attributes of overlayfs except opaque marks. A time that the command caused is the word `new`. So two runs of a
//! deterministic command have the same digest, with root and without.

mod read;
#[cfg(test)]
mod tests;
mod text;

use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use sha2::Digest as _;

pub use self::read::read;
use crate::archive::unpack::entry::{Time, Xattrs};
use crate::base::digest::Sha256;
use crate::base::error::{Context, Result};

/// First bytes of what is hashed: the version of the encoding.
const FORMAT: &[u8] = b"quern changes 1\n";

/// The entries of an upper directory, sorted by path: a directory before its content, names by their bytes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Changes {
    entries: Vec<Entry>,
}

/// One name in an upper directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Relative to the root of the overlay; empty for the root itself.
    pub path: PathBuf,
    /// Its meaning for the tree below.
    pub change: Change,
}

/// The meaning of a name in an upper directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// The path was removed (a whiteout).
    Removed,
    /// Another name of an earlier entry, which is the first name of its inode.
    Hardlink(PathBuf),
    /// The path is, or has become, this.
    Node(Node),
}

/// A file, directory or other node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Node {
    /// Type and content.
    pub kind: Kind,
    /// Permission bits, including setuid, setgid and sticky.
    pub mode: u32,
    /// Owner in the user namespace of the reader.
    pub uid: u32,
    /// Group in the user namespace of the reader.
    pub gid: u32,
    /// Modification time; `None` if the command caused it.
    pub time: Option<Time>,
    /// Extended attributes sorted by name, without those of the host and of overlayfs.
    pub xattrs: Xattrs,
}

/// The type and the content of a node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kind {
    /// A directory.
    Dir {
        /// It hides the directory of the same name below.
        opaque: bool,
    },
    /// A regular file.
    File {
        /// Bytes of data.
        size: u64,
        /// Digest of the data.
        sha256: Sha256,
        /// The data differ between runs of the same command and do not count in [`Changes::digest`].
        varies: bool,
    },
    /// A symlink with this target.
    Symlink(Vec<u8>),
    /// A character device: major and minor number.
    Char(u32, u32),
    /// A block device: major and minor number.
    Block(u32, u32),
    /// A named pipe.
    Fifo,
}

impl Changes {
    /// All entries, sorted.
    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// The bytes of data in files.
    pub fn bytes(&self) -> u64 {
        let sizes = self.entries.iter().map(|entry| match &entry.change {
            Change::Node(Node { kind: Kind::File { size, .. }, .. }) => *size,
            _ => 0,
        });
        sizes.sum()
    }

    /// The digest of the result: equal for equal lists, apart from the data of files that vary.
    pub fn digest(&self) -> Sha256 {
        let mut hash = sha2::Sha256::new_with_prefix(FORMAT);
        let mut line = String::new();
        for entry in &self.entries {
            line.clear();
            text::line(&mut line, entry, false);
            hash.update(line.as_bytes());
        }
        <[u8; 32]>::from(hash.finalize()).into()
    }

    /// Returns true if these are the changes of the list `listed`. A time that a command caused, and whether the data of a file vary, do
    /// not matter.
    pub fn agrees(&self, listed: &Self) -> bool {
        let like = |found: &Entry, listed: &Entry| {
            let mut found = found.clone();
            if let (Change::Node(found), Change::Node(listed)) = (&mut found.change, &listed.change) {
                found.time = listed.time.is_some().then_some(found.time).flatten();
                if let (Kind::File { varies, .. }, Kind::File { varies: listed, .. }) = (&mut found.kind, &listed.kind)
                {
                    *varies = *listed;
                }
            }
            found == *listed
        };
        self.entries.len() == listed.entries.len()
            && self.entries.iter().zip(&listed.entries).all(|(found, listed)| like(found, listed))
    }

    /// Writes the list, compressed with Zstandard, for [`Changes::parse`].
    ///
    /// # Errors
    /// [`Kind::System`](crate::base::error::Kind::System) if it cannot be written.
    pub fn write(&self, out: &mut impl Write) -> Result<()> {
        text::write(self, out).system(|| "writing a list of changes")
    }

    /// Reads a list that [`Changes::write`] wrote. Paths stay inside the tree, are sorted, and lie in directories of the list.
    ///
    /// # Errors
    /// [`Kind::System`](crate::base::error::Kind::System) for anything else.
    pub fn parse(bytes: &[u8]) -> Result<Self> {
        text::parse(bytes)
    }

    /// Reads a list that is not compressed.
    ///
    /// # Errors
    /// Those of [`Changes::parse`].
    #[cfg(any(test, fuzzing))]
    pub(crate) fn parse_plain(bytes: &[u8]) -> Result<Self> {
        text::parse_plain(bytes)
    }

    /// Returns the list as it is before it is compressed.
    #[cfg(any(test, fuzzing))]
    pub(crate) fn plain(&self) -> Vec<u8> {
        let mut plain = String::new();
        self.entries.iter().for_each(|entry| text::line(&mut plain, entry, true));
        plain.into_bytes()
    }
}

/// Returns the present time as the file system of `directory` gives it to files, which may be up to a second older than the system
/// clock's: a file that changes from now on has this modification time or a later one.
///
/// # Errors
/// [`Kind::System`](crate::base::error::Kind::System) if a temporary file cannot be created there.
pub fn now(directory: &Path) -> Result<SystemTime> {
    let doing = || format!("asking for the time of {}", directory.display());
    let stat = tempfile::tempfile_in(directory).and_then(|file| Ok(rustix::fs::fstat(file)?)).system(doing)?;
    let since = Duration::new(u64::try_from(stat.st_mtime).unwrap_or(0), stat.st_mtime_nsec as u32);
    Ok(UNIX_EPOCH + since)
}
