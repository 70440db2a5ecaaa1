//! A step of a recipe, run in the image or in the builder tree.

mod files;
mod identity;
mod inputs;
mod mounts;
mod place;
mod script;
mod secrets;
mod settings;

pub(super) use inputs::{inputs, uses};
pub(super) use mounts::Use;
pub use place::StepPlace;
use script::Command;
pub(super) use secrets::scan;

use std::path::PathBuf;

use super::Builder;
use super::packages::Shown;
use super::trees::Trees;
use crate::base::error::{Error, Result};
use crate::enter::Terminal;
use crate::fs::rootfs::Rootfs;
use crate::plan::status::Why;
use crate::recipe::{Action, Step, StepRoot};
use crate::source::Site;
use crate::store::work::WorkPaths;

/// The shell of a look at the trees of a step.
pub const SHELL: &str = "/bin/sh";

impl Builder<'_> {
    /// Runs a step whose changes go to `paths`.
    ///
    /// # Errors
    /// [`Kind::Build`](crate::base::error::Kind::Build) if it fails, with the end of its output.
    pub(super) fn run_step(&mut self, step: &Step, why: &Why, paths: &WorkPaths, at: &Site<'_>) -> Result<()> {
        let what = if matches!(step.action, Action::Settings(_)) {
            "writing the settings".to_owned()
        } else {
            format!("running the step {}", step.name)
        };
        at.ui.stage(&why.after(&what));
        let names_packages = step.caches.iter().any(|cache| cache.name == "binpkgs");
        let shown = if names_packages { Some(self.shown_packages(at)?) } else { None };
        let place = StepPlace { packages: shown.as_ref().map(Shown::path), ..self.step_place(at) };
        let waiting = |cache: &str| at.ui.note(&format!("waiting for another build that uses the cache {cache}"));
        let (view, kept) = place.view(step, Use::Change, &waiting)?;
        let trees = place.trees(step, paths, &view, None)?;
        kept.prepare(trees.root())?;
        let root = self.changed_tree(step, &trees);
        let within = |error: Error| error.within(&what);
        match &step.action {
            Action::Run(script) => {
                self.run_script(step, script, &Command { trees: &trees, paths, view: &view }, at)?;
            }
            Action::Copy(copies) => copies.iter().try_for_each(|copy| files::copy(root, copy)).map_err(within)?,
            Action::Write(texts) => texts.iter().try_for_each(|text| files::write(root, text)).map_err(within)?,
            Action::Delete(paths) => files::delete(root, paths, at.ui).map_err(within)?,
            Action::Settings(system) => {
                let command = Command { trees: &trees, paths, view: &view };
                self.write_settings(step, system, (root, &command), at).map_err(within)?;
            }
            Action::Emerge(_) | Action::Unmerge(_) | Action::Depclean | Action::Rebuild(_) => {
                return Err(Error::system(format!("the step {} is not an emerge command", step.name)));
            }
        }
        check_made(step, root, &trees)?;
        at.ui.done();
        trees.unmount()
    }

    /// Opens a shell in the trees after the step `name`, and throws its changes away. Its exit code does not matter: it is that of the last
    /// command.
    ///
    /// # Errors
    /// Those of [`StepPlace::shell`].
    pub(super) fn shell_after(&self, name: &str, at: &Site<'_>) -> Result<()> {
        at.ui.note(&format!("a shell after the step {name}; `exit` ends it, and its changes are thrown away"));
        let scratch = self.parts.work.scratch()?;
        let place = StepPlace { work: scratch.paths(), ..self.step_place(at) };
        place.shell(name, &scratch, None, (vec![SHELL.into()], Terminal::Foreground), at.ui).map(drop)
    }

    /// The surroundings of the steps.
    pub(super) fn step_place<'s>(&'s self, at: &Site<'s>) -> StepPlace<'s> {
        let parts = self.parts;
        StepPlace {
            job: parts.job,
            base: parts.base,
            chain: &self.chain,
            work: parts.work.paths(),
            epoch: parts.plan.epoch,
            fetched: parts.fetched,
            packages: self.merging.as_ref().and_then(|merging| merging.packages.directory()),
            offline: at.options.offline,
            store: at.store,
        }
    }

    /// The tree whose files a step names by their paths.
    pub(super) fn changed_tree<'t>(&self, step: &Step, trees: &'t Trees) -> &'t Rootfs {
        match step.root {
            StepRoot::Image => trees.image().unwrap_or(trees.root()),
            StepRoot::Builder => trees.root(),
        }
    }
}

/// Checks that a step has made the paths that it must make. `root` is the tree that it changed, one of `trees`.
///
/// # Errors
/// [`Kind::Build`](crate::base::error::Kind::Build) if one is missing.
pub(super) fn check_made(step: &Step, root: &Rootfs, trees: &Trees) -> Result<()> {
    let is_there = |path: &PathBuf| {
        let (root, path) = trees.volumes().holding(path).unwrap_or((root, path));
        root.stat(path).is_ok_and(|stat| stat.is_some())
    };
    match step.creates.iter().find(|path| !is_there(path)) {
        Some(path) => Err(Error::build(format!("the step {} did not make {}", step.name, path.display()))
            .with_hint("`creates` of the step names the paths that it must make")),
        None => Ok(()),
    }
}
