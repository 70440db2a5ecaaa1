//! Hidden directories in which results come into being, beside their final names, so that giving them these is a rename.
//!
//! The owner of one holds a lock on it for as long as it lives. One without a lock was left by a process that was killed: whoever
//! makes the next beside it removes it.

use std::ffi::{OsStr, OsString};
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::{AtFlags, FileType, FlockOperation, Mode, OFlags};
use rustix::io::Errno;

use crate::base::error::{Context as _, Result};
use crate::base::progress::Progress;
use crate::fs::rootfs;
use crate::os::process::Leftover;

/// What their names begin with; the process and a number follow.
const PREFIX: &str = ".quern-staging-";
const DIRECTORY: OFlags = OFlags::DIRECTORY.union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// A hidden directory, removed with all that is still in it when dropped, or when a signal ends the program.
#[derive(Debug)]
pub(crate) struct Directory {
    above: OwnedFd,
    name: OsString,
    fd: OwnedFd,
    leftover: Leftover,
}

impl Directory {
    /// Makes one in the directory `above`, which messages call `path`, and removes those of dead processes there.
    ///
    /// # Errors
    /// [`Kind::System`](crate::base::error::Kind::System) when it cannot be made or locked.
    pub(crate) fn create(above: BorrowedFd<'_>, path: &Path, ui: &dyn Progress) -> Result<Self> {
        let making = || format!("making a staging directory in {}", path.display());
        let above = above.try_clone_to_owned().system(making)?;
        remove_stale(&above, path, ui)?;
        for number in 0u64.. {
            let name = OsString::from(format!("{PREFIX}{}-{number}", std::process::id()));
            match rustix::fs::mkdirat(&above, &name, Mode::from_raw_mode(0o700)) {
                Err(Errno::EXIST) => continue,
                other => other.system(making)?,
            }
            let fd = match rustix::fs::openat(&above, &name, DIRECTORY, Mode::empty()) {
                // Another process took it for a dead one's before it was locked.
                Err(Errno::NOENT) => continue,
                fd => fd.system(making)?,
            };
            lock(&fd, FlockOperation::LockExclusive).system(making)?;
            if same(&above, &name, &fd) {
                let (place, gone) = (above.try_clone().system(making)?, name.clone());
                let leftover = Leftover::new(move || is_removed(&place, &gone));
                return Ok(Self { above, name, fd, leftover });
            }
        }
        Err(Errno::EXIST).system(making)
    }

    /// Its name.
    pub(crate) fn name(&self) -> &Path {
        Path::new(&self.name)
    }

    /// Its descriptor.
    pub(crate) fn fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    /// Does `work`, such as giving something in it its final name, wholly or not at all: no signal removes the directory meanwhile.
    pub(crate) fn undisturbed<T>(&self, work: impl FnOnce() -> T) -> T {
        self.leftover.undisturbed(work)
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        // A failure leaves a directory without a lock, which the next run removes.
        let _ = rootfs::remove_at(self.above.as_fd(), &self.name);
    }
}

/// Removes a directory; false while somebody puts something into it, or takes something away.
fn is_removed(above: &OwnedFd, name: &OsStr) -> bool {
    !matches!(rootfs::remove_at(above.as_fd(), name), Err(Errno::NOTEMPTY | Errno::EXIST | Errno::NOENT))
}

/// Removes the directories that nobody holds.
fn remove_stale(above: &OwnedFd, path: &Path, ui: &dyn Progress) -> Result<()> {
    let entries = rootfs::list(above.as_fd()).system(|| format!("reading {}", path.display()))?;
    for (name, kind) in entries {
        if kind != FileType::Directory || !is_ours(&name) {
            continue;
        }
        let Ok(fd) = rustix::fs::openat(above, &name, DIRECTORY, Mode::empty()) else { continue };
        if rustix::fs::flock(&fd, FlockOperation::NonBlockingLockExclusive).is_err() || !same(above, &name, &fd) {
            continue;
        }
        let shown = path.join(&name);
        match rootfs::remove_at(above.as_fd(), &name) {
            Ok(_) => ui.note(&format!("removed {}, left by a run that was killed", shown.display())),
            Err(error) => ui.warn(&format!("removing {}, left by a run that was killed: {error}", shown.display())),
        }
    }
    Ok(())
}

/// Whether this program made a directory of this name: all others are somebody's.
fn is_ours(name: &OsStr) -> bool {
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let rest = name.to_str().and_then(|name| name.strip_prefix(PREFIX)?.split_once('-'));
    rest.is_some_and(|(process, number)| digits(process) && digits(number))
}

/// Takes a lock; a file system without locks has none to wait for.
pub(crate) fn lock(fd: &OwnedFd, operation: FlockOperation) -> rustix::io::Result<()> {
    loop {
        match rustix::fs::flock(fd, operation) {
            Err(Errno::INTR) => {}
            Err(Errno::NOLCK | Errno::OPNOTSUPP | Errno::NOSYS) => return Ok(()),
            result => return result,
        }
    }
}

/// Whether `name` still is the directory `fd`.
fn same(above: &OwnedFd, name: &OsString, fd: &OwnedFd) -> bool {
    match (rustix::fs::statat(above, name, AtFlags::SYMLINK_NOFOLLOW), rustix::fs::fstat(fd)) {
        (Ok(named), Ok(open)) => (named.st_dev, named.st_ino) == (open.st_dev, open.st_ino),
        _ => false,
    }
}
