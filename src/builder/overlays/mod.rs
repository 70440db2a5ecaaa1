//! The overlays of a builder tree: one at its root, and in a build from the host one for each directory of the host that it shows.

mod points;

use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, Timespec, Timestamps};

use crate::base::error::{Context, Result};
use crate::enter::overlay::{self, Mounted, Overlay};
use crate::fs::rootfs::{Rootfs, owner};
use crate::store::work::WorkPaths;

/// An overlay mount in a tree.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OverlayMount {
    /// Mount point, an absolute path in the tree.
    at: PathBuf,
    /// The path of the builder tree that its changes belong to.
    place: PathBuf,
    /// Read-only layers, uppermost first.
    lowers: Vec<PathBuf>,
}

impl OverlayMount {
    /// An overlay of `lowers`, uppermost first, at the path `at` of the tree.
    pub fn new(at: impl Into<PathBuf>, lowers: Vec<PathBuf>) -> Self {
        let at = at.into();
        Self { place: at.clone(), at, lowers }
    }

    /// An overlay of one layer at the root of the tree.
    pub fn root(lower: PathBuf) -> Self {
        Self::new("/", vec![lower])
    }

    /// An overlay at the root of a tree of its own, for what the builder tree has at `place`.
    pub fn alone(place: impl Into<PathBuf>, lower: PathBuf) -> Self {
        Self { at: "/".into(), place: place.into(), lowers: vec![lower] }
    }

    /// The path of the builder tree that its changes belong to.
    pub fn place(&self) -> &Path {
        &self.place
    }

    /// Returns the same mount with `uppers`, uppermost first, over its layers.
    #[must_use]
    pub fn below(mut self, uppers: impl IntoIterator<Item = PathBuf>) -> Self {
        self.lowers.splice(0..0, uppers);
        self
    }

    /// The changes to it that `paths` has, if there are any.
    pub fn changes(&self, paths: &WorkPaths) -> Option<PathBuf> {
        Some(self.upper(paths)).filter(|upper| upper.exists())
    }

    /// The directory for changes to it.
    fn upper(&self, paths: &WorkPaths) -> PathBuf {
        paths.upper_of(&self.place)
    }

    /// Its place as a file name.
    fn name(&self) -> String {
        self.place.as_os_str().as_bytes().escape_ascii().to_string().replace('%', "%25").replace('/', "%2F")
    }

    /// Mounts it read-only, with `layer` on top, in the tree that `root` is the root of.
    fn look(&self, layer: &Path, root: &Rootfs) -> Result<Mounted> {
        let lowers: Vec<PathBuf> = [layer.to_owned()].into_iter().chain(self.lowers.iter().cloned()).collect();
        overlay::mount(Overlay { lowers: &lowers, upper: None }, root.open_dir(&self.at)?.as_fd(), &self.shown(root))
    }

    /// Mounts it in the tree that `root` is the root of, with its changes in `paths`. `points` is a layer of mount points.
    fn mount(&self, points: Option<&Path>, paths: &WorkPaths, root: &Rootfs) -> Result<Mounted> {
        // Opened inside the tree: a build may have left a symlink where the next one mounts.
        let at = root.open_dir(&self.at)?;
        self.mount_with(points, paths, at.as_fd(), &self.shown(root))
    }

    /// Mounts it at the directory `at`, which messages call `name`, with its changes in `paths`.
    ///
    /// # Errors
    /// [`Kind::System`](crate::base::error::Kind::System) if the kernel refuses the mount.
    pub(super) fn mount_at(&self, at: BorrowedFd<'_>, paths: &WorkPaths, name: &Path) -> Result<Mounted> {
        self.mount_with(None, paths, at, name)
    }

    fn mount_with(&self, points: Option<&Path>, paths: &WorkPaths, at: BorrowedFd<'_>, name: &Path) -> Result<Mounted> {
        let (upper, work) = (self.upper(paths), paths.overlay_work().join(self.name()));
        for path in [&upper, &work] {
            fs_err::create_dir_all(path).system(|| "making directories for an overlay")?;
        }
        if let Some(lower) = self.lowers.first() {
            let open = |path| fs_err::File::open(path).system(|| "preparing an overlay");
            like(open(lower)?.as_fd(), open(&upper)?.as_fd()).system(|| "preparing an overlay")?;
        }
        let lowers: Vec<PathBuf> = points.map(Path::to_owned).into_iter().chain(self.lowers.iter().cloned()).collect();
        overlay::mount(Overlay { lowers: &lowers, upper: Some((&upper, &work)) }, at, name)
    }

    /// Its mount point, for messages.
    fn shown(&self, root: &Rootfs) -> PathBuf {
        root.path().join(self.at.strip_prefix("/").unwrap_or(&self.at))
    }
}

/// The directories and files that a tree shows while it is mounted. No layer has a trace of them.
#[derive(Debug, Clone, Default)]
pub(super) struct Shown<'a> {
    /// Absolute paths that are directories. Those that are missing are made.
    pub(super) directories: Vec<&'a Path>,
    /// Absolute paths at which files are mounted. Empty files are made where there is none.
    pub(super) files: Vec<&'a Path>,
    /// Absolute paths of files, and their content. A file whose directory is missing is left out.
    pub(super) texts: Vec<(&'a Path, &'a [u8])>,
}

/// A mounted builder tree. Dropping it unmounts it.
#[derive(Debug)]
pub(super) struct Tree {
    root: Rootfs,
    /// In the order in which they were mounted.
    mounts: Vec<Mounted>,
}

impl Tree {
    /// Mounts `overlays`, the root's first, at the mount point in `paths`, which also has the directories for changes.
    ///
    /// # Errors
    /// [`Kind::System`](crate::base::error::Kind::System) if the kernel refuses a mount.
    pub(super) fn mount(overlays: &[OverlayMount], paths: &WorkPaths, shown: &Shown<'_>) -> Result<Self> {
        let points = points::make(overlays, paths, shown)?;
        let mut tree = Self::empty(paths)?;
        for (overlay, points) in overlays.iter().zip(&points) {
            let mounted = overlay.mount(points.as_deref(), paths, &tree.root)?;
            tree.add(mounted, paths)?;
        }
        Ok(tree)
    }

    /// A tree in which nothing is mounted yet.
    fn empty(paths: &WorkPaths) -> Result<Self> {
        Ok(Self { root: Rootfs::open(&paths.tree())?, mounts: Vec::new() })
    }

    fn add(&mut self, mounted: Mounted, paths: &WorkPaths) -> Result<()> {
        self.mounts.push(mounted);
        // Opened again: the old descriptor is below the new mount.
        self.root = Rootfs::open(&paths.tree())?;
        Ok(())
    }

    pub(super) fn root(&self) -> &Rootfs {
        &self.root
    }

    /// Unmounts the tree.
    ///
    /// # Errors
    /// [`Kind::System`](crate::base::error::Kind::System) if the kernel refuses.
    pub(super) fn unmount(mut self) -> Result<()> {
        while let Some(mounted) = self.mounts.pop() {
            mounted.unmount()?;
        }
        Ok(())
    }
}

impl Drop for Tree {
    fn drop(&mut self) {
        // The last one first: it may lie in the others.
        while self.mounts.pop().is_some() {}
    }
}

/// Gives the directory `to` the owner, the mode and the modification time of the directory `from`.
pub(super) fn like(from: BorrowedFd<'_>, to: BorrowedFd<'_>) -> rustix::io::Result<()> {
    let stat = rustix::fs::fstat(from)?;
    let (uid, gid) = owner(stat.st_uid, stat.st_gid);
    rustix::fs::fchown(to, uid, gid)?;
    rustix::fs::fchmod(to, Mode::from_raw_mode(stat.st_mode & 0o7777))?;
    let time = Timespec { tv_sec: stat.st_mtime as _, tv_nsec: stat.st_mtime_nsec as _ };
    rustix::fs::futimens(to, &Timestamps { last_access: time, last_modification: time })
}
