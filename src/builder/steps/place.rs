//! The surroundings of a step: its trees, its mounts, its environment. A shell at a step has the same.

use std::ffi::OsString;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use super::identity;
use super::mounts::{KeptCaches, Use};
use crate::base::error::{Context, Result};
use crate::base::progress::Progress;
use crate::builder::base::Base;
use crate::builder::chain::Chain;
use crate::builder::daemons::{self, Daemons};
use crate::builder::prepared::{After, run_in};
use crate::builder::trees::{self, Trees};
use crate::builder::volumes::Volumes;
use crate::enter::{self, DaemonFailure, Io, Left, Mount, Observer, Plan, SecretFile, Terminal};
use crate::os::process::Exit;
use crate::plan::view::View;
use crate::portage;
use crate::recipe::{Action, Job, Secret, Step, StepRoot, TreeKind};
use crate::source::fetched::FetchInput;
use crate::store::Store;
use crate::store::work::{Scratch, WorkPaths};

/// The path of the script in the sandbox.
pub(super) const SCRIPT: &str = "/quern/step";

/// The directory of verified downloads in the sandbox.
pub(super) const FETCHED: &str = "/quern/fetch";

/// The trees and facts that the steps of a build share.
#[derive(Debug, Clone, Copy)]
pub struct StepPlace<'a> {
    pub job: &'a Job,
    pub base: &'a Base,
    pub chain: &'a Chain,
    /// The directory for mount points and files that steps see.
    pub work: &'a WorkPaths,
    /// The time that scripts get as SOURCE_DATE_EPOCH, in seconds since 1970.
    pub epoch: u64,
    /// The downloads that steps name.
    pub fetched: &'a [FetchInput],
    /// The directory with the packages of the image's key, if they are known.
    pub packages: Option<&'a Path>,
    pub offline: bool,
    pub store: &'a Store,
}

impl StepPlace<'_> {
    /// Returns the sandbox of a step, and the caches that it may use for as long as they are held. Writes its script into the work
    /// directory. Calls `waiting` with the name of a cache before it waits for another build.
    ///
    /// # Errors
    /// [`Kind::System`](crate::base::error::Kind::System) if the script cannot be written, and those of [`StepPlace::mounts`].
    pub(super) fn view(&self, step: &Step, purpose: Use, waiting: &dyn Fn(&str)) -> Result<(View, KeptCaches)> {
        let (own, kept) = self.mounts(step, purpose, waiting)?;
        let mut view = View::step(step, own, self.offline);
        if let Action::Run(script) = &step.action {
            let path = self.work.step_files().join("script");
            let writing = || "writing the script of the step";
            fs_err::create_dir_all(self.work.step_files()).system(writing)?;
            // The last step's script cannot be written to.
            fs_err::remove_file(&path).or_else(ignore_missing).system(writing)?;
            fs_err::write(&path, &script.bytes).system(writing)?;
            fs_err::set_permissions(&path, std::fs::Permissions::from_mode(0o555)).system(writing)?;
            view = view.with(Mount::read_only(path, SCRIPT));
        }
        if self.job.build.kind == TreeKind::Image && step.root == StepRoot::Builder {
            view = view.with(Mount::writable(self.work.image(), portage::ROOT));
        }
        Ok((view, kept))
    }

    /// Mounts the trees that a step sees, with its changes in `paths` and those of a build that ended, if there is one, below them.
    pub(super) fn trees(
        &self,
        step: &Step,
        paths: &WorkPaths,
        view: &View,
        after: Option<&WorkPaths>,
    ) -> Result<Trees> {
        let files = if view.has_network() { vec![trees::name_servers()] } else { Vec::new() };
        let after = after.map(|work| After { chain: self.chain, work: Some(work) });
        let image = self.job.build.kind == TreeKind::Image;
        let trees = if image && step.root == StepRoot::Image {
            Trees::image_alone(self.chain, after, paths, view, &files)?
        } else {
            Trees::builder(self.base, self.chain, after, image, paths, view, &files)?
        };
        Ok(trees.with(Volumes::mount(&step.volumes, self.chain, after, paths)?))
    }

    /// Returns the plan of a command in the trees of a step.
    ///
    /// # Errors
    /// [`Kind::Build`](crate::base::error::Kind::Build) if the tree does not have the user of the step.
    pub(super) fn plan(
        &self,
        step: &Step,
        view: &View,
        trees: &Trees,
        argv: Vec<OsString>,
        terminal: Terminal,
    ) -> Result<Plan> {
        let mut plan = view.plan(self.work.tree(), argv, terminal);
        plan.env.extend(environment(step, self.epoch));
        let user = step.user.as_deref().map(|user| identity::of(user, trees.root())).transpose();
        plan.user = user.map_err(|error| error.within(&format!("running the step {}", step.name)))?;
        let read = step.secrets.iter().filter(|secret| !secret.value.is_absent());
        let file = |secret: &Secret| SecretFile { name: secret.name.clone(), content: secret.value.expose().to_vec() };
        plan.secrets = read.map(file).collect();
        plan.directory.clone_from(&step.workdir);
        Ok(plan)
    }

    /// Runs a command with the caller's streams in the trees of the step `name`, with the surroundings of the step if the recipe has it. Its
    /// changes go to `scratch`; `after` has those of the step if it failed. It cannot change files of this machine or caches. `ui` shows the
    /// failures of daemons.
    ///
    /// # Errors
    /// Those of [`enter::run`] and of the mounts.
    pub fn shell(
        &self,
        name: &str,
        scratch: &Scratch,
        after: Option<&WorkPaths>,
        (argv, terminal): (Vec<OsString>, Terminal),
        ui: &dyn Progress,
    ) -> Result<Exit> {
        let Some(step) = self.job.steps.iter().find(|step| step.name == name) else {
            let overlays = After { chain: self.chain, work: after }.builder(self.base, scratch.paths())?;
            return run_in(&overlays, &View::image(self.job).offline(self.offline), scratch, argv, terminal);
        };
        let (view, kept) = self.view(step, Use::Look, &|_| {})?;
        let trees = self.trees(step, scratch.paths(), &view, after)?;
        kept.prepare(trees.root())?;
        let mut plan = self.plan(step, &view, &trees, argv, terminal)?;
        plan.daemons = daemons::plans(&step.daemons, false);
        let daemons = Daemons::new(&step.name, &step.daemons, &step.secrets, scratch.paths())?;
        let exit = enter::run(&plan, Io::Attend(&mut Look { daemons, ui }))?;
        trees.unmount()?;
        Ok(exit)
    }
}

/// The observer of a shell at a step.
struct Look<'a> {
    daemons: Daemons<'a>,
    ui: &'a dyn Progress,
}

impl Observer for Look<'_> {
    fn line(&mut self, _: &[u8]) {}

    fn tick(&mut self) {
        if let Some(error) = self.daemons.take_error() {
            self.ui.warn(&format!("{error}\n{}", error.details().unwrap_or_default()));
        }
    }

    fn left(&mut self, _: &Left) {}

    fn daemon(&mut self, index: usize, bytes: &[u8]) {
        self.daemons.take(index, bytes);
    }

    fn daemon_failed(&mut self, failure: DaemonFailure) {
        self.daemons.fail(failure);
    }
}

/// Returns what a step has in its environment besides what every command has.
fn environment(step: &Step, epoch: u64) -> Vec<(String, String)> {
    let mut env = vec![
        ("SOURCE_DATE_EPOCH".to_owned(), epoch.to_string()),
        ("QUERN_FETCH".to_owned(), FETCHED.to_owned()),
        ("PYTHONUNBUFFERED".to_owned(), "1".to_owned()),
    ];
    if std::env::var_os("TERM").is_none() {
        env.push(("TERM".to_owned(), "dumb".to_owned()));
    }
    if step.root == StepRoot::Builder {
        env.push(("ROOT".to_owned(), portage::ROOT.to_owned()));
    }
    env.extend(step.env.clone());
    env
}

pub(super) fn ignore_missing(error: std::io::Error) -> std::io::Result<()> {
    if error.kind() == std::io::ErrorKind::NotFound { Ok(()) } else { Err(error) }
}
