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
