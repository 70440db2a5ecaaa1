//! Names of the files that a build leaves in the outdir.

use super::staging::checked_name;
use crate::base::error::Result;
use crate::base::time::SourceDate;
use crate::recipe::Job;

/// The names of one build's results.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Names {
    /// What all of them begin with.
    pub base: String,
    /// How the name of the stage4 ends, dots included.
    pub suffix: &'static str,
}

impl Names {
    /// `build.image-name`, or else `<name>-<YYYY-MM-DD>`.
    pub fn of_job(job: &Job, moment: SourceDate) -> Result<Self> {
        let base = match &job.build.image_name {
            Some(name) => name.clone(),
            None => format!("{}-{}", job.name, moment.dashed()),
        };
        Ok(Self { base: checked_name(base)?, suffix: job.build.compression.suffix() })
    }

    /// The stage4.
    pub fn tarball(&self) -> String {
        format!("{}{}", self.base, self.suffix)
    }

    /// Its SHA-256, as `sha256sum` writes it.
    pub fn sha256(&self) -> String {
        format!("{}.sha256", self.tarball())
    }

    /// The listing of what is in it.
    pub fn contents(&self) -> String {
        format!("{}.CONTENTS.gz", self.tarball())
    }

    /// What is in it with digests, for mtree(8).
    pub fn manifest(&self) -> String {
        format!("{}.mtree.gz", self.tarball())
    }

    /// Where it came from.
    pub fn provenance(&self) -> String {
        format!("{}.json", self.base)
    }

    /// The OCI image layout.
    pub fn oci(&self) -> String {
        format!("{}.oci", self.base)
    }
}
