//! What a builder tree is made of: directories that are seen through overlays, each at its place in the tree.

use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, Timespec, Timestamps};

use crate::base::error::{Context, Result};
use crate::enter;
use crate::fs::rootfs::{Rootfs, owner};

/// Directories that are seen as one at a place of the tree.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layer {
    /// Absolute path in the tree.
    at: PathBuf,
    /// Directories, uppermost first; none of them is written to.
    lowers: Vec<PathBuf>,
}

impl Layer {
    /// What is seen at the path `at` of the tree: `lowers`, uppermost first.
    pub fn new(at: impl Into<PathBuf>, lowers: Vec<PathBuf>) -> Self {
        Self { at: at.into(), lowers }
    }

    /// What is seen at the root of the tree.
    pub fn root(lower: PathBuf) -> Self {
        Self::new("/", vec![lower])
    }

    /// Where it is seen.
    pub fn at(&self) -> &Path {
        &self.at
    }

    /// The same, with what a build that had its changes in `directory` made of it on top.
    #[must_use]
    pub fn after(&self, directory: &Path) -> Self {
        let upper = Some(self.upper(directory)).filter(|upper| upper.exists());
        Self { at: self.at.clone(), lowers: upper.into_iter().chain(self.lowers.iter().cloned()).collect() }
    }

    /// Where changes to it are kept, below the directory of a build.
    fn upper(&self, directory: &Path) -> PathBuf {
        if self.at == Path::new("/") { directory.join("upper") } else { directory.join("uppers").join(self.name()) }
    }

    /// Its path as a name of one component.
    fn name(&self) -> String {
        self.at.as_os_str().as_bytes().escape_ascii().to_string().replace('%', "%25").replace('/', "%2F")
    }
}

/// Mounts `layers`, the root's first, at `tree` below `directory`, which also takes the changes: in `upper` and `uppers`.
///
/// # Errors
/// [`Kind::System`](crate::base::error::Kind::System) when the kernel refuses.
pub(super) fn mount(layers: &[Layer], directory: &Path) -> Result<Rootfs> {
    let tree = directory.join("tree");
    for layer in layers {
        // Opened again each time: what is mounted over a directory is not seen from its descriptor.
        let root = Rootfs::open(&tree)?;
        let (upper, work) = (layer.upper(directory), directory.join("work").join(layer.name()));
        for path in [&upper, &work] {
            fs_err::create_dir_all(path).system(|| "making directories for an overlay")?;
        }
        if let Some(lower) = layer.lowers.last() {
            let open = |path| fs_err::File::open(path).system(|| "preparing an overlay");
            like(open(lower)?.as_fd(), open(&upper)?.as_fd()).system(|| "preparing an overlay")?;
        }
        // In the tree: a build may have left a link where a later one's mount goes.
        let below = root.open_dir(&layer.at)?;
        enter::overlay::mount(&layer.lowers, &upper, &work, below.as_fd(), &tree.join(layer.name()))?;
    }
    Rootfs::open(&tree)
}

/// Gives the directory `to` the owner, the mode and the time of the directory `from`.
pub(super) fn like(from: BorrowedFd<'_>, to: BorrowedFd<'_>) -> rustix::io::Result<()> {
    let stat = rustix::fs::fstat(from)?;
    let (uid, gid) = owner(stat.st_uid, stat.st_gid);
    rustix::fs::fchown(to, uid, gid)?;
    rustix::fs::fchmod(to, Mode::from_raw_mode(stat.st_mode & 0o7777))?;
    let time = Timespec { tv_sec: stat.st_mtime as _, tv_nsec: stat.st_mtime_nsec as _ };
    rustix::fs::futimens(to, &Timestamps { last_access: time, last_modification: time })
}
