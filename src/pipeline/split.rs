//! Archives of parts of an image, which the image itself lacks.

use std::path::{Path, PathBuf};

use crate::archive::pack::{self, Options, Part, Tree};
use crate::base::error::{Error, Result};
use crate::output::{ImageSpec, SplitArchive, Staging};
use crate::recipe::Job;
use crate::source::Site;

/// Packs the archives of the parts that the recipe splits off.
///
/// # Errors
/// [`Kind::Build`](crate::base::error::Kind::Build) if the image lacks one of their directories, and those of [`pack::pack`].
pub(super) fn archives(
    job: &Job,
    tree: Tree<'_>,
    (spec, staging): (&ImageSpec<'_>, &Staging),
    packing: &Options,
    at: &Site<'_>,
) -> Result<Vec<SplitArchive>> {
    let archive = |(name, paths): (&String, &Vec<String>)| {
        let real = |path: &String| tree.root.real(Path::new(path)).map_err(|_| missing(name, path));
        let part = Part::below(paths.iter().map(real).collect::<Result<Vec<PathBuf>>>()?);
        let file_name = spec.split_archive(name);
        let mut file = staging.create_file(&file_name)?;
        at.ui.stage(&format!("packing {file_name}"));
        let options = Options { layer: false, ..packing.clone() };
        let outputs = pack::Outputs::archive(&mut file);
        let packed = pack::pack(Tree { part: Some(&part), ..tree }, outputs, &options, at.ui)?;
        at.ui.done();
        Ok(SplitArchive { name: name.clone(), file, packed })
    };
    job.split.iter().map(archive).collect()
}

fn missing(name: &str, path: &str) -> Error {
    Error::build(format!("packing the archive {name}: the image has no directory {path}"))
        .with_hint("remove the path from `split`, or add the package or step that makes it")
}
