//! The layers of a build over its base.

use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use super::base::Base;
use super::overlays::OverlayMount;
use crate::base::digest::Sha256;
use crate::base::error::{Context, Result};
use crate::portage;
use crate::store::Store;
use crate::store::layers::Layer;
use crate::store::work::{Below, WorkPaths};

/// A base and the layers over it. The store keeps them for as long as this value lives.
#[derive(Debug)]
pub struct Chain {
    state: Sha256,
    /// The names of the steps and their layers, lowest first.
    layers: Vec<(String, Layer)>,
}

impl Chain {
    /// The base `base`, on which nothing was done yet.
    pub fn over(base: &Base) -> Self {
        let identity = match base.below() {
            Below::Stage3(sha512) => format!("stage3 {}", sha512.hex()),
            // Nobody knows the state of a running system, so no two builds start from the same one.
            Below::Host => {
                let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
                format!("host {} {}", std::process::id(), now.as_nanos())
            }
        };
        Self { state: Sha256::of(identity.as_bytes()), layers: Vec::new() }
    }

    /// The layers `steps` by the names and keys of their steps, lowest first, over any base. `None` if one of them was removed from the store.
    ///
    /// # Errors
    /// [`Kind::System`](crate::base::error::Kind::System) if a layer cannot be read.
    pub fn find(steps: &[(String, Sha256)], store: &Store) -> Result<Option<Self>> {
        let mut layers = Vec::new();
        for (name, key) in steps {
            let Some(layer) = store.layer(key)? else { return Ok(None) };
            layers.push((name.clone(), layer));
        }
        Ok(Some(Self { state: Sha256::of(b""), layers }))
    }

    /// The state of the trees: the same for the same base and the same results of all steps.
    pub fn state(&self) -> &Sha256 {
        &self.state
    }

    /// Puts a layer on top.
    pub fn push(&mut self, name: &str, layer: Layer) {
        self.state = layer.record().chain();
        self.layers.push((name.to_owned(), layer));
    }

    /// Returns the layers up to the step `name`; with it, if `included`. `None` if there is no such step.
    #[must_use]
    pub fn up_to(mut self, name: &str, included: bool) -> Option<Self> {
        let at = self.layers.iter().position(|(step, _)| step == name)?;
        self.layers.truncate(if included { at + 1 } else { at });
        Some(self)
    }

    /// The names of the steps and the keys of their layers, lowest first.
    pub fn keys(&self) -> Vec<(String, Sha256)> {
        self.layers.iter().map(|(name, layer)| (name.clone(), layer.record().key)).collect()
    }

    /// Returns `overlay` with the changes of the layers to its place.
    fn over_it(&self, overlay: OverlayMount) -> OverlayMount {
        let place = overlay.place().to_string_lossy().into_owned();
        let uppers: Vec<PathBuf> = self.layers.iter().rev().filter_map(|(_, layer)| layer.upper(&place)).collect();
        overlay.below(uppers)
    }

    /// Returns the overlays of the builder tree on `base`. Directories for them are created in `paths`.
    ///
    /// # Errors
    /// Those of [`Base::overlays`].
    pub fn builder(&self, base: &Base, paths: &WorkPaths) -> Result<Vec<OverlayMount>> {
        Ok(base.overlays(paths)?.into_iter().map(|overlay| self.over_it(overlay)).collect())
    }

    /// Returns the overlay of the image tree. An empty directory for it is created in `paths`.
    ///
    /// # Errors
    /// [`Kind::System`](crate::base::error::Kind::System) if the directory cannot be made.
    pub fn image(&self, paths: &WorkPaths) -> Result<OverlayMount> {
        let empty = paths.empty();
        make_empty(&empty).system(|| "making the empty tree of an image")?;
        Ok(self.over_it(OverlayMount::alone(portage::ROOT, empty)))
    }
}

/// Makes an empty directory whose attributes are the same for everybody.
fn make_empty(path: &Path) -> std::io::Result<()> {
    use std::os::unix::fs::PermissionsExt;
    fs_err::create_dir_all(path)?;
    fs_err::set_permissions(path, std::fs::Permissions::from_mode(0o755))?;
    fs_err::File::open(path)?.into_file().set_modified(UNIX_EPOCH)
}
