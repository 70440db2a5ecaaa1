//! Entries become files. Everything is made new, by its name in its parent's descriptor: nothing that stands there is written
//! through. Owner, then mode (chown clears setuid), then attributes (chown clears capabilities), then times.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, FileType, Mode, OFlags, SeekFrom, Timespec, Timestamps, UTIME_OMIT, XattrFlags};
use rustix::io::Errno;

use super::entry::{Entry, Meta, NodeKind, Time, Xattrs};
use super::record::{Node, Record};
use super::refusal::Reason;
use super::{acl, zeros};
use crate::progress::Progress;
use crate::rootfs::{self, Rootfs, last};

/// Why an entry could not become a file.
pub(super) enum Failure {
    /// The archive's fault.
    Refused(Reason),
    /// The kernel's word on a call, as `strace` would name it.
    Call(&'static str, Errno),
    /// Reading the data.
    Input(std::io::Error),
}

impl From<Reason> for Failure {
    fn from(reason: Reason) -> Self {
        Self::Refused(reason)
    }
}

trait Call<T> {
    fn call(self, name: &'static str) -> Result<T, Failure>;
}

impl<T> Call<T> for rustix::io::Result<T> {
    fn call(self, name: &'static str) -> Result<T, Failure> {
        self.map_err(|errno| Failure::Call(name, errno))
    }
}

/// Gives out the data of the present entry.
pub(super) trait Data {
    /// Some bytes; empty at the end.
    fn data(&mut self) -> std::io::Result<&[u8]>;
    /// Takes some of them.
    fn consume(&mut self, count: usize);
}

/// Bytes of names and attributes that are kept in memory until the end: of directories, and of what the kernel refuses to make.
const MAX_KEPT: usize = 64 << 20;

/// The directory that the last entry went to.
struct Parent {
    /// As the archive calls it.
    path: PathBuf,
    fd: OwnedFd,
    /// Without links, when there is a record to look it up in.
    real: Option<PathBuf>,
}

/// Makes files in a tree.
pub(super) struct Placer<'a> {
    root: &'a Rootfs,
    ui: &'a dyn Progress,
    /// The tree was empty: whatever stands in the way is of this very archive.
    fresh: bool,
    parent: Option<Parent>,
    /// Directories get their owner, mode and time when nothing more is written into them.
    dirs: Vec<(PathBuf, Meta)>,
    record: Record,
    kept: usize,
    warned: BTreeSet<String>,
}

impl<'a> Placer<'a> {
    /// `record` is what the tree lacks already, of archives unpacked before.
    pub(super) fn new(root: &'a Rootfs, fresh: bool, record: Record, ui: &'a dyn Progress) -> Self {
        let (parent, dirs, kept, warned) = (None, Vec::new(), 0, BTreeSet::new());
        Self { root, ui, fresh, parent, dirs, record, kept, warned }
    }

    /// The tree.
    pub(super) fn root(&self) -> &'a Rootfs {
        self.root
    }

    /// Makes one entry, its data taken from `data`.
    pub(super) fn place(&mut self, entry: Entry, data: &mut dyn Data) -> Result<(), Failure> {
        for what in &entry.dropped {
            self.warn_once(what);
        }
        let Some(name) = entry.path.file_name() else { return self.put_off(entry) };
        // Taken out so that its descriptor can be used beside the rest of `self`.
        let mut parent = self.enter_parent(entry.path.parent().unwrap_or(Path::new("")))?;
        if !self.record.is_empty() {
            self.look_up(&mut parent, name, &entry)?;
        }
        let placed = self.place_at(parent.fd.as_fd(), name, &entry, data);
        self.parent = Some(parent);
        placed?;
        if entry.kind == NodeKind::Dir { self.put_off(entry) } else { Ok(()) }
    }

    /// Keeps a directory for the end.
    fn put_off(&mut self, entry: Entry) -> Result<(), Failure> {
        self.keep(&entry.path, &entry.meta.xattrs)?;
        self.dirs.push((entry.path, entry.meta));
        Ok(())
    }

    /// Counts what is kept in memory.
    fn keep(&mut self, path: &Path, xattrs: &Xattrs) -> Result<(), Failure> {
        let attributes: usize = xattrs.iter().map(|(name, value)| name.len() + value.len()).sum();
        self.kept += path.as_os_str().len() + attributes;
        match self.kept > MAX_KEPT {
            true => Err(Reason::new("too-large", "names and attributes up to it take too much memory").into()),
            false => Ok(()),
        }
    }

    /// What was recorded is in the way of an entry as what exists is, or is forgotten with what the entry replaces.
    fn look_up(&mut self, parent: &mut Parent, name: &OsStr, entry: &Entry) -> Result<(), Failure> {
        if parent.real.is_none() {
            parent.real = Some(self.root.real(&parent.path).call("openat2")?);
        }
        let real = parent.real.as_deref().unwrap_or(Path::new(""));
        if real.ancestors().any(|above| self.record.node(above).is_some()) {
            return Err(bad_parent().into());
        }
        let path = real.join(name);
        match entry.kind {
            NodeKind::Hardlink(_) if self.fresh => {}
            _ if self.fresh && self.record.node(&path).is_some() => return Err(duplicate().into()),
            _ if self.fresh => {}
            NodeKind::Dir => self.record.forget_one(&path),
            _ => self.record.forget(&path),
        }
        Ok(())
    }

    /// `path` without links on the way to its last component.
    fn real(&self, path: &Path) -> Result<PathBuf, Failure> {
        let above = self.root.real(path.parent().unwrap_or(Path::new(""))).call("openat2")?;
        Ok(path.file_name().map_or_else(PathBuf::new, |name| above.join(name)))
    }

    /// Sets what was put off, and returns what could not be made.
    pub(super) fn finish(mut self) -> Result<Record, (PathBuf, Failure)> {
        self.parent = None;
        for (path, meta) in std::mem::take(&mut self.dirs) {
            self.finish_dir(&path, &meta).map_err(|failure| (path, failure))?;
        }
        Ok(self.record)
    }

    fn finish_dir(&mut self, path: &Path, meta: &Meta) -> Result<(), Failure> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW;
        let fd = match self.root.openat2(path, flags, Mode::empty()) {
            Err(Errno::NOTDIR | Errno::LOOP | Errno::NOENT) => {
                return Err(Reason::new("directory-replaced", "a later entry replaced it or a link on its path").into());
            }
            other => other.call("openat2")?,
        };
        self.finish_fd(&fd, path, meta)
    }

    fn place_at(
        &mut self,
        at: BorrowedFd<'_>,
        name: &OsStr,
        entry: &Entry,
        data: &mut dyn Data,
    ) -> Result<(), Failure> {
        let meta = &entry.meta;
        match &entry.kind {
            NodeKind::File => {
                let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                let mode = Mode::from_raw_mode(0o600);
                let fd = self.make(at, name, "openat", || rustix::fs::openat(at, name, flags, mode))?;
                fill(&fd, entry, data)?;
                self.finish_fd(&fd, &entry.path, meta)?;
                // Some file systems say only now that the data did not fit.
                nix::unistd::close(fd).map_err(|errno| Failure::Call("close", Errno::from_raw_os_error(errno as i32)))
            }
            NodeKind::Dir => match rustix::fs::mkdirat(at, name, Mode::from_raw_mode(0o700)) {
                Err(Errno::EXIST) => {
                    let stat = rustix::fs::statat(at, name, AtFlags::SYMLINK_NOFOLLOW).call("fstatat")?;
                    match FileType::from_raw_mode(stat.st_mode) {
                        FileType::Directory => Ok(()),
                        _ => {
                            let mode = Mode::from_raw_mode(0o700);
                            self.make(at, name, "mkdirat", || rustix::fs::mkdirat(at, name, mode))
                        }
                    }
                }
                other => other.call("mkdirat"),
            },
            NodeKind::Symlink(target) => {
                self.make(at, name, "symlinkat", || rustix::fs::symlinkat(&target[..], at, name))?;
                let (owner, group) = rootfs::owner(meta.uid, meta.gid);
                rustix::fs::chownat(at, name, owner, group, AtFlags::SYMLINK_NOFOLLOW).call("fchownat")?;
                if !meta.xattrs.is_empty() {
                    self.set_xattrs(&entry.path, meta, |key, value| last::set_xattr(at, name, key, value))?;
                }
                rustix::fs::utimensat(at, name, &times(meta.mtime), AtFlags::SYMLINK_NOFOLLOW).call("utimensat")
            }
            NodeKind::Hardlink(target) => self.hardlink(at, name, entry, target),
            NodeKind::Fifo => {
                let mode = Mode::from_raw_mode(0o600);
                self.make(at, name, "mknodat", || rustix::fs::mknodat(at, name, FileType::Fifo, mode, 0))?;
                self.finish_node(at, name, &entry.path, meta)
            }
            NodeKind::Char(major, minor) => self.device(at, name, entry, FileType::CharacterDevice, *major, *minor),
            NodeKind::Block(major, minor) => self.device(at, name, entry, FileType::BlockDevice, *major, *minor),
        }
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
                self.clear(at, name)?;
                Err(Failure::Call("mknodat", Errno::PERM))
            }
            _ => self.make(at, name, "mknodat", || rustix::fs::mknodat(at, name, kind, mode, dev)),
        };
        match made {
            Ok(()) => self.finish_node(at, name, &entry.path, &entry.meta),
            Err(Failure::Call(_, Errno::PERM)) => {
                let Meta { mode, uid, gid, mtime, xattrs } = entry.meta.clone();
                let (path, block) = (self.real(&entry.path)?, kind == FileType::BlockDevice);
                self.record_node(Node { path, block, major, minor, mode, uid, gid, mtime, xattrs })
            }
            Err(failure) => Err(failure),
        }
    }

    fn hardlink(&mut self, at: BorrowedFd<'_>, name: &OsStr, entry: &Entry, target: &Path) -> Result<(), Failure> {
        let missing = || Reason::new("bad-link", "it is a link to an entry that does not exist");
        let target_name = target.file_name().ok_or_else(missing)?;
        let above = target.parent().unwrap_or(Path::new(""));
        let flags = OFlags::PATH | OFlags::DIRECTORY;
        let from = match self.root.openat2(above, flags, Mode::empty()) {
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => return Err(missing().into()),
            other => other.call("openat2")?,
        };
        // Without AT_SYMLINK_FOLLOW: the link to a symbolic link is another name of the link.
        let made = self.make(at, name, "linkat", || {
            match rustix::fs::linkat(&from, target_name, at, name, AtFlags::empty()) {
                // Not what `make` would take for something in the way.
                Err(Errno::EXIST) if same(from.as_fd(), target_name, at, name) => Ok(()),
                other => other,
            }
        });
        match made {
            Err(Failure::Call(_, Errno::NOENT)) => {
                let node = self.record.node(&self.real(target)?).cloned().ok_or_else(missing)?;
                let path = self.real(&entry.path)?;
                if path == node.path {
                    return Ok(());
                }
                self.clear(at, name)?;
                if self.fresh && self.record.node(&path).is_some() {
                    return Err(duplicate().into());
                }
                self.record_node(Node { path, ..node })
            }
            Err(Failure::Call(_, Errno::PERM)) if is_dir(from.as_fd(), target_name) => {
                Err(Reason::new("bad-link", "it is a link to a directory").into())
            }
            other => other,
        }
    }

    fn record_node(&mut self, node: Node) -> Result<(), Failure> {
        self.keep(&node.path, &node.xattrs)?;
        self.record.add_node(node);
        Ok(())
    }

    /// Takes away what stands in the way of something that is only recorded.
    fn clear(&self, at: BorrowedFd<'_>, name: &OsStr) -> Result<(), Failure> {
        let exists = || match rustix::fs::statat(at, name, AtFlags::SYMLINK_NOFOLLOW) {
            Err(Errno::NOENT) => Ok(()),
            other => other.and(Err(Errno::EXIST)),
        };
        self.make(at, name, "fstatat", exists)
    }

    /// Makes something with `make`. What stands in its way is removed first, or refused when this archive put it there.
    fn make<T>(
        &self,
        at: BorrowedFd<'_>,
        name: &OsStr,
        call: &'static str,
        make: impl Fn() -> rustix::io::Result<T>,
    ) -> Result<T, Failure> {
        match make() {
            Err(Errno::EXIST) if self.fresh => Err(duplicate().into()),
            Err(Errno::EXIST) => {
                rootfs::remove_at(at, name).call("unlinkat")?;
                make().call(call)
            }
            other => other.call(call),
        }
    }

    /// The directory `path`, the last one kept, missing ones made.
    fn enter_parent(&mut self, path: &Path) -> Result<Parent, Failure> {
        match self.parent.take() {
            Some(parent) if parent.path == path => Ok(parent),
            _ => match self.root.make_dirs(path, 0o755) {
                Ok(fd) => Ok(Parent { path: path.to_owned(), fd, real: None }),
                Err(Errno::NOTDIR | Errno::LOOP | Errno::EXIST) => Err(bad_parent().into()),
                Err(errno) => Err(Failure::Call("openat2", errno)),
            },
        }
    }

    fn finish_fd(&mut self, fd: &OwnedFd, path: &Path, meta: &Meta) -> Result<(), Failure> {
        let (owner, group) = rootfs::owner(meta.uid, meta.gid);
        rustix::fs::fchown(fd, owner, group).call("fchown")?;
        rustix::fs::fchmod(fd, Mode::from_raw_mode(meta.mode)).call("fchmod")?;
        self.set_xattrs(path, meta, |key, value| rustix::fs::fsetxattr(fd, key, value, XattrFlags::empty()))?;
        rustix::fs::futimens(fd, &times(meta.mtime)).call("futimens")
    }

    /// As [`Placer::finish_fd`], for what must not be opened.
    fn finish_node(&mut self, at: BorrowedFd<'_>, name: &OsStr, path: &Path, meta: &Meta) -> Result<(), Failure> {
        let (owner, group) = rootfs::owner(meta.uid, meta.gid);
        rustix::fs::chownat(at, name, owner, group, AtFlags::SYMLINK_NOFOLLOW).call("fchownat")?;
        last::chmod(at, name, meta.mode).call("fchmodat2")?;
        self.set_xattrs(path, meta, |key, value| last::set_xattr(at, name, key, value))?;
        rustix::fs::utimensat(at, name, &times(meta.mtime), AtFlags::SYMLINK_NOFOLLOW).call("utimensat")
    }

    fn set_xattrs(
        &mut self,
        path: &Path,
        meta: &Meta,
        set: impl Fn(&[u8], &[u8]) -> rustix::io::Result<()>,
    ) -> Result<(), Failure> {
        for (name, value) in &meta.xattrs {
            // Labels are of the machine that made the archive.
            if name == b"security.selinux" {
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
                    self.kept += name.len() + value.len();
                    self.keep(path, &Vec::new())?;
                    self.record.add_xattr(self.real(path)?, name.clone(), value.clone());
                }
                Err(errno) => return Err(Failure::Call("setxattr", errno)),
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

/// Writes a file's data.
fn fill(fd: &OwnedFd, entry: &Entry, data: &mut dyn Data) -> Result<(), Failure> {
    let Some(segments) = &entry.sparse else { return fill_plain(fd, data) };
    for segment in segments {
        rustix::fs::seek(fd, SeekFrom::Start(segment.offset)).call("lseek")?;
        let mut left = segment.length;
        while left > 0 {
            let bytes = data.data().map_err(Failure::Input)?;
            let length = bytes.len().min(usize::try_from(left).unwrap_or(usize::MAX));
            if length == 0 {
                return Err(super::sparse::bad("its data is too short").into());
            }
            let count = rustix::io::write(fd, &bytes[..length]).or_else(again).call("write")?;
            data.consume(count);
            left -= count as u64;
        }
    }
    rustix::fs::ftruncate(fd, entry.size).call("ftruncate")
}

/// Writes data that is stored plain, long runs of zeros as holes: an archive of ours has the zeros of a hole, so that its bytes do
/// not depend on where a file system keeps some.
fn fill_plain(fd: &OwnedFd, data: &mut dyn Data) -> Result<(), Failure> {
    let (mut at, mut in_hole) = (0u64, false);
    loop {
        let bytes = data.data().map_err(Failure::Input)?;
        if bytes.is_empty() {
            break;
        }
        let count = if in_hole {
            zeros::leading(bytes)
        } else {
            let hole = zeros::run(bytes);
            in_hole = hole.is_some_and(|start| start == 0);
            match hole {
                Some(0) => zeros::leading(bytes),
                hole => {
                    let bytes = &bytes[..hole.unwrap_or(bytes.len())];
                    rustix::io::write(fd, bytes).or_else(again).call("write")?
                }
            }
        };
        if in_hole && count == 0 {
            rustix::fs::seek(fd, SeekFrom::Start(at)).call("lseek")?;
            in_hole = false;
        }
        data.consume(count);
        at += count as u64;
    }
    if in_hole { rustix::fs::ftruncate(fd, at).call("ftruncate") } else { Ok(()) }
}

fn again(errno: Errno) -> rustix::io::Result<usize> {
    if errno == Errno::INTR { Ok(0) } else { Err(errno) }
}

fn same(one_at: BorrowedFd<'_>, one: &OsStr, other_at: BorrowedFd<'_>, other: &OsStr) -> bool {
    let identity = |at, name: &OsStr| {
        let stat = rustix::fs::statat(at, name, AtFlags::SYMLINK_NOFOLLOW).ok()?;
        Some((stat.st_dev, stat.st_ino))
    };
    matches!((identity(one_at, one), identity(other_at, other)), (Some(one), Some(other)) if one == other)
}

fn is_dir(at: BorrowedFd<'_>, name: &OsStr) -> bool {
    let stat = rustix::fs::statat(at, name, AtFlags::SYMLINK_NOFOLLOW);
    stat.is_ok_and(|stat| FileType::from_raw_mode(stat.st_mode) == FileType::Directory)
}

fn bad_parent() -> Reason {
    Reason::new("bad-parent", "what should be its directory is none, or a link that leads nowhere")
}

fn duplicate() -> Reason {
    Reason::new("duplicate-entry", "an entry of this name came before")
}

fn times(mtime: Time) -> Timestamps {
    Timestamps {
        last_access: Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT },
        last_modification: Timespec { tv_sec: mtime.sec, tv_nsec: mtime.nsec.into() },
    }
}
