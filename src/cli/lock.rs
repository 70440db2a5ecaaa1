//! `lock`: pins the inputs of a recipe.

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

/// Pin the inputs of a recipe in quern.lock
///
/// Finds and verifies the present stage3 and repositories of the recipe. Writes their names, addresses, sizes, digests, commits and
/// signers to quern.lock beside the recipe. The file belongs in version control and has a table for each recipe of the directory.
/// `build --locked` uses exactly these inputs, or fails. Lock again when the recipe asks for other inputs or no longer trusts a
/// signer. For a repository in a directory, the checked-out commit and a digest of the contents are recorded; a build must have the
/// commit, and warns about other contents. A repository that holds the lock file is recorded by name alone.
/// Of the downloads of steps, those of a branch are recorded, with the commit.
///
/// Writes only if an input changed, and prints the path of the lock file. Downloads the stage3 only if its digest cannot be learnt
/// otherwise. Unpacks fetched repositories in the store.
#[derive(Debug, clap::Args)]
#[command(after_long_help = "\
Examples:
  quern-builder lock musl-python3.toml
  quern-builder lock musl-python3.toml --check        list changes; exit with 1 if there are any
  quern-builder build musl-python3.toml --locked
  quern-builder store export musl-python3.toml -o stage3.tar

Mirrors keep a build for about five weeks. To keep locked files longer, write them to an archive with `quern-builder store export`;
`quern-builder store import` reads it on this machine or another. `quern-builder clean --blobs` also removes locked files.")]
pub struct Args {
    /// The recipe.
    #[command(flatten)]
    pub recipe: RecipeArgs,
    /// Write nothing: list the changes, a line each, and exit with 1 if there are any
    #[arg(long)]
    pub check: bool,
    /// The lock file [default: quern.lock in the directory of the last recipe]
    #[arg(long, alias = "lock-file", value_name = "FILE")]
    pub file: Option<PathBuf>,
    /// Accept a signed list older than one seen before, or a stage3 older than the locked one, for this run
    #[arg(long)]
    pub allow_rollback: bool,
}

/// Options to use a lock file.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct LockArgs {
    /// Use exactly the inputs in quern.lock, or fail
    #[arg(long)]
    pub locked: bool,
    /// The lock file [default: quern.lock in the directory of the last recipe]
    #[arg(long, value_name = "FILE", requires = "locked")]
    pub lock_file: Option<PathBuf>,
}

impl LockArgs {
    /// Returns the locked inputs of the recipe; `None` without `--locked`.
    pub(super) fn entry(&self, recipe: &RecipeArgs, job: &Job) -> Result<Option<Locked>> {
        if !self.locked {
            return Ok(None);
        }
        Lockfile::entry(&path(self.lock_file.as_deref(), recipe, "--lock-file")?, &job.name).map(Some)
    }
}

/// Returns the path of the lock file: `given` with the option called `option`, or beside the recipe.
pub(super) fn path(given: Option<&Path>, recipe: &RecipeArgs, option: &str) -> Result<PathBuf> {
    let beside = || lockfile::beside(recipe.files.last()?);
    given.map(Path::to_owned).or_else(beside).ok_or_else(|| {
        Error::usage("a recipe on standard input has no directory for its lock file")
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
                Update::Same => ui.note(&format!("{}: nothing changed", job.name)),
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

/// Prints the changes and returns the exit code.
fn report(name: &str, changes: &[String], ui: &Terminal) -> i32 {
    if changes.is_empty() {
        ui.note(&format!("{name}: nothing changed"));
        return 0;
    }
    let lines: Vec<String> = changes.iter().map(|change| format!("{name}: {change}")).collect();
    ui.plan(&lines.join("\n"));
    1
}
