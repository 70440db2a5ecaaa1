//! The content of a volume, copied into a directory.

use std::path::Path;

use crate::base::error::{Error, Result};
use crate::base::text::{nearest, quoted};
use crate::builder::chain::Chain;
use crate::builder::volumes;
use crate::recipe::Job;
use crate::source::Site;
use crate::store::lock::Mode;

/// Copies the volume `name` in the state after the last build of the recipe `job` from the file `origin` into the new directory `to`.
///
/// # Errors
/// [`Kind::Usage`](crate::base::error::Kind::Usage) if the last build has no such volume or the store lacks its layers, and those of
/// [`volumes::export`].
pub fn export_volume(job: &Job, origin: &Path, name: &str, to: &Path, at: &Site<'_>) -> Result<()> {
    let waiting = || at.ui.note("waiting for the build of this recipe to end");
    let work = at.store.work(&job.name, origin, Mode::Shared, waiting)?;
    let Some(state) = work.state()? else {
        return Err(Error::usage(format!("{} was not built yet", job.name)).with_hint("build it first"));
    };
    let chain = Chain::find(&state, at.store)?.ok_or_else(|| {
        Error::usage(format!("the store does not have the layers of {} any more", job.name)).with_hint("build it again")
    })?;
    if !chain.volumes().any(|volume| volume == name) {
        let error = Error::usage(format!("the last build of {} has no volume {}", job.name, quoted(name)));
        return Err(match nearest(name, chain.volumes()) {
            Some(meant) => error.with_hint(format!("did you mean {meant}?")),
            None => error.with_hint("a volume begins with the first step that names it"),
        });
    }
    volumes::export(&chain, name, &work.scratch()?, to, at.ui)
}
