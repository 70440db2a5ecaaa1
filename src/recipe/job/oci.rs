//! The OCI image of a recipe.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::recipe::dated;

/// `[oci]`: the OCI image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Oci {
    /// The tag, with its placeholder `{date}` (or Quern's `$$DATE$$`).
    pub tag: String,
    /// The entrypoint, in exec form.
    pub entrypoint: Vec<String>,
    /// The command, in exec form.
    pub cmd: Vec<String>,
    /// Environment variables.
    pub env: BTreeMap<String, String>,
    /// `user[:group]`.
    pub user: Option<String>,
    /// The working directory, absolute.
    pub workdir: Option<String>,
    /// Ports, as `80` or `53/udp`.
    pub ports: Vec<String>,
    /// Absolute paths of volumes.
    pub volumes: Vec<String>,
    /// Labels.
    pub labels: BTreeMap<String, String>,
    /// The author of the image.
    pub maintainer: Option<String>,
    /// The steps, or groups of steps, after which a layer ends. Empty: the tarball is the only layer.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub cuts: Vec<String>,
    /// True if the image has the layers of the image that it starts from below its own.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub on_parent: bool,
}

impl Oci {
    /// Returns the tag of an image made on a date (`YYYYMMDD`).
    pub fn tag_on(&self, date: &str) -> String {
        dated(&self.tag, date)
    }
}
