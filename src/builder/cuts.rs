//! The image as it was after one of the steps of a build, where a layer of its OCI image ends.

use super::Builder;
use super::chain::Chain;
use super::trees::{self, ShownFile, Trees};
use crate::base::error::{Context, Result};
use crate::fs::rootfs::Rootfs;
use crate::recipe::names_step;
use crate::store::Store;
use crate::store::trees::remove_tree;
use crate::store::work::WorkPaths;

/// The end of a layer of an OCI image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cut {
    /// The name in the recipe: a step or a group of steps.
    pub name: String,
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

impl Builder<'_> {
    /// Returns the cuts of the recipe in the order of the steps. A cut after the last step is left out: the image ends there.
    pub fn cuts(&self) -> Vec<Cut> {
        let names = self.parts.job.oci.iter().flat_map(|oci| &oci.cuts);
        cuts(names, &self.chain.keys().into_iter().map(|(step, _)| step).collect::<Vec<_>>())
    }

    /// Mounts the tree at a cut, with the configuration that the image is shipped with.
    ///
    /// # Errors
    /// [`Kind::System`](crate::base::error::Kind::System) if the kernel refuses a mount or a file cannot be written.
    pub fn cut(&self, cut: &Cut, store: &Store) -> Result<CutTree> {
        let chain = self.chain.lowest(cut.steps, store)?;
        let paths = WorkPaths::new(self.parts.work.paths().cuts().join(cut.steps.to_string()));
        fs_err::create_dir_all(paths.tree()).system(|| "making the mount point of a layer")?;
        let files: &[ShownFile] = if self.view.has_network() { &[trees::name_servers()] } else { &[] };
        let kind = self.parts.job.build.kind;
        let trees = Trees::shipped((self.parts.base, kind), &chain, &paths, &self.view, files)?;
        self.ship_in(trees.root())?;
        Ok(CutTree { trees, paths, _chain: chain })
    }
}

/// Finds the cuts `names` in the steps of a build.
fn cuts<'a>(names: impl Iterator<Item = &'a String>, steps: &[String]) -> Vec<Cut> {
    let cut = |name: &String| {
        let last = steps.iter().rposition(|step| names_step(name, step))?;
        Some(Cut { name: name.clone(), steps: last + 1 })
    };
    let mut cuts: Vec<Cut> = names.filter_map(cut).filter(|cut| cut.steps < steps.len()).collect();
    cuts.sort_by_key(|cut| cut.steps);
    // A group and its last step.
    cuts.dedup_by_key(|cut| cut.steps);
    cuts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cuts_follow_the_order_of_the_steps() {
        let owned = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        let steps = owned(&["start", "@configure", "@packages", "web/one", "web/two", "web", "webs", "end"]);
        let of = |names: &[&str]| {
            cuts(owned(names).iter(), &steps).into_iter().map(|cut| (cut.name, cut.steps)).collect::<Vec<_>>()
        };
        assert_eq!(of(&["web/one", "@packages"]), [("@packages".to_owned(), 3), ("web/one".to_owned(), 4)]);
        assert_eq!(of(&["web", "end"]), [("web".to_owned(), 6)], "the last step ends the image");
        assert_eq!(of(&["web", "webs"]).iter().map(|(_, steps)| *steps).collect::<Vec<_>>(), [6, 7]);
        assert_eq!(of(&[]), []);
    }
}
