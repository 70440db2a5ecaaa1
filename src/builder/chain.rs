//! The layers of a build over its base.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::base::Base;
use super::overlays::OverlayMount;
use super::volumes;
use crate::base::digest::Sha256;
use crate::base::error::{Context, Result};
use crate::plan::nodes::CONFIGURE;
use crate::portage;
use crate::store::Store;
use crate::store::layers::{self, Layer, LayerRecord, MAX_CHAIN};
use crate::store::work::{Below, State, WorkPaths};

/// A base and the layers over it. The store keeps them for as long as this value lives.
#[derive(Debug)]
pub struct Chain {
    state: Sha256,
    /// The states of volumes by name, apart from those that no step named yet.
    volumes: BTreeMap<String, Sha256>,
    /// The state of the base.
    ground: Sha256,
    /// The names of the steps and their layers, lowest first.
    layers: Vec<(String, Arc<Layer>)>,
    /// The number of the lowest layers that one layer replaces in overlays, and that layer.
    merged: Option<(usize, Arc<Layer>)>,
    /// The volumes that began in their states in other images, with the layers of these images.
    borrowed: BTreeMap<String, Self>,
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
        Self::at(Sha256::of(identity.as_bytes()))
    }

    /// The state `state`, without layers.
    fn at(state: Sha256) -> Self {
        Self {
            state,
            ground: state,
            volumes: BTreeMap::new(),
            layers: Vec::new(),
            merged: None,
            borrowed: BTreeMap::new(),
        }
    }

    /// Returns the lowest `count` layers, which both chains hold then.
    ///
    /// # Errors
    /// Those of [`Chain::shorten`].
    pub fn lowest(&self, count: usize, store: &Store) -> Result<Self> {
        let mut chain = Self::at(self.ground);
        chain.borrowed = self.borrowed.iter().map(|(name, of)| (name.clone(), of.copied())).collect();
        self.layers.iter().take(count).for_each(|(name, layer)| chain.put(name, Arc::clone(layer)));
        chain.merged = self.merged.clone().filter(|(merged, _)| *merged <= count);
        chain.shorten(MAX_CHAIN, store)?;
        Ok(chain)
    }

    /// Returns the layers as those of the image `path`, from which another one starts.
    #[must_use]
    pub fn of_parent(mut self, path: &str) -> Self {
        for (name, _) in self.layers.iter_mut().filter(|(name, _)| !name.contains(':')) {
            *name = format!("{path}:{name}");
        }
        self
    }

    /// Returns the layers before the first step that wrote a configuration of Portage, if there is such a step.
    ///
    /// # Errors
    /// Those of [`Chain::lowest`].
    pub fn unconfigured(&self, store: &Store) -> Result<Option<Self>> {
        let named = |name: &str| name.rsplit(':').next() == Some(CONFIGURE);
        let at = self.layers.iter().position(|(name, _)| named(name));
        at.map(|at| self.lowest(at, store)).transpose()
    }

    /// Returns all layers again, which both chains hold then.
    fn copied(&self) -> Self {
        let mut chain = Self::at(self.ground);
        self.layers.iter().for_each(|(name, layer)| chain.put(name, Arc::clone(layer)));
        chain
    }

    /// Starts the volume `name` in the state that it has in the image with the layers `other`.
    pub fn borrow(&mut self, name: &str, other: &Self) {
        let mut of = other.borrowed.get(name).map_or_else(|| Self::at(Sha256::of(b"")), Self::copied);
        let changes = |layer: &&(String, Arc<Layer>)| layer.1.record().volumes.contains_key(name);
        other.layers.iter().filter(changes).for_each(|(step, layer)| of.put(step, Arc::clone(layer)));
        self.borrowed.insert(name.to_owned(), of);
    }

    /// Returns the layers that [`Chain::borrow`] was given, by the names of the volumes.
    pub fn borrowed_keys(&self) -> BTreeMap<String, Vec<(String, Sha256)>> {
        self.borrowed.iter().map(|(name, of)| (name.clone(), of.keys())).collect()
    }

    /// Returns the number of layers that `chains` hold open. Many chains may hold one layer.
    pub fn held<'a>(chains: impl Iterator<Item = &'a Self>) -> usize {
        let layers = chains.flat_map(|chain| &chain.layers);
        layers.map(|(_, layer)| Arc::as_ptr(layer)).collect::<BTreeSet<_>>().len()
    }

    /// The layers of the last build with the record `state`, over any base. `None` if one of them was removed from the store.
    ///
    /// # Errors
    /// [`Kind::System`](crate::base::error::Kind::System) if a layer cannot be read.
    pub fn find(state: &State, store: &Store) -> Result<Option<Self>> {
        let mut borrowed = BTreeMap::new();
        for (name, layers) in &state.volumes {
            let Some(of) = Self::found(&layers[..], BTreeMap::new(), store)? else { return Ok(None) };
            borrowed.insert(name.clone(), of);
        }
        Self::found(&state.layers, borrowed, store)
    }

    fn found(steps: &[(String, Sha256)], borrowed: BTreeMap<String, Self>, store: &Store) -> Result<Option<Self>> {
        let mut chain = Self { borrowed, ..Self::at(Sha256::of(b"")) };
        for (name, key) in steps {
            let Some(layer) = store.layer(key)? else { return Ok(None) };
            chain.push(name, layer);
            chain.shorten(MAX_CHAIN, store)?;
        }
        Ok(Some(chain))
    }

    /// The state of the trees: the same for the same base and the same results of all steps.
    pub fn state(&self) -> &Sha256 {
        &self.state
    }

    /// Puts a layer on top.
    pub fn push(&mut self, name: &str, layer: Layer) {
        self.put(name, Arc::new(layer));
    }

    fn put(&mut self, name: &str, layer: Arc<Layer>) {
        self.state = layer.record().chain();
        for (volume, result) in &layer.record().volumes {
            let state = layers::chain(&self.volume_state(volume), result);
            self.volumes.insert(volume.clone(), state);
        }
        self.layers.push((name.to_owned(), layer));
    }

    /// The state of a volume: the same for the same results of all steps that named it.
    pub fn volume_state(&self, volume: &str) -> Sha256 {
        let own = self.volumes.get(volume).copied();
        own.or_else(|| self.borrowed.get(volume).map(|of| of.volume_state(volume))).unwrap_or_else(|| Sha256::of(b""))
    }

    /// The names of the volumes that steps named.
    pub fn volumes(&self) -> impl Iterator<Item = &str> {
        let other = self.borrowed.keys().filter(|name| !self.volumes.contains_key(*name));
        self.volumes.keys().chain(other).map(String::as_str)
    }

    /// Returns the time from which on modification times are those of the layers or of a step that begins at `now`: when the first step
    /// began. They differ between stores, also where a later step copies a file of an earlier one with its time.
    pub fn began(&self, now: SystemTime) -> SystemTime {
        let started = self.layers.iter().map(|(_, layer)| UNIX_EPOCH + Duration::from_secs(layer.record().started));
        started.min().map_or(now, |first| first.min(now))
    }

    /// Returns the spans of time in which steps ran, in seconds since 1970, apart from commands of emerge: the files of a package keep
    /// the time at which it was compiled.
    pub fn spans(&self) -> Vec<RangeInclusive<i64>> {
        self.layers
            .iter()
            .map(|(_, layer)| layer.record())
            .filter(|record| !record.merges())
            .map(LayerRecord::span)
            .collect()
    }

    /// Takes the state after a step with the result `result`, whose layer nobody needs.
    pub fn assume(&mut self, result: &Sha256) {
        self.state = layers::chain(&self.state, result);
    }

    /// If overlays take more than `most` layers one by one, merges the lower half of those into one layer for overlays.
    ///
    /// # Errors
    /// Those of [`Store::flattened`].
    pub fn shorten(&mut self, most: usize, store: &Store) -> Result<()> {
        let single = self.layers.len() - self.replaced();
        if single <= most {
            return Ok(());
        }
        let count = self.replaced() + single / 2;
        let upper = self.layers[self.replaced()..count].iter().rev().map(|(_, layer)| &**layer);
        let chain: Vec<&Layer> = upper.chain(self.merged.as_ref().map(|(_, layer)| &**layer)).collect();
        self.merged = Some((count, Arc::new(store.flattened(&chain, || {})?)));
        Ok(())
    }

    /// The number of layers that another one replaces in overlays.
    fn replaced(&self) -> usize {
        self.merged.as_ref().map_or(0, |(count, _)| *count)
    }

    /// The directories with the changes at `place`, uppermost first.
    fn uppers(&self, place: &str) -> Vec<PathBuf> {
        let single = self.layers[self.replaced()..].iter().rev().map(|(_, layer)| layer);
        let merged = self.merged.as_ref().map(|(_, layer)| layer);
        single.chain(merged).filter_map(|layer| layer.upper(place)).collect()
    }

    /// Returns the layers up to the step `name`; with it, if `included`. `None` if the build has no step of that name.
    #[must_use]
    pub fn up_to(mut self, name: &str, included: bool) -> Option<Self> {
        let at = self.layers.iter().rposition(|(step, _)| step == name)?;
        self.layers.truncate(if included { at + 1 } else { at });
        self.merged = self.merged.filter(|(count, _)| *count <= self.layers.len());
        Some(self)
    }

    /// The names of the steps and the keys of their layers, lowest first.
    pub fn keys(&self) -> Vec<(String, Sha256)> {
        self.layers.iter().map(|(name, layer)| (name.clone(), layer.record().key)).collect()
    }

    /// Returns `overlay` with the changes of the layers to its place.
    fn over_it(&self, overlay: OverlayMount) -> OverlayMount {
        let place = overlay.place().to_string_lossy().into_owned();
        overlay.below(self.uppers(&place))
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

    /// Returns the overlay of a volume. An empty directory for it is created in `paths`.
    ///
    /// # Errors
    /// [`Kind::System`](crate::base::error::Kind::System) if the directory cannot be made.
    pub fn volume(&self, name: &str, paths: &WorkPaths) -> Result<OverlayMount> {
        let ground = match self.borrowed.get(name) {
            Some(of) => of.volume(name, paths)?,
            None => {
                let empty = paths.empty();
                make_empty(&empty).system(|| "making the empty directory of a volume")?;
                OverlayMount::alone(volumes::place(name), empty)
            }
        };
        Ok(self.over_it(ground))
    }
}

/// Makes an empty directory whose attributes are the same for everybody.
fn make_empty(path: &Path) -> std::io::Result<()> {
    use std::os::unix::fs::PermissionsExt;
    fs_err::create_dir_all(path)?;
    fs_err::set_permissions(path, std::fs::Permissions::from_mode(0o755))?;
    fs_err::File::open(path)?.into_file().set_modified(UNIX_EPOCH)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::layers::{FORMAT, Found};

    /// Makes the layer of a step that writes a file of its own and one that all write.
    fn layer(store: &Store, name: &str) -> Layer {
        let key = Sha256::of(name.as_bytes());
        let partial = match store.find_layer(&key, |_| true, || {}).unwrap() {
            Found::Missing(partial) => partial,
            Found::There(layer) => return *layer,
        };
        let upper = partial.upper("/");
        fs_err::create_dir(&upper).unwrap();
        [name, "all"].iter().for_each(|file| fs_err::write(upper.join(file), name).unwrap());
        let record = LayerRecord {
            format: FORMAT,
            key,
            parent: key,
            result: key,
            volumes: BTreeMap::new(),
            image: String::new(),
            step: name.to_owned(),
            inputs: Default::default(),
            why: String::new(),
            started: 0,
            milliseconds: 0,
            bytes: 0,
            notes: Vec::new(),
            packages: None,
        };
        partial.keep(record, &[]).unwrap()
    }

    /// The number of directories that are mounted, and the files in them with the data that show.
    fn seen(chain: &Chain) -> (usize, std::collections::BTreeMap<String, String>) {
        let uppers = chain.uppers("/");
        let mut files = std::collections::BTreeMap::new();
        for upper in uppers.iter().rev() {
            for entry in fs_err::read_dir(upper).unwrap() {
                let entry = entry.unwrap();
                let text = fs_err::read_to_string(entry.path()).unwrap();
                files.insert(entry.file_name().into_string().unwrap(), text);
            }
        }
        (uppers.len(), files)
    }

    #[test]
    fn a_long_chain_takes_few_lower_layers_and_means_the_same() {
        let home = tempfile::tempdir().unwrap();
        let store = Store::open(home.path()).unwrap();
        let mut chain = Chain::at(Sha256::of(b""));
        for number in 0..20 {
            let name = format!("step-{number}");
            chain.push(&name, layer(&store, &name));
            let (state, (_, before)) = (*chain.state(), seen(&chain));
            chain.shorten(4, &store).unwrap();
            let (count, after) = seen(&chain);
            assert!(count <= 5 && (number > 3 || count == number + 1), "{count} of {number}");
            assert_eq!((after, *chain.state()), (before, state));
        }
        assert_eq!((chain.keys().len(), chain.replaced()), (20, 16));
        let (count, files) = seen(&chain.up_to("step-4", true).unwrap());
        assert_eq!((count, files.len(), files["all"].as_str()), (5, 6, "step-4"));
    }
}
