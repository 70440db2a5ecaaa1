//! Removes things from the store. Things that another process uses stay, and are reported as busy.

use std::path::{Path, PathBuf};

use super::Store;
use super::layers::Limits;
use super::lock::{self, Mode};
use super::mounts;
use super::trees::remove_tree;
use super::work;
use crate::base::error::{Context, Result};

/// A category of things that the store keeps.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Category {
    /// Work directories: changes, images and logs of the last builds.
    Builds,
    /// Results of steps, as far as the limits say.
    Layers(Limits),
    /// Unpacked stage3s, ebuild repositories and downloads of steps. They can be unpacked again from their blobs or from git.
    Trees,
    /// Downloads: complete and partial tarballs, and git repositories.
    Blobs,
    /// Binary packages.
    Packages,
    /// Sources of packages (distfiles).
    Distfiles,
    /// Compressed chunks of archives.
    Pieces,
    /// Directories that steps keep, by the names of their caches; without names, all.
    Caches(Vec<String>),
}

/// A file or directory that was removed, or would be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Item {
    pub path: PathBuf,
    /// Disk usage in bytes.
    pub bytes: u64,
    /// True if another process uses it, so that it stays.
    pub busy: bool,
}

impl Store {
    /// Removes everything in these categories, or with `pretend` nothing. Calls `each` for every item after its removal.
    ///
    /// # Errors
    /// [`Kind::System`](crate::base::error::Kind::System) when a file cannot be read or removed.
    pub fn clean(&self, categories: &[Category], pretend: bool, mut each: impl FnMut(&Item)) -> Result<()> {
        for category in categories {
            let directory = match category {
                Category::Layers(limits) => {
                    self.clean_layers(limits, pretend, &mut each)?;
                    continue;
                }
                Category::Builds => "builds",
                Category::Trees => "trees",
                Category::Blobs => "blobs",
                Category::Packages | Category::Distfiles | Category::Pieces => "cache",
                Category::Caches(_) => mounts::DIRECTORY,
            };
            let mut paths = match category {
                Category::Caches(_) if !self.root().join(directory).exists() => Vec::new(),
                _ => children(&self.root().join(directory))?,
            };
            if let Category::Caches(names) = category {
                let named = |path: &PathBuf| names.iter().any(|name| path.file_name() == Some(name.as_ref()));
                paths.retain(|path| names.is_empty() || named(path));
            }
            if *category == Category::Blobs {
                paths.extend(children(&self.root().join("cache"))?);
            }
            for path in paths {
                let other =
                    path.parent().is_some_and(|parent| parent.ends_with("cache")) && of_cache(&path) != *category;
                if other || path.extension().is_some_and(|extension| extension == "lock") {
                    continue;
                }
                // A tree that is being unpacked is locked under its final name.
                let locked = if path.extension().is_some_and(|extension| extension == "partial") {
                    path.with_extension("lock")
                } else {
                    path.with_added_extension("lock")
                };
                let (mut lock, mut scratch) = (None, None);
                match category {
                    Category::Builds if work::is_scratch(&path) => scratch = work::lock_scratch(&path)?,
                    Category::Builds | Category::Trees => lock = lock::try_take(&locked, Mode::Exclusive)?,
                    _ => lock = self.unused()?,
                }
                let busy = lock.is_none() && scratch.is_none();
                let item = Item { bytes: disk_usage(&path), busy, path };
                if !item.busy && !pretend {
                    remove_tree(&item.path)?;
                }
                each(&item);
            }
        }
        Ok(())
    }

    /// Takes the lock of the shared caches; returns `None` if another process uses them.
    fn unused(&self) -> Result<Option<lock::Lock>> {
        lock::try_take(&self.root().join("cache.lock"), Mode::Exclusive)
    }

    /// Locks the shared caches, so that no other process cleans them.
    ///
    /// # Errors
    /// [`Kind::System`](crate::base::error::Kind::System) when the lock cannot be taken.
    pub fn use_caches(&self) -> Result<lock::Lock> {
        lock::take(&self.root().join("cache.lock"), Mode::Shared, || {})
    }
}

/// Returns the category of a directory in `cache/`.
fn of_cache(path: &Path) -> Category {
    match path.file_name().and_then(|name| name.to_str()) {
        Some("distfiles") => Category::Distfiles,
        Some("pieces") => Category::Pieces,
        Some("git" | "branches") => Category::Blobs,
        Some("mounts") => Category::Caches(Vec::new()),
        _ => Category::Packages,
    }
}

pub(super) fn children(directory: &Path) -> Result<Vec<PathBuf>> {
    let entries = fs_err::read_dir(directory).system(|| "listing the store")?;
    let mut paths = entries.map(|entry| entry.map(|entry| entry.path())).collect::<std::io::Result<Vec<_>>>();
    if let Ok(paths) = &mut paths {
        paths.sort();
    }
    paths.system(|| "listing the store")
}

/// Returns the disk usage of a tree. Symlinks are not followed; unreadable directories are skipped.
pub(super) fn disk_usage(path: &Path) -> u64 {
    use std::os::unix::fs::MetadataExt;
    let Ok(metadata) = fs_err::symlink_metadata(path) else { return 0 };
    let own = metadata.blocks() * 512;
    if !metadata.is_dir() {
        return own / metadata.nlink().max(1);
    }
    let Ok(entries) = fs_err::read_dir(path) else { return own };
    own + entries.flatten().map(|entry| disk_usage(&entry.path())).sum::<u64>()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listed(store: &Store, part: Category, pretend: bool) -> Vec<(String, bool)> {
        let mut items = Vec::new();
        store
            .clean(&[part], pretend, |item| {
                items.push((item.path.file_name().unwrap().to_string_lossy().into_owned(), item.busy));
            })
            .unwrap();
        items
    }

    #[test]
    fn a_work_directory_in_use_stays() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        let work = store.work("a", Path::new("/a.toml"), Mode::Exclusive, || {}).unwrap();
        drop(store.work("b", Path::new("/b.toml"), Mode::Exclusive, || {}).unwrap());
        let pretended = listed(&store, Category::Builds, true);
        assert_eq!(pretended.iter().map(|(_, busy)| *busy).collect::<Vec<_>>(), [true, false]);
        assert_eq!(listed(&store, Category::Builds, false), pretended);
        assert_eq!(listed(&store, Category::Builds, false), pretended[..1]);
        drop(work);
        assert_eq!(listed(&store, Category::Builds, false).len(), 1);
        assert_eq!(listed(&store, Category::Builds, false), []);
    }

    #[test]
    fn caches_are_removed_only_while_no_build_uses_them() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        fs_err::write(store.cache("binpkgs").unwrap().join("x"), "x").unwrap();
        let used = store.use_caches().unwrap();
        assert_eq!(listed(&store, Category::Packages, false), [("binpkgs".to_owned(), true)]);
        fs_err::create_dir(store.cache("git").unwrap().join("bare")).unwrap();
        assert_eq!(listed(&store, Category::Blobs, false), [("git".to_owned(), true)]);
        drop(used);
        assert_eq!(listed(&store, Category::Blobs, true), [("git".to_owned(), false)]);
        assert_eq!(listed(&store, Category::Packages, false), [("binpkgs".to_owned(), false)]);
        assert!(!store.root().join("cache/binpkgs").exists());

        let kept = ["one", "other"].map(|name| store.kept(name, Some(Mode::Shared), || {}).unwrap().path);
        assert_eq!(listed(&store, Category::Packages, false), []);
        assert_eq!(listed(&store, Category::Caches(vec!["one".to_owned()]), false), [("one".to_owned(), false)]);
        assert_eq!(kept.map(|path| path.exists()), [false, true]);
        assert_eq!(listed(&store, Category::Caches(Vec::new()), false), [("other".to_owned(), false)]);

        for name in ["binpkgs", "distfiles", "pieces"] {
            fs_err::write(store.cache(name).unwrap().join("x"), "x").unwrap();
        }
        assert!(store.pieces().join("x").exists());
        for (part, name) in
            [(Category::Pieces, "pieces"), (Category::Distfiles, "distfiles"), (Category::Packages, "binpkgs")]
        {
            assert_eq!(listed(&store, part, false), [(name.to_owned(), false)]);
        }
    }
}
