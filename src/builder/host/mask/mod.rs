//! Masks: layers that hide parts of a directory below them in an overlay, with whiteouts and opaque directories. Nothing is written
//! to the directory itself.

use std::collections::BTreeSet;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, FileType, Mode, XattrFlags};

use super::rules::{Rules, Visibility};
use super::table;
use crate::base::error::{Context, Error, Result};
use crate::builder::overlays::like;
use crate::fs::rootfs::{Rootfs, owner};

/// The attribute of an opaque directory in an overlay with `userxattr`: the layers below it do not show through.
const OPAQUE: &str = "user.overlay.opaque";

/// Limit on the size of an account file, in bytes.
const MAX_ACCOUNTS: u64 = 16 << 20;

/// The replacement of a hidden path.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Cover {
    /// An empty directory.
    Empty,
    /// Nothing.
    Nothing,
    /// An account file without passwords.
    Accounts,
}

/// Returns the paths to cover in a directory of the host that the tree has as `at`, relative to it, parents first.
///
/// # Errors
/// [`Kind::System`](crate::base::error::Kind::System) if it cannot be listed.
pub(super) fn plan(lower: &Rootfs, at: &Path, rules: &Rules) -> Result<Vec<(PathBuf, Cover)>> {
    let mut walk = Walk { lower, at, rules, covers: Vec::new() };
    walk.below(Path::new(""), rules.visibility(at))?;
    Ok(walk.covers)
}

/// A walk over a directory of the host.
struct Walk<'a> {
    lower: &'a Rootfs,
    at: &'a Path,
    rules: &'a Rules,
    covers: Vec<(PathBuf, Cover)>,
}

impl Walk<'_> {
    /// Covers the entries of `directory`, which has the visibility `inherited`.
    fn below(&mut self, directory: &Path, inherited: Visibility) -> Result<()> {
        for (name, kind) in self.lower.read_dir(directory)? {
            let inside = directory.join(name);
            let path = self.at.join(&inside);
            let exactly = self.rules.exactly(&path);
            let mut visibility = exactly.unwrap_or(inherited);
            let accounts = table::ACCOUNTS.iter().any(|accounts| path == Path::new(accounts));
            let seen = visibility != Visibility::Hidden && exactly != Some(Visibility::Whole);
            if accounts && kind == FileType::RegularFile && seen {
                self.covers.push((inside, Cover::Accounts));
                continue;
            }
            let guarded = visibility == Visibility::Guarded && table::is_guarded(&path);
            if guarded && is_private(self.lower, &inside, kind)? {
                visibility = Visibility::Hidden;
            }
            let directory = kind == FileType::Directory;
            if visibility == Visibility::Hidden && !(directory && self.rules.show_below(&path)) {
                self.covers.push((inside, if directory { Cover::Empty } else { Cover::Nothing }));
            } else if directory && (guarded || self.rules.reach_below(&path)) {
                self.below(&inside, visibility)?;
            }
        }
        Ok(())
    }
}

/// Returns whether ordinary users may not read it. Nodes of other types than file, directory and symlink belong to no package.
fn is_private(lower: &Rootfs, path: &Path, kind: FileType) -> Result<bool> {
    let needed = match kind {
        FileType::Symlink => return Ok(false),
        FileType::Directory => 0o005,
        FileType::RegularFile => 0o004,
        _ => return Ok(true),
    };
    // A path that is gone meanwhile may come back as anything.
    Ok(lower.stat(path)?.is_none_or(|stat| stat.st_mode & needed != needed))
}

/// Fills the empty directory `mask` with the replacements of the paths `covers` of `lower`.
///
/// # Errors
/// [`Kind::System`](crate::base::error::Kind::System) if the store's file system cannot hold it.
pub(super) fn make(lower: &Rootfs, covers: &[(PathBuf, Cover)], mask: &Rootfs) -> Result<()> {
    let mut made = BTreeSet::from([PathBuf::new()]);
    for (path, cover) in covers {
        let doing = || format!("hiding {} of {}", path.display(), lower.path().display());
        let (above, name) = (path.parent().unwrap_or(Path::new("")), path.file_name().unwrap_or_default());
        mask.create_dir_all(above, 0o700)?;
        made.extend(above.ancestors().map(Path::to_owned));
        let parent = mask.open_dir(above)?;
        match cover {
            Cover::Empty => {
                rustix::fs::mkdirat(&parent, name, Mode::from_raw_mode(0o700)).system(doing)?;
                let opaque = rustix::fs::fsetxattr(mask.open_dir(path)?, OPAQUE, b"y", XattrFlags::empty());
                opaque.map_err(|errno| {
                    Error::system(doing()).with_source(errno).with_hint(
                        "the store's file system must support extended attributes of users (user.*); set QUERN_HOME to a directory on one that does",
                    )
                })?;
                made.insert(path.clone());
            }
            Cover::Nothing => {
                rustix::fs::mknodat(&parent, name, FileType::CharacterDevice, Mode::empty(), 0).system(doing)?;
            }
            Cover::Accounts => {
                let text = lower.read(path, MAX_ACCOUNTS)?.unwrap_or_default();
                let Some(stat) = lower.stat(path)? else { continue };
                mask.write(path, &without_passwords(&text), stat.st_mode)?;
                let (uid, gid) = owner(stat.st_uid, stat.st_gid);
                rustix::fs::chownat(&parent, name, uid, gid, AtFlags::SYMLINK_NOFOLLOW).system(doing)?;
            }
        }
    }
    // Last: making an entry changes the time of its directory.
    for path in &made {
        like(lower.open_dir(path)?.as_fd(), mask.open_dir(path)?.as_fd())
            .system(|| format!("hiding parts of {}", lower.path().display()))?;
    }
    Ok(())
}

/// Locks all accounts of an account file: keeps the name and the number of fields of each line.
fn without_passwords(text: &[u8]) -> Vec<u8> {
    let mut locked = Vec::new();
    for line in text.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
        let mut fields = line.split(|byte| *byte == b':');
        locked.extend(fields.next().unwrap_or_default());
        locked.extend(b":*");
        locked.extend(fields.skip(1).map(|_| b':'));
        locked.push(b'\n');
    }
    locked
}

#[cfg(test)]
mod tests;
