//! `tree`: lists the images of a tree and their states.

use std::path::PathBuf;

use super::answers::AnswerArgs;
use super::look::LookArgs;
use super::session;
use super::{RecipeArgs, SecretArgs, images};
use crate::base::error::Result;
use crate::pipeline;
use crate::plan::images::{Image, Images};
use crate::recipe::OtherImage;
use crate::ui::Terminal;

/// List the images of a tree and their states
///
/// An image is current if the store has the layers of all its steps, and stale if a build would run one of them. The first such step is
/// named with the reason. Runs nothing and asks no server.
#[derive(Debug, clap::Args)]
#[command(after_long_help = "\
Examples:
  quern-builder tree machines
  quern-builder tree machines --json | jq -r '.images[] | select(.state == \"stale\") | .path'")]
pub struct Args {
    /// The directory of the tree, or one below it
    #[arg(value_name = "DIR")]
    pub directory: PathBuf,
    /// Set a key of every recipe: vars.HOST=web
    #[arg(long = "set", value_name = "KEY=VALUE", help_heading = "Recipe")]
    pub set: Vec<String>,
    /// The answers to the questions of the recipes.
    #[command(flatten)]
    pub answers: AnswerArgs,
    /// The secrets.
    #[command(flatten)]
    pub secrets: SecretArgs,
    /// The form of the answer, and the inputs.
    #[command(flatten)]
    pub look: LookArgs,
}

impl Args {
    pub(super) fn run(self, ui: &Terminal) -> Result<i32> {
        let secrets = self.secrets.known();
        let recipe = RecipeArgs { files: Vec::new(), set: self.set, answers: self.answers, secrets, shared: true };
        session::with_each(&recipe, &images::below(&self.directory, ui)?, &[], ui, |sessions, _| {
            let (mut seen, mut looks) = (Vec::new(), pipeline::Looks::default());
            for session in images::sorted(sessions) {
                let one = RecipeArgs { files: vec![session.origin.clone()], ..recipe.clone() };
                let locked = self.look.lock.entry(&one, &session.job)?;
                let at = self.look.site(&session.store, locked.as_ref(), ui);
                let image = OtherImage { job: session.job, origin: session.origin };
                let steps = looks.states(&image, &at)?;
                seen.push(Image::new(&image.job, image.origin, steps));
            }
            let images = Images { version: 1, images: seen };
            self.look.print(&images, || images.to_string(), ui)
        })
    }
}
