//! The steps of a recipe and their states, as far as they are known without a build.

use std::path::Path;

use super::below::Ebuilds;
use super::{StepOptions, base, hash, repositories, stored};
use crate::base::error::{Error, Kind, Result};
use crate::base::progress::Silent;
use crate::base::text::quoted;
use crate::builder::base::Base;
use crate::builder::chain::Chain;
use crate::builder::look::{LookParts, Seen, look};
use crate::plan::Plan;
use crate::plan::status::Status;
use crate::plan::view::Caches;
use crate::portage::emerge;
use crate::recipe::{BaseSpec, Job};
use crate::source::{ResolveOptions, Site, binhost, fetched};
use crate::store::Store;

use super::plan::stage3;

/// The steps of a recipe, or the reason why they are not known.
pub(super) type Looked = std::result::Result<Seen, String>;

/// Looks at the steps of the recipe `job` from the file `origin`. No server is asked, and nothing is unpacked or kept.
///
/// # Errors
/// Those of [`look`], and of the inputs that the store has.
pub(super) fn steps(job: &Job, origin: &Path, options: &StepOptions, at: &Site<'_>) -> Result<Looked> {
    let offline = &Site { ui: &Silent, options: ResolveOptions { offline: true, ..at.options }, ..*at };
    if !matches!(job.source.base, BaseSpec::Host { .. }) {
        let there = match stage3(job, at.store, at.options.locked)? {
            Some(sha512) => at.store.tree(&sha512, || {})?.is_some(),
            None => false,
        };
        if !there {
            return missing("the stage3 and the repositories are");
        }
    }
    if stored(job, at.store)?.is_none() {
        return missing("the repositories are");
    }
    let base = base(job, offline)?.0;
    on_base(job, origin, options, &base, at)
}

fn missing(what: &str) -> Result<Looked> {
    Ok(Err(format!("unknown until {what} in the store: `quern-builder fetch` gets them")))
}

/// Looks at the steps of a recipe on its base, after those of the image that it starts from.
fn on_base(job: &Job, origin: &Path, options: &StepOptions, base: &Base, at: &Site<'_>) -> Result<Looked> {
    let mut below = match &job.from {
        None => Chain::over(base),
        Some(parent) => {
            let seen = on_base(&parent.job, &parent.origin, &StepOptions::default(), base, at)?;
            match seen.map(|seen| seen.chain) {
                Ok(Some(chain)) => chain.of_parent(&parent.job.path),
                Ok(None) => return Ok(Err(format!("unknown until the image {} is built", parent.job.path))),
                Err(why) => return Ok(Err(why)),
            }
        }
    };
    for (name, other) in job.volumes_of_others() {
        match steps(&other.job, &other.origin, &StepOptions::default(), at)?.map(|seen| seen.chain) {
            Ok(Some(chain)) => below.borrow(name, &chain),
            Ok(None) => return Ok(Err(format!("unknown until the image {} is built", other.job.path))),
            Err(why) => return Ok(Err(why)),
        }
    }
    let offline = &Site { ui: &Silent, options: ResolveOptions { offline: true, ..at.options }, ..*at };
    if stored(job, at.store)?.is_none() {
        return missing("the repositories are");
    }
    let (mut repositories, resolved) = match repositories(job, offline) {
        Err(error) if error.kind() == Kind::Network => return missing("the repositories are"),
        found => found?,
    };
    // The digest of a large directory takes a while.
    let commands = emerge::steps(job, &resolved, &base.info(at.cpus)?);
    if !commands.is_empty() || job.steps.iter().any(|step| step.action.is_emerge()) {
        hash(&mut repositories, offline.ui)?;
    }
    let binhosts = if at.options.offline { binhost::binhosts(job, offline)? } else { binhost::known(job, offline)? };
    seen(job, origin, (options, base, below), &Ebuilds { repositories, resolved, binhosts }, at)
}

/// Looks at the steps of a recipe whose inputs are known, on the layers `below`.
///
/// # Errors
/// Those of [`look`].
pub(super) fn seen(
    job: &Job,
    origin: &Path,
    (options, base, below): (&StepOptions, &Base, Chain),
    ebuilds: &Ebuilds,
    at: &Site<'_>,
) -> Result<Looked> {
    let Some(fetched) = fetched::known(job, at)? else { return missing("the downloads of steps are") };
    let paths = Store::work_paths(at.store.root(), &job.name, origin);
    let work = if paths.directory().exists() { Some(at.store.work_now(&job.name, origin)?) } else { None };
    let scratch = match &work {
        Some(Some(work)) => work.scratch()?,
        Some(None) => return Ok(Err("unknown while a build of the recipe runs".to_owned())),
        None => at.store.scratch()?,
    };
    let caches = Caches::of(job, at.store.root());
    let info = base.info(at.cpus)?;
    let plan = Plan::new(job, &ebuilds.resolved, info, &caches, scratch.paths());
    let plan = plan.at(job.build.epoch.unwrap_or_else(|| base.epoch())).with(fetched);
    let parts = LookParts {
        job,
        resolved: &ebuilds.resolved,
        repositories: &ebuilds.repositories,
        binhosts: &ebuilds.binhosts,
        base,
        plan: &plan,
        work: &paths,
        scratch: scratch.paths(),
        options,
    };
    look(parts, below, &Site { ui: &Silent, ..*at }).map(Ok)
}

/// Returns the steps of a recipe and of those whose packages it merges, and their states, or the reason why they are not known.
///
/// # Errors
/// Those of the look, and of the inputs that the store has.
pub fn states(job: &Job, origin: &Path, at: &Site<'_>) -> Result<std::result::Result<Vec<Status>, String>> {
    let mut all = match steps(job, origin, &StepOptions::default(), at)? {
        Ok(seen) => seen.steps,
        Err(why) => return Ok(Err(why)),
    };
    for configuration in &job.configurations {
        match steps(&configuration.job, &configuration.origin, &StepOptions::default(), at)? {
            Ok(seen) => all.extend(seen.steps.into_iter().map(|step| {
                let name = format!("{}:{}", configuration.job.name, step.name);
                Status { name, ..step }
            })),
            Err(why) => return Ok(Err(why)),
        }
    }
    Ok(Ok(all))
}

/// Looks at one step of a recipe.
///
/// # Errors
/// Those of [`steps`]; [`Kind::Usage`] if the recipe has no step of that name, or its steps are not known.
pub fn step(job: &Job, origin: &Path, name: &str, at: &Site<'_>) -> Result<Status> {
    let seen = steps(job, origin, &StepOptions::default(), at)?
        .map_err(|why| Error::usage(format!("explaining the step {}: it is {why}", quoted(name))))?;
    let steps = seen.steps;
    let names: Vec<&str> = steps.iter().map(|step| step.name.as_str()).collect();
    let hint = format!("its steps are {}", names.join(", "));
    let found = steps.iter().find(|step| step.name == name).cloned();
    found.ok_or_else(|| Error::usage(format!("the build has no step {}", quoted(name))).with_hint(hint))
}

/// Returns true if `word` names a step of the recipe: its own, one that it skips, or one of the program.
pub fn is_step(job: &Job, word: &str) -> bool {
    let own = job.steps.iter().any(|step| step.name == word) || job.skipped.iter().any(|name| name == word);
    own || ["@configure", "@unblocker", "@world", "@baselayout", "@system", "@packages"].contains(&word)
}
