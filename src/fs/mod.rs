//! Files and trees: [`rootfs::Rootfs`], whose paths the kernel resolves inside the tree; locks, replaced files, and staging
//! directories for results.

use std::ffi::OsStr;
use std::os::fd::AsFd;
use std::path::Path;

use rustix::fs::AtFlags;

pub(crate) mod atomic;
pub(crate) mod contents;
pub(crate) mod lock;
pub mod rootfs;
pub(crate) mod staging;

/// Returns the directory that holds `path`; the current directory for a plain name.
pub(crate) fn directory_of(path: &Path) -> &Path {
    path.parent().filter(|above| !above.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// Returns true while `name` in `directory` is the open file `fd` and not another one that took its place.
pub(crate) fn is_named(directory: impl AsFd, name: impl AsRef<OsStr>, fd: impl AsFd) -> bool {
    match (rustix::fs::statat(directory, name.as_ref(), AtFlags::SYMLINK_NOFOLLOW), rustix::fs::fstat(fd)) {
        (Ok(named), Ok(open)) => (named.st_dev, named.st_ino) == (open.st_dev, open.st_ino),
        _ => false,
    }
}

use std::fs::File;
use std::io::{Seek, SeekFrom};

use crate::base::error::{Context, Result};

/// Moves the position of an open file to its beginning.
pub(crate) fn rewound(file: &File) -> Result<&File> {
    let mut position = file;
    position.seek(SeekFrom::Start(0)).system(|| "reading a file from its beginning")?;
    Ok(file)
}
