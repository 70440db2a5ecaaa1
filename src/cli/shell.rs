//! `shell`: runs a command in the tree that an image is built in, or in the image.

use std::ffi::OsString;

use super::lock::LockArgs;
use super::session::{self, Session};
use super::{RecipeArgs, SecretArgs};
use crate::base::error::Result;
use crate::pipeline::{self, Place};
use crate::source::{ResolveOptions, Site};
use crate::ui::Terminal;

/// Run a shell or a command in the builder tree or in the image
///
/// The builder tree is the stage3 or the host, with the changes of the last build of the recipe. The shell has the same mounts, caches
/// and Portage configuration as a build; the caches are read-only. emerge acts on the image: PORTAGE_CONFIGROOT is set, and the image of
/// the last build is mounted. Without that variable, emerge acts on the builder tree. With --image, the shell runs in the image of the
/// last build. With --failed, it runs in the trees of the step that made the last build fail or, if that was a package, in its source
/// directory; the first line of output then names the file with the package's variables and functions. With --at or --before, it runs in
/// the trees of the last build after or before a step, without the secrets of the step unless --with-secrets is given. All changes are discarded at the end. The exit code is that of the command.
#[derive(Debug, clap::Args)]
#[command(after_long_help = "\
Examples:
  quern-builder shell demo.toml
  quern-builder shell demo.toml -- emerge --pretend --verbose @profile
  quern-builder shell demo.toml -- env -u PORTAGE_CONFIGROOT emerge --pretend dev-build/make
  quern-builder shell --failed demo.toml
  quern-builder shell --at install demo.toml -- ls -l /
  quern-builder shell --image demo.toml -- /usr/bin/python3 --version")]
pub struct Args {
    /// The recipe.
    #[command(flatten)]
    pub recipe: RecipeArgs,
    /// Run in the image of the last build
    #[arg(long, conflicts_with = "locked")]
    pub image: bool,
    /// Run in the trees of the step that made the last build fail, or in the work directory of the package
    #[arg(long, conflicts_with = "image")]
    pub failed: bool,
    /// Run in the trees of the last build after this step, with the step's mounts, variables and network
    #[arg(long, value_name = "STEP", conflicts_with_all = ["image", "failed"])]
    pub at: Option<String>,
    /// The same, before this step
    #[arg(long, value_name = "STEP", conflicts_with_all = ["image", "failed", "at"])]
    pub before: Option<String>,
    /// Give the shell the secrets of the step. They are not masked
    #[arg(long)]
    pub with_secrets: bool,
    /// The secrets.
    #[command(flatten)]
    pub secrets: SecretArgs,
    /// Use only files that the store has, and give the command no network
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
    pub(super) fn run(mut self, ui: &Terminal) -> Result<i32> {
        if self.with_secrets {
            self.recipe.secrets = self.secrets.treatment();
        }
        session::with(&self.recipe, &[], ui, |session| self.enter(session, ui))
    }

    fn enter(&self, Session { job, origin, store }: &Session, ui: &Terminal) -> Result<i32> {
        let locked = self.lock.entry(&self.recipe, job)?;
        let options = ResolveOptions { offline: self.offline, locked: locked.as_ref(), ..ResolveOptions::default() };
        let place = match (&self.at, &self.before) {
            (Some(step), _) => Place::At(step.clone()),
            (_, Some(step)) => Place::Before(step.clone()),
            _ if self.image => Place::Image,
            _ if self.failed => Place::Failed,
            _ => Place::Builder,
        };
        let exit = pipeline::shell(job, origin, place, self.command.clone(), &Site::new(store, options, ui))?;
        Ok(exit.code())
    }
}
