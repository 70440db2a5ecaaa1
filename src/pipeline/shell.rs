//! A shell in the builder tree of a recipe, or in its image.

use std::ffi::OsString;
use std::path::Path;

use super::{base, preconditions, repositories, stored};
use crate::base::error::{Error, Result};
use crate::builder;
use crate::builder::base::Base;
use crate::builder::overlays::OverlayMount;
use crate::enter::Terminal;
use crate::os::process::Exit;
use crate::plan::view::{Caches, View};
use crate::recipe::{BaseSpec, Job, TreeKind};
use crate::source::inputs::RepositoryInput;
use crate::source::{self, Site};
use crate::store::lock::Mode;
use crate::store::work::{Below, State, Work};

/// The tree that a shell enters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// The builder tree, with the changes of the last build.
    Builder,
    /// The image that the last build made.
    Image,
}

/// The values that must live for as long as a shell runs: they hold the locks of its trees.
#[derive(Default)]
struct Held {
    repositories: Vec<RepositoryInput>,
    base: Option<Base>,
}

/// Runs `command`, or a login shell if it is empty, in a tree of `job`, whose recipe is the file `origin`. Changes are thrown away.
///
/// # Errors
/// [`Kind::Usage`](crate::base::error::Kind::Usage) if the recipe was not built yet or the tree lacks the command, and those of [`base`] and
/// [`repositories`].
pub fn shell(job: &Job, origin: &Path, place: Place, command: Vec<OsString>, at: &Site<'_>) -> Result<Exit> {
    let waiting = || at.ui.note("waiting for the build of this recipe to end");
    let work = at.store.work(&job.name, origin, Mode::Shared, waiting)?;
    let state = work.state()?;
    let finished = state.as_ref().is_some_and(|state| state.finished);
    let scratch = work.scratch()?;
    let mut held = Held::default();
    let view = match place {
        Place::Image if !finished => {
            return Err(Error::usage(format!("{} has no image yet", job.name))
                .with_hint("build it first; without --image the shell enters the tree that it is built in"));
        }
        Place::Image => View::image(job),
        Place::Builder => builder_view(job, &work, &mut held, at)?,
    };
    let overlays = match (place, job.build.kind) {
        (Place::Image, TreeKind::Image) => vec![OverlayMount::root(work.paths().image())],
        (_, _) => match built(job, state.as_ref(), at)? {
            Some(base) => {
                let overlays = held.base.insert(base).overlays(scratch.paths())?;
                overlays.iter().map(|overlay| overlay.after(work.paths())).collect()
            }
            None if place == Place::Image => {
                return Err(Error::system(format!("the stage3 below the image of {} is gone", job.name))
                    .with_hint("build it again"));
            }
            None => held.base.insert(unbuilt(job, at)?).overlays(scratch.paths())?,
        },
    };
    let view = view.offline(at.options.offline);
    let (command, terminal) = match (command.is_empty(), place) {
        (false, _) => (command, Terminal::Shared),
        (true, Place::Image) => (vec!["/bin/sh".into()], Terminal::Foreground),
        (true, Place::Builder) => (vec!["/bin/bash".into(), "-l".into()], Terminal::Foreground),
    };
    builder::shell(&overlays, &view, &scratch, command, terminal)
}

/// Returns the view of a shell in the builder tree.
fn builder_view(job: &Job, work: &Work, held: &mut Held, at: &Site<'_>) -> Result<View> {
    // What the store has is used before a server is asked.
    let known = if at.options.locked.is_some() { None } else { stored(job, at.store)? };
    let (repositories, resolved) = match known {
        Some(known) => known,
        None => {
            // Without a download, entering the tree itself is the fastest check.
            preconditions::check_sandbox(at)?;
            repositories(job, at)?
        }
    };
    held.repositories = repositories;
    let caches = Caches::of(job, at.store.root());
    caches.make()?;
    Ok(View::shell(job, &resolved, &caches, work.paths()))
}

/// Returns the base that the changes of the last build belong to, if it is still there.
fn built(job: &Job, state: Option<&State>, at: &Site<'_>) -> Result<Option<Base>> {
    match state.map(|state| &state.below) {
        // Its own stage3, even if there is a newer one now.
        Some(Below::Stage3(sha512)) if at.options.locked.is_none_or(|locked| locked.has_stage3(*sha512)) => {
            Ok(at.store.tree(sha512, || {})?.map(Base::Stage3))
        }
        // The host as it is now.
        Some(Below::Host) if matches!(job.source.base, BaseSpec::Host { .. }) => unbuilt(job, at).map(Some),
        Some(Below::Stage3(_) | Below::Host) | None => Ok(None),
    }
}

/// Returns the base for a recipe that was not built yet: a stage3 that the store has, before a server is asked.
fn unbuilt(job: &Job, at: &Site<'_>) -> Result<Base> {
    let known = if at.options.locked.is_some() { None } else { source::known(job, at.store)? };
    if let Some(sha512) = known.and_then(|known| known.sha512())
        && let Some(tree) = at.store.tree(&sha512, || {})?
    {
        return Ok(Base::Stage3(tree));
    }
    preconditions::check_sandbox(at)?;
    base(job, at).map(|(base, _)| base)
}
