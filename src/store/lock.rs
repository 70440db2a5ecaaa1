//! Locks of the store: on files that are never removed, so that every process locks the same inode.

use std::fs::File;
use std::path::Path;

use rustix::io::Errno;

use crate::base::error::{Context, Error, Result};
use crate::fs::lock::{self, is_unsupported};

pub use crate::fs::lock::Mode;

/// A held lock. Dropping it releases the lock.
#[derive(Debug)]
pub struct Lock {
    _file: File,
}

/// Locks the file `path`, which is created if it does not exist. Calls `waiting` once before it waits for another holder.
///
/// # Errors
/// [`Kind::System`](crate::base::error::Kind::System) when the file cannot be opened or locked.
pub fn take(path: &Path, mode: Mode, waiting: impl FnOnce()) -> Result<Lock> {
    let file = open(path)?;
    hold(&file, path, mode, waiting)?;
    Ok(Lock { _file: file })
}

/// Locks the file `path`; returns `None` when another process holds the lock.
///
/// # Errors
/// [`Kind::System`](crate::base::error::Kind::System) when the file cannot be opened or locked.
pub fn try_take(path: &Path, mode: Mode) -> Result<Option<Lock>> {
    let file = open(path)?;
    let locked = lock::try_lock(&file, mode).map_err(|errno| failed(path, errno))?;
    Ok(locked.then_some(Lock { _file: file }))
}

/// Locks the open file `file`, which messages call `path`. Calls `waiting` before it waits for another holder.
pub(super) fn hold(file: &File, path: &Path, mode: Mode, waiting: impl FnOnce()) -> Result<()> {
    let locked = lock::try_lock(file, mode).and_then(|locked| {
        if locked {
            return Ok(());
        }
        waiting();
        lock::lock(file, mode)
    });
    locked.map_err(|errno| failed(path, errno))
}

fn open(path: &Path) -> Result<File> {
    fs_err::OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .open(path)
        .map(fs_err::File::into_file)
        .system(|| format!("opening the lock {}", path.display()))
        .map_err(|error| error.with_hint("the store must be writable; set QUERN_HOME to use another directory"))
}

fn failed(path: &Path, errno: Errno) -> Error {
    let error = Error::system(format!("locking {}", path.display())).with_source(errno);
    match is_unsupported(errno) {
        true => error.with_hint("the store needs a file system with locks; set QUERN_HOME to use another directory"),
        false => error,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_writer_or_many_readers_hold_a_lock() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("lock");
        let reader = try_take(&path, Mode::Shared).unwrap().unwrap();
        let other = try_take(&path, Mode::Shared).unwrap().unwrap();
        assert!(try_take(&path, Mode::Exclusive).unwrap().is_none());
        drop((reader, other));
        let writer = take(&path, Mode::Exclusive, || panic!("nobody holds it")).unwrap();
        assert!(try_take(&path, Mode::Shared).unwrap().is_none());
        drop(writer);
        assert!(try_take(&path, Mode::Exclusive).unwrap().is_some());
    }

    #[test]
    fn a_store_without_locks_is_refused_with_a_hint() {
        let error = failed(Path::new("/x"), Errno::NOLCK);
        assert!(error.hint().unwrap().contains("QUERN_HOME"));
        assert_eq!(failed(Path::new("/x"), Errno::IO).hint(), None);
    }
}
