//! What hides parts of a directory: a second one, to be laid over it in an overlay, with opaque directories and whiteouts where
//! nothing is to be seen. The directory itself is only looked at.

use std::collections::BTreeSet;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, FileType, Mode, XattrFlags};

use super::rules::{Rules, Sight};
use super::table;
use crate::base::error::{Context, Error, Result};
use crate::builder::layers::like;
use crate::fs::rootfs::{Rootfs, owner};

/// Makes an overlay not look below a directory. The mount has `userxattr`.
const OPAQUE: &str = "user.overlay.opaque";

/// The longest account file, in bytes.
const MAX_ACCOUNTS: u64 = 16 << 20;

/// What covers something.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Cover {
    /// An empty directory.
    Empty,
    /// Nothing.
    Nothing,
    /// An account file without passwords.
    Accounts,
}

/// What is to be covered in a directory of the host and how, by paths relative to it; parents first. `at` is where it is seen.
///
/// # Errors
/// [`Kind::System`](crate::base::error::Kind::System) when it cannot be listed.
pub(super) fn plan(lower: &Rootfs, at: &Path, rules: &Rules) -> Result<Vec<(PathBuf, Cover)>> {
    let mut covers = Vec::new();
    below(lower, at, Path::new(""), rules, rules.sight(at), &mut covers)?;
    Ok(covers)
}

fn below(
    lower: &Rootfs,
    at: &Path,
    directory: &Path,
    rules: &Rules,
    inherited: Sight,
    covers: &mut Vec<(PathBuf, Cover)>,
) -> Result<()> {
    for (name, kind) in lower.read_dir(directory)? {
        let inside = directory.join(name);
        let path = at.join(&inside);
        let exactly = rules.exactly(&path);
        let mut sight = exactly.unwrap_or(inherited);
        let accounts = table::ACCOUNTS.iter().any(|accounts| path == Path::new(accounts));
        if accounts && kind == FileType::RegularFile && sight != Sight::Hidden && exactly != Some(Sight::Whole) {
            covers.push((inside, Cover::Accounts));
            continue;
        }
        let guarded = sight == Sight::Guarded && table::is_guarded(&path);
        if guarded && is_private(lower, &inside, kind)? {
            sight = Sight::Hidden;
        }
        let directory = kind == FileType::Directory;
        if sight == Sight::Hidden && !(directory && rules.show_below(&path)) {
            covers.push((inside, if directory { Cover::Empty } else { Cover::Nothing }));
        } else if directory && (guarded || rules.reach_below(&path)) {
            below(lower, at, &inside, rules, sight, covers)?;
        }
    }
    Ok(())
}

/// Whether ordinary users may not see it. What is neither file, directory nor link is in nobody's package.
fn is_private(lower: &Rootfs, path: &Path, kind: FileType) -> Result<bool> {
    let needed = match kind {
        FileType::Symlink => return Ok(false),
        FileType::Directory => 0o005,
        FileType::RegularFile => 0o004,
        _ => return Ok(true),
    };
    // What is gone meanwhile may come back as anything.
    Ok(lower.stat(path)?.is_none_or(|stat| stat.st_mode & needed != needed))
}

/// Makes in the empty directory `mask` what covers `covers` of `lower`.
///
/// # Errors
/// [`Kind::System`](crate::base::error::Kind::System) when the store's file system cannot hold it.
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
                        "the store's file system must hold extended attributes of users; QUERN_HOME moves the store",
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
    // Last: what is made in a directory changes its time.
    for path in &made {
        like(lower.open_dir(path)?.as_fd(), mask.open_dir(path)?.as_fd())
            .system(|| format!("hiding parts of {}", lower.path().display()))?;
    }
    Ok(())
}

/// An account file with locked accounts only: of each line the name, and as many fields as it had.
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
