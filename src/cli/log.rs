//! `log`: prints the output of a step.

use super::RecipeArgs;
use super::answers::AnswerArgs;
use super::session::{self, Session};
use crate::base::error::Result;
use crate::base::progress::Progress;
use crate::pipeline;
use crate::recipe::Secrets;
use crate::source::{ResolveOptions, Site};
use crate::ui::Terminal;

/// Print the output of a step of the last build
///
/// If the step failed, that is the output of the failed run. Otherwise it is the output of the run that made the layer of the step, which
/// may be older than the last build, or come from the build of another recipe. `build --dry-run` lists the steps.
#[derive(Debug, clap::Args)]
#[command(after_long_help = "\
Examples:
  quern-builder log demo.toml install
  quern-builder log demo.toml @packages | less")]
pub struct Args {
    /// The recipe, or a directory with a quern.toml
    #[arg(value_name = "RECIPE", value_parser = super::recipe_path())]
    pub file: std::path::PathBuf,
    /// The step
    #[arg(value_name = "STEP")]
    pub step: String,
    /// Print the output of this daemon of the step
    #[arg(long, value_name = "NAME")]
    pub daemon: Option<String>,
    /// Set a key of the recipe: portage.use='["ipv6"]'
    #[arg(long = "set", value_name = "KEY=VALUE", help_heading = "Recipe")]
    pub set: Vec<String>,
    /// The answers to the questions of the recipe.
    #[command(flatten)]
    pub answers: AnswerArgs,
}

impl Args {
    pub(super) fn run(self, ui: &Terminal) -> Result<i32> {
        let (files, set, answers) = (vec![self.file.clone()], self.set.clone(), self.answers.clone());
        let recipe = RecipeArgs { files, set, answers, secrets: Secrets::Leave, shared: false };
        session::with(&recipe, &[], ui, |Session { job, origin, store }| {
            let at = Site::new(store, ResolveOptions { offline: true, ..ResolveOptions::default() }, ui);
            match pipeline::log(job, origin, &self.step, self.daemon.as_deref(), &at)? {
                Some(text) => ui.plan(&text),
                None => match &self.daemon {
                    Some(daemon) => ui.note(&format!("the daemon {daemon} of the step {} printed nothing", self.step)),
                    None => ui.note(&format!("the step {} printed nothing", self.step)),
                },
            }
            Ok(0)
        })
    }
}
