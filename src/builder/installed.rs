//! Reads Portage's records of the packages that a tree has.

use std::path::Path;

use rustix::fs::FileType;

use crate::base::error::Result;
use crate::fs::rootfs::Rootfs;
use crate::portage::PKGDB;
use crate::portage::installed::Installed;

/// Longest file of a record that is read, in bytes.
const MAX_FILE: u64 = 1 << 20;

/// The beginning of the names that Portage uses while it merges a package.
const MERGING: &str = "-MERGING-";

/// Returns the packages of a tree, sorted by name and version. Directories that are not named like a package are left out, as Portage does.
///
/// # Errors
/// [`Kind::System`](crate::base::error::Kind::System) if a record cannot be read.
pub fn packages(tree: &Rootfs) -> Result<Vec<Installed>> {
    let mut found = Vec::new();
    for cpv in names(tree)? {
        if let Some((category, pf)) = cpv.split_once('/') {
            found.extend(Installed::new(category, pf, |name| field(tree, &cpv, name))?);
        }
    }
    found.sort_by(|one, other| (&one.name, &one.version).cmp(&(&other.name, &other.version)));
    Ok(found)
}

/// Returns `category/package-version` of each package of a tree. Empty if the tree has no records.
///
/// # Errors
/// [`Kind::System`](crate::base::error::Kind::System) if a directory cannot be read.
pub(super) fn names(tree: &Rootfs) -> Result<Vec<String>> {
    let database = Path::new(PKGDB);
    let mut names = Vec::new();
    if tree.stat(database)?.is_none() {
        return Ok(names);
    }
    for category in directories(tree, database)? {
        for pf in directories(tree, &database.join(&category))? {
            if !pf.starts_with(MERGING) {
                names.push(format!("{category}/{pf}"));
            }
        }
    }
    Ok(names)
}

/// Returns a file of the record of the package `cpv` with single blanks between the words. Empty if it does not exist.
///
/// # Errors
/// [`Kind::System`](crate::base::error::Kind::System) if it is too long, not a regular file, or cannot be read.
pub(super) fn field(tree: &Rootfs, cpv: &str, name: &str) -> Result<String> {
    let bytes = tree.read(&Path::new(PKGDB).join(cpv).join(name), MAX_FILE)?;
    let text = String::from_utf8_lossy(&bytes.unwrap_or_default()).into_owned();
    Ok(text.split_whitespace().collect::<Vec<_>>().join(" "))
}

/// Returns the names of the directories in `path`.
fn directories(tree: &Rootfs, path: &Path) -> Result<Vec<String>> {
    let entries = tree.read_dir(path)?.into_iter().filter(|(_, kind)| *kind == FileType::Directory);
    Ok(entries.map(|(name, _)| name.to_string_lossy().into_owned()).collect())
}
