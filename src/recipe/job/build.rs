//! `[build]`: the kind of the tree, and the form and place of the results.

use std::path::PathBuf;

use serde::Serialize;

use super::{ProfileName, ProfileSpec, TreeKind};

/// `[build]`: the kind, the profile and the place of the results.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Build {
    /// The profile.
    pub profile: ProfileSpec,
    /// Lines that the file `packages` of the profile gets in addition.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub profile_packages: Vec<String>,
    /// A profile under which the builder itself is updated first (Quern's `unblocker_profile`).
    pub unblocker_profile: Option<ProfileName>,
    /// Image or stage4.
    pub kind: TreeKind,
    /// True for `kind = "packages"`: the result is the binary packages of the image, and not the image.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub packages_only: bool,
    /// The directory of the results.
    pub outdir: PathBuf,
    /// True to merge `@system` before the packages.
    pub include_system: bool,
    /// Atoms merged first, one by one; by default `sys-apps/baselayout` for an image.
    pub baselayout_atoms: Vec<String>,
    /// The base name of the results in place of `<name>-<date>`; `{date}` stands for the day as `YYYY-MM-DD`.
    pub image_name: Option<String>,
    /// `workdir-storage`: the size in bytes of a tmpfs for PORTAGE_TMPDIR; `None` keeps it on the disk.
    #[serde(rename = "tmpfs")]
    pub workdir_tmpfs: Option<u64>,
    /// True to keep the work directory of a failed build for `shell`.
    pub keep_failed: bool,
    /// The compression of the tarball.
    #[serde(skip_serializing_if = "Compression::is_default")]
    pub compression: Compression,
    /// SOURCE_DATE_EPOCH in steps, in seconds since 1970. `None`: the time of the base.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub epoch: Option<u64>,
    /// The forms of the bill of materials, without repetition.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub sbom: Vec<SbomFormat>,
}

/// A form of a software bill of materials.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum SbomFormat {
    /// SPDX 2.3.
    Spdx,
    /// CycloneDX 1.6.
    CycloneDx,
}

impl SbomFormat {
    /// Returns the end of the document's name, which tools know the form by.
    pub fn suffix(self) -> &'static str {
        match self {
            Self::Spdx => "spdx.json",
            Self::CycloneDx => "cdx.json",
        }
    }
}

/// The compression of the tarball, which is also the layer of the OCI image.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Compression {
    /// As small as `gzip -6`.
    #[default]
    Gzip,
    /// Faster than [`Compression::Gzip`], and larger.
    GzipFast,
    /// The smallest, and by far the slowest. OCI does not allow such a layer.
    Xz,
    /// Faster than [`Compression::Gzip`], and smaller.
    Zstd,
    /// No compression.
    None,
}

impl Compression {
    /// Returns the suffix of a tarball's name.
    pub fn suffix(self) -> &'static str {
        match self {
            Self::Gzip | Self::GzipFast => ".tar.gz",
            Self::Xz => ".tar.xz",
            Self::Zstd => ".tar.zst",
            Self::None => ".tar",
        }
    }

    fn is_default(&self) -> bool {
        *self == Self::default()
    }
}
