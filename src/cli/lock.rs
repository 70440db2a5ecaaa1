//! `lock`: what a recipe is built from, written down.

use std::path::{Path, PathBuf};

use super::RecipeArgs;
use super::session::{self, Session};
use crate::base::error::{Error, Result};
use crate::base::progress::Progress;
use crate::lockfile::{self, Locked, Lockfile, Update};
use crate::os::space;
use crate::pipeline;
use crate::recipe::Job;
use crate::source::{ResolveOptions, Site};
use crate::ui::Terminal;

/// Write down what a recipe is built from, so that it is built from exactly that again
///
/// Asks what the recipe's stage3 and repositories are now, verifies the answers, and writes names, addresses, sizes, digests, commits
/// and signers to quern.lock beside the recipe: a file for version control, with a table for each recipe of the directory.
/// `build --locked` uses what it says, or fails. A recipe that asks for something else, or that no longer trusts who signed, must be
/// locked again. A repository that is a directory is held to the commit that is checked out, unless the lock file is in it.
///
/// Writes only when something moved, and prints the path of the lock file. Downloads the stage3 only where nothing but its bytes
/// tells what its digest is; repositories that are fetched are unpacked in the store.
#[derive(Debug, clap::Args)]
#[command(after_long_help = "\
Examples:
  quern-builder lock musl-python3.toml
  quern-builder lock musl-python3.toml --check        what moved since; 1 if anything did
  quern-builder build musl-python3.toml --locked
  quern-builder store export musl-python3.toml -o stage3.tar

Mirrors keep a build for about five weeks. What is locked is kept longer with `quern-builder store export`, which writes it to a file
that `quern-builder store import` takes back, on this machine or another. `quern-builder clean --blobs` knows nothing of lock files.")]
pub struct Args {
    /// The recipe.
    #[command(flatten)]
    pub recipe: RecipeArgs,
    /// Write nothing: print what moved, a line each, and exit with 1 if anything did
    #[arg(long)]
    pub check: bool,
    /// The lock file [default: quern.lock in the directory of the last recipe]
    #[arg(long, alias = "lock-file", value_name = "FILE")]
    pub file: Option<PathBuf>,
    /// Accept a signed list older than one seen before, or a stage3 older than the locked one, this once
    #[arg(long)]
    pub allow_rollback: bool,
}

/// Whether, and by which lock file, a verb is held to what was locked.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct LockArgs {
    /// Use what quern.lock says, whatever is the latest now, or fail
    #[arg(long)]
    pub locked: bool,
    /// The lock file [default: quern.lock in the directory of the last recipe]
    #[arg(long, value_name = "FILE", requires = "locked")]
    pub lock_file: Option<PathBuf>,
}

impl LockArgs {
    /// What the recipe is locked to; none without `--locked`.
    pub(super) fn entry(&self, recipe: &RecipeArgs, job: &Job) -> Result<Option<Locked>> {
        if !self.locked {
            return Ok(None);
        }
        Lockfile::entry(&path(self.lock_file.as_deref(), recipe, "--lock-file")?, &job.name).map(Some)
    }
}

/// The lock file of a recipe; `option` names one.
pub(super) fn path(given: Option<&Path>, recipe: &RecipeArgs, option: &str) -> Result<PathBuf> {
    let beside = || lockfile::beside(recipe.files.last()?);
    given.map(Path::to_owned).or_else(beside).ok_or_else(|| {
        Error::usage("a recipe on standard input has no directory that its lock file could be in")
            .with_hint(format!("name the lock file with {option}"))
    })
}

impl Args {
    pub(super) fn run(self, ui: &Terminal) -> Result<i32> {
        let path = path(self.file.as_deref(), &self.recipe, "--file")?;
        session::with(&self.recipe, &[], ui, |Session { job, store, .. }| {
            let old = match self.check {
                true => Some(Lockfile::entry(&path, &job.name)?),
                false => Lockfile::read(&path)?.and_then(|lockfile| lockfile.get(&job.name).cloned()),
            };
            let options = ResolveOptions { offline: false, allow_rollback: self.allow_rollback, locked: None };
            let new = pipeline::lock(job, old.as_ref(), &path, &Site::new(store, options, ui))?;
            if let (true, Some(old)) = (self.check, &old) {
                return Ok(report(&job.name, &old.changes(&new), ui));
            }
            let stage3 = new.stage3.as_ref().map_or("its repositories", |file| &file.name).to_owned();
            let updated = Lockfile::update(&path, &job.name, new);
            let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
            match updated.map_err(|error| space::told(error, &[directory]))? {
                Update::Same => ui.note(&format!("{}: nothing moved", job.name)),
                Update::Added => ui.note(&format!("{}: locked to {stage3}", job.name)),
                Update::Moved(changes) => {
                    changes.iter().for_each(|change| ui.note(&format!("{}: {change}", job.name)));
                }
            }
            ui.result(&path);
            Ok(0)
        })
    }
}

/// Prints what moved; the exit code.
fn report(name: &str, changes: &[String], ui: &Terminal) -> i32 {
    if changes.is_empty() {
        ui.note(&format!("{name}: nothing moved"));
        return 0;
    }
    let lines: Vec<String> = changes.iter().map(|change| format!("{name}: {change}")).collect();
    ui.plan(&lines.join("\n"));
    1
}
