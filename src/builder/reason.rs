//! Why a step runs: the difference between its inputs and those of the last build of the recipe.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::base::digest::Sha256;
use crate::base::error::{Context, Kind, Result};
use crate::fs::atomic;
use crate::plan::nodes::{self, Inputs};
use crate::plan::status::Why;
use crate::store::work::WorkPaths;

/// The steps of the last build of a recipe by name.
#[derive(Debug, Default, Clone, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Seen(BTreeMap<String, Last>);

/// A step as the last build saw it.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Last {
    /// The state of the trees before it.
    parent: Sha256,
    inputs: Inputs,
}

/// Compares a build with the last one of the recipe, step by step.
#[derive(Debug)]
pub struct Reasons {
    last: Seen,
    /// The steps of this build and, of the others, those of the last one.
    now: Seen,
    /// The step before, or the base.
    before: String,
    /// The step whose result differs from that of the last build, if the trees do.
    culprit: Option<String>,
}

impl Reasons {
    /// Reads the record in a work directory. A damaged one counts as empty. `base` names the base.
    pub fn read(work: &WorkPaths, base: &str) -> Self {
        let text = fs_err::read(work.steps_record());
        let last: Seen = text.ok().and_then(|text| serde_json::from_slice(&text).ok()).unwrap_or_default();
        Self { now: last.clone(), last, before: base.to_owned(), culprit: None }
    }

    /// Writes the record.
    ///
    /// # Errors
    /// [`Kind::System`] if it cannot be written.
    pub fn write(&self, work: &WorkPaths) -> Result<()> {
        let text = serde_json::to_vec(&self.now).context(Kind::System, || "recording the steps of the build")?;
        atomic::replace(&work.steps_record(), &text, 0o600)
    }

    /// Notes the next step of this build. Returns the reason why it runs with these inputs, if it has to.
    pub fn see(&mut self, name: &str, parent: &Sha256, inputs: &Inputs) -> Why {
        let last = self.last.0.get(name);
        match last {
            Some(last) if last.parent == *parent => self.culprit = None,
            Some(_) => _ = self.culprit.get_or_insert_with(|| self.before.clone()),
            None => {}
        }
        name.clone_into(&mut self.before);
        self.now.0.insert(name.to_owned(), Last { parent: *parent, inputs: inputs.clone() });
        match (self.difference(name, inputs), &self.culprit) {
            (None, _) => Why::New,
            (Some(changed), _) if !changed.is_empty() => Why::Changed(changed),
            (Some(_), Some(culprit)) => Why::Follows(culprit.clone()),
            (Some(_), None) => Why::Gone,
        }
    }

    /// Names the inputs that differ from those of the last build; `None` if it had no such step.
    pub fn difference(&self, name: &str, inputs: &Inputs) -> Option<String> {
        self.last.0.get(name).map(|last| nodes::difference(&last.inputs, inputs))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_reason_is_the_difference_to_the_last_build() {
        let inputs = |text: &str| Inputs::from([("script".to_owned(), text.to_owned())]);
        let (one, other) = (Sha256::of(b"1"), Sha256::of(b"2"));
        let work = tempfile::tempdir().unwrap();
        let work = WorkPaths::new(work.path());
        let mut reasons = Reasons::read(&work, "the base");
        assert_eq!(reasons.see("a", &one, &inputs("x")), Why::New);
        assert_eq!(reasons.see("b", &one, &inputs("x")), Why::New);
        reasons.write(&work).unwrap();
        let next = || Reasons::read(&work, "the base");
        assert_eq!(next().see("a", &one, &inputs("y")).to_string(), "script changed");
        assert_eq!(next().see("a", &other, &inputs("x")).to_string(), "follows the base");
        assert_eq!(next().see("a", &one, &inputs("x")), Why::Gone);
        let mut reasons = next();
        assert_eq!(reasons.see("a", &one, &inputs("x")), Why::Gone);
        assert_eq!(reasons.see("b", &other, &inputs("x")).to_string(), "follows a");
    }
}
