//! The directories from the root of a tree to the current directory. A directory gets its owner, mode, ACLs and time when it is left,
//! so that memory depends on the deepest path and not on the number of directories. A directory that is entered again later, or that
//! has no entry, keeps its properties.

use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags, Stat, Timespec, Timestamps, UTIME_OMIT, XattrFlags};
use rustix::io::Errno;

use super::{Lacks, Placer, bad_parent};
use crate::archive::unpack::acl;
use crate::archive::unpack::entry::Meta;
use crate::archive::unpack::failure::{Call as _, Failure, Syscall};
use crate::base::refusal::{Code, Reason};
use crate::fs::rootfs::{self, MAX_XATTR, OPEN_LEVELS};

/// Flags to open a directory.
const DIRECTORY: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC);

/// A directory on the current path.
pub(super) struct Level {
    /// Path in the archive.
    path: PathBuf,
    /// Path without symlinks, once it is known.
    real: Option<PathBuf>,
    /// Opened on demand; closed while many levels are below it.
    fd: Option<OwnedFd>,
    /// Device and inode of a directory that may have been reached through a symlink.
    identity: Option<(u64, u64)>,
    /// Set once it is known: true if new files here belong to root. A setgid directory or the file system may prevent that.
    gives_root: Option<bool>,
    then: Then,
}

impl Level {
    /// Returns its size in memory.
    fn weight(&self) -> usize {
        let lists = match &self.then {
            Then::Become(meta, _) => meta.xattrs.iter().map(|(name, value)| name.len() + value.len()).sum(),
            Then::Remain(_, list) => list.as_ref().map_or(0, Vec::len),
        };
        size_of::<Self>() + self.path.as_os_str().len() + lists
    }
}

/// The properties that a directory gets when it is left.
enum Then {
    /// Those of its entry, and the ones that it lacks.
    Become(Meta, Lacks),
    /// Those it had before: its times, and its default ACL, which new files must not inherit.
    Remain(Timestamps, Option<Vec<u8>>),
}

impl Level {
    fn new(path: PathBuf, then: Then) -> Self {
        Self { path, real: None, fd: None, identity: None, gives_root: None, then }
    }
}

impl Placer<'_> {
    /// Makes `path` the current directory. Creates missing directories and leaves those that are not on the path.
    pub(super) fn enter(&mut self, path: &Path) -> Result<(), Failure> {
        while self.levels.last().is_some_and(|level| !is_at_or_below(path, &level.path)) {
            self.leave()?;
        }
        if self.levels.last().is_some_and(|level| level.path.as_os_str() == path.as_os_str()) {
            return Ok(());
        }
        let opened = match self.root.openat2(path, DIRECTORY, Mode::empty()) {
            Err(Errno::NOTDIR | Errno::LOOP) => return Err(bad_parent().into()),
            Err(Errno::NOENT) => None,
            other => Some(other.call(Syscall::Openat2)?),
        };
        let fd = match (opened, path.parent(), path.file_name()) {
            (Some(fd), ..) => fd,
            (None, Some(above), Some(name)) => {
                self.enter(above)?;
                let above = self.take_top()?;
                self.parents = self.parents.checked_sub(1).ok_or_else(|| self.limits.too_many())?;
                match rustix::fs::mkdirat(&above, name, Mode::from_raw_mode(0o700)) {
                    // A dangling symlink: nothing says what its target should be.
                    Err(Errno::EXIST) => return Err(bad_parent().into()),
                    other => other.call(Syscall::Mkdirat)?,
                }
                let fd = rustix::fs::openat(&above, name, DIRECTORY | OFlags::NOFOLLOW, Mode::empty())
                    .call(Syscall::Openat)?;
                // Set after creation, so that the umask does not apply.
                rustix::fs::fchmod(&fd, Mode::from_raw_mode(0o755)).call(Syscall::Fchmod)?;
                self.put_top(above);
                fd
            }
            (None, ..) => return Err(Failure::Call(Syscall::Openat2, Errno::NOENT)),
        };
        let stat = rustix::fs::fstat(&fd).call(Syscall::Fstat)?;
        let then = remaining(&fd, &stat)?;
        let identity = Some((stat.st_dev, stat.st_ino));
        self.add(Level { fd: Some(fd), identity, ..Level::new(path.to_owned(), then) })
    }

    /// Enters the directory `path` in the current one. It was just created, or it `existed`.
    pub(super) fn push(&mut self, path: PathBuf, mut meta: Meta, existed: bool) -> Result<(), Failure> {
        // ACLs are set last because new files would inherit them. Other attributes may be large and are set now.
        let (now, later) = std::mem::take(&mut meta.xattrs).into_iter().partition(|(name, _)| !is_acl(name));
        meta.xattrs = later;
        let lacks = Lacks { owner: existed || self.lacks_owner(&meta, None)?, mode: true };
        self.add(Level::new(path.clone(), Then::Become(meta, lacks)))?;
        if existed || !now.is_empty() {
            let fd = self.take_top()?;
            if existed {
                self.strip(&fd)?;
            }
            self.set_xattrs(&path, &now, |key, value| rustix::fs::fsetxattr(&fd, key, value, XattrFlags::empty()))?;
            self.put_top(fd);
        }
        Ok(())
    }

    /// Applies an entry for the root of the tree.
    pub(super) fn become_again(&mut self, meta: Meta) -> Result<(), Failure> {
        self.deferred.remove_one(Path::new(""));
        if let Some(level) = self.levels.pop() {
            self.memory.release(level.weight());
        }
        self.push(PathBuf::new(), meta, true)
    }

    /// Returns true if a file that was just created in the current directory may have another owner than `meta` says. Most files
    /// belong to root and are created so, which saves a call. In a user namespace other numbers may stand for several owners.
    /// `file` is the descriptor of a regular file.
    pub(super) fn lacks_owner(&mut self, meta: &Meta, file: Option<&OwnedFd>) -> Result<bool, Failure> {
        if (meta.uid, meta.gid) != (0, 0) {
            return Ok(true);
        }
        let Some(top) = self.levels.last_mut() else { return Ok(true) };
        if let (None, Some(file)) = (top.gives_root, file) {
            let stat = rustix::fs::fstat(file).call(Syscall::Fstat)?;
            top.gives_root = Some((stat.st_uid, stat.st_gid) == (0, 0));
        }
        Ok(top.gives_root != Some(true))
    }

    /// Takes out the descriptor of the current directory. [`Placer::put_top`] puts it back.
    pub(super) fn take_top(&mut self) -> Result<OwnedFd, Failure> {
        let Some((top, rest)) = self.levels.split_last_mut() else {
            return Err(Failure::Call(Syscall::Openat2, Errno::NOENT));
        };
        if let Some(fd) = top.fd.take() {
            return Ok(fd);
        }
        let replaced =
            || Reason::new(Code::DirectoryReplaced, "a later entry replaced its directory or a symlink on its path");
        let above = rest.last().and_then(|level| level.fd.as_ref().map(|fd| (&level.path, fd)));
        let flags = DIRECTORY | OFlags::NOFOLLOW;
        let (call, opened) = match (above, top.path.file_name()) {
            _ if top.identity.is_some() => (Syscall::Openat2, self.root.openat2(&top.path, DIRECTORY, Mode::empty())),
            (Some((above, fd)), Some(name)) if top.path.parent() == Some(above) => {
                (Syscall::Openat, rustix::fs::openat(fd, name, flags, Mode::empty()))
            }
            _ => (Syscall::Openat2, self.root.openat2(&top.path, flags, Mode::empty())),
        };
        let fd = match opened {
            Err(Errno::NOTDIR | Errno::LOOP | Errno::NOENT) => return Err(replaced().into()),
            other => other.call(call)?,
        };
        if let Some(identity) = top.identity {
            let stat = rustix::fs::fstat(&fd).call(Syscall::Fstat)?;
            if (stat.st_dev, stat.st_ino) != identity {
                return Err(replaced().into());
            }
        }
        Ok(fd)
    }

    /// Returns the path of the current directory without symlinks. Refuses a path through a deferred node.
    pub(super) fn real_top(&mut self) -> Result<&Path, Failure> {
        let Some(top) = self.levels.last_mut() else { return Ok(Path::new("")) };
        let real = match top.real.take() {
            Some(real) => real,
            None => {
                let real = self.root.real(&top.path).call(Syscall::Openat2)?;
                if real.ancestors().any(|above| self.deferred.nodes().contains_key(above)) {
                    return Err(bad_parent().into());
                }
                real
            }
        };
        Ok(top.real.insert(real))
    }

    pub(super) fn put_top(&mut self, fd: OwnedFd) {
        if let Some(top) = self.levels.last_mut() {
            top.fd = Some(fd);
        }
    }

    fn add(&mut self, level: Level) -> Result<(), Failure> {
        self.memory.add(level.weight(), "the directories on one path")?;
        self.levels.push(level);
        if let Some(far) = self.levels.len().checked_sub(OPEN_LEVELS + 1) {
            self.levels[far].fd = None;
        }
        Ok(())
    }

    /// Leaves the current directory.
    pub(super) fn leave(&mut self) -> Result<(), Failure> {
        let fd = self.take_top();
        let Some(level) = self.levels.pop() else { return Ok(()) };
        self.memory.release(level.weight());
        let Level { path, then, .. } = level;
        let left = || {
            let fd = fd?;
            match then {
                Then::Become(meta, lacks) => {
                    if lacks.owner {
                        // The same directory may be on the path under another name.
                        self.levels.iter_mut().for_each(|level| level.gives_root = None);
                    }
                    self.finish_fd(&fd, &path, &meta, lacks)
                }
                Then::Remain(times, list) => remain(&fd, &times, list.as_deref()),
            }
        };
        left().map_err(|failure| Failure::Dir(path, Box::new(failure)))
    }

    /// Leaves the current directory after an error. Restores the properties of an existing directory as far as possible.
    pub(super) fn give_back(&mut self) {
        let fd = self.take_top();
        if let Some(Level { then: Then::Remain(times, list), .. }) = self.levels.pop() {
            drop(fd.and_then(|fd| remain(&fd, &times, list.as_deref())));
        }
    }

    /// Removes the attributes of an existing directory, before it gets those of its entry.
    fn strip(&mut self, fd: &OwnedFd) -> Result<(), Failure> {
        let names = rootfs::xattr_names(|to| rustix::fs::flistxattr(fd, to)).call(Syscall::Flistxattr)?;
        for name in names {
            match rustix::fs::fremovexattr(fd, &name[..]) {
                Ok(()) | Err(Errno::NODATA) => {}
                Err(errno @ (Errno::PERM | Errno::OPNOTSUPP | Errno::INVAL)) => self.warn_once(&format!(
                    "{}: the attribute {} of a directory cannot be removed: {errno}",
                    self.root.path().display(),
                    name.escape_ascii()
                )),
                Err(errno) => return Err(Failure::Call(Syscall::Fremovexattr, errno)),
            }
        }
        Ok(())
    }
}

/// Works like [`Path::starts_with`] for normalised paths. It runs for every entry, and comparing components is slow.
fn is_at_or_below(path: &Path, dir: &Path) -> bool {
    let rest = path.as_os_str().as_bytes().strip_prefix(dir.as_os_str().as_bytes());
    rest.is_some_and(|rest| rest.is_empty() || rest[0] == b'/' || dir.as_os_str().is_empty())
}

fn is_acl(name: &[u8]) -> bool {
    name == acl::ACCESS.as_bytes() || name == acl::DEFAULT.as_bytes()
}

/// Restores the properties of a directory.
fn remain(fd: &OwnedFd, times: &Timestamps, list: Option<&[u8]>) -> Result<(), Failure> {
    if let Some(list) = list {
        rustix::fs::fsetxattr(fd, acl::DEFAULT, list, XattrFlags::empty()).call(Syscall::Fsetxattr)?;
    }
    rustix::fs::futimens(fd, times).call(Syscall::Futimens)
}

/// Reads the properties of a directory that new files change or inherit. Removes its default ACL.
fn remaining(fd: &OwnedFd, stat: &Stat) -> Result<Then, Failure> {
    let times = Timestamps {
        last_access: Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT },
        last_modification: Timespec { tv_sec: stat.st_mtime, tv_nsec: stat.st_mtime_nsec as _ },
    };
    let list = match rustix::fs::fgetxattr(fd.as_fd(), acl::DEFAULT, &mut [0u8; 0][..]) {
        Err(Errno::NODATA | Errno::OPNOTSUPP) => None,
        Err(errno) => return Err(Failure::Call(Syscall::Fgetxattr, errno)),
        Ok(_) => {
            let mut list = vec![0; MAX_XATTR];
            let length = rustix::fs::fgetxattr(fd, acl::DEFAULT, &mut list[..]).call(Syscall::Fgetxattr)?;
            list.truncate(length);
            rustix::fs::fremovexattr(fd, acl::DEFAULT).call(Syscall::Fremovexattr)?;
            Some(list)
        }
    };
    Ok(Then::Remain(times, list))
}
