//! The search for values of secrets in the changes of a step.

use std::path::PathBuf;

use super::{Builder, steps};
use crate::archive::leak::{Found, SHORTEST};
use crate::base::error::{Context, Error, Result};
use crate::fs::rootfs::Rootfs;
use crate::plan::nodes::{Action, Node};
use crate::recipe::Step;
use crate::source::Site;
use crate::store::trees::remove_tree;
use crate::store::work::WorkPaths;

/// The shortest value of a secret that is looked for in a whole image, in bytes. Words are in many packages.
const IN_IMAGE: usize = 16;

impl Builder<'_> {
    /// Refuses values of secrets in the finished image. A package or the layer of an older build may have one.
    ///
    /// # Errors
    /// Those of [`Builder::check_secrets`].
    pub fn check_image_secrets(&self, image: &Rootfs, at: &Site<'_>) -> Result<()> {
        let steps = self.parts.job.all_steps();
        let Some(scan) = steps::scan(&steps, steps.iter().copied(), IN_IMAGE) else { return Ok(()) };
        at.ui.stage("searching the image for secrets");
        match scan.find(image)? {
            Some(found) => Err(leaked("the image has", &found)),
            None => {
                at.ui.done();
                Ok(())
            }
        }
    }

    /// Refuses values of secrets in the changes of a step, which are in `paths`.
    ///
    /// # Errors
    /// [`Kind::Build`](crate::base::error::Kind::Build) with the path and the name of the secret,
    /// [`Kind::System`](crate::base::error::Kind::System) if a file cannot be read.
    pub(super) fn check_secrets(&self, node: &Node, paths: &WorkPaths) -> Result<()> {
        match self.leak(node, paths)? {
            Some(found) => Err(leaked(&format!("the step {} left", node.name), &found)),
            None => Ok(()),
        }
    }

    /// Removes the changes of a failed step if they have values of secrets, or may have one that is too short to be looked for. Its output
    /// stays.
    ///
    /// # Errors
    /// [`Kind::System`](crate::base::error::Kind::System) if they cannot be removed.
    pub(super) fn remove_secrets(&self, node: &Node, paths: &WorkPaths, at: &Site<'_>) -> Result<()> {
        let Action::Step(step) = &node.action else { return Ok(()) };
        let short = step.secrets.iter().find(|secret| !secret.value.is_searched() && !step.leak_allowed);
        let why = match (self.leak(node, paths), short) {
            (Ok(Some(Found { path, secret })), _) => format!("they have the secret {secret} in {path}"),
            (Err(error), _) => error.to_string(),
            (Ok(None), Some(secret)) => format!("the secret {} is too short to look for", secret.name),
            (Ok(None), None) => return Ok(()),
        };
        uppers(paths)?.iter().try_for_each(|upper| remove_tree(upper))?;
        at.ui.note(&format!("the changes of the step {} are not kept: {why}", node.name));
        Ok(())
    }

    /// Looks for values of secrets in the changes of a step of the recipe.
    fn leak(&self, node: &Node, paths: &WorkPaths) -> Result<Option<Found>> {
        let Action::Step(own) = &node.action else { return Ok(None) };
        let before = self.parts.plan.nodes.iter().take_while(|other| other.name != node.name);
        let before = before.filter_map(|other| match &other.action {
            Action::Step(step) => Some::<&Step>(step),
            _ => None,
        });
        let parents = self.parts.job.from.as_ref().map(|parent| parent.job.all_steps()).unwrap_or_default();
        let done = parents.into_iter().chain(before).chain([&**own]);
        // Also for a step without secrets: an earlier one may have hidden a value from the search.
        let Some(scan) = steps::scan(&self.parts.job.all_steps(), done, SHORTEST) else { return Ok(None) };
        for upper in uppers(paths)? {
            if let Some(found) = scan.find(&Rootfs::open(&upper)?)? {
                return Ok(Some(found));
            }
        }
        Ok(None)
    }
}

/// Returns the error about a value. `whose` begins the sentence.
fn leaked(whose: &str, Found { path, secret }: &Found) -> Error {
    let error = Error::build(format!("{whose} the secret {secret} in {path}"));
    error.with_hint(
        "leak = \"allow\" in the step accepts it; a step that only uses a secret removes such a file at its end",
    )
}

/// Returns the upper directories that exist in `paths`.
fn uppers(paths: &WorkPaths) -> Result<Vec<PathBuf>> {
    let listing = || "listing the changes of a step";
    let mut uppers = Vec::new();
    if paths.upper().exists() {
        uppers.push(paths.upper());
    }
    if paths.uppers().exists() {
        for entry in fs_err::read_dir(paths.uppers()).system(listing)? {
            uppers.push(entry.system(listing)?.path());
        }
    }
    Ok(uppers)
}
