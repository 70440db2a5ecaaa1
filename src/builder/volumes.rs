//! The volumes of steps: directories that are kept with the layers and are in no image.
//!
//! A layer has the changes of its step to a volume beside those to the trees. The state of a volume is made of the results of the steps
//! that named it, so a step that does not name a volume does not run again when the volume changes.

use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use super::chain::Chain;
use super::overlays::OverlayMount;
use super::prepared::After;
use crate::archive::pack::{self, Format};
use crate::archive::unpack::{Deferred, Limits, Unpacker};
use crate::base::error::{Context, Result};
use crate::base::progress::Progress;
use crate::enter::overlay::Mounted;
use crate::fs::rewound;
use crate::fs::rootfs::Rootfs;
use crate::fs::staging::{Directory, tree_place};
use crate::recipe::Volume;
use crate::store::work::{Scratch, WorkPaths};

/// Returns the name by which a layer keeps the changes to a volume. It is not absolute, so that no directory of a tree has it.
pub(super) fn place(volume: &str) -> String {
    format!("volume/{volume}")
}

/// The mounted volumes of a step. Dropping this unmounts them.
#[derive(Debug, Default)]
pub(super) struct Volumes(Vec<Shown>);

/// A volume at its mount point in the work directory, which the sandbox sees at `at`.
#[derive(Debug)]
struct Shown {
    at: PathBuf,
    mounted: Mounted,
    root: Rootfs,
}

impl Volumes {
    /// Mounts volumes in the state after `chain`, and after the build `after` if there is one. Changes go to directories of `paths`.
    ///
    /// # Errors
    /// [`Kind::System`](crate::base::error::Kind::System) if the kernel refuses a mount.
    pub(super) fn mount(
        volumes: &[Volume],
        chain: &Chain,
        after: Option<After<'_>>,
        paths: &WorkPaths,
    ) -> Result<Self> {
        let mount = |volume: &Volume| {
            let overlay = match after {
                Some(after) => after.volume(&volume.name, paths)?,
                None => chain.volume(&volume.name, paths)?,
            };
            let (mounted, root) = mount(&overlay, &volume.name, paths)?;
            Ok(Shown { at: volume.at.clone(), mounted, root })
        };
        volumes.iter().map(mount).collect::<Result<_>>().map(Self)
    }

    /// Returns the volume that the sandbox sees at `path`, an absolute path, or above it, and the rest of the path.
    pub(super) fn holding<'a>(&self, path: &'a Path) -> Option<(&Rootfs, &'a Path)> {
        self.0.iter().find_map(|shown| Some((&shown.root, path.strip_prefix(&shown.at).ok()?)))
    }

    /// Unmounts them.
    ///
    /// # Errors
    /// [`Kind::System`](crate::base::error::Kind::System) if the kernel refuses.
    pub(super) fn unmount(self) -> Result<()> {
        self.0.into_iter().try_for_each(|shown| shown.mounted.unmount())
    }
}

fn mount(overlay: &OverlayMount, name: &str, paths: &WorkPaths) -> Result<(Mounted, Rootfs)> {
    let at = paths.volume(name);
    let mounting = || format!("mounting the volume {name}");
    fs_err::create_dir_all(&at).system(mounting)?;
    let mounted = overlay.mount_at(fs_err::File::open(&at).system(mounting)?.as_fd(), paths, &at)?;
    Ok((mounted, Rootfs::open(&at)?))
}

/// Copies the content of a volume in the state after `chain` into the new directory `to`, which appears when it is complete.
///
/// # Errors
/// [`Kind::Usage`](crate::base::error::Kind::Usage) if `to` is there and is not an empty directory,
/// [`Kind::System`](crate::base::error::Kind::System) if it cannot be written.
pub fn export(chain: &Chain, name: &str, scratch: &Scratch, to: &Path, ui: &dyn Progress) -> Result<()> {
    let (above, target) = tree_place(to)?;
    let paths = scratch.paths();
    let (mounted, root) = mount(&chain.volume(name, paths)?, name, paths)?;
    let staging = Directory::create(above.fd(), above.path(), ui)?;
    let path = staging.name().join("tree");
    above.create_dir(&path, 0o755)?;
    let copied = copy(name, &root, &above.subtree(&path, to)?, paths, ui);
    mounted.unmount()?;
    copied?;
    staging.undisturbed(|| above.rename(&path, target))
}

/// Copies the tree `from` into the empty tree `into`, through an archive: it has owners, attributes and hard links.
fn copy(name: &str, from: &Rootfs, into: &Rootfs, paths: &WorkPaths, ui: &dyn Progress) -> Result<()> {
    let copying = || format!("copying the volume {name}");
    ui.stage(&copying());
    let mut archive = tempfile::tempfile_in(paths.directory()).system(copying)?;
    let tree = pack::Tree { root: from, deferred: &Deferred::default(), part: None };
    let outputs = pack::Outputs { archive: &mut archive, contents: None, manifest: None };
    let options = pack::Options { format: Format::Plain, ..pack::Options::default() };
    let sizes = pack::archive(tree, outputs, None, &options, ui)?;
    // The volume itself is as large as it is.
    let limits = Limits { entries: u64::MAX, bytes: u64::MAX, ..Limits::default() };
    rewound(&archive)?;
    let unpacker = Unpacker { name, into, limits: &limits, ui };
    let refused = unpacker.stream(archive, Some(sizes.size), &mut |_| Ok(true))?;
    if !refused.is_empty() {
        ui.warn(&format!(
            "the directory lacks some nodes and attributes of the volume {name}: they need other privileges"
        ));
    }
    into.sync()?;
    ui.done();
    Ok(())
}
