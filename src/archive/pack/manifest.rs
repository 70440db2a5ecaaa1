//! What is in an archive, with a digest of every file, in the format of mtree(5): NetBSD's `mtree` compares a tree with it, and
//! libarchive reads it. A line per entry in the archive's order, full paths, nothing carried over from one line to the next.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::io::{self, Write};
use std::path::PathBuf;

use super::tar::archived;
use super::walk::Item;
use crate::archive::unpack::entry::{Meta, NodeKind};

/// Writes the lines of a manifest.
pub struct Manifest<'a> {
    out: &'a mut dyn Write,
    /// Type, and what its line ends with, of what has several names, by the first: the format knows no hard links, so that each name
    /// says all.
    linked: HashMap<PathBuf, (&'static str, String)>,
}

impl<'a> Manifest<'a> {
    /// A manifest that is written to `out`, which gets its first line.
    pub fn new(out: &'a mut dyn Write) -> io::Result<Self> {
        out.write_all(b"#mtree\n")?;
        Ok(Self { out, linked: HashMap::new() })
    }

    /// Adds an entry; `sha256` is that of a file's data, in hex.
    pub fn entry(&mut self, item: &Item, sha256: Option<String>) -> io::Result<()> {
        let Meta { mode, uid, gid, mtime, .. } = &item.meta;
        let name = archived(&item.path, false);
        // The root is `.`: the one name without a slash, and so the one that the others are below.
        let mut line = escaped(name.strip_suffix(b"/").unwrap_or(&name));
        let (kind, tail) = match &item.kind {
            NodeKind::File => {
                ("file", sha256.map(|sha256| format!(" size={} sha256digest={sha256}", item.size)).unwrap_or_default())
            }
            NodeKind::Symlink(target) => ("link", format!(" link={}", escaped(target))),
            NodeKind::Char(major, minor) => ("char", format!(" device=native,{major},{minor}")),
            NodeKind::Block(major, minor) => ("block", format!(" device=native,{major},{minor}")),
            NodeKind::Dir => ("dir", String::new()),
            NodeKind::Fifo => ("fifo", String::new()),
            NodeKind::Hardlink(first) => match item.linked {
                true => self.linked.get(first).cloned(),
                false => self.linked.remove(first),
            }
            .unwrap_or(("file", String::new())),
        };
        let _ =
            write!(line, " type={kind} mode={mode:04o} uid={uid} gid={gid} time={}.{:09}{tail}", mtime.sec, mtime.nsec);
        if item.linked && !matches!(item.kind, NodeKind::Hardlink(_)) {
            self.linked.insert(item.path.clone(), (kind, tail));
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
