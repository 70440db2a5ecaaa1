//! Locks between processes: flock(2). The kernel releases a lock when its holder ends, however it ends.

use std::os::fd::AsFd;

use rustix::fs::{FlockOperation, flock};
use rustix::io::{Errno, Result};

/// Mode in which a lock is held.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// One holder.
    Exclusive,
    /// Many readers.
    Shared,
}

/// Locks an open file or directory, and waits for other holders. Fails on a file system without locks.
pub(crate) fn lock(file: impl AsFd, mode: Mode) -> Result<()> {
    let operation = match mode {
        Mode::Exclusive => FlockOperation::LockExclusive,
        Mode::Shared => FlockOperation::LockShared,
    };
    uninterrupted(|| flock(&file, operation))
}

/// Locks an open file or directory unless another process holds the lock; returns whether it did. Fails on a file system
/// without locks.
pub(crate) fn try_lock(file: impl AsFd, mode: Mode) -> Result<bool> {
    let operation = match mode {
        Mode::Exclusive => FlockOperation::NonBlockingLockExclusive,
        Mode::Shared => FlockOperation::NonBlockingLockShared,
    };
    match uninterrupted(|| flock(&file, operation)) {
        Ok(()) => Ok(true),
        Err(Errno::WOULDBLOCK) => Ok(false),
        Err(error) => Err(error),
    }
}

/// Locks like [`lock`], but does nothing on a file system without locks. For the user's directories, which may be on any file
/// system; the store and the removal of leftovers need real locks.
pub(crate) fn lock_if_supported(file: impl AsFd, mode: Mode) -> Result<()> {
    tolerate_unsupported(lock(file, mode))
}

fn tolerate_unsupported(result: Result<()>) -> Result<()> {
    match result {
        Err(error) if is_unsupported(error) => Ok(()),
        result => result,
    }
}

/// Returns true for the errors of a file system without locks, such as NFS without its lock daemon.
pub(crate) fn is_unsupported(error: Errno) -> bool {
    matches!(error, Errno::NOLCK | Errno::OPNOTSUPP | Errno::NOSYS)
}

fn uninterrupted(mut call: impl FnMut() -> Result<()>) -> Result<()> {
    loop {
        match call() {
            Err(Errno::INTR) => {}
            result => return result,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_writer_or_many_readers_hold_a_lock() {
        let place = tempfile::tempdir().unwrap();
        let open = || fs_err::File::open(place.path()).unwrap().into_file();
        let (reader, other) = (open(), open());
        lock(&reader, Mode::Shared).unwrap();
        assert!(try_lock(&other, Mode::Shared).unwrap());
        assert!(!try_lock(open(), Mode::Exclusive).unwrap());
        drop((reader, other));
        let writer = open();
        lock_if_supported(&writer, Mode::Exclusive).unwrap();
        assert!(!try_lock(open(), Mode::Shared).unwrap());
    }

    #[test]
    fn a_signal_does_not_end_the_wait() {
        let mut results = [Err(Errno::INTR), Err(Errno::INTR), Ok(())].into_iter();
        assert_eq!(uninterrupted(|| results.next().unwrap()), Ok(()));
    }

    #[test]
    fn only_missing_support_for_locks_is_tolerated() {
        for error in [Errno::NOLCK, Errno::OPNOTSUPP, Errno::NOSYS] {
            assert_eq!(tolerate_unsupported(Err(error)), Ok(()));
        }
        for error in [Errno::WOULDBLOCK, Errno::BADF, Errno::IO] {
            assert_eq!(tolerate_unsupported(Err(error)), Err(error));
        }
    }
}
