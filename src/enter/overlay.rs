//! An overlay of a build's own changes over a tree of the store: starting a build costs a mount, not a copy.

use std::fs::File;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::CWD;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MoveMountFlags, fsconfig_create, fsconfig_set_flag, fsconfig_set_string,
    fsmount, fsopen, move_mount,
};

use crate::base::error::{Context, Error, Result};

/// Mounts `lowers` (uppermost first) with `upper` on top at the directory `at`, which messages call `name`. All are
/// directories; `upper` and `work` are on one file system. The mount lives as long as this process's mount namespace.
///
/// # Errors
/// [`Kind::System`](crate::base::error::Kind::System), with what the kernel says.
pub fn mount(lowers: &[PathBuf], upper: &Path, work: &Path, at: BorrowedFd<'_>, name: &Path) -> Result<()> {
    let doing = || format!("mounting an overlay at {}", name.display());
    // Descriptors stand for the paths: no separator to escape, and fsconfig's strings end at 256 bytes.
    let open = |path: &Path| fs_err::File::open(path).map(File::from).system(doing);
    let lowers = lowers.iter().map(|path| open(path)).collect::<Result<Vec<_>>>()?;
    let (upper, work) = (open(upper)?, open(work)?);
    let path_of = |file: &File| format!("/proc/self/fd/{}", file.as_raw_fd());

    let fs = fsopen("overlay", FsOpenFlags::FSOPEN_CLOEXEC).map_err(|errno| {
        Error::system(doing()).with_source(errno).with_hint("the kernel needs CONFIG_OVERLAY_FS (`modprobe overlay`)")
    })?;
    let set = |key: &str, value: &str| fsconfig_set_string(fs.as_fd(), key, value).system(doing);
    set("source", "quern")?;
    set("lowerdir", &lowers.iter().map(path_of).collect::<Vec<_>>().join(":"))?;
    set("upperdir", &path_of(&upper))?;
    set("workdir", &path_of(&work))?;
    // The same marks with root and without, so that a store means the same to both; a mount in a user namespace may only
    // use user.* (Linux 5.11).
    fsconfig_set_flag(fs.as_fd(), "userxattr").system(doing)?;
    // A build's changes are thrown away after a crash: no need to sync them.
    fsconfig_set_flag(fs.as_fd(), "volatile").system(doing)?;
    fsconfig_create(fs.as_fd()).map_err(|errno| {
        Error::system(doing()).with_source(super::mounts::kernel_says(fs.as_fd(), errno)).with_hint(
            "the store's file system must be able to hold an overlay's upper layer: ext4, xfs, btrfs and tmpfs are, NFS and \
             overlayfs itself are not; QUERN_HOME moves the store",
        )
    })?;
    let mount = fsmount(fs.as_fd(), FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::empty()).system(doing)?;
    move_mount(
        mount.as_fd(),
        "",
        at,
        "",
        MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH,
    )
    .system(doing)
}

/// The directory `path` through a read-only mount that is nowhere else, as an overlay's layer sees it: without what is mounted in
/// it, and so that looking leaves no trace.
///
/// # Errors
/// [`Kind::System`](crate::base::error::Kind::System), with what the kernel says.
pub fn look(path: &Path) -> Result<OwnedFd> {
    let doing = || format!("looking at {}", path.display());
    let copy = super::mounts::clone(CWD, path, false).system(doing)?;
    crate::os::sys::mount_setattr(copy.as_fd(), MountAttrFlags::MOUNT_ATTR_RDONLY.bits().into(), false)
        .system(doing)?;
    Ok(copy)
}

/// Takes the mount at `at` away.
///
/// # Errors
/// [`Kind::System`](crate::base::error::Kind::System), with what the kernel says.
pub fn unmount(at: &Path) -> Result<()> {
    rustix::mount::unmount(at, rustix::mount::UnmountFlags::DETACH)
        .system(|| format!("unmounting the overlay at {}", at.display()))
}
