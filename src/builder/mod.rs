//! The builder tree of one build: the base seen through overlays, with Portage's configuration in it, where emerge runs.
//!
//! This room knows what Portage needs to see ([`crate::portage`] has it as text) and where that lies in the store;
//! [`crate::enter`] knows how a command gets to see it.

mod accelerate;
pub mod base;
pub mod binhost;
pub mod elf;
pub mod export;
pub mod failed;
pub mod host;
pub mod metadata;
mod observe;
pub mod overlays;
pub mod packages;
mod prepare;
pub mod prepared;
pub mod query;
mod refused;
pub mod resolve;
pub mod trial;
mod warnings;

use std::time::SystemTime;

use crate::base::error::{Error, Result};
use crate::base::progress::Event;
use crate::enter::{self, Io, Terminal};
use crate::fs::rootfs::Rootfs;
use crate::os::process::Exit;
use crate::plan::view::{Caches, View};
use crate::plan::{Plan, misses};
use crate::portage::binhost::HostIndex;
use crate::portage::emerge::{self, Step};
use crate::portage::{self, BuilderInfo, Resolved, elog, failure, left, query as facts};
use crate::recipe::{Job, TreeKind};
use crate::source::Site;
use crate::source::binhost::BinhostInput;
use crate::store::work::{Work, WorkPaths};
use accelerate::Helpers;
use base::Base;
use binhost::FromHost;
use overlays::Tree;
use packages::Packages;
use prepare::Texts;
use query::{Answer, Query};

/// Exit code of a command that SIGKILL ended.
const KILLED: i32 = 128 + 9;

/// A builder tree, mounted and configured. Dropping it unmounts it; its changes stay in the work directory.
#[derive(Debug)]
pub struct Builder<'a> {
    job: &'a Job,
    resolved: &'a Resolved,
    work: &'a Work,
    view: View,
    tree: Tree,
    texts: Texts,
    helpers: Helpers,
}

impl<'a> Builder<'a> {
    /// Mounts and configures the builder tree of a build that has just begun in `work`.
    ///
    /// # Errors
    /// [`Kind::System`](crate::base::error::Kind::System) if the kernel refuses a mount, or a file cannot be written.
    pub fn new(job: &'a Job, resolved: &'a Resolved, base: &Base, plan: &'a Plan, work: &'a Work) -> Result<Self> {
        let tree = Tree::mount(&base.overlays(work.paths())?, work.paths(), &plan.view.targets())?;
        let helpers = Helpers::prepare(job, &plan.view, work.paths(), plan.info.cpus)?;
        let info = BuilderInfo { tools: helpers.tools.clone(), ..plan.info.clone() };
        let texts = prepare::Texts::new(job, resolved, tree.root(), work.paths(), &info)?;
        texts.write(tree.root(), work.paths())?;
        prepare::resolver(tree.root())?;
        Ok(Self { job, resolved, work, view: plan.view.clone(), tree, texts, helpers })
    }

    /// Finds the packages of the build, and offers it those of earlier builds. Run it once, before the first step.
    ///
    /// # Errors
    /// Those of [`Packages::new`] and [`Packages::offer`].
    pub fn packages(&mut self, base: &Base, info: &BuilderInfo, caches: &Caches) -> Result<Packages> {
        let work = self.work.paths();
        let place = packages::Place {
            job: self.job,
            resolved: self.resolved,
            base,
            info,
            caches,
            root: self.tree.root(),
            work,
            configuration: &self.texts.identity,
            fresh: true,
            ask: &|query| self.ask(query),
        };
        let packages = Packages::new(&place)?;
        packages.offer(work, &mut self.view)?;
        packages.record(work)?;
        Ok(packages)
    }

    /// Writes the indexes of the hosts, and the GnuPG home with which Portage verifies their packages.
    ///
    /// # Errors
    /// Those of [`binhost::add`].
    pub fn add_binhosts(&self, hosts: &[BinhostInput], info: &BuilderInfo) -> Result<Vec<HostIndex>> {
        let place = binhost::Place { view: &self.view, paths: self.work.paths(), root: self.tree.root() };
        binhost::add(place, hosts, info)
    }

    /// Compares the packages that came from hosts with the indexes, and verifies them. Returns the packages of each host.
    ///
    /// # Errors
    /// Those of [`binhost::check`].
    pub fn check_binhosts(&self, hosts: &[BinhostInput], indexes: &[HostIndex]) -> Result<Vec<Vec<FromHost>>> {
        binhost::check(self.tree.root(), hosts, indexes)
    }

    /// Runs one step. Its output goes to a file in the work directory, and to the user interface of `at`.
    ///
    /// # Errors
    /// [`Kind::Build`](crate::base::error::Kind::Build) with the package, the phase, the end of its log and the log's path.
    pub fn run(&self, step: &Step, at: &Site<'_>) -> Result<()> {
        if let Some(profile) = &step.profile {
            prepare::set_profile(self.tree.root(), profile)?;
        }
        let began = SystemTime::now();
        let paths = self.work.paths();
        self.check_helpers(step)?;
        let mut plan = self.view.plan(paths.tree(), step.argv.iter().map(Into::into).collect(), Terminal::None);
        plan.env.extend(step.env.clone());
        plan.left = Some(left::VARIABLES.map(str::to_owned).to_vec());
        let in_place = self.job.build.kind == TreeKind::Stage4;
        let mut observer = observe::Emerge::new(paths, in_place, at.ui)?;
        let exit = enter::run(&plan, Io::Observe(&mut observer))?;
        self.account(began, exit, at)?;
        if exit.success() {
            return Ok(());
        }
        if let Some(error) = portage::binhost::refusal(&String::from_utf8_lossy(&observer.tail())) {
            return Err(error);
        }
        let mut failure =
            failure::find(&paths.logs(), began, &observer.tail()).offline(at.options.offline).on(step.root);
        if let Some(package) = failure.packages.first() {
            self.work.record_failed(&package.cpv)?;
        }
        let refused = !observer.began_to_merge();
        refused::look_closer(|query| self.ask(query), &self.view, step, refused, &mut failure);
        let error = failure.into_error(&step.what, &self.job.portage.package_files);
        if exit.code() == KILLED && error.hint().is_none() {
            return Err(error.with_hint(
                "emerge was killed, perhaps because memory ran out: set a smaller emerge.jobs or a smaller MAKEOPTS",
            ));
        }
        Err(error)
    }

    /// Adds to the error of a step that may only use binary packages the reasons why none fits, as far as emerge can tell.
    pub fn explained(&self, error: Error, step: &Step) -> Error {
        let arguments = emerge::with_sources(&step.argv).into_iter().skip(1);
        let answer = self.ask(&resolve::query(arguments, step));
        let packages = match answer.and_then(|answer| facts::plan::read(&answer.stdout)) {
            Ok(packages) => packages,
            Err(why) => {
                tracing::debug!("the missing binary packages are not explained: {why}");
                return error;
            }
        };
        misses::explain(error, &resolve::misses(&packages, true, &self.view))
    }

    /// Asks the builder, with the configurations of the build. The command cannot write anything that lasts, apart from the builder
    /// tree, and has no network.
    ///
    /// # Errors
    /// Those of [`query::ask`].
    pub fn ask(&self, query: &Query) -> Result<Answer> {
        query::ask(&self.view.query(), self.work.paths().tree(), query)
    }

    /// Returns the root of the builder tree.
    pub fn root(&self) -> &Rootfs {
        self.tree.root()
    }

    /// Returns the paths of the work directory.
    pub fn work(&self) -> &WorkPaths {
        self.work.paths()
    }

    /// Checks that the builder has the helpers of the recipe. The step that updates the builder may bring them.
    fn check_helpers(&self, step: &Step) -> Result<()> {
        let unblocker = self.resolved.unblocker.as_ref().map(|profile| profile.make_profile("/"));
        if unblocker.is_some() && step.profile == unblocker {
            return Ok(());
        }
        accelerate::check(self.job, self.tree.root(), &self.view, self.work.paths())
    }

    /// Looks after a step that began at `began`: counts the jobs, and names packages that distcc did not distribute.
    fn account(&self, began: SystemTime, exit: Exit, at: &Site<'_>) -> Result<()> {
        if let Some(jobs) = &self.helpers.jobs
            && let Some(sentence) = jobs.recount()?
            && exit.success()
        {
            at.ui.warn(&sentence);
        }
        if !self.job.accelerate.distcc.is_empty() {
            let local = failure::mentioning(&self.work.paths().logs(), began, "running locally instead");
            if !local.is_empty() {
                at.ui.warn(&format!(
                    "distcc reached no host for a part of {}, which this machine compiled",
                    local.join(", ")
                ));
            }
        }
        Ok(())
    }

    /// Tells which helpers the build uses.
    pub fn announce(&self, at: &Site<'_>) {
        if let Some(sentence) = self.helpers.tools.without_jobserver(self.job) {
            at.ui.emit(Event::Output(&sentence));
        }
    }

    /// Tells how many compilations ccache saved.
    ///
    /// # Errors
    /// Those of [`query::ask`].
    pub fn tell_compilations(&self, at: &Site<'_>) -> Result<()> {
        let told = self.helpers.compilations(self.job, &self.view, self.work.paths())?;
        told.iter().for_each(|sentence| at.ui.note(sentence));
        Ok(())
    }

    /// Returns a warning if the builder has no compiler for the platform of the packages.
    ///
    /// # Errors
    /// [`Kind::System`](crate::base::error::Kind::System) if the tree cannot be read.
    pub fn compiler_warning(&self) -> Result<Option<String>> {
        let chost = self.job.portage.make_conf.get("CHOST").map(String::as_str).or(self.resolved.profile.chost());
        chost.map_or(Ok(None), |chost| warnings::compiler(self.tree.root(), chost))
    }

    /// Returns a warning if the programs of the finished `image` cannot start in it.
    ///
    /// # Errors
    /// Those of [`Builder::compiler_warning`].
    pub fn image_warning(&self, image: &Rootfs) -> Result<Option<String>> {
        if self.job.build.kind == TreeKind::Image { warnings::loader(image) } else { Ok(None) }
    }

    /// Opens the tree that is shipped.
    ///
    /// # Errors
    /// [`Kind::System`](crate::base::error::Kind::System) if it cannot be opened.
    pub fn image(&self) -> Result<Rootfs> {
        match self.job.build.kind {
            TreeKind::Image => Rootfs::open(&self.work.paths().image()),
            TreeKind::Stage4 => self.tree.root().try_clone(),
        }
    }

    /// Replaces the build's configuration in a stage4 by the one that it is shipped with. An image has none of the build's.
    ///
    /// # Errors
    /// [`Kind::System`](crate::base::error::Kind::System) if a file cannot be written.
    pub fn ship(&self) -> Result<()> {
        match self.job.build.kind {
            TreeKind::Image => Ok(()),
            TreeKind::Stage4 => prepare::ship(self.job, self.resolved, self.tree.root(), &self.texts.before),
        }
    }

    /// Returns the messages that packages left for their users, as a few lines.
    pub fn messages(&self) -> Vec<String> {
        elog::summary(&self.work.paths().logs())
    }

    /// Unmounts the builder tree.
    ///
    /// # Errors
    /// [`Kind::System`](crate::base::error::Kind::System) if the kernel refuses.
    pub fn unmount(self) -> Result<()> {
        self.tree.unmount()
    }
}
