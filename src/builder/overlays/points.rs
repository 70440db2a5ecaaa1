//! Mount points that a tree lacks, and files that it shows only while it is mounted. They come from throw-away lower layers, so that no
//! upper layer has a trace of them.

use std::collections::BTreeSet;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{Timespec, Timestamps, UTIME_NOW, UTIME_OMIT, XattrFlags};

use super::{OverlayMount, Shown, Tree, like};
use crate::base::error::{Context, Result};
use crate::fs::rootfs::{MAX_XATTR, Rootfs, xattr_names};
use crate::store::work::WorkPaths;

/// A directory that is missing, or a file, by where it goes: the index of an overlay and two paths relative to its mount point.
struct Missing<'a> {
    overlay: usize,
    parent: PathBuf,
    path: PathBuf,
    /// The content of a file.
    text: Option<&'a [u8]>,
}

/// Makes the layers for what the tree of `overlays` must have. Returns one entry for each overlay: `None` if it lacks nothing.
///
/// # Errors
/// [`Kind::System`](crate::base::error::Kind::System) if something that is not a directory has the path of a target.
pub(super) fn make(overlays: &[OverlayMount], paths: &WorkPaths, shown: &Shown<'_>) -> Result<Vec<Option<PathBuf>>> {
    let layer = |overlay: &OverlayMount| paths.mount_points().join(overlay.name());
    // The tree without an upper layer tells what is missing.
    let mut tree = Tree::empty(paths)?;
    for overlay in overlays {
        let points = layer(overlay);
        fs_err::create_dir_all(&points).system(|| "making a layer of mount points")?;
        let mounted = overlay.look(&points, &tree.root)?;
        tree.add(mounted, paths)?;
    }
    let mut missing = Vec::new();
    for target in &shown.directories {
        let found = find(&tree.root, overlays, target);
        missing.extend(found.map_err(|error| {
            error.with_hint("a build needs a directory at this path of the tree, or a symlink to one")
        })?);
    }
    for target in &shown.files {
        let directory = target.parent().unwrap_or(target);
        match find(&tree.root, overlays, directory)? {
            // The directory is made with the file in it.
            Some(missing_directory) => {
                let name = target.file_name().unwrap_or_default();
                let path = missing_directory.path.join(name);
                missing.push(Missing { path, text: Some(&[]), ..missing_directory });
            }
            None if tree.root.stat(target.strip_prefix("/").unwrap_or(target))?.is_none() => {
                missing.extend(file(&tree.root, overlays, target, &[])?);
            }
            None => {}
        }
    }
    for (path, text) in &shown.texts {
        missing.extend(file(&tree.root, overlays, path, text)?);
    }
    for (index, overlay) in overlays.iter().enumerate() {
        let points = Rootfs::open(&layer(overlay))?;
        let below = tree.root.subtree(&overlay.at, &overlay.shown(&tree.root))?;
        fill(&points, &below, missing.iter().filter(|missing| missing.overlay == index))?;
    }
    tree.unmount()?;
    let lacks = |index| missing.iter().any(|missing| missing.overlay == index);
    Ok(overlays.iter().enumerate().map(|(index, overlay)| lacks(index).then(|| layer(overlay))).collect())
}

/// Finds the first component of `target` that the tree lacks.
fn find(root: &Rootfs, overlays: &[OverlayMount], target: &Path) -> Result<Option<Missing<'static>>> {
    let making = || format!("making the mount point {} in {}", target.display(), root.path().display());
    let mut existing = PathBuf::new();
    for component in target.strip_prefix("/").unwrap_or(target) {
        let next = existing.join(component);
        // A symlink that leads nowhere exists, and opening it fails.
        if root.stat(&next)?.is_none() {
            let real = root.real(&existing).system(making)?;
            let rest = target.strip_prefix("/").unwrap_or(target).strip_prefix(&existing).system(making)?;
            return Ok(Some(place(overlays, &real, rest)));
        }
        root.open_dir(&next).system(making)?;
        existing = next;
    }
    Ok(None)
}

/// Places the file `path` with the content `text`, if its directory exists.
fn file<'a>(root: &Rootfs, overlays: &[OverlayMount], path: &Path, text: &'a [u8]) -> Result<Option<Missing<'a>>> {
    let path = path.strip_prefix("/").unwrap_or(path);
    let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else { return Ok(None) };
    if root.open_dir(parent).is_err() {
        return Ok(None);
    }
    let real = root.real(parent).system(|| format!("placing {} in {}", path.display(), root.path().display()))?;
    Ok(Some(Missing { text: Some(text), ..place(overlays, &real, Path::new(name)) }))
}

/// Assigns the missing directory `rest` below `parent` to the innermost overlay that `parent` lies in.
fn place(overlays: &[OverlayMount], parent: &Path, rest: &Path) -> Missing<'static> {
    let inside = |overlay: &OverlayMount| {
        let at = overlay.at.strip_prefix("/").unwrap_or(&overlay.at).to_owned();
        parent.strip_prefix(&at).ok().map(Path::to_owned)
    };
    let candidates = overlays.iter().enumerate().filter_map(|(index, overlay)| Some((index, inside(overlay)?)));
    let (overlay, parent) =
        candidates.min_by_key(|(_, inside)| inside.iter().count()).unwrap_or((0, parent.to_owned()));
    Missing { overlay, path: parent.join(rest), parent, text: None }
}

/// Makes the missing directories and the files in the layer `points`. Their parents become like those of `tree`, which they cover.
fn fill<'a>(points: &Rootfs, tree: &Rootfs, missing: impl Iterator<Item = &'a Missing<'a>>) -> Result<()> {
    let mut parents = BTreeSet::new();
    let mut changed = BTreeSet::new();
    for missing in missing {
        parents.extend(missing.parent.ancestors());
        match missing.text {
            Some(text) => {
                points.create_dir_all(missing.path.parent().unwrap_or(Path::new("")), 0o755)?;
                points.write(&missing.path, text, 0o644)?;
            }
            None => points.create_dir_all(&missing.path, 0o755)?,
        }
        if tree.stat(&missing.path)?.is_none() {
            changed.insert(missing.parent.as_path());
        }
    }
    for parent in parents {
        let cloning = || format!("cloning {} of {}", parent.display(), tree.path().display());
        let (from, to) = (tree.open_dir(parent)?, points.open_dir(parent)?);
        copy_xattrs(from.as_fd(), to.as_fd()).and_then(|()| like(from.as_fd(), to.as_fd())).system(cloning)?;
        if changed.contains(parent) {
            // As though the new directory had been made in the tree.
            let time = |nanoseconds| Timespec { tv_sec: 0, tv_nsec: nanoseconds };
            let times = Timestamps { last_access: time(UTIME_OMIT), last_modification: time(UTIME_NOW) };
            rustix::fs::futimens(&to, &times).system(cloning)?;
        }
    }
    Ok(())
}

fn copy_xattrs(from: BorrowedFd<'_>, to: BorrowedFd<'_>) -> rustix::io::Result<()> {
    let mut value = Vec::new();
    for name in xattr_names(|list| rustix::fs::flistxattr(from, list))? {
        value.resize(MAX_XATTR, 0);
        let length = rustix::fs::fgetxattr(from, name.as_slice(), value.as_mut_slice())?;
        rustix::fs::fsetxattr(to, name.as_slice(), &value[..length], XattrFlags::empty())?;
    }
    Ok(())
}
