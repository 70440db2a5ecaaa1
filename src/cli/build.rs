//! `build`: makes an image from a recipe.

use std::path::PathBuf;

use super::RecipeArgs;
use super::lock::LockArgs;
use super::session::{self, Session};
use crate::base::error::{Error, Result};
use crate::base::progress::Progress;
use crate::os::userns;
use crate::output::Role;
use crate::pipeline::{self, PlanOptions};
use crate::source::{ResolveOptions, Site};
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
    /// Use only files that the store has, and give emerge no network
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
        let outdir = outdir.to_str().ok_or_else(|| Error::usage("--outdir: the path is not UTF-8"))?;
        Ok(vec![format!("build.outdir={outdir}")])
    }

    /// Prints the plan. Needs no root and asks no server.
    fn print_plan(&self, overrides: &[String], ui: &Terminal) -> Result<i32> {
        let loaded = session::load(&self.recipe, overrides, ui)?;
        loaded.warnings.iter().for_each(|warning| ui.warn(warning));
        let home = Store::default_home(|name| std::env::var_os(name), userns::is_host_root())?;
        let locked = self.lock.entry(&self.recipe, &loaded.job)?;
        let options = PlanOptions {
            locked: locked.as_ref(),
            date: session::moment()?,
            cpus: session::cpus(),
            offline: self.offline,
        };
        let plan = pipeline::plan(&loaded.job, &session::origin(&self.recipe)?, &home, &options)?;
        ui.plan(&plan.to_string());
        Ok(0)
    }
}
