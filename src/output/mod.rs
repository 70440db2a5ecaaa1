//! Publishes the results of a build. No result is visible under its final name before all results are complete and on disk.
//!
//! [`artifact`] lists the results with their names and bodies, [`Staging`] holds the incomplete ones, and [`publish`] moves them to their
//! names. [`claim`] keeps two recipes from overwriting each other's results.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use crate::base::error::{Context, Result};

pub mod artifact;
pub mod claim;
pub mod contents;
pub mod oci;
pub(crate) mod platform;
pub mod provenance;
pub mod sbom;
mod staging;
pub mod tarball;
#[cfg(test)]
pub(crate) mod tests;

pub use artifact::{Artifact, Body, Content, ImageSpec, PackageDirectory, Role, SplitArchive, StagedLayer};
pub use claim::Claim;
pub use contents::Contents;
pub use staging::Staging;

/// The results of a build, by their final paths.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Published(pub Vec<(Role, PathBuf)>);

impl Published {
    /// Returns the path of a result.
    pub fn path(&self, role: &Role) -> Option<&Path> {
        self.0.iter().find(|(known, _)| known == role).map(|(_, path)| path.as_path())
    }

    /// Returns the path of the OCI layout and its tag.
    pub fn oci(&self) -> Option<(&Path, &str)> {
        self.0.iter().find_map(|(role, path)| match role {
            Role::OciLayout { tag } => Some((path.as_path(), tag.as_str())),
            _ => None,
        })
    }
}

/// Completes the results in their staging directory, then moves each to its final name, in the order of the list.
///
/// A crash in between may leave the first result, the tarball, without its companions, but never with those of another tarball.
///
/// # Errors
/// [`Kind::System`](crate::base::error::Kind::System) if a result cannot be written, and those of [`Claim::keep`]. No result has
/// changed then, unless moving one failed.
pub fn publish(staging: Staging, artifacts: Vec<Artifact<'_>>, claim: Option<&Claim<'_>>) -> Result<Published> {
    for Artifact { name, body, .. } in &artifacts {
        match body {
            Body::Staged(file) => file.sync_all().system(|| format!("writing {name} to disk"))?,
            Body::Bytes(bytes) => staging.write(name, bytes)?,
            Body::Layout { layout, layers } => write_layout(&staging, name, layout, layers)?,
            Body::Packages(directory) => write_packages(&staging, name, directory)?,
        }
    }
    staging.sync(".")?;

    let _lock = staging.lock_outdir()?;
    if let Some(claim) = claim {
        claim.keep()?;
    }
    for Artifact { name, body, .. } in &artifacts {
        if matches!(body, Body::Bytes(_)) {
            staging.remove_old(name)?;
        }
    }
    let mut published = Vec::new();
    for Artifact { role, name, .. } in artifacts {
        published.push((role, staging.promote(&name)?));
    }
    staging.sync_outdir()?;
    Ok(Published(published))
}

/// Writes a directory of packages, the index last.
fn write_packages(staging: &Staging, root: &str, directory: &PackageDirectory) -> Result<()> {
    staging.mkdir(root)?;
    let parents: BTreeSet<&Path> = directory.packages.iter().flat_map(|(path, ..)| path.ancestors().skip(1)).collect();
    let parents: Vec<String> = parents.iter().map(|path| format!("{root}/{}", path.display())).collect();
    parents.iter().skip(1).try_for_each(|path| staging.mkdir(path))?;
    for (path, from, time) in &directory.packages {
        staging.copy(from, &format!("{root}/{}", path.display()), *time)?;
    }
    for (name, bytes) in &directory.documents {
        staging.write_dated(&format!("{root}/{name}"), bytes, directory.time)?;
    }
    parents.iter().rev().chain([&root.to_owned()]).try_for_each(|path| staging.sync(path.trim_end_matches('/')))
}

/// Writes an OCI layout. Its layers are hard links to the files `layers`, not copies.
fn write_layout(staging: &Staging, root: &str, layout: &oci::Layout, layers: &[String]) -> Result<()> {
    let blobs = format!("{root}/blobs/sha256");
    for directory in [root, &format!("{root}/blobs"), &blobs] {
        staging.mkdir(directory)?;
    }
    // Two layers may be the same file.
    let named: BTreeMap<&String, &String> = layout.layers.iter().zip(layers).collect();
    for (digest, layer) in named {
        staging.link(layer, &format!("{blobs}/{digest}"))?;
    }
    for (name, bytes) in &layout.blobs {
        staging.write(&format!("{blobs}/{name}"), bytes)?;
    }
    staging.write(&format!("{root}/index.json"), &layout.index)?;
    staging.write(&format!("{root}/oci-layout"), &layout.marker)?;
    for directory in [&blobs, &format!("{root}/blobs"), root] {
        staging.sync(directory)?;
    }
    Ok(())
}
