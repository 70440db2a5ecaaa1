//! The configurations of Portage in the tuples of a tree. An image with `tuples = "all"` merges the packages of each of them, so that
//! the tuples find them as binary packages.

use std::path::Path;
use std::sync::Arc;

use super::ask::User;
use super::diagnostic::Shown;
use super::{Action, Job, OtherImage, Read, Request, StepRoot, TreeKind, diagnostic, merge};
use crate::base::error::Result;

/// Returns one image for each configuration of the tuples in the tree at `root`, with the packages of all tuples that have it, and the
/// answers that they lack. An image is made in the tree of `builder`, if that is the builder of images. `origin` is the file of the recipe
/// of `builder`.
///
/// # Errors
/// Those of [`load`](super::load) for a tuple.
pub(super) fn of(
    request: &Request,
    root: &Path,
    (builder, origin): (&Job, &Path),
    user: &mut dyn User,
) -> Result<(Vec<OtherImage>, Shown)> {
    let mut unanswered = Shown::default();
    let mut configurations: Vec<OtherImage> = Vec::new();
    for file in merge::tuples(root, request.colour)? {
        let Read { loaded, unanswered: more } = tuple(&request.of_other(file), user)?;
        unanswered.extend(more);
        let job = Arc::unwrap_or_clone(loaded.job);
        match configurations.iter_mut().find(|other| have_one_configuration(&other.job, &job)) {
            Some(other) => add(Arc::make_mut(&mut other.job), job),
            None => {
                let origin = origin.with_file_name(&job.name);
                configurations.push(OtherImage { job: Arc::new(job), origin });
            }
        }
    }
    for OtherImage { job, .. } in &mut configurations {
        *job = Arc::new(packages_alone(job, builder, origin));
    }
    Ok((configurations, unanswered))
}

/// Reads the recipe of a tuple, without the images that it needs: the image that merges its packages is one of them.
fn tuple(request: &Request, user: &mut dyn User) -> Result<Read> {
    let mut texts = diagnostic::Texts::default();
    let mut merged = merge::merge(request, &mut texts)?;
    merged.tree.iter_mut().for_each(|tree| _ = tree.remove("needs"));
    super::checked(request, texts, merged, user)
}

/// Returns true if two tuples merge packages with the same settings.
fn have_one_configuration(one: &Job, other: &Job) -> bool {
    let of = |job: &Job| {
        let build = &job.build;
        (build.profile.clone(), build.profile_packages.clone(), build.unblocker_profile.clone(), build.kind)
    };
    of(one) == of(other)
        && one.source == other.source
        && one.portage == other.portage
        && one.emerge.options == other.emerge.options
}

/// Adds the packages of a tuple to those of another one.
fn add(job: &mut Job, mut other: Job) {
    move_steps(&mut other);
    move_steps(job);
    let lists = [
        (&mut job.emerge.packages, other.emerge.packages),
        (&mut job.build.baselayout_atoms, other.build.baselayout_atoms),
    ];
    for (all, more) in lists {
        for atom in more {
            if !all.contains(&atom) {
                all.push(atom);
            }
        }
    }
    job.build.include_system |= other.build.include_system;
    job.emerge.update_world |= other.emerge.update_world;
}

/// Moves the packages that steps merge into the image to those of the image.
fn move_steps(job: &mut Job) {
    for step in std::mem::take(&mut job.steps) {
        if let (Action::Emerge(atoms), StepRoot::Image) = (step.action, step.root) {
            job.emerge.packages.extend(atoms);
        }
    }
}

/// Returns a tuple that only merges its packages, and keeps them as binary packages.
fn packages_alone(tuple: &Job, builder: &Job, origin: &Path) -> Job {
    let mut job = Job {
        path: format!("{}/{}", builder.path, tuple.name),
        for_packages: true,
        publish: false,
        accelerate: builder.accelerate.clone(),
        keep_layers: None,
        oci: None,
        ..tuple.clone()
    };
    move_steps(&mut job);
    job.skipped.clear();
    job.split.clear();
    job.emerge.binary_only = false;
    (job.emerge.jobs, job.emerge.load_average) = (builder.emerge.jobs, builder.emerge.load_average);
    job.portage.binpkg_write = true;
    let is_builder = (builder.build.kind, job.build.kind) == (TreeKind::Stage4, TreeKind::Image);
    if is_builder && builder.source == job.source {
        job.from = Some(Box::new(OtherImage { job: Arc::new(builder.clone()), origin: origin.to_owned() }));
    }
    job
}
