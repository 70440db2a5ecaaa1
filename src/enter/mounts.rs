//! Carries out the mounts of a plan. Sources become detached mounts, and targets are opened inside the tree and used by descriptor, so
//! that no symlink in a hostile tree can redirect a mount.

use std::ffi::OsStr;
use std::fs::File;
use std::io::Write;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags, ResolveFlags, openat2};
use rustix::io::Errno;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MoveMountFlags, OpenTreeFlags, fsconfig_create, fsconfig_set_string,
    fsmount, fsopen, move_mount, open_tree,
};

use super::plan::{Identity, Mount, SecretFile};
use crate::base::error::{Context, Error, Result};
use crate::fs::rootfs::owner;
use crate::os::sys;
use crate::os::userns;

/// The device nodes of the host that a sandbox sees.
const NODES: [&str; 6] = ["null", "zero", "full", "random", "urandom", "tty"];

/// The type of a tmpfs in statfs(2).
const TMPFS_MAGIC: rustix::fs::FsWord = 0x0102_1994;

/// The file system in memory in which the secrets of a plan are.
pub(super) const SECRETS_IN: &str = "/run";

/// Attributes of binds that are only read, or used as a device.
const READ_ONLY: MountAttrFlags =
    MountAttrFlags::MOUNT_ATTR_RDONLY.union(MountAttrFlags::MOUNT_ATTR_NOSUID).union(MountAttrFlags::MOUNT_ATTR_NOEXEC);

/// The tree that becomes `/`, as a mount.
pub(super) struct Root(OwnedFd);

impl Root {
    /// Binds the tree onto itself, since pivot_root(2) needs a mount. Device nodes in it, which real root may have unpacked, cannot be
    /// opened.
    pub(super) fn attach(path: &Path) -> Result<Self> {
        let doing = || format!("binding the tree {}", path.display());
        let tree = clone(CWD, path, true).system(doing)?;
        sys::mount_setattr(tree.as_fd(), MountAttrFlags::MOUNT_ATTR_NODEV.bits().into(), true).system(doing)?;
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
                let tree = clone(CWD, source, true).system(doing)?;
                let mut attributes = MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_NODEV;
                if !writable {
                    attributes |= MountAttrFlags::MOUNT_ATTR_RDONLY;
                }
                sys::mount_setattr(tree.as_fd(), attributes.bits().into(), true).system(doing)?;
                self.make_point(tree.as_fd(), target).system(doing)?;
                attach(tree.as_fd(), self.open(target)?.as_fd()).system(doing)
            }
            Mount::Tmpfs { target, mode, size } => {
                let mut options = vec![("mode", format!("{mode:04o}"))];
                options.extend(size.map(|size| ("size", size.to_string())));
                self.new_fs("tmpfs", target, &options, MountAttrFlags::MOUNT_ATTR_NODEV).system(doing)
            }
            Mount::Proc => {
                let target = self.open(Path::new("/proc"))?;
                attach(new_proc()?.as_fd(), target.as_fd()).system(doing)?;
                if userns::is_hosts_root()? { self.guard_proc() } else { Ok(()) }
            }
            Mount::Dev => self.dev(),
        }
    }

    /// Writes secrets, which only `user` or root can read, into the tmpfs that was mounted at [`SECRETS_IN`].
    pub(super) fn secrets(&self, files: &[SecretFile], user: Option<&Identity>) -> Result<()> {
        if files.is_empty() {
            return Ok(());
        }
        let doing = || "writing the secrets of the command";
        let run = self.open(Path::new(SECRETS_IN))?;
        if rustix::fs::fstatfs(&run).system(doing)?.f_type != TMPFS_MAGIC {
            return Err(Error::system(format!("{}: {SECRETS_IN} is not a file system in memory", doing())));
        }
        rustix::fs::mkdirat(&run, "secrets", Mode::from_raw_mode(0o755)).system(doing)?;
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let directory = rustix::fs::openat(&run, "secrets", flags, Mode::empty()).system(doing)?;
        // The umask of the caller may be narrower.
        rustix::fs::fchmod(&directory, Mode::from_raw_mode(0o755)).system(doing)?;
        let (uid, gid) = user.map_or((0, 0), |user| (user.uid, user.gid));
        let (uid, gid) = owner(uid, gid);
        for SecretFile { name, content } in files {
            let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let file = rustix::fs::openat(&directory, name, flags, Mode::empty()).system(doing)?;
            rustix::fs::fchown(&file, uid, gid).system(doing)?;
            rustix::fs::fchmod(&file, Mode::from_raw_mode(0o400)).system(doing)?;
            File::from(file).write_all(content).system(doing)?;
        }
        Ok(())
    }

    /// Mounts the small `/dev`.
    fn dev(&self) -> Result<()> {
        let doing = || "making the sandbox's /dev";
        // 0755: in a sticky, world-writable directory, unprivileged processes get EACCES when they open /dev/null for writing.
        self.new_fs("tmpfs", Path::new("/dev"), &[("mode", "0755".into())], MountAttrFlags::MOUNT_ATTR_NOEXEC)
            .system(doing)?;
        let dev = self.open(Path::new("/dev"))?;
        for node in NODES {
            let source = clone(CWD, Path::new("/dev").join(node), false).system(|| format!("taking /dev/{node}"))?;
            // A read-only bind protects the node's mode and owner, which belong to the host. Its data can still be written.
            sys::mount_setattr(source.as_fd(), READ_ONLY.bits().into(), false)
                .system(|| format!("taking /dev/{node}"))?;
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

    /// Protects the host's part of `/proc`, which a uid 0 that is the host's own may write without any capability. Files that can be
    /// written become read-only, and files that not everybody may read are hidden.
    fn guard_proc(&self) -> Result<()> {
        let doing = || "closing the host's part of /proc";
        let proc = self.open(Path::new("/proc"))?;
        let null = clone(CWD, Path::new("/dev/null"), false).system(doing)?;
        sys::mount_setattr(null.as_fd(), READ_ONLY.bits().into(), false).system(doing)?;
        for (name, kind) in crate::fs::rootfs::list(proc.as_fd()).system(doing)? {
            if name.as_bytes().iter().all(u8::is_ascii_digit) || kind == FileType::Symlink {
                continue;
            }
            let stat = rustix::fs::statat(&proc, &name, AtFlags::SYMLINK_NOFOLLOW).system(doing)?;
            let cover = match kind {
                FileType::RegularFile if stat.st_mode & 0o004 == 0 => clone(null.as_fd(), "", false).system(doing)?,
                FileType::RegularFile if stat.st_mode & 0o222 == 0 => continue,
                _ => {
                    let cover = clone(proc.as_fd(), &name, false).system(doing)?;
                    sys::mount_setattr(cover.as_fd(), READ_ONLY.bits().into(), false).system(doing)?;
                    cover
                }
            };
            let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let target = rustix::fs::openat(&proc, &name, flags, Mode::empty()).system(doing)?;
            attach(cover.as_fd(), target.as_fd()).system(doing)?;
        }
        Ok(())
    }

    /// Mounts a new file system at `target`.
    fn new_fs(
        &self,
        kind: &str,
        target: &Path,
        options: &[(&str, String)],
        attributes: MountAttrFlags,
    ) -> Result<(), Error> {
        let mount = new_fs(kind, options, attributes)?;
        attach(mount.as_fd(), self.open(target)?.as_fd()).system(|| format!("mounting a {kind}"))
    }

    /// Makes a missing mount point for `source` if it lies in a tmpfs of the sandbox, which is empty. A mount point anywhere else exists.
    fn make_point(&self, source: BorrowedFd<'_>, target: &Path) -> rustix::io::Result<()> {
        let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
        let open = |path: &Path| openat2(&self.0, path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty(), resolve);
        let mut missing: Vec<&OsStr> = Vec::new();
        let mut existing = target;
        let mut directory = loop {
            match (open(existing), existing.parent(), existing.file_name()) {
                (Err(Errno::NOENT), Some(parent), Some(name)) => {
                    missing.push(name);
                    existing = parent;
                }
                (found, ..) => break found?,
            }
        };
        if missing.is_empty() || rustix::fs::fstatfs(&directory)?.f_type != TMPFS_MAGIC {
            return Ok(());
        }
        let is_file = !FileType::from_raw_mode(rustix::fs::fstat(source)?.st_mode).is_dir();
        while let Some(name) = missing.pop() {
            if missing.is_empty() && is_file {
                let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::CLOEXEC;
                rustix::fs::openat(&directory, name, flags, Mode::from_raw_mode(0o644))?;
            } else {
                rustix::fs::mkdirat(&directory, name, Mode::from_raw_mode(0o755))?;
                let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                directory = rustix::fs::openat(&directory, name, flags, Mode::empty())?;
            }
        }
        Ok(())
    }

    /// Opens a mount point, with symlinks resolved inside the tree. Refuses the root itself, where a mount would cover everything else.
    fn open(&self, target: &Path) -> Result<OwnedFd> {
        let doing = || format!("opening the mount point {} in the tree", target.display());
        let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
        let fd = openat2(&self.0, target, OFlags::PATH | OFlags::CLOEXEC, Mode::empty(), resolve).system(doing)?;
        let identity = |fd: &OwnedFd| rustix::fs::fstat(fd).map(|stat| (stat.st_dev, stat.st_ino));
        if identity(&fd).system(doing)? == identity(&self.0).system(doing)? {
            return Err(Error::system(format!("{}: it is a symlink to the root directory", doing())));
        }
        Ok(fd)
    }
}

/// Makes a `/proc` of this process's pid namespace.
pub(super) fn new_proc() -> Result<OwnedFd> {
    let flags = MountAttrFlags::MOUNT_ATTR_NODEV | MountAttrFlags::MOUNT_ATTR_NOEXEC;
    new_fs("proc", &[], flags).map_err(|error| {
        error.with_hint(
            "inside a container whose /proc is partly masked the kernel refuses a fresh one; run the container with an \
             unmasked /proc: `podman run --security-opt unmask=ALL`",
        )
    })
}

/// Makes a new file system that is not attached yet, with `nosuid`.
fn new_fs(kind: &str, options: &[(&str, String)], attributes: MountAttrFlags) -> Result<OwnedFd> {
    let doing = || format!("making a {kind}");
    let fs = fsopen(kind, FsOpenFlags::FSOPEN_CLOEXEC).system(doing)?;
    fsconfig_set_string(fs.as_fd(), "source", "quern").system(doing)?;
    for (key, value) in options {
        fsconfig_set_string(fs.as_fd(), *key, value.as_str()).system(|| format!("{}: {key}={value}", doing()))?;
    }
    fsconfig_create(fs.as_fd()).map_err(|errno| kernel_says(fs.as_fd(), errno)).system(doing)?;
    let attributes = attributes | MountAttrFlags::MOUNT_ATTR_NOSUID;
    fsmount(fs.as_fd(), FsMountFlags::FSMOUNT_CLOEXEC, attributes).system(doing)
}

/// Makes a detached copy of the mount of `source`, with `source` as its root. An empty path stands for `at` itself.
pub(super) fn clone(at: BorrowedFd<'_>, source: impl AsRef<OsStr>, recursive: bool) -> rustix::io::Result<OwnedFd> {
    let mut flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | OpenTreeFlags::AT_EMPTY_PATH;
    if recursive {
        flags |= OpenTreeFlags::AT_RECURSIVE;
    }
    open_tree(at, source.as_ref(), flags)
}

/// Opens this program through a read-only mount, to run it as the sandbox. A tree can contain a symlink to `/proc/self/exe` under the
/// name of a command. Without the mount, such a command could overwrite this program after it ends.
pub(super) fn program() -> Result<OwnedFd> {
    let doing = || "finding the program's own file";
    let path = fs_err::read_link("/proc/self/exe").system(doing)?;
    let copy = clone(CWD, &path, false).map_err(|errno| Error::system(doing()).with_source(errno));
    let same = |copy: &OwnedFd| -> rustix::io::Result<bool> {
        let (one, other) = (rustix::fs::fstat(copy)?, rustix::fs::stat("/proc/self/exe")?);
        Ok((one.st_dev, one.st_ino) == (other.st_dev, other.st_ino))
    };
    let hint = "the file was removed or replaced after the program was started: start it again";
    let copy = copy.map_err(|error| error.with_hint(hint))?;
    if !same(&copy).system(doing)? {
        return Err(Error::system(format!("{}: {} is another file now", doing(), path.display())).with_hint(hint));
    }
    let attributes = MountAttrFlags::MOUNT_ATTR_RDONLY | MountAttrFlags::MOUNT_ATTR_NOSUID;
    sys::mount_setattr(copy.as_fd(), attributes.bits().into(), false).system(doing)?;
    Ok(copy)
}

fn attach(mount: BorrowedFd<'_>, target: BorrowedFd<'_>) -> rustix::io::Result<()> {
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
    move_mount(mount, "", target, "", flags)
}

/// Returns the error with the kernel's messages about it, which it leaves on the descriptor of fsopen(2).
pub(super) fn kernel_says(fs: BorrowedFd<'_>, errno: rustix::io::Errno) -> String {
    let mut said = errno.to_string();
    let mut buffer = [0; 512];
    while let Ok(count @ 1..) = rustix::io::read(fs, &mut buffer[..]) {
        said += &format!("; {}", String::from_utf8_lossy(&buffer[..count]).trim());
    }
    said
}
