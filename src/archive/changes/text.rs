//! The list of changes as text: a line for each entry, words separated by blanks. Bytes that are not printable ASCII, backslashes and
//! equals signs in a word become `\` and two hex digits, so that every list has exactly one text.
//!
//! ```text
//! PATH removed
//! PATH hardlink TARGET
//! PATH TYPE MODE UID GID TIME [DATA…] [ATTRIBUTE=VALUE…]
//! ```
//! The root is `.`. TIME is `SECONDS.NANOSECONDS` or `new`. DATA are the target of a `symlink`, the numbers of a `char` or `block`, and
//! size and SHA-256 of a `file`.

use std::ffi::OsString;
use std::fmt::Write as _;
use std::io::{self, Read as _, Write};
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::path::{Component, Path, PathBuf};

use super::{Change, Changes, Entry, Kind, Node};
use crate::archive::unpack::entry::{Time, Xattrs};
use crate::base::digest::Sha256;
use crate::base::error::{Context, Error, Result};

/// Longest list in bytes, about five million entries.
const MAX: u64 = 1 << 30;

/// Level of compression. Higher ones take longer than reading the files.
const LEVEL: i32 = 3;

/// Appends the line of an entry. Without `exact`, it is the line for the digest, which leaves out data that vary.
pub(super) fn line(out: &mut String, entry: &Entry, exact: bool) {
    match entry.path.as_os_str().as_bytes() {
        b"" => out.push('.'),
        path => escape(out, path),
    }
    match &entry.change {
        Change::Removed => out.push_str(" removed"),
        Change::Hardlink(first) => {
            out.push_str(" hardlink ");
            escape(out, first.as_os_str().as_bytes());
        }
        Change::Node(node) => self::node(out, node, exact),
    }
    out.push('\n');
}

fn node(out: &mut String, node: &Node, exact: bool) {
    let name = match &node.kind {
        Kind::Dir { opaque: false } => "dir",
        Kind::Dir { opaque: true } => "opaque",
        Kind::File { varies: false, .. } => "file",
        Kind::File { varies: true, .. } => "varying",
        Kind::Symlink(_) => "symlink",
        Kind::Char(..) => "char",
        Kind::Block(..) => "block",
        Kind::Fifo => "fifo",
    };
    let _ = write!(out, " {name} {:04o} {} {} ", node.mode, node.uid, node.gid);
    let _ = match node.time {
        Some(Time { sec, nsec }) => write!(out, "{sec}.{nsec:09}"),
        None => write!(out, "new"),
    };
    match &node.kind {
        Kind::File { varies: true, .. } if !exact => {}
        Kind::File { size, sha256, .. } => _ = write!(out, " {size} {sha256}"),
        Kind::Symlink(target) => {
            out.push(' ');
            escape(out, target);
        }
        Kind::Char(major, minor) | Kind::Block(major, minor) => _ = write!(out, " {major} {minor}"),
        Kind::Dir { .. } | Kind::Fifo => {}
    }
    for (name, value) in &node.xattrs {
        out.push(' ');
        escape(out, name);
        out.push('=');
        escape(out, value);
    }
}

fn escape(out: &mut String, bytes: &[u8]) {
    for byte in bytes {
        match byte {
            b'\\' | b'=' => _ = write!(out, "\\{byte:02x}"),
            b'!'..=b'~' => out.push(char::from(*byte)),
            _ => _ = write!(out, "\\{byte:02x}"),
        }
    }
}

fn unescape(word: &str) -> Option<Vec<u8>> {
    let mut bytes = Vec::with_capacity(word.len());
    let mut parts = word.split('\\');
    bytes.extend_from_slice(parts.next()?.as_bytes());
    for part in parts {
        bytes.push(u8::from_str_radix(part.get(..2)?, 16).ok()?);
        bytes.extend_from_slice(&part.as_bytes()[2..]);
    }
    Some(bytes)
}

/// Writes the compressed text.
pub(super) fn write(changes: &Changes, out: &mut impl Write) -> io::Result<()> {
    let mut encoder = zstd::Encoder::new(out, LEVEL)?;
    let mut text = String::new();
    let mut length = 0;
    for entry in &changes.entries {
        text.clear();
        line(&mut text, entry, true);
        length += text.len() as u64;
        if length > MAX {
            return Err(io::Error::other(format!("it is longer than {MAX} bytes")));
        }
        encoder.write_all(text.as_bytes())?;
    }
    encoder.finish().map(drop)
}

/// Reads a compressed text.
pub(super) fn parse(bytes: &[u8]) -> Result<Changes> {
    let mut text = Vec::new();
    let decoded = zstd::Decoder::new(bytes).and_then(|decoder| decoder.take(MAX + 1).read_to_end(&mut text));
    decoded.system(|| "reading a list of changes")?;
    if text.len() as u64 > MAX {
        return Err(Error::system(format!("reading a list of changes: it is longer than {MAX} bytes")));
    }
    parse_plain(&text)
}

pub(super) fn parse_plain(bytes: &[u8]) -> Result<Changes> {
    let mut list = List::default();
    let mut again = String::new();
    for (number, bytes) in bytes.split_inclusive(|byte| *byte == b'\n').enumerate() {
        let entry = str::from_utf8(bytes).ok().and_then(|text| entry(text.strip_suffix('\n')?));
        // A number or an escape in another form would be another text for the same list.
        let entry = entry.filter(|entry| {
            again.clear();
            line(&mut again, entry, true);
            again.as_bytes() == bytes
        });
        if !entry.is_some_and(|entry| list.add(entry)) {
            return Err(Error::system(format!("reading a list of changes: line {} is damaged", number + 1)));
        }
    }
    if list.entries.is_empty() {
        return Err(Error::system("reading a list of changes: it is empty"));
    }
    Ok(Changes { entries: list.entries })
}

/// Parses one line without its newline.
fn entry(line: &str) -> Option<Entry> {
    let mut words = line.split(' ');
    let path = match words.next()? {
        "." => PathBuf::new(),
        word => path(word)?,
    };
    let number = |words: &mut std::str::Split<'_, char>| words.next()?.parse::<u32>().ok();
    let change = match words.next()? {
        "removed" => Change::Removed,
        "hardlink" => Change::Hardlink(self::path(words.next()?)?),
        name => {
            let mode = u32::from_str_radix(words.next()?, 8).ok().filter(|mode| *mode <= 0o7777)?;
            let (uid, gid) = (number(&mut words)?, number(&mut words)?);
            let time = time(words.next()?)?;
            let kind = match name {
                "dir" | "opaque" => Kind::Dir { opaque: name == "opaque" },
                "file" | "varying" => Kind::File {
                    size: words.next()?.parse().ok()?,
                    sha256: Sha256::parse(words.next()?)?,
                    varies: name == "varying",
                },
                "symlink" => Kind::Symlink(unescape(words.next()?)?),
                "char" => Kind::Char(number(&mut words)?, number(&mut words)?),
                "block" => Kind::Block(number(&mut words)?, number(&mut words)?),
                "fifo" => Kind::Fifo,
                _ => return None,
            };
            let xattrs = words.by_ref().map(attribute).collect::<Option<Xattrs>>()?;
            if matches!(kind, Kind::Char(0, 0)) || !xattrs.is_sorted_by(|(one, _), (next, _)| one < next) {
                return None;
            }
            Change::Node(Node { kind, mode, uid, gid, time, xattrs })
        }
    };
    words.next().is_none().then_some(Entry { path, change })
}

fn attribute(word: &str) -> Option<(Vec<u8>, Vec<u8>)> {
    let (name, value) = word.split_once('=')?;
    Some((unescape(name)?, unescape(value)?))
}

fn time(word: &str) -> Option<Option<Time>> {
    if word == "new" {
        return Some(None);
    }
    let (sec, nsec) = word.split_once('.')?;
    let nsec = nsec.parse().ok().filter(|nsec| *nsec < 1_000_000_000)?;
    Some(Some(Time { sec: sec.parse().ok()?, nsec }))
}

/// Parses a path, which must stay inside the tree.
fn path(word: &str) -> Option<PathBuf> {
    let path = PathBuf::from(OsString::from_vec(unescape(word)?));
    let inside = path.components().all(|part| matches!(part, Component::Normal(_)));
    let whole = path.components().collect::<PathBuf>().as_os_str() == path.as_os_str();
    (inside && whole && !path.as_os_str().is_empty()).then_some(path)
}

/// A list that is being read.
#[derive(Default)]
struct List {
    entries: Vec<Entry>,
    /// The directories that lead to the last entry.
    above: Vec<PathBuf>,
}

impl List {
    /// Adds an entry. Returns false if it is not in the order of the walk, not in a directory of the list, or a hard link to something
    /// else than an earlier file.
    fn add(&mut self, entry: Entry) -> bool {
        if self.entries.last().is_some_and(|last| last.path >= entry.path) {
            return false;
        }
        while self.above.last().is_some_and(|above| !entry.path.starts_with(above)) {
            self.above.pop();
        }
        let is_dir = matches!(&entry.change, Change::Node(Node { kind: Kind::Dir { .. }, .. }));
        let there = match entry.path.parent() {
            Some(parent) => self.above.last().is_some_and(|above| above == parent),
            None => is_dir,
        };
        let linked = match &entry.change {
            Change::Hardlink(first) => self.is_file(first),
            _ => true,
        };
        if is_dir {
            self.above.push(entry.path.clone());
        }
        self.entries.push(entry);
        there && linked
    }

    fn is_file(&self, path: &Path) -> bool {
        let found = self.entries.binary_search_by(|entry| entry.path.as_path().cmp(path));
        found.is_ok_and(|at| match &self.entries[at].change {
            Change::Node(node) => !matches!(node.kind, Kind::Dir { .. }),
            _ => false,
        })
    }
}
