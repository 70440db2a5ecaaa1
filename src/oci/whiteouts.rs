//! Applies the whiteouts of a layer to the layers below, before any entry of the layer is created.
//!
//! A whiteout may lead through a symlink of a lower layer. If an earlier entry of the same layer replaces that symlink, the whiteout
//! does not follow it any more, as with programs that apply entry by entry.

use std::collections::BTreeSet;
use std::os::fd::AsFd as _;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::{FileType, Mode, OFlags, Timespec, Timestamps, UTIME_OMIT};
use rustix::io::Errno;

use super::Checked;
use super::whiteout::Whiteout;
use crate::archive::unpack::Deferred;
use crate::archive::unpack::entry::{Entry, NodeKind};
use crate::archive::unpack::limits::{Limits, MemoryBudget};
use crate::base::error::{Context as _, Result};
use crate::base::refusal::Reason;
use crate::fs::rootfs::{self, Rootfs};

/// Name of the whiteouts in a refusal.
const WHITEOUTS: &str = "the whiteouts";

/// The whiteouts of a layer.
pub(super) struct Whiteouts {
    list: Vec<Whiteout>,
    memory: MemoryBudget,
    /// Real paths on the way to the whiteouts' directories, for ways that lead through symlinks.
    ways: BTreeSet<PathBuf>,
    /// Those of them, and other symlinks, that entries of the layer have replaced so far.
    replaced: BTreeSet<PathBuf>,
}

impl Whiteouts {
    pub(super) fn new(limits: &Limits) -> Self {
        let memory = MemoryBudget::new(limits);
        Self { list: Vec::new(), memory, ways: BTreeSet::new(), replaced: BTreeSet::new() }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// Adds a whiteout.
    pub(super) fn add(&mut self, whiteout: Whiteout) -> Result<(), Reason> {
        if let Some((dir, name)) = parts(&whiteout) {
            let length = dir.as_os_str().len() + name.map_or(0, |name| name.as_os_str().len());
            self.memory.add(size_of::<Whiteout>() + 32 + length, WHITEOUTS)?;
            self.list.push(whiteout);
        }
        Ok(())
    }

    /// Applies the whiteouts and returns true if their order among the entries does not matter. Otherwise the caller must pass every
    /// entry of the layer to [`Whiteouts::follow`].
    pub(super) fn apply(&mut self, root: &Rootfs, deferred: &mut Deferred) -> Checked<bool> {
        for whiteout in &self.list {
            let Some((dir, _)) = parts(whiteout) else { continue };
            let mut added = Ok(());
            way(root, dir, &mut |at| {
                if added.is_ok() && !self.ways.contains(&at) {
                    added = self.memory.add(64 + at.as_os_str().len(), WHITEOUTS);
                    self.ways.insert(at);
                }
            })?;
            added?;
        }
        if !self.ways.is_empty() {
            return Ok(false);
        }
        self.list.iter().try_for_each(|whiteout| remove(root, deferred, whiteout))?;
        Ok(true)
    }

    /// Applies the whiteout that `entry` is, or remembers the symlink that it replaces. Takes the entries of the layer in order.
    pub(super) fn follow(
        &mut self,
        root: &Rootfs,
        deferred: &mut Deferred,
        entry: &Entry,
        whiteout: Option<&Whiteout>,
    ) -> Checked<()> {
        let above = entry.path.parent().unwrap_or(Path::new(""));
        let dir = whiteout.and_then(parts).map_or(above, |(dir, _)| dir);
        let mut hidden = false;
        let real = way(root, dir, &mut |at| hidden |= self.replaced.contains(&at))?;
        let Some(real) = real.filter(|_| !hidden) else { return Ok(()) };
        if let Some(whiteout) = whiteout {
            return Ok(remove(root, deferred, whiteout)?);
        }
        let Some(at) = entry.path.file_name().map(|name| real.join(name)) else { return Ok(()) };
        // Every symlink counts: it may be on the way of an entry to one of the names.
        let link = root.read_link(&at)?;
        let stays = match &entry.kind {
            NodeKind::Dir => link.is_none() && is_dir(root, &at)?,
            NodeKind::Symlink(target) => link.as_ref().is_some_and(|to| to.as_os_str().as_bytes() == target),
            _ => false,
        };
        if stays || !(link.is_some() || self.ways.contains(&at)) {
            return Ok(());
        }
        self.memory.add(64 + at.as_os_str().len(), WHITEOUTS)?;
        self.replaced.insert(at);
        Ok(())
    }
}

fn is_dir(root: &Rootfs, path: &Path) -> Result<bool> {
    Ok(root.stat(path)?.is_some_and(|stat| FileType::from_raw_mode(stat.st_mode) == FileType::Directory))
}

/// Returns the directory that a whiteout removes from, and the name in it; no name if it removes everything.
fn parts(whiteout: &Whiteout) -> Option<(&Path, Option<&Path>)> {
    match whiteout {
        Whiteout::Opaque(dir) => Some((dir, None)),
        Whiteout::Remove(path) => Some((path.parent()?, Some(Path::new(path.file_name()?)))),
    }
}

/// Returns the real path of `dir`, or `None` if it leads nowhere. See [`Rootfs::real_way`].
fn way(root: &Rootfs, dir: &Path, each: &mut dyn FnMut(PathBuf)) -> Result<Option<PathBuf>> {
    match root.real_way(dir, each) {
        Ok(real) => Ok(Some(real)),
        Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => Ok(None),
        Err(error) => Err(error).system(|| root.doing("examining", dir)),
    }
}

/// Removes the files that a whiteout names. Their directory keeps its time, unless an entry of the layer changes it.
fn remove(root: &Rootfs, deferred: &mut Deferred, whiteout: &Whiteout) -> Result<()> {
    let Some((dir, name)) = parts(whiteout) else { return Ok(()) };
    if !deferred.is_empty()
        && let Some(real) = way(root, dir, &mut |_| {})?
    {
        match name {
            Some(name) => deferred.remove(&real.join(name)),
            None => deferred.remove_below(&real),
        }
    }
    let doing = || root.doing("opening", dir);
    let fd = match root.openat2(dir, OFlags::RDONLY | OFlags::DIRECTORY, Mode::empty()) {
        Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => return Ok(()),
        other => other.system(doing)?,
    };
    let stat = rustix::fs::fstat(&fd).system(doing)?;
    let names = match name {
        Some(name) => vec![name.as_os_str().to_owned()],
        None => {
            let all = rootfs::list(fd.as_fd()).system(|| root.doing("listing", dir))?;
            all.into_iter().map(|(name, _)| name).collect()
        }
    };
    for name in names {
        rootfs::remove_at(fd.as_fd(), &name).system(|| root.doing("removing", &dir.join(&name)))?;
    }
    let times = Timestamps {
        last_access: Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT },
        last_modification: Timespec { tv_sec: stat.st_mtime, tv_nsec: stat.st_mtime_nsec as _ },
    };
    rustix::fs::futimens(&fd, &times).system(doing)
}
