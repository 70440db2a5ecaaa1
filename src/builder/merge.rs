//! A step that runs emerge in the builder tree.

use std::time::SystemTime;

use super::daemons::{self, Daemons};
use super::metadata::{self, Metadata};
use super::packages::{self, Packages, Shown};
use super::query::{self, Answer, Query};
use super::steps::{self, Use};
use super::trees::Trees;
use super::volumes::Volumes;
use super::{Builder, accelerate, binhost, observe, prepare, refused, resolve};
use crate::base::error::{Error, Result};
use crate::base::progress::Event;
use crate::base::text::plain;
use crate::enter::{self, Io, Terminal};
use crate::os::process::Exit;
use crate::plan::misses;
use crate::plan::status::Why;
use crate::portage::emerge::{self, Step};
use crate::portage::{self, failure, left, query as facts};
use crate::recipe::{self, Action, TreeKind};
use crate::source::Site;
use crate::store::trees::remove_tree;
use crate::store::work::WorkPaths;

/// Exit code of a command that SIGKILL ended.
const KILLED: i32 = 128 + 9;

/// The state that the emerge commands of a build share. A build whose layers are all in the store does not make it.
#[derive(Debug)]
pub(super) struct Merging {
    pub(super) packages: Packages,
    pub(super) metadata: Option<Metadata>,
}

/// An emerge command, and the step that it belongs to, with its mounts and daemons.
pub(super) type Command<'a> = (&'a Step, Option<&'a recipe::Step>);

/// A step that runs, and its trees.
struct Run<'a> {
    step: &'a Step,
    own: Option<&'a recipe::Step>,
    trees: &'a Trees,
    paths: &'a WorkPaths,
    at: &'a Site<'a>,
}

impl Builder<'_> {
    /// Runs an emerge command, whose changes go to `paths`. Its output goes to a file in the work directory, and to the user interface of
    /// `at`. The packages that it made are kept, also if it fails.
    ///
    /// # Errors
    /// [`Kind::Build`](crate::base::error::Kind::Build) with the package, the phase, the end of its log and the log's path.
    pub(super) fn merge(&mut self, command: Command<'_>, why: &Why, paths: &WorkPaths, at: &Site<'_>) -> Result<()> {
        self.begin_merging(at)?;
        let (step, own) = command;
        self.in_trees_of((own, Use::Change), paths, at, |builder, trees| {
            at.ui.stage(&why.after(&step.what));
            builder.merge_in(&Run { step, own, trees, paths, at })?;
            at.ui.done();
            Ok(())
        })
    }

    /// Mounts the builder tree and the image with the mounts of the step `own`, and calls `look` with them. Changes go to `paths`.
    ///
    /// # Errors
    /// [`Kind::System`](crate::base::error::Kind::System) if the kernel refuses a mount, and those of the mounts and of `look`.
    pub(super) fn in_trees_of<T>(
        &mut self,
        (own, purpose): (Option<&recipe::Step>, Use),
        paths: &WorkPaths,
        at: &Site<'_>,
        look: impl FnOnce(&mut Self, &Trees) -> Result<T>,
    ) -> Result<T> {
        let waiting = |cache: &str| at.ui.note(&format!("waiting for another build that uses the cache {cache}"));
        let mounts = own.map(|own| self.step_place(at).mounts(own, purpose, &waiting)).transpose()?;
        let (mut view, mut kept) = (self.view.clone(), None);
        if let (Some(own), Some((mounts, caches))) = (own, mounts) {
            view = view.for_step(own, mounts);
            kept = Some(caches);
        }
        let of_build = std::mem::replace(&mut self.view, view);
        let looked = self.builder_trees(paths, &self.view).and_then(|trees| {
            let volumes = own.map_or(&[][..], |own| &own.volumes);
            let trees = trees.with(Volumes::mount(volumes, &self.chain, None, paths)?);
            // The caches stay locked until the end.
            kept.as_ref().map_or(Ok(()), |kept| kept.prepare(trees.root()))?;
            let looked = look(self, &trees)?;
            trees.unmount()?;
            Ok(looked)
        });
        self.view = of_build;
        looked
    }

    fn merge_in(&mut self, run: &Run<'_>) -> Result<()> {
        let Run { step, own, trees, paths, at } = *run;
        let restored = self.merging.iter().filter_map(|merging| merging.metadata.as_ref());
        restored.clone().try_for_each(|metadata| metadata.restore(trees.root()))?;
        let done = self.emerge(run);
        restored.for_each(|metadata| metadata.keep(trees.root(), at.ui));
        let kept = self.keep_packages(at);
        if let Err(error) = done {
            if let Err(other) = kept {
                at.ui.warn(&format!("the packages of this step are lost: {other}"));
            }
            let binary_only = self.parts.job.emerge.binary_only;
            return Err(if binary_only { self.explained(error, step) } else { error });
        }
        kept?;
        own.map_or(Ok(()), |own| steps::check_made(own, self.changed_tree(own, trees), trees))?;
        self.merged = self.merged_content(step, trees, paths)?;
        self.kept = self.kept_packages(step, trees, paths)?;
        metadata::remove(trees.root())
    }

    /// Prepares what all emerge commands need, before the first one.
    pub(super) fn begin_merging(&mut self, at: &Site<'_>) -> Result<()> {
        if self.merging.is_some() {
            return Ok(());
        }
        let parts = self.parts;
        let (work, info) = (parts.work.paths(), &parts.plan.info);
        let paths = work.on(&work.questions());
        let trees = self.builder_trees(&paths, &self.view)?;
        if let Some(sentence) = self.helpers.as_ref().and_then(|helpers| helpers.tools.without_jobserver(parts.job)) {
            at.ui.emit(Event::Output(&sentence));
        }
        let metadata = Metadata::of(&parts.resolved.repos, parts.repositories, info, at.store)?;
        let place = binhost::Place { view: &self.view, paths: work, root: trees.root() };
        binhost::add(place, parts.binhosts, info)?;
        let place = packages::Place {
            job: parts.job,
            resolved: parts.resolved,
            base: parts.base,
            info,
            caches: parts.caches,
            root: trees.root(),
            work,
            configuration: self.texts.as_ref().map_or("", |texts| &texts.identity),
            // Only the configuration was written so far.
            fresh: self.chain.keys().len() == 1,
            ask: &|query| self.ask(query),
        };
        let packages = Packages::new(&place)?;
        packages.offer(work, &mut self.view)?;
        packages.record(work)?;
        trees.unmount()?;
        remove_tree(&work.questions())?;
        self.merging = Some(Merging { packages, metadata });
        Ok(())
    }

    /// Shows the packages of the image's key. Asks Portage for the key, unless a command of emerge has run.
    ///
    /// # Errors
    /// Those of the key, and [`Kind::System`](crate::base::error::Kind::System) if the kernel refuses a mount.
    pub(super) fn shown_packages(&mut self, at: &Site<'_>) -> Result<Shown> {
        self.begin_merging(at)?;
        let merging = self.merging.as_ref().ok_or_else(|| Error::system("the packages of the build are not known"))?;
        merging.packages.shown(self.parts.work.paths())
    }

    /// Ends the emerge commands of a build.
    ///
    /// # Errors
    /// [`Kind::System`](crate::base::error::Kind::System) if the record of the packages cannot be written.
    pub fn end_merging(&mut self) -> Result<()> {
        let work = self.parts.work.paths();
        self.merging.as_mut().map_or(Ok(()), |merging| merging.packages.done(work))
    }

    /// Tells how many compilations ccache saved. The trees are mounted.
    ///
    /// # Errors
    /// Those of [`query::ask`].
    pub fn tell_compilations(&self, at: &Site<'_>) -> Result<()> {
        let (Some(_), Some(helpers)) = (&self.merging, &self.helpers) else { return Ok(()) };
        let told = helpers.compilations(self.parts.job, &self.view, self.parts.work.paths())?;
        told.iter().for_each(|sentence| at.ui.note(sentence));
        Ok(())
    }

    fn keep_packages(&mut self, at: &Site<'_>) -> Result<()> {
        let work = self.parts.work.paths();
        self.merging.as_mut().map_or(Ok(()), |merging| merging.packages.keep(work, at.ui))
    }

    /// Asks the builder, with the configurations of the build. The command cannot write anything that lasts, apart from the mounted
    /// builder tree, and has no network.
    pub(super) fn ask(&self, query: &Query) -> Result<Answer> {
        query::ask(&self.view.query(), self.parts.work.paths().tree(), query)
    }

    fn emerge(&self, run: &Run<'_>) -> Result<()> {
        let Run { step, own, trees, paths, at } = *run;
        if let Some(profile) = &step.profile {
            prepare::set_profile(trees.root(), profile)?;
        }
        let began = SystemTime::now();
        self.check_helpers(run)?;
        let mut plan = self.view.plan(paths.tree(), step.argv.iter().map(Into::into).collect(), Terminal::None);
        plan.env.extend(step.env.clone());
        plan.left = Some(left::VARIABLES.map(str::to_owned).to_vec());
        plan.limit = own.and_then(|own| own.timeout);
        let list = own.map_or(&[][..], |own| &own.daemons);
        plan.daemons = daemons::plans(list, true);
        let in_place = self.parts.job.build.kind == TreeKind::Stage4;
        let daemons = Daemons::new(&step.name, list, &[], paths)?;
        let mut observer = observe::Emerge::new(paths, in_place, daemons, at.ui)?;
        let exit = enter::run(&plan, Io::Observe(&mut observer))?;
        self.account(began, exit, at)?;
        if let Some(error) = observer.daemons.error() {
            return Err(error);
        }
        if let Some(seconds) = plan.limit.filter(|_| observer.timed_out) {
            return Err(Error::build(format!("the step {} timed out after {seconds} s", step.name)));
        }
        if exit.success() {
            return if step.is_depclean() { self.check_wanted(step) } else { Ok(()) };
        }
        if let Some(error) = portage::binhost::refusal(&String::from_utf8_lossy(&observer.tail())) {
            return Err(error);
        }
        let mut failure =
            failure::find(&paths.logs(), began, &observer.tail()).offline(at.options.offline).on(step.root);
        if let Some(package) = failure.packages.first() {
            self.failed_package.replace(Some(package.cpv.clone()));
        }
        let refused = !observer.began_to_merge();
        refused::look_closer(|query| self.ask(query), &self.view, step, refused, &mut failure);
        let error = failure.into_error(&step.what, &self.parts.job.portage.package_files);
        if exit.code() == KILLED && error.hint().is_none() {
            return Err(error.with_hint(
                "emerge was killed, perhaps because memory ran out: set a smaller emerge.jobs or a smaller MAKEOPTS",
            ));
        }
        Err(error)
    }

    /// Checks that the tree still has the packages that the recipe merges and does not unmerge.
    fn check_wanted(&self, step: &Step) -> Result<()> {
        let job = self.parts.job;
        let wanted = job.emerge.packages.iter().chain(&job.build.baselayout_atoms);
        let wanted = wanted.filter(|atom| !atom.starts_with('@')).cloned();
        let unmerged = job.steps.iter().filter_map(|step| match &step.action {
            Action::Unmerge(atoms) => Some(atoms.iter().cloned()),
            _ => None,
        });
        let wanted = wanted.chain(["--".to_owned()]).chain(unmerged.flatten());
        let words = ["python3", "-c", facts::missing::PROGRAM].map(str::to_owned);
        let query = Query { env: step.env.clone(), ..Query::new(words.into_iter().chain(wanted)) };
        let answer = self.ask(&query)?;
        let missing = String::from_utf8_lossy(&answer.stdout).lines().map(|line| plain(line, 200)).collect::<Vec<_>>();
        if answer.exit.success() && missing.is_empty() {
            return Ok(());
        }
        let error = Error::build(format!("{}: it would remove packages that the recipe merges", step.what));
        Err(error
            .with_details(missing.join("\n"))
            .with_hint("emerge keeps what it has recorded as wanted: remove the option oneshot from emerge.options"))
    }

    /// Adds to the error of a step that may only use binary packages the reasons why none fits, as far as emerge can tell.
    fn explained(&self, error: Error, step: &Step) -> Error {
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

    /// Checks that the builder has the helpers of the recipe. The step that updates the builder may bring them.
    fn check_helpers(&self, run: &Run<'_>) -> Result<()> {
        let unblocker = self.parts.resolved.unblocker.as_ref().map(|profile| profile.make_profile("/"));
        if unblocker.is_some() && run.step.profile == unblocker {
            return Ok(());
        }
        accelerate::check(self.parts.job, run.trees.root(), &self.view, run.paths)
    }

    /// Looks after a step that began at `began`: counts the jobs, and names packages that distcc did not distribute.
    fn account(&self, began: SystemTime, exit: Exit, at: &Site<'_>) -> Result<()> {
        if let Some(jobs) = self.helpers.as_ref().and_then(|helpers| helpers.jobs.as_ref())
            && let Some(sentence) = jobs.recount()?
            && exit.success()
        {
            at.ui.warn(&sentence);
        }
        if !self.parts.job.accelerate.distcc.is_empty() {
            let local = failure::mentioning(&self.parts.work.paths().logs(), began, "running locally instead");
            if !local.is_empty() {
                at.ui.warn(&format!(
                    "distcc reached no host for a part of {}, which this machine compiled",
                    local.join(", ")
                ));
            }
        }
        Ok(())
    }
}
