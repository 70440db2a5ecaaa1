//! Overlay mounts: a build sees a tree of the store through an overlay instead of copying it.

use std::fs::File;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use nix::sched::{CloneFlags, unshare};
use rustix::fs::{CWD, Mode, OFlags};
use rustix::io::Errno;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MountFlags, MoveMountFlags, UnmountFlags, fsconfig_create,
    fsconfig_set_flag, fsconfig_set_string, fsmount, fsopen, move_mount,
};

use crate::base::error::{Context, Error, Result};

/// The kernel's limit on the lower layers of one overlay.
pub const MAX_LOWERS: usize = 500;

/// The longest string that fsconfig(2) takes, in bytes.
const MAX_STRING: usize = 255;

/// The longest options that mount(2) takes, in bytes: one page with its final zero.
const MAX_OPTIONS: usize = 4095;

/// The directory in which the number of a descriptor is a path.
const DESCRIPTORS: &str = "/proc/self/fd";

/// The directories of an overlay.
#[derive(Debug, Clone, Copy)]
pub struct Overlay<'a> {
    /// The read-only layers, uppermost first.
    pub lowers: &'a [PathBuf],
    /// The directory for changes and the overlay's own work directory, both on one file system; `None` for a read-only overlay,
    /// which needs two lower layers.
    pub upper: Option<(&'a Path, &'a Path)>,
}

/// A way to pass the lower layers to the kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Interface {
    /// One call of fsconfig(2) for each layer (`lowerdir+`, Linux 6.8).
    Appended,
    /// All layers in one string for fsconfig(2), which has room for about 60.
    Joined,
    /// All layers in the options of mount(2), which have room for about 900.
    Classic,
}

impl Interface {
    /// All interfaces, best first.
    pub const ALL: [Self; 3] = [Self::Appended, Self::Joined, Self::Classic];
}

/// A mounted overlay. Dropping it unmounts it.
#[derive(Debug)]
pub struct Mounted {
    /// The root of the mount; `None` once it is unmounted.
    root: Option<OwnedFd>,
    name: PathBuf,
}

impl Mounted {
    /// Unmounts the overlay, and everything that is mounted below it.
    ///
    /// # Errors
    /// [`Kind::System`](crate::base::error::Kind::System) with the kernel's reason.
    pub fn unmount(mut self) -> Result<()> {
        self.detach().system(|| format!("unmounting the overlay at {}", self.name.display()))
    }

    fn detach(&mut self) -> rustix::io::Result<()> {
        let Some(root) = self.root.take() else { return Ok(()) };
        rustix::mount::unmount(descriptor_path(root.as_raw_fd()), UnmountFlags::DETACH)
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        if let Err(errno) = self.detach() {
            tracing::warn!("unmounting the overlay at {}: {errno}", self.name.display());
        }
    }
}

/// Mounts `overlay` at the directory `at`, which messages call `name`, through the best interface that the kernel has.
///
/// # Errors
/// [`Kind::System`](crate::base::error::Kind::System) with the kernel's reason.
pub fn mount(overlay: Overlay<'_>, at: BorrowedFd<'_>, name: &Path) -> Result<Mounted> {
    if overlay.lowers.len() > MAX_LOWERS {
        return Err(too_many(overlay.lowers.len(), name, MAX_LOWERS));
    }
    for interface in Interface::ALL {
        if let Some(mounted) = mount_through(interface, overlay, at, name)? {
            return Ok(mounted);
        }
    }
    Err(too_many(overlay.lowers.len(), name, MAX_OPTIONS / 4).with_hint("Linux 6.8 and newer take 500 lower layers"))
}

/// Mounts `overlay` as [`mount`] does, through one interface. Returns `None` if this kernel does not have the interface, or if the
/// layers do not fit into it.
///
/// # Errors
/// [`Kind::System`](crate::base::error::Kind::System) with the kernel's reason.
pub fn mount_through(
    interface: Interface,
    overlay: Overlay<'_>,
    at: BorrowedFd<'_>,
    name: &Path,
) -> Result<Option<Mounted>> {
    let doing = || format!("mounting an overlay at {}", name.display());
    // Layers are passed as numbers of descriptors: paths would need escapes, and may be longer than the kernel takes.
    let open = |path: &Path| fs_err::File::open(path).map(File::from).system(doing);
    let layers = Layers {
        lowers: overlay.lowers.iter().map(|path| open(path)).collect::<Result<_>>()?,
        upper: overlay.upper.map(|(upper, work)| Ok::<_, Error>((open(upper)?, open(work)?))).transpose()?,
    };
    let root = match interface {
        Interface::Appended => appended(&layers, at).map_err(|error| refused(doing(), error))?,
        Interface::Joined => in_descriptors(|| joined(&layers, at)).map_err(|error| refused(doing(), error))?,
        Interface::Classic => in_descriptors(|| classic(&layers, at)).map_err(|error| refused(doing(), error))?,
    };
    Ok(root.map(|root| Mounted { root: Some(root), name: name.to_owned() }))
}

/// The open directories of an overlay.
struct Layers {
    lowers: Vec<File>,
    upper: Option<(File, File)>,
}

impl Layers {
    /// The lower layers as one value: their numbers, separated by colons.
    fn numbers(&self) -> String {
        self.lowers.iter().map(|file| file.as_raw_fd().to_string()).collect::<Vec<_>>().join(":")
    }

    /// The options with a value, except the lower layers.
    fn values(&self) -> Vec<(&'static str, String)> {
        let number = |file: &File| descriptor_path(file.as_raw_fd());
        let upper =
            self.upper.iter().flat_map(|(upper, work)| [("upperdir", number(upper)), ("workdir", number(work))]);
        upper.collect()
    }

    /// The options without a value.
    fn flags(&self) -> &'static [&'static str] {
        // `userxattr`: the attributes of overlays have the same names with root and without, so that a store means the same to
        // both; a mount in a user namespace must use user.* (Linux 5.11). `volatile`: after a crash a build's changes are thrown
        // away, so they need not be synced.
        if self.upper.is_some() { &["userxattr", "volatile"] } else { &["userxattr"] }
    }
}

/// A refusal: the kernel's words, and whether the reason is that it has no overlays at all.
struct Refusal {
    reason: String,
    missing: bool,
}

impl From<Errno> for Refusal {
    fn from(errno: Errno) -> Self {
        Self { reason: errno.to_string(), missing: errno == Errno::NODEV }
    }
}

fn refused(doing: String, refusal: Refusal) -> Error {
    Error::system(doing).with_source(refusal.reason).with_hint(if refusal.missing {
        "the kernel needs CONFIG_OVERLAY_FS (`modprobe overlay`)"
    } else {
        "the store's file system must be able to hold the upper layer of an overlay: ext4, xfs, btrfs and tmpfs can, NFS and \
         overlayfs itself cannot; set QUERN_HOME to a directory on such a file system"
    })
}

fn too_many(count: usize, name: &Path, most: usize) -> Error {
    Error::system(format!("mounting an overlay at {}: it has {count} lower layers", name.display()))
        .with_source(format!("this kernel takes at most {most}"))
}

fn descriptor_path(fd: i32) -> String {
    format!("{DESCRIPTORS}/{fd}")
}

/// Mounts through `lowerdir+`.
fn appended(layers: &Layers, at: BorrowedFd<'_>) -> Result<Option<OwnedFd>, Refusal> {
    let fs = fsopen("overlay", FsOpenFlags::FSOPEN_CLOEXEC)?;
    for (index, lower) in layers.lowers.iter().enumerate() {
        match fsconfig_set_string(fs.as_fd(), "lowerdir+", descriptor_path(lower.as_raw_fd())) {
            // Older kernels do not know the name.
            Err(Errno::INVAL) if index == 0 => return Ok(None),
            Err(errno) => return Err(spoken(fs.as_fd(), errno)),
            Ok(()) => {}
        }
    }
    finish(layers, fs.as_fd(), at).map(Some)
}

/// Mounts through one string for fsconfig(2). The working directory is [`DESCRIPTORS`].
fn joined(layers: &Layers, at: BorrowedFd<'_>) -> Result<Option<OwnedFd>, Refusal> {
    let numbers = layers.numbers();
    if numbers.len() > MAX_STRING {
        return Ok(None);
    }
    let fs = fsopen("overlay", FsOpenFlags::FSOPEN_CLOEXEC)?;
    fsconfig_set_string(fs.as_fd(), "lowerdir", numbers).map_err(|errno| spoken(fs.as_fd(), errno))?;
    finish(layers, fs.as_fd(), at).map(Some)
}

/// Sets the options that all interfaces of fsconfig(2) share, and mounts.
fn finish(layers: &Layers, fs: BorrowedFd<'_>, at: BorrowedFd<'_>) -> Result<OwnedFd, Refusal> {
    let spoken = |errno| spoken(fs, errno);
    fsconfig_set_string(fs, "source", "quern").map_err(spoken)?;
    for (key, value) in layers.values() {
        fsconfig_set_string(fs, key, value).map_err(spoken)?;
    }
    for flag in layers.flags() {
        fsconfig_set_flag(fs, *flag).map_err(spoken)?;
    }
    fsconfig_create(fs).map_err(spoken)?;
    let mount = fsmount(fs, FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::empty())?;
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
    move_mount(mount.as_fd(), "", at, "", flags)?;
    Ok(mount)
}

/// Mounts through mount(2). The working directory is [`DESCRIPTORS`].
fn classic(layers: &Layers, at: BorrowedFd<'_>) -> Result<Option<OwnedFd>, Refusal> {
    let mut options = format!("lowerdir={}", layers.numbers());
    for (key, value) in layers.values() {
        options += &format!(",{key}={value}");
    }
    for flag in layers.flags() {
        options += &format!(",{flag}");
    }
    if options.len() > MAX_OPTIONS {
        return Ok(None);
    }
    // The path leads to the mount once it is there; the descriptor stays on the directory below it.
    let path = rustix::fs::readlink(descriptor_path(at.as_raw_fd()), Vec::new())?;
    let options = std::ffi::CString::new(options).map_err(|_| Errno::INVAL)?;
    rustix::mount::mount("quern", descriptor_path(at.as_raw_fd()), "overlay", MountFlags::empty(), &*options)?;
    let root = rustix::fs::open(&path, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
    let device = |fd: BorrowedFd<'_>| rustix::fs::fstat(fd).map(|stat| stat.st_dev);
    if device(root.as_fd())? == device(at)? {
        let reason = "the mount point was moved meanwhile".to_owned();
        return Err(Refusal { reason, missing: false });
    }
    Ok(Some(root))
}

/// Runs `mounting` in a thread of its own whose working directory is [`DESCRIPTORS`]: the working directory of the process stays.
fn in_descriptors<T: Send>(mounting: impl FnOnce() -> Result<T, Refusal> + Send) -> Result<T, Refusal> {
    let run = || {
        unshare(CloneFlags::CLONE_FS).map_err(|errno| Refusal { reason: errno.to_string(), missing: false })?;
        rustix::process::chdir(DESCRIPTORS)?;
        mounting()
    };
    std::thread::scope(|scope| {
        let panicked = |_| Err(Refusal { reason: "the thread that mounts panicked".to_owned(), missing: false });
        scope.spawn(run).join().unwrap_or_else(panicked)
    })
}

fn spoken(fs: BorrowedFd<'_>, errno: Errno) -> Refusal {
    Refusal { reason: super::mounts::kernel_says(fs, errno), missing: false }
}

/// Opens the directory `path` through a read-only mount that has no mount point, as a layer of an overlay sees it: without what is
/// mounted in it. Reading through it does not change access times.
///
/// # Errors
/// [`Kind::System`](crate::base::error::Kind::System) with the kernel's reason.
pub fn look(path: &Path) -> Result<OwnedFd> {
    let doing = || format!("looking at {}", path.display());
    let copy = super::mounts::clone(CWD, path, false).system(doing)?;
    crate::os::sys::mount_setattr(copy.as_fd(), MountAttrFlags::MOUNT_ATTR_RDONLY.bits().into(), false)
        .system(doing)?;
    Ok(copy)
}
