//! Safe reads in directories that a build may write to: no symlink is followed, only regular files are read, no read blocks,
//! and every read has a limit.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::os::fd::OwnedFd;
use std::path::Path;
use std::time::{Duration, SystemTime};

use rustix::fs::{FileType, Mode, OFlags};

/// A directory, held by its descriptor.
#[derive(Debug)]
pub struct Dir {
    fd: OwnedFd,
}

/// An open regular file.
#[derive(Debug)]
pub struct Regular {
    file: File,
    /// The size when it was opened, in bytes.
    pub size: u64,
    /// The time of the last write.
    pub modified: SystemTime,
}

impl Dir {
    /// Opens the directory `path`, which must belong to the caller; its content is untrusted. Returns `None` on any error.
    pub fn open(path: &Path) -> Option<Self> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        rustix::fs::open(path, flags, Mode::empty()).ok().map(|fd| Self { fd })
    }

    /// Opens the subdirectory `name`.
    pub fn dir(&self, name: &OsStr) -> Option<Self> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        rustix::fs::openat(&self.fd, single(name)?, flags, Mode::empty()).ok().map(|fd| Self { fd })
    }

    /// Opens the regular file `name`. Returns `None` for anything else.
    pub fn file(&self, name: &OsStr) -> Option<Regular> {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
        let fd = rustix::fs::openat(&self.fd, single(name)?, flags, Mode::empty()).ok()?;
        let stat = rustix::fs::fstat(&fd).ok()?;
        if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
            return None;
        }
        let size = u64::try_from(stat.st_size).unwrap_or(0);
        let seconds = u64::try_from(stat.st_mtime).unwrap_or(0);
        let nanoseconds = u32::try_from(stat.st_mtime_nsec).unwrap_or(0).min(999_999_999);
        let modified =
            SystemTime::UNIX_EPOCH.checked_add(Duration::new(seconds, nanoseconds)).unwrap_or(SystemTime::UNIX_EPOCH);
        Some(Regular { file: File::from(fd), size, modified })
    }

    /// Lists at most `limit` names, sorted.
    pub fn names(&self, limit: usize) -> Vec<std::ffi::OsString> {
        use std::os::unix::ffi::OsStrExt;
        let Ok(entries) = rustix::fs::Dir::read_from(&self.fd) else { return Vec::new() };
        let mut names: Vec<_> = entries
            .flatten()
            .map(|entry| OsStr::from_bytes(entry.file_name().to_bytes()).to_owned())
            .filter(|name| name != "." && name != "..")
            .take(limit)
            .collect();
        names.sort();
        names
    }
}

impl Regular {
    /// Returns the open file.
    pub fn into_file(self) -> File {
        self.file
    }

    /// Reads up to `max` bytes from `offset`.
    pub fn read(&mut self, offset: u64, max: u64) -> Option<Vec<u8>> {
        self.file.seek(SeekFrom::Start(offset)).ok()?;
        let mut bytes = Vec::new();
        (&self.file).take(max).read_to_end(&mut bytes).ok()?;
        Some(bytes)
    }

    /// Reads the last `max` bytes.
    pub fn tail(&mut self, max: u64) -> Option<Vec<u8>> {
        self.read(self.size.saturating_sub(max), max)
    }
}

/// Returns `name` if it is a single component of a path.
fn single(name: &OsStr) -> Option<&OsStr> {
    use std::os::unix::ffi::OsStrExt;
    (!name.is_empty() && name != "." && name != ".." && !name.as_bytes().contains(&b'/')).then_some(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_regular_files_in_the_directory_itself_are_read() {
        let temp = tempfile::tempdir().unwrap();
        fs_err::write(temp.path().join("secret"), "s").unwrap();
        let inner = temp.path().join("inner");
        fs_err::create_dir(&inner).unwrap();
        fs_err::write(inner.join("plain"), "0123456789").unwrap();
        std::os::unix::fs::symlink("../secret", inner.join("link")).unwrap();
        std::os::unix::fs::symlink("..", inner.join("up")).unwrap();
        nix::unistd::mkfifo(&inner.join("fifo"), nix::sys::stat::Mode::S_IRWXU).unwrap();
        let dir = Dir::open(&inner).unwrap();
        assert_eq!(dir.names(10), ["fifo", "link", "plain", "up"]);
        assert_eq!(dir.names(2).len(), 2);
        assert!(dir.file("link".as_ref()).is_none());
        assert!(dir.file("fifo".as_ref()).is_none());
        assert!(dir.file("../secret".as_ref()).is_none());
        assert!(dir.dir("up".as_ref()).is_none());
        assert!(dir.dir("..".as_ref()).is_none());
        let mut file = dir.file("plain".as_ref()).unwrap();
        assert_eq!((file.size, file.tail(3).unwrap()), (10, b"789".to_vec()));
        assert_eq!(file.read(2, 4).unwrap(), b"2345");
    }
}
