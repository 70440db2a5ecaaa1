//! A tree as a sequence of items in a fixed order: a directory before what is in it, names by their bytes. Read-only.
//!
//! Every directory is opened by its name in its parent's descriptor, every file likewise, and what is told of a file is what
//! its open descriptor says.

use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, HashMap};
use std::ffi::{OsStr, OsString};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::fs::{FileType, Mode, OFlags, ResolveFlags, Stat};
use rustix::io::Errno;

use crate::error::{Context, Error, Result};
use crate::progress::Progress;
use crate::rootfs::{self, Rootfs, last};
use crate::unpack::entry::{MAX_PATH, Meta, NodeKind, Time, Xattrs};
use crate::unpack::{Node, Record};

/// Directories on the way down whose descriptors stay open.
const OPEN_LEVELS: usize = 64;
/// The owner that the kernel shows where the real one has no id in this user namespace.
const NOBODY: u32 = 65534;
/// Longest value of an attribute that Linux gives.
const MAX_XATTR: usize = 64 << 10;

/// One thing of the tree.
#[derive(Debug)]
pub struct Item {
    /// Relative to the root; empty for the root itself.
    pub path: PathBuf,
    /// What it is. A hard link's target is the first name of its inode.
    pub kind: NodeKind,
    /// Owner, mode, time, and attributes sorted by name.
    pub meta: Meta,
    /// Size, of files with data.
    pub size: u64,
    /// The open file, of files with data.
    pub file: Option<OwnedFd>,
    /// Less of it is on the disk than it is long.
    pub holes: bool,
    /// Its inode may have more names, which are to come.
    pub linked: bool,
}

/// Walks `tree`, with what `record` adds to it, and gives each item to `take`.
pub fn walk(tree: &Rootfs, record: &Record, ui: &dyn Progress, take: &mut dyn FnMut(Item) -> Result<()>) -> Result<()> {
    let mut walker = Walker {
        tree,
        ui,
        foreign: false,
        links: HashMap::new(),
        recorded: HashMap::new(),
        nodes: BTreeMap::new(),
        xattrs: BTreeMap::new(),
    };
    let mut last: Option<(&Path, (u64, u64))> = None;
    for (path, node) in record.nodes() {
        let (Some(above), Some(name)) = (path.parent(), path.file_name()) else { continue };
        let inode = match last {
            Some((path, inode)) if path == above => inode,
            // The way there may lead through links, and none may lead there any more.
            _ => match tree.openat2(above, OFlags::PATH | OFlags::DIRECTORY, Mode::empty()) {
                Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => continue,
                other => {
                    let stat = other.and_then(rustix::fs::fstat).system(|| tree.doing("looking at", above))?;
                    (stat.st_dev, stat.st_ino)
                }
            },
        };
        last = Some((above, inode));
        walker.nodes.entry(inode).or_default().insert(name.to_owned(), node.clone());
    }
    for (path, xattrs) in record.xattrs() {
        // Of an inode with several names, another may be the one that is written.
        if let Some(stat) = tree.stat(path)? {
            walker.xattrs.entry((stat.st_dev, stat.st_ino)).or_default().extend_from_slice(xattrs);
        }
    }
    walker.run(take)
}

struct Level {
    path: PathBuf,
    /// While it is needed; closed when many levels are below it.
    fd: Option<OwnedFd>,
    /// What is still to come, last first.
    rest: Vec<(OsString, Known)>,
}

/// What a name in a directory is.
enum Known {
    There(FileType),
    Recorded(Box<Node>),
}

struct Walker<'a> {
    tree: &'a Rootfs,
    ui: &'a dyn Progress,
    /// Something has an owner without an id here, as was said.
    foreign: bool,
    /// First names of inodes that have several, and how many of these are still to come.
    links: HashMap<(u64, u64), (PathBuf, usize)>,
    /// First names of nodes that the record adds and that have several.
    recorded: HashMap<u64, PathBuf>,
    /// Nodes that the record adds, by the inode of their directory.
    nodes: BTreeMap<(u64, u64), BTreeMap<OsString, Node>>,
    /// Attributes that the record adds, by inode.
    xattrs: BTreeMap<(u64, u64), Xattrs>,
}

impl Walker<'_> {
    fn run(&mut self, take: &mut dyn FnMut(Item) -> Result<()>) -> Result<()> {
        let root = self.tree.open_dir(Path::new(""))?;
        let mut levels = vec![self.enter(root, PathBuf::new(), take)?];
        while let Some(level) = levels.last_mut() {
            let Some((name, known)) = level.rest.pop() else {
                levels.pop();
                continue;
            };
            let path = level.path.join(&name);
            if path.as_os_str().len() > MAX_PATH {
                return Err(Error::system(format!("{}: the path is too long", self.tree.doing("packing", &path))));
            }
            let fd = match level.fd.take() {
                Some(fd) => fd,
                None => self.reopen(&level.path)?,
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
        Ok(())
    }

    fn reopen(&self, path: &Path) -> Result<OwnedFd> {
        let resolve = ResolveFlags::NO_XDEV | ResolveFlags::NO_SYMLINKS | ResolveFlags::IN_ROOT;
        rootfs::openat2(self.tree.fd(), path, OFlags::RDONLY | OFlags::DIRECTORY, Mode::empty(), resolve)
            .system(|| self.tree.doing("opening", path))
    }

    /// Gives out a directory and lists it.
    fn enter(&mut self, fd: OwnedFd, path: PathBuf, take: &mut dyn FnMut(Item) -> Result<()>) -> Result<Level> {
        let stat = rustix::fs::fstat(&fd).system(|| self.tree.doing("looking at", &path))?;
        let meta = self.meta(&stat, &Of::Open(fd.as_fd()), &path)?;
        take(Item { path: path.clone(), kind: NodeKind::Dir, meta, size: 0, file: None, holes: false, linked: false })?;

        let listed = rootfs::list(fd.as_fd()).system(|| self.tree.doing("listing", &path))?;
        let mut rest: Vec<(OsString, Known)> =
            listed.into_iter().map(|(name, kind)| (name, Known::There(kind))).collect();
        if let Some(nodes) = self.nodes.remove(&(stat.st_dev, stat.st_ino)) {
            for (name, node) in nodes {
                if let Err(at) = rest.binary_search_by(|(have, _)| have.cmp(&name)) {
                    rest.insert(at, (name, Known::Recorded(Box::new(node))));
                }
            }
        }
        rest.reverse();
        Ok(Level { path, fd: Some(fd), rest })
    }

    /// Gives out one name of a directory; a directory in it is entered.
    fn visit(
        &mut self,
        at: BorrowedFd<'_>,
        name: &OsStr,
        path: PathBuf,
        known: Known,
        take: &mut dyn FnMut(Item) -> Result<()>,
    ) -> Result<Option<Level>> {
        let item = match known {
            Known::Recorded(node) => Some(self.recorded(path, *node)),
            Known::There(FileType::Directory) => {
                let fd = self.open(at, name, OFlags::RDONLY | OFlags::DIRECTORY, &path)?;
                return self.enter(fd, path, take).map(Some);
            }
            Known::There(FileType::RegularFile) => Some(self.file(at, name, path)?),
            Known::There(FileType::Socket) => {
                self.ui.note(&format!("{}: a socket, left out", path.as_os_str().as_bytes().escape_ascii()));
                None
            }
            Known::There(_) => Some(self.other(at, name, path)?),
        };
        if let Some(item) = item {
            take(item)?;
        }
        Ok(None)
    }

    /// Opens a name, which is no way to elsewhere: neither a link nor a mount is followed.
    fn open(&self, at: BorrowedFd<'_>, name: &OsStr, flags: OFlags, path: &Path) -> Result<OwnedFd> {
        let resolve = ResolveFlags::NO_XDEV | ResolveFlags::NO_SYMLINKS | ResolveFlags::BENEATH;
        match rootfs::openat2(at, Path::new(name), flags | OFlags::NOFOLLOW, Mode::empty(), resolve) {
            Err(Errno::XDEV) => {
                let doing = self.tree.doing("packing", path);
                Err(Error::system(format!("{doing}: something is mounted there")).with_hint(format!(
                    "unmount it, or pack what it hides: `mount --bind {} DIR` shows the tree in DIR without its mounts",
                    self.tree.path().display()
                )))
            }
            other => other.system(|| self.tree.doing("opening", path)),
        }
    }

    fn file(&mut self, at: BorrowedFd<'_>, name: &OsStr, path: PathBuf) -> Result<Item> {
        let fd = self.open(at, name, OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY, &path)?;
        let stat = rustix::fs::fstat(&fd).system(|| self.tree.doing("looking at", &path))?;
        if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
            return Err(Error::system(format!("{}: it changed meanwhile", self.tree.doing("packing", &path))));
        }
        let meta = self.meta(&stat, &Of::Open(fd.as_fd()), &path)?;
        let (first, linked) = self.first_name(&stat, &path);
        let size = stat.st_size as u64;
        let holes = (stat.st_blocks as u64).saturating_mul(512) < size;
        Ok(match first {
            Some(first) => {
                Item { path, kind: NodeKind::Hardlink(first), meta, size: 0, file: None, holes: false, linked }
            }
            None => Item { path, kind: NodeKind::File, meta, size, file: Some(fd), holes, linked },
        })
    }

    /// Links, pipes and devices, which are not opened.
    fn other(&mut self, at: BorrowedFd<'_>, name: &OsStr, path: PathBuf) -> Result<Item> {
        let fd = self.open(at, name, OFlags::PATH, &path)?;
        let stat = rustix::fs::fstat(&fd).system(|| self.tree.doing("looking at", &path))?;
        let device = || (rustix::fs::major(stat.st_rdev), rustix::fs::minor(stat.st_rdev));
        let kind = match FileType::from_raw_mode(stat.st_mode) {
            FileType::Symlink => {
                let target = rustix::fs::readlinkat(&fd, "", Vec::new());
                NodeKind::Symlink(target.system(|| self.tree.doing("reading the link", &path))?.into_bytes())
            }
            FileType::Fifo => NodeKind::Fifo,
            FileType::CharacterDevice => NodeKind::Char(device().0, device().1),
            FileType::BlockDevice => NodeKind::Block(device().0, device().1),
            _ => return Err(Error::system(format!("{}: it changed meanwhile", self.tree.doing("packing", &path)))),
        };
        let meta = self.meta(&stat, &Of::Name(at, name), &path)?;
        let (first, linked) = self.first_name(&stat, &path);
        let kind = first.map_or(kind, NodeKind::Hardlink);
        Ok(Item { path, kind, meta, size: 0, file: None, holes: false, linked })
    }

    /// The name under which an inode was given out before, none the first time; and whether there may be more.
    fn first_name(&mut self, stat: &Stat, path: &Path) -> (Option<PathBuf>, bool) {
        if stat.st_nlink <= 1 {
            return (None, false);
        }
        match self.links.entry((stat.st_dev, stat.st_ino)) {
            Entry::Occupied(mut have) => {
                let (first, left) = have.get_mut();
                *left = left.saturating_sub(1);
                // All of them were seen: a tree of many links needs no memory for those that are behind.
                if *left == 0 { (Some(have.remove().0), false) } else { (Some(first.clone()), true) }
            }
            Entry::Vacant(free) => {
                free.insert((path.to_owned(), usize::try_from(stat.st_nlink - 1).unwrap_or(usize::MAX)));
                (None, true)
            }
        }
    }

    fn recorded(&mut self, path: PathBuf, node: Node) -> Item {
        let linked = node.inode != 0;
        let first = match linked.then(|| self.recorded.entry(node.inode)) {
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
        meta.xattrs.sort_unstable();
        Item { path, kind, meta, size: 0, file: None, holes: false, linked }
    }

    fn meta(&mut self, stat: &Stat, of: &Of<'_>, path: &Path) -> Result<Meta> {
        let mut xattrs = xattrs(of).system(|| self.tree.doing("reading the attributes of", path))?;
        for (name, value) in self.xattrs.get(&(stat.st_dev, stat.st_ino)).into_iter().flatten() {
            if !xattrs.iter().any(|(have, _)| have == name) {
                xattrs.push((name.clone(), value.clone()));
            }
        }
        xattrs.sort_unstable();
        if stat.st_uid == NOBODY && !self.foreign && is_foreign(of) {
            self.foreign = true;
            let doing = self.tree.doing("packing", path);
            self.ui
                .warn(&format!("{doing}: its owner is outside this user's range of ids, and it is packed as nobody's"));
        }
        let mtime = Time { sec: stat.st_mtime, nsec: stat.st_mtime_nsec as u32 };
        Ok(Meta { mode: stat.st_mode & 0o7777, uid: stat.st_uid, gid: stat.st_gid, mtime, xattrs })
    }
}

/// Whose attributes to read.
enum Of<'a> {
    /// A file or directory that is open.
    Open(BorrowedFd<'a>),
    /// Something in a directory that is not opened.
    Name(BorrowedFd<'a>, &'a OsStr),
}

/// Whether the owner of what is open is only shown as [`NOBODY`]: of another's file with an id here, root here may ask for this.
fn is_foreign(of: &Of<'_>) -> bool {
    matches!(of, Of::Open(fd) if rustix::fs::fcntl_setfl(fd, OFlags::NOATIME) == Err(Errno::PERM))
}

/// All extended attributes but labels of the host and what overlays write for themselves.
fn xattrs(of: &Of<'_>) -> rustix::io::Result<Xattrs> {
    let names = rootfs::xattr_names(|to| match of {
        Of::Open(fd) => rustix::fs::flistxattr(fd, to),
        Of::Name(at, name) => last::list_xattrs(*at, name, to),
    })?;
    let mut all = Vec::new();
    for name in names {
        let mut value = vec![0; MAX_XATTR];
        let length = match of {
            Of::Open(fd) => rustix::fs::fgetxattr(fd, &name[..], &mut value[..]),
            Of::Name(at, of) => last::get_xattr(*at, of, &name, &mut value[..]),
        };
        value.truncate(length?);
        all.push((name, value));
    }
    Ok(all)
}
