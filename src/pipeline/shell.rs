//! A shell in the builder tree of a recipe, or in its image.

use std::ffi::OsString;
use std::path::Path;

use super::prepared::{known_base, known_repositories};
use crate::base::error::{Error, Kind, Result};
use crate::base::text::quoted;
use crate::builder::base::Base;
use crate::builder::chain::Chain;
use crate::builder::failed::Failed;
use crate::builder::packages::Packages;
use crate::builder::prepared::{After, Parts, Prepared, run_in};
use crate::builder::steps::{self, StepPlace};
use crate::enter::Terminal;
use crate::os::process::Exit;
use crate::plan::view::{Caches, View};
use crate::recipe::{BaseSpec, Fetch, Job, Step, TreeKind};
use crate::source::fetched::{self, FetchInput};
use crate::source::{ResolveOptions, Site, binhost};
use crate::store::layers::MAX_CHAIN;
use crate::store::lock::Mode;
use crate::store::work::{Below, State, Work};

/// The tree that a shell enters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// The builder tree, with the changes of the last build.
    Builder,
    /// The image that the last build made.
    Image,
    /// The trees and the surroundings of the step that made the last build fail. If that was a package, its work directory.
    Failed,
    /// The trees of the last build after this step, and its surroundings.
    At(String),
    /// The trees of the last build before this step, and its surroundings.
    Before(String),
}

/// Runs `command`, or a login shell if it is empty, in a tree of `job`, whose recipe is the file `origin`. Changes are thrown away.
///
/// # Errors
/// [`Kind::Usage`] if the recipe was not built yet, no package of it failed or the tree lacks
/// the command, and those of [`base`](super::base) and [`repositories`](super::repositories).
pub fn shell(job: &Job, origin: &Path, place: Place, command: Vec<OsString>, at: &Site<'_>) -> Result<Exit> {
    let waiting = || at.ui.note("waiting for the build of this recipe to end");
    let work = at.store.work(&job.name, origin, Mode::Shared, waiting)?;
    match place {
        Place::Builder => in_builder(job, &work, None, command, at),
        Place::Failed => in_failed(job, &work, command, at),
        Place::At(step) => at_step(job, &work, (&step, When::After), command, at),
        Place::Before(step) => at_step(job, &work, (&step, When::Before), command, at),
        Place::Image => in_image(job, &work, command, at),
    }
}

/// Runs a command in the trees of the step that made the last build fail.
fn in_failed(job: &Job, work: &Work, command: Vec<OsString>, at: &Site<'_>) -> Result<Exit> {
    let state = work.state()?;
    if let Some(State { finished: false, failed: None, failed_step: Some(step), .. }) = &state
        && is_own(job, step)
    {
        return at_step(job, work, (step, When::Failed), command, at);
    }
    let failed = failed(job, work, state.as_ref())?;
    at.ui.note(&failed.describe());
    in_builder(job, work, Some(&failed), command, at)
}

/// Returns true for a step of the recipe that is not a command of emerge.
fn is_own(job: &Job, step: &str) -> bool {
    job.steps.iter().any(|own| own.name == step && !own.action.is_emerge())
}

/// Opens a shell in the trees of the step that has just failed with `error`. A shell that cannot be opened is a warning.
pub(super) fn after_failure(job: &Job, work: &Work, error: &Error, at: &Site<'_>) {
    at.ui.note(&format!("{error}\n{}", error.details().unwrap_or_default()));
    at.ui.note("a shell where the build failed; `exit` ends it, and its changes are thrown away");
    let opened = match work.state() {
        Ok(Some(State { failed: None, failed_step: Some(step), .. })) if !is_own(job, &step) => {
            in_builder(job, work, None, Vec::new(), at)
        }
        Ok(_) => in_failed(job, work, Vec::new(), at),
        Err(error) => Err(error),
    };
    if let Err(error) = opened {
        at.ui.warn(&format!("the shell was not opened: {error}"));
    }
}

/// The state of the trees that a shell at a step shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum When {
    Before,
    After,
    /// The step failed, and its changes are shown.
    Failed,
}

/// Runs a command in the trees and the surroundings of a step of the last build.
fn at_step(job: &Job, work: &Work, (name, when): (&str, When), command: Vec<OsString>, at: &Site<'_>) -> Result<Exit> {
    let Some((base, chain)) = built(job, work.state()?.as_ref(), at)? else {
        return Err(Error::usage(format!(
            "{} was not built, or the store does not have its layers any more",
            job.name
        ))
        .with_hint("build it first; `build --until STEP` stops after a step"));
    };
    let names: Vec<String> = chain.keys().into_iter().map(|(name, _)| name).collect();
    let mut chain = match when {
        When::Failed => chain,
        When::After | When::Before => chain.up_to(name, when == When::After).ok_or_else(|| {
            Error::usage(format!("the last build has no step {}", quoted(name)))
                .with_hint(format!("its steps are {}", names.join(", ")))
        })?,
    };
    chain.shorten(MAX_CHAIN, at.store)?;
    let (command, terminal) = command_or(command, &[steps::SHELL]);
    let scratch = work.scratch()?;
    let after = (when == When::Failed).then(|| work.paths());
    if job.steps.iter().any(|step| step.name == name && step.secrets.iter().any(|secret| secret.value.is_absent())) {
        at.ui.note(&format!("the step {name} reads secrets, which this shell has only with --with-secrets"));
    }
    let fetched = match job.steps.iter().find(|step| step.name == name) {
        Some(step) => known_fetches(step, at)?,
        None => Vec::new(),
    };
    let packages = Packages::of_last_build(work.paths());
    let packages = packages.as_ref().and_then(Packages::directory).filter(|directory| directory.exists());
    let place = StepPlace {
        fetched: &fetched,
        packages,
        job,
        base: &base,
        chain: &chain,
        work: scratch.paths(),
        epoch: job.build.epoch.unwrap_or_else(|| base.epoch()),
        offline: at.options.offline,
        store: at.store,
    };
    place.shell(name, &scratch, after, (command, terminal), at.ui)
}

fn in_builder(
    job: &Job,
    work: &Work,
    failed: Option<&Failed<'_>>,
    command: Vec<OsString>,
    at: &Site<'_>,
) -> Result<Exit> {
    let (command, terminal) = command_or(command, &["/bin/bash", "-l"]);
    in_tree(job, work, failed, at, |builder| builder.run(command, terminal))
}

/// Calls `look` with the tree of the last build, if it succeeded and its base is still there.
pub(super) fn with_last_build<T>(
    job: &Job,
    origin: &Path,
    at: &Site<'_>,
    look: impl FnOnce(&Prepared) -> Result<T>,
) -> Result<Option<T>> {
    let waiting = || at.ui.note("waiting for the build of this recipe to end");
    let work = at.store.work(&job.name, origin, Mode::Shared, waiting)?;
    let state = work.state()?;
    if !state.as_ref().is_some_and(|state| state.finished) || built(job, state.as_ref(), at)?.is_none() {
        return Ok(None);
    }
    in_tree(job, &work, None, at, look).map(Some)
}

/// Calls `look` with the builder tree of a recipe, after its last build if there was one.
fn in_tree<T>(
    job: &Job,
    work: &Work,
    failed: Option<&Failed<'_>>,
    at: &Site<'_>,
    look: impl FnOnce(&Prepared) -> Result<T>,
) -> Result<T> {
    let scratch = work.scratch()?;
    // Held: they keep their directories in the store.
    let (_repositories, resolved) = known_repositories(job, at)?;
    let built = built(job, work.state()?.as_ref(), at)?;
    let (base, chain) = match built {
        Some((base, chain)) => (base, Some(chain)),
        None => (known_base(job, at)?, None),
    };
    let after = chain.as_ref().map(|chain| After { chain, work: Some(work.paths()) });
    let caches = Caches::of(job, at.store.root());
    caches.make()?;
    let info = base.info(at.cpus)?;
    let parts = Parts { job, resolved: &resolved, base: &base, info: &info, caches: &caches, after, failed };
    let mut builder = Prepared::new(&parts, &scratch, at.options.offline)?;
    if let Err(error) = builder.configured() {
        at.ui.warn(&format!("{error}: emerge does not work in this shell"));
    } else {
        if let Err(error) = builder.offer_packages(&parts, &scratch) {
            at.ui.note(&format!("{error}: emerge in the shell does not see the packages of earlier builds"));
        }
        match binhost::binhosts(job, at) {
            Ok(hosts) => builder.add_binhosts(&scratch, &hosts, &info)?,
            Err(error) => at.ui.warn(&format!("{error}: emerge in the shell does not see the packages of that host")),
        }
    }
    let done = look(&builder)?;
    builder.unmount()?;
    Ok(done)
}

/// Returns the work directory of the package that made the last build fail.
fn failed<'a>(job: &Job, work: &'a Work, state: Option<&'a State>) -> Result<Failed<'a>> {
    let refused = |title: String, hint: &str| Err(Error::usage(title).with_hint(hint));
    match state {
        Some(State { finished: true, .. }) => refused(
            format!("the last build of {} did not fail", job.name),
            "without --failed the shell enters its builder tree",
        ),
        Some(State { failed: Some(cpv), .. }) => Failed::find(work.paths(), cpv),
        Some(_) => refused(
            format!("the last build of {} was not ended by a failed package", job.name),
            "without --failed the shell enters the tree that it is built in",
        ),
        None => refused(
            format!("{} has no failed build", job.name),
            "build it first; build.keep-failed = false removes the work directory of a failed build",
        ),
    }
}

fn in_image(job: &Job, work: &Work, command: Vec<OsString>, at: &Site<'_>) -> Result<Exit> {
    let state = work.state()?;
    if !state.as_ref().is_some_and(|state| state.finished) {
        return Err(Error::usage(format!("{} has no image yet", job.name))
            .with_hint("build it first; without --image the shell enters the tree that it is built in"));
    }
    let scratch = work.scratch()?;
    let Some((base, chain)) = built(job, state.as_ref(), at)? else {
        return Err(
            Error::system(format!("the layers of the image of {} are gone", job.name)).with_hint("build it again")
        );
    };
    let after = After { chain: &chain, work: Some(work.paths()) };
    let overlays = match job.build.kind {
        TreeKind::Stage4 => after.builder(&base, scratch.paths())?,
        TreeKind::Image => vec![after.image(scratch.paths())?],
    };
    let (command, terminal) = command_or(command, &[steps::SHELL]);
    run_in(&overlays, &View::image(job).offline(at.options.offline), &scratch, command, terminal)
}

/// Returns the downloads of a step as the store knows them or, if it lacks one, as the servers have them.
fn known_fetches(step: &Step, at: &Site<'_>) -> Result<Vec<FetchInput>> {
    let wanted: Vec<&Fetch> = step.fetch.iter().collect();
    let stored = Site { options: ResolveOptions { offline: true, ..at.options }, ..*at };
    match fetched::fetches(&wanted, &stored) {
        Err(error) if error.kind() == Kind::Network && !at.options.offline => fetched::fetches(&wanted, at),
        found => found,
    }
}

/// Returns `command`, or `shell` if it is empty, and its share of the terminal.
fn command_or(command: Vec<OsString>, shell: &[&str]) -> (Vec<OsString>, Terminal) {
    if command.is_empty() {
        (shell.iter().map(Into::into).collect(), Terminal::Foreground)
    } else {
        (command, Terminal::Shared)
    }
}

/// Returns the base and the layers of the last build, if they are still there.
fn built(job: &Job, state: Option<&State>, at: &Site<'_>) -> Result<Option<(Base, Chain)>> {
    let Some(state) = state else { return Ok(None) };
    let base = match state.below {
        // Its own stage3, even if there is a newer one now.
        Below::Stage3(sha512) if at.options.locked.is_none_or(|locked| locked.has_stage3(sha512)) => {
            at.store.tree(&sha512, || {})?.map(Base::Stage3)
        }
        // The host as it is now.
        Below::Host if matches!(job.source.base, BaseSpec::Host { .. }) => Some(known_base(job, at)?),
        Below::Stage3(_) | Below::Host => None,
    };
    let chain = Chain::find(state, at.store)?;
    Ok(base.zip(chain))
}
