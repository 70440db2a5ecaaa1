//! The image that another one starts from.

use std::path::PathBuf;

use serde::Serialize;

use super::{Job, Step};

impl Job {
    /// Returns the steps of the images that this one starts from, and its own.
    pub fn all_steps(&self) -> Vec<&Step> {
        let mut steps = self.from.as_ref().map(|parent| parent.job.all_steps()).unwrap_or_default();
        steps.extend(&self.steps);
        steps
    }
}

/// An image that another one starts from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Parent {
    /// The image.
    #[serde(flatten)]
    pub job: Job,
    /// The file of its recipe.
    #[serde(skip)]
    pub origin: PathBuf,
}

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
