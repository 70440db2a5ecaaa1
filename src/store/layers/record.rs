//! The record of a layer.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::path::{Component, Path};

use serde::{Deserialize, Serialize};

use crate::archive::changes::Changes;
use crate::base::digest::Sha256;

/// Version of the layers' form. Layers with another one count as missing.
pub const FORMAT: u32 = 1;

/// The name of the input that only commands of emerge have.
pub const COMMAND: &str = "command";

/// The record of a layer, stored in `layer.json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LayerRecord {
    /// [`FORMAT`].
    pub format: u32,
    /// The key of the step: everything that decides its result.
    pub key: Sha256,
    /// The [`chain`](Self::chain) of the layer below, or the identity of the base.
    pub parent: Sha256,
    /// The [`result`] of the step.
    pub result: Sha256,
    /// The results of the step for the volumes that it named, by name. They are not a part of `result`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub volumes: BTreeMap<String, Sha256>,
    /// Name of the image whose build made the layer.
    pub image: String,
    /// Name of the step.
    pub step: String,
    /// The inputs of the key by name, for explanations.
    #[serde(default)]
    pub inputs: BTreeMap<String, String>,
    /// The reason why the step ran, for explanations. Empty for layers that no step made.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub why: String,
    /// When the step began, in seconds since 1970. All modification times that it caused are later.
    pub started: u64,
    /// Duration of the step in milliseconds.
    pub milliseconds: u64,
    /// Bytes of data in the files that the step wrote.
    pub bytes: u64,
    /// Facts about the run that later builds show again, such as processes that outlived the step.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
    /// The packages that the step merged and that later builds find in the store as binary packages, if there are any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub packages: Option<KeptPackages>,
}

/// Binary packages in the store.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeptPackages {
    /// The name of their directory.
    pub directory: String,
    /// Their names as `category/package-version`, each with its USE flags after a blank.
    pub names: Vec<String>,
}

impl KeptPackages {
    /// Returns true if the directory is a plain name. A record may come from another store.
    fn is_plain(&self) -> bool {
        let mut parts = Path::new(&self.directory).components();
        matches!((parts.next(), parts.next()), (Some(Component::Normal(_)), None))
    }
}

impl LayerRecord {
    /// Parses a record. Returns `None` for one of another format, and for one that names a directory outside the store.
    pub(super) fn parse(text: &[u8]) -> Option<Self> {
        let is_plain = |packages: &KeptPackages| packages.is_plain();
        serde_json::from_slice(text)
            .ok()
            .filter(|record: &Self| record.format == FORMAT && record.packages.as_ref().is_none_or(is_plain))
    }

    /// Returns true if the key depends on a secret of the store, so that no other store can compute it.
    pub fn is_of_this_store(&self) -> bool {
        self.inputs.keys().any(|name| name.starts_with("secret "))
    }

    /// Returns true if the step is a command of emerge.
    pub fn merges(&self) -> bool {
        self.inputs.contains_key(COMMAND)
    }

    /// Returns the first and the last second in which the step ran, since 1970.
    pub fn span(&self) -> RangeInclusive<i64> {
        let last = self.started.saturating_add(self.milliseconds.div_ceil(1000));
        i64::try_from(self.started).unwrap_or(i64::MAX)..=i64::try_from(last).unwrap_or(i64::MAX)
    }

    /// The identity of the state above the layer: that below it, and the result. It is the `parent` of the next layer. Steps with other
    /// keys and the same result lead to the same state.
    pub fn chain(&self) -> Sha256 {
        chain(&self.parent, &self.result)
    }
}

/// The identity of the state after a step with the result `result` on trees in the state `parent`.
pub fn chain(parent: &Sha256, result: &Sha256) -> Sha256 {
    Sha256::of(format!("{parent}\n{result}\n").as_bytes())
}

/// The digest of the changes of a step, for each of its overlays: mount point and changes.
pub fn result(changes: &[(&str, Changes)]) -> Sha256 {
    let mut lines: Vec<_> =
        changes.iter().map(|(place, changes)| format!("{} {}\n", changes.digest(), place.escape_default())).collect();
    lines.sort();
    Sha256::of(lines.concat().as_bytes())
}
