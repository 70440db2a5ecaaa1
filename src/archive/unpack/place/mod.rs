//! Entries become files. Everything is made new, by its name in its parent's descriptor: nothing that stands there is written
//! through. Owner, then mode (chown clears setuid), then attributes (chown clears capabilities), then times; what it was made with is
//! not set again.

mod fill;
mod levels;

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, FileType, Mode, OFlags, Timespec, Timestamps, UTIME_OMIT, XattrFlags};
use rustix::io::Errno;

use self::fill::fill;
use self::levels::Level;
use super::acl;
use super::entry::{Entry, Meta, NodeKind, Time, Xattrs};
use super::failure::{Call, Failure, Syscall};
use super::limits::{Kept, Limits};
use super::record::{Node, Record, weight};
use crate::base::progress::Progress;
use crate::base::refusal::{Code, Reason};
use crate::fs::rootfs::{self, Rootfs, at};
use crate::os::process;

/// What a [`Record`] holds, for a refusal.
const UNMADE: &str = "the devices and attributes that the kernel refuses";

/// What something was not made with.
#[derive(Clone, Copy)]
struct Lacks {
    owner: bool,
    mode: bool,
}

/// What stands in the tree before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Standing {
    /// Nothing: whatever is in the way of an entry is of this very archive, and the entry is refused.
    Nothing,
    /// Files of whoever asked for this: an entry takes the place of one, but not of a directory with something in it.
    Files,
    /// The layers of an image below this one, of which it replaces what it likes.
    Layers,
}

/// Gives out the data of the present entry.
pub(super) trait Data {
    /// Some bytes; empty at the end.
    fn data(&mut self) -> std::io::Result<&[u8]>;
    /// Takes some of them.
    fn consume(&mut self, count: usize);
}

/// Makes files in a tree.
pub(super) struct Placer<'a> {
    root: &'a Rootfs,
    ui: &'a dyn Progress,
    standing: Standing,
    /// What files are not made with.
    umask: u32,
    /// The way from the root to the directory that the last entry went to.
    levels: Vec<Level>,
    record: Record,
    /// The next number for a node that is only recorded and has several names.
    inode: u64,
    kept: Kept,
    /// Directories that may still be made without being entries.
    parents: u64,
    limits: &'a Limits,
    warned: BTreeSet<String>,
}

impl<'a> Placer<'a> {
    /// `record` is what the tree lacks already, of archives unpacked before.
    pub(super) fn new(
        root: &'a Rootfs,
        standing: Standing,
        record: Record,
        limits: &'a Limits,
        ui: &'a dyn Progress,
    ) -> Result<Self, Reason> {
        let (inode, umask, levels, warned) = (record.next_inode(), process::umask(), Vec::new(), BTreeSet::new());
        let (mut kept, parents) = (Kept::new(limits), limits.entries);
        kept.add(record.weight(), UNMADE)?;
        Ok(Self { root, ui, standing, umask, levels, record, inode, kept, parents, limits, warned })
    }

    /// Makes one entry, its data taken from `data`.
    pub(super) fn place(&mut self, entry: Entry, data: &mut dyn Data) -> Result<(), Failure> {
        if let Some(what) = entry.dropped {
            self.warn_once(&format!("{what} of {}", entry.path.as_os_str().as_bytes().escape_ascii()));
        }
        let Some(name) = entry.path.file_name() else {
            self.enter(Path::new(""))?;
            return self.become_again(entry.meta);
        };
        self.enter(entry.path.parent().unwrap_or(Path::new("")))?;
        if !self.record.is_empty() {
            self.look_up(name, &entry.kind)?;
        }
        // Taken out so that its descriptor can be used beside the rest of `self`.
        let parent = self.take_top()?;
        let placed = self.place_at(parent.as_fd(), name, &entry, data);
        self.put_top(parent);
        let existed = placed?;
        if entry.kind == NodeKind::Dir { self.push(entry.path, entry.meta, existed) } else { Ok(()) }
    }

    /// What was recorded is in the way of an entry as what exists is, or is forgotten with what the entry replaces.
    fn look_up(&mut self, name: &OsStr, kind: &NodeKind) -> Result<(), Failure> {
        let path = self.real_top()?.join(name);
        let fresh = self.standing == Standing::Nothing;
        match kind {
            NodeKind::Hardlink(_) if fresh => {}
            _ if fresh && self.record.nodes().contains_key(&path) => return Err(duplicate().into()),
            NodeKind::Dir => self.record.forget_one(&path),
            _ if fresh => {}
            _ => self.record.forget(&path),
        }
        Ok(())
    }

    /// `path` without links on the way to its last component.
    fn real(&self, path: &Path) -> Result<PathBuf, Failure> {
        let above = self.root.real(path.parent().unwrap_or(Path::new(""))).call(Syscall::Openat2)?;
        Ok(path.file_name().map_or_else(PathBuf::new, |name| above.join(name)))
    }

    /// Returns what could not be made, everything else being done.
    pub(super) fn finish(mut self) -> Result<Record, Failure> {
        while !self.levels.is_empty() {
            self.leave()?;
        }
        Ok(std::mem::take(&mut self.record))
    }

    /// Whether it was there before, which only a directory may be.
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
                // Nearly every file can be made with its mode, which spares a call: no directory on the way hands down a list.
                let made = meta.mode & !0o777 == 0 && meta.mode & self.umask == 0;
                let mode = Mode::from_raw_mode(if made { meta.mode } else { 0o600 });
                let fd = self.make(at, name, Syscall::Openat, || rustix::fs::openat(at, name, flags, mode))?;
                fill(&fd, entry, data)?;
                let lacks = Lacks { owner: self.lacks_owner(meta, Some(&fd))?, mode: !made };
                self.finish_fd(&fd, &entry.path, meta, lacks)?;
                // Some file systems say only now that the data did not fit.
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
            NodeKind::Char(major, minor) => self.device(at, name, entry, FileType::CharacterDevice, *major, *minor),
            NodeKind::Block(major, minor) => self.device(at, name, entry, FileType::BlockDevice, *major, *minor),
        };
        placed.map(|()| false)
    }

    fn device(
        &mut self,
        at: BorrowedFd<'_>,
        name: &OsStr,
        entry: &Entry,
        kind: FileType,
        major: u32,
        minor: u32,
    ) -> Result<(), Failure> {
        let mode = Mode::from_raw_mode(0o600);
        let dev = rustix::fs::makedev(major, minor);
        // 0:0 is what overlays take for "removed": it is only ever recorded.
        let made = match (kind, major, minor) {
            (FileType::CharacterDevice, 0, 0) => {
                self.vacate(at, name).and(Err(Failure::Call(Syscall::Mknodat, Errno::PERM)))
            }
            _ => self.make(at, name, Syscall::Mknodat, || rustix::fs::mknodat(at, name, kind, mode, dev)),
        };
        match made {
            Ok(()) => self.finish_node(at, name, &entry.path, &entry.meta),
            Err(Failure::Call(_, Errno::PERM)) => {
                let Meta { mode, uid, gid, mtime, xattrs } = entry.meta.clone();
                let block = kind == FileType::BlockDevice;
                self.kept.add(weight(&entry.path, &xattrs), UNMADE)?;
                let node = Node { block, major, minor, mode, uid, gid, mtime, xattrs, inode: 0 };
                self.record.add_node(self.real(&entry.path)?, node);
                Ok(())
            }
            Err(failure) => Err(failure),
        }
    }

    fn hardlink(&mut self, at: BorrowedFd<'_>, name: &OsStr, entry: &Entry, target: &Path) -> Result<(), Failure> {
        let missing = || Reason::new(Code::BadLink, "it is a link to an entry that does not exist");
        let target_name = target.file_name().ok_or_else(missing)?;
        let above = target.parent().unwrap_or(Path::new(""));
        let flags = OFlags::PATH | OFlags::DIRECTORY;
        let from = match self.root.openat2(above, flags, Mode::empty()) {
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => return Err(missing().into()),
            other => other.call(Syscall::Openat2)?,
        };
        // Without AT_SYMLINK_FOLLOW: the link to a symbolic link is another name of the link.
        let made = self.make(at, name, Syscall::Linkat, || {
            match rustix::fs::linkat(&from, target_name, at, name, AtFlags::empty()) {
                // Not what `make` would take for something in the way.
                Err(Errno::EXIST) if same(from.as_fd(), target_name, at, name) => Ok(()),
                other => other,
            }
        });
        match made {
            Err(Failure::Call(_, Errno::NOENT)) => {
                let (target, path) = (self.real(target)?, self.real(&entry.path)?);
                let node = self.record.nodes().get(&target).ok_or_else(missing)?;
                if path == target {
                    return Ok(());
                }
                self.kept.add(weight(&path, &node.xattrs), UNMADE)?;
                self.vacate(at, name)?;
                if self.standing == Standing::Nothing && self.record.nodes().contains_key(&path) {
                    return Err(duplicate().into());
                }
                self.record.link_node(&target, path, self.inode);
                self.inode += 1;
                Ok(())
            }
            Err(Failure::Call(_, Errno::PERM)) if is_dir(from.as_fd(), target_name).is_ok_and(|is| is) => {
                Err(Reason::new(Code::BadLink, "it is a link to a directory").into())
            }
            Ok(()) => self.link_record(target, &entry.path),
            other => other,
        }
    }

    /// Records of `path`, another name of `target`, what is recorded of that: either may go while the other stays.
    fn link_record(&mut self, target: &Path, path: &Path) -> Result<(), Failure> {
        if self.record.xattrs().is_empty() {
            return Ok(());
        }
        let (target, path) = (self.real(target)?, self.real(path)?);
        if let Some(xattrs) = self.record.xattrs().get(&target) {
            self.kept.add(weight(&path, xattrs), UNMADE)?;
            self.record.link_xattrs(&target, path);
        }
        Ok(())
    }

    /// Makes something with `make`, in the place of what may be replaced.
    fn make<T>(
        &self,
        at: BorrowedFd<'_>,
        name: &OsStr,
        call: Syscall,
        make: impl Fn() -> rustix::io::Result<T>,
    ) -> Result<T, Failure> {
        match make() {
            Err(Errno::EXIST) => {
                match self.standing {
                    Standing::Nothing => return Err(duplicate().into()),
                    Standing::Files => remove_one(at, name)?,
                    Standing::Layers => drop(rootfs::remove_at(at, name).call(Syscall::Unlinkat)?),
                }
                make().call(call)
            }
            other => other.call(call),
        }
    }

    /// Sees to it that there is nothing of this name.
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

    /// As [`Placer::finish_fd`], for what must not be opened.
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
            if rootfs::is_host_xattr(name) {
                // Nearly all files have labels where there are any: they are not worth a word.
                if name != b"security.selinux" {
                    self.warn_once(&format!("attributes of its machine or file system ({})", name.escape_ascii()));
                }
                continue;
            }
            if rootfs::is_overlay_xattr(name) {
                self.warn_once(&format!("attributes of overlays ({})", name.escape_ascii()));
                continue;
            }
            match set(name, value) {
                Ok(()) => {}
                // So the kernel says of what only directories have.
                Err(errno)
                    if matches!(errno, Errno::PERM | Errno::OPNOTSUPP | Errno::INVAL)
                        || (errno == Errno::ACCESS && name == acl::DEFAULT.as_bytes()) =>
                {
                    if errno != Errno::PERM {
                        self.ui_once(&format!(
                            "{}: the attribute {} is kept beside the tree only: {errno}",
                            self.root.path().display(),
                            name.escape_ascii()
                        ));
                    }
                    self.kept.add(weight(path, &[]) + name.len() + value.len(), UNMADE)?;
                    self.record.add_xattr(&self.real(path)?, name.clone(), value.clone());
                }
                Err(errno) => return Err(Failure::Call(Syscall::Setxattr, errno)),
            }
        }
        Ok(())
    }

    fn warn_once(&mut self, what: &str) {
        self.ui_once(&format!("the archive holds {what}: left out"));
    }

    fn ui_once(&mut self, text: &str) {
        if self.warned.len() < 100 && self.warned.insert(text.to_owned()) {
            self.ui.warn(text);
        }
    }
}

impl Drop for Placer<'_> {
    /// When it did not come to an end, what directories had is given back to them.
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

/// Removes what is no directory, or an empty one.
fn remove_one(at: BorrowedFd<'_>, name: &OsStr) -> Result<(), Failure> {
    let flags = if is_dir(at, name)? { AtFlags::REMOVEDIR } else { AtFlags::empty() };
    match rustix::fs::unlinkat(at, name, flags) {
        Err(Errno::NOTEMPTY | Errno::EXIST) => {
            Err(Reason::new(Code::DirectoryInTheWay, "a directory with something in it stands in its place").into())
        }
        other => other.call(Syscall::Unlinkat),
    }
}

fn bad_parent() -> Reason {
    Reason::new(Code::BadParent, "what should be its directory is none, or a link that leads nowhere")
}

fn duplicate() -> Reason {
    Reason::new(Code::DuplicateEntry, "an entry of this name came before")
}

fn times(mtime: Time) -> Timestamps {
    Timestamps {
        last_access: Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT },
        last_modification: Timespec { tv_sec: mtime.sec, tv_nsec: mtime.nsec.into() },
    }
}
