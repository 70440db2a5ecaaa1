//! Copies of the binary packages of a recipe for other machines.

use std::path::{Path, PathBuf};

use super::prepared::known_base;
use crate::base::error::{Error, Result};
pub use crate::builder::export::tidy::{Change, Rules};
use crate::builder::export::{self, Exported, Signer, tidy};
use crate::builder::packages::Packages;
use crate::recipe::Job;
use crate::source::Site;
use crate::store::Store;
use crate::store::lock::Mode;
use crate::store::packages::Shelf;

/// The directories of an export, and the key that signs.
#[derive(Debug, Clone, Copy)]
pub struct ExportOptions<'a> {
    /// The directory to copy from; `None` for `portage.binpkg` of the recipe, or else that of its last build.
    pub from: Option<&'a Path>,
    /// The directory to copy to.
    pub to: &'a Path,
    /// The fingerprint of the key that signs, and the GnuPG home with it.
    pub key: Option<(&'a str, &'a Path)>,
}

/// Copies the packages of the recipe `job` from the file `origin`.
///
/// # Errors
/// Those of [`export::export`].
pub fn export(job: &Job, origin: &Path, options: &ExportOptions<'_>, at: &Site<'_>) -> Result<Exported> {
    let waiting = || at.ui.note("waiting for the build of this recipe to end");
    let work = at.store.work(&job.name, origin, Mode::Shared, waiting)?;
    let last = Packages::of_last_build(work.paths());
    let last = last.as_ref().and_then(Packages::directory);
    let from = options.from.or(job.portage.binpkg.as_deref()).or(last).ok_or_else(|| {
        Error::usage(format!("{}: no build of the recipe has made packages", job.name))
            .with_hint("build it first, or name a directory of packages with --from")
    })?;
    let from = Shelf::open(from)?;
    let to = Shelf::make(options.to)?;
    let Some((fingerprint, home)) = options.key else { return export::export(&from, &to, None, at.ui) };
    let scratch = work.scratch()?;
    let base = known_base(job, at)?;
    export::export(&from, &to, Some(&Signer { base: &base, scratch: &scratch, home, fingerprint }), at.ui)
}

/// Removes packages that no build needs from `directories` or, if there are none, from all directories of packages in the store. Calls
/// `report` for each; if `dry_run`, changes nothing.
///
/// # Errors
/// Those of [`tidy::tidy`].
pub fn tidy(
    directories: &[PathBuf],
    rules: &Rules<'_>,
    store: &Store,
    dry_run: bool,
    report: &mut dyn FnMut(&Path, u64, Change),
) -> Result<()> {
    let own = if directories.is_empty() { store.package_directories()? } else { directories.to_owned() };
    let used = tidy::used(store);
    own.iter().try_for_each(|directory| tidy::tidy(directory, rules, &used, dry_run, report))
}
