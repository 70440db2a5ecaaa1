//! The trees of one build: the base and the layers over it, seen through overlays, and the steps that make the layers.
//!
//! This room knows what Portage needs to see ([`crate::portage`] has it as text) and where that lies in the store;
//! [`crate::enter`] knows how a command gets to see it.

mod accelerate;
pub mod base;
pub mod binhost;
pub mod chain;
mod configure;
pub mod cuts;
mod daemons;
pub mod elf;
pub mod export;
pub mod failed;
pub mod host;
pub mod installed;
mod layer;
mod leak;
pub mod look;
mod merge;
pub mod metadata;
mod observe;
pub mod overlays;
pub mod packages;
mod prepare;
pub mod prepared;
pub mod query;
pub mod reason;
mod refused;
pub mod resolve;
mod second;
pub mod steps;
mod trees;
pub mod trial;
pub mod volumes;
mod warnings;

pub use layer::{ALL_STEPS, Tally};

use std::cell::RefCell;

use crate::base::digest::Sha256;
use crate::base::error::{Error, Result};
use crate::fs::rootfs::Rootfs;
use crate::plan::Plan;
use crate::plan::nodes::Inputs;
use crate::plan::view::{Caches, View};
use crate::portage::binhost::HostIndex;
use crate::portage::{Resolved, elog};
use crate::recipe::{Job, TreeKind};
use crate::source::binhost::BinhostInput;
use crate::source::fetched::FetchInput;
use crate::source::inputs::RepositoryInput;
use crate::store::layers::KeptPackages;
use crate::store::work::{State, Work, WorkPaths};
use accelerate::Helpers;
use base::Base;
use binhost::FromHost;
use chain::Chain;
use merge::Merging;
use packages::Used;
use prepare::Texts;
use reason::Reasons;
use trees::{ShownFile, Trees};

/// The trees of a build: a base, and the layers that its steps make. Dropping it unmounts them.
#[derive(Debug)]
pub struct Builder<'a> {
    parts: BuildParts<'a>,
    view: View,
    chain: Chain,
    /// Portage's configuration, once it is written.
    texts: Option<Texts>,
    /// The inputs of every emerge command.
    portage: Inputs,
    helpers: Option<Helpers>,
    merging: Option<Merging>,
    /// The trees after the last step.
    finished: Option<Trees>,
    tally: Tally,
    /// The comparison with the last build.
    reasons: Reasons,
    options: StepOptions,
    /// True from the step on that runs again.
    again: bool,
    /// The content of what the last command merged.
    merged: Option<Sha256>,
    /// The binary packages of the last command in the store.
    kept: Option<KeptPackages>,
    /// The step that failed, and the package that made it fail.
    failed_step: Option<String>,
    failed_package: RefCell<Option<String>>,
}

/// The wishes of a user about the steps of a build.
#[derive(Debug, Clone, Default)]
pub struct StepOptions {
    /// The last step that runs. Nothing is published then.
    pub until: Option<String>,
    /// The first step that runs although the store has its layer; `all` for the first of all.
    pub again: Option<String>,
    /// Open a shell after each step, on the terminal of this process.
    pub interactive: bool,
    /// Open a shell in the trees of a step that fails, on the terminal of this process.
    pub shell_on_failure: bool,
}

/// The parts of a build.
#[derive(Debug, Clone, Copy)]
pub struct BuildParts<'a> {
    pub job: &'a Job,
    pub resolved: &'a Resolved,
    pub repositories: &'a [RepositoryInput],
    pub binhosts: &'a [BinhostInput],
    /// The downloads that steps name.
    pub fetched: &'a [FetchInput],
    pub base: &'a Base,
    pub plan: &'a Plan,
    pub caches: &'a Caches,
    pub work: &'a Work,
}

impl<'a> Builder<'a> {
    /// The trees of a build that has just begun, on the layers `below`.
    pub fn new(parts: BuildParts<'a>, below: Chain, options: StepOptions) -> Self {
        Self {
            parts,
            view: parts.plan.view.clone(),
            chain: below,
            texts: None,
            portage: Inputs::new(),
            helpers: None,
            merging: None,
            finished: None,
            tally: Tally::default(),
            reasons: Reasons::read(parts.work.paths(), &below_word(parts.job, parts.base)),
            options,
            again: false,
            merged: None,
            kept: None,
            failed_step: None,
            failed_package: RefCell::new(None),
        }
    }

    /// Mounts the trees after all steps. Changes are those of the build itself, which are not a layer.
    ///
    /// # Errors
    /// [`Kind::System`](crate::base::error::Kind::System) if the kernel refuses a mount.
    pub fn finish(&mut self) -> Result<()> {
        let trees = self.builder_trees(self.parts.work.paths(), &self.view)?;
        self.finished = Some(trees);
        Ok(())
    }

    /// Mounts the builder tree and the image, with the changes in `paths`.
    fn builder_trees(&self, paths: &WorkPaths, view: &View) -> Result<Trees> {
        let image = self.parts.job.build.kind == TreeKind::Image;
        let files: &[ShownFile] = if view.has_network() { &[trees::name_servers()] } else { &[] };
        Trees::builder(self.parts.base, &self.chain, None, image, paths, view, files)
    }

    /// Ends the build and returns its layers.
    pub fn into_chain(self) -> Chain {
        self.chain
    }

    /// Returns the layers so far.
    pub fn chain(&self) -> &Chain {
        &self.chain
    }

    /// Returns the name of the step that failed, if its trees were kept.
    pub fn failed_step(&self) -> Option<&str> {
        self.failed_step.as_deref()
    }

    /// Returns the names of the steps that the recipe leaves out.
    pub fn skipped(&self) -> &[String] {
        &self.parts.job.skipped
    }

    /// Returns the outcome of the steps.
    pub fn tally(&self) -> &Tally {
        &self.tally
    }

    /// Records in the work directory how far the build came.
    ///
    /// # Errors
    /// [`Kind::System`](crate::base::error::Kind::System) if the record cannot be written.
    pub fn record(&self, state: &mut State) -> Result<()> {
        self.reasons.write(self.parts.work.paths())?;
        state.failed_step.clone_from(&self.failed_step);
        state.failed = self.failed_package.borrow().clone();
        self.parts.work.record(state)
    }

    fn finished(&self) -> Result<&Trees> {
        self.finished.as_ref().ok_or_else(|| Error::system("the build has not ended"))
    }

    /// Compares the packages that came from hosts with the indexes, and verifies them. Returns the indexes, and the packages of each
    /// host.
    ///
    /// # Errors
    /// Those of [`binhost::check`].
    pub fn check_binhosts(&self) -> Result<(Vec<HostIndex>, Vec<Vec<FromHost>>)> {
        let indexes = binhost::indexes(self.parts.binhosts)?;
        let from_hosts = binhost::check(self.finished()?.root(), self.parts.binhosts, &indexes)?;
        Ok((indexes, from_hosts))
    }

    /// Returns the packages that the image consists of.
    ///
    /// # Errors
    /// Those of [`Packages::used`](packages::Packages::used).
    pub fn packages(&self) -> Result<Used> {
        let merging = self.merging.as_ref().ok_or_else(|| Error::build("the build merged no packages"))?;
        merging.packages.used(&self.image()?)
    }

    /// Returns a warning if the programs of the finished image cannot start in it.
    ///
    /// # Errors
    /// [`Kind::System`](crate::base::error::Kind::System) if the tree cannot be read.
    pub fn image_warning(&self) -> Result<Option<String>> {
        match self.finished()?.image() {
            Some(image) => warnings::loader(image),
            None => Ok(None),
        }
    }

    /// Opens the tree that is shipped.
    ///
    /// # Errors
    /// [`Kind::System`](crate::base::error::Kind::System) if it cannot be opened.
    pub fn image(&self) -> Result<Rootfs> {
        let trees = self.finished()?;
        trees.image().unwrap_or(trees.root()).try_clone()
    }

    /// Replaces the build's configuration in a stage4 by the one that it is shipped with. An image has none of the build's.
    ///
    /// # Errors
    /// [`Kind::System`](crate::base::error::Kind::System) if a file cannot be written.
    pub fn ship(&self) -> Result<()> {
        self.ship_in(self.finished()?.root())
    }

    /// Does the same as [`Builder::ship`] in the tree `root`.
    fn ship_in(&self, root: &Rootfs) -> Result<()> {
        match (self.parts.job.build.kind, &self.texts) {
            (TreeKind::Stage4, Some(texts)) => prepare::ship(self.parts.job, self.parts.resolved, root, &texts.before),
            (TreeKind::Stage4 | TreeKind::Image, _) => Ok(()),
        }
    }

    /// Returns the messages that packages left for their users, as a few lines.
    pub fn messages(&self) -> Vec<String> {
        elog::summary(&self.parts.work.paths().logs())
    }

    /// Unmounts the trees.
    ///
    /// # Errors
    /// [`Kind::System`](crate::base::error::Kind::System) if the kernel refuses.
    pub fn unmount(&mut self) -> Result<()> {
        self.finished.take().map_or(Ok(()), Trees::unmount)
    }
}

/// Names the state that the steps of a recipe start from.
fn below_word(job: &Job, base: &Base) -> String {
    job.from.as_ref().map_or_else(|| base.word().to_owned(), |parent| format!("the image {}", parent.job.path))
}
