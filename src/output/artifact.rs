//! The results of a build as a list of artifacts. A new kind of result is an arm of [`Role`] and a file that makes its body.

use std::borrow::Cow;
use std::fs::File;
use std::path::PathBuf;
use std::time::SystemTime;

use super::oci::{self, Layout};
use super::platform;
use super::staging::{Staging, checked_name};
use crate::archive::pack::Packed;
use crate::base::arch::Platform;
use crate::base::error::{Context as _, Result};
use crate::base::time::SourceDate;
use crate::recipe::{Job, Oci, SbomFormat};

/// The role of a result.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Role {
    /// The image as a tarball.
    Tarball,
    /// The SHA-256 of the tarball, for `sha256sum --check`.
    Checksum,
    /// A listing of the tarball.
    Contents,
    /// An mtree(5) manifest of the tarball with digests of its files.
    Manifest,
    /// The archive of this name, with a part of the image.
    Split(String),
    /// Its SHA-256, for `sha256sum --check`.
    SplitChecksum(String),
    /// The provenance of the image.
    Provenance,
    /// The bill of materials in this form.
    Sbom(SbomFormat),
    /// An OCI image layout. Its layer is the tarball, unless the recipe cuts it.
    OciLayout {
        /// The tag of the image.
        tag: String,
    },
    /// A directory of binary packages with its index.
    Packages,
}

/// The body of a result.
#[derive(Debug)]
pub enum Body<'a> {
    /// A file that is already in the staging directory.
    Staged(&'a File),
    /// The bytes of a file.
    Bytes(Cow<'a, [u8]>),
    /// The documents of an OCI layout.
    Layout {
        /// The documents.
        layout: Layout,
        /// The names of the layers in the staging directory, lowest first.
        layers: Vec<String>,
    },
    /// A directory of binary packages.
    Packages(PackageDirectory),
}

/// The content of a directory of binary packages.
#[derive(Debug)]
pub struct PackageDirectory {
    /// Its packages: path, open file and modification time.
    pub packages: Vec<(PathBuf, File, SystemTime)>,
    /// Other files by name, such as the index.
    pub documents: Vec<(&'static str, Vec<u8>)>,
    /// The modification time of the other files.
    pub time: SystemTime,
}

/// A result of a build.
#[derive(Debug)]
pub struct Artifact<'a> {
    /// The role of the result.
    pub role: Role,
    /// The name in the outdir.
    pub name: String,
    /// The body of the result.
    pub body: Body<'a>,
}

/// The part of a recipe that decides the names and documents of its results.
#[derive(Debug, Clone)]
pub struct ImageSpec<'a> {
    /// The common beginning of all names.
    pub base: String,
    /// The end of the tarball's name, with its dots.
    pub suffix: &'static str,
    /// The name of the recipe.
    pub title: &'a str,
    /// The date that the documents carry.
    pub date: SourceDate,
    /// The platform of the image.
    pub platform: Platform,
    /// The names of archives with parts of the image.
    pub split: Vec<&'a str>,
    /// The forms of the bill of materials.
    pub sbom: &'a [SbomFormat],
    /// The OCI image, if the recipe asks for one.
    pub oci: Option<&'a Oci>,
    /// True if the only result is a directory of packages.
    pub packages: bool,
}

/// A layer of an OCI image that is not the tarball.
#[derive(Debug)]
pub struct StagedLayer {
    /// The name in the staging directory.
    pub name: String,
    /// The sizes and digests of the layer.
    pub packed: Packed,
    /// The step that the layer ends with; `None` for the last layer.
    pub step: Option<String>,
}

impl StagedLayer {
    /// Makes the layer `number` with `pack`, which writes it to the file.
    ///
    /// # Errors
    /// Those of `pack`, and [`Kind::System`](crate::base::error::Kind::System) if the file cannot be made.
    pub fn make(
        staging: &Staging,
        number: usize,
        step: Option<&str>,
        pack: impl FnOnce(&mut File) -> Result<Packed>,
    ) -> Result<Self> {
        // No result has a name that begins with a dot.
        let name = format!(".layer-{number}");
        let mut file = staging.create_file(&name)?;
        let packed = pack(&mut file)?;
        file.sync_all().system(|| "writing a layer to disk")?;
        Ok(Self { name, packed, step: step.map(str::to_owned) })
    }
}

/// An archive of a part of the image.
#[derive(Debug)]
pub struct SplitArchive {
    /// The name in the recipe.
    pub name: String,
    /// The complete archive, created as [`ImageSpec::split_archive`].
    pub file: File,
    /// The sizes and digests of the archive.
    pub packed: Packed,
}

/// The files that a build made from its tree.
#[derive(Debug)]
pub struct Content<'a> {
    /// The complete tarball, created by [`Staging::create_file`](super::Staging::create_file) as [`ImageSpec::tarball`].
    pub tarball: &'a File,
    /// The sizes and digests of the tarball.
    pub packed: &'a Packed,
    /// The archives of parts of the image.
    pub split: &'a [SplitArchive],
    /// The layers of the OCI image, lowest first. Empty: the tarball is the only one.
    pub layers: &'a [StagedLayer],
    /// The listing ([`Contents::finish`](super::Contents::finish)).
    pub contents: &'a [u8],
    /// The manifest, compressed in the same way.
    pub manifest: &'a [u8],
    /// The provenance ([`provenance::document`](super::provenance::document)).
    pub provenance: &'a [u8],
    /// The bills of materials, in the order of [`ImageSpec::sbom`].
    pub sbom: &'a [Vec<u8>],
}

impl<'a> ImageSpec<'a> {
    /// Returns the results that `job` asks for. Their common name is `build.image-name`, or `<name>-<YYYY-MM-DD>`.
    ///
    /// # Errors
    /// [`Kind::Usage`](crate::base::error::Kind::Usage) if the name cannot be the name of a file.
    pub fn of_job(job: &'a Job, date: SourceDate) -> Result<Self> {
        let base = match &job.build.image_name {
            Some(name) => name.replace("{date}", &date.dashed()),
            None => format!("{}-{}", job.name, date.dashed()),
        };
        Ok(Self {
            base: checked_name(base)?,
            suffix: job.build.compression.suffix(),
            title: &job.name,
            date,
            platform: platform::of_job(job),
            split: job.split.keys().map(String::as_str).collect(),
            sbom: &job.build.sbom,
            oci: job.oci.as_ref(),
            packages: job.build.packages_only,
        })
    }

    /// Returns the name of the tarball.
    pub fn tarball(&self) -> String {
        self.name(&Role::Tarball)
    }

    /// Returns the name of the archive `name` of a part of the image.
    pub fn split_archive(&self, name: &str) -> String {
        format!("{}.{name}{}", self.base, self.suffix)
    }

    /// Returns the path of a layer in the outdir.
    pub fn layer(&self, packed: &Packed) -> String {
        format!("{}.oci/blobs/sha256/{}", self.base, packed.sha256.hex())
    }

    /// Returns the role and name of each result, the tarball first. A build publishes exactly these.
    ///
    /// # Errors
    /// [`Kind::Usage`](crate::base::error::Kind::Usage) if the tag is not valid.
    pub fn expected(&self) -> Result<Vec<(Role, String)>> {
        if self.packages {
            return Ok(vec![(Role::Packages, self.name(&Role::Packages))]);
        }
        let mut roles = vec![Role::Tarball, Role::Checksum, Role::Contents, Role::Manifest];
        let split = |name: &&str| [Role::Split((*name).to_owned()), Role::SplitChecksum((*name).to_owned())];
        roles.extend(self.split.iter().flat_map(split));
        roles.push(Role::Provenance);
        roles.extend(self.sbom.iter().copied().map(Role::Sbom));
        if let Some(oci) = self.oci {
            roles.push(Role::OciLayout { tag: oci::tag(oci, self.date)? });
        }
        let named = |role| {
            let name = self.name(&role);
            (role, name)
        };
        Ok(roles.into_iter().map(named).collect())
    }

    /// Returns the only result of a build of packages.
    pub fn package_artifact(&self, directory: PackageDirectory) -> Artifact<'a> {
        Artifact { role: Role::Packages, name: self.name(&Role::Packages), body: Body::Packages(directory) }
    }

    fn name(&self, role: &Role) -> String {
        let Self { base, suffix, .. } = self;
        match role {
            Role::Tarball => format!("{base}{suffix}"),
            Role::Checksum => format!("{base}{suffix}.sha256"),
            Role::Contents => format!("{base}{suffix}.CONTENTS.gz"),
            Role::Manifest => format!("{base}{suffix}.mtree.gz"),
            Role::Split(name) => self.split_archive(name),
            Role::SplitChecksum(name) => format!("{}.sha256", self.split_archive(name)),
            Role::Provenance => format!("{base}.json"),
            Role::Sbom(format) => format!("{base}.{}", format.suffix()),
            Role::OciLayout { .. } => format!("{base}.oci"),
            Role::Packages => format!("{base}.packages"),
        }
    }

    /// Returns the layers of the OCI image and their names in the staging directory.
    fn layers(&self, content: &Content<'a>) -> (Vec<oci::Layer<'a>>, Vec<String>) {
        if content.layers.is_empty() {
            return (vec![oci::Layer { packed: content.packed, step: None }], vec![self.tarball()]);
        }
        let layer = |layer: &'a StagedLayer| oci::Layer { packed: &layer.packed, step: layer.step.as_deref() };
        (content.layers.iter().map(layer).collect(), content.layers.iter().map(|layer| layer.name.clone()).collect())
    }

    /// Returns all results with their bodies, in the order of [`ImageSpec::expected`].
    ///
    /// # Errors
    /// Those of [`ImageSpec::expected`], and of composing the OCI documents.
    pub fn artifacts(&self, content: &Content<'a>) -> Result<Vec<Artifact<'a>>> {
        let mut artifacts = Vec::new();
        for (role, name) in self.expected()? {
            let body = match &role {
                Role::Tarball => Body::Staged(content.tarball),
                Role::Checksum => Body::Bytes(checksum(content.packed, &self.tarball())),
                Role::Split(of) | Role::SplitChecksum(of) => {
                    let Some(archive) = content.split.iter().find(|archive| archive.name == *of) else { continue };
                    match &role {
                        Role::Split(_) => Body::Staged(&archive.file),
                        _ => Body::Bytes(checksum(&archive.packed, &self.split_archive(of))),
                    }
                }
                Role::Contents => Body::Bytes(content.contents.into()),
                Role::Manifest => Body::Bytes(content.manifest.into()),
                Role::Provenance => Body::Bytes(content.provenance.into()),
                Role::Sbom(format) => {
                    let place = self.sbom.iter().position(|other| other == format);
                    let Some(document) = place.and_then(|place| content.sbom.get(place)) else { continue };
                    Body::Bytes(document.into())
                }
                Role::OciLayout { .. } => {
                    let Some(oci) = self.oci else { continue };
                    let (layers, names) = self.layers(content);
                    let layout = oci::layout(oci, self.title, self.platform, self.date, &layers)?;
                    Body::Layout { layout, layers: names }
                }
                // Packages have no tarball.
                Role::Packages => continue,
            };
            artifacts.push(Artifact { role, name, body });
        }
        Ok(artifacts)
    }
}

/// Returns the line for `sha256sum --check`. The name needs none of the escapes of coreutils, because `checked_name` accepts no such names.
fn checksum(packed: &Packed, name: &str) -> Cow<'static, [u8]> {
    format!("{}  {name}\n", packed.sha256).into_bytes().into()
}
