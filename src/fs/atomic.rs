//! Files that are replaced as a whole: a reader finds the old content or the new one, also after a crash.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use rustix::fs::{AtFlags, Mode as FileMode, OFlags};
use rustix::io::Errno;

use super::lock::{self, Mode};
use super::{directory_of, is_named};
use crate::base::error::{Context, Error, Result};

/// Replaces the file `path`, or creates it, with these bytes and exactly this mode. Its directory must exist.
///
/// # Errors
/// [`Kind::System`](crate::base::error::Kind::System) when it cannot be written; the old file is then unchanged.
pub(crate) fn replace(path: &Path, bytes: &[u8], mode: u32) -> Result<()> {
    let writing = || format!("writing {}", path.display());
    let Some(name) = path.file_name() else {
        return Err(Error::usage(format!("{}: the path has no file name", writing())));
    };
    let directory = fs_err::File::open(directory_of(path)).system(writing)?;
    replace_at(directory.file().as_fd(), name, mode, &mut &bytes[..]).system(writing)
}

/// Replaces the file `name` of an open directory, or creates it, with everything that `from` gives. A symlink is replaced, not
/// followed.
///
/// The bytes are written to a new file `.NAME.new`, synced, and renamed. A killed process leaves that file without a lock; the next
/// replacement of the same name removes it.
pub(crate) fn replace_at(directory: BorrowedFd<'_>, name: &OsStr, mode: u32, from: &mut dyn Read) -> io::Result<()> {
    let new = new_name(name);
    let mut file = File::from(create_locked(directory, &new)?);
    let mut fill = || -> io::Result<()> {
        io::copy(from, &mut file)?;
        rustix::fs::fchmod(&file, FileMode::from_raw_mode(mode & 0o7777))?;
        file.sync_all()?;
        Ok(rustix::fs::renameat(directory, &new, directory, name)?)
    };
    fill().inspect_err(|_| _ = rustix::fs::unlinkat(directory, &new, AtFlags::empty()))?;
    Ok(rustix::fs::fsync(directory)?)
}

/// Creates the file `new` and locks it. Waits for a process that writes to a file of this name, and removes one that is left over.
fn create_locked(directory: BorrowedFd<'_>, new: &OsStr) -> rustix::io::Result<OwnedFd> {
    let create = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let look = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    loop {
        match rustix::fs::openat(directory, new, create, FileMode::from_raw_mode(0o600)) {
            Err(Errno::EXIST) => {}
            file => {
                let file = file?;
                lock::lock_if_supported(&file, Mode::Exclusive)?;
                // Another process may have removed it as a leftover before it was locked.
                if is_named(directory, new, &file) {
                    return Ok(file);
                }
                continue;
            }
        }
        // Something that cannot be opened, such as a symlink, is not the file of a living process.
        let left = rustix::fs::openat(directory, new, look, FileMode::empty());
        if let Ok(left) = &left {
            lock::lock_if_supported(left, Mode::Exclusive)?;
            if !is_named(directory, new, left) {
                continue;
            }
        }
        match rustix::fs::unlinkat(directory, new, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => {}
            Err(error) => return Err(error),
        }
    }
}

/// Returns the name under which the next `name` is written. Of names that are too long for it, the beginning is enough.
fn new_name(name: &OsStr) -> OsString {
    const LONGEST: usize = 255 - "..new".len();
    let name = name.as_bytes();
    OsStr::from_bytes(&[b".", &name[..name.len().min(LONGEST)], b".new"].concat()).to_owned()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    fn names(place: &Path) -> Vec<OsString> {
        let mut names: Vec<_> = fs_err::read_dir(place).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        names.sort();
        names
    }

    #[test]
    fn a_file_is_replaced_with_its_mode_and_nothing_is_left() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("x".repeat(255));
        for (bytes, mode) in [(b"one", 0o644), (b"two", 0o600)] {
            replace(&path, bytes, mode).unwrap();
            assert_eq!(fs_err::read(&path).unwrap(), bytes);
            assert_eq!(fs_err::metadata(&path).unwrap().permissions().mode() & 0o7777, mode);
        }
        assert_eq!(names(place.path()).len(), 1);
        assert!(replace(Path::new("/"), b"", 0o644).is_err() && replace(&path.join("x"), b"", 0o644).is_err());
    }

    #[test]
    fn leftovers_and_links_are_replaced_and_never_followed() {
        let place = tempfile::tempdir().unwrap();
        let (path, new) = (place.path().join("file"), place.path().join(".file.new"));
        let other = place.path().join("other");
        fs_err::write(&other, "other").unwrap();
        symlink("other", &path).unwrap();
        let leave: [&dyn Fn(); 4] = [
            &|| fs_err::write(&new, "half").unwrap(),
            &|| symlink("other", &new).unwrap(),
            &|| fs_err::hard_link(&other, &new).unwrap(),
            &|| {
                let kind = rustix::fs::FileType::Fifo;
                rustix::fs::mknodat(rustix::fs::CWD, &new, kind, FileMode::from_raw_mode(0o600), 0).unwrap();
            },
        ];
        for (number, leave) in leave.into_iter().enumerate() {
            leave();
            replace(&path, number.to_string().as_bytes(), 0o644).unwrap();
            assert_eq!(fs_err::read_to_string(&path).unwrap(), number.to_string());
            assert_eq!(fs_err::read_to_string(&other).unwrap(), "other", "{number}");
            assert_eq!(names(place.path()), ["file", "other"], "{number}");
        }
        fs_err::create_dir(&new).unwrap();
        assert!(replace(&path, b"x", 0o644).is_err());
    }

    #[test]
    fn a_failed_write_leaves_the_old_file() {
        struct Broken;
        impl Read for Broken {
            fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
                Err(io::Error::other("broken"))
            }
        }
        let place = tempfile::tempdir().unwrap();
        fs_err::write(place.path().join("file"), "old").unwrap();
        let directory = fs_err::File::open(place.path()).unwrap();
        let from = &mut b"new".chain(Broken);
        assert!(replace_at(directory.file().as_fd(), OsStr::new("file"), 0o644, from).is_err());
        assert_eq!(fs_err::read_to_string(place.path().join("file")).unwrap(), "old");
        assert_eq!(names(place.path()), ["file"]);
    }

    #[test]
    fn simultaneous_writers_replace_the_file_as_a_whole() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("file");
        std::thread::scope(|scope| {
            for writer in 0..4u8 {
                let path = &path;
                scope.spawn(move || (0..10).for_each(|_| replace(path, &vec![writer; 100_000], 0o644).unwrap()));
            }
        });
        let bytes = fs_err::read(&path).unwrap();
        assert!(bytes.len() == 100_000 && bytes.iter().all(|byte| *byte == bytes[0]));
        assert_eq!(names(place.path()), ["file"]);
    }
}
