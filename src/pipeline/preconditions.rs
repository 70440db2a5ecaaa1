//! Checks before anything is downloaded: whatever can be known at the start must not fail after an hour.

use crate::base::arch;
use crate::base::error::{Context, Error, Result};
use crate::builder::{host, trial};
use crate::os::{probe, space, userns};
use crate::output::platform;
use crate::plan::view::Caches;
use crate::portage;
use crate::recipe::{BaseSpec, Job};
use crate::source::Site;

/// Checks the recipe and this machine before a build.
///
/// # Errors
/// [`Kind::Usage`](crate::base::error::Kind::Usage) if the recipe cannot be built,
/// [`Kind::System`](crate::base::error::Kind::System) with the setting to change if this machine lacks something.
pub(super) fn check(job: &Job, at: &Site<'_>) -> Result<()> {
    if let BaseSpec::Host { show, .. } = &job.source.base {
        host::check(show)?;
    }
    check_recipe(job)?;
    check_architecture(job)?;
    check_sandbox(at)?;
    let caches = Caches::of(job, at.store.root());
    caches.make()?;
    // A build that uses binary packages only writes to no cache.
    if !job.emerge.binary_only {
        if let Some(path) = caches.binpkg.as_ref().filter(|_| job.portage.binpkg_write) {
            fs_err::create_dir_all(path).system(|| format!("making the cache {}", path.display()))?;
            trial::writable(path)?;
        }
        if let Err(error) = trial::writable(&caches.distfiles) {
            // A read-only directory is enough if it has all sources.
            at.ui.warn(&format!("{error}: new sources cannot be downloaded"));
        }
    }
    if job.oci.is_some() {
        trial::links(&job.build.outdir)?;
    }
    match job.build.workdir_tmpfs {
        Some(size) if probe::ram() != 0 && size > probe::ram() => at.ui.warn(&format!(
            "build.workdir-storage may grow to {size} bytes, but this machine has {} bytes of memory",
            probe::ram()
        )),
        _ => {}
    }
    Ok(())
}

/// Checks a recipe, those that its image starts from, and those whose packages it merges.
///
/// # Errors
/// [`Kind::Usage`](crate::base::error::Kind::Usage) if one of them cannot be built.
pub(super) fn check_recipe(job: &Job) -> Result<()> {
    portage::check(job)?;
    job.configurations.iter().try_for_each(|configuration| check_recipe(&configuration.job))?;
    job.from.as_ref().map_or(Ok(()), |parent| check_recipe(&parent.job))
}

/// Checks that this machine can run commands in a tree of the store.
///
/// # Errors
/// [`Kind::System`](crate::base::error::Kind::System) with the setting to change if it cannot.
pub(super) fn check_sandbox(at: &Site<'_>) -> Result<()> {
    probe::check_kernel()?;
    userns::check_ids()?;
    trial::run(at.store.root(), at.ui).map_err(|error| space::told(error, &[at.store.root()]))
}

/// Checks that this machine can run programs of the stage3.
fn check_architecture(job: &Job) -> Result<()> {
    let wanted = platform::of_job(job).architecture;
    let host = arch::host().architecture;
    if matches!(job.source.base, BaseSpec::Host { .. }) || probe::runs(wanted, host) {
        return Ok(());
    }
    Err(Error::system(format!("this machine ({host}) cannot run the programs of the recipe's stage3 ({wanted})")).with_hint(
        "name a stage3 of this machine's architecture, or register qemu-user for the other one in /proc/sys/fs/binfmt_misc \
         with the flag F",
    ))
}
