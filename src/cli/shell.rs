//! `shell`: a command where an image is built, or in the image.

use std::ffi::OsString;

use super::RecipeArgs;
use super::lock::LockArgs;
use super::session::{self, Session};
use crate::base::error::{Error, Result};
use crate::base::progress::Progress;
use crate::builder::{
    self,
    base::Base,
    layers::Layer,
    view::{Caches, View},
};
use crate::enter;
use crate::pipeline;
use crate::recipe::{self, TreeKind};
use crate::source;
use crate::source::{ResolveOptions, Site};
use crate::store::lock::Mode;
use crate::store::work::Below;
use crate::ui::Terminal;

/// Run a shell or a command in the tree that a recipe's image is built in
///
/// Enters the builder tree (the stage3 or the host, with what the last build of the recipe added) with the same mounts, caches and
/// Portage configuration as a build; with --image the image tree that was built instead. Changes are thrown away at the end. Exits
/// with the code of the command.
#[derive(Debug, clap::Args)]
#[command(after_long_help = "\
Examples:
  quern-builder shell demo.toml
  quern-builder shell demo.toml -- emerge --pretend --verbose @profile
  quern-builder shell --image demo.toml -- /usr/bin/python3 --version")]
pub struct Args {
    /// The recipe.
    #[command(flatten)]
    pub recipe: RecipeArgs,
    /// Enter the image tree that the last build made
    #[arg(long, conflicts_with = "locked")]
    pub image: bool,
    /// Ask no server: use what the store has, or fail
    #[arg(long)]
    pub offline: bool,
    /// The lock file.
    #[command(flatten)]
    pub lock: LockArgs,
    /// The command; without one, a login shell
    #[arg(last = true, value_name = "COMMAND")]
    pub command: Vec<OsString>,
}

impl Args {
    pub(super) fn run(self, ui: &Terminal) -> Result<i32> {
        session::with(&self.recipe, &[], ui, |session| self.enter(session, ui))
    }

    fn enter(&self, session: &Session, ui: &Terminal) -> Result<i32> {
        let Session { job, origin, store } = session;
        let waiting = || ui.note("waiting for the build of this recipe to end");
        let work = store.work(&job.name, origin, Mode::Shared, waiting)?;
        let state = work.state()?;
        if self.image && !state.as_ref().is_some_and(|state| state.finished) {
            return Err(Error::usage(format!("there is no image of {} yet", job.name))
                .with_hint("build it first; without --image the shell is in the tree that it is built in"));
        }
        let locked = self.lock.entry(&self.recipe, job)?;
        let options = ResolveOptions { offline: self.offline, locked: locked.as_ref(), ..ResolveOptions::default() };
        // As of the stage3: what the store has comes before any server is asked.
        let stored = if locked.is_some() { None } else { pipeline::stored(job, store)? };
        let (_repositories, resolved) = match stored {
            Some(stored) => stored,
            None => pipeline::repositories(job, &Site::new(store, options, ui))?,
        };
        // What the last build added lies over its own stage3, whatever is the latest now.
        let built = match state.map(|state| state.below) {
            Some(Below::Stage3(sha512)) if options.locked.is_none_or(|locked| locked.is_of(&sha512)) => {
                store.tree(&sha512, || {})?.map(Base::Stage3)
            }
            // The host is what it is now.
            Some(Below::Host) if matches!(job.source.base, recipe::BaseSpec::Host { .. }) => {
                Some(base(session, options, ui)?)
            }
            Some(Below::Stage3(_) | Below::Host) | None => None,
        };
        let scratch = work.scratch()?;
        let (view, layers, _base) = match (self.image, job.build.kind) {
            (true, TreeKind::Image) => (View::image(job), vec![Layer::root(work.part("image"))], None),
            (image, _) => {
                let view = match image {
                    true => View::image(job),
                    false => View::shell(job, &resolved, &Caches::of(job, store)?, work.directory()),
                };
                match built {
                    Some(base) => {
                        let layers = base.layers(scratch.path())?;
                        (view, layers.iter().map(|layer| layer.after(work.directory())).collect(), Some(base))
                    }
                    None if image => {
                        return Err(Error::system(format!("the stage3 below the image of {} is gone", job.name))
                            .with_hint("build it again"));
                    }
                    None => {
                        let base = base(session, options, ui)?;
                        (view, base.layers(scratch.path())?, Some(base))
                    }
                }
            }
        };
        let (command, terminal) = match (self.command.is_empty(), self.image) {
            (false, _) => (self.command.clone(), enter::Terminal::Shared),
            (true, true) => (vec!["/bin/sh".into()], enter::Terminal::Foreground),
            (true, false) => (vec!["/bin/bash".into(), "-l".into()], enter::Terminal::Foreground),
        };
        builder::shell(&layers, &view, scratch.path(), command, terminal).map(|exit| exit.code())
    }
}

/// What a recipe that was not built yet starts from: a stage3 that the store has, before any server is asked.
fn base(session: &Session, options: ResolveOptions<'_>, ui: &Terminal) -> Result<Base> {
    let known = if options.locked.is_some() { None } else { source::known(&session.job, &session.store)? };
    if let Some(sha512) = known.as_ref().and_then(|known| known.sha512())
        && let Some(tree) = session.store.tree(&sha512, || {})?
    {
        return Ok(Base::Stage3(tree));
    }
    pipeline::base(&session.job, &Site::new(&session.store, options, ui)).map(|(base, _)| base)
}
