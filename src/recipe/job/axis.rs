//! The values that make a tuple.

use serde::Serialize;

/// The value of an axis in a tuple.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub enum AxisValue {
    /// The name of a fragment.
    Fragment(String),
    /// A branch of a git repository.
    Branch {
        /// Its name.
        branch: String,
        /// Its newest commit.
        commit: String,
    },
}

impl AxisValue {
    pub fn name(&self) -> &str {
        match self {
            Self::Fragment(name) | Self::Branch { branch: name, .. } => name,
        }
    }
}
