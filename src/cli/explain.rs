//! `explain`: says why packages are built although there are binary packages, and which lines let emerge accept a recipe.

use std::path::Path;

use serde::Serialize;

use super::answers::AnswerArgs;
use super::look::LookArgs;
use super::session::{self, Session};
use super::{RecipeArgs, SecretArgs};
use crate::base::error::{Context as _, Error, Kind, Result};
use crate::pipeline;
use crate::plan::misses::Miss;
use crate::portage::failure::Fix;
use crate::recipe::{self, Job, NewLine};
use crate::source::Site;
use crate::ui::Terminal;

/// Explain why packages are built although there are binary packages, or why a step runs
///
/// With the name of a step, prints its state, its key and the inputs of the key by name, the difference to the last build, and the layer:
/// when, by which image and why it was made. Runs nothing and asks no server.
///
/// For each package that a build would compile, prints the wanted USE flags, CHOST and compiler flags, those of the nearest binary
/// package, and the differences. The compiler flags of a binary package are read from the package itself. With `emerge.binary-only`,
/// the packages that only other packages need while they are compiled are left out. Merges nothing.
///
/// With `--fix`, prints the text of the recipe with the lines added that let emerge accept its packages: keywords, USE flags, licences,
/// masks, properties and restrictions. Above each line, comments name the packages that need it. Lines that accept an untested package or
/// lift a mask have a warning. Comments and formatting stay, and the file is not changed. If a refusal is left that no line can lift, it
/// is reported, and the exit code is 1.
#[derive(Debug, clap::Args)]
#[command(after_long_help = "\
Examples:
  quern-builder explain demo.toml
  quern-builder explain demo.toml dev-lang/python
  quern-builder explain demo.toml @packages
  quern-builder explain demo.toml --json | jq '.misses[].differences'
  quern-builder explain --fix demo.toml > fixed.toml")]
pub struct Args {
    /// The recipe, or a directory with a quern.toml
    #[arg(value_name = "RECIPE", value_parser = super::recipe_path())]
    pub file: std::path::PathBuf,
    /// A step, or packages to explain, with their dependencies [default: the packages of the recipe]
    #[arg(value_name = "STEP|ATOM")]
    pub atoms: Vec<String>,
    /// Set a key of the recipe: portage.use='["ipv6"]'
    #[arg(long = "set", value_name = "KEY=VALUE", help_heading = "Recipe")]
    pub set: Vec<String>,
    /// The answers to the questions of the recipe.
    #[command(flatten)]
    pub answers: AnswerArgs,
    /// The secrets.
    #[command(flatten)]
    pub secrets: SecretArgs,
    /// Print the recipe with the lines that emerge asks for
    #[arg(long, conflicts_with_all = ["atoms", "json"])]
    pub fix: bool,
    /// The form of the answer, and the inputs.
    #[command(flatten)]
    pub look: LookArgs,
}

#[derive(Serialize)]
struct Document<T> {
    version: u32,
    misses: Vec<T>,
}

impl Args {
    pub(super) fn run(self, ui: &Terminal) -> Result<i32> {
        let secrets = self.secrets.known();
        let (files, set, answers) = (vec![self.file.clone()], self.set.clone(), self.answers.clone());
        let recipe = RecipeArgs { files, set, answers, secrets, shared: false };
        session::with(&recipe, &[], ui, |Session { job, origin, store }| {
            let locked = self.look.lock.entry(&recipe, job)?;
            let at = self.look.site(store, locked.as_ref(), ui);
            if self.fix {
                return fix(job, origin, &at, ui);
            }
            if let [name] = &self.atoms[..]
                && pipeline::is_step(job, name)
            {
                let step = pipeline::step(job, origin, name, &at)?;
                return self.look.print(&step.document(), || step.to_string(), ui);
            }
            let misses = pipeline::explain(job, origin, &self.atoms, &at)?;
            let document = Document { version: 1, misses: misses.iter().map(Miss::document).collect() };
            let text = || match misses.is_empty() {
                true => "every package is there as a binary package".to_owned(),
                false => misses.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"),
            };
            self.look.print(&document, text, ui)
        })
    }
}

/// Prints the recipe in the file `origin` with the lines that emerge asks for.
fn fix(job: &Job, origin: &Path, at: &Site<'_>, ui: &Terminal) -> Result<i32> {
    if origin.as_os_str() == "-" {
        return Err(Error::usage("printing a recipe on standard input with lines added")
            .with_hint("give the recipe as a file: standard input was read already"));
    }
    let text = fs_err::read_to_string(origin).context(Kind::Usage, || "reading the recipe")?;
    let found = pipeline::fixes(job, origin, at)?;
    let notes: Vec<Vec<String>> = found.lines.iter().map(Fix::notes).collect();
    let lines = found.lines.iter().zip(&notes);
    let lines = lines.map(|(fix, notes)| NewLine { file: fix.file, line: &fix.line, notes });
    let lines: Vec<NewLine<'_>> = lines.collect();
    ui.plan(recipe::with_lines(&text, &job.portage.package_files, &lines)?.trim_end());
    found.left.map_or(Ok(0), Err)
}
