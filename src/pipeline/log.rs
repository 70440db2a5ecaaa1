//! The output of a step.

use std::io::Read;
use std::path::Path;

use crate::base::error::{Context, Error, Result};
use crate::base::text::quoted;
use crate::recipe::{Action, Job, Step};
use crate::source::Site;
use crate::store::lock::Mode;
use crate::store::work::State;

/// Most bytes of output that are shown.
const MAX: u64 = 256 << 20;

/// Returns the output of the step `name` of the last build of the recipe `job` from the file `origin`, or of its daemon `daemon`: that of the
/// failed run, or else that of the run that made its layer. `None` if it printed nothing.
///
/// # Errors
/// [`Kind::Usage`](crate::base::error::Kind::Usage) if the last build has no such step or the step no such daemon,
/// [`Kind::System`](crate::base::error::Kind::System) if the output cannot be read.
pub fn log(job: &Job, origin: &Path, name: &str, daemon: Option<&str>, at: &Site<'_>) -> Result<Option<String>> {
    if let Some(daemon) = daemon {
        check_daemon(job, name, daemon)?;
    }
    let waiting = || at.ui.note("waiting for the build of this recipe to end");
    let work = at.store.work(&job.name, origin, Mode::Shared, waiting)?;
    let Some(State { layers, failed_step, .. }) = work.state()? else {
        return Err(Error::usage(format!("{} was not built yet", job.name)).with_hint("build it first"));
    };
    let mut bytes = Vec::new();
    if failed_step.as_deref() == Some(name) {
        let failed = work.paths().on(&work.paths().failed());
        let path = daemon.map_or_else(|| failed.log(), |daemon| failed.daemon_log(daemon));
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
        if let Some(log) = layer.log(daemon)? {
            log.take(MAX).read_to_end(&mut bytes).system(|| "reading the output of a step")?;
        }
    }
    Ok((!bytes.is_empty()).then(|| String::from_utf8_lossy(&bytes).into_owned()))
}

/// Refuses the name of a daemon that the step `name` does not have.
fn check_daemon(job: &Job, name: &str, daemon: &str) -> Result<()> {
    // A step that rebuilds packages has a command for each kind.
    let is_of = |step: &Step| {
        let rest = name.strip_prefix(&step.name).filter(|_| matches!(step.action, Action::Rebuild(_)));
        step.name == name || rest.is_some_and(|rest| rest.starts_with('/'))
    };
    let daemons = match job.steps.iter().find(|step| is_of(step)) {
        Some(step) => &step.daemons,
        None if name.starts_with('@') => &job.emerge.daemons,
        None => &Vec::new(),
    };
    let daemons: Vec<&str> = daemons.iter().map(|own| own.name.as_str()).collect();
    if daemons.contains(&daemon) {
        return Ok(());
    }
    let error = Error::usage(format!("the step {} has no daemon {}", quoted(name), quoted(daemon)));
    Err(match daemons.is_empty() {
        true => error.with_hint("`daemons` of a step names those that run beside it"),
        false => error.with_hint(format!("its daemons are {}", daemons.join(", "))),
    })
}
