//! Walks a tree in a fixed order: a directory before its content, names sorted by their bytes. Read-only.
//!
//! Every directory and file is opened by name relative to the descriptor of its parent. The metadata of an item come from its open
//! descriptor.

use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, HashMap};
use std::ffi::{OsStr, OsString};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::fs::{FileType, Mode, OFlags, ResolveFlags, Stat};
use rustix::io::Errno;

use super::{Part, Tree};
use crate::archive::unpack::Node;
use crate::archive::unpack::acl;
use crate::archive::unpack::entry::{MAX_NAME, MAX_PATH, Meta, NodeKind, Time, Xattrs};
use crate::base::error::{Context, Error, Result};
use crate::base::progress::Progress;
use crate::fs::rootfs::{self, MAX_XATTR, OPEN_LEVELS, Rootfs, at};
use crate::os::userns::owners::Owners;

/// The hint for a result inside the tree that is packed.
pub const RESULT_IN_TREE: &str = "the archive would contain its own output: write the results outside of the tree";

/// The hint for an owner that the user namespace does not map.
const UNMAPPED: &str = "ids outside your ranges in /etc/subuid and /etc/subgid all look like 65534: pack as root, or change the owner \
                        with chown";

/// The attributes that mark an opaque directory, in overlays with the option `userxattr` and in others.
const OPAQUE: [&[u8]; 2] = [b"user.overlay.opaque", b"trusted.overlay.opaque"];

/// Names of left-out attributes that are counted one by one.
const MAX_LEFT_OUT: usize = 16;

/// One file, directory or node of the tree.
#[derive(Debug)]
pub struct Item {
    /// Relative to the root; empty for the root itself.
    pub path: PathBuf,
    /// Its type. The target of a hard link is the first name of its inode.
    pub kind: NodeKind,
    /// Owner, mode, time, and extended attributes sorted by name.
    pub meta: Meta,
    /// Bytes of data; zero unless [`Item::file`] is set.
    pub size: u64,
    /// The open file, for the first name of a regular file.
    pub file: Option<OwnedFd>,
    /// The file uses less disk space than its size: it may have holes.
    pub holes: bool,
    /// More names of its inode may follow.
    pub linked: bool,
    /// A directory with the mark of overlayfs that hides the content of lower layers.
    pub opaque: bool,
    /// The inode; zero for a deferred node with a single name.
    pub identity: Identity,
    /// The time of the last change of the inode, which no program can set.
    pub changed: Time,
}

impl Item {
    /// An item without data and without other names.
    pub fn new(path: PathBuf, kind: NodeKind, meta: Meta) -> Self {
        let (identity, changed) = (Identity::default(), Time::default());
        Self { path, kind, meta, size: 0, file: None, holes: false, linked: false, opaque: false, identity, changed }
    }

    /// The same item with the inode that `stat` describes.
    fn with_inode(self, stat: &Stat) -> Self {
        let changed = Time { sec: stat.st_ctime, nsec: stat.st_ctime_nsec as u32 };
        Self { identity: (stat.st_dev, stat.st_ino), changed, ..self }
    }
}

/// A device and an inode number.
pub type Identity = (u64, u64);

/// Walks a tree and passes each item to `take`. Fails at a file or directory in `results`, which are those that the caller writes to.
///
/// # Errors
/// [`Kind::System`](crate::base::error::Kind::System) for an unreadable or unmapped file, a mount, or a tree that changes meanwhile;
/// [`Kind::Usage`](crate::base::error::Kind::Usage) for a result in the tree.
pub fn walk(
    tree: Tree<'_>,
    results: &[Identity],
    ui: &dyn Progress,
    take: &mut dyn FnMut(Item) -> Result<()>,
) -> Result<()> {
    Walker::new(tree, results, ui)?.run(take)
}

/// Walks a tree like [`walk`], but passes every name of a file as a file of its own: open, and without a hard link. An item is `linked`
/// if the file has several names.
///
/// # Errors
/// Those of [`walk`].
pub fn walk_names(tree: Tree<'_>, ui: &dyn Progress, take: &mut dyn FnMut(Item) -> Result<()>) -> Result<()> {
    Walker { names: true, ..Walker::new(tree, &[], ui)? }.run(take)
}

/// A directory that is being walked.
struct Level {
    path: PathBuf,
    identity: Identity,
    /// Closed while many levels are open below it.
    fd: Option<OwnedFd>,
    /// The names still to be visited, in reverse order.
    rest: Vec<(OsString, Known)>,
}

/// The origin of a name in a directory.
enum Known {
    /// The directory has it.
    There(FileType),
    /// A deferred node, which the directory lacks.
    Deferred(Box<Node>),
}

struct Walker<'a> {
    tree: &'a Rootfs,
    part: Option<&'a Part>,
    /// Every name is an item of its own.
    names: bool,
    results: &'a [Identity],
    owners: Owners,
    ui: &'a dyn Progress,
    /// The first name of each inode with several names, and how many names are still to come.
    links: HashMap<Identity, (PathBuf, usize)>,
    /// First names of deferred nodes that have several.
    deferred: HashMap<u64, PathBuf>,
    /// Deferred nodes, by the inode of their directory.
    nodes: BTreeMap<Identity, BTreeMap<OsString, Node>>,
    /// Deferred attributes, by inode.
    xattrs: BTreeMap<Identity, Xattrs>,
    /// The attributes of the host and of overlays that were left out, with their counts.
    left_out: BTreeMap<Vec<u8>, u64>,
}

impl<'a> Walker<'a> {
    /// A walker who knows the deferred nodes and attributes of the tree.
    fn new(tree: Tree<'a>, results: &'a [Identity], ui: &'a dyn Progress) -> Result<Self> {
        let Tree { root: tree, deferred, part } = tree;
        let mut walker = Walker {
            tree,
            part,
            names: false,
            results,
            owners: Owners::default(),
            ui,
            links: HashMap::new(),
            deferred: HashMap::new(),
            nodes: BTreeMap::new(),
            xattrs: BTreeMap::new(),
            left_out: BTreeMap::new(),
        };
        let mut last: Option<(&Path, Identity)> = None;
        for (path, node) in deferred.nodes() {
            let (Some(above), Some(name)) = (path.parent(), path.file_name()) else { continue };
            let inode = match last {
                Some((path, inode)) if path == above => inode,
                // A component may be a symlink by now, or missing.
                _ => match tree.openat2(above, OFlags::PATH | OFlags::DIRECTORY, Mode::empty()) {
                    Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => continue,
                    other => {
                        let stat = other.and_then(rustix::fs::fstat).system(|| tree.doing("examining", above))?;
                        (stat.st_dev, stat.st_ino)
                    }
                },
            };
            last = Some((above, inode));
            walker.nodes.entry(inode).or_default().insert(name.to_owned(), node.clone());
        }
        for (path, xattrs) in deferred.xattrs() {
            // The inode may have several names, and another one may be written first.
            if let Some(stat) = tree.stat(path)? {
                walker.xattrs.entry((stat.st_dev, stat.st_ino)).or_default().extend_from_slice(xattrs);
            }
        }
        Ok(walker)
    }

    fn run(mut self, take: &mut dyn FnMut(Item) -> Result<()>) -> Result<()> {
        let root = self.tree.open_dir(Path::new(""))?;
        let mut levels = vec![self.enter(root, PathBuf::new(), take)?];
        while let Some(level) = levels.last_mut() {
            let Some((name, known)) = level.rest.pop() else {
                levels.pop();
                continue;
            };
            let path = level.path.join(&name);
            if path.as_os_str().len() > MAX_PATH || name.len() > MAX_NAME {
                return Err(Error::system(format!("{}: the path is too long", self.tree.doing("packing", &path))));
            }
            let fd = match level.fd.take() {
                Some(fd) => fd,
                None => self.reopen(level)?,
            };
            let entered = self.visit(fd.as_fd(), &name, path, known, take);
            level.fd = Some(fd);
            if let Some(below) = entered? {
                levels.push(below);
                if let Some(far) = levels.len().checked_sub(OPEN_LEVELS + 1) {
                    levels[far].fd = None;
                }
            }
        }
        self.report_left_out();
        Ok(())
    }

    /// Reopens a directory that was closed on the way down.
    fn reopen(&self, Level { path, identity, .. }: &Level) -> Result<OwnedFd> {
        let resolve = ResolveFlags::NO_XDEV | ResolveFlags::NO_SYMLINKS | ResolveFlags::IN_ROOT;
        let fd = rootfs::openat2(self.tree.fd(), path, OFlags::RDONLY | OFlags::DIRECTORY, Mode::empty(), resolve)
            .system(|| self.tree.doing("opening", path))?;
        let stat = rustix::fs::fstat(&fd).system(|| self.tree.doing("examining", path))?;
        if (stat.st_dev, stat.st_ino) == *identity { Ok(fd) } else { Err(self.changed(path)) }
    }

    fn changed(&self, path: &Path) -> Error {
        Error::system(format!("{}: it was replaced while the tree was packed", self.tree.doing("packing", path)))
            .with_hint("pack a tree that no program writes to, or a snapshot of it")
    }

    /// Emits a directory and lists it.
    fn enter(&mut self, fd: OwnedFd, path: PathBuf, take: &mut dyn FnMut(Item) -> Result<()>) -> Result<Level> {
        let stat = rustix::fs::fstat(&fd).system(|| self.tree.doing("examining", &path))?;
        self.refuse_result(&stat, &path)?;
        let (meta, opaque) = self.meta(&stat, fd.as_fd(), &Of::Open(fd.as_fd()), &path)?;
        take(Item { opaque, ..Item::new(path.clone(), NodeKind::Dir, meta).with_inode(&stat) })?;

        let listed = rootfs::list(fd.as_fd()).system(|| self.tree.doing("listing", &path))?;
        let mut rest: Vec<(OsString, Known)> =
            listed.into_iter().map(|(name, kind)| (name, Known::There(kind))).collect();
        if let Some(nodes) = self.nodes.remove(&(stat.st_dev, stat.st_ino)) {
            for (name, node) in nodes {
                if let Err(at) = rest.binary_search_by(|(have, _)| have.cmp(&name)) {
                    rest.insert(at, (name, Known::Deferred(Box::new(node))));
                }
            }
        }
        rest.reverse();
        Ok(Level { path, identity: (stat.st_dev, stat.st_ino), fd: Some(fd), rest })
    }

    /// Emits one name of a directory. Returns the level to walk next if the name is a directory.
    fn visit(
        &mut self,
        at: BorrowedFd<'_>,
        name: &OsStr,
        path: PathBuf,
        known: Known,
        take: &mut dyn FnMut(Item) -> Result<()>,
    ) -> Result<Option<Level>> {
        if self.part.is_some_and(|part| !part.has(&path)) {
            return Ok(None);
        }
        let item = match known {
            Known::Deferred(node) => Some(self.deferred(path, *node)),
            Known::There(FileType::Directory) => {
                let fd = self.open(at, name, OFlags::RDONLY | OFlags::DIRECTORY, &path)?;
                return self.enter(fd, path, take).map(Some);
            }
            Known::There(FileType::RegularFile) => Some(self.file(at, name, path)?),
            Known::There(FileType::Socket) => {
                self.ui.note(&format!("left out the socket {}", path.as_os_str().as_bytes().escape_ascii()));
                None
            }
            Known::There(_) => Some(self.other(at, name, path)?),
        };
        if let Some(item) = item {
            take(item)?;
        }
        Ok(None)
    }

    /// Opens a name without following a symlink or a mount.
    fn open(&self, at: BorrowedFd<'_>, name: &OsStr, flags: OFlags, path: &Path) -> Result<OwnedFd> {
        let resolve = ResolveFlags::NO_XDEV | ResolveFlags::NO_SYMLINKS | ResolveFlags::BENEATH;
        match rootfs::openat2(at, Path::new(name), flags | OFlags::NOFOLLOW, Mode::empty(), resolve) {
            Err(Errno::XDEV) => {
                let doing = self.tree.doing("packing", path);
                Err(Error::system(format!("{doing}: it is a mount point")).with_hint(format!(
                    "unmount it, or pack the tree without its mounts: `mount --bind {} DIR` shows it so in DIR",
                    self.tree.path().display()
                )))
            }
            other => other.system(|| self.tree.doing("opening", path)),
        }
    }

    fn file(&mut self, at: BorrowedFd<'_>, name: &OsStr, path: PathBuf) -> Result<Item> {
        let fd = self.open(at, name, OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY, &path)?;
        let stat = rustix::fs::fstat(&fd).system(|| self.tree.doing("examining", &path))?;
        if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
            return Err(self.changed(&path));
        }
        self.refuse_result(&stat, &path)?;
        let (meta, _) = self.meta(&stat, fd.as_fd(), &Of::Open(fd.as_fd()), &path)?;
        let (first, linked) = self.first_name(&stat, &path);
        let size = stat.st_size as u64;
        let holes = (stat.st_blocks as u64).saturating_mul(512) < size;
        Ok(match first {
            Some(first) => Item { linked, ..Item::new(path, NodeKind::Hardlink(first), meta) },
            None => Item { size, file: Some(fd), holes, linked, ..Item::new(path, NodeKind::File, meta) },
        }
        .with_inode(&stat))
    }

    /// Emits a symlink, a pipe or a device, none of which is opened.
    fn other(&mut self, at: BorrowedFd<'_>, name: &OsStr, path: PathBuf) -> Result<Item> {
        let fd = self.open(at, name, OFlags::PATH, &path)?;
        let stat = rustix::fs::fstat(&fd).system(|| self.tree.doing("examining", &path))?;
        let device = || (rustix::fs::major(stat.st_rdev), rustix::fs::minor(stat.st_rdev));
        let kind = match FileType::from_raw_mode(stat.st_mode) {
            FileType::Symlink => {
                let target = rustix::fs::readlinkat(&fd, "", Vec::new());
                NodeKind::Symlink(target.system(|| self.tree.doing("reading the symlink", &path))?.into_bytes())
            }
            FileType::Fifo => NodeKind::Fifo,
            FileType::CharacterDevice => NodeKind::Char(device().0, device().1),
            FileType::BlockDevice => NodeKind::Block(device().0, device().1),
            _ => return Err(self.changed(&path)),
        };
        let (meta, _) = self.meta(&stat, fd.as_fd(), &Of::Name(at, name), &path)?;
        let (first, linked) = self.first_name(&stat, &path);
        let kind = first.map_or(kind, NodeKind::Hardlink);
        Ok(Item { linked, ..Item::new(path, kind, meta).with_inode(&stat) })
    }

    /// Refuses a file or directory that the caller writes to.
    fn refuse_result(&self, stat: &Stat, path: &Path) -> Result<()> {
        if !self.results.contains(&(stat.st_dev, stat.st_ino)) {
            return Ok(());
        }
        let doing = self.tree.doing("packing", path);
        Err(Error::usage(format!("{doing}: a result is written there")).with_hint(RESULT_IN_TREE))
    }

    /// Returns the first name of an inode, or `None` if this is it; and whether more names may follow.
    fn first_name(&mut self, stat: &Stat, path: &Path) -> (Option<PathBuf>, bool) {
        if stat.st_nlink <= 1 || self.names {
            return (None, stat.st_nlink > 1);
        }
        match self.links.entry((stat.st_dev, stat.st_ino)) {
            Entry::Occupied(mut have) => {
                let (first, left) = have.get_mut();
                *left = left.saturating_sub(1);
                // Forget an inode after its last name, to bound the memory for a tree of many links.
                if *left == 0 { (Some(have.remove().0), false) } else { (Some(first.clone()), true) }
            }
            Entry::Vacant(free) => {
                free.insert((path.to_owned(), usize::try_from(stat.st_nlink - 1).unwrap_or(usize::MAX)));
                (None, true)
            }
        }
    }

    fn deferred(&mut self, path: PathBuf, node: Node) -> Item {
        let linked = node.inode != 0;
        let first = match (linked && !self.names).then(|| self.deferred.entry(node.inode)) {
            Some(Entry::Occupied(have)) => Some(have.get().clone()),
            Some(Entry::Vacant(free)) => {
                free.insert(path.clone());
                None
            }
            None => None,
        };
        let kind = match (first, node.block) {
            (Some(first), _) => NodeKind::Hardlink(first),
            (None, true) => NodeKind::Block(node.major, node.minor),
            (None, false) => NodeKind::Char(node.major, node.minor),
        };
        let mut meta = Meta { mode: node.mode, uid: node.uid, gid: node.gid, mtime: node.mtime, xattrs: node.xattrs };
        meta.xattrs.retain(|(name, _)| !self.leave_out(name, rootfs::is_host_xattr(name)));
        meta.xattrs.sort_unstable();
        Item { linked, identity: (0, node.inode), ..Item::new(path, kind, meta) }
    }

    /// Reads the metadata of an inode, and whether it is an opaque directory.
    fn meta(&mut self, stat: &Stat, fd: BorrowedFd<'_>, of: &Of<'_>, path: &Path) -> Result<(Meta, bool)> {
        let (mut xattrs, opaque) = self.xattrs(of).system(|| self.tree.doing("reading the attributes of", path))?;
        let unmapped = match self.owners.unmapped(fd, stat)? {
            true => Some("its owner or its group"),
            false if xattrs.iter().any(is_unmapped_acl) => Some("a user or group in its ACL"),
            false => None,
        };
        if let Some(who) = unmapped {
            let doing = self.tree.doing("packing", path);
            let error = Error::system(format!("{doing}: {who} is not mapped in this user namespace"));
            return Err(error.with_hint(UNMAPPED));
        }
        for (name, value) in self.xattrs.get(&(stat.st_dev, stat.st_ino)).cloned().into_iter().flatten() {
            if !self.leave_out(&name, rootfs::is_host_xattr(&name)) && !xattrs.iter().any(|(have, _)| *have == name) {
                xattrs.push((name, value));
            }
        }
        xattrs.sort_unstable();
        let mtime = Time { sec: stat.st_mtime, nsec: stat.st_mtime_nsec as u32 };
        Ok((Meta { mode: stat.st_mode & 0o7777, uid: stat.st_uid, gid: stat.st_gid, mtime, xattrs }, opaque))
    }

    /// Reads all extended attributes, except those of the host and of overlays, which are counted. Returns true beside them if one of
    /// the latter marks an opaque directory.
    fn xattrs(&mut self, of: &Of<'_>) -> rustix::io::Result<(Xattrs, bool)> {
        let names = rootfs::all_xattr_names(|to| match of {
            Of::Open(fd) => rustix::fs::flistxattr(fd, to),
            Of::Name(at, name) => at::list_xattrs(*at, name, to),
        })?;
        let (mut all, mut opaque) = (Vec::new(), false);
        for name in names {
            if OPAQUE.contains(&name.as_slice()) {
                opaque |= of.get(&name)? == b"y";
            }
            if !self.leave_out(&name, rootfs::is_host_xattr(&name) || rootfs::is_overlay_xattr(&name)) {
                let value = of.get(&name)?;
                all.push((name, value));
            }
        }
        Ok((all, opaque))
    }

    /// Counts an attribute if it is to be left out, and returns that.
    fn leave_out(&mut self, name: &[u8], left_out: bool) -> bool {
        if left_out {
            let known = self.left_out.contains_key(name) || self.left_out.len() < MAX_LEFT_OUT;
            *self.left_out.entry(if known { name.to_owned() } else { b"others".to_vec() }).or_default() += 1;
        }
        left_out
    }

    /// Reports the attributes that were left out, by name.
    fn report_left_out(&self) {
        if self.left_out.is_empty() {
            return;
        }
        let total: u64 = self.left_out.values().sum();
        let names = self.left_out.iter().map(|(name, count)| format!("{} ({count})", name.escape_ascii()));
        let names = names.collect::<Vec<_>>().join(", ");
        self.ui.note(&format!("left out {total} extended attributes that belong to this machine: {names}"));
    }
}

/// Tells an ACL with invalid ids, which the kernel shows for ids that are not mapped.
fn is_unmapped_acl((name, value): &(Vec<u8>, Vec<u8>)) -> bool {
    (name == acl::ACCESS.as_bytes() || name == acl::DEFAULT.as_bytes())
        && acl::format(value).is_none_or(|text| acl::parse(&text).is_err())
}

/// The file whose attributes are read.
enum Of<'a> {
    /// An open file or directory.
    Open(BorrowedFd<'a>),
    /// A name in an open directory.
    Name(BorrowedFd<'a>, &'a OsStr),
}

impl Of<'_> {
    /// Reads the value of an attribute.
    fn get(&self, name: &[u8]) -> rustix::io::Result<Vec<u8>> {
        let mut value = vec![0; MAX_XATTR];
        let length = match self {
            Self::Open(fd) => rustix::fs::fgetxattr(fd, name, &mut value[..]),
            Self::Name(at, of) => at::get_xattr(*at, of, name, &mut value[..]),
        };
        value.truncate(length?);
        Ok(value)
    }
}
