//! Builder trees without a build, for the commands that look and ask.

use std::path::Path;

use super::look::Looks;
use super::{base, hash, preconditions, repositories, stored};
use crate::base::error::Result;
use crate::builder::base::Base;
use crate::builder::chain::Chain;
use crate::builder::metadata::{self, Metadata};
use crate::builder::prepared::{After, Parts, Prepared};
use crate::plan::view::Caches;
use crate::portage::{BuilderInfo, Resolved};
use crate::recipe::{Job, OtherImage};
use crate::source::inputs::RepositoryInput;
use crate::source::{self, Site, binhost};
use crate::store::lock::Mode;

/// The inputs of a recipe that a look into its builder needs. The store keeps them for as long as this value lives.
pub(super) struct Inputs {
    repositories: Vec<RepositoryInput>,
    pub(super) resolved: Resolved,
    pub(super) base: Base,
}

/// A builder tree in which nothing of the recipe was merged yet, and what it was made from.
pub(super) struct Ready<'a> {
    pub(super) builder: &'a Prepared,
    pub(super) inputs: &'a Inputs,
    pub(super) info: &'a BuilderInfo,
    /// True if the tree has the layers of the image that the recipe starts from.
    pub(super) is_on_parent: bool,
}

/// Calls `look` with the builder tree that the next build of the recipe `job` from the file `origin` starts with. Inputs that the store
/// has are used before a server is asked.
///
/// # Errors
/// Those of `look`, of [`base`] and [`repositories`], and [`Kind::System`](crate::base::error::Kind::System) for a refused mount.
pub(super) fn ready<T>(
    job: &Job,
    origin: &Path,
    at: &Site<'_>,
    look: impl FnOnce(&Ready<'_>) -> Result<T>,
) -> Result<T> {
    let parent = job.from.as_deref().map_or(Ok(None), |parent| parent_layers(parent, at))?;
    let waiting = || at.ui.note("waiting for the build of this recipe to end");
    let work = at.store.work(&job.name, origin, Mode::Shared, waiting)?;
    let scratch = work.scratch()?;
    let (mut repositories, resolved) = known_repositories(job, at)?;
    // The store knows the state of a downloaded repository only after a build, and such repositories rarely lack metadata.
    if repositories.iter().all(|repository| repository.spec.location().is_some())
        && metadata::are_missing(&resolved.repos)
    {
        hash(&mut repositories, at.ui)?;
    }
    let inputs = Inputs { repositories, resolved, base: known_base(job, at)? };
    let caches = Caches::of(job, at.store.root());
    caches.make()?;
    let info = inputs.base.info(at.cpus)?;
    let parts = Parts {
        job,
        resolved: &inputs.resolved,
        base: &inputs.base,
        info: &info,
        caches: &caches,
        after: parent.as_ref().map(|chain| After { chain, work: None }),
        failed: None,
    };
    let mut builder = Prepared::new(&parts, &scratch, at.options.offline)?;
    builder.configured()?;
    let metadata = Metadata::of(&inputs.resolved.repos, &inputs.repositories, &info, at.store)?;
    metadata.iter().try_for_each(|metadata| metadata.restore(builder.root()))?;
    builder.offer_packages(&parts, &scratch)?;
    builder.add_binhosts(&scratch, &binhost::binhosts(job, at)?, &info)?;
    let ready = Ready { builder: &builder, inputs: &inputs, info: &info, is_on_parent: parent.is_some() };
    let done = look(&ready);
    metadata.iter().for_each(|metadata| metadata.keep(builder.root(), at.ui));
    let done = done?;
    builder.unmount()?;
    Ok(done)
}

/// Returns the layers of the image that a recipe starts from. Without them, a warning says that its packages are left out of account.
fn parent_layers(parent: &OtherImage, at: &Site<'_>) -> Result<Option<Chain>> {
    let known = Looks::default().layers(parent, at)?;
    if let Err(why) = &known {
        let path = &parent.job.path;
        at.ui.warn(&format!("the packages of the image {path} are left out of account: they are {why}"));
    }
    Ok(known.ok())
}

/// Returns the repositories and profiles of a recipe: those that the store has, before a server is asked.
pub(super) fn known_repositories(job: &Job, at: &Site<'_>) -> Result<(Vec<RepositoryInput>, Resolved)> {
    let known = if at.options.locked.is_some() { None } else { stored(job, at.store)? };
    match known {
        Some(known) => Ok(known),
        None => {
            // Without a download, entering the tree itself is the fastest check.
            preconditions::check_sandbox(at)?;
            repositories(job, at)
        }
    }
}

/// Returns the base of a recipe: a stage3 that the store has, before a server is asked.
pub(super) fn known_base(job: &Job, at: &Site<'_>) -> Result<Base> {
    let known = if at.options.locked.is_some() { None } else { source::known(job, at.store)? };
    if let Some(sha512) = known.and_then(|known| known.sha512())
        && let Some(tree) = at.store.tree(&sha512, || {})?
    {
        return Ok(Base::Stage3(tree));
    }
    preconditions::check_sandbox(at)?;
    base(job, at).map(|(base, _)| base)
}
