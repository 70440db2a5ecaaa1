//! Paths of files and directories that a recipe names.

use std::io;
use std::path::{Component, Path, PathBuf};

use super::{Checker, Word};
use crate::base::text::{escaped, quoted};
use crate::recipe::diagnostic::Problem;
use crate::recipe::merge::reason;
use crate::recipe::words;

/// The kind of file that a path must lead to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Must {
    /// An existing regular file.
    File,
    /// An existing directory.
    Directory,
    /// An existing regular file or directory.
    Exist,
    /// A directory that need not exist yet.
    BeMade,
}

impl Checker<'_> {
    /// Turns a word into an absolute path. A relative path is relative to the directory of the text that contains it.
    pub(super) fn path(&mut self, word: &Word, must: Must) -> Option<PathBuf> {
        let title = |what: &str| format!("{what}: {}", quoted(&word.text));
        if word.text.is_empty() {
            self.texts.problem(&word.at, "a path must not be empty", Problem::new("empty"));
            return None;
        }
        if let Err(problem) = words::printable(&word.text) {
            self.texts.problem(&word.at, title("not a valid path"), problem);
            return None;
        }
        let dir = self.texts.get(word.at.text).dir.clone();
        let Some(relative) = self.without_tilde(&word.text) else {
            let problem = Problem::new("this home directory is unknown").help("write the full path, or ./~…");
            self.texts.problem(&word.at, title("not a valid path"), problem);
            return None;
        };
        let path = match absolute(&dir, &relative) {
            Ok(path) => path,
            Err(error) => {
                self.texts.problem(&word.at, title("no such path"), Problem::new(reason(&error)));
                return None;
            }
        };
        let shown = escaped(&path.to_string_lossy());
        let problem = match (must, fs_err::metadata(&path)) {
            (Must::File, Ok(found)) if found.is_file() => return Some(path),
            (Must::Directory | Must::BeMade, Ok(found)) if found.is_dir() => return Some(path),
            (Must::Exist, Ok(found)) if found.is_dir() || found.is_file() => return Some(path),
            (Must::Exist, Ok(_)) => Problem::new("not a regular file or directory"),
            (Must::BeMade, Err(error)) if error.kind() == io::ErrorKind::NotFound => return Some(path),
            (Must::File, Ok(_)) => Problem::new("not a regular file"),
            (_, Ok(_)) => Problem::new("not a directory"),
            (_, Err(error)) => Problem::new(reason(&error)),
        };
        let what = match must {
            Must::File => "cannot use the file",
            Must::Directory | Must::BeMade => "cannot use the directory",
            Must::Exist => "cannot use",
        };
        self.texts.problem(&word.at, format!("{what} {shown}"), problem);
        None
    }

    /// Replaces `~` at the beginning of a path. Returns `None` for the home directory of another user, or an unknown one.
    pub(super) fn without_tilde(&self, text: &str) -> Option<PathBuf> {
        let Some(rest) = text.strip_prefix('~') else { return Some(PathBuf::from(text)) };
        let home = self.home.as_ref()?;
        match rest {
            "" => Some(home.clone()),
            _ if rest.starts_with('/') => Some(home.join(rest.trim_start_matches('/'))),
            _ => None,
        }
    }
}

/// Joins `path` to `dir`, without `.` and `..`. The directory before a `..` must exist, because it may be a symlink.
pub(super) fn absolute(dir: &Path, path: &Path) -> io::Result<PathBuf> {
    let mut result = PathBuf::new();
    for component in dir.join(path).components() {
        match component {
            Component::CurDir => {}
            Component::ParentDir => {
                result = result.canonicalize()?;
                result.pop();
            }
            other => result.push(other),
        }
    }
    Ok(result)
}
