//! Marks by which a layer removes what is below it. Pure.

use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use crate::archive::unpack::entry::{Entry, NodeKind};
use crate::base::refusal::{Code, Reason};

const PREFIX: &[u8] = b".wh.";
const OPAQUE: &[u8] = b".wh..wh..opq";

/// What an entry of a layer means.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Mark {
    /// Something to be made.
    Entry,
    /// This path of the layers below is removed.
    Remove(PathBuf),
    /// Everything that the layers below have in this directory is removed.
    Opaque(PathBuf),
}

/// Tells marks from entries. What is nearly a mark is refused: readers do not agree on what it removes.
pub fn mark(entry: &Entry) -> Result<Mark, Reason> {
    let bad = |text: &'static str| Err(Reason::new(Code::BadWhiteout, text));
    if marked_above(&entry.path) {
        return bad("it is below a whiteout");
    }
    if let NodeKind::Hardlink(target) = &entry.kind
        && (marked_above(target) || name(target).starts_with(PREFIX))
    {
        return bad("it is a link to a whiteout");
    }
    let last = name(&entry.path);
    let Some(rest) = last.strip_prefix(PREFIX) else { return Ok(Mark::Entry) };
    let above = entry.path.parent().unwrap_or(Path::new(""));
    let mark = match rest {
        _ if last == OPAQUE => Mark::Opaque(above.to_owned()),
        b"" | b"." | b".." => return bad("it is a whiteout of nothing"),
        _ if rest.starts_with(PREFIX) => return bad("it is a whiteout of a whiteout"),
        _ => Mark::Remove(above.join(std::ffi::OsStr::from_bytes(rest))),
    };
    if entry.kind != NodeKind::File || entry.size != 0 {
        return bad("it is a whiteout and no empty file");
    }
    Ok(mark)
}

fn name(path: &Path) -> &[u8] {
    path.file_name().map_or(&[], |name| name.as_bytes())
}

fn marked_above(path: &Path) -> bool {
    path.parent().is_some_and(|above| above.iter().any(|part| part.as_bytes().starts_with(PREFIX)))
}
