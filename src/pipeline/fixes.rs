//! The lines that let emerge accept the packages of a recipe.

use std::path::Path;

use super::prepared::ready;
use crate::base::error::{Error, Result};
use crate::portage::emerge;
use crate::portage::failure::Fix;
use crate::recipe::Job;
use crate::source::Site;

/// The limit on attempts. Each adds the lines of the one before it, as a refusal may hide others.
const ATTEMPTS: usize = 6;

/// The lines that help, and the refusal that is left.
#[derive(Debug, Default)]
pub struct Fixes {
    /// The lines, in the order in which emerge asked for them.
    pub lines: Vec<Fix>,
    /// The refusal that no line can lift.
    pub left: Option<Error>,
}

/// Finds the lines for package files with which emerge would merge the packages of a recipe. Merges nothing.
///
/// # Errors
/// Those of the inputs, and of a sandbox that cannot be made.
pub fn fixes(job: &Job, origin: &Path, at: &Site<'_>) -> Result<Fixes> {
    let mut job = job.clone();
    let mut found = Fixes::default();
    for _ in 0..ATTEMPTS {
        at.ui.stage("resolving the packages");
        let refused = ready(&job, origin, at, |ready| {
            for step in emerge::steps(&job, &ready.inputs.resolved, ready.info) {
                if let Some(failure) = ready.builder.refusal(&step)? {
                    return Ok(Some((failure, step.resolving())));
                }
            }
            Ok(None)
        })?;
        at.ui.done();
        let Some((failure, what)) = refused else { return Ok(Fixes { left: None, ..found }) };
        let files = &mut job.portage.package_files;
        let mut new = failure.fixes(files);
        new.retain(|fix| !found.lines.iter().any(|known| (known.file, &known.line) == (fix.file, &fix.line)));
        found.left = Some(failure.into_error(&what, files));
        if new.is_empty() {
            break;
        }
        for fix in &new {
            files.entry(fix.file.to_owned()).or_default().push(fix.line.clone());
        }
        found.lines.extend(new);
    }
    Ok(found)
}
