//! Why a step runs: the difference between its inputs and those of the last build of the recipe.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::base::digest::Sha256;
use crate::base::error::{Context, Kind, Result};
use crate::fs::atomic;
use crate::plan::nodes::{self, Inputs};
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

/// The reason why a step runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Why {
    /// No build of the recipe had a step of this name.
    New,
    /// These inputs changed.
    Changed(String),
    /// An earlier step has another result.
    Follows,
    /// The store does not have the layer any more, or the step must run again.
    Gone,
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::New => f.write_str("new"),
            Self::Changed(names) => write!(f, "{names} changed"),
            Self::Follows => f.write_str("an earlier step has another result"),
            Self::Gone => f.write_str("the store has no layer that may be used"),
        }
    }
}

impl Seen {
    /// Reads the record in a work directory. A damaged one counts as empty.
    pub fn read(work: &WorkPaths) -> Self {
        fs_err::read(work.steps_record()).ok().and_then(|text| serde_json::from_slice(&text).ok()).unwrap_or_default()
    }

    /// Writes the record.
    ///
    /// # Errors
    /// [`Kind::System`] if it cannot be written.
    pub fn write(&self, work: &WorkPaths) -> Result<()> {
        let text = serde_json::to_vec(self).context(Kind::System, || "recording the steps of the build")?;
        atomic::replace(&work.steps_record(), &text, 0o600)
    }

    /// Notes a step of the present build.
    pub fn note(&mut self, name: &str, parent: &Sha256, inputs: &Inputs) {
        self.0.insert(name.to_owned(), Last { parent: *parent, inputs: inputs.clone() });
    }

    /// Returns the reason why the step `name` runs with these inputs.
    pub fn why(&self, name: &str, parent: &Sha256, inputs: &Inputs) -> Why {
        let Some(last) = self.0.get(name) else { return Why::New };
        let changed = nodes::difference(&last.inputs, inputs);
        if !changed.is_empty() {
            Why::Changed(changed)
        } else if last.parent != *parent {
            Why::Follows
        } else {
            Why::Gone
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_reason_is_the_difference_to_the_last_build() {
        let inputs = |text: &str| Inputs::from([("script".to_owned(), text.to_owned())]);
        let (one, other) = (Sha256::of(b"1"), Sha256::of(b"2"));
        let mut seen = Seen::default();
        assert_eq!(seen.why("a", &one, &inputs("x")), Why::New);
        seen.note("a", &one, &inputs("x"));
        assert_eq!(seen.why("a", &one, &inputs("y")).to_string(), "script changed");
        assert_eq!(seen.why("a", &other, &inputs("x")), Why::Follows);
        assert_eq!(seen.why("a", &one, &inputs("x")), Why::Gone);
    }
}
