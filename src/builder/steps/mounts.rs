//! The mounts of a step that show parts of this machine: binds, and directories that are kept from build to build.

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use rustix::fs::Mode as FileMode;

use super::inputs::unknown;
use super::place::{FETCHED, StepPlace, ignore_missing};
use crate::base::error::{Context, Error, Result};
use crate::enter::Mount;
use crate::fs::rootfs::{Rootfs, owner};
use crate::plan::view::{Caches, ccache};
use crate::recipe::{Bind, BindContent, Sharing, Step, StepCache};
use crate::store::lock::Mode;
use crate::store::mounts::Kept;

/// The use of the files of this machine and of caches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::builder) enum Use {
    /// That of the step itself.
    Change,
    /// That of a shell, which cannot write to them.
    Look,
}

/// The directories that a step writes to and that are kept, locked.
#[derive(Debug)]
pub(in crate::builder) struct KeptCaches(Use, Vec<(StepCache, Kept)>);

impl KeptCaches {
    /// Gives the directories the owner and the mode that the recipe says or, to new ones, those of the directory in the tree `root`. A look
    /// changes new ones only.
    ///
    /// # Errors
    /// [`Kind::System`](crate::base::error::Kind::System) if they cannot be read or set.
    pub(in crate::builder) fn prepare(&self, root: &Rootfs) -> Result<()> {
        for (StepCache { name, at, mode, uid, gid, .. }, kept) in &self.1 {
            if self.0 == Use::Look && !kept.fresh {
                continue;
            }
            let preparing = || format!("preparing the cache {name}");
            let directory = fs_err::File::open(&kept.path).system(preparing)?;
            let below = rustix::fs::fstat(root.open_dir(at)?).system(preparing)?;
            let (uid, gid) = (uid.or(kept.fresh.then_some(below.st_uid)), gid.or(kept.fresh.then_some(below.st_gid)));
            let now = rustix::fs::fstat(&directory).system(preparing)?;
            let (uid, gid) = owner(uid.unwrap_or(now.st_uid), gid.unwrap_or(now.st_gid));
            rustix::fs::fchown(&directory, uid, gid).system(preparing)?;
            if let Some(mode) = mode.or(kept.fresh.then_some(below.st_mode & 0o7777)) {
                rustix::fs::fchmod(&directory, FileMode::from_raw_mode(mode)).system(preparing)?;
            }
        }
        Ok(())
    }
}

impl StepPlace<'_> {
    /// Returns the mounts of a step that show parts of this machine, and the caches behind them. Calls `waiting` with the name of a cache
    /// before it waits for another build.
    ///
    /// # Errors
    /// [`Kind::Usage`](crate::base::error::Kind::Usage) if a file has become a symlink,
    /// [`Kind::System`](crate::base::error::Kind::System) if a file cannot be written or a cache cannot be made.
    pub(in crate::builder) fn mounts(
        &self,
        step: &Step,
        purpose: Use,
        waiting: &dyn Fn(&str),
    ) -> Result<(Vec<Mount>, KeptCaches)> {
        let writable = purpose == Use::Change;
        let mut mounts = Vec::new();
        for (number, bind) in step.binds.iter().enumerate() {
            let source = self.source(bind, number)?;
            mounts.push(Mount::Bind { source, target: bind.at.clone(), writable: bind.write && writable });
        }
        for fetch in &step.fetch {
            let input = self.fetched.iter().find(|input| input.name == fetch.name);
            let input = input.ok_or_else(|| unknown(&fetch.name))?;
            mounts.push(Mount::read_only(input.path(), Path::new(FETCHED).join(&fetch.name)));
        }
        for volume in &step.volumes {
            mounts.push(Mount::writable(self.work.volume(&volume.name), &volume.at));
        }
        let mut kept = KeptCaches(purpose, Vec::new());
        // All builds take locks in the same order.
        let mut caches: Vec<&StepCache> = step.caches.iter().collect();
        caches.sort_by(|one, other| one.name.cmp(&other.name));
        for cache in caches {
            // Emerge has the caches of the build, and writes to them.
            if step.action.is_emerge() && cache.is_built_in() {
                continue;
            }
            match cache.is_built_in() {
                true => mounts.extend(self.built_in(cache).map(|path| Mount::read_only(path, &cache.at))),
                false => {
                    let mode = match cache.sharing {
                        _ if purpose == Use::Look => Some(Mode::Shared),
                        Sharing::Shared => Some(Mode::Shared),
                        Sharing::Locked => Some(Mode::Exclusive),
                        Sharing::Private => None,
                    };
                    let own = self.store.kept(&cache.name, mode, || waiting(&cache.name))?;
                    mounts.push(Mount::Bind { source: own.path.clone(), target: cache.at.clone(), writable });
                    kept.1.push((cache.clone(), own));
                }
            }
        }
        Ok((mounts, kept))
    }

    /// Returns the path on this machine that a bind shows. Writes a text.
    fn source(&self, bind: &Bind, number: usize) -> Result<PathBuf> {
        match &bind.content {
            BindContent::From(path) => {
                resolved(path)?;
                Ok(path.clone())
            }
            BindContent::Text { bytes, mode } => {
                let path = self.work.step_files().join(format!("bind-{number}"));
                let writing = || format!("writing the text for {}", bind.at.display());
                fs_err::create_dir_all(self.work.step_files()).system(writing)?;
                fs_err::remove_file(&path).or_else(ignore_missing).system(writing)?;
                fs_err::write(&path, bytes).system(writing)?;
                fs_err::set_permissions(&path, Permissions::from_mode(*mode)).system(writing)?;
                Ok(path)
            }
        }
    }

    /// Returns the directory of a cache of the build, if it is known.
    fn built_in(&self, cache: &StepCache) -> Option<PathBuf> {
        match cache.name.as_str() {
            "distfiles" => Some(Caches::of(self.job, self.store.root()).distfiles),
            "ccache" => ccache(self.job, self.work),
            "binpkgs" => self.packages.map(Path::to_owned),
            _ => None,
        }
    }
}

/// Refuses a path that was resolved when the recipe was read and leads elsewhere by now: an earlier step may have written a symlink into
/// a directory of this machine.
pub(super) fn resolved(path: &Path) -> Result<()> {
    let now = fs_err::canonicalize(path).map_err(|error| Error::usage("showing files to a step").with_source(error))?;
    if now == path {
        return Ok(());
    }
    Err(Error::usage(format!("showing files to a step: {} leads to {} now", path.display(), now.display()))
        .with_hint("a step or another program replaced a directory by a symlink during the build"))
}
