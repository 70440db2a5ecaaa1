//! A hidden directory inside the outdir where results come into being, so that giving them their names is a rename.
//!
//! Its owner holds a lock on it for as long as it lives. One without a lock was left by a process that was killed; the next
//! [`Staging::create`] removes it.

use std::ffi::{CStr, OsString};
use std::fs::File;
use std::io::Write as _;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStringExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, Dir, FileType, FlockOperation, Mode, OFlags, RenameFlags};
use rustix::io::Errno;

use crate::error::{Context, Error, Result};
use crate::process::Leftover;
use crate::progress::Progress;

const PREFIX: &str = ".quern-";
const DIRECTORY: OFlags = OFlags::DIRECTORY.union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// A staging directory, removed with all that is still in it when dropped.
#[derive(Debug)]
pub struct Staging {
    outdir: OwnedFd,
    outdir_path: PathBuf,
    name: OsString,
    dir: OwnedFd,
    _leftover: Leftover,
}

impl Staging {
    /// Makes `outdir` and a staging directory in it, and removes those of dead processes.
    pub fn create(outdir: &Path, ui: &dyn Progress) -> Result<Self> {
        fs_err::create_dir_all(outdir).system(|| "making the directory of the results")?;
        let fd = rustix::fs::open(outdir, OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
            .system(|| format!("opening {}", outdir.display()))?;
        remove_stale(&fd, outdir, ui)?;
        loop {
            let path = tempfile::Builder::new()
                .prefix(PREFIX)
                .rand_bytes(8)
                .tempdir_in(outdir)
                .system(|| format!("making a staging directory in {}", outdir.display()))?
                .keep();
            let name = path.file_name().map(OsString::from).unwrap_or_default();
            let dir = match rustix::fs::openat(&fd, &name, DIRECTORY, Mode::empty()) {
                // Another process took it for a dead one's before it was locked.
                Err(Errno::NOENT) => continue,
                dir => dir.system(|| format!("opening {}", path.display()))?,
            };
            lock(&dir, FlockOperation::LockExclusive).system(|| format!("locking {}", path.display()))?;
            if same(&fd, &name, &dir) {
                let leftover = Leftover::new(path);
                return Ok(Self { outdir: fd, outdir_path: outdir.to_owned(), name, dir, _leftover: leftover });
            }
        }
    }

    /// Where the results go.
    pub fn outdir(&self) -> &Path {
        &self.outdir_path
    }

    /// Makes a new file, open for reading and writing.
    pub fn create_file(&self, name: &str) -> Result<File> {
        let flags = OFlags::CREATE | OFlags::EXCL | OFlags::RDWR | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let fd = rustix::fs::openat(&self.dir, name, flags, Mode::from_raw_mode(0o644))
            .system(|| format!("making {}", self.show(name)))?;
        Ok(File::from(fd))
    }

    /// Makes a file with these bytes, on the disk when this returns.
    pub(super) fn write(&self, name: &str, bytes: &[u8]) -> Result<()> {
        let mut file = self.create_file(name)?;
        file.write_all(bytes).and_then(|()| file.sync_all()).system(|| format!("writing {}", self.show(name)))
    }

    /// Makes a directory.
    pub(super) fn mkdir(&self, name: &str) -> Result<()> {
        rustix::fs::mkdirat(&self.dir, name, Mode::from_raw_mode(0o755))
            .system(|| format!("making {}", self.show(name)))
    }

    /// Gives a file a second name; copies it where the file system has no hard links.
    pub(super) fn link(&self, from: &str, to: &str) -> Result<()> {
        if rustix::fs::linkat(&self.dir, from, &self.dir, to, AtFlags::empty()).is_ok() {
            return Ok(());
        }
        let linking = || format!("copying {} to {}", self.show(from), to);
        let source = rustix::fs::openat(&self.dir, from, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty());
        let mut source = File::from(source.system(linking)?);
        let mut target = self.create_file(to)?;
        std::io::copy(&mut source, &mut target).system(linking)?;
        target.sync_all().system(linking)
    }

    /// Brings a directory's names to the disk; `.` is the staging directory itself.
    pub(super) fn sync(&self, name: &str) -> Result<()> {
        let syncing = || format!("syncing {}", self.show(name));
        let dir = rustix::fs::openat(&self.dir, name, DIRECTORY, Mode::empty()).system(syncing)?;
        rustix::fs::fsync(dir).system(syncing)
    }

    /// Keeps other builds from giving names in this outdir for as long as the result lives.
    pub(super) fn lock_outdir(&self) -> Result<OwnedFd> {
        let locking = || format!("locking {}", self.outdir_path.display());
        // A descriptor of its own: closing it is what unlocks.
        let fd = rustix::fs::openat(&self.outdir, ".", DIRECTORY, Mode::empty()).system(locking)?;
        lock(&fd, FlockOperation::LockExclusive).system(locking)?;
        Ok(fd)
    }

    /// Removes a former result so that it cannot be taken for a part of the new one.
    pub(super) fn forget(&self, name: &str) -> Result<()> {
        match rustix::fs::unlinkat(&self.outdir, name, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => Ok(()),
            Err(error) => Err(error).system(|| format!("removing {}", self.outdir_path.join(name).display())),
        }
    }

    /// Gives `name` its place in the outdir. What stood there is replaced in the same instant and removed with the staging
    /// directory.
    pub(super) fn promote(&self, name: &str) -> Result<PathBuf> {
        let path = self.outdir_path.join(name);
        let naming = || format!("renaming {} to {}", self.show(name), path.display());
        let rename = |flags| rustix::fs::renameat_with(&self.dir, name, &self.outdir, name, flags);
        match rename(RenameFlags::EXCHANGE) {
            Ok(()) => {}
            Err(Errno::NOENT) => rename(RenameFlags::empty()).system(naming)?,
            // A file system that knows no exchange: a file replaces a file all the same, a directory needs the place empty.
            Err(Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP) => {
                let old = format!("{name}.old");
                match rustix::fs::statat(&self.outdir, name, AtFlags::SYMLINK_NOFOLLOW) {
                    Ok(stat) if FileType::from_raw_mode(stat.st_mode) == FileType::Directory => {
                        rustix::fs::renameat(&self.outdir, name, &self.dir, &old).system(naming)?;
                    }
                    _ => {}
                }
                rustix::fs::renameat(&self.dir, name, &self.outdir, name).system(naming)?;
            }
            Err(error) => return Err(error).system(naming),
        }
        Ok(path)
    }

    /// Brings the names in the outdir to the disk.
    pub(super) fn sync_outdir(&self) -> Result<()> {
        rustix::fs::fsync(&self.outdir).system(|| format!("syncing {}", self.outdir_path.display()))
    }

    fn show(&self, name: &str) -> String {
        self.outdir_path.join(&self.name).join(name).display().to_string()
    }
}

impl Drop for Staging {
    fn drop(&mut self) {
        // A failure leaves a directory without a lock, which the next run removes.
        let _ = remove_tree(self.outdir.as_fd(), &self.name);
    }
}

/// Removes the staging directories that nobody holds.
fn remove_stale(outdir: &OwnedFd, path: &Path, ui: &dyn Progress) -> Result<()> {
    let reading = || format!("reading {}", path.display());
    for entry in Dir::read_from(outdir).system(reading)? {
        let name = entry.system(reading)?.file_name().to_owned();
        if !name.to_bytes().starts_with(PREFIX.as_bytes()) {
            continue;
        }
        let Ok(dir) = rustix::fs::openat(outdir, &*name, DIRECTORY, Mode::empty()) else { continue };
        if rustix::fs::flock(&dir, FlockOperation::NonBlockingLockExclusive).is_err() || !same(outdir, &name, &dir) {
            continue;
        }
        let shown = path.join(OsString::from_vec(name.to_bytes().to_vec()));
        match remove_tree(outdir.as_fd(), &name) {
            Ok(()) => ui.note(&format!("removed {}, left by a build that was killed", shown.display())),
            Err(error) => ui.warn(&format!("removing {}, left by a build that was killed: {error}", shown.display())),
        }
    }
    Ok(())
}

/// Takes a lock; a file system without locks has none to wait for.
fn lock(fd: &OwnedFd, operation: FlockOperation) -> Result<(), Errno> {
    loop {
        match rustix::fs::flock(fd, operation) {
            Err(Errno::INTR) => {}
            Err(Errno::NOLCK | Errno::OPNOTSUPP | Errno::NOSYS) => return Ok(()),
            result => return result,
        }
    }
}

/// Whether `name` still is the directory `dir`.
fn same(parent: &OwnedFd, name: impl rustix::path::Arg, dir: &OwnedFd) -> bool {
    match (rustix::fs::statat(parent, name, AtFlags::SYMLINK_NOFOLLOW), rustix::fs::fstat(dir)) {
        (Ok(named), Ok(open)) => (named.st_dev, named.st_ino) == (open.st_dev, open.st_ino),
        _ => false,
    }
}

/// Removes a tree below `parent` by descriptors; links are not followed. Depth is that of an OCI layout, so it recurses.
fn remove_tree(parent: BorrowedFd<'_>, name: impl rustix::path::Arg + Copy) -> Result<(), Errno> {
    let dir = match rustix::fs::openat(parent, name, DIRECTORY, Mode::empty()) {
        Ok(dir) => dir,
        Err(Errno::NOTDIR | Errno::LOOP) => return rustix::fs::unlinkat(parent, name, AtFlags::empty()),
        Err(error) => return Err(error),
    };
    for entry in Dir::read_from(&dir)? {
        let entry = entry?;
        let child: &CStr = entry.file_name();
        if child != c"." && child != c".." {
            remove_tree(dir.as_fd(), child)?;
        }
    }
    rustix::fs::unlinkat(parent, name, AtFlags::REMOVEDIR)
}

/// A result's name as one component of a path: fit for every file system and terminal.
pub(super) fn checked_name(name: String) -> Result<String> {
    let fit = !name.is_empty()
        && name.len() <= 200
        && !name.starts_with(['.', '-'])
        && !name.chars().any(|character| character == '/' || character.is_control());
    if fit {
        Ok(name)
    } else {
        Err(Error::usage(format!("`{}` cannot name a file", name.escape_default())).with_hint(
            "choose another `name` or `build.image-name`: one path component, not beginning with a dot or a dash",
        ))
    }
}
