//! Carrying out the mounts of a plan. Everything goes by descriptor: sources become detached mounts, targets are resolved
//! inside the tree, so that no link in a hostile tree leads a mount astray.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::{CWD, Mode, OFlags, ResolveFlags, openat2};
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MoveMountFlags, OpenTreeFlags, fsconfig_create, fsconfig_set_string,
    fsmount, fsopen, move_mount, open_tree,
};

use super::plan::Mount;
use crate::error::{Context, Error, Result};
use crate::sys;

/// The nodes of the host that a sandbox sees.
const NODES: [&str; 6] = ["null", "zero", "full", "random", "urandom", "tty"];

/// The tree that becomes `/`, as a mount of its own.
pub(super) struct Root(OwnedFd);

impl Root {
    /// Binds the tree onto a mount that is not locked by the user namespace, which pivot_root(2) wants.
    pub(super) fn attach(path: &Path) -> Result<Self> {
        let doing = || format!("binding the tree {}", path.display());
        let tree = clone(path, true).system(doing)?;
        let target = rustix::fs::open(path, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty());
        attach(tree.as_fd(), target.system(doing)?.as_fd()).system(doing)?;
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        rustix::fs::open(path, flags, Mode::empty()).map(Self).system(doing)
    }

    /// The root directory.
    pub(super) fn fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }

    /// Carries out one mount.
    pub(super) fn mount(&self, mount: &Mount) -> Result<()> {
        let doing = || format!("mounting: {mount}");
        match mount {
            Mount::Bind { source, target, writable } => {
                let tree = clone(source, true).system(doing)?;
                let mut attributes = MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_NODEV;
                if !writable {
                    attributes |= MountAttrFlags::MOUNT_ATTR_RDONLY;
                }
                sys::mount_setattr(tree.as_fd(), attributes.bits().into(), true).system(doing)?;
                attach(tree.as_fd(), self.open(target)?.as_fd()).system(doing)
            }
            Mount::Tmpfs { target, mode, size } => {
                let mut options = vec![("mode", format!("{mode:04o}"))];
                options.extend(size.map(|size| ("size", size.to_string())));
                self.new_fs("tmpfs", target, &options, MountAttrFlags::MOUNT_ATTR_NODEV).system(doing)
            }
            Mount::Proc => {
                let flags = MountAttrFlags::MOUNT_ATTR_NODEV | MountAttrFlags::MOUNT_ATTR_NOEXEC;
                self.new_fs("proc", Path::new("/proc"), &[], flags).map_err(|error| {
                    Error::system(doing()).with_source(error).with_hint(
                        "inside a container whose /proc is partly masked the kernel refuses a fresh one; run the container \
                         with an unmasked /proc (podman: --security-opt unmask=ALL)",
                    )
                })
            }
            Mount::Dev => self.dev(),
        }
    }

    /// The small `/dev`.
    fn dev(&self) -> Result<()> {
        let doing = || "making the sandbox's /dev";
        // 0755: in a sticky, world-writable directory a process without privilege gets EACCES opening /dev/null for writing.
        self.new_fs("tmpfs", Path::new("/dev"), &[("mode", "0755".into())], MountAttrFlags::MOUNT_ATTR_NOEXEC)
            .system(doing)?;
        let dev = self.open(Path::new("/dev"))?;
        for node in NODES {
            let source = clone(&Path::new("/dev").join(node), false).system(|| format!("taking /dev/{node}"))?;
            let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::CLOEXEC;
            rustix::fs::openat(&dev, node, flags, Mode::from_raw_mode(0o666)).system(doing)?;
            attach(source.as_fd(), self.open(&Path::new("/dev").join(node))?.as_fd()).system(doing)?;
        }
        for (link, target) in [
            ("fd", "/proc/self/fd"),
            ("stdin", "/proc/self/fd/0"),
            ("stdout", "/proc/self/fd/1"),
            ("stderr", "/proc/self/fd/2"),
            ("ptmx", "pts/ptmx"),
        ] {
            rustix::fs::symlinkat(target, &dev, link).system(doing)?;
        }
        for directory in ["pts", "shm"] {
            rustix::fs::mkdirat(&dev, directory, Mode::from_raw_mode(0o755)).system(doing)?;
        }
        let flags = MountAttrFlags::MOUNT_ATTR_NOEXEC;
        let options = [("mode", "0620".into()), ("ptmxmode", "0666".into()), ("gid", "5".into())];
        self.new_fs("devpts", Path::new("/dev/pts"), &options, flags).system(doing)?;
        let flags = MountAttrFlags::MOUNT_ATTR_NODEV;
        self.new_fs("tmpfs", Path::new("/dev/shm"), &[("mode", "1777".into())], flags).system(doing)
    }

    /// Mounts a new file system at `target`; always without setuid.
    fn new_fs(
        &self,
        kind: &str,
        target: &Path,
        options: &[(&str, String)],
        attributes: MountAttrFlags,
    ) -> Result<(), Error> {
        let doing = || format!("mounting a {kind}");
        let fs = fsopen(kind, FsOpenFlags::FSOPEN_CLOEXEC).system(doing)?;
        fsconfig_set_string(fs.as_fd(), "source", "quern").system(doing)?;
        for (key, value) in options {
            fsconfig_set_string(fs.as_fd(), *key, value.as_str()).system(|| format!("{}: {key}={value}", doing()))?;
        }
        fsconfig_create(fs.as_fd()).map_err(|errno| kernel_says(fs.as_fd(), errno)).system(doing)?;
        let attributes = attributes | MountAttrFlags::MOUNT_ATTR_NOSUID;
        let mount = fsmount(fs.as_fd(), FsMountFlags::FSMOUNT_CLOEXEC, attributes).system(doing)?;
        attach(mount.as_fd(), self.open(target)?.as_fd()).system(doing)
    }

    /// Opens a mount point inside the tree, links resolved inside it.
    fn open(&self, target: &Path) -> Result<OwnedFd> {
        let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
        openat2(&self.0, target, OFlags::PATH | OFlags::CLOEXEC, Mode::empty(), resolve)
            .system(|| format!("opening the mount point {} in the tree", target.display()))
    }
}

/// A detached copy of the mount that holds `source`, rooted there.
fn clone(source: &Path, recursive: bool) -> rustix::io::Result<OwnedFd> {
    let mut flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    if recursive {
        flags |= OpenTreeFlags::AT_RECURSIVE;
    }
    open_tree(CWD, source, flags)
}

fn attach(mount: BorrowedFd<'_>, target: BorrowedFd<'_>) -> rustix::io::Result<()> {
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
    move_mount(mount, "", target, "", flags)
}

/// The kernel's own words about a refused file system, which it leaves on the descriptor of fsopen(2), with the errno.
pub(super) fn kernel_says(fs: BorrowedFd<'_>, errno: rustix::io::Errno) -> String {
    let mut said = errno.to_string();
    let mut buffer = [0; 512];
    while let Ok(count @ 1..) = rustix::io::read(fs, &mut buffer[..]) {
        said += &format!("; {}", String::from_utf8_lossy(&buffer[..count]).trim());
    }
    said
}
