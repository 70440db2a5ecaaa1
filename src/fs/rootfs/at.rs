//! Calls on a name in a directory that do not follow a symlink. Older kernels have them only for a path. There they use the path of a
//! descriptor in `/proc`, after a check that this `/proc` is the kernel's.

use std::ffi::OsStr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

use rustix::fs::{Mode, OFlags, XattrFlags};
use rustix::io::{Errno, Result};

use crate::os::sys;

/// Sets the mode of `name`.
pub(crate) fn chmod(at: BorrowedFd<'_>, name: &OsStr, mode: u32) -> Result<()> {
    or_by_path(sys::fchmodat2(at, name, mode), at, name, |path| {
        rustix::fs::chmod(path, Mode::from_raw_mode(mode & 0o7777))
    })
}

/// Lists the extended attributes of `name`: their names, each followed by a NUL.
pub(crate) fn list_xattrs(at: BorrowedFd<'_>, name: &OsStr, to: &mut [u8]) -> Result<usize> {
    or_by_path(sys::listxattrat(at, name, to), at, name, |path| rustix::fs::listxattr(path, to))
}

/// Reads the value of an extended attribute of `name`.
pub(crate) fn get_xattr(at: BorrowedFd<'_>, name: &OsStr, key: &[u8], to: &mut [u8]) -> Result<usize> {
    or_by_path(sys::getxattrat(at, name, key, to), at, name, |path| rustix::fs::getxattr(path, key, to))
}

/// Sets an extended attribute of `name`.
pub(crate) fn set_xattr(at: BorrowedFd<'_>, name: &OsStr, key: &[u8], value: &[u8]) -> Result<()> {
    or_by_path(sys::setxattrat(at, name, key, value), at, name, |path| {
        rustix::fs::setxattr(path, key, value, XattrFlags::empty())
    })
}

/// Repeats a call that the kernel does not have yet with `old`, which is given a path of the descriptor of `name`.
fn or_by_path<T>(
    result: Result<T>,
    at: BorrowedFd<'_>,
    name: &OsStr,
    old: impl FnOnce(&str) -> Result<T>,
) -> Result<T> {
    match result {
        Err(Errno::NOSYS) if is_proc(DESCRIPTORS) => {
            let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let handle = rustix::fs::openat(at, name, flags, Mode::empty())?;
            old(&format!("{DESCRIPTORS}/{}", handle.as_fd().as_raw_fd()))
        }
        result => result,
    }
}

/// Directory of this thread's descriptors.
const DESCRIPTORS: &str = "/proc/thread-self/fd";

/// Returns true if the directory `path` is on a mounted procfs. In a tree without one, anybody may have created the directory, and
/// its links may lead anywhere.
fn is_proc(path: &str) -> bool {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let found = rustix::fs::open(path, flags, Mode::empty()).and_then(rustix::fs::fstatfs);
    found.is_ok_and(|found| found.f_type == rustix::fs::PROC_SUPER_MAGIC)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    /// Both ways of a call give the same result, and neither follows a link.
    #[test]
    fn old_and_new_kernels_agree() {
        let place = tempfile::tempdir().unwrap();
        fs_err::write(place.path().join("file"), "x").unwrap();
        fs_err::set_permissions(place.path().join("file"), PermissionsExt::from_mode(0o600)).unwrap();
        symlink("file", place.path().join("link")).unwrap();
        let dir = fs_err::File::open(place.path()).unwrap();
        let at = dir.as_fd();
        let (file, link) = (OsStr::new("file"), OsStr::new("link"));
        let mode = || fs_err::metadata(place.path().join("file")).unwrap().permissions().mode() & 0o7777;

        chmod(at, file, 0o4711).unwrap();
        assert_eq!(mode(), 0o4711);
        assert!(chmod(at, link, 0o777).is_err(), "a symlink has no mode");
        assert_eq!(mode(), 0o4711);

        set_xattr(at, file, b"user.a", b"value").unwrap();
        assert!(set_xattr(at, link, b"user.a", b"other").is_err(), "a symlink has no user attributes");
        let mut names = [0; 64];
        assert_eq!(list_xattrs(at, link, &mut names).map(|length| names[..length].to_vec()), Ok(Vec::new()));
        let length = list_xattrs(at, file, &mut names).unwrap();
        assert_eq!(&names[..length], b"user.a\0");
        let mut value = [0; 64];
        let length = get_xattr(at, file, b"user.a", &mut value).unwrap();
        assert_eq!(&value[..length], b"value");
        assert_eq!(get_xattr(at, file, b"user.a", &mut value[..2]), Err(Errno::RANGE));
        assert_eq!(get_xattr(at, link, b"user.a", &mut value), Err(Errno::NODATA));

        let old = or_by_path(Err(Errno::NOSYS), at, file, |path| rustix::fs::getxattr(path, "user.a", &mut value[..]));
        assert_eq!(old, Ok(5));
        let old = or_by_path(Err(Errno::NOSYS), at, link, |path| rustix::fs::getxattr(path, "user.a", &mut value[..]));
        assert_eq!(old, Err(Errno::NODATA));
        assert_eq!(or_by_path(Err::<(), _>(Errno::PERM), at, file, |_| unreachable!()), Err(Errno::PERM));
        assert!(is_proc(DESCRIPTORS) && !is_proc("/") && !is_proc("/proc/self/status") && !is_proc("/none"));
    }
}
