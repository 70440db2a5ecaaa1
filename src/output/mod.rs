//! Bytes → final names. Nothing is visible under its final name before all of it is on the disk.
//!
//! [`Staging`] holds what is in the making, [`stage4`] and [`oci`] and [`provenance`] say what the files are called and what is in
//! them, and [`publish`] puts the two together.

use crate::base::arch::Platform;
use crate::base::time::SourceDate;
use std::fs::File;
use std::path::PathBuf;

use crate::archive::pack::Packed;
use crate::base::error::{Context, Result};
use crate::recipe::Oci;

pub mod contents;
pub mod oci;
pub(crate) mod platform;
pub mod provenance;
pub mod stage4;
mod staging;
pub mod sums;
#[cfg(test)]
pub(crate) mod tests;

pub use contents::Contents;
pub use stage4::Names;
pub use staging::Staging;

/// What is to be published.
#[derive(Debug)]
pub struct Release<'a> {
    /// What the results are called.
    pub names: &'a Names,
    /// The recipe's name.
    pub title: &'a str,
    /// The instant that the documents carry.
    pub moment: SourceDate,
    /// The architecture.
    pub platform: Platform,
    /// The OCI image, if one is wanted.
    pub oci: Option<&'a Oci>,
    /// The tarball: made by [`Staging::create_file`] under the name [`Names::tarball`], complete.
    pub tarball: &'a File,
    /// What is in it.
    pub packed: &'a Packed,
    /// The bytes of its `CONTENTS.gz` ([`Contents::finish`]).
    pub contents: &'a [u8],
    /// The bytes of its `mtree.gz`, likewise.
    pub manifest: &'a [u8],
    /// The bytes of the provenance ([`provenance::document`]).
    pub provenance: &'a [u8],
}

/// The results, by their final paths.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Published {
    /// The stage4.
    pub tarball: PathBuf,
    /// Its checksum file.
    pub sha256: PathBuf,
    /// Its listing.
    pub contents: PathBuf,
    /// The digests of its files.
    pub manifest: PathBuf,
    /// Where it came from.
    pub provenance: PathBuf,
    /// The OCI layout and the tag in it.
    pub oci: Option<(PathBuf, String)>,
}

/// Completes a release in its staging directory, then gives everything its name.
///
/// A crash in between may leave the new tarball without its companions, never with those of another.
pub fn publish(staging: Staging, release: &Release<'_>) -> Result<Published> {
    let names = release.names;
    release.tarball.sync_all().system(|| format!("writing {} to the disk", names.tarball()))?;
    staging.write(&names.sha256(), sums::sha256_line(&release.packed.sha256, &names.tarball()).as_bytes())?;
    staging.write(&names.contents(), release.contents)?;
    staging.write(&names.manifest(), release.manifest)?;
    staging.write(&names.provenance(), release.provenance)?;
    let tag = match release.oci {
        Some(oci) => Some(write_layout(&staging, release, oci)?),
        None => None,
    };
    staging.sync(".")?;

    let _lock = staging.lock_outdir()?;
    for companion in [names.sha256(), names.contents(), names.manifest(), names.provenance()] {
        staging.forget(&companion)?;
    }
    let published = Published {
        tarball: staging.promote(&names.tarball())?,
        sha256: staging.promote(&names.sha256())?,
        contents: staging.promote(&names.contents())?,
        manifest: staging.promote(&names.manifest())?,
        provenance: staging.promote(&names.provenance())?,
        oci: match tag {
            Some(tag) => Some((staging.promote(&names.oci())?, tag)),
            None => None,
        },
    };
    staging.sync_outdir()?;
    Ok(published)
}

/// Writes the OCI layout whose layer is the tarball itself, not a copy.
fn write_layout(staging: &Staging, release: &Release<'_>, oci: &Oci) -> Result<String> {
    let layout = oci::layout(oci, release.title, release.platform, release.moment, release.packed)?;
    let root = release.names.oci();
    let blobs = format!("{root}/blobs/sha256");
    for directory in [root.as_str(), &format!("{root}/blobs"), &blobs] {
        staging.mkdir(directory)?;
    }
    staging.link(&release.names.tarball(), &format!("{blobs}/{}", layout.layer))?;
    for (name, bytes) in &layout.blobs {
        staging.write(&format!("{blobs}/{name}"), bytes)?;
    }
    staging.write(&format!("{root}/index.json"), &layout.index)?;
    staging.write(&format!("{root}/oci-layout"), &layout.marker)?;
    for directory in [&blobs, &format!("{root}/blobs"), &root] {
        staging.sync(directory)?;
    }
    Ok(layout.tag)
}
