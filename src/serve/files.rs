//! The files that a path of a request may lead to: indexes, binary packages and certificates, and nothing else.

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::fs::{FileType, Mode, OFlags, ResolveFlags};

use super::answer::Facts;

/// Names of files that are served.
const NAMES: [&str; 2] = ["Packages", "Packages.gz"];
/// Suffixes of files that are served. Locks and unfinished packages have others.
const SUFFIXES: [&str; 4] = [".gpkg.tar", ".xpak", ".tbz2", ".asc"];

/// The directory that is served.
#[derive(Debug)]
pub(super) struct Directory {
    fd: OwnedFd,
}

/// An open file of the directory.
#[derive(Debug)]
pub(super) struct Found {
    pub(super) file: File,
    pub(super) facts: Facts,
}

impl Directory {
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        Ok(Self { fd: rustix::fs::open(path, flags, Mode::empty())? })
    }

    /// Opens the file that the path of a request leads to. Anything but a regular file below the directory, reached without symlinks,
    /// counts as missing.
    pub(super) fn find(&self, path: &str) -> Option<Found> {
        let relative = relative(path)?;
        let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
        let fd = rustix::fs::openat2(&self.fd, relative, flags, Mode::empty(), resolve).ok()?;
        let stat = rustix::fs::fstat(&fd).ok()?;
        if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
            return None;
        }
        let (seconds, nanoseconds) = (u64::try_from(stat.st_mtime).ok()?, stat.st_mtime_nsec);
        let size = u64::try_from(stat.st_size).ok()?;
        let etag = format!("\"{:x}-{size:x}-{seconds:x}.{nanoseconds:x}\"", stat.st_ino);
        Some(Found { file: File::from(fd), facts: Facts { size, modified: seconds, etag } })
    }
}

/// Returns the path below the directory that the path of a request names, if it may be served.
fn relative(path: &str) -> Option<String> {
    let path = decoded(path.strip_prefix('/')?)?;
    let plain = |part: &str| !part.is_empty() && !part.starts_with('.') && !part.contains(char::is_control);
    let name = path.rsplit('/').next()?;
    let served = NAMES.contains(&name) || SUFFIXES.iter().any(|suffix| name.ends_with(suffix));
    (served && path.split('/').all(plain)).then_some(path)
}

/// Decodes `%2B` and the like.
fn decoded(path: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(path.len());
    let mut rest = path.as_bytes();
    while let Some((byte, after)) = rest.split_first() {
        rest = after;
        if *byte != b'%' {
            bytes.push(*byte);
            continue;
        }
        let digits = std::str::from_utf8(rest.get(..2)?).ok()?;
        // `from_str_radix` would accept a sign.
        bytes.push(u8::from_str_radix(digits, 16).ok().filter(|_| !digits.starts_with('+'))?);
        rest = &rest[2..];
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_packages_and_indexes_are_served() {
        for path in
            ["/Packages", "/Packages.gz", "/a/Packages", "/sys-libs/x/x-1%2B-1.gpkg.tar", "/a/b-1.xpak", "/key.asc"]
        {
            assert!(relative(path).is_some(), "{path}");
        }
        for path in [
            "",
            "/",
            "Packages",
            "//Packages",
            "/a/",
            "/../Packages",
            "/a/../Packages",
            "/%2e%2e/Packages",
            "/a/.%2fPackages",
            "/%2fetc/x.asc",
            "/a%00.asc",
            "/a%",
            "/a%+1.asc",
            "/a%ff.asc",
            "/.Packages.portage_lockfile",
            "/.hidden/x-1.gpkg.tar",
            "/.x.gpkg.tar",
            "/Packages.lock",
            "/key.json",
            "/a/x-1-1.gpkg.tar.partial",
            "/a/x-1-1.gpkg.tarp59tpx6k.140",
        ] {
            assert!(relative(path).is_none(), "{path}");
        }
        assert_eq!(relative("/a/x%2B-1.gpkg.tar").as_deref(), Some("a/x+-1.gpkg.tar"));
    }
}
