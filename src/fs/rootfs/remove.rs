//! Removes a tree with bounded memory and descriptors at any depth. Follows no symlink and enters no mount.

use std::ffi::{OsStr, OsString};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::{AtFlags, FileType, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;

struct Level {
    /// Name in the directory above.
    name: OsString,
    /// Descriptor during the work on a subdirectory. Closed while many levels are below.
    fd: Option<OwnedFd>,
    /// Device and inode, to verify the directory that `..` leads to.
    identity: (u64, u64),
    /// Subdirectories that are not removed yet.
    rest: Vec<OsString>,
}

/// Removes `name` in `parent` with its content. Returns false if it does not exist.
pub(crate) fn remove_at(parent: BorrowedFd<'_>, name: &OsStr) -> rustix::io::Result<bool> {
    let (mut fd, mut here) = match rustix::fs::unlinkat(parent, name, AtFlags::empty()) {
        Ok(()) => return Ok(true),
        Err(Errno::NOENT) => return Ok(false),
        // Linux returns EISDIR for a directory. POSIX allows EPERM, which an immutable file gives too.
        Err(error @ (Errno::ISDIR | Errno::PERM)) => match enter(parent, name) {
            Err(Errno::NOTDIR | Errno::LOOP) => return Err(error),
            entered => entered?,
        },
        Err(error) => return Err(error),
    };
    let mut above: Vec<Level> = Vec::new();
    loop {
        if let Some(child) = here.rest.pop() {
            let (child_fd, child) = enter(fd.as_fd(), &child)?;
            here.fd = Some(std::mem::replace(&mut fd, child_fd));
            above.push(std::mem::replace(&mut here, child));
            if let Some(far) = above.len().checked_sub(super::OPEN_LEVELS + 1) {
                above[far].fd = None;
            }
            continue;
        }
        let Some(mut up) = above.pop() else { break };
        let up_fd = match up.fd.take() {
            Some(fd) => fd,
            None => ascend(fd.as_fd(), up.identity)?,
        };
        rustix::fs::unlinkat(&up_fd, &here.name, AtFlags::REMOVEDIR)?;
        (fd, here) = (up_fd, up);
    }
    rustix::fs::unlinkat(parent, name, AtFlags::REMOVEDIR)?;
    Ok(true)
}

/// Opens a directory, removes the files in it, and collects its subdirectories.
fn enter(parent: BorrowedFd<'_>, name: &OsStr) -> rustix::io::Result<(OwnedFd, Level)> {
    let fd = match open(parent, name) {
        // A directory of another user without permissions. Root of the namespace may change them.
        Err(Errno::ACCESS) => {
            super::at::chmod(parent, name, 0o700)?;
            open(parent, name)?
        }
        other => other?,
    };
    let stat = rustix::fs::fstat(&fd)?;
    let mut rest = Vec::new();
    let mut children = super::list_unsorted(fd.as_fd())?;
    // Sorted by inode: sorted by name, a large directory takes ten times as long on ext4.
    children.sort_unstable_by_key(|(inode, ..)| *inode);
    for (_, child, kind) in children {
        match kind {
            FileType::Directory => rest.push(child),
            _ => rustix::fs::unlinkat(&fd, &child, AtFlags::empty())?,
        }
    }
    Ok((fd, Level { name: name.to_owned(), fd: None, identity: (stat.st_dev, stat.st_ino), rest }))
}

fn open(parent: BorrowedFd<'_>, name: &OsStr) -> rustix::io::Result<OwnedFd> {
    let resolve = ResolveFlags::NO_XDEV | ResolveFlags::NO_SYMLINKS | ResolveFlags::BENEATH;
    super::openat2(
        parent,
        Path::new(name),
        OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW,
        Mode::empty(),
        resolve,
    )
}

/// Opens the parent of `fd` and verifies its identity.
fn ascend(fd: BorrowedFd<'_>, identity: (u64, u64)) -> rustix::io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let above = rustix::fs::openat(fd, "..", flags, Mode::empty())?;
    let stat = rustix::fs::fstat(&above)?;
    if (stat.st_dev, stat.st_ino) == identity { Ok(above) } else { Err(Errno::XDEV) }
}
