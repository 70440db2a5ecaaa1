//! Reads Portage's records of the packages that a tree has.

use std::path::{Path, PathBuf};

use rustix::fs::FileType;

use crate::base::error::Result;
use crate::fs::rootfs::Rootfs;
use crate::portage::PKGDB;
use crate::portage::installed::Installed;

/// Longest file of a record, in bytes. A longer one, and one that is not a regular file, counts as missing.
const MAX_FILE: u64 = 1 << 20;

/// Returns the packages that are installed in a tree, sorted by name and version. Entries without a version are left out: Portage keeps
/// `-MERGING-` directories of interrupted merges there.
///
/// # Errors
/// [`Kind::System`](crate::base::error::Kind::System) if a directory cannot be read.
pub fn packages(tree: &Rootfs) -> Result<Vec<Installed>> {
    let database = Path::new(PKGDB);
    let mut found = Vec::new();
    for (category, of) in directories(tree, database)? {
        for (pf, record) in directories(tree, &of)? {
            let file = |name: &str| {
                let bytes = tree.read(&record.join(name), MAX_FILE).ok().flatten();
                String::from_utf8_lossy(&bytes.unwrap_or_default()).into_owned()
            };
            if !pf.starts_with('-') {
                found.extend(Installed::new(&category, &pf, file));
            }
        }
    }
    found.sort_by(|one, other| (&one.name, &one.version).cmp(&(&other.name, &other.version)));
    Ok(found)
}

/// Returns the names and paths of the directories in `path`. Empty if it does not exist.
fn directories(tree: &Rootfs, path: &Path) -> Result<Vec<(String, PathBuf)>> {
    if tree.stat(path)?.is_none() {
        return Ok(Vec::new());
    }
    let entries = tree.read_dir(path)?.into_iter().filter(|(_, kind)| *kind == FileType::Directory);
    Ok(entries.filter_map(|(name, _)| Some((name.to_str()?.to_owned(), path.join(&name)))).collect())
}
