//! A step of a recipe, run in the image or in the builder tree.

mod files;
mod identity;
mod inputs;
mod script;

pub(super) use inputs::inputs;

use super::Builder;
use super::trees::{self, Trees};
use crate::base::error::{Error, Result};
use crate::fs::rootfs::Rootfs;
use crate::plan::view::View;
use crate::recipe::{Action, Step, StepRoot, TreeKind};
use crate::source::Site;
use crate::store::work::WorkPaths;

impl Builder<'_> {
    /// Runs a step whose changes go to `paths`.
    ///
    /// # Errors
    /// [`Kind::Build`](crate::base::error::Kind::Build) if it fails, with the end of its output.
    pub(super) fn run_step(&mut self, step: &Step, paths: &WorkPaths, at: &Site<'_>) -> Result<()> {
        at.ui.stage(&format!("running the step {}", step.name));
        let view = self.step_view(step, at)?;
        let trees = self.step_trees(step, paths, &view)?;
        let root = self.changed_tree(step, &trees);
        match &step.action {
            Action::Run(script) => self.run_script(step, script, &trees, (paths, &view), at)?,
            Action::Copy(copies) => copies.iter().try_for_each(|copy| files::copy(root, copy))?,
            Action::Write(texts) => texts.iter().try_for_each(|text| files::write(root, text))?,
            Action::Delete(paths) => files::delete(root, paths, at.ui)?,
            Action::Emerge(_) | Action::Unmerge(_) | Action::Depclean | Action::Rebuild(_) => {
                return Err(Error::system(format!("the step {} is not an emerge command", step.name)));
            }
        }
        let missing = step.creates.iter().find(|path| root.stat(path).is_ok_and(|stat| stat.is_none()));
        if let Some(path) = missing {
            return Err(Error::build(format!("the step {} did not make {}", step.name, path.display()))
                .with_hint("`creates` of the step names the paths that it must make"));
        }
        at.ui.done();
        trees.unmount()
    }

    /// Mounts the trees that a step sees.
    fn step_trees(&self, step: &Step, paths: &WorkPaths, view: &View) -> Result<Trees> {
        if self.in_image(step) {
            let files = if view.has_network() { vec![trees::name_servers()] } else { Vec::new() };
            Trees::image_alone(&self.chain, paths, view, &files)
        } else {
            self.builder_trees(paths, view)
        }
    }

    /// Returns true if the image is a tree of its own, and the root of the step.
    fn in_image(&self, step: &Step) -> bool {
        self.parts.job.build.kind == TreeKind::Image && step.root == StepRoot::Image
    }

    /// The tree whose files a step names by their paths.
    fn changed_tree<'t>(&self, step: &Step, trees: &'t Trees) -> &'t Rootfs {
        match step.root {
            StepRoot::Image => trees.image().unwrap_or(trees.root()),
            StepRoot::Builder => trees.root(),
        }
    }
}
