//! The layers of an OCI image that is cut after steps. Each is the difference between two published trees, so no layer has a file that
//! is stripped, and the layers do not depend on those of the store.

use crate::archive::pack::{self, Options, Tree};
use crate::archive::unpack::Deferred;
use crate::base::error::Result;
use crate::base::progress::{Event, Progress, Silent};
use crate::builder::Builder;
use crate::builder::cuts::{Cut, CutTree, LowerImage};
use crate::fs::rootfs::Rootfs;
use crate::output::{self, StagedLayer, Staging};
use crate::source::Site;
use crate::strip::{self, Rule};

/// The parts of a build that its layers depend on.
pub(super) struct Layers<'a> {
    pub(super) builder: &'a Builder<'a>,
    /// The images that the image starts from, the lowest first.
    pub(super) lower: &'a [LowerImage<'a>],
    pub(super) strip: &'a [Rule],
    /// The nodes that the kernel refused to make in the base.
    pub(super) deferred: &'a Deferred,
    pub(super) packing: &'a Options,
    pub(super) staging: &'a Staging,
    pub(super) at: &'a Site<'a>,
}

impl Layers<'_> {
    /// Packs the layers of the finished tree `image`, lowest first; none if its tarball is the only layer.
    ///
    /// # Errors
    /// Those of the trees, of [`pack::difference`] and of [`pack::pack`].
    pub(super) fn pack(&self, image: Tree<'_>) -> Result<Vec<StagedLayer>> {
        let cuts = self.builder.cuts(self.lower);
        if cuts.is_empty() {
            return Ok(Vec::new());
        }
        let mut layers = Vec::new();
        let mut below: Option<(CutTree, Deferred)> = None;
        for cut in &cuts {
            let tree = self.builder.cut(cut, self.at.store)?;
            let (rules, packing) = self.rules(cut);
            // The finished tree has reported missing paths.
            strip::apply(tree.root(), &rules, &Silent)?;
            let mut deferred = self.deferred.clone();
            strip::forget(tree.root(), &rules, &mut deferred)?;
            let name = cut.step.or(cut.image.map(|image| image.job.path.as_str()));
            layers.push(self.layer(below.as_ref(), whole(tree.root(), &deferred), (name, layers.len(), &packing))?);
            below.replace((tree, deferred)).map_or(Ok(()), |(tree, _)| tree.unmount())?;
        }
        layers.push(self.layer(below.as_ref(), image, (None, layers.len(), self.packing))?);
        below.map_or(Ok(()), |(tree, _)| tree.unmount())?;
        Ok(layers)
    }

    /// Returns the strip rules of the image of a cut, and the options of packing it. A layer of a lower image is the one that the build
    /// of that image makes.
    fn rules(&self, cut: &Cut<'_>) -> (Vec<Rule>, Options) {
        let Some(LowerImage { job, .. }) = cut.image else { return (self.strip.to_vec(), self.packing.clone()) };
        let rules = strip::rules(&job.strip, job.build.kind, job.portage.with_kits());
        let (format, level) = output::tarball::format(job);
        ([rules, strip::split_rules(job)].concat(), Options { format, level, ..self.packing.clone() })
    }

    /// Packs the difference between two trees.
    fn layer(
        &self,
        below: Option<&(CutTree, Deferred)>,
        tree: Tree<'_>,
        (end, number, packing): (Option<&str>, usize, &Options),
    ) -> Result<StagedLayer> {
        let named = end.unwrap_or("the last step");
        self.at.ui.stage(&format!("packing the layer of {named}"));
        let difference =
            |(below, deferred): &(CutTree, Deferred)| pack::difference(whole(below.root(), deferred), tree, packing);
        let part = below.map(difference).transpose()?;
        let tree = Tree { part: part.as_ref(), ..tree };
        let layer = StagedLayer::make(self.staging, number, end, |file| {
            pack::pack(tree, pack::Outputs::archive(file), packing, &Bytes(self.at.ui))
        })?;
        self.at.ui.done();
        Ok(layer)
    }
}

fn whole<'a>(root: &'a Rootfs, deferred: &'a Deferred) -> Tree<'a> {
    Tree { root, deferred, part: None }
}

/// Passes on the progress of packing. The tarball reports what archives leave out.
struct Bytes<'a>(&'a dyn Progress);

impl Progress for Bytes<'_> {
    fn emit(&self, event: Event<'_>) {
        if let Event::Bytes { .. } = event {
            self.0.emit(event);
        }
    }
}
