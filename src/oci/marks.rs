//! What the marks of a layer remove. They speak of the layers below, so they come before anything of their layer is made. Whatever
//! the layer has put where a link was is in the way of the marks that follow it, as with readers that go from entry to entry: what
//! the link led to stays.

use std::collections::BTreeSet;
use std::os::fd::AsFd as _;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::{FileType, Mode, OFlags, Timespec, Timestamps, UTIME_OMIT};
use rustix::io::Errno;

use super::whiteout::Mark;
use crate::archive::unpack::Deferred;
use crate::archive::unpack::entry::{Entry, NodeKind};
use crate::archive::unpack::limits::{Limits, MemoryBudget};
use crate::base::error::{Context as _, Result};
use crate::base::refusal::Reason;
use crate::fs::rootfs::{self, Rootfs};

/// The marks of a layer.
pub(super) struct Marks {
    list: Vec<Mark>,
    kept: MemoryBudget,
    /// Names on those ways to what marks speak of that lead through links. A way through no link needs no care.
    ways: BTreeSet<PathBuf>,
    /// Those of them, and links elsewhere, whose places entries of the layer took so far.
    taken: BTreeSet<PathBuf>,
}

impl Marks {
    /// None so far.
    pub(super) fn new(limits: &Limits) -> Self {
        Self { list: Vec::new(), kept: MemoryBudget::new(limits), ways: BTreeSet::new(), taken: BTreeSet::new() }
    }

    /// Whether there is none.
    pub(super) fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// Adds what an entry means, if it is a mark.
    pub(super) fn add(&mut self, mark: Mark) -> Result<(), Reason> {
        let Some((dir, name)) = parts(&mark) else { return Ok(()) };
        let length = dir.as_os_str().len() + name.map_or(0, |name| name.as_os_str().len());
        self.kept.add(size_of::<Mark>() + 32 + length, "the whiteouts")?;
        self.list.push(mark);
        Ok(())
    }

    /// Applies the marks if the order of the layer's entries does not matter; else every entry must be given to [`Marks::follow`].
    pub(super) fn apply(&mut self, root: &Rootfs, record: &mut Deferred) -> Result<Result<bool, Reason>> {
        for mark in &self.list {
            let Some((dir, _)) = parts(mark) else { continue };
            let mut added = Ok(());
            way(root, dir, &mut |at| {
                if added.is_ok() && !self.ways.contains(&at) {
                    added = self.kept.add(64 + at.as_os_str().len(), "the whiteouts");
                    self.ways.insert(at);
                }
            })?;
            if let Err(reason) = added {
                return Ok(Err(reason));
            }
        }
        if !self.ways.is_empty() {
            return Ok(Ok(false));
        }
        self.list.iter().try_for_each(|mark| remove(root, record, mark)).map(|()| Ok(true))
    }

    /// Applies `mark`, or remembers what `entry` takes. All entries of the layer in their order, before any of them is made.
    pub(super) fn follow(
        &mut self,
        root: &Rootfs,
        record: &mut Deferred,
        entry: &Entry,
        mark: &Mark,
    ) -> Result<Result<(), Reason>> {
        let dir = parts(mark).map_or_else(|| entry.path.parent().unwrap_or(Path::new("")), |(dir, _)| dir);
        let mut hidden = false;
        let real = way(root, dir, &mut |at| hidden |= self.taken.contains(&at))?;
        let Some(real) = real.filter(|_| !hidden) else { return Ok(Ok(())) };
        if *mark != Mark::Entry {
            return remove(root, record, mark).map(Ok);
        }
        let Some(at) = entry.path.file_name().map(|name| real.join(name)) else { return Ok(Ok(())) };
        // Every link: it may be on the way of an entry to one of the names.
        let link = root.read_link(&at)?;
        let remains = match &entry.kind {
            NodeKind::Dir => link.is_none() && is_dir(root, &at)?,
            NodeKind::Symlink(target) => link.as_ref().is_some_and(|to| to.as_os_str().as_bytes() == target),
            _ => false,
        };
        if remains || !(link.is_some() || self.ways.contains(&at)) {
            return Ok(Ok(()));
        }
        let added = self.kept.add(64 + at.as_os_str().len(), "the whiteouts");
        self.taken.insert(at);
        Ok(added)
    }
}

fn is_dir(root: &Rootfs, path: &Path) -> Result<bool> {
    Ok(root.stat(path)?.is_some_and(|stat| FileType::from_raw_mode(stat.st_mode) == FileType::Directory))
}

/// The directory that a mark is about, and the name in it; no name when it is about all of them.
fn parts(mark: &Mark) -> Option<(&Path, Option<&Path>)> {
    match mark {
        Mark::Entry => None,
        Mark::Opaque(dir) => Some((dir, None)),
        Mark::Remove(path) => Some((path.parent()?, Some(Path::new(path.file_name()?)))),
    }
}

/// The path of `dir` through no link; none when the way leads nowhere. See [`Rootfs::real_way`].
fn way(root: &Rootfs, dir: &Path, each: &mut dyn FnMut(PathBuf)) -> Result<Option<PathBuf>> {
    match root.real_way(dir, each) {
        Ok(real) => Ok(Some(real)),
        Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => Ok(None),
        Err(error) => Err(error).system(|| root.doing("looking at", dir)),
    }
}

/// Takes away what a mark speaks of. The directory that it was in keeps its time, unless an entry of the layer changes it.
fn remove(root: &Rootfs, record: &mut Deferred, mark: &Mark) -> Result<()> {
    let Some((dir, name)) = parts(mark) else { return Ok(()) };
    if !record.is_empty()
        && let Some(real) = way(root, dir, &mut |_| {})?
    {
        match name {
            Some(name) => record.remove(&real.join(name)),
            None => record.remove_below(&real),
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
