//! Digest of the contents of an ebuild repository in a directory of this machine.
//!
//! It covers the files that emerge can read: everything below `profiles`, `eclass`, `metadata` and `licenses`, and in each package
//! `*.ebuild`, `Manifest`, `metadata.xml` and everything below `files`. Other files do not count, so that version control, editors
//! and results of builds do not change it. Two directories have the same digest exactly if these files have the same paths, types,
//! bytes, owner's execute bits and symlink targets. Times, owners and empty directories do not count.

use std::ffi::OsStr;
use std::fs::File;
use std::io::Read;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use rustix::fs::{FileType, Mode, OFlags};
use rustix::io::Errno;
use sha2::{Digest as _, Sha256 as Hash};

use crate::base::digest::Sha256;
use crate::base::error::{Context, Error, Result};
use crate::base::progress::Progress;
use crate::base::text::printable;
use crate::fs::rootfs::{self, Rootfs};

/// Names the format of the digested text.
const FORMAT: &[u8] = b"quern-builder repository 1\n";

/// Top directories that are read as a whole.
const WHOLE: [&str; 4] = ["eclass", "licenses", "metadata", "profiles"];

/// Files of version control systems, at any depth.
const IGNORED: [&str; 4] = [".git", ".hg", ".svn", "CVS"];

/// Deepest directory that is read. Deeper trees are not ebuild repositories.
const DEPTH: usize = 64;

/// Part of a repository that a directory belongs to.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Level {
    Top,
    Category,
    Package,
    /// Everything below counts.
    Whole,
}

impl Level {
    /// Returns the level of a subdirectory, or `None` if emerge does not read it.
    fn below(self, name: &OsStr) -> Option<Self> {
        let named = |names: &[&str]| names.iter().any(|one| OsStr::new(one) == name);
        if named(&IGNORED) {
            return None;
        }
        match self {
            Self::Top if named(&WHOLE) => Some(Self::Whole),
            Self::Top if name.as_bytes().starts_with(b".") => None,
            Self::Top => Some(Self::Category),
            Self::Category => Some(Self::Package),
            Self::Package => named(&["files"]).then_some(Self::Whole),
            Self::Whole => Some(Self::Whole),
        }
    }

    /// Returns true if emerge reads a file of this name in the directory.
    fn reads(self, name: &OsStr) -> bool {
        match self {
            Self::Top | Self::Category => false,
            Self::Package => {
                let bytes = name.as_bytes();
                bytes.ends_with(b".ebuild") || matches!(bytes, b"Manifest" | b"metadata.xml")
            }
            Self::Whole => !IGNORED.iter().any(|one| OsStr::new(one) == name),
        }
    }
}

/// Computes the digest of the repository in `directory`.
///
/// # Errors
/// [`Kind::System`](crate::base::error::Kind::System) when a file cannot be read or changes meanwhile.
pub fn digest(directory: &Path, ui: &dyn Progress) -> Result<Sha256> {
    ui.stage(&format!("hashing the repository {}", printable(&directory.display().to_string())));
    // A repository may be named by a symlink; its files are not reached through any.
    let directory = fs_err::canonicalize(directory).system(|| "hashing a repository")?;
    let mut walk = Walk { root: Rootfs::open(&directory)?, hash: Hash::new(), buffer: vec![0; super::super::BUFFER] };
    walk.hash.update(FORMAT);
    walk.directory(Path::new(""), Level::Top, 0)?;
    ui.done();
    let digest: [u8; 32] = walk.hash.finalize().into();
    Ok(digest.into())
}

struct Walk {
    root: Rootfs,
    hash: Hash,
    buffer: Vec<u8>,
}

impl Walk {
    fn directory(&mut self, path: &Path, level: Level, depth: usize) -> Result<()> {
        if depth > DEPTH {
            return Err(Error::system(format!("{}: its directories are too deep", self.shown(path))));
        }
        let Some(directory) = self.open(path, OFlags::DIRECTORY)? else { return Ok(()) };
        let names = rootfs::list(directory.as_fd()).system(|| format!("listing {}", self.shown(path)))?;
        drop(directory);
        for (name, kind) in names {
            let below = path.join(&name);
            match kind {
                FileType::Directory => {
                    if let Some(level) = level.below(&name) {
                        self.directory(&below, level, depth + 1)?;
                    }
                }
                FileType::RegularFile if level.reads(&name) => self.file(&below)?,
                // A symlink may stand for a file or for a directory.
                FileType::Symlink if level.reads(&name) || level.below(&name).is_some() => {
                    let target = self.root.read_link(&below)?.unwrap_or_default();
                    self.entry(b'l', &below, target.as_os_str().len() as u64);
                    self.hash.update(target.as_os_str().as_bytes());
                }
                FileType::RegularFile | FileType::Symlink => {}
                _ if level.reads(&name) => self.entry(b's', &below, 0),
                _ => {}
            }
        }
        Ok(())
    }

    fn file(&mut self, path: &Path) -> Result<()> {
        let Some(file) = self.open(path, OFlags::NONBLOCK | OFlags::NOCTTY)? else { return Ok(()) };
        let reading = || format!("reading {}", path.display());
        let stat = rustix::fs::fstat(&file).system(reading)?;
        let kind = if stat.st_mode & 0o100 == 0 { b'f' } else { b'x' };
        let size = u64::try_from(stat.st_size).unwrap_or_default();
        self.entry(kind, path, size);
        let (mut file, mut done) = (File::from(file), 0);
        if FileType::from_raw_mode(stat.st_mode).is_file() {
            loop {
                let count = file.read(&mut self.buffer).system(reading)?;
                if count == 0 {
                    break;
                }
                self.hash.update(&self.buffer[..count]);
                done += count as u64;
            }
        }
        if done == size {
            return Ok(());
        }
        Err(Error::system(format!("{} changed while it was hashed", self.shown(path)))
            .with_hint("wait until nothing writes to the repository, and run again"))
    }

    /// Opens a file or a directory without following a symlink. `None` if this user may not read it: emerge cannot either.
    fn open(&mut self, path: &Path, flags: OFlags) -> Result<Option<OwnedFd>> {
        let opened = self.root.openat2(path, OFlags::RDONLY | OFlags::NOFOLLOW | flags, Mode::empty());
        match opened {
            Ok(fd) => Ok(Some(fd)),
            Err(Errno::ACCESS) => {
                self.entry(b'u', path, 0);
                Ok(None)
            }
            Err(error) => Err(error).system(|| format!("opening {}", self.shown(path))),
        }
    }

    fn shown(&self, path: &Path) -> String {
        printable(&self.root.path().join(path).display().to_string())
    }

    /// Adds the type, the path and the length of an entry. Lengths keep entries apart.
    fn entry(&mut self, kind: u8, path: &Path, length: u64) {
        let path = path.as_os_str().as_bytes();
        self.hash.update([kind]);
        self.hash.update((path.len() as u64).to_be_bytes());
        self.hash.update(path);
        self.hash.update(length.to_be_bytes());
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;
    use crate::base::progress::Silent;

    fn repository() -> tempfile::TempDir {
        let scratch = tempfile::tempdir().unwrap();
        for (path, text) in [
            ("profiles/repo_name", "own\n"),
            ("eclass/x.eclass", "x"),
            ("metadata/layout.conf", "masters = gentoo\n"),
            ("app-misc/demo/demo-1.ebuild", "EAPI=8\n"),
            ("app-misc/demo/Manifest", "DIST\n"),
            ("app-misc/demo/files/deep/patch", "---\n"),
        ] {
            let path = scratch.path().join(path);
            fs_err::create_dir_all(path.parent().unwrap()).unwrap();
            fs_err::write(path, text).unwrap();
        }
        scratch
    }

    #[test]
    fn every_file_that_emerge_reads_changes_the_digest() {
        let scratch = repository();
        let mut seen = std::collections::HashSet::from([digest(scratch.path(), &Silent).unwrap()]);
        let mut changed = |what: &str| assert!(seen.insert(digest(scratch.path(), &Silent).unwrap()), "{what}");
        for path in [
            "profiles/repo_name",
            "profiles/p/.hidden",
            "eclass/x.eclass",
            "metadata/md5-cache/app-misc/demo-1",
            "licenses/X",
            "app-misc/demo/demo-1.ebuild",
            "app-misc/demo/demo-2.ebuild",
            "app-misc/demo/Manifest",
            "app-misc/demo/metadata.xml",
            "app-misc/demo/files/deep/patch",
            "app-misc/demo/files/.hidden",
        ] {
            let full = scratch.path().join(path);
            fs_err::create_dir_all(full.parent().unwrap()).unwrap();
            fs_err::write(full, format!("changed {path}")).unwrap();
            changed(path);
        }
        let script = scratch.path().join("app-misc/demo/files/deep/patch");
        fs_err::set_permissions(&script, PermissionsExt::from_mode(0o755)).unwrap();
        changed("an execute bit");
        symlink("demo-1.ebuild", scratch.path().join("app-misc/demo/demo-3.ebuild")).unwrap();
        changed("a symlink");
        symlink("demo", scratch.path().join("app-misc/other")).unwrap();
        changed("a symlink to a package");
        fs_err::remove_file(scratch.path().join("app-misc/demo/Manifest")).unwrap();
        changed("a removed file");
        fs_err::rename(scratch.path().join("licenses/X"), scratch.path().join("licenses/Y")).unwrap();
        changed("a renamed file");
    }

    #[test]
    fn other_files_do_not_change_the_digest() {
        let scratch = repository();
        let before = digest(scratch.path(), &Silent).unwrap();
        for path in [
            "README",
            "quern.lock",
            ".git/index",
            ".github/workflows/x.yml",
            "profiles/.git/HEAD",
            "out/image.tar",
            "app-misc/demo/demo-1.ebuild.swp",
            "app-misc/demo/work/x",
        ] {
            let path = scratch.path().join(path);
            fs_err::create_dir_all(path.parent().unwrap()).unwrap();
            fs_err::write(path, "x").unwrap();
        }
        fs_err::create_dir_all(scratch.path().join("profiles/empty")).unwrap();
        let ebuild =
            fs_err::File::options().write(true).open(scratch.path().join("app-misc/demo/demo-1.ebuild")).unwrap();
        ebuild.set_modified(std::time::SystemTime::UNIX_EPOCH).unwrap();
        assert_eq!(digest(scratch.path(), &Silent).unwrap(), before);
        // The path of the repository does not count, and a symlink may lead to it.
        let link = tempfile::tempdir().unwrap();
        symlink(scratch.path(), link.path().join("own")).unwrap();
        assert_eq!(digest(&link.path().join("own"), &Silent).unwrap(), before);
    }

    #[test]
    fn a_fifo_is_not_opened() {
        let scratch = repository();
        let before = digest(scratch.path(), &Silent).unwrap();
        rustix::fs::mknodat(
            rustix::fs::CWD,
            scratch.path().join("profiles/pipe"),
            FileType::Fifo,
            rustix::fs::Mode::from_raw_mode(0o644),
            0,
        )
        .unwrap();
        assert_ne!(digest(scratch.path(), &Silent).unwrap(), before);
    }
}
