//! What is in an archive, with a digest of every file, in the format of mtree(5): NetBSD's `mtree` compares a tree with it, and
//! libarchive reads it. A line per entry in the archive's order, full paths, nothing carried over from one line to the next.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::{self, Write};
use std::path::PathBuf;

use super::tar::archived;
use super::walk::Item;
use crate::unpack::entry::{Meta, NodeKind};

/// Writes the lines of a manifest.
pub struct Manifest<'a> {
    out: &'a mut dyn Write,
    /// Size and SHA-256 of files with several names, by the first: the format knows no hard links, so that each name says all.
    linked: BTreeMap<PathBuf, (u64, String)>,
}

impl<'a> Manifest<'a> {
    /// A manifest that is written to `out`, which gets its first line.
    pub fn new(out: &'a mut dyn Write) -> io::Result<Self> {
        out.write_all(b"#mtree\n")?;
        Ok(Self { out, linked: BTreeMap::new() })
    }

    /// Adds an entry; `sha256` is that of a file's data, in hex.
    pub fn entry(&mut self, item: &Item, sha256: Option<String>) -> io::Result<()> {
        let Meta { mode, uid, gid, mtime, .. } = &item.meta;
        let name = archived(&item.path, false);
        // The root is `.`: the one name without a slash, and so the one that the others are below.
        let mut line = escaped(name.strip_suffix(b"/").unwrap_or(&name));
        let kind = match item.kind {
            NodeKind::File | NodeKind::Hardlink(_) => "file",
            NodeKind::Symlink(_) => "link",
            NodeKind::Char(..) => "char",
            NodeKind::Block(..) => "block",
            NodeKind::Dir => "dir",
            NodeKind::Fifo => "fifo",
        };
        let _ = write!(line, " type={kind} mode={mode:04o} uid={uid} gid={gid} time={}.{:09}", mtime.sec, mtime.nsec);
        let data = match &item.kind {
            NodeKind::File => sha256.map(|sha256| (item.size, sha256)),
            NodeKind::Hardlink(first) => self.linked.get(first).cloned(),
            _ => None,
        };
        if let Some((size, sha256)) = data {
            let _ = write!(line, " size={size} sha256digest={sha256}");
            if item.linked {
                self.linked.insert(item.path.clone(), (size, sha256));
            }
        }
        match &item.kind {
            NodeKind::Symlink(target) => {
                let _ = write!(line, " link={}", escaped(target));
            }
            NodeKind::Char(major, minor) | NodeKind::Block(major, minor) => {
                let _ = write!(line, " device=native,{major},{minor}");
            }
            _ => {}
        }
        line.push('\n');
        self.out.write_all(line.as_bytes())
    }
}

impl std::fmt::Debug for Manifest<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Manifest").finish_non_exhaustive()
    }
}

/// A name as a word of the format: what ends a word, begins a comment, is a pattern, or is not ASCII is written in octal.
fn escaped(name: &[u8]) -> String {
    let mut text = String::with_capacity(name.len());
    for byte in name {
        match byte {
            b'#' | b'=' | b'\\' | b'*' | b'?' | b'[' | b']' => {
                let _ = write!(text, "\\{byte:03o}");
            }
            b'!'..=b'~' => text.push(char::from(*byte)),
            _ => {
                let _ = write!(text, "\\{byte:03o}");
            }
        }
    }
    text
}
