//! The builder tree of one build: a stage3 seen through an overlay, Portage's configuration in it, and emerge run in it.
//!
//! It knows what Portage needs to see ([`crate::portage`] says what, as text) and where that lies in the store; how a command
//! gets to see it is [`crate::enter`]'s business.

pub mod base;
pub mod host;
pub mod layers;
mod observe;
mod prepare;
pub mod view;

use crate::base::error::{Context, Result};
use crate::base::progress::Progress;
use crate::enter::{self, Io, Terminal};
use crate::fs::rootfs::Rootfs;
use crate::os::process::Exit;
use crate::portage::config::Existing;
use crate::portage::emerge::Step;
use crate::portage::{Resolved, failure};
use crate::recipe::{Job, TreeKind};
use crate::store::work::Work;
use base::Base;
use layers::Layer;
use view::View;

/// Exit code of what was ended by SIGKILL.
const KILLED: i32 = 128 + 9;

/// A builder tree that is mounted and configured.
#[derive(Debug)]
pub struct Builder<'a> {
    job: &'a Job,
    resolved: &'a Resolved,
    work: &'a Work,
    view: View,
    root: Rootfs,
    info: crate::portage::BuilderInfo,
    before: Existing,
}

impl<'a> Builder<'a> {
    /// Mounts and configures the builder tree of a build that has just begun in `work`.
    ///
    /// # Errors
    /// [`Kind::System`](crate::base::error::Kind::System) when the kernel refuses something.
    pub fn new(
        job: &'a Job,
        resolved: &'a Resolved,
        view: View,
        base: &Base,
        work: &'a Work,
        cpus: u32,
    ) -> Result<Self> {
        let root = layers::mount(&base.layers(work.directory())?, work.directory())?;
        view.make_targets(&root)?;
        let info = prepare::builder_info(&root, cpus)?;
        let before = prepare::configure(job, resolved, &root, work, &info)?;
        prepare::resolver(&root)?;
        Ok(Self { job, resolved, work, view, root, info, before })
    }

    /// What emerge is run for, in order.
    pub fn steps(&self) -> Vec<Step> {
        crate::portage::emerge::steps(self.job, self.resolved, &self.info)
    }

    /// Runs one step. Its output goes to `emerge.log` in the logs, and to the user when he wants to see it.
    ///
    /// # Errors
    /// [`Kind::Build`](crate::base::error::Kind::Build) with the package, the phase, the end of its log and the log's path.
    pub fn run(&self, step: &Step, ui: &dyn Progress) -> Result<()> {
        if let Some(target) = &step.profile {
            prepare::set_profile(&self.root, target)?;
        }
        let began = std::time::SystemTime::now();
        let mut plan =
            self.view.plan(self.work.part("tree"), step.argv.iter().map(Into::into).collect(), Terminal::None);
        plan.env.extend(step.env.clone());
        let mut observer = observe::Emerge::new(self.work, ui)?;
        let exit = enter::run(&plan, Io::Observe(&mut observer))?;
        if exit.success() {
            return Ok(());
        }
        let error = failure::find(&self.work.part("logs"), began, &observer.tail()).into_error(&step.what);
        if exit.code() == KILLED && error.hint().is_none() {
            return Err(
                error.with_hint("emerge was killed, as when memory runs out: fewer emerge.jobs, a smaller MAKEOPTS")
            );
        }
        Err(error)
    }

    /// The tree that is shipped.
    ///
    /// # Errors
    /// [`Kind::System`](crate::base::error::Kind::System) when it cannot be opened.
    pub fn image(&self) -> Result<Rootfs> {
        match self.job.build.kind {
            TreeKind::Image => Rootfs::open(&self.work.part("image")),
            TreeKind::Stage4 => self.root.try_clone(),
        }
    }

    /// Gives a stage4 the configuration that it is shipped with, instead of the build's. An image has none of the build's.
    ///
    /// # Errors
    /// [`Kind::System`](crate::base::error::Kind::System) when a file cannot be written.
    pub fn ship(&self) -> Result<()> {
        match self.job.build.kind {
            TreeKind::Image => Ok(()),
            TreeKind::Stage4 => prepare::ship(self.job, self.resolved, &self.root, &self.before),
        }
    }

    /// Takes the overlay away; what it holds stays in the work directory.
    ///
    /// # Errors
    /// [`Kind::System`](crate::base::error::Kind::System) when the kernel refuses.
    pub fn unmount(self) -> Result<()> {
        drop(self.root);
        enter::overlay::unmount(&self.work.part("tree"))
    }
}

/// Runs a command in throw-away overlays over `layers`, the root's first, with the caller's streams.
///
/// # Errors
/// [`Kind::System`](crate::base::error::Kind::System) when the sandbox cannot be made, [`Kind::Usage`](crate::base::error::Kind::Usage)
/// when the tree has no such command.
pub fn shell(
    layers: &[Layer],
    view: &View,
    scratch: &std::path::Path,
    argv: Vec<std::ffi::OsString>,
    terminal: Terminal,
) -> Result<Exit> {
    let tree = scratch.join("tree");
    fs_err::create_dir(&tree).system(|| "making a scratch directory")?;
    let root = layers::mount(layers, scratch)?;
    view.make_targets(&root)?;
    prepare::resolver(&root)?;
    drop(root);
    let exit = enter::run(&view.plan(tree.clone(), argv, terminal), Io::Inherit);
    enter::overlay::unmount(&tree)?;
    exit
}
