//! Writes a manifest of an archive with a digest of every file, in the format of mtree(5). NetBSD's `mtree` compares a tree with it,
//! and libarchive reads it. Each entry has a line of its own with its full path, in the order of the archive.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::io::{self, Write};
use std::path::PathBuf;

use super::tar::archived;
use super::walk::Item;
use crate::archive::unpack::entry::{Meta, NodeKind};
use crate::base::digest::Sha256;

/// Writes the lines of a manifest.
pub struct Manifest<'a> {
    out: &'a mut dyn Write,
    /// The type and the end of the line of each file with several names, by its first name. The format has no hard links, so each
    /// name repeats them.
    linked: HashMap<PathBuf, (&'static str, String)>,
}

impl<'a> Manifest<'a> {
    /// Begins a manifest and writes its first line to `out`.
    pub fn new(out: &'a mut dyn Write) -> io::Result<Self> {
        out.write_all(b"#mtree\n")?;
        Ok(Self { out, linked: HashMap::new() })
    }

    /// Adds an entry. `sha256` is the digest of a file's data.
    pub fn entry(&mut self, item: &Item, sha256: Option<Sha256>) -> io::Result<()> {
        let Meta { mode, uid, gid, mtime, .. } = &item.meta;
        let name = archived(&item.path, false);
        // The root is `.`, the only name without a slash.
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

/// Escapes a name as a word of the format: separators, comment and pattern characters and non-ASCII bytes become octal.
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
