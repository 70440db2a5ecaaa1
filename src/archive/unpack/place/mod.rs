//! Creates the files of entries. Each file is created anew, by name relative to the descriptor of its directory; an existing file or
//! symlink is never written through. The order is owner, mode (chown clears setuid), attributes (chown clears capabilities), times.
//! Properties that the file was created with are not set again.

mod fill;
mod levels;

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, FileType, Mode, OFlags, Timespec, Timestamps, UTIME_OMIT, XattrFlags};
use rustix::io::Errno;

use self::fill::fill;
use self::levels::Level;
use super::acl;
use super::deferred::{Deferred, Node, weight};
use super::entry::{Entry, Meta, NodeKind, Time, Xattrs};
use super::failure::{Call, Failure, Syscall};
use super::limits::{Limits, MemoryBudget};
use crate::base::progress::Progress;
use crate::base::refusal::{Code, Reason};
use crate::fs::rootfs::{self, Rootfs, at};
use crate::os::probe;

/// The content of [`Deferred`] in messages.
const DEFERRED: &str = "device nodes and attributes";

/// Names of dropped attributes that are counted separately.
const MAX_DROPPED: usize = 100;

/// Properties that a file still lacks after its creation.
#[derive(Clone, Copy)]
struct Lacks {
    owner: bool,
    mode: bool,
}

/// The content of the tree before unpacking.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Existing {
    /// The tree is empty: an existing file comes from the same archive, and the entry is refused as a duplicate.
    Nothing,
    /// Files of the user: an entry replaces a file, but not a directory that is not empty.
    Files,
    /// Lower layers of an image: an entry replaces anything.
    Layers,
}

/// The data of the current entry.
pub(super) trait Data {
    /// Returns the next bytes, or none at the end.
    fn data(&mut self) -> std::io::Result<&[u8]>;
    /// Marks `count` bytes as used.
    fn consume(&mut self, count: usize);
}

/// Places entries in a tree.
pub(super) struct Placer<'a> {
    root: &'a Rootfs,
    ui: &'a dyn Progress,
    existing: Existing,
    /// Permission bits that new files do not get.
    umask: u32,
    /// The directories from the root to the directory of the last entry.
    levels: Vec<Level>,
    deferred: Deferred,
    /// Next inode number for a deferred node with several names.
    inode: u64,
    memory: MemoryBudget,
    /// Number of directories that may still be created without an entry.
    parents: u64,
    limits: &'a Limits,
    warned: BTreeSet<String>,
    /// Number of dropped attributes by name.
    dropped: BTreeMap<String, u64>,
}

impl<'a> Placer<'a> {
    /// Starts to place entries. `deferred` comes from the layers below.
    pub(super) fn new(
        root: &'a Rootfs,
        existing: Existing,
        deferred: Deferred,
        limits: &'a Limits,
        ui: &'a dyn Progress,
    ) -> Result<Self, Reason> {
        let mut memory = MemoryBudget::new(limits);
        memory.add(deferred.weight(), DEFERRED)?;
        Ok(Self {
            root,
            ui,
            existing,
            umask: probe::umask(),
            levels: Vec::new(),
            inode: deferred.next_inode(),
            deferred,
            memory,
            parents: limits.entries,
            limits,
            warned: BTreeSet::new(),
            dropped: BTreeMap::new(),
        })
    }

    /// Places one entry with the content `data`.
    pub(super) fn place(&mut self, entry: Entry, data: &mut dyn Data) -> Result<(), Failure> {
        entry.dropped.iter().for_each(|what| self.drop_one((*what).to_owned()));
        let Some(name) = entry.path.file_name() else {
            self.enter(Path::new(""))?;
            return self.become_again(entry.meta);
        };
        self.enter(entry.path.parent().unwrap_or(Path::new("")))?;
        if !self.deferred.is_empty() {
            self.look_up(name, &entry.kind)?;
        }
        // Taken out so that the descriptor can be used together with the rest of `self`.
        let parent = self.take_top()?;
        let placed = self.place_at(parent.as_fd(), name, &entry, data);
        self.put_top(parent);
        let existed = placed?;
        if entry.kind == NodeKind::Dir { self.push(entry.path, entry.meta, existed) } else { Ok(()) }
    }

    /// Treats a deferred node at the place of an entry like an existing file: it makes the entry a duplicate, or it is replaced.
    fn look_up(&mut self, name: &OsStr, kind: &NodeKind) -> Result<(), Failure> {
        let path = self.real_top()?.join(name);
        let fresh = self.existing == Existing::Nothing;
        match kind {
            NodeKind::Hardlink(_) if fresh => {}
            _ if fresh && self.deferred.nodes().contains_key(&path) => return Err(duplicate().into()),
            NodeKind::Dir => self.deferred.remove_one(&path),
            _ if fresh => {}
            _ => self.deferred.remove(&path),
        }
        Ok(())
    }

    /// Resolves the symlinks in `path`, except in its last component.
    fn real(&self, path: &Path) -> Result<PathBuf, Failure> {
        let above = self.root.real(path.parent().unwrap_or(Path::new(""))).call(Syscall::Openat2)?;
        Ok(path.file_name().map_or_else(PathBuf::new, |name| above.join(name)))
    }

    /// Returns the number and the names of the attributes that were not restored, as text. `None` if there are none.
    fn dropped(&self) -> Option<String> {
        let names: Vec<String> = self.dropped.iter().map(|(name, count)| format!("{name} ({count})")).collect();
        let count: u64 = self.dropped.values().sum();
        let noun = if count == 1 { "attribute" } else { "attributes" };
        (count > 0).then(|| format!("{count} {noun}: {}", names.join(", ")))
    }

    /// Completes the directories and returns what the kernel refused to create.
    pub(super) fn finish(mut self, archive: &str) -> Result<Deferred, Failure> {
        while !self.levels.is_empty() {
            self.leave()?;
        }
        if let Some(dropped) = self.dropped() {
            self.ui.warn(&format!("{archive}: not restored: {dropped}"));
        }
        Ok(std::mem::take(&mut self.deferred))
    }

    /// Places one entry in the directory `at`. Returns true if it is a directory that existed before.
    fn place_at(
        &mut self,
        at: BorrowedFd<'_>,
        name: &OsStr,
        entry: &Entry,
        data: &mut dyn Data,
    ) -> Result<bool, Failure> {
        let meta = &entry.meta;
        let placed = match &entry.kind {
            NodeKind::File => {
                let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                // Most files can be created with their mode, which saves a call. No directory on the path passes on a default ACL.
                let made = meta.mode & !0o777 == 0 && meta.mode & self.umask == 0;
                let mode = Mode::from_raw_mode(if made { meta.mode } else { 0o600 });
                let fd = self.make(at, name, Syscall::Openat, || rustix::fs::openat(at, name, flags, mode))?;
                fill(&fd, entry, data)?;
                let lacks = Lacks { owner: self.lacks_owner(meta, Some(&fd))?, mode: !made };
                self.finish_fd(&fd, &entry.path, meta, lacks)?;
                // Some file systems report a full disk only on close.
                nix::unistd::close(fd)
                    .map_err(|errno| Failure::Call(Syscall::Close, Errno::from_raw_os_error(errno as i32)))
            }
            NodeKind::Dir => {
                let mode = Mode::from_raw_mode(0o700);
                match rustix::fs::mkdirat(at, name, mode) {
                    Err(Errno::EXIST) if is_dir(at, name)? => return Ok(true),
                    Err(Errno::EXIST) => self.make(at, name, Syscall::Mkdirat, || rustix::fs::mkdirat(at, name, mode)),
                    other => other.call(Syscall::Mkdirat),
                }
            }
            NodeKind::Symlink(target) => {
                self.make(at, name, Syscall::Symlinkat, || rustix::fs::symlinkat(&target[..], at, name))?;
                self.chown_at(at, name, meta)?;
                self.set_xattrs(&entry.path, &meta.xattrs, |key, value| at::set_xattr(at, name, key, value))?;
                rustix::fs::utimensat(at, name, &times(meta.mtime), AtFlags::SYMLINK_NOFOLLOW).call(Syscall::Utimensat)
            }
            NodeKind::Hardlink(target) => self.hardlink(at, name, entry, target),
            NodeKind::Fifo => {
                let mode = Mode::from_raw_mode(0o600);
                self.make(at, name, Syscall::Mknodat, || rustix::fs::mknodat(at, name, FileType::Fifo, mode, 0))?;
                self.finish_node(at, name, &entry.path, meta)
            }
            NodeKind::Char(major, minor) => self.device(at, name, entry, false, (*major, *minor)),
            NodeKind::Block(major, minor) => self.device(at, name, entry, true, (*major, *minor)),
        };
        placed.map(|()| false)
    }

    fn device(
        &mut self,
        at: BorrowedFd<'_>,
        name: &OsStr,
        entry: &Entry,
        block: bool,
        (major, minor): (u32, u32),
    ) -> Result<(), Failure> {
        let kind = if block { FileType::BlockDevice } else { FileType::CharacterDevice };
        let (mode, dev) = (Mode::from_raw_mode(0o600), rustix::fs::makedev(major, minor));
        // To overlayfs the character device 0:0 is a whiteout: it is always deferred.
        let made = if !block && (major, minor) == (0, 0) {
            self.vacate(at, name).and(Err(Failure::Call(Syscall::Mknodat, Errno::PERM)))
        } else {
            self.make(at, name, Syscall::Mknodat, || rustix::fs::mknodat(at, name, kind, mode, dev))
        };
        match made {
            Ok(()) => self.finish_node(at, name, &entry.path, &entry.meta),
            Err(Failure::Call(_, Errno::PERM)) => {
                let Meta { mode, uid, gid, mtime, xattrs } = entry.meta.clone();
                self.memory.add(weight(&entry.path, &xattrs), DEFERRED)?;
                let node = Node { block, major, minor, mode, uid, gid, mtime, xattrs, inode: 0 };
                self.deferred.add_node(self.real(&entry.path)?, node);
                Ok(())
            }
            Err(failure) => Err(failure),
        }
    }

    fn hardlink(&mut self, at: BorrowedFd<'_>, name: &OsStr, entry: &Entry, target: &Path) -> Result<(), Failure> {
        let missing = || Reason::new(Code::BadLink, "it is a hard link to an entry that does not exist");
        let target_name = target.file_name().ok_or_else(missing)?;
        let above = target.parent().unwrap_or(Path::new(""));
        let flags = OFlags::PATH | OFlags::DIRECTORY;
        let from = match self.root.openat2(above, flags, Mode::empty()) {
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => return Err(missing().into()),
            other => other.call(Syscall::Openat2)?,
        };
        // Without AT_SYMLINK_FOLLOW a hard link to a symlink is another name of the symlink.
        let made = self.make(at, name, Syscall::Linkat, || {
            match rustix::fs::linkat(&from, target_name, at, name, AtFlags::empty()) {
                // `make` would take the other name of the same file for an obstacle.
                Err(Errno::EXIST) if same(from.as_fd(), target_name, at, name) => Ok(()),
                other => other,
            }
        });
        match made {
            Err(Failure::Call(_, Errno::NOENT)) => {
                // Making space for the link may have removed the directory of its target.
                let target = self.real(target).map_err(|_| missing())?;
                let path = self.real(&entry.path)?;
                let node = self.deferred.nodes().get(&target).ok_or_else(missing)?;
                if path == target {
                    return Ok(());
                }
                self.memory.add(weight(&path, &node.xattrs), DEFERRED)?;
                self.vacate(at, name)?;
                if self.existing == Existing::Nothing && self.deferred.nodes().contains_key(&path) {
                    return Err(duplicate().into());
                }
                self.deferred.link_node(&target, path, self.inode);
                self.inode += 1;
                Ok(())
            }
            Err(Failure::Call(_, Errno::PERM)) if is_dir(from.as_fd(), target_name).is_ok_and(|is| is) => {
                Err(Reason::new(Code::BadLink, "it is a hard link to a directory").into())
            }
            Ok(()) => self.link_deferred(target, &entry.path),
            other => other,
        }
    }

    /// Copies the deferred attributes of `target` to `path`, its new hard link: a later layer may remove only one of them.
    fn link_deferred(&mut self, target: &Path, path: &Path) -> Result<(), Failure> {
        if self.deferred.xattrs().is_empty() {
            return Ok(());
        }
        let (target, path) = (self.real(target)?, self.real(path)?);
        if let Some(xattrs) = self.deferred.xattrs().get(&target) {
            self.memory.add(weight(&path, xattrs), DEFERRED)?;
            self.deferred.link_xattrs(&target, path);
        }
        Ok(())
    }

    /// Creates something with `make`. Replaces what stands in its place if that is allowed.
    fn make<T>(
        &self,
        at: BorrowedFd<'_>,
        name: &OsStr,
        call: Syscall,
        make: impl Fn() -> rustix::io::Result<T>,
    ) -> Result<T, Failure> {
        match make() {
            Err(Errno::EXIST) => {
                match self.existing {
                    Existing::Nothing => return Err(duplicate().into()),
                    Existing::Files => remove_one(at, name)?,
                    Existing::Layers => drop(rootfs::remove_at(at, name).call(Syscall::Unlinkat)?),
                }
                make().call(call)
            }
            other => other.call(call),
        }
    }

    /// Removes what stands in the place of a deferred node.
    fn vacate(&mut self, at: BorrowedFd<'_>, name: &OsStr) -> Result<(), Failure> {
        self.make(at, name, Syscall::Fstatat, || match rustix::fs::statat(at, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(_) => Err(Errno::EXIST),
            Err(Errno::NOENT) => Ok(()),
            Err(errno) => Err(errno),
        })
    }

    fn finish_fd(&mut self, fd: &OwnedFd, path: &Path, meta: &Meta, lacks: Lacks) -> Result<(), Failure> {
        if lacks.owner {
            let (owner, group) = rootfs::owner(meta.uid, meta.gid);
            rustix::fs::fchown(fd, owner, group).call(Syscall::Fchown)?;
        }
        if lacks.mode {
            rustix::fs::fchmod(fd, Mode::from_raw_mode(meta.mode)).call(Syscall::Fchmod)?;
        }
        self.set_xattrs(path, &meta.xattrs, |key, value| rustix::fs::fsetxattr(fd, key, value, XattrFlags::empty()))?;
        rustix::fs::futimens(fd, &times(meta.mtime)).call(Syscall::Futimens)
    }

    /// Like [`Placer::finish_fd`], for files that must not be opened.
    fn finish_node(&mut self, at: BorrowedFd<'_>, name: &OsStr, path: &Path, meta: &Meta) -> Result<(), Failure> {
        self.chown_at(at, name, meta)?;
        at::chmod(at, name, meta.mode).call(Syscall::Fchmodat2)?;
        self.set_xattrs(path, &meta.xattrs, |key, value| at::set_xattr(at, name, key, value))?;
        rustix::fs::utimensat(at, name, &times(meta.mtime), AtFlags::SYMLINK_NOFOLLOW).call(Syscall::Utimensat)
    }

    fn chown_at(&mut self, at: BorrowedFd<'_>, name: &OsStr, meta: &Meta) -> Result<(), Failure> {
        if !self.lacks_owner(meta, None)? {
            return Ok(());
        }
        let (owner, group) = rootfs::owner(meta.uid, meta.gid);
        rustix::fs::chownat(at, name, owner, group, AtFlags::SYMLINK_NOFOLLOW).call(Syscall::Fchownat)
    }

    fn set_xattrs(
        &mut self,
        path: &Path,
        xattrs: &Xattrs,
        set: impl Fn(&[u8], &[u8]) -> rustix::io::Result<()>,
    ) -> Result<(), Failure> {
        for (name, value) in xattrs {
            if rootfs::is_host_xattr(name) || rootfs::is_overlay_xattr(name) {
                self.drop_one(name.escape_ascii().to_string());
                continue;
            }
            match set(name, value) {
                Ok(()) => {}
                // EACCES: only directories can have a default ACL.
                Err(errno)
                    if matches!(errno, Errno::PERM | Errno::OPNOTSUPP | Errno::INVAL)
                        || (errno == Errno::ACCESS && name == acl::DEFAULT.as_bytes()) =>
                {
                    if errno != Errno::PERM {
                        self.warn_once(&format!(
                            "{}: the file system does not store the attribute {} ({errno}); it is kept beside the tree",
                            self.root.path().display(),
                            name.escape_ascii()
                        ));
                    }
                    self.memory.add(weight(path, &[]) + name.len() + value.len(), DEFERRED)?;
                    self.deferred.add_xattr(&self.real(path)?, name.clone(), value.clone());
                }
                Err(errno) => return Err(Failure::Call(Syscall::Setxattr, errno)),
            }
        }
        Ok(())
    }

    /// Counts an attribute that is not restored.
    fn drop_one(&mut self, name: String) {
        let full = self.dropped.len() >= MAX_DROPPED && !self.dropped.contains_key(&name);
        *self.dropped.entry(if full { "others".to_owned() } else { name }).or_default() += 1;
    }

    fn warn_once(&mut self, text: &str) {
        if self.warned.len() < 100 && self.warned.insert(text.to_owned()) {
            self.ui.warn(text);
        }
    }
}

impl Drop for Placer<'_> {
    /// Restores the times and ACLs of existing directories after an error.
    fn drop(&mut self) {
        while self.levels.last().is_some() {
            self.give_back();
        }
    }
}

fn same(one_at: BorrowedFd<'_>, one: &OsStr, other_at: BorrowedFd<'_>, other: &OsStr) -> bool {
    let identity = |at, name: &OsStr| {
        let stat = rustix::fs::statat(at, name, AtFlags::SYMLINK_NOFOLLOW).ok()?;
        Some((stat.st_dev, stat.st_ino))
    };
    matches!((identity(one_at, one), identity(other_at, other)), (Some(one), Some(other)) if one == other)
}

fn is_dir(at: BorrowedFd<'_>, name: &OsStr) -> Result<bool, Failure> {
    let stat = rustix::fs::statat(at, name, AtFlags::SYMLINK_NOFOLLOW).call(Syscall::Fstatat)?;
    Ok(FileType::from_raw_mode(stat.st_mode) == FileType::Directory)
}

/// Removes a file or an empty directory.
fn remove_one(at: BorrowedFd<'_>, name: &OsStr) -> Result<(), Failure> {
    let flags = if is_dir(at, name)? { AtFlags::REMOVEDIR } else { AtFlags::empty() };
    match rustix::fs::unlinkat(at, name, flags) {
        Err(Errno::NOTEMPTY | Errno::EXIST) => {
            Err(Reason::new(Code::DirectoryInTheWay, "a directory that is not empty stands in its place").into())
        }
        other => other.call(Syscall::Unlinkat),
    }
}

fn bad_parent() -> Reason {
    Reason::new(Code::BadParent, "its parent is not a directory, or is a dangling symlink")
}

fn duplicate() -> Reason {
    Reason::new(Code::DuplicateEntry, "an earlier entry has the same path")
}

fn times(mtime: Time) -> Timestamps {
    Timestamps {
        last_access: Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT },
        last_modification: Timespec { tv_sec: mtime.sec, tv_nsec: mtime.nsec.into() },
    }
}
