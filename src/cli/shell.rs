//! `shell`: a command where an image is built, or in the image.

use std::ffi::OsString;

use super::RecipeArgs;
use super::session::{self, Begun, Session};
use crate::builder::{
    self,
    view::{Caches, View},
};
use crate::error::{Error, Result};
use crate::pipeline;
use crate::portage::Resolved;
use crate::progress::Progress;
use crate::recipe::TreeKind;
use crate::source;
use crate::source::Terms;
use crate::store::Store;
use crate::store::lock::Mode;
use crate::store::trees::Tree;
use crate::ui::Terminal;

/// Run a shell or a command in the tree that a recipe's image is built in
///
/// Enters the builder tree (the stage3 with what the last build of the recipe added) with the same mounts, caches and Portage
/// configuration as a build; with --image the image tree that was built instead. Changes are thrown away at the end. Exits with the
/// code of the command.
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
    #[arg(long)]
    pub image: bool,
    /// Ask no server: use what the store has, or fail
    #[arg(long)]
    pub offline: bool,
    /// The command; without one, a login shell
    #[arg(last = true, value_name = "COMMAND")]
    pub command: Vec<OsString>,
}

impl Args {
    pub(super) fn run(self, ui: &Terminal) -> Result<i32> {
        let session = match session::begin(&self.recipe, &[], ui)? {
            Begun::Here(session) => session,
            Begun::Done(code) => return Ok(code),
        };
        let Session { job, origin, store } = &*session;
        let resolved = Resolved::new(job)?;
        let waiting = || ui.note("waiting for the build of this recipe to end");
        let work = store.work(&job.name, origin, Mode::Shared, waiting)?;
        let state = work.state()?;
        let of_image = self.image && job.build.kind == TreeKind::Image;
        let stage3 = match &state {
            _ if of_image => None,
            Some(state) => store.tree(&state.sha512, || {})?,
            None => None,
        };
        // What the last build added lies over its own stage3, whatever is the latest now.
        let added = if stage3.is_some() { vec![work.part("upper")] } else { Vec::new() };
        let stage3 = match stage3 {
            _ if of_image => None,
            Some(tree) => Some(tree),
            None => Some(self.stage3(&session, ui)?),
        };
        if self.image && !state.is_some_and(|state| state.finished) {
            return Err(Error::usage(format!("there is no image of {} yet", job.name))
                .with_hint("build it first; without --image the shell is in the tree that it is built in"));
        }
        let (lowers, view) = match &stage3 {
            None => (vec![work.part("image")], View::image(job)),
            Some(tree) => {
                let lowers = added.into_iter().chain([tree.root()]).collect::<Vec<_>>();
                let caches = Caches::of(job, store)?;
                (
                    lowers,
                    if self.image { View::image(job) } else { View::shell(job, &resolved, &caches, work.directory()) },
                )
            }
        };
        let shell: &[&str] = if self.image { &["/bin/sh"] } else { &["/bin/bash", "-l"] };
        let command = match self.command.is_empty() {
            true => shell.iter().map(Into::into).collect(),
            false => self.command,
        };
        let scratch = work.scratch()?;
        builder::shell(&lowers, &view, scratch.path(), command).map(|exit| exit.code())
    }

    /// The stage3 of a recipe that was not built yet: one that the store has, before any server is asked.
    fn stage3(&self, session: &Session, ui: &Terminal) -> Result<Tree> {
        let known = source::known(&session.job, &session.store)?;
        if let Some(sha512) = known.as_ref().and_then(|known| known.sha512())
            && let Some(tree) = Store::tree(&session.store, sha512, || {})?
        {
            return Ok(tree);
        }
        let terms = Terms { offline: self.offline, ..Terms::default() };
        pipeline::base(&session.job, &session.store, terms, ui).map(|(_, tree)| tree)
    }
}
