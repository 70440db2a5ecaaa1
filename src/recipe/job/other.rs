//! The other images that an image depends on.

use std::path::PathBuf;
use std::sync::Arc;

use serde::{Serialize, Serializer};

use super::{Job, Step, Volume};

impl Job {
    /// Returns the steps of the images that this one starts from, and its own.
    pub fn all_steps(&self) -> Vec<&Step> {
        let mut steps = self.from.as_ref().map(|parent| parent.job.all_steps()).unwrap_or_default();
        steps.extend(&self.steps);
        steps
    }

    /// Returns the images that this one starts from or needs itself.
    pub fn others(&self) -> impl Iterator<Item = &OtherImage> {
        self.from.as_deref().into_iter().chain(&self.needs)
    }

    /// Returns the volumes of the image's steps that begin in the state of another image, each once, with that image.
    pub fn volumes_of_others(&self) -> Vec<(&str, &OtherImage)> {
        let named = self.steps.iter().flat_map(|step| &step.volumes);
        let other = |volume: &'_ Volume| self.needs.iter().find(|other| Some(&other.origin) == volume.of.as_ref());
        let mut volumes: Vec<_> = named.filter_map(|volume| Some((volume.name.as_str(), other(volume)?))).collect();
        volumes.sort_by_key(|(name, _)| *name);
        volumes.dedup_by_key(|(name, _)| *name);
        volumes
    }
}

/// An image that another one starts from, or needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OtherImage {
    /// The image. Many others may start from it or need it.
    pub job: Arc<Job>,
    /// The file of its recipe, which is not a part of the provenance.
    pub origin: PathBuf,
}

impl Serialize for OtherImage {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.job.serialize(serializer)
    }
}
