//! Locks between processes: flock(2) on a file that is never removed, released by the kernel however the holder ends.

use std::fs::File;
use std::path::Path;

use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;

use crate::base::error::{Context, Error, Result};

/// A held lock; dropping it lets go.
#[derive(Debug)]
pub struct Lock {
    _file: File,
}

/// How a lock is held.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// By one.
    Exclusive,
    /// By many readers.
    Shared,
}

/// Takes the lock on `path`, a file made when missing. When somebody else holds it, calls `waiting` once and waits.
///
/// # Errors
/// [`Kind::System`](crate::base::error::Kind::System) when the file cannot be opened or locked.
pub fn take(path: &Path, mode: Mode, waiting: impl FnOnce()) -> Result<Lock> {
    if let Some(lock) = try_take(path, mode)? {
        return Ok(lock);
    }
    waiting();
    let file = open(path)?;
    let operation = match mode {
        Mode::Exclusive => FlockOperation::LockExclusive,
        Mode::Shared => FlockOperation::LockShared,
    };
    loop {
        match flock(&file, operation) {
            Ok(()) => return Ok(Lock { _file: file }),
            Err(Errno::INTR) => {}
            Err(errno) => return Err(failed(path, errno)),
        }
    }
}

/// Takes the lock on `path`, or none when somebody else holds it.
///
/// # Errors
/// [`Kind::System`](crate::base::error::Kind::System) when the file cannot be opened or locked.
pub fn try_take(path: &Path, mode: Mode) -> Result<Option<Lock>> {
    let file = open(path)?;
    let operation = match mode {
        Mode::Exclusive => FlockOperation::NonBlockingLockExclusive,
        Mode::Shared => FlockOperation::NonBlockingLockShared,
    };
    match flock(&file, operation) {
        Ok(()) => Ok(Some(Lock { _file: file })),
        Err(Errno::WOULDBLOCK) => Ok(None),
        Err(errno) => Err(failed(path, errno)),
    }
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
        .map_err(|error| error.with_hint("every run writes to the store; QUERN_HOME moves it elsewhere"))
}

fn failed(path: &Path, errno: Errno) -> Error {
    Error::system(format!("locking {}", path.display())).with_source(errno)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_writer_or_many_readers() {
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
}
