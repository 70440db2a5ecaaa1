//! `build`: a recipe → an image.

use std::path::PathBuf;

use super::RecipeArgs;
use super::lock::LockArgs;
use super::plan::Plan;
use super::session::{self, Session};
use crate::base::error::Result;
use crate::base::progress::Progress;
use crate::builder::host;
use crate::builder::view::{Caches, View};
use crate::os::userns;
use crate::output::{Claim, ImageSpec, Role};
use crate::pipeline;
use crate::portage::{self, BuilderInfo, Resolved, emerge};
use crate::recipe::{Origin, RepositorySpec};
use crate::source;
use crate::source::repository::snapshot;
use crate::source::{Locked, ResolveOptions, Site};
use crate::store::Store;
use crate::ui::Terminal;

/// Build the image that a recipe describes
///
/// Downloads and verifies the stage3 (unless the recipe is built from this host) and the ebuild repositories that the recipe fetches,
/// where the store lacks them; merges the recipe's packages with emerge, strips the result and writes it to the outdir:
/// NAME-YYYY-MM-DD.tar.gz (or .tar.xz, .tar.zst, .tar, by build.compression) with .sha256, .CONTENTS.gz, .mtree.gz and a .json that
/// says where it came from, and an OCI layout NAME-YYYY-MM-DD.oci if the recipe has an [oci] table. Nothing appears there before it is
/// whole. Packages that were built before come from the cache.
#[derive(Debug, clap::Args)]
#[command(after_long_help = "\
Examples:
  quern-builder build musl-python3.toml
  quern-builder build musl-python3.toml --outdir /srv/images --set emerge.jobs=4
  quern-builder build musl-python3.toml --dry-run
  quern-builder build musl-python3.toml --locked
  SOURCE_DATE_EPOCH=1700000000 quern-builder build musl-python3.toml

A failed build prints which package failed in which phase and where its log is; the packages built before it stay in the cache.")]
pub struct Args {
    /// The recipe.
    #[command(flatten)]
    pub recipe: RecipeArgs,
    /// Where the results go [recipe: build.outdir]
    #[arg(short, long, value_name = "DIR")]
    pub outdir: Option<PathBuf>,
    /// Print what would be done: URLs, mounts, emerge commands, removals
    #[arg(short = 'n', long)]
    pub dry_run: bool,
    /// Ask no server: use what the store has, or fail
    #[arg(long)]
    pub offline: bool,
    /// Accept a signed list older than one seen before, this once
    #[arg(long)]
    pub allow_rollback: bool,
    /// The lock file.
    #[command(flatten)]
    pub lock: LockArgs,
}

impl Args {
    pub(super) fn run(self, ui: &Terminal) -> Result<i32> {
        let date = session::moment()?;
        let overrides: Vec<String> = self.overrides()?;
        if self.dry_run {
            return self.print_plan(&overrides, ui);
        }
        session::with(&self.recipe, &overrides, ui, |Session { job, origin, store }| {
            let locked = self.lock.entry(&self.recipe, job)?;
            let options =
                ResolveOptions { offline: self.offline, allow_rollback: self.allow_rollback, locked: locked.as_ref() };
            let site = Site { date, ..Site::new(store, options, ui) };
            let published = pipeline::build(job, origin, &site)?;
            published.path(&Role::Tarball).into_iter().for_each(|path| ui.result(path));
            published.oci().into_iter().for_each(|(path, _)| ui.result(path));
            Ok(0)
        })
    }

    /// `--outdir` as a `--set`.
    fn overrides(&self) -> Result<Vec<String>> {
        let Some(outdir) = &self.outdir else { return Ok(Vec::new()) };
        let outdir =
            outdir.to_str().ok_or_else(|| crate::base::error::Error::usage("--outdir: the path is not UTF-8"))?;
        Ok(vec![format!("build.outdir={}", crate::recipe::set_value(outdir))])
    }

    /// The plan, made of the same values as a build, without root and without asking a server.
    fn print_plan(&self, overrides: &[String], ui: &Terminal) -> Result<i32> {
        let loaded = session::load(&self.recipe, overrides, ui)?;
        loaded.warnings.iter().for_each(|warning| ui.warn(warning));
        let job = &loaded.job;
        portage::check(job)?;
        let home = Store::default_home(|name| std::env::var_os(name), userns::is_host_root())?;
        if home.is_dir() {
            let spec = ImageSpec::of_job(job, session::moment()?)?;
            Claim::new(&Store::open(&home)?, &job.build.outdir, &spec.base, &session::origin(&self.recipe)?).check()?;
        }
        let local = job.portage.repositories.iter().all(|repository| repository.location().is_some());
        let found = match local {
            true => Some((Vec::new(), Resolved::new(job)?)),
            false if home.is_dir() => pipeline::stored(job, &Store::open(&home)?)?,
            false => None,
        };
        let mut plan = Plan::default();
        let urls = match self.lock.entry(&self.recipe, job)? {
            Some(Locked { stage3: Some(pin), .. }) => pin.urls(&job.source)?,
            _ => source::first_urls(job)?,
        };
        let file = match &job.source.base {
            crate::recipe::BaseSpec::File { path, .. } => Some(path.display().to_string()),
            crate::recipe::BaseSpec::Gentoo { .. } | crate::recipe::BaseSpec::SignedFile(_) => None,
            crate::recipe::BaseSpec::Host { hide, show } => {
                host::check()?;
                plan.section("host", host::describe(hide, show));
                None
            }
        };
        plan.section("source", urls.into_iter().chain(file));
        plan.section("repositories", job.portage.repositories.iter().flat_map(origins));
        let Some((_repositories, resolved)) = found else {
            let what = "known once the repositories are here: `quern-builder fetch` gets them";
            plan.section("mounts, emerge", [what.to_owned()]);
            plan.strip(job);
            plan.publish(job, session::moment()?)?;
            ui.plan(&plan.to_string());
            return Ok(0);
        };
        let work = Store::work_directory(&home, &job.name, &session::origin(&self.recipe)?);
        let view = View::build(job, &resolved, &Caches::planned(job, &home), &work);
        plan.section("mounts", view.to_string().lines().map(|line| line.trim().to_owned()));
        let facts = BuilderInfo { sandbox: true, cpus: session::cpus(), portage: None };
        plan.section("emerge", emerge::steps(job, &resolved, &facts).iter().map(emerge::Step::display));
        plan.strip(job);
        plan.publish(job, session::moment()?)?;
        ui.plan(&plan.to_string());
        Ok(0)
    }
}

/// What is asked for first of a repository that is fetched.
fn origins(repository: &RepositorySpec) -> Vec<String> {
    match &repository.origin {
        Origin::Location(_) => Vec::new(),
        Origin::Snapshot(snapshot) => snapshot::first_urls(snapshot),
        Origin::Git(git) => {
            let what = git.commit.as_deref().or(git.branch.as_deref()).unwrap_or_default();
            vec![format!("{} {what}", git.url)]
        }
    }
}
