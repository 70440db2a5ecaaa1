//! The things that steps can name and that a build does not provide yet.

use crate::base::error::{Error, Result};
use crate::recipe::{Action, Job, Step};

/// Refuses steps that need things which a build does not provide.
///
/// # Errors
/// [`Kind::Usage`](crate::base::error::Kind::Usage).
pub fn check(job: &Job) -> Result<()> {
    for step in &job.steps {
        if let Some(key) = missing(step, job) {
            return Err(Error::usage(format!("the step {} uses {key}, which a build does not provide yet", step.name))
                .with_hint("remove the key, write sysroot = false, or leave the step out with skip = true"));
        }
    }
    Ok(())
}

/// Returns the first use of a step that a build does not provide.
fn missing(step: &Step, job: &Job) -> Option<&'static str> {
    let names = |name: &str| step.caches.iter().any(|cache| cache.name == name);
    // A command of emerge has the mounts of Portage and no others.
    let emerges = !matches!(step.action, Action::Run(_));
    let uses = [
        ("`binds` or a `sysroot` with packages", !emerges || step.binds.is_empty()),
        ("`caches` with packages", !emerges || step.caches.is_empty()),
        ("`tmpfs` with packages", !emerges || step.tmpfs.is_empty()),
        ("`fetch` with packages", !emerges || step.fetch.is_empty()),
        ("the cache `binpkgs`", !names("binpkgs")),
        ("the cache `ccache` without accelerate.ccache", !names("ccache") || job.accelerate.ccache.is_some()),
        ("`volumes` with packages", !emerges || step.volumes.is_empty()),
        ("`daemons` with packages", !emerges || step.daemons.is_empty()),
    ];
    uses.into_iter().find(|(_, unused)| !unused).map(|(key, _)| key)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::error::Kind;
    use crate::recipe::fixture;
    use crate::recipe::{Phase, StepTmpfs};

    #[test]
    fn a_step_of_emerge_with_a_mount_is_refused_by_its_name() {
        let step = Step::new("clean", Phase::End, Action::Depclean);
        let mut job = fixture::job();
        job.steps.push(step);
        assert!(check(&job).is_ok());
        job.steps[0].tmpfs.push(StepTmpfs { at: "/x".into(), size: None });
        let error = check(&job).unwrap_err();
        assert_eq!(error.kind(), Kind::Usage);
        assert!(error.to_string().contains("the step clean uses `tmpfs` with packages"), "{error}");
    }
}
