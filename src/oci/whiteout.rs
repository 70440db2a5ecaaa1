//! Whiteouts: entries by which a layer removes files of the layers below. Pure.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use crate::archive::unpack::entry::{Entry, NodeKind};
use crate::base::refusal::{Code, Reason};

const PREFIX: &[u8] = b".wh.";
const OPAQUE: &[u8] = b".wh..wh..opq";

/// A removal from the layers below.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Whiteout {
    /// Removes this path.
    Remove(PathBuf),
    /// Removes everything in this directory.
    Opaque(PathBuf),
}

/// Returns the whiteout that an entry is, or `None` for any other entry. A malformed whiteout is refused: programs do not agree on
/// what it removes.
pub fn of(entry: &Entry) -> Result<Option<Whiteout>, Reason> {
    let bad = |text: &'static str| Err(Reason::new(Code::BadWhiteout, text));
    if is_below_whiteout(&entry.path) {
        return bad("it is below a whiteout");
    }
    if let NodeKind::Hardlink(target) = &entry.kind
        && (is_below_whiteout(target) || name(target).starts_with(PREFIX))
    {
        return bad("it is a link to a whiteout");
    }
    let last = name(&entry.path);
    let Some(rest) = last.strip_prefix(PREFIX) else { return Ok(None) };
    let above = entry.path.parent().unwrap_or(Path::new(""));
    let whiteout = match rest {
        _ if last == OPAQUE => Whiteout::Opaque(above.to_owned()),
        b"" | b"." | b".." => return bad("it is a whiteout without a name"),
        _ if rest.starts_with(PREFIX) => return bad("it is a whiteout of a whiteout"),
        _ => Whiteout::Remove(above.join(OsStr::from_bytes(rest))),
    };
    if entry.kind != NodeKind::File || entry.size != 0 {
        return bad("it is a whiteout and not an empty file");
    }
    Ok(Some(whiteout))
}

fn name(path: &Path) -> &[u8] {
    path.file_name().map_or(&[], |name| name.as_bytes())
}

fn is_below_whiteout(path: &Path) -> bool {
    path.parent().is_some_and(|above| above.iter().any(|part| part.as_bytes().starts_with(PREFIX)))
}
