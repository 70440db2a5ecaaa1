//! The question which packages emerge would merge, and the binary packages that it could not use.

use std::path::Path;
use std::time::Duration;

use super::query::Query;
use crate::base::error::Result;
use crate::fs::rootfs::Rootfs;
use crate::plan::misses::Miss;
use crate::plan::view::View;
use crate::portage::binpkg::gpkg::{Gpkg, Metadata};
use crate::portage::emerge::Step;
use crate::portage::query::Text;
use crate::portage::query::plan::{self, Package, Present};
use crate::portage::query::why::Why;

/// The longest time of a resolution. Metadata may have to be generated first.
pub(super) const MAX_TIME: Duration = Duration::from_secs(60 * 60);

/// Returns the question for emerge's options and atoms `arguments`, in the configuration of `step`.
pub(super) fn query(arguments: impl IntoIterator<Item = String>, step: &Step) -> Query {
    let words = ["python3", "-c", plan::PROGRAM].map(str::to_owned);
    // Moves of packages concern what is installed, and the tree may be read-only.
    let mut query = Query::new(words.into_iter().chain(arguments).chain(["--package-moves=n".to_owned()]));
    query.env.extend(step.env.clone());
    query.time = MAX_TIME;
    query
}

/// Explains each of `packages` that is built; if `run`, only those needed at run time. Reads the settings of the nearest binary packages
/// on the host.
pub(super) fn misses(packages: &[Package], run: bool, view: &View) -> Vec<Miss> {
    let missing = packages.iter().filter(|package| package.source && (package.run || !run));
    let miss = |package: &Package| {
        let why = Why::of(package);
        let settings = match &why {
            Why::Differs { present, .. } => metadata(present, view).ok().flatten(),
            Why::Missing | Why::Versions(_) => None,
        };
        let value = |name: &str| settings.as_ref().map(|metadata| Text::from(metadata.value(name)));
        Miss::new(package.clone(), why, value)
    };
    missing.map(miss).collect()
}

/// Reads the metadata of a binary package that the sandbox has from the host.
fn metadata(present: &Present, view: &View) -> Result<Option<Metadata>> {
    let Some((directory, path)) = view.on_host(Path::new(present.path.as_str())) else { return Ok(None) };
    let file = Rootfs::open(&directory)?.open_file(&path)?;
    // A file that is not a package explains nothing.
    Ok(file.and_then(|file| Gpkg::open(file).and_then(|package| package.metadata()).ok()))
}
