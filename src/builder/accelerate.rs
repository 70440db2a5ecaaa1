//! The helpers of compilers during a build: the directory of ccache, the FIFO of the jobserver, and what became of them.

use std::fs::{File, Permissions};
use std::io::{ErrorKind, Read, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt, chown};
use std::path::Path;

use rustix::fs::OFlags;

use super::query::{self, Query};
use crate::base::error::{Context, Error, Result};
use crate::fs::rootfs::Rootfs;
use crate::plan::view::{self, View};
use crate::portage::accelerate::{self, ASK_TOOLS, GROUP, JOBS, Statistics, Tools};
use crate::recipe::{Job, TreeKind};
use crate::store::work::WorkPaths;

/// The most bytes of a program that is searched for a text.
const MAX_PROGRAM: u64 = 64 << 20;

/// The helpers of one build.
#[derive(Debug)]
pub(super) struct Helpers {
    /// The tools of the builder, for the configuration.
    pub(super) tools: Tools,
    /// The jobs that all packages share.
    pub(super) jobs: Option<Jobs>,
    /// The counts of ccache before the build.
    before: Statistics,
}

impl Helpers {
    /// Prepares the helpers of a build whose tree is mounted, on a machine with `cpus` processors.
    ///
    /// # Errors
    /// [`Kind::System`](crate::base::error::Kind::System) if something cannot be made.
    pub(super) fn prepare(job: &Job, view: &View, paths: &WorkPaths, cpus: u32) -> Result<Self> {
        if let Some(directory) = view::ccache(job, paths) {
            make_cache(&directory)?;
        }
        let mut tools = Tools::UNKNOWN;
        if accelerate::asks(job) {
            let answer = query::ask(&view.query(), paths.tree(), &Query::new(["sh", "-c", ASK_TOOLS]))?;
            tools = Tools::parse(&answer.stdout, job, cpus);
        }
        let jobs = tools.jobserver.map(|jobs| Jobs::new(&paths.run(), jobs)).transpose()?;
        let before = statistics(job, view, paths)?;
        Ok(Self { tools, jobs, before })
    }

    /// Returns a sentence about the compilations that ccache has seen since the build began.
    pub(super) fn compilations(&self, job: &Job, view: &View, paths: &WorkPaths) -> Result<Option<String>> {
        if job.accelerate.ccache.is_none() {
            return Ok(None);
        }
        Ok(Some(statistics(job, view, paths)?.since(self.before)))
    }
}

/// Checks that the builder with the tree `root` can use the helpers of a recipe.
///
/// # Errors
/// Those of [`accelerate::check`] and [`query::ask`].
pub(super) fn check(job: &Job, root: &Rootfs, view: &View, paths: &WorkPaths) -> Result<()> {
    let exists = |path: &Path| Ok(root.stat(path)?.is_some());
    let contains = |path: &Path, text: &str| {
        let program = root.read(path, MAX_PROGRAM)?.unwrap_or_default();
        Ok(program.windows(text.len()).any(|window| window == text.as_bytes()))
    };
    accelerate::check(job, exists, contains)?;
    if job.accelerate.distcc.is_empty() {
        return Ok(());
    }
    let flags = Query::new(["portageq", "envvar", "CFLAGS", "CXXFLAGS", "FCFLAGS", "FFLAGS"]);
    let flags = if job.build.kind == TreeKind::Image { flags.of_target() } else { flags };
    let answer = query::ask(&view.query(), paths.tree(), &flags)?;
    accelerate::check_flags(&String::from_utf8_lossy(&answer.stdout))
}

/// Asks ccache for its counts. A builder that lacks ccache until a package brings it has none.
fn statistics(job: &Job, view: &View, paths: &WorkPaths) -> Result<Statistics> {
    if job.accelerate.ccache.is_none() {
        return Ok(Statistics::default());
    }
    let mut question = Query::new(["sh", "-c", "exec ccache \"$0\"", "--print-stats"]);
    question.env.insert("CCACHE_DIR".into(), accelerate::CCACHE_DIR.into());
    Ok(Statistics::parse(&query::ask(&view.query(), paths.tree(), &question)?.stdout))
}

/// Makes the directory of the compiler cache, if it is missing, with the group and the mode that Portage gives it.
fn make_cache(directory: &Path) -> Result<()> {
    let making = || format!("making the compiler cache {}", directory.display());
    if !directory.is_dir() {
        fs_err::create_dir_all(directory).system(making)?;
        chown(directory, None, Some(GROUP)).system(making)?;
        fs_err::set_permissions(directory, Permissions::from_mode(0o2775)).system(making)?;
    }
    // In a directory that cannot be changed, Portage switches ccache off and waits five seconds for every package.
    tempfile::tempdir_in(directory).and_then(|trial| chown(trial.path(), None, Some(GROUP))).map_err(|error| {
        Error::system(format!("writing to the compiler cache {}", directory.display()))
            .with_source(error)
            .with_hint("accelerate.ccache must name a directory that the user who builds owns")
    })
}

/// A FIFO with one byte for each job that may run. It is held open, so that the bytes stay in it.
#[derive(Debug)]
pub(super) struct Jobs {
    fifo: File,
    count: u32,
}

impl Jobs {
    /// Makes the FIFO in `run`, the `/run` of the sandbox.
    fn new(run: &Path, count: u32) -> Result<Self> {
        let path = run.join(Path::new(JOBS).file_name().unwrap_or_default());
        let making = || "making the FIFO of the jobserver";
        nix::unistd::mkfifo(&path, nix::sys::stat::Mode::from_bits_truncate(0o660)).system(making)?;
        chown(&path, None, Some(GROUP)).system(making)?;
        // The umask must not matter.
        fs_err::set_permissions(&path, Permissions::from_mode(0o660)).system(making)?;
        let flags = (OFlags::NONBLOCK | OFlags::NOFOLLOW).bits().cast_signed();
        let fifo = File::options().read(true).write(true).custom_flags(flags).open(&path).system(making)?;
        let jobs = Self { fifo, count };
        jobs.fill().system(making)?;
        Ok(jobs)
    }

    fn fill(&self) -> std::io::Result<()> {
        (&self.fifo).write_all(&vec![b'+'; self.count as usize])
    }

    /// Counts the jobs after a step, when no process uses the FIFO, and makes them complete again. Returns a sentence if the number was
    /// wrong.
    ///
    /// # Errors
    /// [`Kind::System`](crate::base::error::Kind::System) if the FIFO cannot be read or written.
    pub(super) fn recount(&self) -> Result<Option<String>> {
        let mut found = 0;
        let mut buffer = [0; 4096];
        loop {
            match (&self.fifo).read(&mut buffer) {
                Ok(0) => break,
                Ok(count) => found += count,
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(Error::system("counting the jobs of the jobserver").with_source(error)),
            }
        }
        self.fill().system(|| "filling the FIFO of the jobserver")?;
        let count = self.count as usize;
        Ok(match found {
            _ if found < count => Some(format!(
                "{} of {count} jobs of the jobserver were not given back, so fewer compilers ran; the next step has all",
                count - found
            )),
            _ if found > count => {
                Some(format!("packages added {} jobs to the jobserver; they were removed", found - count))
            }
            _ => None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A FIFO with `count` jobs. An ordinary user cannot give it to Portage's group.
    fn jobs(directory: &Path, count: u32) -> Jobs {
        let path = directory.join("jobs");
        nix::unistd::mkfifo(&path, nix::sys::stat::Mode::from_bits_truncate(0o600)).unwrap();
        let flags = OFlags::NONBLOCK.bits().cast_signed();
        let fifo = File::options().read(true).write(true).custom_flags(flags).open(&path).unwrap();
        let jobs = Jobs { fifo, count };
        jobs.fill().unwrap();
        jobs
    }

    #[test]
    fn lost_jobs_are_counted_and_replaced() {
        let directory = tempfile::tempdir().unwrap();
        let jobs = jobs(directory.path(), 3);
        assert_eq!(jobs.recount().unwrap(), None);
        (&jobs.fifo).read_exact(&mut [0; 2]).unwrap();
        let said = jobs.recount().unwrap().unwrap();
        assert!(said.starts_with("2 of 3 jobs of the jobserver were not given back"), "{said}");
        assert_eq!(jobs.recount().unwrap(), None);
    }

    #[test]
    fn jobs_that_packages_add_are_removed() {
        let directory = tempfile::tempdir().unwrap();
        let jobs = jobs(directory.path(), 1);
        (&jobs.fifo).write_all(&[b'x'; 5000]).unwrap();
        assert_eq!(jobs.recount().unwrap().unwrap(), "packages added 5000 jobs to the jobserver; they were removed");
        assert_eq!(jobs.recount().unwrap(), None);
    }
}
