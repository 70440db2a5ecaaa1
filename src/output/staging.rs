//! The staging directory of a build: a hidden directory ([`crate::fs::staging`]) in the outdir that holds incomplete results.

use std::fs::File;
use std::io::Write as _;
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use rustix::fs::{AtFlags, FileType, Mode, OFlags, RenameFlags};
use rustix::io::Errno;

use crate::base::error::{Context, Error, Result};
use crate::base::progress::Progress;
use crate::fs::staging::Directory;
use crate::fs::{lock, rewound};

const DIRECTORY: OFlags = OFlags::DIRECTORY.union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// A staging directory. Dropping it removes it with its content.
#[derive(Debug)]
pub struct Staging {
    outdir: OwnedFd,
    outdir_path: PathBuf,
    dir: Directory,
}

impl Staging {
    /// Creates `outdir` and a staging directory in it, and removes staging directories of dead processes.
    pub fn create(outdir: &Path, ui: &dyn Progress) -> Result<Self> {
        fs_err::create_dir_all(outdir).system(|| "creating the outdir")?;
        let fd = rustix::fs::open(outdir, OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
            .system(|| format!("opening {}", outdir.display()))?;
        let dir = Directory::create(fd.as_fd(), outdir, ui)?;
        Ok(Self { outdir: fd, outdir_path: outdir.to_owned(), dir })
    }

    /// Returns the directory of the results.
    pub fn outdir(&self) -> &Path {
        &self.outdir_path
    }

    /// Creates a file, open for reading and writing.
    pub fn create_file(&self, name: &str) -> Result<File> {
        let flags = OFlags::CREATE | OFlags::EXCL | OFlags::RDWR | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let fd = rustix::fs::openat(self.dir.fd(), name, flags, Mode::from_raw_mode(0o644))
            .system(|| format!("creating {}", self.show(name)))?;
        Ok(File::from(fd))
    }

    /// Creates a file with these bytes and syncs it to disk.
    pub(super) fn write(&self, name: &str, bytes: &[u8]) -> Result<()> {
        let mut file = self.create_file(name)?;
        file.write_all(bytes).and_then(|()| file.sync_all()).system(|| format!("writing {}", self.show(name)))
    }

    /// Does the same as [`Staging::write`], with the modification time `time`.
    pub(super) fn write_dated(&self, name: &str, mut bytes: &[u8], time: SystemTime) -> Result<()> {
        self.fill(name, &mut bytes, time)
    }

    /// Creates a directory.
    pub(super) fn mkdir(&self, name: &str) -> Result<()> {
        rustix::fs::mkdirat(self.dir.fd(), name, Mode::from_raw_mode(0o755))
            .system(|| format!("creating {}", self.show(name)))
    }

    /// Makes a hard link, or a copy if the file system has no hard links.
    pub(super) fn link(&self, from: &str, to: &str) -> Result<()> {
        if rustix::fs::linkat(self.dir.fd(), from, self.dir.fd(), to, AtFlags::empty()).is_ok() {
            return Ok(());
        }
        let linking = || format!("copying {} to {}", self.show(from), to);
        let source = rustix::fs::openat(self.dir.fd(), from, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty());
        let mut source = File::from(source.system(linking)?);
        let mut target = self.create_file(to)?;
        std::io::copy(&mut source, &mut target).system(linking)?;
        target.sync_all().system(linking)
    }

    /// Copies an open file from its beginning, with the modification time `time`.
    pub(super) fn copy(&self, from: &File, to: &str, time: SystemTime) -> Result<()> {
        self.fill(to, &mut rewound(from)?, time)
    }

    fn fill(&self, name: &str, from: &mut dyn std::io::Read, time: SystemTime) -> Result<()> {
        let writing = || format!("writing {}", self.show(name));
        let mut file = self.create_file(name)?;
        std::io::copy(from, &mut file).system(writing)?;
        file.set_modified(time).and_then(|()| file.sync_all()).system(writing)
    }

    /// Syncs a directory to disk; `.` is the staging directory itself.
    pub(super) fn sync(&self, name: &str) -> Result<()> {
        let syncing = || format!("syncing {}", self.show(name));
        let dir = rustix::fs::openat(self.dir.fd(), name, DIRECTORY, Mode::empty()).system(syncing)?;
        rustix::fs::fsync(dir).system(syncing)
    }

    /// Locks the outdir, so that no other build publishes in it until the returned descriptor is closed.
    pub(super) fn lock_outdir(&self) -> Result<OwnedFd> {
        let locking = || format!("locking {}", self.outdir_path.display());
        // A descriptor of its own, because closing it releases the lock.
        let fd = rustix::fs::openat(&self.outdir, ".", DIRECTORY, Mode::empty()).system(locking)?;
        lock::lock_if_supported(&fd, lock::Mode::Exclusive).system(locking)?;
        Ok(fd)
    }

    /// Removes an old result, so that it cannot pass for a companion of the new tarball.
    pub(super) fn remove_old(&self, name: &str) -> Result<()> {
        match rustix::fs::unlinkat(&self.outdir, name, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => Ok(()),
            Err(error) => Err(error).system(|| format!("removing {}", self.outdir_path.join(name).display())),
        }
    }

    /// Moves `name` into the outdir. A file or directory of that name is replaced atomically and removed with the staging directory.
    pub(super) fn promote(&self, name: &str) -> Result<PathBuf> {
        self.dir.undisturbed(|| self.rename_out(name))
    }

    fn rename_out(&self, name: &str) -> Result<PathBuf> {
        let path = self.outdir_path.join(name);
        let naming = || format!("renaming {} to {}", self.show(name), path.display());
        let rename = |flags| rustix::fs::renameat_with(self.dir.fd(), name, &self.outdir, name, flags);
        match rename(RenameFlags::EXCHANGE) {
            Ok(()) => {}
            Err(Errno::NOENT) => rename(RenameFlags::empty()).system(naming)?,
            // The file system cannot exchange names. Renaming replaces a file, but an old directory must make room first.
            Err(Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP) => {
                let old = format!("{name}.old");
                match rustix::fs::statat(&self.outdir, name, AtFlags::SYMLINK_NOFOLLOW) {
                    Ok(stat) if FileType::from_raw_mode(stat.st_mode) == FileType::Directory => {
                        rustix::fs::renameat(&self.outdir, name, self.dir.fd(), &old).system(naming)?;
                    }
                    _ => {}
                }
                rustix::fs::renameat(self.dir.fd(), name, &self.outdir, name).system(naming)?;
            }
            Err(error) => return Err(error).system(naming),
        }
        Ok(path)
    }

    /// Syncs the names in the outdir to disk.
    pub(super) fn sync_outdir(&self) -> Result<()> {
        rustix::fs::fsync(&self.outdir).system(|| format!("syncing {}", self.outdir_path.display()))
    }

    fn show(&self, name: &str) -> String {
        self.outdir_path.join(self.dir.name()).join(name).display().to_string()
    }
}

/// Checks that the common name of results is a path component that every file system and terminal accepts.
pub(super) fn checked_name(name: String) -> Result<String> {
    let fit = !name.is_empty()
        && name.len() <= 200
        && !name.starts_with(['.', '-'])
        && !name.chars().any(|character| character == '/' || character.is_control());
    if fit {
        Ok(name)
    } else {
        Err(Error::usage(format!("`{}` cannot name a file", name.escape_default())).with_hint(
            "choose another `name` or `build.image-name`: a path component that does not begin with a dot or a dash",
        ))
    }
}
