//! The security advisories that affect the image of a recipe.

use std::path::Path;

use super::packages::all;
use super::prepared::ready;
use super::shell::with_last_build;
use crate::base::error::{Error, Result};
use crate::builder::prepared::Prepared;
use crate::plan::packages::Target;
use crate::portage::query::audit::{Audit, INSTALLED, argument};
use crate::recipe::Job;
use crate::source::Site;

/// Compares the packages of the last build of a recipe with the advisories of its repositories. If the last build did not end, or
/// `planned` is true, compares the packages that a build would merge.
///
/// # Errors
/// [`Kind::Usage`](crate::base::error::Kind::Usage) if no repository has advisories, and those of [`packages`](super::packages()).
pub fn audit(job: &Job, origin: &Path, planned: bool, at: &Site<'_>) -> Result<Audit> {
    let built = |builder: &Prepared| {
        at.ui.stage("reading the advisories for the image of the last build");
        builder.audit(Vec::new())
    };
    let built = if planned { None } else { with_last_build(job, origin, at, built)? };
    let audit = match built {
        // An image may have been shipped without Portage's records.
        Some(audit) if audit.packages > 0 => audit,
        _ => ready(job, origin, at, |ready| {
            at.ui.stage("resolving the packages");
            let packages = all(job, ready)?.packages;
            at.ui.stage("reading the advisories for the packages that a build would merge");
            let image = packages.iter().filter(|(target, _)| *target == Target::Image);
            // The packages of the image that this one starts from are there, too, unless they are replaced.
            let arguments = image.map(|(_, package)| argument(package));
            ready.builder.audit(ready.is_on_parent.then(|| INSTALLED.to_owned()).into_iter().chain(arguments).collect())
        })?,
    };
    at.ui.done();
    audit.warnings().for_each(|warning| at.ui.warn(&warning));
    Ok(audit)
}

/// Refuses a recipe whose packages are affected by an advisory.
///
/// # Errors
/// [`Kind::Build`](crate::base::error::Kind::Build) with the advisories, and those of [`audit`].
pub(super) fn refuse(job: &Job, origin: &Path, at: &Site<'_>) -> Result<()> {
    let audit = audit(job, origin, true, at)?;
    if audit.affected() == 0 {
        return Ok(());
    }
    Err(Error::build(format!("security advisories affect packages of {}", job.name))
        .with_details(audit.to_string())
        .with_hint(
            "accept the fixed versions, mask the affected ones in portage.package-mask, or build without --deny glsa",
        ))
}
