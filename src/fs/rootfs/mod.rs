//! A handle of a tree. The kernel resolves every path inside the tree (`openat2` with `RESOLVE_IN_ROOT`), so neither an absolute
//! symlink nor `..` reaches the host. All other calls use the descriptor of a directory and a name of one component.
//!
//! No decision depends on the text of a path, or on a lookup before the file is opened.

pub(crate) mod at;
mod remove;
#[cfg(test)]
mod tests;

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::Read;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use rustix::fs::{AtFlags, FileType, Gid, Mode, OFlags, ResolveFlags, Stat, Uid};
use rustix::io::Errno;

use crate::base::error::{Context, Error, Result};

pub(crate) use self::remove::remove_at;

/// Time for which a lookup is repeated while the kernel asks for it, because of renames in the tree.
const PATIENCE: Duration = Duration::from_secs(10);

/// Number of symlinks in a path that the kernel follows.
const MAX_LINKS: usize = 40;

/// Number of directories on the current path that stay open during a walk.
pub(crate) const OPEN_LEVELS: usize = 64;

/// Longest value of an extended attribute on Linux, in bytes.
pub(crate) const MAX_XATTR: usize = 64 << 10;

/// Flags for the lookup of every path.
const IN_ROOT: ResolveFlags = ResolveFlags::IN_ROOT.union(ResolveFlags::NO_MAGICLINKS);

/// A tree of files, identified by a descriptor of its root directory.
#[derive(Debug)]
pub struct Rootfs {
    fd: OwnedFd,
    path: PathBuf,
}

impl Rootfs {
    /// Opens the directory `path` as the root of a tree.
    pub fn open(path: &Path) -> Result<Self> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let fd =
            rustix::fs::open(path, flags, Mode::empty()).system(|| format!("opening the tree {}", path.display()))?;
        Ok(Self { fd, path: path.to_owned() })
    }

    /// Uses the directory `fd` as the root of a tree. Messages call it `path`.
    pub fn of(fd: OwnedFd, path: &Path) -> Self {
        Self { fd, path: path.to_owned() }
    }

    /// Returns the path for messages.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Returns the descriptor of the root directory.
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    /// Duplicates the handle.
    pub fn try_clone(&self) -> Result<Self> {
        let fd = self.fd.try_clone().system(|| format!("duplicating the handle of {}", self.path.display()))?;
        Ok(Self { fd, path: self.path.clone() })
    }

    /// Reads the regular file `path`, following symlinks inside the tree. Returns `None` if it does not exist. More than `max` bytes
    /// are an error, and so is any other type of file.
    pub fn read(&self, path: &Path, max: u64) -> Result<Option<Vec<u8>>> {
        let Some(file) = self.open_file(path)? else { return Ok(None) };
        let mut bytes = Vec::new();
        file.take(max.saturating_add(1)).read_to_end(&mut bytes).system(|| self.doing("reading", path))?;
        if bytes.len() as u64 > max {
            return Err(Error::system(format!("{}: larger than {max} bytes", self.doing("reading", path))));
        }
        Ok(Some(bytes))
    }

    /// Opens the regular file `path` for reading, following symlinks inside the tree. Returns `None` if it does not exist.
    pub fn open_file(&self, path: &Path) -> Result<Option<File>> {
        // Opening a device can have side effects, so the type is checked first.
        let handle = match self.openat2(path, OFlags::PATH, Mode::empty()) {
            Ok(handle) => handle,
            Err(Errno::NOENT) => return Ok(None),
            Err(error) => return Err(error).system(|| self.doing("opening", path)),
        };
        self.check_regular(&handle, path)?;
        let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY;
        let fd = self.openat2(path, flags, Mode::empty()).system(|| self.doing("opening", path))?;
        self.check_regular(&fd, path)?;
        Ok(Some(File::from(fd)))
    }

    fn check_regular(&self, fd: &OwnedFd, path: &Path) -> Result<()> {
        let stat = rustix::fs::fstat(fd).system(|| self.doing("examining", path))?;
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::RegularFile => Ok(()),
            _ => Err(Error::system(format!("{}: it is not a regular file", self.doing("opening", path)))),
        }
    }

    /// Opens the directory `path`, following symlinks inside the tree.
    pub fn open_dir(&self, path: &Path) -> Result<OwnedFd> {
        self.openat2(path, OFlags::RDONLY | OFlags::DIRECTORY, Mode::empty()).system(|| self.doing("opening", path))
    }

    /// Writes a file. Creates missing parents (0755). Replaces an existing file or symlink of that name.
    pub fn write(&self, path: &Path, bytes: &[u8], mode: u32) -> Result<()> {
        self.write_from(path, &mut &bytes[..], mode)
    }

    /// Writes a file like [`Rootfs::write`], with the bytes of `from`.
    pub fn write_from(&self, path: &Path, from: &mut impl Read, mode: u32) -> Result<()> {
        let (parent, name) = self.make_parent(path)?;
        let doing = || self.doing("writing", path);
        let temporary = temporary_name();
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let fd = rustix::fs::openat(&parent, &temporary, flags, Mode::from_raw_mode(0o600)).system(doing)?;
        let fill = || -> std::io::Result<()> {
            let mut file = File::from(fd);
            std::io::copy(from, &mut file)?;
            rustix::fs::fchmod(&file, Mode::from_raw_mode(mode & 0o7777))?;
            Ok(rustix::fs::renameat(&parent, &temporary, &parent, &name)?)
        };
        fill().system(doing).inspect_err(|_| _ = rustix::fs::unlinkat(&parent, &temporary, AtFlags::empty()))
    }

    /// Creates a symlink. Creates missing parents (0755). Replaces an existing file or symlink of that name.
    pub fn symlink(&self, target: &Path, path: &Path) -> Result<()> {
        let (parent, name) = self.make_parent(path)?;
        let doing = || self.doing("linking", path);
        let temporary = temporary_name();
        rustix::fs::symlinkat(target, &parent, &temporary).system(doing)?;
        rustix::fs::renameat(&parent, &temporary, &parent, &name)
            .system(doing)
            .inspect_err(|_| _ = rustix::fs::unlinkat(&parent, &temporary, AtFlags::empty()))
    }

    /// Creates the directory `path` and its missing parents with `mode`. Existing directories do not change.
    pub fn create_dir_all(&self, path: &Path, mode: u32) -> Result<()> {
        self.make_dirs(path, mode).map(drop).system(|| self.doing("creating", path))
    }

    /// Creates the directory `path` in an existing one. Returns false if a file of that name exists.
    pub fn create_dir(&self, path: &Path, mode: u32) -> Result<bool> {
        let (above, name) = split(path).ok_or_else(|| self.nameless(path))?;
        let made = self.openat2(above, OFlags::PATH | OFlags::DIRECTORY, Mode::empty()).and_then(|parent| {
            rustix::fs::mkdirat(&parent, name, Mode::from_raw_mode(0o700))?;
            at::chmod(parent.as_fd(), name, mode)
        });
        match made {
            Err(Errno::EXIST) => Ok(false),
            other => other.map(|()| true).system(|| self.doing("creating", path)),
        }
    }

    /// Changes the owner of `path` and, unless it is a symlink, its mode.
    pub fn own(&self, path: &Path, (uid, gid): (u32, u32), mode: Option<u32>) -> Result<()> {
        let path = cleaned(path);
        let (above, name) = split(&path).ok_or_else(|| self.nameless(&path))?;
        let changed = self.openat2(above, OFlags::PATH | OFlags::DIRECTORY, Mode::empty()).and_then(|parent| {
            let (uid, gid) = owner(uid, gid);
            rustix::fs::chownat(&parent, name, uid, gid, AtFlags::SYMLINK_NOFOLLOW)?;
            // A new owner takes the setuid bit away.
            mode.map_or(Ok(()), |mode| at::chmod(parent.as_fd(), name, mode))
        });
        changed.system(|| self.doing("changing the owner of", &path))
    }

    /// Renames `from` to `to`, which may be an empty directory if `from` is one.
    pub fn rename(&self, from: &Path, to: &Path) -> Result<()> {
        let (from_above, from_name) = split(from).ok_or_else(|| self.nameless(from))?;
        let (to_above, to_name) = split(to).ok_or_else(|| self.nameless(to))?;
        let open = |path| self.openat2(path, OFlags::PATH | OFlags::DIRECTORY, Mode::empty());
        let renamed = || rustix::fs::renameat(open(from_above)?, from_name, open(to_above)?, to_name);
        renamed().system(|| self.doing("renaming to", to))
    }

    /// Returns the directory `path` as a tree of its own. Messages call it `called`.
    pub fn subtree(&self, path: &Path, called: &Path) -> Result<Self> {
        Ok(Self { fd: self.open_dir(path)?, path: called.to_owned() })
    }

    /// Removes `path` with its content. A symlink is removed, not followed. Returns false if `path` does not exist. A mount below
    /// `path` is an error; files removed before it was found stay removed.
    pub fn remove(&self, path: &Path) -> Result<bool> {
        let path = cleaned(path);
        let Some((parent, name)) = self.parent(&path)? else { return Ok(false) };
        remove_at(parent.as_fd(), &name).system(|| self.doing("removing", &path))
    }

    /// Returns the metadata of `path` without following a symlink in its last component, or `None` if it does not exist.
    pub fn stat(&self, path: &Path) -> Result<Option<Stat>> {
        let path = cleaned(path);
        match self.openat2(&path, OFlags::PATH | OFlags::NOFOLLOW, Mode::empty()) {
            Ok(fd) => rustix::fs::fstat(fd).map(Some).system(|| self.doing("examining", &path)),
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => Ok(None),
            Err(error) => Err(error).system(|| self.doing("examining", &path)),
        }
    }

    /// Lists names and types in the directory `path`, sorted by bytes, without `.` and `..`.
    pub fn read_dir(&self, path: &Path) -> Result<Vec<(OsString, FileType)>> {
        let fd = self.open_dir(path)?;
        list(fd.as_fd()).system(|| self.doing("listing", path))
    }

    /// Returns the target of the symlink `path`, or `None` if it does not exist or is not a symlink.
    pub fn read_link(&self, path: &Path) -> Result<Option<PathBuf>> {
        let path = cleaned(path);
        let Some((parent, name)) = self.parent(&path)? else { return Ok(None) };
        match rustix::fs::readlinkat(&parent, &name, Vec::new()) {
            Ok(target) => Ok(Some(PathBuf::from(OsString::from_vec(target.into_bytes())))),
            Err(Errno::NOENT | Errno::INVAL) => Ok(None),
            Err(error) => Err(error).system(|| self.doing("reading the link", &path)),
        }
    }

    /// Syncs the file system of the tree to disk.
    pub fn sync(&self) -> Result<()> {
        rustix::fs::syncfs(&self.fd).system(|| format!("writing {} to disk", self.path.display()))
    }

    /// Opens `path` inside the tree. No other function passes a path of several components to the kernel.
    pub(crate) fn openat2(&self, path: &Path, flags: OFlags, mode: Mode) -> rustix::io::Result<OwnedFd> {
        openat2(self.fd.as_fd(), path, flags, mode, IN_ROOT)
    }

    /// Returns the real path of the directory `path`, without symlinks, as a key for bookkeeping. The kernel resolves it again when it
    /// is opened.
    pub(crate) fn real(&self, path: &Path) -> rustix::io::Result<PathBuf> {
        self.real_way(path, &mut |_| {})
    }

    /// Returns the real path like [`Rootfs::real`]. If the path leads through a symlink, even a dangling one, `each` is called with the
    /// real path of every component, including symlinks and the components of their targets.
    pub(crate) fn real_way(&self, path: &Path, each: &mut dyn FnMut(PathBuf)) -> rustix::io::Result<PathBuf> {
        let flags = OFlags::PATH | OFlags::DIRECTORY;
        match openat2(self.fd.as_fd(), path, flags, Mode::empty(), IN_ROOT.union(ResolveFlags::NO_SYMLINKS)) {
            Ok(_) if !path.iter().any(|name| name == "..") => return Ok(cleaned(path)),
            Ok(_) | Err(Errno::LOOP) => {}
            Err(error) => return Err(error),
        }
        let (mut real, mut links) = (PathBuf::new(), 0);
        let mut here = self.openat2(&real, flags, Mode::empty())?;
        let mut rest: Vec<OsString> = path.iter().rev().map(OsStr::to_owned).collect();
        while let Some(name) = rest.pop() {
            match name.as_bytes() {
                b"." => continue,
                b"/" => real.clear(),
                b".." => drop(real.pop()),
                _ => {
                    each(real.join(&name));
                    match rustix::fs::readlinkat(&here, &name, Vec::new()) {
                        Ok(_) if links == MAX_LINKS => return Err(Errno::LOOP),
                        Ok(target) => {
                            links += 1;
                            let target = Path::new(OsStr::from_bytes(target.as_bytes()));
                            rest.extend(target.iter().rev().map(OsStr::to_owned));
                        }
                        Err(Errno::INVAL) => {
                            here = rustix::fs::openat(
                                &here,
                                &name,
                                flags.union(OFlags::NOFOLLOW | OFlags::CLOEXEC),
                                Mode::empty(),
                            )?;
                            real.push(name);
                        }
                        Err(error) => return Err(error),
                    }
                    continue;
                }
            }
            here = self.openat2(&real, flags, Mode::empty())?;
        }
        Ok(real)
    }

    /// Opens the directory `path`. Creates missing components with `mode`.
    pub(crate) fn make_dirs(&self, path: &Path, mode: u32) -> rustix::io::Result<OwnedFd> {
        let flags = OFlags::PATH | OFlags::DIRECTORY;
        match self.openat2(path, flags, Mode::empty()) {
            Err(Errno::NOENT) => {}
            other => return other,
        }
        let (mut done, mut made) = (PathBuf::new(), false);
        let mut here = self.openat2(Path::new("."), flags, Mode::empty())?;
        for component in cleaned(path).components() {
            done.push(component);
            // A new directory is empty.
            let found = if made { Err(Errno::NOENT) } else { self.openat2(&done, flags, Mode::empty()) };
            here = match found {
                Err(Errno::NOENT) => {
                    made = true;
                    let name = component.as_os_str();
                    // EEXIST means a dangling symlink, which is an error.
                    rustix::fs::mkdirat(&here, name, Mode::from_raw_mode(0o700))?;
                    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                    let made = rustix::fs::openat(&here, name, flags, Mode::empty())?;
                    // Setting the mode afterwards avoids the umask.
                    rustix::fs::fchmod(&made, Mode::from_raw_mode(mode & 0o7777))?;
                    made
                }
                other => other?,
            };
        }
        Ok(here)
    }

    fn make_parent(&self, path: &Path) -> Result<(OwnedFd, OsString)> {
        let path = cleaned(path);
        let (above, name) = split(&path).ok_or_else(|| self.nameless(&path))?;
        let parent = self.make_dirs(above, 0o755).system(|| self.doing("creating the parent of", &path))?;
        Ok((parent, name.to_owned()))
    }

    /// Returns the directory that holds `path` and the name in it, or `None` if that directory does not exist.
    fn parent(&self, path: &Path) -> Result<Option<(OwnedFd, OsString)>> {
        let (above, name) = split(path).ok_or_else(|| self.nameless(path))?;
        match self.openat2(above, OFlags::PATH | OFlags::DIRECTORY, Mode::empty()) {
            Ok(fd) => Ok(Some((fd, name.to_owned()))),
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => Ok(None),
            Err(error) => Err(error).system(|| self.doing("opening the parent of", path)),
        }
    }

    fn nameless(&self, path: &Path) -> Error {
        Error::system(format!("{}: the path has no last component", self.doing("using", path)))
    }

    pub(crate) fn doing(&self, what: &str, path: &Path) -> String {
        let root = self.path.display();
        match path.as_os_str().as_bytes() {
            b"" => format!("{what} {root}"),
            path => format!("{what} {} in {root}", path.escape_ascii()),
        }
    }
}

/// Calls `openat2`, and repeats it for up to [`PATIENCE`] while the kernel asks for it.
pub(crate) fn openat2(
    dir: BorrowedFd<'_>,
    path: &Path,
    flags: OFlags,
    mode: Mode,
    resolve: ResolveFlags,
) -> rustix::io::Result<OwnedFd> {
    let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
    let mut deadline = None;
    loop {
        match rustix::fs::openat2(dir, path, flags | OFlags::CLOEXEC, mode, resolve) {
            Err(Errno::INTR) => {}
            Err(Errno::AGAIN) => {
                if Instant::now() > *deadline.get_or_insert_with(|| Instant::now() + PATIENCE) {
                    return Err(Errno::AGAIN);
                }
                std::thread::yield_now();
            }
            other => return other,
        }
    }
}

/// Returns true for the internal attributes of overlayfs. From an archive they would change the meaning of a layer.
pub(crate) fn is_overlay_xattr(name: &[u8]) -> bool {
    name.starts_with(b"trusted.overlay.") || name.starts_with(b"user.overlay.")
}

/// Returns true for attributes that belong to the machine or the file system and not to the tree: labels and signatures of security
/// modules, NFS ACLs, properties of btrfs and similar ones. See xattr(7).
pub(crate) fn is_host_xattr(name: &[u8]) -> bool {
    let mut parts = name.splitn(2, |byte| *byte == b'.');
    match (parts.next().unwrap_or_default(), parts.next().unwrap_or_default()) {
        (b"user" | b"trusted", _) => false,
        (b"security", label) => label.starts_with(b"SMACK64") || matches!(label, b"selinux" | b"apparmor" | b"evm"),
        (b"system", rest) => !rest.starts_with(b"posix_acl_"),
        _ => true,
    }
}

/// Returns the names of the extended attributes that `list` lists, except those of the host and of overlays.
pub(crate) fn xattr_names(
    list: impl FnMut(&mut [u8]) -> rustix::io::Result<usize>,
) -> rustix::io::Result<Vec<Vec<u8>>> {
    let mut names = all_xattr_names(list)?;
    names.retain(|name| !is_host_xattr(name) && !is_overlay_xattr(name));
    Ok(names)
}

/// Returns the names of all extended attributes that `list` lists.
pub(crate) fn all_xattr_names(
    mut list: impl FnMut(&mut [u8]) -> rustix::io::Result<usize>,
) -> rustix::io::Result<Vec<Vec<u8>>> {
    // Few files have attributes, so a small buffer is tried first. The large one holds the longest list of Linux.
    let mut small = [0u8; 256];
    let mut large = Vec::new();
    let names = match list(&mut small) {
        Ok(length) => &small[..length],
        Err(Errno::OPNOTSUPP) => &[],
        Err(Errno::RANGE) => {
            large.resize(64 << 10, 0);
            let length = list(&mut large)?;
            &large[..length]
        }
        Err(error) => return Err(error),
    };
    let names = names.split(|byte| *byte == 0).filter(|name| !name.is_empty());
    Ok(names.map(<[u8]>::to_vec).collect())
}

/// Lists names and types in an open directory, sorted by bytes.
pub(crate) fn list(dir: BorrowedFd<'_>) -> rustix::io::Result<Vec<(OsString, FileType)>> {
    let mut names = list_unsorted(dir)?;
    names.sort_unstable_by(|(_, one, _), (_, other, _)| one.cmp(other));
    Ok(names.into_iter().map(|(_, name, kind)| (name, kind)).collect())
}

/// Lists inode numbers, names and types in an open directory, in the order of the file system. Looks up types that the file system
/// does not report.
pub(crate) fn list_unsorted(dir: BorrowedFd<'_>) -> rustix::io::Result<Vec<(u64, OsString, FileType)>> {
    let mut names = Vec::new();
    let mut buffer = Vec::with_capacity(32 << 10);
    let reader = rustix::fs::openat(dir, ".", OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
    let mut entries = rustix::fs::RawDir::new(&reader, buffer.spare_capacity_mut());
    while let Some(entry) = entries.next() {
        let entry = entry?;
        let name = entry.file_name().to_bytes();
        if name == b"." || name == b".." {
            continue;
        }
        let kind = match entry.file_type() {
            FileType::Unknown => {
                let stat = rustix::fs::statat(&reader, entry.file_name(), AtFlags::SYMLINK_NOFOLLOW)?;
                FileType::from_raw_mode(stat.st_mode)
            }
            known => known,
        };
        names.push((entry.ino(), OsString::from_vec(name.to_vec()), kind));
    }
    Ok(names)
}

/// Converts owner and group for the system calls.
pub(crate) fn owner(uid: u32, gid: u32) -> (Option<Uid>, Option<Gid>) {
    (Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)))
}

/// Returns `path` relative to the root, without empty and `.` components and without a final slash, which would follow a symlink.
fn cleaned(path: &Path) -> PathBuf {
    path.components().filter(|c| !matches!(c, std::path::Component::RootDir | std::path::Component::CurDir)).collect()
}

/// Splits a path into its directory and last component. Returns `None` for the root and for paths that end in `..`.
fn split(path: &Path) -> Option<(&Path, &OsStr)> {
    Some((path.parent()?, path.file_name()?))
}

fn temporary_name() -> String {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    format!(".quern-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed))
}
