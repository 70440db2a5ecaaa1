//! Trials: they do on a small scale what a build will do, so that a file system or a container that cannot hold a build is noticed
//! before anything is downloaded.

use std::fs::Permissions;
use std::os::fd::AsFd;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, symlink};
use std::path::Path;

use rustix::fs::{StatVfsMountFlags, XattrFlags};

use super::overlays::{OverlayMount, Shown, Tree};
use crate::base::error::{Context, Error, Result};
use crate::base::progress::Progress;
use crate::enter;
use crate::fs::staging;
use crate::os::space;
use crate::store::work::WorkPaths;

/// With less free space than this, a store counts as full.
const LEAST_FREE: u64 = 64 << 10;

/// A user and group of a tree that are not root.
const OTHER: u32 = 250;

/// The value of `security.capability` for a program with CAP_NET_RAW, in version 2 of its format.
const CAPABILITY: [u8; 20] = [0, 0, 0, 2, 0, 0x20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];

/// Tries in the directory `store` what a build does there: files with owners and attributes, an overlay, a sandbox.
///
/// # Errors
/// [`Kind::System`](crate::base::error::Kind::System) with the setting to change if something is refused.
pub fn run(store: &Path, ui: &dyn Progress) -> Result<()> {
    let open = fs_err::File::open(store).system(|| format!("opening the store {}", store.display()))?;
    space::check(&open, store, "starting a build", LEAST_FREE).map_err(|error| error.with_hint(space::STORE))?;
    let scratch = staging::Directory::create(open.as_fd(), store, ui)?;
    let paths = WorkPaths::new(store.join(scratch.name()));
    let lower = paths.image();
    let hint = "the store needs a file system such as ext4, xfs, btrfs or tmpfs, with extended attributes: set QUERN_HOME to a \
                directory on one, in a container to a volume";
    files(paths.directory(), &lower).map_err(|error| match error.hint() {
        Some(_) => error,
        None => error.with_hint(hint),
    })?;
    let tree = Tree::mount(&[OverlayMount::root(lower)], &paths, &Shown::default())?;
    changes(&paths.tree()).map_err(|error| error.with_hint(hint))?;
    enter::try_out(&paths.tree())?;
    tree.unmount()
}

/// Makes the tree `lower` of files and directories as unpacking a stage3 does.
fn files(directory: &Path, lower: &Path) -> Result<()> {
    let trying = |what: &str| format!("{what} in the store {}", directory.parent().unwrap_or(directory).display());
    for path in
        [lower.join("dev"), lower.join("proc"), lower.join("tmp"), lower.join("old/sub"), directory.join("tree")]
    {
        fs_err::create_dir_all(path).system(|| trying("making a directory"))?;
    }
    let flags = rustix::fs::statvfs(directory).system(|| trying("reading the mount options"))?.f_flag;
    if flags.contains(StatVfsMountFlags::NOEXEC) {
        return Err(Error::system(trying("running programs"))
            .with_source("its file system is mounted with noexec")
            .with_hint("remount it without noexec, or set QUERN_HOME to a directory on another file system"));
    }
    let file = lower.join("file");
    fs_err::write(&file, "x").system(|| trying("writing a file"))?;
    chown(&file, Some(OTHER), Some(OTHER)).system(|| trying("changing the owner of a file"))?;
    fs_err::set_permissions(&file, Permissions::from_mode(0o4755)).system(|| trying("making a file setuid"))?;
    let made = fs_err::metadata(&file).system(|| trying("reading the owner of a file"))?;
    if (made.uid(), made.gid(), made.mode() & 0o7777) != (OTHER, OTHER, 0o4755) {
        return Err(Error::system(trying("keeping owners and modes of files")));
    }
    symlink("file", lower.join("link")).system(|| trying("making a symlink"))?;
    fs_err::hard_link(&file, lower.join("hard")).system(|| trying("making a hard link"))?;
    for (name, value) in [("user.quern", &b"x"[..]), ("security.capability", &CAPABILITY)] {
        rustix::fs::setxattr(&file, name, value, XattrFlags::empty())
            .system(|| trying(&format!("setting the extended attribute {name}")))?;
    }
    if lower.join("FILE").exists() {
        return Err(Error::system(trying("telling upper and lower case apart")));
    }
    Ok(())
}

/// Changes a mounted tree in the ways that leave marks in its upper layer.
fn changes(tree: &Path) -> Result<()> {
    let trying = |what: &'static str| move || format!("{what} through an overlay in the store");
    fs_err::remove_file(tree.join("file")).system(trying("removing a file"))?;
    fs_err::remove_dir_all(tree.join("old")).system(trying("removing a directory"))?;
    fs_err::create_dir(tree.join("old")).system(trying("replacing a directory"))?;
    fs_err::write(tree.join("new"), "x").system(trying("writing a file"))
}

/// Checks that files can be made in a directory.
///
/// # Errors
/// [`Kind::System`](crate::base::error::Kind::System) if not.
pub fn writable(directory: &Path) -> Result<()> {
    tempfile::NamedTempFile::new_in(directory).map(drop).map_err(|error| {
        Error::system(format!("making a file in the cache {}", directory.display()))
            .with_source(error)
            .with_hint("the user who builds must be able to write there; portage.binpkg names another directory")
    })
}

/// Checks that hard links can be made in the outdir, which is created if it is missing: the tarball and the layer of an OCI layout are
/// one file.
///
/// # Errors
/// [`Kind::System`](crate::base::error::Kind::System) if not.
pub fn links(outdir: &Path) -> Result<()> {
    let doing = || format!("making a hard link in the outdir {}", outdir.display());
    fs_err::create_dir_all(outdir).system(|| "creating the outdir")?;
    let scratch = tempfile::tempdir_in(outdir).system(doing)?;
    let file = scratch.path().join("file");
    fs_err::write(&file, "").and_then(|()| fs_err::hard_link(&file, scratch.path().join("link"))).map_err(|error| {
        Error::system(doing())
            .with_source(error)
            .with_hint("an OCI layout shares a file with the tarball: set build.outdir to a directory on a file system with hard links")
    })
}
