//! The work directory of the package that made a build fail, for a shell.

use std::path::{Path, PathBuf};

use crate::base::error::{Error, Result};
use crate::fs::rootfs::Rootfs;
use crate::portage::{TMPDIR, workdir};
use crate::store::work::WorkPaths;

/// The most bytes of an ebuild's environment.
const MAX_ENVIRONMENT: u64 = 16 << 20;

/// A kept work directory.
#[derive(Debug, Clone)]
pub struct Failed<'a> {
    work: &'a WorkPaths,
    cpv: &'a str,
    directory: PathBuf,
}

impl<'a> Failed<'a> {
    /// Finds the work directory of the package `cpv` among the temporary files of a build.
    ///
    /// # Errors
    /// [`Kind::Usage`](crate::base::error::Kind::Usage) if it was not kept.
    pub fn find(work: &'a WorkPaths, cpv: &'a str) -> Result<Self> {
        let gone = || {
            Error::usage(format!("the work directory of {cpv} was not kept"))
                .with_hint("build the recipe again with build.keep-failed = true and build.workdir-storage = \"disk\"")
        };
        let builddir = workdir::builddir(cpv);
        let root = Rootfs::open(&work.tmp()).map_err(|_| gone())?;
        let inside = |path: &Path| path.strip_prefix(TMPDIR).map_or_else(|_| path.to_owned(), Path::to_owned);
        let is_directory = |path: &Path| root.open_dir(&inside(path)).is_ok();
        let workdir = builddir.join("work");
        if !is_directory(&workdir) {
            return Err(gone());
        }
        let environment = root.read(&inside(&builddir.join("temp/environment")), MAX_ENVIRONMENT)?.unwrap_or_default();
        let sources = workdir::sources(&String::from_utf8_lossy(&environment), cpv);
        let directory = sources.filter(|sources| is_directory(sources)).unwrap_or(workdir);
        Ok(Self { work, cpv, directory })
    }

    /// The work directory of the build.
    pub(super) fn work(&self) -> &WorkPaths {
        self.work
    }

    /// `S` if it exists, or else `WORKDIR`.
    pub(super) fn directory(&self) -> &Path {
        &self.directory
    }

    /// Returns a sentence about the package and its environment.
    pub fn describe(&self) -> String {
        let environment = workdir::builddir(self.cpv).join("temp/environment");
        format!("{} failed; its environment: source {}", self.cpv, environment.display())
    }
}
