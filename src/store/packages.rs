//! Directories of binary packages that builds share: `category/name/file`, beside an index and the key of the directory.
//!
//! Files are added and never changed, so a reader needs no lock. A writer holds the lock of the directory. Before a file is removed, it is
//! retired: it stays for a time for readers that have an older index, and counts as not there. The meaning of the index and of the key is
//! the caller's.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};
use std::time::{Duration, UNIX_EPOCH};

use rustix::fs::{Dir, FileType, Mode as FileMode, OFlags};

use super::Store;
use crate::base::error::{Context, Kind, Result};
use crate::fs::atomic;
use crate::fs::lock::{self, Mode};

/// Name of the index.
const INDEX: &str = "Packages";
/// Name of the compressed index.
const COMPRESSED: &str = "Packages.gz";
/// Name of the file with the key.
const KEY: &str = "key.json";
/// Name of the list of retired packages.
const RETIRED: &str = "retired.json";
/// Longest index, and longest other file, that are read, in bytes.
const MAX_INDEX: u64 = 256 << 20;
const MAX_KEY: u64 = 1 << 20;
/// Suffix of a package.
const SUFFIX: &[u8] = b".gpkg.tar";

const DIRECTORY: OFlags = OFlags::DIRECTORY.union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);
const FILE: OFlags = OFlags::NONBLOCK.union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// Retired packages, by path below the directory, each with the time of its retirement in seconds since 1970.
pub type Retired = BTreeMap<PathBuf, u64>;

/// A directory of packages.
#[derive(Debug)]
pub struct Shelf {
    path: PathBuf,
    fd: OwnedFd,
}

/// A directory of packages whose lock is held. Dropping it releases the lock.
#[derive(Debug)]
pub struct Locked<'a> {
    shelf: &'a Shelf,
    _lock: OwnedFd,
}

/// A regular file in a directory of packages.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Entry {
    /// Path below the directory.
    pub path: PathBuf,
    /// Size in bytes.
    pub size: u64,
    /// Modification time in seconds since 1970.
    pub mtime: i64,
}

impl Store {
    /// Returns the directory of the packages of all keys, which need not exist.
    pub fn packages(home: &Path) -> PathBuf {
        home.join("cache/packages")
    }

    /// Lists the directories of packages that have an index: that of each key, and those of earlier versions of this program.
    ///
    /// # Errors
    /// [`Kind::System`] if a directory cannot be read.
    pub fn package_directories(&self) -> Result<Vec<PathBuf>> {
        let mut found = Vec::new();
        for directory in [self.root().join("cache"), Self::packages(self.root())] {
            let entries = match fs_err::read_dir(&directory) {
                Ok(entries) => entries,
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                Err(error) => return Err(error).system(|| "listing the caches of packages"),
            };
            for entry in entries {
                let path = entry.system(|| "listing the caches of packages")?.path();
                if path.join(INDEX).is_file() {
                    found.push(path);
                }
            }
        }
        found.sort();
        Ok(found)
    }
}

impl Shelf {
    /// Opens the directory `path`, and makes it if it is missing.
    ///
    /// # Errors
    /// [`Kind::System`] if it cannot be made or opened.
    pub fn make(path: &Path) -> Result<Self> {
        fs_err::create_dir_all(path).system(|| format!("making the cache {}", path.display()))?;
        Self::open(path)
    }

    /// Opens the directory `path`.
    ///
    /// # Errors
    /// [`Kind::System`] if it cannot be opened.
    pub fn open(path: &Path) -> Result<Self> {
        let flags = OFlags::DIRECTORY | OFlags::CLOEXEC;
        let fd = rustix::fs::open(path, flags, FileMode::empty())
            .system(|| format!("opening the cache {}", path.display()))?;
        Ok(Self { path: path.to_owned(), fd })
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Reads the key, if the directory has one.
    ///
    /// # Errors
    /// [`Kind::System`] if it cannot be read.
    pub fn key(&self) -> Result<Option<Vec<u8>>> {
        self.read(KEY, MAX_KEY)
    }

    /// Reads the index, if the directory has one.
    ///
    /// # Errors
    /// [`Kind::System`] if it cannot be read.
    pub fn index(&self) -> Result<Option<Vec<u8>>> {
        self.read(INDEX, MAX_INDEX)
    }

    /// Opens a package.
    ///
    /// # Errors
    /// Those of the system, also for something that is not a regular file.
    pub fn file(&self, path: &Path) -> io::Result<File> {
        let mut directory = self.fd.try_clone()?;
        for name in path.parent().into_iter().flatten() {
            directory = rustix::fs::openat(&directory, name, DIRECTORY, FileMode::empty())?;
        }
        regular(directory.as_fd(), path.file_name().unwrap_or_default())
    }

    /// Reads the list of retired packages. Paths that leave the directory do not count.
    ///
    /// # Errors
    /// [`Kind::System`] if it cannot be read.
    pub fn retired(&self) -> Result<Retired> {
        let reading = || format!("reading {}", self.path.join(RETIRED).display());
        let bytes = self.read(RETIRED, MAX_INDEX)?;
        let Some(bytes) = bytes else { return Ok(Retired::new()) };
        let mut retired: Retired = serde_json::from_slice(&bytes).context(Kind::System, reading)?;
        retired.retain(|path, _| path.components().all(|part| matches!(part, Component::Normal(_))));
        Ok(retired)
    }

    /// Lists the packages, sorted: regular files `*.gpkg.tar` in directories of directories, without retired ones.
    ///
    /// # Errors
    /// [`Kind::System`] if a directory cannot be read.
    pub fn entries(&self) -> Result<Vec<Entry>> {
        self.listed(false)
    }

    /// Lists the retired packages whose files are still there, sorted.
    ///
    /// # Errors
    /// [`Kind::System`] if a directory cannot be read.
    pub fn retired_entries(&self) -> Result<Vec<Entry>> {
        self.listed(true)
    }

    fn listed(&self, want_retired: bool) -> Result<Vec<Entry>> {
        let retired = self.retired()?;
        let mut entries = Vec::new();
        list(self.fd.as_fd(), Path::new(""), 2, &mut entries)
            .system(|| format!("listing the cache {}", self.path.display()))?;
        entries.retain(|entry| retired.contains_key(&entry.path) == want_retired);
        entries.sort();
        Ok(entries)
    }

    /// Waits for the lock. A file system without locks is used without one.
    ///
    /// # Errors
    /// [`Kind::System`] if the lock cannot be taken.
    pub fn lock(&self) -> Result<Locked<'_>> {
        let locking = || format!("locking the cache {}", self.path.display());
        let own = rustix::fs::openat(&self.fd, ".", OFlags::DIRECTORY | OFlags::CLOEXEC, FileMode::empty());
        let own = own.system(locking)?;
        lock::lock_if_supported(&own, Mode::Exclusive).system(locking)?;
        Ok(Locked { shelf: self, _lock: own })
    }

    fn read(&self, name: &str, max: u64) -> Result<Option<Vec<u8>>> {
        let mut bytes = Vec::new();
        let read = regular(self.fd.as_fd(), OsStr::new(name)).and_then(|file| file.take(max).read_to_end(&mut bytes));
        match read {
            Ok(_) => Ok(Some(bytes)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            error => error.map(|_| None).system(|| format!("reading {}", self.path.join(name).display())),
        }
    }
}

impl Locked<'_> {
    /// Writes the key.
    ///
    /// # Errors
    /// [`Kind::System`] if it cannot be written.
    pub fn set_key(&self, text: &str) -> Result<()> {
        self.replace(KEY, text.as_bytes())
    }

    /// Writes the index and its compressed form, with the modification time `time` in seconds since 1970. The index is written last: if it
    /// is the new one, the compressed form is too.
    ///
    /// # Errors
    /// [`Kind::System`] if they cannot be written. A reader finds the old index or the new one.
    pub fn set_index(&self, text: &str, compressed: &[u8], time: i64) -> Result<()> {
        for (name, bytes) in [(COMPRESSED, compressed), (INDEX, text.as_bytes())] {
            self.replace(name, bytes)?;
            let path = self.shelf.path.join(name);
            let time = UNIX_EPOCH + Duration::from_secs(u64::try_from(time).unwrap_or(0));
            let dated = regular(self.shelf.fd.as_fd(), OsStr::new(name)).and_then(|file| file.set_modified(time));
            dated.system(|| format!("writing {}", path.display()))?;
        }
        Ok(())
    }

    /// Writes the list of retired packages.
    ///
    /// # Errors
    /// [`Kind::System`] if it cannot be written.
    pub fn set_retired(&self, retired: &Retired) -> Result<()> {
        if retired.is_empty() && self.shelf.read(RETIRED, 0)?.is_none() {
            return Ok(());
        }
        let text = serde_json::to_vec(retired).context(Kind::System, || "listing the retired packages")?;
        self.replace(RETIRED, &text)
    }

    /// Adds a package with the bytes of `from`, readable for everyone. Its name must be free. Nobody sees it before it is whole.
    ///
    /// # Errors
    /// Those of the system.
    pub fn add(&self, path: &Path, from: &mut dyn Read) -> io::Result<Entry> {
        let mut directory = self.shelf.fd.try_clone()?;
        for name in path.parent().into_iter().flatten() {
            match rustix::fs::mkdirat(&directory, name, FileMode::from_raw_mode(0o755)) {
                Ok(()) | Err(rustix::io::Errno::EXIST) => {}
                Err(error) => return Err(error.into()),
            }
            directory = rustix::fs::openat(&directory, name, DIRECTORY, FileMode::empty())?;
        }
        // A run that was killed has removed the file, and not its name in the list.
        let mut retired = self.shelf.retired().map_err(io::Error::other)?;
        if retired.remove(path).is_some() {
            self.set_retired(&retired).map_err(io::Error::other)?;
        }
        let name = path.file_name().unwrap_or_default();
        atomic::replace_at(directory.as_fd(), name, 0o644, from)?;
        let stat = rustix::fs::fstat(regular(directory.as_fd(), name)?)?;
        Ok(Entry { path: path.to_owned(), size: u64::try_from(stat.st_size).unwrap_or(0), mtime: stat.st_mtime })
    }

    fn replace(&self, name: &str, bytes: &[u8]) -> Result<()> {
        atomic::replace_at(self.shelf.fd.as_fd(), OsStr::new(name), 0o644, &mut &*bytes)
            .system(|| format!("writing {}", self.shelf.path.join(name).display()))
    }
}

/// Opens a regular file without following a symlink or waiting for a pipe.
fn regular(directory: BorrowedFd<'_>, name: &OsStr) -> io::Result<File> {
    let fd = rustix::fs::openat(directory, name, OFlags::RDONLY | FILE, FileMode::empty())?;
    match FileType::from_raw_mode(rustix::fs::fstat(&fd)?.st_mode) {
        FileType::RegularFile => Ok(fd.into()),
        _ => Err(io::Error::other("it is not a regular file")),
    }
}

/// Lists the packages `depth` directories below.
fn list(directory: BorrowedFd<'_>, below: &Path, depth: usize, found: &mut Vec<Entry>) -> io::Result<()> {
    for entry in Dir::read_from(directory)? {
        let entry = entry?;
        let name = OsStr::from_bytes(entry.file_name().to_bytes());
        if name.as_bytes().starts_with(b".") || depth == 0 && !name.as_bytes().ends_with(SUFFIX) {
            continue;
        }
        let path = below.join(name);
        if depth == 0 {
            let stat = rustix::fs::statat(directory, name, rustix::fs::AtFlags::SYMLINK_NOFOLLOW)?;
            if FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile {
                found.push(Entry { path, size: u64::try_from(stat.st_size).unwrap_or(0), mtime: stat.st_mtime });
            }
        } else if let Ok(inner) = rustix::fs::openat(directory, name, DIRECTORY, FileMode::empty()) {
            list(inner.as_fd(), &path, depth - 1, found)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{MetadataExt, symlink};

    use super::*;

    fn paths(shelf: &Shelf) -> Vec<String> {
        shelf.entries().unwrap().iter().map(|entry| entry.path.display().to_string()).collect()
    }

    #[test]
    fn packages_are_added_whole_and_found_again() {
        let place = tempfile::tempdir().unwrap();
        let shelf = Shelf::make(&place.path().join("new/shelf")).unwrap();
        assert_eq!((shelf.key().unwrap(), shelf.index().unwrap(), paths(&shelf).len()), (None, None, 0));
        let locked = shelf.lock().unwrap();
        locked.set_key("key").unwrap();
        locked.set_index("index", b"zipped", 1_000_000).unwrap();
        let entry = locked.add(Path::new("a/b/b-1-1.gpkg.tar"), &mut &b"package"[..]).unwrap();
        drop(locked);
        assert_eq!(
            (shelf.key().unwrap().unwrap(), shelf.index().unwrap().unwrap()),
            (b"key".to_vec(), b"index".to_vec())
        );
        assert_eq!(fs_err::metadata(shelf.path().join("Packages.gz")).unwrap().mtime(), 1_000_000);
        assert_eq!(shelf.entries().unwrap(), [entry]);
        let mut text = String::new();
        shelf.file(Path::new("a/b/b-1-1.gpkg.tar")).unwrap().read_to_string(&mut text).unwrap();
        assert_eq!(text, "package");
        let stat = fs_err::metadata(shelf.path().join("a/b/b-1-1.gpkg.tar")).unwrap();
        assert_eq!(stat.mode() & 0o7777, 0o644);
    }

    #[test]
    fn links_pipes_and_hidden_files_are_not_packages() {
        let place = tempfile::tempdir().unwrap();
        let shelf = Shelf::open(place.path()).unwrap();
        let inner = place.path().join("a/b");
        fs_err::create_dir_all(&inner).unwrap();
        symlink("/etc/passwd", inner.join("link-1.gpkg.tar")).unwrap();
        symlink("a", place.path().join("other")).unwrap();
        nix::unistd::mkfifo(&inner.join("pipe-1.gpkg.tar"), nix::sys::stat::Mode::S_IRWXU).unwrap();
        for name in [".half-1.gpkg.tar", "half-1.gpkg.tar.new", "real-1.gpkg.tar"] {
            fs_err::write(inner.join(name), "").unwrap();
        }
        fs_err::write(place.path().join("flat-1.gpkg.tar"), "").unwrap();
        assert_eq!(paths(&shelf), ["a/b/real-1.gpkg.tar"]);
        for path in ["a/b/link-1.gpkg.tar", "a/b/pipe-1.gpkg.tar", "other/b/real-1.gpkg.tar"] {
            assert!(shelf.file(Path::new(path)).is_err(), "{path}");
        }
    }

    #[test]
    fn a_retired_package_is_not_listed_until_its_name_is_used_again() {
        let place = tempfile::tempdir().unwrap();
        let shelf = Shelf::open(place.path()).unwrap();
        let locked = shelf.lock().unwrap();
        let path = Path::new("a/b/b-1-1.gpkg.tar");
        locked.set_retired(&Retired::new()).unwrap();
        assert!(!place.path().join(RETIRED).exists());
        locked.add(path, &mut &b"old"[..]).unwrap();
        locked.set_retired(&Retired::from([(path.to_owned(), 7), ("../../c".into(), 7)])).unwrap();
        assert_eq!(shelf.retired().unwrap().len(), 1);
        assert_eq!((paths(&shelf).len(), shelf.retired().unwrap()[path]), (0, 7));
        assert_eq!(shelf.retired_entries().unwrap()[0].path, path);
        fs_err::remove_file(place.path().join(path)).unwrap();
        locked.add(path, &mut &b"new"[..]).unwrap();
        assert_eq!((paths(&shelf).len(), shelf.retired().unwrap().len()), (1, 0));
        fs_err::write(place.path().join(RETIRED), "[").unwrap();
        assert!(shelf.entries().is_err());
    }

    #[test]
    fn one_writer_holds_the_lock() {
        let place = tempfile::tempdir().unwrap();
        let shelf = Shelf::open(place.path()).unwrap();
        let held = shelf.lock().unwrap();
        let other = fs_err::File::open(place.path()).unwrap().into_file();
        assert!(!lock::try_lock(&other, Mode::Exclusive).unwrap());
        drop(held);
        assert!(lock::try_lock(&other, Mode::Exclusive).unwrap());
    }
}
