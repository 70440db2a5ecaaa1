//! The packages of the tuples of a tree, for an image that merges them.

use super::below::{Ebuilds, below, ebuilds, have_same_ebuilds, own_layers};
use super::{ALL_STEPS, StepOptions, base};
use crate::base::error::Result;
use crate::builder::base::Base;
use crate::recipe::{Job, OtherImage};
use crate::source::Site;

/// Merges the packages of each configuration, so that the store has them as binary packages. Returns true if no step ran. `own` is the
/// base of the image `job` with the sources of its packages, whose steps have run.
///
/// # Errors
/// Those of the steps and of the inputs.
pub(super) fn merge(job: &Job, own: (&Base, &Ebuilds), options: &StepOptions, at: &Site<'_>) -> Result<bool> {
    let again = options.again.clone().filter(|again| again == ALL_STEPS);
    let options = StepOptions { again, ..StepOptions::default() };
    let mut cached = true;
    for OtherImage { job: one, origin } in &job.configurations {
        let other = if one.source == job.source { None } else { Some(base(one, at)?.0) };
        let base = other.as_ref().unwrap_or(own.0);
        let others = if have_same_ebuilds(job, one) { None } else { Some(ebuilds(one, at)?) };
        let ebuilds = others.as_ref().unwrap_or(own.1);
        let chain = below(one, base, ebuilds, at)?.chain;
        cached &= own_layers((one, origin), (chain, base), ebuilds, &options, at)?.1;
    }
    Ok(cached)
}
