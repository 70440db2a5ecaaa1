//! The packages that a build would merge.

use std::path::Path;

use super::prepared::{Ready, ready};
use crate::base::error::Result;
use crate::plan::misses;
use crate::plan::packages::{Packages, Target};
use crate::portage::emerge::{self, Step};
use crate::portage::query::plan::Package;
use crate::recipe::{Job, TreeKind};
use crate::source::Site;

/// Resolves the packages of a recipe as a build would, and merges nothing.
///
/// # Errors
/// Those of a build whose packages emerge refuses, and those of the inputs.
pub fn packages(job: &Job, origin: &Path, at: &Site<'_>) -> Result<Packages> {
    ready(job, origin, at, |ready| {
        at.ui.stage("resolving the packages");
        let packages = all(job, ready)?;
        at.ui.done();
        Ok(packages)
    })
}

/// Resolves the packages of all steps.
pub(super) fn all(job: &Job, ready: &Ready<'_>) -> Result<Packages> {
    let steps = emerge::steps(job, &ready.inputs.resolved, ready.info);
    let mut packages = Packages::default();
    for group in groups(&steps) {
        resolve(job, ready, group, &mut packages)?;
    }
    Ok(packages)
}

/// Splits the steps where the profile changes.
fn groups(steps: &[Step]) -> impl Iterator<Item = &[Step]> {
    steps.chunk_by(|before, next| before.root == next.root && next.profile.is_none())
}

/// Resolves steps that act on one tree.
fn resolve(job: &Job, ready: &Ready<'_>, steps: &[Step], packages: &mut Packages) -> Result<()> {
    let Some(last) = steps.last() else { return Ok(()) };
    let target = |package: &Package| match job.build.kind {
        TreeKind::Image if package.root.as_str() == "/" => Target::Builder,
        _ => Target::Image,
    };
    // One resolution sees the packages of all steps, although none is merged yet.
    let error = match ready.builder.resolve(emerge::together(steps), &with_profile(last, steps)) {
        Ok(found) => {
            packages.add(found, target);
            return Ok(());
        }
        Err(error) => error,
    };
    tracing::debug!("the steps are resolved one by one: {error}");
    for step in steps {
        packages.add(one(job, ready, step)?, target);
    }
    packages.notes.push(
        "emerge refuses to merge the packages of all steps in one command, so each step was resolved alone. A build merges the \
         packages of the earlier steps first, and may choose others"
            .into(),
    );
    Ok(())
}

/// Resolves one step.
fn one(job: &Job, ready: &Ready<'_>, step: &Step) -> Result<Vec<Package>> {
    let arguments = emerge::together(std::slice::from_ref(step));
    ready.builder.resolve(arguments.clone(), step).map_err(|error| {
        if !job.emerge.binary_only {
            return error;
        }
        match ready.builder.resolve(emerge::with_sources(&arguments), step) {
            Ok(packages) => misses::explain(error, &ready.builder.misses(&packages, true)),
            Err(_) => error,
        }
    })
}

/// Returns the last of `steps`, with the profile that the first one sets.
fn with_profile(last: &Step, steps: &[Step]) -> Step {
    Step { profile: steps.iter().find_map(|step| step.profile.clone()), ..last.clone() }
}
