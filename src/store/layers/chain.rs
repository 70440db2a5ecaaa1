//! A layer in the place of a long chain.

use std::collections::{BTreeMap, BTreeSet};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::time::Instant;

use super::super::Store;
use super::{FORMAT, Found, Layer, LayerRecord, flatten};
use crate::base::digest::Sha256;
use crate::base::error::{Context, Error, Result};
use crate::base::time;

/// The directories of upper directories in a layer.
const UPPERS: &str = "uppers";

impl Store {
    /// Returns a layer with the same changes as the chain `layers`, uppermost first, and makes it if it is missing. It takes their place
    /// in overlays only: the identity of the state stays that of the uppermost one.
    ///
    /// # Errors
    /// [`Kind::System`](crate::base::error::Kind::System) if a layer cannot be read, or the new one not be written.
    pub fn flattened(&self, layers: &[&Layer], waiting: impl Fn()) -> Result<Layer> {
        let (Some(top), Some(bottom)) = (layers.first(), layers.last()) else {
            return Err(Error::system("merging a chain of layers: it is empty"));
        };
        let start = Instant::now();
        // A layer that was made again has the same key, and may have other data that vary.
        let line = |layer: &&Layer| format!("{} {}\n", layer.record.key, layer.record.started);
        let key = Sha256::of(format!("flattened\n{}", layers.iter().map(line).collect::<String>()).as_bytes());
        let partial = match self.find_layer(&key, |_| true, waiting)? {
            Found::There(layer) => return Ok(*layer),
            Found::Missing(partial) => partial,
        };
        let mut parts: BTreeMap<PathBuf, Vec<PathBuf>> = BTreeMap::new();
        for layer in layers {
            for part in layer.uppers()? {
                let upper = layer.directory.join(&part);
                parts.entry(part).or_default().push(upper);
            }
        }
        for (part, uppers) in parts {
            let into = partial.directory().join(part);
            fs_err::create_dir_all(&into).system(|| "making a directory for a layer")?;
            flatten(&uppers.iter().map(PathBuf::as_path).collect::<Vec<_>>(), &into)?;
        }
        let record = LayerRecord {
            format: FORMAT,
            key,
            parent: bottom.record.parent,
            result: Sha256::of(b""),
            volumes: BTreeMap::new(),
            image: top.record.image.clone(),
            step: format!("{} to {}", bottom.record.step, top.record.step),
            inputs: BTreeMap::new(),
            why: String::new(),
            started: time::now(),
            milliseconds: u64::try_from(start.elapsed().as_millis()).unwrap_or(u64::MAX),
            bytes: 0,
            notes: Vec::new(),
            packages: None,
        };
        partial.keep(record, &[])
    }
}

impl Layer {
    /// Returns the upper directories, relative to its directory.
    fn uppers(&self) -> Result<BTreeSet<PathBuf>> {
        let listing = || format!("listing {}", self.directory.display());
        let mut found = BTreeSet::from([PathBuf::from("upper")]);
        match fs_err::read_dir(self.directory.join(UPPERS)) {
            Ok(entries) => {
                for entry in entries {
                    found.insert(Path::new(UPPERS).join(entry.system(listing)?.file_name()));
                }
            }
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) => return Err(error).system(listing),
        }
        found.retain(|part| self.directory.join(part).exists());
        Ok(found)
    }
}
