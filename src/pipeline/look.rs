//! The steps of a recipe and their states, as far as they are known without a build.

use std::path::Path;

use super::{StepOptions, base, hash, repositories, stored};
use crate::base::error::{Error, Kind, Result};
use crate::base::progress::Silent;
use crate::base::text::quoted;
use crate::builder::look::{LookParts, look};
use crate::plan::Plan;
use crate::plan::nodes::Action;
use crate::plan::status::Status;
use crate::plan::view::Caches;
use crate::recipe::{BaseSpec, Job};
use crate::source::{ResolveOptions, Site, binhost};

use super::plan::stage3;

/// The steps of a recipe, or the reason why they are not known.
pub(super) type Looked = std::result::Result<Vec<Status>, String>;

/// Looks at the steps of the recipe `job` from the file `origin`. No server is asked, and nothing is unpacked or kept.
///
/// # Errors
/// Those of [`look`], and of the inputs that the store has.
pub(super) fn steps(job: &Job, origin: &Path, options: &StepOptions, at: &Site<'_>) -> Result<Looked> {
    let missing = |what: &str| Ok(Err(format!("unknown until {what} in the store: `quern-builder fetch` gets them")));
    let real = &Site { ui: &Silent, ..*at };
    let at = &Site { options: ResolveOptions { offline: true, ..at.options }, ..*real };
    if stored(job, at.store)?.is_none() {
        return missing("the repositories are");
    }
    if !matches!(job.source.base, BaseSpec::Host { .. }) {
        let there = match stage3(job, at.store, at.options.locked)? {
            Some(sha512) => at.store.tree(&sha512, || {})?.is_some(),
            None => false,
        };
        if !there {
            return missing("the stage3 and the repositories are");
        }
    }
    let (mut repositories, resolved) = match repositories(job, at) {
        Err(error) if error.kind() == Kind::Network => return missing("the repositories are"),
        found => found?,
    };
    let base = base(job, at)?.0;
    let Some(work) = at.store.work_now(&job.name, origin)? else {
        return Ok(Err("unknown while a build of the recipe runs".to_owned()));
    };
    let scratch = work.scratch()?;
    let caches = Caches::of(job, at.store.root());
    let info = base.info(at.cpus)?;
    let plan = Plan::new(job, &resolved, info, &caches, scratch.paths());
    let plan = plan.at(job.build.epoch.unwrap_or_else(|| base.epoch()));
    if plan.nodes.iter().any(|node| matches!(node.action, Action::Emerge(_))) {
        hash(&mut repositories, at.ui)?;
    }
    let binhosts = if real.options.offline { binhost::binhosts(job, at)? } else { binhost::known(job, at)? };
    let parts = LookParts {
        job,
        resolved: &resolved,
        repositories: &repositories,
        binhosts: &binhosts,
        base: &base,
        plan: &plan,
        work: work.paths(),
        scratch: scratch.paths(),
        options,
    };
    look(parts, real).map(Ok)
}

/// Looks at one step of a recipe.
///
/// # Errors
/// Those of [`steps`]; [`Kind::Usage`] if the recipe has no step of that name, or its steps are not known.
pub fn step(job: &Job, origin: &Path, name: &str, at: &Site<'_>) -> Result<Status> {
    let steps = steps(job, origin, &StepOptions::default(), at)?
        .map_err(|why| Error::usage(format!("explaining the step {}: it is {why}", quoted(name))))?;
    let names: Vec<&str> = steps.iter().map(|step| step.name.as_str()).collect();
    let hint = format!("its steps are {}", names.join(", "));
    let found = steps.iter().find(|step| step.name == name).cloned();
    found.ok_or_else(|| Error::usage(format!("the build has no step {}", quoted(name))).with_hint(hint))
}

/// Returns true if `word` names a step of the recipe: its own, one that it skips, or one of the program.
pub fn is_step(job: &Job, word: &str) -> bool {
    let own = job.steps.iter().any(|step| step.name == word) || job.skipped.iter().any(|name| name == word);
    own || ["@configure", "@unblocker", "@baselayout", "@system", "@packages"].contains(&word)
}
