//! Removes packages from a directory: first from the index, and after a time their files. Readers that have the older index find them
//! meanwhile.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use crate::base::error::{Context, Error, Result};
use crate::base::time::now;
use crate::portage::binpkg::index::{Index, Stanza};
use crate::portage::binpkg::obsolete::{Keep, obsolete};
use crate::portage::dir::Dir;
use crate::store::Store;
use crate::store::packages::Shelf;

/// Most names that are read from one directory.
const MAX_NAMES: usize = 100_000;
/// Longest file of a package database that is read, in bytes.
const MAX_FILE: u64 = 4096;

/// The packages that stay, beside the newest, and the time that files stay.
#[derive(Debug, Clone, Copy)]
pub struct Rules<'a> {
    /// Packages that are younger stay, in seconds.
    pub younger: u64,
    /// The files of packages that left the index stay for this time, in seconds.
    pub grace: u64,
    /// Packages without an ebuild in these repositories go. Empty: they stay.
    pub repositories: &'a [PathBuf],
}

/// A change to a package.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// It leaves the index. Its file stays for a time.
    Retired,
    /// Its file is removed.
    Removed,
}

/// Takes the packages that no build needs out of the index of a directory, and removes the files of those that left it before the time of
/// grace. Calls `report` with the path and the size of each.
///
/// # Errors
/// [`Kind::Usage`](crate::base::error::Kind::Usage) if the directory has no index,
/// [`Kind::System`](crate::base::error::Kind::System) if something cannot be removed.
pub fn tidy(
    directory: &Path,
    rules: &Rules<'_>,
    used: &BTreeSet<(String, String)>,
    dry_run: bool,
    report: &mut dyn FnMut(&Path, u64, Change),
) -> Result<()> {
    let shelf = Shelf::open(directory)?;
    let locked = shelf.lock()?;
    let unusable = |why: &str| Error::usage(format!("cleaning {}: {why}", directory.display()));
    let bytes = shelf.index()?.ok_or_else(|| unusable("it has no file Packages"))?;
    let mut index = Index::read(&bytes).map_err(|fault| unusable(&fault.to_string()))?;
    let now = now();
    let since = i64::try_from(now.saturating_sub(rules.younger)).unwrap_or(0);
    let has = |package: &Stanza| rules.repositories.iter().any(|repository| ebuild(repository, package).is_some());
    let has_ebuild: Option<&dyn Fn(&Stanza) -> bool> = if rules.repositories.is_empty() { None } else { Some(&has) };
    let gone = obsolete(&index.packages, &Keep { since, used, has_ebuild });
    let mut retired = shelf.retired()?;
    let (mut at, mut left) = (0.., BTreeMap::new());
    index.packages.retain(|package| {
        let is_gone = at.next().is_some_and(|at: usize| gone.contains(&at));
        let Some(path) = package.path().map(PathBuf::from) else { return !is_gone };
        // A run that was killed has retired it, and left it in the index.
        if !is_gone && !retired.contains_key(&path) {
            return true;
        }
        left.insert(path, package.get("SIZE").parse().unwrap_or(0));
        false
    });
    retired.extend(left.keys().map(|path| (path.clone(), now)));
    if !dry_run && !left.is_empty() {
        locked.set_retired(&retired)?;
        let time = i64::try_from(now).unwrap_or(0);
        let text = index.text(time);
        locked.set_index(&text, &Index::compressed(&text), time)?;
    }
    let is_due = |since: &u64| since.saturating_add(rules.grace) <= now;
    for (path, size) in left.iter().filter(|(path, _)| !is_due(&retired[*path])) {
        report(&directory.join(path), *size, Change::Retired);
    }
    let due: Vec<PathBuf> = retired.iter().filter(|(_, since)| is_due(since)).map(|(path, _)| path.clone()).collect();
    for path in due {
        let removing = || format!("removing {}", directory.join(&path).display());
        match shelf.file(&path).and_then(|file| Ok(file.metadata()?.len())) {
            Ok(size) => {
                if !dry_run {
                    fs_err::remove_file(directory.join(&path)).system(removing)?;
                }
                report(&directory.join(&path), size, Change::Removed);
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => return Err(error).system(removing),
        }
        retired.remove(&path);
    }
    if dry_run { Ok(()) } else { locked.set_retired(&retired) }
}

/// Returns the path of the ebuild of a package in a repository.
fn ebuild(repository: &Path, package: &Stanza) -> Option<PathBuf> {
    let (category, pf) = package.cpv().split_once('/')?;
    let name = crate::portage::binhost::package_name(package.cpv()).split_once('/')?.1;
    let plain = |part: &str| !part.starts_with('.') && !part.contains('/');
    let path = repository.join(category).join(name).join(format!("{pf}.ebuild"));
    ([category, name, pf].into_iter().all(plain) && path.is_file()).then_some(path)
}

/// Lists the packages that the last build of any recipe installed in its image, if the store still has the image: name and build time.
pub fn used(store: &Store) -> BTreeSet<(String, String)> {
    let mut used = BTreeSet::new();
    let builds = store.root().join("builds");
    for build in Dir::open(&builds).map(|builds| builds.names(MAX_NAMES)).unwrap_or_default() {
        let path = ["image", "var", "db", "pkg"]
            .iter()
            .try_fold(Dir::open(&builds.join(&build)), |dir, name| Some(dir?.dir(OsStr::new(name))));
        let Some(database) = path.flatten() else { continue };
        for category in database.names(MAX_NAMES) {
            let Some(packages) = database.dir(&category) else { continue };
            for package in packages.names(MAX_NAMES) {
                let time = packages.dir(&package).and_then(|dir| dir.file(OsStr::new("BUILD_TIME"))?.read(0, MAX_FILE));
                if let (Some(time), Some(category), Some(package)) = (time, category.to_str(), package.to_str()) {
                    let time = String::from_utf8_lossy(&time).trim().to_owned();
                    used.insert((format!("{category}/{package}"), time));
                }
            }
        }
    }
    used
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Writes packages `name-version`, each with its age in days, and their index.
    fn shelf(place: &Path, packages: &[(&str, u64, u64)]) {
        let mut text = "ARCH: amd64\nTIMESTAMP: 1\nVERSION: 0\n\n".to_owned();
        for (pf, number, days) in packages {
            let path = format!("a/b/{pf}-{number}.gpkg.tar");
            fs_err::create_dir_all(place.join("a/b")).unwrap();
            fs_err::write(place.join(&path), "12345").unwrap();
            let time = now() - days * 86_400;
            text.push_str(&format!(
                "CPV: a/{pf}\nBUILD_ID: {number}\nBUILD_TIME: {time}\nMTIME: {time}\nPATH: {path}\nSIZE: 5\n\n"
            ));
        }
        fs_err::write(place.join("Packages"), text).unwrap();
    }

    fn run(place: &Path, rules: &Rules<'_>, dry_run: bool) -> Vec<String> {
        let mut gone = Vec::new();
        let mut report = |path: &Path, size: u64, change: Change| {
            gone.push(format!("{change:?} {} {size}", path.file_name().unwrap().display()));
        };
        tidy(place, rules, &BTreeSet::new(), dry_run, &mut report).unwrap();
        gone
    }

    fn left(place: &Path) -> Vec<String> {
        let names = |entry: std::io::Result<fs_err::DirEntry>| entry.unwrap().file_name().into_string().unwrap();
        let mut left: Vec<_> = fs_err::read_dir(place.join("a/b")).unwrap().map(names).collect();
        left.sort();
        left
    }

    #[test]
    fn a_dry_run_lists_what_a_run_removes() {
        let place = tempfile::tempdir().unwrap();
        shelf(place.path(), &[("b-1", 1, 40), ("b-1", 2, 35), ("b-1", 3, 3), ("b-1", 4, 1), ("b-2", 1, 50)]);
        let rules = Rules { younger: 30 * 86_400, grace: 0, repositories: &[] };
        let before = fs_err::read(place.path().join("Packages")).unwrap();
        let planned = run(place.path(), &rules, true);
        assert_eq!(planned, ["Removed b-1-1.gpkg.tar 5", "Removed b-1-2.gpkg.tar 5"]);
        assert_eq!(fs_err::read(place.path().join("Packages")).unwrap(), before);
        assert_eq!(run(place.path(), &rules, false), planned);
        assert_eq!(left(place.path()), ["b-1-3.gpkg.tar", "b-1-4.gpkg.tar", "b-2-1.gpkg.tar"]);
        let index = Index::read(&fs_err::read(place.path().join("Packages.gz")).unwrap()).unwrap();
        assert_eq!(index.packages.len(), 3);
        assert_eq!(run(place.path(), &rules, false), [""; 0]);
        // A repository without the ebuild of b-2.
        let repository = place.path().join("repository");
        fs_err::create_dir_all(repository.join("a/b")).unwrap();
        fs_err::write(repository.join("a/b/b-1.ebuild"), "").unwrap();
        let gone = Rules { repositories: std::slice::from_ref(&repository), ..rules };
        assert_eq!(run(place.path(), &gone, false), ["Removed b-2-1.gpkg.tar 5"]);
    }

    #[test]
    fn a_file_stays_for_readers_of_the_old_index() {
        let place = tempfile::tempdir().unwrap();
        shelf(place.path(), &[("b-1", 1, 40), ("b-1", 2, 35)]);
        let rules = Rules { younger: 0, grace: 3600, repositories: &[] };
        let old = fs_err::read(place.path().join("Packages")).unwrap();
        assert_eq!(run(place.path(), &rules, true), ["Retired b-1-1.gpkg.tar 5"]);
        assert_eq!(run(place.path(), &rules, false), ["Retired b-1-1.gpkg.tar 5"]);
        assert_eq!(left(place.path()), ["b-1-1.gpkg.tar", "b-1-2.gpkg.tar"]);
        assert!(!fs_err::read_to_string(place.path().join("Packages")).unwrap().contains("b-1-1.gpkg.tar"));
        assert_eq!(run(place.path(), &rules, false), [""; 0], "not yet");
        // A killed run left the index as it was: the time begins again.
        fs_err::write(place.path().join("Packages"), old).unwrap();
        let shelf = Shelf::open(place.path()).unwrap();
        let path = PathBuf::from("a/b/b-1-1.gpkg.tar");
        let long_ago = BTreeMap::from([(path.clone(), 1)]);
        shelf.lock().unwrap().set_retired(&long_ago).unwrap();
        assert_eq!(run(place.path(), &rules, false), ["Retired b-1-1.gpkg.tar 5"]);
        shelf.lock().unwrap().set_retired(&BTreeMap::from([(path, now() - 3601)])).unwrap();
        assert_eq!(run(place.path(), &rules, true), ["Removed b-1-1.gpkg.tar 5"]);
        assert_eq!(run(place.path(), &rules, false), ["Removed b-1-1.gpkg.tar 5"]);
        assert_eq!(left(place.path()), ["b-1-2.gpkg.tar"]);
        assert!(shelf.retired().unwrap().is_empty());
    }

    #[test]
    fn packages_in_the_image_of_a_last_build_are_used() {
        let place = tempfile::tempdir().unwrap();
        let store = Store::open(place.path()).unwrap();
        let database = place.path().join("builds/demo-1/image/var/db/pkg/a/b-1");
        fs_err::create_dir_all(&database).unwrap();
        fs_err::write(database.join("BUILD_TIME"), "1795825080\n").unwrap();
        std::os::unix::fs::symlink("b-1", database.with_file_name("c-1")).unwrap();
        assert_eq!(used(&store), BTreeSet::from([("a/b-1".to_owned(), "1795825080".to_owned())]));
    }
}
