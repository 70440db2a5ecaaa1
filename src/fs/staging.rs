//! Staging directories: hidden directories beside the final names of results, so that a result appears by a rename.
//!
//! The process that owns one holds a lock on it. A directory without a lock was left by a killed process; the next run that creates
//! one beside it removes it.

use std::ffi::{OsStr, OsString};
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::{FileType, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;

use super::{is_named, lock, rootfs};
use crate::base::error::{Context as _, Error, Result};
use crate::base::progress::Progress;
use crate::os::process::Leftover;

/// Beginning of the directories' names; the process ID and a number follow.
const PREFIX: &str = ".quern-staging-";
const DIRECTORY: OFlags = OFlags::DIRECTORY.union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// A staging directory. It is removed with its content when it is dropped, or when a signal ends the program.
#[derive(Debug)]
pub(crate) struct Directory {
    above: OwnedFd,
    name: OsString,
    fd: OwnedFd,
    leftover: Leftover,
}

impl Directory {
    /// Creates a staging directory in the directory `above`, which messages call `path`, and removes those of dead processes there.
    ///
    /// # Errors
    /// [`Kind::System`](crate::base::error::Kind::System) when it cannot be created or locked.
    pub(crate) fn create(above: BorrowedFd<'_>, path: &Path, ui: &dyn Progress) -> Result<Self> {
        let making = || format!("creating a staging directory in {}", path.display());
        let above = above.try_clone_to_owned().system(making)?;
        remove_stale(&above, path, ui)?;
        for number in 0u64.. {
            let name = OsString::from(format!("{PREFIX}{}-{number}", std::process::id()));
            match rustix::fs::mkdirat(&above, &name, Mode::from_raw_mode(0o700)) {
                Err(Errno::EXIST) => continue,
                other => other.system(making)?,
            }
            let fd = match rustix::fs::openat(&above, &name, DIRECTORY, Mode::empty()) {
                // Another process removed it as a leftover before it was locked.
                Err(Errno::NOENT) => continue,
                fd => fd.system(making)?,
            };
            lock::lock_if_supported(&fd, lock::Mode::Exclusive).system(making)?;
            if is_named(&above, &name, &fd) {
                let (place, gone) = (above.try_clone().system(making)?, name.clone());
                let leftover = Leftover::new(move || is_removed(&place, &gone));
                return Ok(Self { above, name, fd, leftover });
            }
        }
        Err(Errno::EXIST).system(making)
    }

    pub(crate) fn name(&self) -> &Path {
        Path::new(&self.name)
    }

    pub(crate) fn fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    /// Runs `work`, such as a rename to a final name. No signal removes the directory before it returns.
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

/// Returns the directory that will hold `tree`, and the name of the tree in it. An empty directory may have that name.
///
/// # Errors
/// [`Kind::Usage`](crate::base::error::Kind::Usage) if something else has that name, or if that is a mount point.
pub(crate) fn tree_place(tree: &Path) -> Result<(rootfs::Rootfs, &Path)> {
    let Some(name) = tree.file_name().map(Path::new) else {
        return Err(Error::usage(format!("{}: the tree needs a name", tree.display())));
    };
    let above = rootfs::Rootfs::open(super::directory_of(tree))?;
    let Some(existing) = above.stat(name)? else { return Ok((above, name)) };
    if FileType::from_raw_mode(existing.st_mode) != FileType::Directory || !above.read_dir(name)?.is_empty() {
        return Err(Error::usage(format!("{} is not an empty directory", tree.display())));
    }
    let resolve = ResolveFlags::NO_XDEV | ResolveFlags::NO_SYMLINKS | ResolveFlags::BENEATH;
    match rootfs::openat2(above.fd(), name, OFlags::PATH | OFlags::DIRECTORY, Mode::empty(), resolve) {
        Err(Errno::XDEV) => Err(Error::usage(format!(
            "{} is a mount point, which cannot be replaced by a complete tree",
            tree.display()
        ))
        .with_hint(format!("name a directory in it that does not exist: {}", tree.join("tree").display()))),
        other => other.system(|| above.doing("opening", name)).map(|_| (above, name)),
    }
}

/// Removes a directory. Returns false when its content changed meanwhile, so that it must be tried again.
fn is_removed(above: &OwnedFd, name: &OsStr) -> bool {
    !matches!(rootfs::remove_at(above.as_fd(), name), Err(Errno::NOTEMPTY | Errno::EXIST | Errno::NOENT))
}

/// Removes the staging directories whose locks nobody holds.
fn remove_stale(above: &OwnedFd, path: &Path, ui: &dyn Progress) -> Result<()> {
    let entries = rootfs::list(above.as_fd()).system(|| format!("reading {}", path.display()))?;
    for (name, kind) in entries {
        if kind != FileType::Directory || !is_ours(&name) {
            continue;
        }
        let Ok(fd) = rustix::fs::openat(above, &name, DIRECTORY, Mode::empty()) else { continue };
        // Without locks nobody can tell a leftover from a directory in use.
        if lock::try_lock(&fd, lock::Mode::Exclusive) != Ok(true) || !is_named(above, &name, &fd) {
            continue;
        }
        let shown = path.join(&name);
        match rootfs::remove_at(above.as_fd(), &name) {
            Ok(_) => ui.note(&format!("removed {}, left by a killed run", shown.display())),
            Err(error) => ui.warn(&format!("removing {}, left by a killed run: {error}", shown.display())),
        }
    }
    Ok(())
}

/// Returns true for a name that this program gives to staging directories.
fn is_ours(name: &OsStr) -> bool {
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let rest = name.to_str().and_then(|name| name.strip_prefix(PREFIX)?.split_once('-'));
    rest.is_some_and(|(process, number)| digits(process) && digits(number))
}
