//! The trees of a build, mounted: the builder tree with the image in it, or the image alone.

use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use super::base::Base;
use super::chain::Chain;
use super::overlays::{OverlayMount, Shown, Tree};
use super::prepared::After;
use super::volumes::Volumes;
use crate::base::error::{Context, Result};
use crate::enter::overlay::Mounted;
use crate::fs::rootfs::Rootfs;
use crate::plan::view::View;
use crate::recipe::TreeKind;
use crate::store::work::WorkPaths;

/// A file that trees show only while they are mounted: the path, and the content.
pub(super) type ShownFile = (PathBuf, Vec<u8>);

/// Mounted trees. Dropping this unmounts them.
#[derive(Debug)]
pub(super) struct Trees {
    tree: Tree,
    /// The image at its mount point in the work directory, which the sandbox sees at [`ROOT`](crate::portage::ROOT).
    image: Option<(Mounted, Rootfs)>,
    volumes: Volumes,
}

impl Trees {
    /// Mounts the builder tree on `base`, with the mount points of `view` and, if `image`, the image. Changes go to directories of
    /// `paths`; `after` is a build that has ended, whose changes lie below them.
    ///
    /// # Errors
    /// [`Kind::System`](crate::base::error::Kind::System) if the kernel refuses a mount.
    pub(super) fn builder(
        base: &Base,
        chain: &Chain,
        after: Option<After<'_>>,
        image: bool,
        paths: &WorkPaths,
        view: &View,
        files: &[ShownFile],
    ) -> Result<Self> {
        let overlays = match after {
            Some(after) => after.builder(base, paths)?,
            None => chain.builder(base, paths)?,
        };
        let tree = Tree::mount(&overlays, paths, &shown(view, files))?;
        let image = if image {
            let at = paths.image();
            fs_err::create_dir_all(&at).system(|| "making the mount point of the image")?;
            let overlay = image_overlay(chain, after, paths)?;
            let mounted =
                overlay.mount_at(fs_err::File::open(&at).system(|| "opening the image")?.as_fd(), paths, &at)?;
            Some((mounted, Rootfs::open(&at)?))
        } else {
            None
        };
        Ok(Self { tree, image, volumes: Volumes::default() })
    }

    /// Mounts the image alone, as a tree with the mount points of `view`.
    ///
    /// # Errors
    /// Those of [`Trees::builder`].
    pub(super) fn image_alone(
        chain: &Chain,
        after: Option<After<'_>>,
        paths: &WorkPaths,
        view: &View,
        files: &[ShownFile],
    ) -> Result<Self> {
        let overlay = image_overlay(chain, after, paths)?;
        let tree = Tree::mount(&[overlay], paths, &shown(view, files))?;
        Ok(Self { tree, image: None, volumes: Volumes::default() })
    }

    /// Adds the volumes of a step.
    pub(super) fn with(self, volumes: Volumes) -> Self {
        Self { volumes, ..self }
    }

    /// The mounted volumes of the step.
    pub(super) fn volumes(&self) -> &Volumes {
        &self.volumes
    }

    /// Mounts the tree of a build that is shipped, a stage4 with the mount points of `view`, as the finished trees show it.
    ///
    /// # Errors
    /// Those of [`Trees::builder`].
    pub(super) fn shipped(
        (base, kind): (&Base, TreeKind),
        chain: &Chain,
        paths: &WorkPaths,
        view: &View,
        files: &[ShownFile],
    ) -> Result<Self> {
        let tree = match kind {
            TreeKind::Image => Tree::mount(&[chain.image(paths)?], paths, &Shown::default())?,
            TreeKind::Stage4 => Tree::mount(&chain.builder(base, paths)?, paths, &shown(view, files))?,
        };
        Ok(Self { tree, image: None, volumes: Volumes::default() })
    }

    /// The root of the tree that commands run in.
    pub(super) fn root(&self) -> &Rootfs {
        self.tree.root()
    }

    /// The root of the image, if it is mounted beside the builder tree.
    pub(super) fn image(&self) -> Option<&Rootfs> {
        self.image.as_ref().map(|(_, root)| root)
    }

    /// Unmounts the trees.
    ///
    /// # Errors
    /// [`Kind::System`](crate::base::error::Kind::System) if the kernel refuses.
    pub(super) fn unmount(self) -> Result<()> {
        self.volumes.unmount()?;
        self.image.map_or(Ok(()), |(mounted, _)| mounted.unmount())?;
        self.tree.unmount()
    }
}

fn image_overlay(chain: &Chain, after: Option<After<'_>>, paths: &WorkPaths) -> Result<OverlayMount> {
    after.map_or_else(|| chain.image(paths), |after| after.image(paths))
}

/// Returns what a tree must have for the mounts of `view`, and the files `files`.
pub(super) fn shown<'a>(view: &'a View, files: &'a [ShownFile]) -> Shown<'a> {
    let (directories, mount_files) = view.points();
    let texts = files.iter().map(|(path, text)| (path.as_path(), text.as_slice())).collect();
    Shown { directories, files: mount_files, texts }
}

/// Returns the host's name servers, for the file `/etc/resolv.conf` of a tree. A bind mount would not do: the host's file may be a
/// symlink into a directory that the tree does not have, and packages may replace the tree's file.
pub(super) fn name_servers() -> ShownFile {
    const MAX: usize = 1 << 20;
    let text = fs_err::read("/etc/resolv.conf").unwrap_or_default();
    (Path::new("/etc/resolv.conf").to_owned(), if text.len() <= MAX { text } else { Vec::new() })
}
