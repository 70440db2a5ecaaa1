//! The output of a step.

use std::io::Read;
use std::path::Path;

use crate::base::error::{Context, Error, Result};
use crate::base::text::quoted;
use crate::recipe::Job;
use crate::source::Site;
use crate::store::lock::Mode;
use crate::store::work::State;

/// Most bytes of output that are shown.
const MAX: u64 = 256 << 20;

/// Returns the output of the step `name` of the last build of the recipe `job` from the file `origin`: that of the failed run, or else that
/// of the run that made its layer. `None` if the step printed nothing.
///
/// # Errors
/// [`Kind::Usage`](crate::base::error::Kind::Usage) if the last build has no such step,
/// [`Kind::System`](crate::base::error::Kind::System) if the output cannot be read.
pub fn log(job: &Job, origin: &Path, name: &str, at: &Site<'_>) -> Result<Option<String>> {
    let waiting = || at.ui.note("waiting for the build of this recipe to end");
    let work = at.store.work(&job.name, origin, Mode::Shared, waiting)?;
    let Some(State { layers, failed_step, .. }) = work.state()? else {
        return Err(Error::usage(format!("{} was not built yet", job.name)).with_hint("build it first"));
    };
    let mut bytes = Vec::new();
    if failed_step.as_deref() == Some(name) {
        let path = work.paths().on(&work.paths().failed()).log();
        if path.exists() {
            let file = fs_err::File::open(path).system(|| "opening the output of a step")?;
            file.take(MAX).read_to_end(&mut bytes).system(|| "reading the output of a step")?;
        }
    } else {
        let names: Vec<&str> = layers.iter().map(|(name, _)| name.as_str()).chain(failed_step.as_deref()).collect();
        let Some((_, key)) = layers.iter().find(|(step, _)| step == name) else {
            return Err(Error::usage(format!("the last build has no step {}", quoted(name)))
                .with_hint(format!("its steps are {}", names.join(", "))));
        };
        let layer = at.store.layer(key)?.ok_or_else(|| {
            Error::usage(format!("the store does not have the layer of the step {} any more", quoted(name)))
                .with_hint("build the recipe again")
        })?;
        if let Some(log) = layer.log()? {
            log.take(MAX).read_to_end(&mut bytes).system(|| "reading the output of a step")?;
        }
    }
    Ok((!bytes.is_empty()).then(|| String::from_utf8_lossy(&bytes).into_owned()))
}
