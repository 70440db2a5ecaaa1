//! The commands that work on a recipe: one straight function per file. Stages do not call each other; these functions call them.

use std::path::Path;

use crate::base::error::Result;
use crate::base::progress::Progress;
use crate::builder::base::Base;
use crate::builder::host::Host;
use crate::lockfile::{Locked, LockedCommit, LockedRepository};
use crate::portage::{self, Resolved};
use crate::recipe::{self, Job};
use crate::source::fetched::{self, FetchInput};
use crate::source::inputs::{self, RepositoryInput};
use crate::source::{Site, SourceFile, Wanted, binhost};
use crate::store::Store;

mod audit;
mod below;
mod build;
mod explain;
mod export;
mod fixes;
mod layers;
mod log;
mod look;
mod packages;
mod plan;
mod preconditions;
mod prepared;
mod shell;
mod split;
mod tuples;
mod volume;

pub use crate::builder::{ALL_STEPS, StepOptions};
pub use audit::audit;
pub use build::{BuildOptions, Deny, Finished, build};
pub use explain::explain;
pub use export::{Change, ExportOptions, Rules, export, tidy};
pub use fixes::fixes;
pub use log::log;
pub use look::{Looks, is_step, step};
pub use packages::packages;
pub use plan::{PlanOptions, plan};
pub use shell::{Place, shell};
pub use volume::export_volume;

/// Returns the base of a recipe: the host, or a stage3, verified and unpacked in the store. Downloads and unpacks only what the store
/// lacks.
///
/// # Errors
/// Those of [`Wanted::tree`] and [`Host::new`].
pub fn base(job: &Job, at: &Site<'_>) -> Result<(Base, Option<SourceFile>)> {
    if let recipe::BaseSpec::Host { hide, show } = &job.source.base
        // A lock with a stage3 belongs to another recipe, and is refused below.
        && at.options.locked.is_none_or(|locked| locked.stage3.is_none())
    {
        let host = Host::new(hide, show)?;
        at.ui.note(&format!("building from this host, {}", host.name()));
        return Ok((Base::Host(host), None));
    }
    let (located, tree) = Wanted::base(job)?.tree(at)?;
    Ok((Base::Stage3(tree), located.file()))
}

/// Gets the repositories of a recipe, and resolves its profiles in them. Checks as much as possible before any download.
///
/// # Errors
/// Those of [`inputs::repositories`] and [`Resolved::at`].
pub fn repositories(job: &Job, at: &Site<'_>) -> Result<(Vec<RepositoryInput>, Resolved)> {
    if job.portage.repositories.iter().any(|repository| repository.location().is_none()) {
        portage::check(job)?;
    }
    let inputs = inputs::repositories(job, at)?;
    let resolved = resolved(job, &inputs)?;
    Ok((inputs, resolved))
}

/// Gets the repositories and profiles as the store knows them, without a server. `None` if a repository is missing.
///
/// # Errors
/// Those of [`inputs::stored`] and [`Resolved::at`].
pub fn stored(job: &Job, store: &Store) -> Result<Option<(Vec<RepositoryInput>, Resolved)>> {
    let Some(inputs) = inputs::stored(job, store)? else { return Ok(None) };
    let resolved = resolved(job, &inputs)?;
    Ok(Some((inputs, resolved)))
}

fn resolved(job: &Job, inputs: &[RepositoryInput]) -> Result<Resolved> {
    let located = inputs.iter().map(|input| (&input.spec, input.directory()));
    Resolved::at(job, &located.collect::<Vec<_>>())
}

/// Computes the digests of the repositories that are directories of this machine.
fn hash(repositories: &mut [RepositoryInput], ui: &dyn Progress) -> Result<()> {
    repositories.iter_mut().try_for_each(|repository| repository.hash(ui))
}

/// Judges the stage3, the fetched repositories and the downloads of a recipe again. Returns a paragraph about each.
///
/// # Errors
/// Those of [`Wanted::judge`], [`inputs::judge`] and [`fetched::judge`].
pub fn judge(job: &Job, at: &Site<'_>) -> Result<Vec<String>> {
    let mut verdicts = vec![Wanted::base(job)?.judge(at)?];
    verdicts.extend(inputs::judge(job, at)?);
    verdicts.extend(fetched::judge(job, at)?);
    Ok(verdicts)
}

/// Returns the inputs to lock a recipe to: the latest stage3, verified, its repositories and the downloads of its steps. An `old` entry can spare the download
/// of a stage3. `file` is the lock file itself: a repository that holds it is locked by its name alone.
///
/// # Errors
/// Those of [`inputs::lock_stage3`], [`repositories()`] and [`fetched::fetches`].
pub fn lock(job: &Job, old: Option<&Locked>, file: &Path, at: &Site<'_>) -> Result<Locked> {
    let (mut repositories, resolved) = repositories(job, at)?;
    hash(&mut repositories, at.ui)?;
    let repository = lock_repositories(&repositories, &resolved, Some(file))?;
    let stage3 = match job.source.base {
        recipe::BaseSpec::Host { .. } => None,
        _ => Some(inputs::lock_stage3(job, old.and_then(|old| old.stage3.as_ref()), at)?),
    };
    let binhost = binhost::lock(&binhost::binhosts(job, at)?);
    let mut meta_repo: Vec<LockedCommit> = repositories.iter().filter_map(|one| one.meta_repo.clone()).collect();
    meta_repo.dedup();
    let fetch = fetched::fetches(&fetched::of_family(job), at)?.iter().filter_map(FetchInput::lock).collect();
    Ok(Locked { stage3, meta_repo, repository, binhost, fetch })
}

fn lock_repositories(
    repositories: &[RepositoryInput],
    resolved: &Resolved,
    file: Option<&Path>,
) -> Result<Vec<LockedRepository>> {
    repositories.iter().zip(&resolved.repos).map(|(repository, repo)| repository.lock(repo.name(), file)).collect()
}
