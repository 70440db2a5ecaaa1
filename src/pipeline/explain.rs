//! The packages of a recipe for which no binary package fits, and the differences.

use std::path::Path;

use super::packages::all;
use super::prepared::ready;
use crate::base::error::Result;
use crate::plan::misses::Miss;
use crate::portage::emerge;
use crate::recipe::Job;
use crate::source::Site;

/// Explains each package that a build would compile: of `atoms` and their dependencies or, if there are none, of the whole recipe.
///
/// # Errors
/// [`Kind::Usage`](crate::base::error::Kind::Usage) for an invalid atom, and those of [`packages`](super::packages()).
pub fn explain(job: &Job, origin: &Path, atoms: &[String], at: &Site<'_>) -> Result<Vec<Miss>> {
    let mut job = job.clone();
    // Emerge shall say what it would build.
    let binary_only = std::mem::take(&mut job.emerge.binary_only);
    job.emerge.options = emerge::with_sources(&job.emerge.options);
    if !atoms.is_empty() {
        job.emerge.packages = atoms.to_vec();
        job.build.baselayout_atoms.clear();
        job.build.include_system = false;
        job.build.unblocker_profile = None;
        emerge::check(&job)?;
    }
    ready(&job, origin, at, |ready| {
        at.ui.stage("resolving the packages");
        let packages: Vec<_> = all(&job, ready)?.packages.into_iter().map(|(_, package)| package).collect();
        at.ui.done();
        Ok(ready.builder.misses(&packages, binary_only))
    })
}
