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

use crate::archive::unpack::acl;
use crate::archive::unpack::entry::{MAX_NAME, MAX_PATH, Meta, NodeKind, Time, Xattrs};
use crate::archive::unpack::{Node, Record};
use crate::base::error::{Context, Error, Result};
use crate::base::progress::Progress;
use crate::fs::rootfs::{self, MAX_XATTR, OPEN_LEVELS, Rootfs, at};
use crate::os::userns::owners::Owners;

/// What to do about a result in the tree that it is made of.
pub const RESULT_IN_TREE: &str = "what is packed would depend on where the results go: write them outside of the tree";

/// What to do about an owner that is not known.
const UNMAPPED: &str = "ids that /etc/subuid and /etc/subgid do not give you all look like 65534: pack as root, or give the file to \
                        yourself with chown";

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

/// Device and inode number.
pub type Identity = (u64, u64);

/// Walks `tree`, with what `record` adds to it, and gives each item to `take`. `results` is where results of it go: there it ends.
pub fn walk(
    tree: &Rootfs,
    record: &Record,
    results: &[Identity],
    ui: &dyn Progress,
    take: &mut dyn FnMut(Item) -> Result<()>,
) -> Result<()> {
    let mut walker = Walker {
        tree,
        results,
        owners: Owners::default(),
        ui,
        links: HashMap::new(),
        recorded: HashMap::new(),
        nodes: BTreeMap::new(),
        xattrs: BTreeMap::new(),
    };
    let mut last: Option<(&Path, Identity)> = None;
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
    identity: Identity,
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
    results: &'a [Identity],
    owners: Owners,
    ui: &'a dyn Progress,
    /// First names of inodes that have several, and how many of these are still to come.
    links: HashMap<Identity, (PathBuf, usize)>,
    /// First names of nodes that the record adds and that have several.
    recorded: HashMap<u64, PathBuf>,
    /// Nodes that the record adds, by the inode of their directory.
    nodes: BTreeMap<Identity, BTreeMap<OsString, Node>>,
    /// Attributes that the record adds, by inode.
    xattrs: BTreeMap<Identity, Xattrs>,
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
        Ok(())
    }

    /// Opens a directory again that was closed on the way down.
    fn reopen(&self, Level { path, identity, .. }: &Level) -> Result<OwnedFd> {
        let resolve = ResolveFlags::NO_XDEV | ResolveFlags::NO_SYMLINKS | ResolveFlags::IN_ROOT;
        let fd = rootfs::openat2(self.tree.fd(), path, OFlags::RDONLY | OFlags::DIRECTORY, Mode::empty(), resolve)
            .system(|| self.tree.doing("opening", path))?;
        let stat = rustix::fs::fstat(&fd).system(|| self.tree.doing("looking at", path))?;
        if (stat.st_dev, stat.st_ino) == *identity { Ok(fd) } else { Err(self.changed(path)) }
    }

    fn changed(&self, path: &Path) -> Error {
        Error::system(format!("{}: it changed meanwhile", self.tree.doing("packing", path)))
    }

    /// Gives out a directory and lists it.
    fn enter(&mut self, fd: OwnedFd, path: PathBuf, take: &mut dyn FnMut(Item) -> Result<()>) -> Result<Level> {
        let stat = rustix::fs::fstat(&fd).system(|| self.tree.doing("looking at", &path))?;
        self.no_result(&stat, &path)?;
        let meta = self.meta(&stat, fd.as_fd(), &Of::Open(fd.as_fd()), &path)?;
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
        Ok(Level { path, identity: (stat.st_dev, stat.st_ino), fd: Some(fd), rest })
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
            return Err(self.changed(&path));
        }
        self.no_result(&stat, &path)?;
        let meta = self.meta(&stat, fd.as_fd(), &Of::Open(fd.as_fd()), &path)?;
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
            _ => return Err(self.changed(&path)),
        };
        let meta = self.meta(&stat, fd.as_fd(), &Of::Name(at, name), &path)?;
        let (first, linked) = self.first_name(&stat, &path);
        let kind = first.map_or(kind, NodeKind::Hardlink);
        Ok(Item { path, kind, meta, size: 0, file: None, holes: false, linked })
    }

    /// Refuses what is being written.
    fn no_result(&self, stat: &Stat, path: &Path) -> Result<()> {
        if !self.results.contains(&(stat.st_dev, stat.st_ino)) {
            return Ok(());
        }
        let doing = self.tree.doing("packing", path);
        Err(Error::usage(format!("{doing}: that is where the result of it goes")).with_hint(RESULT_IN_TREE))
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
        meta.xattrs.retain(|(name, _)| !rootfs::is_host_xattr(name));
        meta.xattrs.sort_unstable();
        Item { path, kind, meta, size: 0, file: None, holes: false, linked }
    }

    fn meta(&mut self, stat: &Stat, fd: BorrowedFd<'_>, of: &Of<'_>, path: &Path) -> Result<Meta> {
        let mut xattrs = xattrs(of).system(|| self.tree.doing("reading the attributes of", path))?;
        let unmapped = match self.owners.unmapped(fd, stat)? {
            true => Some("its owner or its group"),
            false if xattrs.iter().any(is_unreadable_list) => Some("somebody in its list of access"),
            false => None,
        };
        if let Some(who) = unmapped {
            let doing = self.tree.doing("packing", path);
            let error = Error::system(format!("{doing}: {who} is not mapped in this user namespace"));
            return Err(error.with_hint(UNMAPPED));
        }
        for (name, value) in self.xattrs.get(&(stat.st_dev, stat.st_ino)).into_iter().flatten() {
            if !rootfs::is_host_xattr(name) && !xattrs.iter().any(|(have, _)| have == name) {
                xattrs.push((name.clone(), value.clone()));
            }
        }
        xattrs.sort_unstable();
        let mtime = Time { sec: stat.st_mtime, nsec: stat.st_mtime_nsec as u32 };
        Ok(Meta { mode: stat.st_mode & 0o7777, uid: stat.st_uid, gid: stat.st_gid, mtime, xattrs })
    }
}

/// Whether an attribute is a list of access with numbers that stand for nobody, as the kernel gives those that are not mapped.
fn is_unreadable_list((name, value): &(Vec<u8>, Vec<u8>)) -> bool {
    (name == acl::ACCESS.as_bytes() || name == acl::DEFAULT.as_bytes())
        && acl::format(value).is_none_or(|text| acl::parse(&text).is_err())
}

/// Whose attributes to read.
enum Of<'a> {
    /// A file or directory that is open.
    Open(BorrowedFd<'a>),
    /// Something in a directory that is not opened.
    Name(BorrowedFd<'a>, &'a OsStr),
}

/// All extended attributes but those of the host and what overlays write for themselves.
fn xattrs(of: &Of<'_>) -> rustix::io::Result<Xattrs> {
    let names = rootfs::xattr_names(|to| match of {
        Of::Open(fd) => rustix::fs::flistxattr(fd, to),
        Of::Name(at, name) => at::list_xattrs(*at, name, to),
    })?;
    let mut all = Vec::new();
    for name in names {
        let mut value = vec![0; MAX_XATTR];
        let length = match of {
            Of::Open(fd) => rustix::fs::fgetxattr(fd, &name[..], &mut value[..]),
            Of::Name(at, of) => at::get_xattr(*at, of, &name, &mut value[..]),
        };
        value.truncate(length?);
        all.push((name, value));
    }
    Ok(all)
}
