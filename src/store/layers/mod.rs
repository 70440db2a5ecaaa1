//! Layers: the results of steps, by the key of the step. A layer is made in a directory with a temporary name, synced and renamed.
//! Nothing writes to it afterwards.
//!
//! ```text
//! layers/KEY-IDMAP/       KEY: the first 40 digits of the key; IDMAP: as for trees, because owners differ between user namespaces
//!   upper/                the upper directory of the overlay at /
//!   uppers/PLACE/         those of other overlays, by their mount points, and of volumes, as volume/NAME
//!   manifest.zst          the list of changes in `upper`; manifests/PLACE.zst for others
//!   layer.json            the record
//!   log.zst               the output of the step
//!   daemons/NAME.zst      that of its daemons
//!   used                  an empty file; its modification time is that of the last use
//! layers/KEY-IDMAP.lock   held exclusively to make or remove the layer. Never removed
//! ```
//!
//! A process that uses a layer holds a shared lock on the directory itself. It takes that lock under the lock of the key, so that no
//! other process can remove the layer in between.

mod chain;
mod collect;
mod flatten;
mod make;
mod record;
#[cfg(test)]
mod tests;
mod transfer;

use std::fs::File;
use std::io::{ErrorKind, Read};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, Timespec, Timestamps, UTIME_NOW, UTIME_OMIT};

pub use self::collect::{Chosen, Limits, Listed};
pub use self::flatten::flatten;
pub use self::make::Partial;
pub use self::record::{COMMAND, FORMAT, KeptPackages, LayerRecord, chain, result};
pub use self::transfer::Copied;
use super::Store;
use super::lock::{self, Mode};
use super::trees::{id_map, remove_tree};
use crate::archive::changes::Changes;
use crate::base::digest::Sha256;
use crate::base::error::{Context, Result};

/// Longest record in bytes.
const MAX_RECORD: u64 = 64 << 20;

/// Name of the file with the record.
const RECORD: &str = "layer.json";
/// Name of the file whose modification time is that of the last use.
const USED: &str = "used";
/// Name of the compressed output.
const LOG: &str = "log.zst";
/// Name of the directory with the output of daemons.
const DAEMONS: &str = "daemons";

/// A layer. It is not removed while this value exists.
#[derive(Debug)]
pub struct Layer {
    directory: PathBuf,
    record: LayerRecord,
    /// The directory with a shared lock.
    _used: File,
}

/// The most layers of a chain that an overlay should take one by one. The kernel takes 500, and a build adds a few of its own.
pub const MAX_CHAIN: usize = 400;

/// The result of looking for a layer.
#[derive(Debug)]
pub enum Found {
    /// The layer is there.
    There(Box<Layer>),
    /// The layer is missing, and no other process makes it.
    Missing(Partial),
}

impl Store {
    /// Returns the layer of a key, made with the same ID mapping, or the place to make it. A layer that `good` refuses is removed and
    /// counts as missing: it may be too old.
    ///
    /// Calls `waiting` before it waits: for a process that makes the layer, or for processes that use a layer that `good` refuses. So a
    /// caller must not hold a layer itself that it refuses.
    ///
    /// # Errors
    /// [`Kind::System`](crate::base::error::Kind::System) if the store cannot be read or written.
    pub fn find_layer(&self, key: &Sha256, good: impl Fn(&LayerRecord) -> bool, waiting: impl Fn()) -> Result<Found> {
        let directory = self.layer_directory(key)?;
        let path = lock_path(&directory);
        let shared = lock::take(&path, Mode::Shared, &waiting)?;
        if let Some(layer) = Layer::open(&directory, key)?.filter(|layer| good(&layer.record)) {
            layer.touch();
            return Ok(Found::There(Box::new(layer)));
        }
        drop(shared);
        let own = lock::take(&path, Mode::Exclusive, &waiting)?;
        // Another process may have made it meanwhile.
        if let Some(layer) = Layer::open(&directory, key)?.filter(|layer| good(&layer.record)) {
            layer.touch();
            return Ok(Found::There(Box::new(layer)));
        }
        if let Ok(old) = fs_err::File::open(&directory) {
            lock::hold(old.file(), &directory, Mode::Exclusive, &waiting)?;
            remove_tree(&directory)?;
        }
        Partial::new(directory, key, own).map(Found::Missing)
    }

    /// Returns the layer of a key, made with the same ID mapping, without counting that as a use. Returns `None` while a process makes
    /// or removes it.
    ///
    /// # Errors
    /// [`Kind::System`](crate::base::error::Kind::System) if the store cannot be read.
    pub fn layer(&self, key: &Sha256) -> Result<Option<Layer>> {
        let directory = self.layer_directory(key)?;
        if !directory.exists() {
            return Ok(None);
        }
        match lock::try_take(&lock_path(&directory), Mode::Shared)? {
            Some(_shared) => Layer::open(&directory, key),
            None => Ok(None),
        }
    }

    /// The directory of all layers.
    fn layers_directory(&self) -> PathBuf {
        self.root().join("layers")
    }

    fn layer_directory(&self, key: &Sha256) -> Result<PathBuf> {
        Ok(self.layers_directory().join(format!("{}-{}", &key.hex()[..40], id_map()?)))
    }
}

impl Layer {
    /// Opens the layer in `directory`, if there is one of this key that can be read. The caller holds the lock of the key.
    fn open(directory: &Path, key: &Sha256) -> Result<Option<Self>> {
        let used = match fs_err::File::open(directory) {
            Ok(file) => file.into_file(),
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error).system(|| "looking for a layer"),
        };
        lock::hold(&used, directory, Mode::Shared, || {})?;
        // A record in another form comes from another version of the program; the layer can always be made again.
        let record = read(&directory.join(RECORD), MAX_RECORD)?.and_then(|text| LayerRecord::parse(&text));
        let record = record.filter(|record| record.key == *key);
        Ok(record.map(|record| Self { directory: directory.to_owned(), record, _used: used }))
    }

    /// Its record.
    pub fn record(&self) -> &LayerRecord {
        &self.record
    }

    /// Its directory.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// The upper directory of the overlay at `place`; `None` if the step had no overlay there.
    pub fn upper(&self, place: &str) -> Option<PathBuf> {
        Some(upper(&self.directory, place)).filter(|upper| upper.exists())
    }

    /// Reads the list of changes at `place`; `None` if the step had no overlay there.
    ///
    /// # Errors
    /// [`Kind::System`](crate::base::error::Kind::System) if it cannot be read.
    pub fn manifest(&self, place: &str) -> Result<Option<Changes>> {
        read(&manifest(&self.directory, place), u64::MAX)?.map(|bytes| Changes::parse(&bytes)).transpose()
    }

    /// Returns the path of the compressed output of the step; `None` if there is none.
    pub fn log_path(&self) -> Option<PathBuf> {
        Some(self.directory.join(LOG)).filter(|path| path.exists())
    }

    /// Opens the output of the step, or of one of its daemons; `None` if there is none.
    ///
    /// # Errors
    /// [`Kind::System`](crate::base::error::Kind::System) if it cannot be opened.
    pub fn log(&self, daemon: Option<&str>) -> Result<Option<impl Read + use<>>> {
        let path = match daemon {
            Some(daemon) => self.directory.join(DAEMONS).join(format!("{daemon}.zst")),
            None => self.directory.join(LOG),
        };
        match fs_err::File::open(&path) {
            Ok(file) => zstd::Decoder::new(file).map(Some).system(|| format!("reading {}", path.display())),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error).system(|| "opening the output of a step"),
        }
    }

    /// Records the present time as that of the last use. After a failure the layer looks older than it is.
    fn touch(&self) {
        let time = |nanoseconds| Timespec { tv_sec: 0, tv_nsec: nanoseconds };
        let times = Timestamps { last_access: time(UTIME_OMIT), last_modification: time(UTIME_NOW) };
        let _ = rustix::fs::utimensat(&self._used, USED, &times, AtFlags::SYMLINK_NOFOLLOW);
    }
}

/// The upper directory of the overlay at `place` in the directory of a layer.
fn upper(directory: &Path, place: &str) -> PathBuf {
    if place == "/" { directory.join("upper") } else { directory.join("uppers").join(escaped(place)) }
}

/// The file with the list of changes of the overlay at `place`.
fn manifest(directory: &Path, place: &str) -> PathBuf {
    if place == "/" {
        directory.join("manifest.zst")
    } else {
        directory.join("manifests").join(format!("{}.zst", escaped(place)))
    }
}

/// A mount point as a file name.
fn escaped(place: &str) -> String {
    place.as_bytes().escape_ascii().to_string().replace('%', "%25").replace('/', "%2F")
}

fn lock_path(directory: &Path) -> PathBuf {
    directory.with_added_extension("lock")
}

/// Reads a file of at most `max` bytes, if it is there.
fn read(path: &Path, max: u64) -> Result<Option<Vec<u8>>> {
    let mut bytes = Vec::new();
    let read = fs_err::File::open(path).and_then(|file| file.take(max).read_to_end(&mut bytes));
    match read {
        Ok(_) => Ok(Some(bytes)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error).system(|| format!("reading {}", path.display())),
    }
}
