//! Shared parts of the commands for archives: errors of standard output, and entries as lines of JSON.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufWriter, Write};

use serde::Serialize;

use crate::archive::unpack::entry::{Entry, NodeKind};
use crate::archive::unpack::refusal::{self, Refusal};
use crate::base::digest::hex;
use crate::base::error::{Error, Kind, Result};
use crate::base::text;
use crate::cli::standard;

/// Name of standard input in messages.
pub(super) const INPUT: &str = "standard input";

/// Returns the error of a failed write to standard output. A closed pipe ends the program like SIGPIPE.
pub(super) fn unwritten(error: io::Error) -> Error {
    let kind = if error.kind() == io::ErrorKind::BrokenPipe { Kind::Killed(13) } else { Kind::System };
    Error::new(kind, "writing to standard output").with_source(error)
}

/// Converts an error with [`unwritten`] if a closed pipe caused it.
pub(super) fn unread(error: Error) -> Error {
    let cause = std::error::Error::source(&error).and_then(|cause| cause.downcast_ref::<io::Error>());
    match cause.map(io::Error::kind) {
        Some(io::ErrorKind::BrokenPipe) => unwritten(io::ErrorKind::BrokenPipe.into()),
        _ => error,
    }
}

/// Writes lines to standard output.
pub(super) struct Lines {
    out: BufWriter<File>,
}

impl Lines {
    pub(super) fn new() -> Result<Self> {
        Ok(Self { out: BufWriter::with_capacity(64 << 10, standard::output()?) })
    }

    /// Writes one entry as an object.
    pub(super) fn entry(&mut self, entry: &Entry) -> Result<()> {
        self.object(&Line::of(entry))
    }

    /// Writes the last line: the refusal of the archive.
    pub(super) fn refused(&mut self, error: &Error) -> Result<()> {
        let Some(code) = refusal::code(error) else { return Ok(()) };
        let source = std::error::Error::source(error);
        let refusal = source.and_then(|cause| cause.downcast_ref::<Refusal>());
        self.object(&Refused {
            refused: code.as_str(),
            reason: refusal.map_or_else(
                || source.map_or_else(|| error.to_string(), ToString::to_string),
                |refusal| refusal.reason.text.to_string(),
            ),
            path: refusal.map(|refusal| Text::of(&refusal.name)),
            offset: refusal.map(|refusal| refusal.offset),
        })
    }

    /// Writes a line of text.
    pub(super) fn text(&mut self, line: &str) -> Result<()> {
        self.out.write_all(line.as_bytes()).map_err(unwritten)
    }

    pub(super) fn finish(mut self) -> Result<()> {
        self.out.flush().map_err(unwritten)
    }

    fn object(&mut self, object: &impl Serialize) -> Result<()> {
        let line = text::json(object).map_err(|error| unwritten(error.into()))?;
        self.out.write_all(line.as_bytes()).and_then(|()| self.out.write_all(b"\n")).map_err(unwritten)
    }
}

/// A name, written as text if it is UTF-8 and as bytes otherwise.
#[derive(Serialize)]
#[serde(untagged)]
enum Text<'a> {
    Text(&'a str),
    Bytes(&'a [u8]),
}

impl<'a> Text<'a> {
    fn of(bytes: &'a [u8]) -> Self {
        std::str::from_utf8(bytes).map_or(Self::Bytes(bytes), Self::Text)
    }
}

#[derive(Serialize)]
struct Refused<'a> {
    refused: &'a str,
    reason: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    path: Option<Text<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    offset: Option<u64>,
}

#[derive(Serialize)]
struct Line<'a> {
    path: Text<'a>,
    #[serde(rename = "type")]
    kind: &'static str,
    mode: u32,
    uid: u32,
    gid: u32,
    size: u64,
    mtime: i64,
    mtime_nsec: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    link: Option<Text<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    device: Option<(u32, u32)>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    xattrs: BTreeMap<String, String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    sparse: Option<Vec<(u64, u64)>>,
    offset: u64,
}

impl<'a> Line<'a> {
    fn of(entry: &'a Entry) -> Self {
        use std::os::unix::ffi::OsStrExt as _;
        let (kind, link, device) = match &entry.kind {
            NodeKind::File => ("file", None, None),
            NodeKind::Hardlink(target) => ("hardlink", Some(target.as_os_str().as_bytes()), None),
            NodeKind::Symlink(target) => ("symlink", Some(&target[..]), None),
            NodeKind::Char(major, minor) => ("char", None, Some((*major, *minor))),
            NodeKind::Block(major, minor) => ("block", None, Some((*major, *minor))),
            NodeKind::Dir => ("dir", None, None),
            NodeKind::Fifo => ("fifo", None, None),
        };
        let meta = &entry.meta;
        let sparse =
            |map: &Vec<crate::archive::unpack::sparse::Segment>| map.iter().map(|s| (s.offset, s.length)).collect();
        Self {
            path: Text::of(entry.path.as_os_str().as_bytes()),
            kind,
            mode: meta.mode,
            uid: meta.uid,
            gid: meta.gid,
            size: entry.size,
            mtime: meta.mtime.sec,
            mtime_nsec: meta.mtime.nsec,
            link: link.map(Text::of),
            device,
            xattrs: meta.xattrs.iter().map(|(name, value)| (name.escape_ascii().to_string(), hex(value))).collect(),
            sparse: entry.sparse.as_ref().map(sparse),
            offset: entry.offset,
        }
    }
}
