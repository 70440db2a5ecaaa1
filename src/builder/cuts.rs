//! The image as it was after one of the steps of a build, where a layer of its OCI image ends.

use super::chain::Chain;
use super::trees::{self, ShownFile, Trees};
use super::{Builder, configure, prepare};
use crate::base::error::{Context, Result};
use crate::fs::rootfs::Rootfs;
use crate::portage::Resolved;
use crate::recipe::{Job, TreeKind, names_step};
use crate::store::Store;
use crate::store::trees::remove_tree;
use crate::store::work::WorkPaths;

/// An image that the one of a build starts from.
#[derive(Debug, Clone)]
pub struct LowerImage<'a> {
    /// Its recipe.
    pub job: &'a Job,
    /// Its repositories and profile.
    pub resolved: Resolved,
    /// The number of steps up to its last one, with those of the images that it starts from.
    pub steps: usize,
}

/// The end of a layer of an OCI image.
#[derive(Debug, Clone, Copy)]
pub struct Cut<'a> {
    /// The name in the recipe: a step or a group of steps. `None` for the end of a lower image.
    pub step: Option<&'a str>,
    /// The lower image whose rules the tree follows; `None` for the image of the build.
    pub image: Option<&'a LowerImage<'a>>,
    /// The number of steps before it.
    steps: usize,
}

/// The tree at a cut, mounted as it would be shipped, before anything is stripped. Changes are thrown away. Dropping it unmounts it.
#[derive(Debug)]
pub struct CutTree {
    trees: Trees,
    paths: WorkPaths,
    /// The layers that are mounted.
    _chain: Chain,
}

impl CutTree {
    /// The root of the tree.
    pub fn root(&self) -> &Rootfs {
        self.trees.root()
    }

    /// Unmounts the tree and removes its changes.
    ///
    /// # Errors
    /// [`Kind::System`](crate::base::error::Kind::System) if the kernel refuses.
    pub fn unmount(self) -> Result<()> {
        self.trees.unmount()?;
        remove_tree(self.paths.directory())
    }
}

impl<'a> Builder<'a> {
    /// Returns the ends of the layers of the OCI image, apart from the last one, in the order of the steps. Those of the images `lower`,
    /// the lowest first, come first if the recipe wants their layers.
    pub fn cuts(&self, lower: &'a [LowerImage<'a>]) -> Vec<Cut<'a>> {
        let steps: Vec<String> = self.chain.keys().into_iter().map(|(step, _)| step).collect();
        let mut cuts = Vec::new();
        // The layers of an image stand on those of the image that it starts from if both it and all images above it say so.
        let above: Vec<&Job> = lower.iter().map(|image| image.job).chain([self.parts.job]).skip(1).collect();
        let first = above.iter().rposition(|job| !is_on_parent(job)).map_or(0, |at| at + 1);
        for image in &lower[first..] {
            // A lower image is cut as its own build does it.
            let prefix = format!("{}:", image.job.path);
            let own: Vec<&str> =
                steps[..image.steps].iter().map(|step| step.strip_prefix(&prefix).unwrap_or("")).collect();
            cuts.extend(steps_of(image.job, &own).map(|(step, steps)| Cut {
                step: Some(step),
                image: Some(image),
                steps,
            }));
            cuts.push(Cut { step: None, image: Some(image), steps: image.steps });
        }
        let own: Vec<&str> = steps.iter().map(String::as_str).collect();
        cuts.extend(steps_of(self.parts.job, &own).map(|(step, steps)| Cut { step: Some(step), image: None, steps }));
        cuts
    }

    /// Mounts the tree at a cut, with the configuration that the image is shipped with.
    ///
    /// # Errors
    /// [`Kind::System`](crate::base::error::Kind::System) if the kernel refuses a mount or a file cannot be written.
    pub fn cut(&self, cut: &Cut<'_>, store: &Store) -> Result<CutTree> {
        let chain = self.chain.lowest(cut.steps, store)?;
        let paths = WorkPaths::new(self.parts.work.paths().cuts().join(cut.steps.to_string()));
        fs_err::create_dir_all(paths.tree()).system(|| "making the mount point of a layer")?;
        let files: &[ShownFile] = if self.view.has_network() { &[trees::name_servers()] } else { &[] };
        let kind = self.parts.job.build.kind;
        let trees = Trees::shipped((self.parts.base, kind), &chain, &paths, &self.view, files)?;
        match cut.image {
            None => self.ship_in(trees.root())?,
            Some(image) if kind == TreeKind::Stage4 => {
                let parts = (image.job, &image.resolved, self.parts.base, &self.parts.plan.info);
                let below = match self.chain.unconfigured(store)? {
                    Some(below) => below,
                    None => chain.lowest(0, store)?,
                };
                let texts = configure::texts_on(&below, parts, (self.parts.work.paths(), &self.view))?;
                prepare::ship(image.job, &image.resolved, trees.root(), &texts.before)?;
            }
            Some(_) => {}
        }
        Ok(CutTree { trees, paths, _chain: chain })
    }
}

/// Returns true if the layers of an image stand on those of the image that it starts from.
fn is_on_parent(job: &Job) -> bool {
    job.oci.as_ref().is_some_and(|oci| oci.on_parent)
}

/// Finds the cuts of the recipe `job` in the steps of a build: their names, and the numbers of steps before them. A cut after the last
/// step is left out: the image ends there.
fn steps_of<'a>(job: &'a Job, steps: &[&str]) -> impl Iterator<Item = (&'a str, usize)> + use<'a> {
    cuts(job.oci.iter().flat_map(|oci| &oci.cuts), steps).into_iter()
}

/// Finds the cuts `names` in the steps of a build.
fn cuts<'a>(names: impl Iterator<Item = &'a String>, steps: &[&str]) -> Vec<(&'a str, usize)> {
    let cut = |name: &'a String| {
        let last = steps.iter().rposition(|step| names_step(name, step))?;
        Some((name.as_str(), last + 1))
    };
    let mut cuts: Vec<(&str, usize)> = names.filter_map(cut).filter(|(_, count)| *count < steps.len()).collect();
    cuts.sort_by_key(|(_, count)| *count);
    // A group and its last step.
    cuts.dedup_by_key(|(_, count)| *count);
    cuts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cuts_follow_the_order_of_the_steps() {
        let steps = ["start", "@configure", "@packages", "web/one", "web/two", "web", "webs", "end"];
        let of = |names: &[&str]| {
            let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
            let cuts = cuts(names.iter(), &steps);
            cuts.into_iter().map(|(name, steps)| (name.to_owned(), steps)).collect::<Vec<_>>()
        };
        assert_eq!(of(&["web/one", "@packages"]), [("@packages".to_owned(), 3), ("web/one".to_owned(), 4)]);
        assert_eq!(of(&["web", "end"]), [("web".to_owned(), 6)], "the last step ends the image");
        assert_eq!(of(&["web", "webs"]).iter().map(|(_, steps)| *steps).collect::<Vec<_>>(), [6, 7]);
        assert_eq!(of(&[]), []);
    }
}
