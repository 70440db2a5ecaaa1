//! Merges the upper directories of a chain of layers into one, because an overlay takes a limited number of lower layers.
//!
//! The merged directory gives the same tree in the place of those that it was made from. Its files are hard links. The layers below the
//! chain are not looked at, so whiteouts stay wherever something of theirs could show through.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, FileType, Mode, OFlags, Timespec, Timestamps, XattrFlags};
use rustix::io::Errno;

use crate::base::error::{Context, Result};
use crate::fs::rootfs::{MAX_XATTR, Rootfs, list, owner, xattr_names};

/// The attribute of a directory that hides those of the same name below it.
const OPAQUE: &str = "user.overlay.opaque";

/// The attribute of a directory that was copied up; an empty value means an unknown origin. In a directory without it that has no
/// counterpart in other layers, the kernel does not look for whiteouts, and shows them as devices.
const ORIGIN: &str = "user.overlay.origin";

const DIRECTORY: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// A directory of the result.
struct Merged {
    path: PathBuf,
    /// The layers whose directories it is merged from, uppermost first.
    from: Vec<usize>,
    /// Nothing of the layers below the chain shows through.
    hidden: bool,
    /// The attribute that it gets.
    mark: Option<(&'static str, &'static [u8])>,
}

/// Merges the directories `uppers`, uppermost first, into the empty directory `into` on the same file system.
///
/// # Errors
/// [`Kind::System`](crate::base::error::Kind::System) if a directory cannot be read or written.
pub fn flatten(uppers: &[&Path], into: &Path) -> Result<()> {
    let uppers = uppers.iter().map(|upper| Rootfs::open(upper)).collect::<Result<Vec<_>>>()?;
    let into = Rootfs::open(into)?;
    let merging = |path: &Path| into.doing("merging layers into", path);
    let mut todo = vec![Merged { path: PathBuf::new(), from: (0..uppers.len()).collect(), hidden: false, mark: None }];
    let mut done = Vec::new();
    while let Some(mut directory) = todo.pop() {
        todo.extend(merge(&uppers, &into, &mut directory).system(|| merging(&directory.path))?);
        done.push(directory);
    }
    // From the inside out, because a new entry changes the time of its directory.
    for Merged { path, from, mark, .. } in done.iter().rev() {
        let Some(first) = from.first() else { continue };
        let finished = uppers[*first].openat2(path, DIRECTORY, Mode::empty()).and_then(|from| {
            let to = into.openat2(path, DIRECTORY, Mode::empty())?;
            finish(from.as_fd(), to.as_fd(), *mark)
        });
        finished.system(|| merging(path))?;
    }
    Ok(())
}

/// Fills a directory of the result, apart from the directories in it, which are returned.
fn merge(uppers: &[Rootfs], into: &Rootfs, directory: &mut Merged) -> rustix::io::Result<Vec<Merged>> {
    let to = into.openat2(&directory.path, DIRECTORY, Mode::empty())?;
    let open = |layer: &usize| uppers[*layer].openat2(&directory.path, DIRECTORY, Mode::empty());
    let from = directory.from.iter().map(open).collect::<rustix::io::Result<Vec<OwnedFd>>>()?;
    let mut names: BTreeMap<OsString, Vec<(usize, FileType)>> = BTreeMap::new();
    for (index, from) in from.iter().enumerate() {
        for (name, kind) in list(from.as_fd())? {
            names.entry(name).or_default().push((index, kind));
        }
    }
    let mut below = Vec::new();
    for (name, found) in names {
        let (uppermost, kind) = found[0];
        if kind == FileType::Directory {
            rustix::fs::mkdirat(&to, &name, Mode::from_raw_mode(0o700))?;
            let (count, ends) = shown(&from, &name, &found)?;
            below.push(Merged {
                path: directory.path.join(name),
                from: found[..count].iter().map(|(index, _)| directory.from[*index]).collect(),
                hidden: directory.hidden || ends,
                mark: (ends && !directory.hidden).then_some((OPAQUE, b"y")),
            });
        } else if !is_whiteout(from[uppermost].as_fd(), &name, kind)? {
            rustix::fs::linkat(&from[uppermost], &name, &to, &name, AtFlags::empty())?;
        } else if !directory.hidden {
            // Not a hard link: the kernel makes many links of one whiteout, and their number is limited.
            rustix::fs::mknodat(&to, &name, FileType::CharacterDevice, Mode::empty(), 0)?;
            directory.mark = Some((ORIGIN, b""));
        }
    }
    Ok(below)
}

/// Returns the number of directories called `name`, uppermost first, that show in the tree, and whether the last of them hides what
/// lies below it.
fn shown(from: &[OwnedFd], name: &OsStr, found: &[(usize, FileType)]) -> rustix::io::Result<(usize, bool)> {
    for (at, (index, kind)) in found.iter().enumerate() {
        if *kind != FileType::Directory {
            return Ok((at, true));
        }
        let directory = rustix::fs::openat(&from[*index], name, DIRECTORY, Mode::empty())?;
        let mut value = [0; 1];
        match rustix::fs::fgetxattr(directory, OPAQUE, &mut value[..]) {
            Ok(1) if value == *b"y" => return Ok((at + 1, true)),
            Ok(_) | Err(Errno::NODATA | Errno::OPNOTSUPP | Errno::RANGE) => {}
            Err(error) => return Err(error),
        }
    }
    Ok((found.len(), false))
}

fn is_whiteout(at: BorrowedFd<'_>, name: &OsStr, kind: FileType) -> rustix::io::Result<bool> {
    Ok(kind == FileType::CharacterDevice
        && rustix::fs::statat(at, name, AtFlags::SYMLINK_NOFOLLOW)?.st_rdev == rustix::fs::makedev(0, 0))
}

/// Gives the directory `to` the attributes, owner, mode and time of `from`, and a mark.
fn finish(from: BorrowedFd<'_>, to: BorrowedFd<'_>, mark: Option<(&str, &[u8])>) -> rustix::io::Result<()> {
    let stat = rustix::fs::fstat(from)?;
    let (uid, gid) = owner(stat.st_uid, stat.st_gid);
    rustix::fs::fchown(to, uid, gid)?;
    let mut value = vec![0; MAX_XATTR];
    for name in xattr_names(|names| rustix::fs::flistxattr(from, names))? {
        let length = rustix::fs::fgetxattr(from, &name[..], &mut value[..])?;
        rustix::fs::fsetxattr(to, &name[..], &value[..length], XattrFlags::empty())?;
    }
    if let Some((name, value)) = mark {
        rustix::fs::fsetxattr(to, name, value, XattrFlags::empty())?;
    }
    rustix::fs::fchmod(to, Mode::from_raw_mode(stat.st_mode & 0o7777))?;
    let time = Timespec { tv_sec: stat.st_mtime as _, tv_nsec: stat.st_mtime_nsec as _ };
    rustix::fs::futimens(to, &Timestamps { last_access: time, last_modification: time })
}
