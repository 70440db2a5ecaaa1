//! The image that another one starts from.

use std::path::Path;

use super::build::{Run, with_builder};
use super::{StepOptions, base, hash, lock_repositories, look, repositories};
use crate::base::error::Result;
use crate::builder::base::Base;
use crate::builder::chain::Chain;
use crate::builder::cuts::LowerImage;
use crate::portage::Resolved;
use crate::recipe::{Job, OtherImage};
use crate::source::Site;
use crate::source::binhost::{self, BinhostInput};
use crate::source::fetched;
use crate::source::inputs::RepositoryInput;

/// The sources of packages. They stay in the store for as long as this value lives.
#[derive(Debug)]
pub(super) struct Ebuilds {
    pub(super) repositories: Vec<RepositoryInput>,
    pub(super) resolved: Resolved,
    pub(super) binhosts: Vec<BinhostInput>,
}

/// Gets the repositories of a recipe and the indexes of its hosts of binary packages.
///
/// # Errors
/// Those of [`repositories`] and [`binhost::binhosts`], and a refusal of the lock.
pub(super) fn ebuilds(job: &Job, at: &Site<'_>) -> Result<Ebuilds> {
    let (mut repositories, resolved) = repositories(job, at)?;
    resolved.warnings.iter().for_each(|warning| at.ui.warn(warning));
    hash(&mut repositories, at.ui)?;
    if let Some(locked) = at.options.locked {
        let warnings = locked.check_repositories(&lock_repositories(&repositories, &resolved, None)?)?;
        warnings.iter().for_each(|warning| at.ui.warn(warning));
    }
    let binhosts = binhost::binhosts(job, at)?;
    Ok(Ebuilds { repositories, resolved, binhosts })
}

/// Returns true if two recipes have the same sources of packages.
pub(super) fn have_same_ebuilds(one: &Job, other: &Job) -> bool {
    one.portage == other.portage
        && one.build.profile == other.build.profile
        && one.build.unblocker_profile == other.build.unblocker_profile
}

/// The layers that a build starts on, and the images that they are of, the lowest first.
pub(super) struct Below<'a> {
    pub(super) chain: Chain,
    pub(super) images: Vec<LowerImage<'a>>,
}

/// Returns the layers that a build of `job` with the sources `own` starts on. If it starts from another image, the steps of that image
/// run unless the store has their layers; nothing of it is published, and its work directory changes only if a step runs.
///
/// # Errors
/// Those of [`with_builder`].
pub(super) fn below<'a>(job: &'a Job, base: &Base, own: &Ebuilds, at: &Site<'_>) -> Result<Below<'a>> {
    let mut below = from(job, base, own, at)?;
    for (name, other) in job.volumes_of_others() {
        below.chain.borrow(name, &layers_of(other, at)?);
    }
    Ok(below)
}

/// Returns the layers of an image that another one needs. Its steps run unless the store has their layers.
fn layers_of(image: &OtherImage, at: &Site<'_>) -> Result<Chain> {
    let OtherImage { job, origin } = image;
    let (ebuilds, (base, _)) = (ebuilds(job, at)?, base(job, at)?);
    let Below { chain, .. } = below(job, &base, &ebuilds, at)?;
    own_layers((job, origin), (chain, &base), &ebuilds, &StepOptions::default(), at).map(|(chain, _)| chain)
}

/// Does the same as [`below`], without the volumes of other images.
fn from<'a>(job: &'a Job, base: &Base, own: &Ebuilds, at: &Site<'_>) -> Result<Below<'a>> {
    let Some(parent) = &job.from else { return Ok(Below { chain: Chain::over(base), images: Vec::new() }) };
    let others = if have_same_ebuilds(job, &parent.job) { None } else { Some(ebuilds(&parent.job, at)?) };
    let ebuilds = others.as_ref().unwrap_or(own);
    let (job, origin) = (&*parent.job, parent.origin.as_path());
    let Below { chain, mut images } = below(job, base, ebuilds, at)?;
    let options = StepOptions::default();
    let (chain, _) = own_layers((job, origin), (chain, base), ebuilds, &options, at)?;
    let chain = chain.of_parent(&job.path);
    images.push(LowerImage { job, resolved: ebuilds.resolved.clone(), steps: chain.keys().len() });
    Ok(Below { chain, images })
}

/// Returns the layers up to the last step of the image of `job`, which starts on `chain`, and true if no step ran. Its steps run unless
/// the store has their layers.
pub(super) fn own_layers(
    (job, origin): (&Job, &Path),
    (chain, base): (Chain, &Base),
    ebuilds: &Ebuilds,
    options: &StepOptions,
    at: &Site<'_>,
) -> Result<(Chain, bool)> {
    // Before the look: a branch may have a newer commit.
    let fetched = fetched::fetches(&fetched::named(job), at)?;
    let copy = chain.lowest(usize::MAX, at.store)?;
    if let Ok(seen) = look::seen(job, origin, (options, base, copy), ebuilds, at)?
        && let Some(chain) = seen.chain
    {
        at.ui.note(&format!("the image {} is cached", job.path));
        return Ok((chain, true));
    }
    at.ui.note(&format!("building the image {}", job.path));
    let run = Run { job, origin, ebuilds, fetched: &fetched, base, below: chain, options };
    with_builder(run, at, |mut builder, place| {
        builder.unmount()?;
        place.work.finish(&place.state)?;
        Ok((builder.into_chain(), false))
    })
}
